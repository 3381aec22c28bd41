"""Units of images: every conversion scales data, variances and modes, by the area of each pixel where it matters."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS, Sip

from skyloom.core.bandpass import Bandpass
from skyloom.core.geometry import pixel_area_map
from skyloom.core.image import Image, Mode
from skyloom.core.noise import sum_variance
from skyloom.errors import InputError, UnitError
from skyloom.imaging.grids.pixel_areas import pixel_areas
from skyloom.imaging.measure.units import FLUX_DENSITY, LINE_BRIGHTNESS, convert_unit
from skyloom.mock.scenes.images import sky_wcs

CENTRE = SkyCoord(24.174, 15.783, unit="deg")
PHOTFLAM, PIVOT, EXPOSURE = 2.19e-18, 6566.6, 2336.0
SHAPE = (24, 30)
SCALE = 0.04
C = 2.99792458e18


def image(
    unit: Any = "electron/s",
    *,
    shape: tuple[int, int] = SHAPE,
    wcs: WCS | None = None,
    dtype: Any = np.float64,
    modes: tuple[Mode, ...] | None = None,
    **meta: Any,
) -> Image:
    rng = np.random.default_rng(5)
    data = (1.0 + rng.random(shape)).astype(dtype)
    if modes is None:
        modes = (Mode("sky", 1.0, 1e-3), Mode("flat", rng.random(shape).astype(dtype), 1e-2))
    return Image(
        data,
        (1e-4 * (1 + rng.random(shape))).astype(dtype),
        rng.random(shape) < 0.05,
        u.Unit(unit),
        sky_wcs(CENTRE, shape, SCALE, angle=25.0) if wcs is None else wcs,
        correlation=np.array([[0.1, 0.2, 0.1], [0.2, 1.0, 0.2], [0.1, 0.2, 0.1]]),
        flags=np.ones(shape, np.uint16),
        modes=modes,
        meta={"photflam": PHOTFLAM, "photplam": PIVOT, "exposure": EXPOSURE, "path": "ngc.fits"} | meta,
    )


def distorted(shape: tuple[int, int], strength: float = 1e-4) -> WCS:
    """A WCS whose pixel areas change by a few per cent over the image."""
    wcs = sky_wcs(CENTRE, shape, SCALE, angle=25.0)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[2, 0], a[1, 1], a[0, 3] = strength, -0.3 * strength, 1e-3 * strength
    b[0, 2], b[2, 1] = 0.5 * strength, 1e-3 * strength
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    return wcs


def ratio(converted: Image, original: Image) -> np.ndarray:
    return converted.data / original.data


FLAM_AREA = PHOTFLAM / SCALE**2
CASES = [
    ("electron/s", "electron", EXPOSURE),
    ("electron", "electron/s", 1 / EXPOSURE),
    ("ct/s", "ct", EXPOSURE),
    ("electron/s", "erg / (s cm2 AA)", PHOTFLAM),
    ("ct/s", "1e-20 erg / (s cm2 AA)", PHOTFLAM / 1e-20),
    ("DN/s", "erg / (s cm2 AA)", PHOTFLAM),
    ("electron", "erg / (s cm2 AA)", PHOTFLAM / EXPOSURE),
    ("electron/s", "W / (m2 um)", PHOTFLAM * 10),
    ("electron/s", "Jy", PHOTFLAM * PIVOT**2 / C * 1e23),
    ("uJy", "electron/s", 1e-29 / (PHOTFLAM * PIVOT**2 / C)),
    ("Jy", "erg / (s cm2 AA)", 1e-23 * C / PIVOT**2),
    ("nmgy", "uJy", 3.630780547701014),
    ("erg / (s cm2 AA)", "nmgy", PIVOT**2 / C / 3.630780547701014e-29),
    ("erg / (s cm2)", "W / m2", 1e-3),
    ("electron/s", FLUX_DENSITY, FLAM_AREA / 1e-20),
    ("electron/s", "electron / (s arcsec2)", 1 / SCALE**2),
    ("electron/s", "erg / (s cm2 AA sr)", FLAM_AREA * (180 * 3600 / np.pi) ** 2),
    (FLUX_DENSITY, "electron/s", 1e-20 / FLAM_AREA),
    ("MJy/sr", "uJy / arcsec2", 1e12 * (np.pi / 180 / 3600) ** 2),
    ("MJy/sr", "uJy", 1e12 * (np.pi / 180 / 3600) ** 2 * SCALE**2),
    ("1e-20 erg / (s cm2)", LINE_BRIGHTNESS, 1 / SCALE**2),
    (LINE_BRIGHTNESS, "erg / (s cm2)", 1e-20 * SCALE**2),
    ("electron/s", "Jy/pix", PHOTFLAM * PIVOT**2 / C * 1e23),
    ("Jy/pix", "Jy", 1.0),
]


@pytest.mark.parametrize(("source", "target", "factor"), CASES)
def test_every_conversion_has_its_factor(source: str, target: str, factor: float) -> None:
    before = image(source)
    after = convert_unit(before, target)
    np.testing.assert_allclose(after.data, before.data * factor, rtol=2e-9)
    np.testing.assert_allclose(after.variance, before.variance * factor**2, rtol=4e-9)
    for old, new in zip(before.modes, after.modes, strict=True):
        np.testing.assert_allclose(new.map * new.sigma, old.map * old.sigma * factor, rtol=2e-9)
    assert after.unit == u.Unit(target) * (u.pix if "pix" in str(target) else 1)
    assert after.correlation is before.correlation
    assert after.mask is before.mask
    assert after.flags is before.flags
    # And back: the product of both factors is 1.
    again = convert_unit(after, source)
    np.testing.assert_allclose(again.data, before.data, rtol=1e-13)
    np.testing.assert_allclose(again.variance, before.variance, rtol=1e-13)


def test_the_history_says_what_went_into_it() -> None:
    last = convert_unit(image("electron"), "uJy / arcsec2").history[-1]
    assert last.name == "convert_unit"
    assert last.parameters["unit_before"] == "electron"
    assert last.parameters["unit"] == "uJy / arcsec2"
    assert last.parameters["photflam"] == PHOTFLAM
    assert last.parameters["pivot"] == PIVOT
    assert last.parameters["exposure"] == EXPOSURE
    assert last.parameters["pixel_area_arcsec2"] == pytest.approx(SCALE**2)
    # What was not needed is neither asked for nor claimed.
    bare = Image(np.ones((3, 3)), np.ones((3, 3)), np.zeros((3, 3), bool), "Jy", None)
    plain = convert_unit(bare, "mJy")
    assert plain.data[0, 0] == 1000.0
    assert set(plain.history[-1].parameters) == {"unit_before", "unit", "factor"}


def test_arguments_stand_before_the_header_and_the_band_between() -> None:
    band = Bandpass.tophat(6600.0, 100.0, name="F657N")
    source = image("erg / (s cm2 AA)")

    def jansky(**given: Any) -> float:
        return float(ratio(convert_unit(source, "Jy", **given), source)[0, 0])

    assert jansky() == pytest.approx(PIVOT**2 / C * 1e23)
    assert jansky(bandpass=band) == pytest.approx(band.pivot**2 / C * 1e23)
    assert jansky(bandpass=band, pivot=6500.0) == pytest.approx(6500.0**2 / C * 1e23)
    counts = image()
    assert ratio(convert_unit(counts, "erg/(s cm2 AA)", photflam=1e-18), counts)[0, 0] == pytest.approx(1e-18)
    # Through an AB zero point, as in the absence of a PHOTFLAM.
    zero = convert_unit(counts, "Jy", photflam=band.photflam(25.0), bandpass=band)
    assert ratio(zero, counts)[0, 0] == pytest.approx(3630.780547701 * 10 ** (-0.4 * 25.0))


def test_swapped_bands_are_noticed() -> None:
    with pytest.raises(InputError, match=r"ngc.fits: .*PHOTPLAM is 6566.6 A, but the band f814w.*8.*swapped"):
        convert_unit(image(), "Jy", bandpass=Bandpass.tophat(8045.0, 1850.0, name="f814w"))


def test_float32_stays_float32_and_keeps_its_digits() -> None:
    source = image(dtype=np.float32)
    exact = image(dtype=np.float64)
    after, reference = convert_unit(source, FLUX_DENSITY), convert_unit(exact, FLUX_DENSITY)
    for plane in (after.data, after.variance, after.modes[1].map):
        assert plane.dtype == np.float32
    np.testing.assert_allclose(after.data, reference.data, rtol=3e-7)
    np.testing.assert_allclose(after.variance, reference.variance, rtol=3e-7)


def test_variances_that_leave_float32_are_refused() -> None:
    """(2e-18 x 0.01)^2 is 4e-40: in plain erg s-1 cm-2 A-1 float32 would keep a few bits of it, or 0."""
    source = image(dtype=np.float32)
    with pytest.raises(UnitError, match=r"ngc.fits: unit: .*float32.*1e-20 erg"):
        convert_unit(source, "erg / (s cm2 AA)")
    assert convert_unit(image(), "erg / (s cm2 AA)").variance.min() > 0
    small = convert_unit(source, "1e-20 erg / (s cm2 AA)")
    with pytest.raises(UnitError, match="float32"):
        convert_unit(small, "1e-45 erg / (s cm2 AA)")


def test_nothing_is_copied_that_does_not_change() -> None:
    source = image("erg / (s cm2 AA arcsec2)")
    same = convert_unit(source, "erg s-1 cm-2 AA-1 arcsec-2")
    assert same.data is source.data
    assert same.variance is source.variance
    scaled = convert_unit(source, FLUX_DENSITY)
    assert scaled.modes[1].map is source.modes[1].map


# ------------------------------------------------------------------------------------------------- pixel areas


def test_areas_of_a_distorted_image_divide_pixel_by_pixel() -> None:
    shape = (40, 56)
    wcs = distorted(shape, 3e-4)
    areas = pixel_area_map(wcs, shape)
    assert np.ptp(areas) > 0.02 * areas.mean()
    source = image(shape=shape, wcs=wcs, modes=(Mode("sky", 1.0, 1e-3), Mode("flat", np.ones(shape), 1e-2)))
    after = convert_unit(source, "electron / (s arcsec2)")
    np.testing.assert_allclose(after.data, source.data / areas, rtol=1e-7)
    np.testing.assert_allclose(after.variance, source.variance / areas**2, rtol=2e-7)
    for old, new in zip(source.modes, after.modes, strict=True):
        np.testing.assert_allclose(new.map * new.sigma, old.map * old.sigma / areas, rtol=1e-7)
    again = convert_unit(after, "electron/s")
    np.testing.assert_allclose(again.data, source.data, rtol=1e-13)
    # The signal to noise of a sum of the same photons does not depend on the unit.
    weights = areas
    assert np.sum(weights * after.data) == pytest.approx(source.data.sum(), rel=1e-7)
    assert sum_variance(after.variance, weights, after.correlation) == pytest.approx(
        sum_variance(source.variance, np.ones(shape), source.correlation), rel=1e-6
    )


@pytest.mark.parametrize(
    ("kind", "constant"), [("flat", True), ("wide", False), ("distorted", False), ("table", False)]
)
def test_fast_areas_are_the_areas(kind: str, constant: bool) -> None:
    shape = (70, 110)
    wcs = sky_wcs(CENTRE, shape, {"wide": 30.0}.get(kind, SCALE), angle=25.0)
    if kind == "distorted":
        wcs = distorted(shape)
    if kind == "table":
        from astropy.wcs import DistortionLookupTable

        bumps = np.random.default_rng(2).normal(0.0, 0.05, (8, 8)).astype(np.float32)
        wcs.cpdis1 = DistortionLookupTable(bumps, (1.0, 1.0), (1.0, 1.0), (110 / 7, 70 / 7))
    areas = pixel_areas(wcs, shape)
    assert areas.constant is constant
    fast = areas.mean * np.concatenate([areas.relative(slice(0, 13)), areas.relative(slice(13, None))])
    np.testing.assert_allclose(fast, pixel_area_map(wcs, shape), rtol=1e-7)
    assert areas.spread == pytest.approx(np.ptp(fast) / areas.mean, rel=0.2, abs=1e-7)


def test_areas_of_an_image_beyond_the_sky_are_refused() -> None:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---MOL", "DEC--MOL"]
    wcs.wcs.cdelt = [-10.0, 10.0]
    wcs.wcs.crpix = [20.0, 20.0]
    wcs.wcs.set()
    with pytest.raises(InputError, match=r"ngc.fits: wcs: .*gives no area to"):
        convert_unit(image(shape=(40, 40), wcs=wcs), FLUX_DENSITY)


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("source", "target", "missing", "words"),
    [
        ("electron/s", FLUX_DENSITY, "photflam", r"ngc.fits: PHOTFLAM: .*not known; pass photflam="),
        ("ct/s", "Jy", "photflam", r"ngc.fits: PHOTFLAM: "),
        ("Jy", FLUX_DENSITY, "photplam", r"ngc.fits: PHOTPLAM: .*not known; pass pivot="),
        ("electron", "electron/s", "exposure", r"ngc.fits: EXPTIME: .*not known; .*image.meta\['exposure'\]"),
    ],
)
def test_what_is_missing_is_named(source: str, target: Any, missing: str, words: str) -> None:
    before = image(source)
    meta = {key: value for key, value in before.meta.items() if key != missing}
    with pytest.raises(InputError, match=words):
        convert_unit(before.evolve(meta=meta), target)
    for useless in (0.0, -1.0, np.nan, "N/A"):
        with pytest.raises(InputError, match="expected a number > 0"):
            convert_unit(before.evolve(meta=meta | {missing: useless}), target)


def test_a_missing_wcs_is_named() -> None:
    with pytest.raises(InputError, match=r"ngc.fits: wcs: .*the image has none; give the image a WCS"):
        convert_unit(image().evolve(wcs=None), FLUX_DENSITY)
    with pytest.raises(InputError, match=r"^wcs: "):
        convert_unit(image().evolve(wcs=None, meta={"photflam": 1.0}), FLUX_DENSITY)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("electron/s", LINE_BRIGHTNESS, "line flux; multiply the flux density with Bandpass.line_width"),
        ("1e-20 erg / (s cm2)", "Jy", "Bandpass.line_width"),
        ("ct/s", "electron/s", "ct and electron differ by the gain"),
        ("km/s", FLUX_DENSITY, "'km / s' is neither counts"),
        ("", FLUX_DENSITY, "'dimensionless' is neither counts.*electron/s"),
        ("electron/s", "mag", "'mag' is neither"),
        ("electron/s", "flux", "not a unit"),
    ],
)
def test_units_of_other_things_are_refused(source: str, target: Any, words: str) -> None:
    with pytest.raises(UnitError, match=words):
        convert_unit(image(source), target)
