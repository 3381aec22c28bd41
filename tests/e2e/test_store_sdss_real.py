"""Real frames and spectra of SDSS in one store: found, linked, and compared with each other by the commands.

The store of the fixture has been made by ``skyloom store create`` and ``skyloom store ingest``.
"""

from __future__ import annotations

import json

import astropy.units as u
import numpy as np
import pytest
from typer.testing import CliRunner

from skyloom.cli import app

STAR, GALAXY = "sdss-3126-54804-0211", "sdss-4238-55455-0037"
FRAMES = {f"sdss-002820-3-0122-{band}" for band in "ugriz"}
SURVEY_SEEING = 2.0  # arcsec, to which the survey smooths for its fibre magnitudes
pytestmark = [pytest.mark.data, pytest.mark.slow]


def rows(*arguments):
    result = CliRunner().invoke(app, ["store", *map(str, arguments), "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    return [json.loads(line) for line in result.output.splitlines()]


def by_band(found):
    return {row["band"]: row for row in found}


def test_everything_is_stored_and_sound(sdss_store):
    assert len(sdss_store) == 20
    assert len(sdss_store.failures()) == 0
    assert len(sdss_store.verify()) == 0
    # Frames and spectra of one survey bear one name, however their headers write it.
    surveys = {str(row["obs_id"]): str(row["obs_collection"]) for row in sdss_store.observations()}
    assert {surveys[name] for name in FRAMES | {"sdss-0411-51817-0119"}} == {"SDSS"}
    assert (surveys[STAR], surveys[GALAXY]) == ("SEGUE-2", "BOSS")
    # Neighbouring pixels of real spectra are correlated, and stored so.
    stored = sdss_store.spectrum(STAR)
    assert stored.correlation.tolist() == [0.25, 1.0, 0.25]
    assert stored.meta["correlation_from"] == "typical"


def test_the_field_is_found_by_place_time_and_band(sdss_store):
    found = rows("query", sdss_store.path, "--cone", 38.30, -0.13, 0.02)
    assert {row["obs_id"] for row in found} == FRAMES | {STAR}
    one_band = rows("query", sdss_store.path, "--cone", 38.30, -0.13, 0.1, "--band", "r", "--kind", "image")
    assert [row["obs_id"] for row in one_band] == ["sdss-002820-3-0122-r"]
    night = rows("query", sdss_store.path, "--time", "2001-12-18T05:00", "2001-12-18T06:00")
    assert {row["obs_id"] for row in night} == FRAMES


@pytest.mark.parametrize("name", [STAR, GALAXY])
def test_spectra_in_the_field_are_linked_with_all_bands(sdss_store, name):
    found = rows("links", sdss_store.path, name)
    assert {row["obs_id"] for row in found} == FRAMES
    # The bands see the place one after the other as the sky drifts over the camera: r, i, u, z, g.
    assert [row["band"] for row in sorted(found, key=lambda row: row["time"])] == list("riuzg")
    times = sorted(row["time"] for row in found)
    np.testing.assert_allclose(np.diff(times) * 86400, 71.65, atol=1.0)


def test_the_star_is_as_bright_in_its_spectrum_as_in_the_fibre_on_the_stored_frames(sdss_store):
    """Within 0.1 mag in gri, in an aperture as wide as the fibre, at the seeing of the frames."""
    magnitudes = by_band(rows("photometry", sdss_store.path, STAR))
    apertures = by_band(rows("photometry", sdss_store.path, STAR, "--fibre"))
    for band in "gri":
        flux = apertures[band]["flux"]
        assert abs(magnitudes[band]["magnitude"] - (22.5 - 2.5 * np.log10(flux))) < 0.1
        assert magnitudes[band]["coverage"] == "whole"
        assert apertures[band]["spectrum_flux"] == pytest.approx(magnitudes[band]["flux"])
    # A spectrum that begins at 3800 A has no u, and that is said.
    assert magnitudes["u"]["coverage"] == "insufficient"
    assert apertures["u"]["spectrum_flux"] is None


def test_the_galaxy_of_boss_differs_from_its_fibre_fluxes_by_a_stars_share(sdss_store):
    """The header has the light in 2 arcsec; the spectrum is that over what a star has in it at the survey's seeing."""
    header = dict(zip("ugriz", sdss_store.spectrum(GALAXY).meta["fibre2_flux"], strict=True))
    table = sdss_store.fibre_photometry(GALAXY, seeing=SURVEY_SEEING, band=list("gri"))
    assert table.meta["diameter"] == 2.0 * u.arcsec
    assert len(table) == 3
    for row in table:
        band = str(row["band"])
        flux, error = row["flux"].to_value(u.nmgy), row["flux_err"].to_value(u.nmgy)
        # The header's fluxes have errors of the same size.
        assert abs(flux - header[band]) < 2 * np.sqrt(2) * error
        assert 0.40 < row["star_share"] < 0.47
        assert row["ratio"] > 1.5
        assert abs(row["ratio"] * row["star_share"] - 1.0) < 3 * row["ratio_err"] * row["star_share"]
        assert not row["problem"]
