"""Magnitudes of real SDSS spectra against the survey's own, and against apertures on the stored frames they lie in.

A spectrum's flux is calibrated with standard stars to their whole light: what a star loses beside the fibre is put
back. A galaxy gets the same factor, so its spectrum tells the light in the fibre over a star's share in the fibre.
"""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

from skyloom.imaging import fibre_flux
from skyloom.io import sdss_bandpasses
from skyloom.spectral import synthetic_magnitudes
from skyloom.spectral.bands.photometry import pogson_magnitude

BANDS = "gri"
WHOLE = 7.4  # arcsec, diameter of the aperture that the survey takes for the whole of a star
SURVEY_SEEING = 2.0  # arcsec, to which the survey smooths for its fibre magnitudes
pytestmark = [pytest.mark.data, pytest.mark.slow]


@pytest.fixture(scope="module")
def frames(sdss_store):
    names = {band: f"sdss-002820-3-0122-{band}" for band in BANDS}
    return {
        band: sdss_store.cutout(name).evolve_checked(psf=sdss_store.psf(name)) for band, name in names.items()
    }


@pytest.fixture
def spectrum(sdss_store, data_dir):
    def found(name):
        """Return the stored spectrum, and what its file says about the object's fluxes."""
        with fits.open(data_dir / "sdss_spectra" / f"spec-{name}.fits") as hdus:
            row = hdus[2].data[0]
            catalogue = {
                key: dict(zip("ugriz", row[key].tolist(), strict=True))
                for key in ("SPECTROFLUX", "SPECTROSYNFLUX", "FIBER2FLUX", "FIBER2FLUX_IVAR", "CALIBFLUX")
                if key in hdus[2].columns.names
            }
        return sdss_store.spectrum(f"sdss-{name}"), catalogue

    return found


def synthetic(spectra, **options):
    table = synthetic_magnitudes(spectra, sdss_bandpasses(BANDS), **options)
    return dict(zip(table["band"].tolist(), table, strict=True))


def light(image, spectra, diameter, seeing=None):
    (found,) = fibre_flux(image, (spectra.meta["ra"], spectra.meta["dec"]), diameter, seeing=seeing)
    return found["flux"].to_value(u.nmgy), found["flux_err"].to_value(u.nmgy)


@pytest.mark.parametrize("name", ["3126-54804-0211", "4238-55455-0037"])
def test_fluxes_are_those_of_the_surveys_own_synthesis(spectrum, name):
    """SPECTROSYNFLUX is the survey's own sum over the same spectrum."""
    spectra, catalogue = spectrum(name)
    found = synthetic(spectra)
    tolerance = {"3126-54804-0211": 0.003, "4238-55455-0037": 0.08}[name]  # the faint one has other masks
    for band in BANDS:
        assert found[band]["flux"].value == pytest.approx(catalogue["SPECTROSYNFLUX"][band], rel=tolerance)


def test_the_survey_counts_the_atmosphere_into_the_shape_of_its_bands(spectrum):
    """With the atmosphere g is that of the survey to 0.1 %, without it is off by 1 %."""
    spectra, catalogue = spectrum("3126-54804-0211")
    bare = synthetic_magnitudes(spectra, sdss_bandpasses("g", atmosphere=False))["flux"][0].value
    ours = synthetic(spectra)["g"]["flux"].value
    survey = catalogue["SPECTROSYNFLUX"]["g"]
    assert abs(ours / survey - 1) < 0.001
    assert abs(bare / survey - 1) > 0.008


def test_a_star_is_as_bright_in_its_spectrum_as_on_the_frames(spectrum, frames):
    spectra, catalogue = spectrum("3126-54804-0211")
    found = synthetic(spectra)
    print("\nband seeing  spectrum  3 arcsec  7.4 arcsec  survey's total  share of 3 arcsec")  # noqa: T201  figures
    for band, image in frames.items():
        flux, error = light(image, spectra, 3.0)
        total, total_error = light(image, spectra, WHOLE)
        aperture, aperture_error = (float(value) for value in pogson_magnitude(flux, error))
        magnitudes = found[band]["magnitude"].value, aperture, float(pogson_magnitude(total, total_error)[0])
        calibration = 22.5 - 2.5 * np.log10(catalogue["CALIBFLUX"][band])
        print(  # noqa: T201
            f"{band:4s} {image.psf.fwhm:6.2f}  {magnitudes[0]:8.3f}  {magnitudes[1]:8.3f}  {magnitudes[2]:10.3f}"
            f"  {calibration:14.3f}  {flux / total:17.3f}"
        )
        assert abs(magnitudes[0] - magnitudes[1]) < 0.1
        assert aperture_error < 0.01
        # The survey's total of this star, which its calibration aims at; the spectrum falls short of it by 0.1-0.2.
        assert abs(magnitudes[2] - calibration) < 0.07
        assert 0.05 < magnitudes[0] - magnitudes[2] < 0.25


def test_a_galaxy_of_boss_is_brighter_in_its_spectrum_by_what_a_star_loses_beside_the_fibre(spectrum, frames):
    """At the seeing of 2 arcsec, a fibre of 2 arcsec holds 0.43 of a star: its spectrum stands 2.3 times higher."""
    spectra, catalogue = spectrum("4238-55455-0037")
    star, _ = spectrum("3126-54804-0211")
    found = synthetic(spectra)
    diameter = spectra.meta["fibre_diameter"]
    assert diameter == 2.0
    print("\nband  spectrum  header FIBER2  frame 2'' at 2''  ratio  star's share  frame over share  sigma")  # noqa: T201
    for band, image in frames.items():
        value, value_error = found[band]["flux"].value, found[band]["flux_err"].value
        fibre, fibre_error = light(image, spectra, diameter, SURVEY_SEEING)
        header = catalogue["FIBER2FLUX"][band]
        header_error = catalogue["FIBER2FLUX_IVAR"][band] ** -0.5
        share = light(image, star, diameter, SURVEY_SEEING)[0] / light(image, star, WHOLE, SURVEY_SEEING)[0]
        expected, expected_error = fibre / share, fibre_error / share
        sigma = (value - expected) / np.hypot(value_error, expected_error)
        print(  # noqa: T201
            f"{band:4s}  {value:8.3f}  {header:6.3f} {header_error:6.3f}  {fibre:9.3f} {fibre_error:6.3f}"
            f"  {value / header:5.2f}  {share:12.3f}  {expected:9.3f} {expected_error:6.3f}  {sigma:5.2f}"
        )
        # Our aperture is that of the header (same frames or the like, so the errors are partly shared).
        assert abs(fibre - header) < 2 * np.hypot(fibre_error, header_error)
        assert 0.40 < share < 0.46
        assert abs(sigma) < 3
        assert value > 1.5 * fibre  # without the star's share the two are far apart
