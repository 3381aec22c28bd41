"""Photometry of what a store holds: spectra through filters, images in the fibre, and the commands for both."""

from __future__ import annotations

import json

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from typer.testing import CliRunner

import skyloom.store
from skyloom.cli import app
from skyloom.core.image import Image
from skyloom.core.psf import GaussianPSF
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError
from skyloom.imaging import fibre_flux
from skyloom.io import sdss_bandpasses
from skyloom.io.fits import write
from skyloom.spectral import merged_transmission, synthetic_magnitudes, transmission_weighted

SHAPE = (90, 96)
PLACE = 10.0, -5.0
FWHM = {"r": 1.2, "g": 1.6}
TOTAL = 50.0  # nmgy
LAGS = np.array([0.25, 1.0, 0.25])


def wcs(column: float = 40.3, row: float = 50.2) -> WCS:
    """Return a WCS with the fibre at a pixel, counted from 0."""
    made = WCS(naxis=2)
    made.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    made.wcs.crval = list(PLACE)
    made.wcs.crpix = [column + 1, row + 1]
    made.wcs.cd = np.array([[-0.4, 0.0], [0.0, 0.4]]) / 3600
    return made


def image(
    band: str, *, unit: str = "nmgy", place: tuple[float, float] = (40.3, 50.2), psf: bool = True
) -> Image:
    """Return a star in the fibre, in noise."""
    shape = GaussianPSF(FWHM[band])
    placed = wcs(*place)
    x, y = place
    matrix = np.array([[-0.4, 0.0], [0.0, 0.4]])
    data = np.random.default_rng(3).normal(0.0, 0.01, SHAPE)
    star = shape.render(matrix, 41, (x - round(x), y - round(y)))
    # The star's stamp may reach beyond the border.
    rows, columns = np.mgrid[-20:21, -20:21]
    rows, columns = rows + round(y), columns + round(x)
    inside = (rows >= 0) & (columns >= 0) & (rows < SHAPE[0]) & (columns < SHAPE[1])
    data[rows[inside], columns[inside]] += TOTAL * star[inside]
    meta = {"instrument": "SDSS", "survey": "SDSS", "band": band}
    return Image(
        data.astype(np.float32), np.full(SHAPE, 1e-4, np.float32), np.zeros(SHAPE, bool), unit, placed,
        psf=shape if psf else None, meta=meta,
    )  # fmt: skip


def spectrum(**meta: float) -> Spectra:
    """Return a flat spectrum of the star, in f_nu."""
    wave = 10 ** (3.55 + 1e-4 * np.arange(4500))
    level = (TOTAL * 3.631e-29 * 2.99792458e18 / wave**2) / 1e-17
    data = level + np.random.default_rng(5).normal(0.0, 0.1, wave.size)
    said = {"instrument": "spectrograph", "ra": PLACE[0], "dec": PLACE[1], "fibre_diameter": 3.0, **meta}
    return Spectra(
        data[None], np.full((1, wave.size), 0.01), np.zeros((1, wave.size), bool), "1e-17 erg/(s cm2 AA)", wave,
        "vacuum", correlation=LAGS, meta=said,
    )  # fmt: skip


@pytest.fixture(scope="module")
def images() -> dict[str, Image]:
    return {"r": image("r"), "g": image("g")}


@pytest.fixture(scope="module")
def store(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photometry")
    for band, content in images.items():
        write(content, folder / f"frame-{band}.fits")
    write(image("r", place=(-0.2, 50.2)), folder / "border.fits")
    write(image("r", unit="electron/s"), folder / "counts.fits")
    write(image("g", psf=False), folder / "plain.fits")
    write(spectrum(), folder / "star.fits")
    write(spectrum(ra=11.0), folder / "alone.fits")
    made = skyloom.store.create(folder / "sky", levels=2)
    result = made.ingest([folder])
    assert not result.failures
    return made


def row_of(table, name):
    (found,) = table[table["obs_id"] == name]
    return found


def test_fluxes_of_a_spectrum_are_those_of_the_stored_one_with_its_correlation(store):
    table = store.photometry("star", "gri")
    direct = synthetic_magnitudes(store.spectrum("star"), sdss_bandpasses("gri"))
    assert table["band"].tolist() == ["g", "r", "i"]
    assert set(table["obs_id"]) == {"star"}
    for name in ("flux", "flux_err", "magnitude", "asinh_magnitude"):
        np.testing.assert_array_equal(table[name], direct[name])
    assert table["flux"].unit == u.nmgy
    assert np.all(np.abs(table["flux"] - TOTAL * u.nmgy) < 4 * table["flux_err"] + 1e-4 * TOTAL * u.nmgy)
    alone = store.spectrum("star").evolve(correlation=None)
    ratio = table["flux_err"] / synthetic_magnitudes(alone, sdss_bandpasses("gri"))["flux_err"]
    assert np.all(np.abs(ratio.value - np.sqrt(LAGS.sum())) < 0.01)


def test_spectra_are_found_by_conditions(store):
    assert set(store.photometry(bands="r")["obs_id"]) == {"star", "alone"}
    assert set(store.photometry(bands="r", cone=(PLACE, 0.1))["obs_id"]) == {"star"}
    assert len(store.photometry(["alone", "star"], "gr")) == 4
    with pytest.raises(InputError, match="nothing fulfils"):
        store.photometry(cone=((200.0, 0.0), 0.1))
    with pytest.raises(InputError, match="no spectrum"):
        store.photometry("frame-r")


@pytest.mark.parametrize(("level", "transmission", "bands"), [(0, True, "ugriz"), (1, "gr", "gr")])
def test_a_spectrum_times_the_most_transparent_filter(store, level, transmission, bands):
    found = store.spectrum("star", level, transmission=transmission)
    plain = store.spectrum("star", level)
    expected = transmission_weighted(plain, merged_transmission(sdss_bandpasses(bands)))
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_array_equal(found.variance, expected.variance)
    good = found.valid
    assert good.any()
    np.testing.assert_allclose(
        (found.data / plain.data)[good] ** 2, (found.variance / plain.variance)[good], rtol=1e-5
    )


@pytest.mark.parametrize("seeing", [None, 2.0, "common"])
def test_the_light_in_the_fibre_is_that_of_the_whole_image(store, images, seeing):
    """The cut-out is large enough for the fibre and the smoothing."""
    table = store.fibre_photometry("star", seeing=seeing)
    assert table.meta["diameter"] == 3.0 * u.arcsec
    target = max(FWHM.values()) if seeing == "common" else seeing
    for band, content in images.items():
        expected = fibre_flux(content, SkyCoord(*PLACE, unit="deg"), 3.0, seeing=target)[0]
        found = row_of(table, f"frame-{band}")
        assert found["flux"].to_value(u.nmgy) == pytest.approx(expected["flux"].value, rel=1e-6)
        assert found["flux_err"].to_value(u.nmgy) == pytest.approx(expected["flux_err"].value, rel=1e-6)
        assert found["seeing"].value == pytest.approx(target or FWHM[band], rel=1e-6)
        assert found["covered"] == pytest.approx(1.0, abs=1e-4)
        assert not found["problem"]


def test_a_star_in_the_fibre_over_its_share_is_the_spectrum(store):
    """What a star loses beside the fibre is known: image and spectrum agree at every seeing."""
    for seeing in (2.0, 2.5):
        table = store.fibre_photometry("star", seeing=seeing, band=["g", "r"])
        for name in ("frame-r", "frame-g"):
            found = row_of(table, name)
            assert 0.5 < found["star_share"] < 0.85
            assert found["ratio"] * found["star_share"] == pytest.approx(1.0, abs=0.005)
            assert found["ratio"] == pytest.approx(float(found["spectrum_flux"] / found["flux"]), rel=1e-9)
            assert 0 < found["ratio_err"] < 0.01


def test_rows_tell_what_is_missing(store):
    table = store.fibre_photometry("star", seeing=2.0)
    assert table["band"].tolist() == ["g", "g", "r", "r", "r"]
    assert "at least 3" in row_of(table, "plain")["problem"]
    assert "cannot be turned into nanomaggies" in row_of(table, "counts")["problem"]
    border = row_of(table, "border")
    assert "of the fibre" in border["problem"]
    # Beyond the border nothing is known, and a smoothed pixel beside it is not either.
    assert border["covered"] < row_of(store.fibre_photometry("star"), "border")["covered"] - 0.2
    assert 0.5 < row_of(store.fibre_photometry("star"), "border")["covered"] < 0.65
    for name in ("plain", "counts"):
        assert np.isnan(row_of(table, name)["flux"])
        assert np.isfinite(row_of(table, name)["spectrum_flux"])
    sharp = store.fibre_photometry("star", seeing=1.3)
    assert "sharp" in row_of(sharp, "frame-g")["problem"]
    assert len(store.fibre_photometry("alone")) == 0


def test_what_cannot_be_asked(store):
    with pytest.raises(InputError, match="seeing"):
        store.fibre_photometry("star", seeing="good")
    with pytest.raises(InputError, match="no spectrum"):
        store.fibre_photometry("frame-r")
    wide = store.fibre_photometry("star", diameter=6 * u.arcsec, band="r")
    assert row_of(wide, "frame-r")["flux"] > row_of(store.fibre_photometry("star"), "frame-r")["flux"]


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["store", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_commands(store, tmp_path):
    shown = run("photometry", store.path, "star", "--bands", "gr")
    assert "flux [nmgy]" in shown
    rows = [
        json.loads(line)
        for line in run("photometry", store.path, "star", "--fibre", "--seeing", "2.0", "--json").splitlines()
    ]
    assert {row["obs_id"] for row in rows} == {"frame-r", "frame-g", "border", "counts", "plain"}
    assert run("photometry", store.path, "--cone", *PLACE, 0.1, "--csv").startswith("obs_id,band")
    run("photometry", store.path, "star", "--fibre", "--out", tmp_path / "fibre.ecsv")
    assert (tmp_path / "fibre.ecsv").read_text().startswith("# %ECSV")
    run("spectrum", store.path, "star", "--transmission", "--out", tmp_path / "filtered.fits")
    assert (tmp_path / "filtered.fits").is_file()
    for arguments in (
        ("star", "--seeing", "2"),
        (),
        ("star", "--fibre", "--seeing", "good"),
        ("--fibre", "star", "alone"),
    ):
        run("photometry", store.path, *arguments, code=2)


@pytest.mark.parametrize(("band", "published"), [("u", 0.04), ("r", 0.0), ("z", -0.02)])
def test_both_sides_of_a_fibre_have_the_zero_points_of_the_survey(tmp_path, band, published):
    """A frame says 22.5 mag of one nanomaggy in the survey's magnitudes, which are not AB in u and z."""
    scene = image("r")
    fading = 10 ** (-0.4 * published)
    write(
        scene.evolve(data=scene.data * np.float32(fading), meta=scene.meta | {"band": band}),
        tmp_path / "i.fits",
    )
    write(spectrum(), tmp_path / "s.fits")
    made = skyloom.store.create(tmp_path / "store", levels=1)
    made.ingest([tmp_path])
    (row,) = made.fibre_photometry("s", seeing=1.2)
    (own,) = made.fibre_photometry("s", seeing=1.2, bandpasses=sdss_bandpasses(band))
    # Filters that are given are those of an image in AB.
    assert row["spectrum_flux"].value / own["spectrum_flux"].value == pytest.approx(fading, rel=1e-9)
    if band != "u":  # of which the spectrum lacks the blue half
        assert row["spectrum_flux"].value == pytest.approx(TOTAL * fading, rel=3e-3)
        assert float(row["ratio"] * row["star_share"]) == pytest.approx(1.0, abs=0.01)
