"""Real spectra of MaNGA with the MaStar populations."""

from __future__ import annotations

import numpy as np
import pytest
from tests.inputs.stellar import mastar_library

import skyloom as sl
from skyloom.core.continuum import ContinuumFlag
from skyloom.errors import AssumptionWarning, RepairWarning
from skyloom.spectral.stellar.fit import fit_continuum

pytestmark = pytest.mark.data


@pytest.mark.parametrize("emission", ["mask", "fit"])
def test_stars_of_manga_are_near_their_redshifts_and_the_dead_row_is_flagged(data_dir, emission):
    with pytest.warns((AssumptionWarning, RepairWarning)):
        spectra = sl.read(data_dir / "manga/MaNGA_test_spectra.fits.gz")
    redshift = np.array(spectra.meta["redshift"])
    with pytest.warns(AssumptionWarning, match="no model in part of them"):
        fit = fit_continuum(spectra, mastar_library(data_dir), redshift=redshift, emission=emission)
    assert fit.flags[5] == ContinuumFlag.NO_DATA
    assert fit.reasons[5] == "too few usable channels"
    rest = np.arange(8) != 5
    assert np.all(np.abs(fit.velocity[rest]) < 100.0)
    bright = rest & (fit.snr > 50)
    assert np.all(fit.velocity_err[bright] < 5.0)
    assert np.all((fit.sigma[bright] > 80) & (fit.sigma[bright] < 330))
    # At a S/N above 60 populations in steps no longer describe a galaxy to the noise; without a polynomial, chi
    # square shows it. The fainter two are fitted to the noise.
    assert np.all(fit.chi2_dof[rest] < 5.0)
    assert np.all(fit.chi2_dof[[6, 7]] < 1.3)
    np.testing.assert_allclose(np.nansum(fit.mass_fractions, axis=1)[rest], 1.0)


def test_a_polynomial_lowers_chi_square_and_leaves_the_velocities(data_dir):
    with pytest.warns((AssumptionWarning, RepairWarning)):
        spectra = sl.read(data_dir / "manga/MaNGA_test_spectra.fits.gz")
    redshift, library = np.array(spectra.meta["redshift"]), mastar_library(data_dir)
    with pytest.warns(AssumptionWarning, match="no model in part of them"):
        plain = fit_continuum(spectra, library, redshift=redshift)
    with pytest.warns(AssumptionWarning, match="no model in part of them"):
        shaped = fit_continuum(spectra, library, redshift=redshift, attenuation=None, multiplicative_degree=8)
    bright = plain.snr > 50
    assert np.all(shaped.chi2_dof[bright] < plain.chi2_dof[bright])
    np.testing.assert_allclose(shaped.velocity[bright], plain.velocity[bright], atol=3.0)
    np.testing.assert_allclose(shaped.sigma[bright], plain.sigma[bright], atol=8.0)
