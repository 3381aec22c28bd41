"""What existing Halpha pipelines got wrong in units and headers, and must not come back.

Existing pipelines took surface brightness from ``CD1_1`` alone, left a factor of 1e20 out of BUNIT, and edited the
headers of their inputs.
"""

from __future__ import annotations

import copy
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.core.bandpass import Bandpass
from skyloom.core.image import Image, Mode
from skyloom.imaging.measure.units import FLUX_DENSITY, LINE_BRIGHTNESS, convert_unit
from skyloom.io.formats.headers import parse_bunit
from skyloom.io.hst import read_hst
from skyloom.mock.scenes.images import sky_wcs, truth_image
from skyloom.mock.scenes.mixture import Mixture
from skyloom.mock.scenes.scene import Component, Scene
from skyloom.mock.scenes.templates import populations

PHOTFLAM = 2.19e-18
SCALE = 0.04
BAND = Bandpass.tophat(6566.0, 121.0, name="F657N")
ANGLES = (0.0, 25.0, 90.0)


def scene() -> Scene:
    """An inclined disc with a bulge and a dim companion, none of them sharper than 15 pixels."""
    turned = np.array([[9.0, 4.0], [4.0, 6.0]])
    mixture = Mixture(
        np.ones(3),
        np.array([[0.0, 0.0], [0.3, -0.2], [-1.5, 2.0]]),
        np.stack([turned, 0.5 * np.eye(2), 0.36 * np.eye(2)]),
    )
    shares = np.zeros((3, len(populations())))
    shares[:, 0] = 1.0
    continuum = np.array([4e-16, 5e-17, 1e-18])
    lines = {"Halpha": np.array([1e-14, 1e-15, 1e-16])}
    return Scene("disc", (24.174, 15.783), (Component("disc", 1, mixture, continuum, shares, lines=lines),))


def observed(sky: Scene, place: tuple[float, float], angle: float, shape: tuple[int, int] = (5, 5)) -> Image:
    return truth_image(sky, BAND, sky_wcs(place, shape, SCALE, angle=angle), shape, photflam=PHOTFLAM)


# ------------------------------------------------------------------------------- surface brightness and rotation


@pytest.mark.parametrize("unit", [FLUX_DENSITY, "MJy / sr", "electron / (s arcsec2)"])
def test_surface_brightness_does_not_depend_on_rotation(unit: u.UnitBase | str) -> None:
    """The same places of a noise-free sky, in the middle of a pixel each, have the same brightness at all angles.

    A square pixel averages a Gaussian as wide as 15 of it alike at all angles to (1/15)^4 / 100 = 2e-7.
    """
    sky = scene()
    east, north = np.array([0.0, 1.0, -3.0, 2.2]), np.array([0.0, -1.0, 1.5, 4.0])
    cosine = np.cos(np.radians(sky.centre[1]))
    places = zip(sky.centre[0] + east / 3600 / cosine, sky.centre[1] + north / 3600, strict=True)
    for place in places:
        images = [observed(sky, (float(place[0]), float(place[1])), angle) for angle in ANGLES]
        values = [float(convert_unit(image, unit).data[2, 2]) for image in images]
        np.testing.assert_allclose(values, values[0], rtol=1e-6)


def test_a_quarter_turn_turns_the_map() -> None:
    sky = scene()
    upright, turned = (
        convert_unit(observed(sky, sky.centre, angle, (61, 61)), FLUX_DENSITY).data for angle in (0.0, 90.0)
    )
    # The y axis points east at 90 degrees: row and column change places, and x turns round.
    candidates = [np.rot90(turned, k) for k in (1, 3)]
    differences = [np.max(np.abs(candidate / upright - 1.0)) for candidate in candidates]
    assert min(differences) < 1e-6
    assert max(differences) > 0.1


def test_surface_brightness_from_cd1_1_alone_would_be_off_by_1_217() -> None:
    """What existing pipelines did: at 25 degrees, 1 / cos(25)^2."""
    image = observed(scene(), scene().centre, 25.0)
    wrong = image.data * PHOTFLAM / 1e-20 / (image.wcs.wcs.cd[0, 0] * 3600) ** 2
    np.testing.assert_allclose(wrong / convert_unit(image, FLUX_DENSITY).data, 1.2174, rtol=1e-4)


def test_fluxes_are_the_same_through_brightness_and_per_pixel() -> None:
    """Sum of brightness times area = sum of fluxes per pixel, which is the flux of the scene."""
    sky, shape = scene(), (151, 151)
    wcs = sky_wcs(sky.centre, shape, 0.2, angle=25.0)
    image = truth_image(sky, BAND, wcs, shape, photflam=PHOTFLAM)
    brightness = convert_unit(image, FLUX_DENSITY)
    per_pixel = convert_unit(brightness, "1e-20 erg / (s cm2 AA)")
    total = float(sky.band_fluxes(BAND).sum()) / 1e-20
    assert per_pixel.data.sum() == pytest.approx(total, rel=1e-6)
    assert brightness.data.sum() * brightness.pixel_area == pytest.approx(total, rel=1e-6)


# ----------------------------------------------------------------------------------------------- factor of 1e20


@pytest.mark.parametrize(
    "unit", [FLUX_DENSITY, LINE_BRIGHTNESS, u.Unit("1e-20 erg / (s cm2)"), u.Unit("1e-17 W / m2")]
)
def test_bunit_keeps_the_factor(tmp_path: Path, unit: u.UnitBase) -> None:
    """The number times BUNIT, read by any FITS program, is the flux."""
    rng = np.random.default_rng(3)
    shape = (7, 9)
    image = Image(
        rng.random(shape, dtype=np.float32) + 1,
        rng.random(shape, dtype=np.float32) + 1,
        np.zeros(shape, bool),
        unit,
        sky_wcs((24.17, 15.78), shape, SCALE, angle=25.0),
        modes=(Mode("offset", 1.0, 0.1),),
    )
    sl.write(image, tmp_path / "map.fits")
    with fits.open(tmp_path / "map.fits") as opened:
        planes = {hdu.name: hdu for hdu in opened if hdu.data is not None}
        written = u.Quantity(planes["SCI"].data, u.Unit(planes["SCI"].header["BUNIT"]))
        spread = u.Quantity(planes["VAR"].data, u.Unit(planes["VAR"].header["BUNIT"]))
        np.testing.assert_allclose(written.cgs.value, image.data * unit.cgs.scale, rtol=1e-6)
        np.testing.assert_allclose(spread.cgs.value, image.variance * unit.cgs.scale**2, rtol=1e-6)
    again = sl.read(tmp_path / "map.fits")
    assert again.unit == unit
    assert again.unit.scale == unit.scale
    np.testing.assert_array_equal(again.data, image.data)


def test_the_factor_of_a_header_enters_the_conversion() -> None:
    """Maps of MUSE say ``10**(-20)*erg/s/cm**2``; ignoring the power would leave 1e20 somewhere."""
    shape = (5, 5)
    image = Image(
        np.full(shape, 300.0, np.float32),
        np.ones(shape, np.float32),
        np.zeros(shape, bool),
        parse_bunit("10**(-20)*erg/s/cm**2"),
        sky_wcs((24.17, 15.78), shape, 0.2),
    )
    np.testing.assert_allclose(convert_unit(image, LINE_BRIGHTNESS).data, 300.0 / 0.04, rtol=1e-6)
    np.testing.assert_allclose(
        convert_unit(image.evolve(variance=np.ones(shape), data=np.full(shape, 300.0)), "W/m2").data, 3e-21
    )


# ------------------------------------------------------------------------------------------ headers of the input


def test_inputs_are_never_edited(tmp_path: Path) -> None:
    """Neither the file that was read nor the image that was converted changes."""
    shape = (12, 10)
    header = sky_wcs((24.17, 15.78), shape, SCALE, angle=25.0).to_header()
    header.update({"TELESCOP": "HST", "INSTRUME": "WFC3", "DETECTOR": "UVIS", "FILTER": "F657N"})
    header.update({"BUNIT": "ELECTRONS/S", "PHOTFLAM": PHOTFLAM, "PHOTPLAM": 6566.6, "EXPTIME": 2336.0})
    paths = tmp_path / "sci.fits", tmp_path / "wht.fits"
    for path, value in zip(paths, (2.0, 100.0), strict=True):
        fits.PrimaryHDU(np.full(shape, value, np.float32), header).writeto(path)
    before = [path.read_bytes() for path in paths]
    image = read_hst(paths[0], weight=paths[1])
    image.data.flags.writeable = image.variance.flags.writeable = False
    kept = copy.deepcopy((image.meta, image.unit, image.history, image.wcs.to_header_string()))
    result = convert_unit(image, FLUX_DENSITY)
    sl.write(result, tmp_path / "result.fits")
    assert [path.read_bytes() for path in paths] == before
    assert (image.meta, image.unit, image.history, image.wcs.to_header_string()) == kept
    assert len(result.history) == len(image.history) + 1
    np.testing.assert_allclose(result.data, 2.0 * PHOTFLAM / 1e-20 / SCALE**2, rtol=1e-6)
