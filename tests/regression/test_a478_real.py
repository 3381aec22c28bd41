"""The core of Abell 478 in WFPC2 F814W and in a MUSE cut of 4 arcsec: one field, two instruments, a wrong WCS."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import skyloom as sl
from skyloom.imaging.anchoring.anchor import fit_anchor
from skyloom.imaging.grids.register import shift_wcs
from skyloom.imaging.measure.units import FLUX_DENSITY, convert_unit
from skyloom.imaging.psfs.psf_fit import align, match_to
from skyloom.io.bandpass import read_bandpass
from skyloom.spectral.bands.synthetic import synthetic_image

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def pair(data_dir):
    """The HST image in the unit of MUSE, and the synthetic F814W image of the cube."""
    with warnings.catch_warnings():
        # What the readers assume about old headers is tested with the readers.
        warnings.simplefilter("ignore")
        # Its weights are exposure times: taken so, the errors agree with the scatter of the sky.
        sharp = sl.read(data_dir / "hst" / "A478_WFPC2_F814W_cutout.fits", weight_kind="exposure")
        cube = sl.read(data_dir / "muse" / "A478_cut_core_20x20.fits")
        band = read_bandpass(data_dir / "filters" / "sedpy_par" / "acs_wfc_f814w.par")
        blurred = synthetic_image(cube, band, minimum_coverage=0.5)
    return convert_unit(sharp, FLUX_DENSITY), convert_unit(blurred, FLUX_DENSITY)


@pytest.mark.parametrize(("model", "correlation"), [("moffat", 0.99), ("gaussian", 0.99)])
def test_shift_kernel_and_anchor_of_a478(pair, model, correlation):
    sharp, blurred = pair
    assert blurred.shape == (20, 20)
    registration, fit = align(sharp, blurred, model=model, max_shift_arcsec=2.0)
    # The two coordinate systems are known to differ by about that: MUSE lies east and north of HST.
    np.testing.assert_allclose(registration.offset, [-0.8, -1.0], atol=0.1)
    errors = np.sqrt(np.diag(registration.offset_covariance))
    assert np.all((errors > 0.001) & (errors < 0.03))
    # What the fit of the kernel finds left over is nothing.
    assert np.all(np.abs(fit.shift) < 3 * np.hypot(fit.shift_err, 0.02))
    assert fit.correlation > correlation
    assert 0.7 < fit.fwhm < 1.3
    assert 0.0 < fit.fwhm_err < 0.15
    matched = match_to(shift_wcs(sharp, registration), blurred, fit)
    both = matched.valid & blurred.valid
    assert both.all()
    assert np.corrcoef(matched.data[both], blurred.data[both])[0, 1] > correlation
    # The cut shows the core only; the sky of the HST image is in the offset.
    assert 0.7 < fit.slope < 1.4
    assert 0 < fit.slope_err < 0.05
    assert 0 < fit.offset_err < 0.1 * np.median(blurred.data)
    anchor = fit_anchor(matched, blurred)
    assert anchor.slope == pytest.approx(1 / fit.slope, rel=0.1)
    assert 0 < anchor.slope_err < 0.1
    assert anchor.offset_err > 0
    assert anchor.unit == blurred.unit


def test_the_correlation_before_matching_is_worse(pair):
    """Registered, but as sharp as it is, the image is less like the other; not registered, it is not like it at all."""
    sharp, blurred = pair
    registration, fit = align(sharp, blurred, max_shift_arcsec=2.0)
    fixed = shift_wcs(sharp, registration)

    def correlation(image):
        both = image.valid & blurred.valid
        return np.corrcoef(image.data[both], blurred.data[both])[0, 1]

    plain = correlation(sl.imaging.reproject(fixed, blurred, "area"))
    unregistered = correlation(match_to(sharp, blurred, fit))
    assert unregistered < plain < fit.correlation
    assert unregistered < 0.9


def test_registration_does_not_depend_on_the_first_kernel(pair):
    sharp, blurred = pair
    shifts = [align(sharp, blurred, max_shift_arcsec=2.0, start=start)[0].offset for start in (0.5, 0.8, 1.4)]
    np.testing.assert_allclose(np.ptp(shifts, axis=0), 0.0, atol=0.01)
