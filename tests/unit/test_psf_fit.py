"""Kernels between images: transforms and grids, what is recovered, what is left out, what is refused."""

import astropy.units as u
import numpy as np
import pytest
from astropy.wcs import WCS

from skyloom.core.image import Image, Mode
from skyloom.core.psf import GaussianPSF, MoffatPSF, SampledPSF, square_matrix
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.grids.derived import derived_grid
from skyloom.imaging.grids.register import shift_wcs
from skyloom.imaging.grids.reproject import reproject
from skyloom.imaging.psfs import psf_fit
from skyloom.imaging.psfs.convolve import convolve
from skyloom.imaging.psfs.kernel_profiles import RadialTransform, kernel_reach, sample_kernel, transform
from skyloom.imaging.psfs.psf_fit import KernelFit, align, fit_kernel, match_to
from tests.grids import tangent_wcs
from tests.inputs.kernel import COARSE, SHARP_FILTER, UNIT, Field, kernel_correlation
from tests.invariants import check_invariants

FWHM, BETA = 0.8, 2.8


@pytest.fixture(scope="module")
def field():
    return Field(fwhm=FWHM, beta=BETA, shape=(60, 64), sharp_shape=(460, 460))


@pytest.fixture(scope="module")
def pair(field):
    """Hardly any noise."""
    return field.observe(np.random.default_rng(1), sharp_sigma=0.5, coarse_sigma=0.05)


# --- parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "inverse_beta"), [("gaussian", 0.0), ("moffat", 1 / 2.2), ("moffat", 1 / 4)]
)
def test_transform_is_that_of_the_samples(model, inverse_beta):
    psf = GaussianPSF(0.8) if model == "gaussian" else MoffatPSF(0.8, 1 / inverse_beta)
    scale, side = 0.1, 1001
    axis = scale * (np.arange(side) - side // 2)
    squared = axis**2 + axis[:, np.newaxis] ** 2
    values = (
        np.exp(-0.5 * squared / psf.sigma**2)
        if model == "gaussian"
        else (1 + squared / psf.alpha**2) ** -psf.beta
    )
    spectrum = np.fft.rfft2(np.fft.ifftshift(values)).real / values.sum()
    radius = np.hypot(np.fft.fftfreq(side, scale)[:, np.newaxis], np.fft.rfftfreq(side, scale))
    expected = transform(model, radius, 0.8, inverse_beta)
    # A Moffat of beta 2.2 has 1e-4 of its light beyond the frame.
    np.testing.assert_allclose(spectrum, expected, atol=3e-4 if inverse_beta > 0.4 else 1e-5)
    table = RadialTransform(model, radius)
    np.testing.assert_allclose(table(0.8, inverse_beta), expected, atol=3e-5)
    step = 1e-5
    slopes = table.derivatives(0.8, inverse_beta)
    assert len(slopes) == (1 if model == "gaussian" else 2)
    by_width = transform(model, radius, 0.8 + step, inverse_beta) - transform(
        model, radius, 0.8 - step, inverse_beta
    )
    np.testing.assert_allclose(slopes[0], by_width / (2 * step), atol=1e-3)
    if model == "moffat":
        by_beta = transform(model, radius, 0.8, inverse_beta + step) - transform(
            model, radius, 0.8, inverse_beta - step
        )
        np.testing.assert_allclose(slopes[1], by_beta / (2 * step), atol=1e-3)


def test_samples_of_a_kernel_have_its_moment_and_reach():
    kernel = sample_kernel(GaussianPSF(0.8), square_matrix(0.1), lost=1e-6)
    axis = 0.1 * (np.arange(kernel.shape[0]) - kernel.shape[0] // 2)
    assert kernel.sum() == pytest.approx(1.0)
    assert np.sum(kernel * axis**2) == pytest.approx(GaussianPSF(0.8).sigma ** 2, rel=1e-4)
    moffat = MoffatPSF(0.8, 2.5)
    radius = kernel_reach(moffat, 0.01)
    outside = (1 + radius**2 / moffat.alpha**2) ** (1 - moffat.beta)
    assert outside == pytest.approx(0.01)
    turned = sample_kernel(moffat, tangent_wcs((9, 9), 0.1, 33.0).pixel_scale_matrix * 3600)
    np.testing.assert_allclose(turned, sample_kernel(moffat, square_matrix(0.1)), rtol=1e-6)


@pytest.mark.parametrize("kind", ["cd", "cdelt", "sip"])
def test_derived_grid_divides_pixels_and_adds_a_margin(kind):
    shape = (20, 31)
    wcs = tangent_wcs(shape, 0.2, 20.0, (100.0, -50.0), sip=kind == "sip")
    if kind == "cdelt":
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [53.1, -27.8], [7.0, 9.0]
        wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
        wcs.wcs.set()
    before = wcs.to_header_string(relax=True)
    grid, grid_shape = derived_grid(wcs, shape, margin=4, factor=3)
    assert wcs.to_header_string(relax=True) == before
    assert grid_shape == (84, 117)
    x, y = np.array([0.0, 30.0, 12.5]), np.array([0.0, 19.0, 3.25])
    # The middle of pixel x is that of the block of three that starts at 3 (x + 4).
    there = grid.all_pix2world(3 * (x + 4) + 1, 3 * (y + 4) + 1, 0)
    np.testing.assert_allclose(there, wcs.all_pix2world(x, y, 0), rtol=0, atol=1e-10)


# --- what is recovered ---------------------------------------------------------------------------------------


def test_kernel_is_the_difference_of_the_two_psfs(pair):
    """The sharp image has a PSF of its own, 0.07" on turned pixels of 0.04": it is no part of the kernel."""
    fit = fit_kernel(*pair)
    assert isinstance(fit, KernelFit)
    assert isinstance(fit.psf, MoffatPSF)
    assert fit.fwhm == pytest.approx(FWHM, abs=0.002)
    assert fit.beta == pytest.approx(BETA, abs=0.02)
    assert fit.slope == pytest.approx(1.3, rel=0.002)
    assert fit.offset == pytest.approx(4.0, abs=0.1)
    assert np.abs(fit.shift).max() < 0.003
    assert fit.correlation > 0.999
    assert fit.parameters == ("fwhm", "beta", "shift_x", "shift_y", "slope", "offset")
    errors = np.sqrt(np.diag(fit.covariance))
    np.testing.assert_allclose(
        errors, [fit.fwhm_err, fit.beta_err, *fit.shift_err, fit.slope_err, fit.offset_err]
    )
    assert fit.kernel.sum() == pytest.approx(1.0)
    assert np.unravel_index(fit.kernel.argmax(), fit.kernel.shape) == (fit.kernel.shape[0] // 2,) * 2


def test_gaussian_kernel_in_counts_per_pixel():
    """Fluxes per pixel: the slope belongs to what `match_to` makes, whatever the parts."""
    field = Field(fwhm=0.7, beta=None, shape=(60, 64), sharp_shape=(460, 460))
    image, reference = field.observe(np.random.default_rng(1), sharp_sigma=0.5, coarse_sigma=0.05)
    area = 0.04**2
    image = image.evolve(data=image.data * area, variance=image.variance * area**2, unit=u.Unit("electron/s"))
    fit = fit_kernel(image, reference, model="gaussian", start=1.5)
    assert fit.fwhm == pytest.approx(0.7, abs=0.002)
    assert fit.model == "gaussian"
    assert np.isnan(fit.beta)
    assert fit.parameters == ("fwhm", "shift_x", "shift_y", "slope", "offset")
    assert fit.slope == pytest.approx(1.3 / COARSE**2, rel=0.002)
    matched = match_to(image, reference, fit)
    difference = (fit.slope * matched.data + fit.offset - reference.data)[matched.valid]
    assert np.std(difference) < 0.002 * np.ptp(reference.data)


def test_left_over_shift_does_not_widen_the_kernel(field, pair):
    image, reference = pair
    wcs = image.wcs.deepcopy()
    wcs.wcs.crpix = wcs.wcs.crpix + np.array([3.0, -2.0])
    fit = fit_kernel(image.evolve(wcs=wcs), reference)
    assert fit.fwhm == pytest.approx(FWHM, abs=0.002)
    # As `register` counts it: the content of the image lies by this much off, in pixels of the reference.
    turn = np.linalg.inv(reference.pixel_matrix) @ image.pixel_matrix
    np.testing.assert_allclose(fit.shift, turn @ [-3.0, 2.0], atol=0.003)


def test_stars_and_gaps_are_left_out(pair):
    """Saturated stars: masked in the sharp image, garbage in the other; and a gap across the sharp image."""
    image, reference = pair
    light, mask = image.data.copy(), image.mask.copy()
    y, x = np.indices(image.shape)
    mask[np.hypot(x - 150, y - 300) < 12] = True
    mask[200:206] = True
    light[mask] = 1e7
    data = reference.data.copy()
    rows, columns = np.indices(data.shape)
    star = np.hypot(rows - 40, columns - 20) < 6
    data[star] = 5e4
    sharp, coarse = image.evolve(data=light, mask=mask), reference.evolve(data=data)
    fit = fit_kernel(sharp, coarse, mask=star)
    assert fit.fwhm == pytest.approx(FWHM, abs=0.004)
    assert fit.slope == pytest.approx(1.3, rel=0.004)
    whole = fit_kernel(image, reference)
    assert fit.n_pixels < whole.n_pixels - np.count_nonzero(star)
    assert fit_kernel(sharp, coarse.evolve(mask=star)).fwhm == fit.fwhm


def test_noise_that_is_claimed_but_absent_does_no_harm(pair):
    """Variances a thousand times too large on the sharp side: nothing is taken off that is not there."""
    image, reference = pair
    fit = fit_kernel(image.evolve(variance=image.variance * 1000), reference)
    assert fit.fwhm == pytest.approx(FWHM, abs=0.005)
    assert fit.chi_square < 0.2


def test_align_finds_a_wrong_wcs_and_the_kernel(field):
    image, reference = field.observe(np.random.default_rng(4), sharp_sigma=3.0, coarse_sigma=0.3)
    wcs = image.wcs.deepcopy()
    off = np.array([21.0, 25.0])  # 1.3 arcsec
    wcs.wcs.crpix = wcs.wcs.crpix + off
    wrong = image.evolve(wcs=wcs)
    registration, fit = align(wrong, reference, max_shift_arcsec=2.0)
    expected = wrong.pixel_matrix @ -off
    np.testing.assert_allclose(registration.offset, expected, atol=0.01)
    sigma = np.sqrt(np.diag(registration.offset_covariance))
    assert np.all(np.abs(registration.offset - expected) < 4 * sigma)
    assert abs(fit.fwhm - FWHM) < 4 * fit.fwhm_err
    fixed = shift_wcs(wrong, registration)
    np.testing.assert_allclose(fixed.wcs.wcs.crpix, image.wcs.wcs.crpix, atol=0.2)
    masked = align(wrong, reference, max_shift_arcsec=2.0, mask=np.zeros(reference.shape, bool), start=0.9)
    np.testing.assert_allclose(masked[0].offset, registration.offset, atol=0.003)


def test_a_large_reference_is_fitted_where_most_is_seen(field, pair, monkeypatch):
    """The window is cut with its place on the sky: kernel and shift stay what they were."""
    image, reference = pair
    whole = fit_kernel(image, reference)
    monkeypatch.setattr(psf_fit, "LARGEST", 44)
    part = fit_kernel(image, reference)
    assert part.n_pixels <= 44**2 < whole.n_pixels
    assert part.fwhm == pytest.approx(whole.fwhm, rel=0.003)
    np.testing.assert_allclose(part.shift, whole.shift, atol=0.003)
    wcs = image.wcs.deepcopy()
    wcs.wcs.crpix = wcs.wcs.crpix + np.array([21.0, 25.0])
    registration, fit = align(image.evolve(wcs=wcs), reference, mask=reference.data > 1e9)
    np.testing.assert_allclose(registration.offset, image.pixel_matrix @ [-21.0, -25.0], atol=0.01)
    assert fit.n_pixels <= 44**2


# --- match_to ------------------------------------------------------------------------------------------------


def test_matched_image_is_the_reference(field, pair):
    """Compact sources too, wherever they fall between the pixels: to 1 % of their peak."""
    image, reference = pair
    fit = fit_kernel(*pair)
    matched = match_to(image, reference, fit)
    assert matched.unit == image.unit
    residual = (fit.slope * matched.data + fit.offset - (1.3 * field.coarse + 4.0))[matched.valid]
    assert np.abs(residual).max() < 0.01 * np.ptp(field.coarse)
    # What averaging over whole pixels does instead, to the same sources.
    plain = reproject(image, reference, "area")
    plain = convolve(plain, fit.kernel)
    worse = (fit.slope * plain.data + fit.offset - (1.3 * field.coarse + 4.0))[plain.valid]
    assert np.abs(worse).max() > 4 * np.abs(residual).max()


def test_psf_of_the_matched_image(pair):
    image, reference = pair
    fit = fit_kernel(*pair)
    assert match_to(image, reference, fit).psf == fit.psf  # the image's own is unknown
    narrow = image.evolve(psf=GaussianPSF(0.07))
    psf = match_to(narrow, reference, fit).psf
    assert isinstance(psf, SampledPSF)
    # Close to the kernel on these pixels, and a little broader.
    kernel = fit.psf.render(reference.pixel_matrix, psf.array.shape[0])
    assert kernel.max() * 0.97 < psf.array.max() < kernel.max()
    gaussian = fit_kernel(*pair, model="gaussian")
    reached = match_to(narrow, reference, gaussian).psf
    assert isinstance(reached, GaussianPSF)
    # 0.04" pixels, twice: what the instrument and the averaging do.
    width = gaussian.fwhm**2 + 0.07**2 + 8 * np.log(2) * 0.04**2 / 6
    assert reached.fwhm == pytest.approx(np.sqrt(width), rel=1e-4)


def test_match_to_a_psf_instead_of_a_fit(pair):
    image, reference = pair
    with pytest.raises(InputError, match="no PSF"):
        match_to(image, reference, GaussianPSF(0.8))
    narrow = image.evolve(psf=GaussianPSF(0.07))
    matched = match_to(narrow, (reference.wcs, reference.shape), GaussianPSF(0.8))
    assert matched.psf == GaussianPSF(0.8)
    total = matched.data[matched.valid].mean()
    assert total == pytest.approx(reproject(image, reference).data[matched.valid].mean(), rel=0.03)
    with pytest.raises(InputError, match="sharper"):
        match_to(image.evolve(psf=GaussianPSF(0.9)), reference, GaussianPSF(0.8))


def test_match_to_keeps_what_operations_keep(rng, pair):
    fit = fit_kernel(*pair)
    shape = (150, 150)
    data = (10 + rng.normal(size=shape)).astype(np.float32)
    mask = rng.random(shape) < 0.01
    image = Image(
        np.where(mask, np.nan, data).astype(np.float32),
        np.ones(shape, np.float32),
        mask,
        UNIT,
        tangent_wcs(shape, 0.04, 25.0),
        psf=GaussianPSF(0.07),
        correlation=kernel_correlation(SHARP_FILTER),
        flags=np.zeros(shape, np.uint16),
        modes=(Mode("sky", 1.0, 0.2), Mode("slope", data * (~mask), 0.01)),
        meta={"band": "f658n"},
        history=pair[0].history,
    )
    target = (tangent_wcs((20, 20), 0.2), (20, 20))
    result = check_invariants(
        lambda one: match_to(one, target, fit), image, changes={"wcs", "psf", "correlation"}
    )
    sky = next(mode for mode in result.modes if mode.name == "sky")
    np.testing.assert_allclose(sky.map, 1.0, rtol=1e-6)
    assert result.history[-1].name == "match_to"
    assert result.history[-1].parameters["fwhm"] == fit.fwhm


# --- refusals ------------------------------------------------------------------------------------------------


def test_refusals(field, pair):
    image, reference = pair
    far = image.evolve(wcs=tangent_wcs(image.shape, 0.04, centre=(53.2, -27.8)))
    with pytest.raises(InputError, match="do not overlap"):
        fit_kernel(far, reference)
    other = Field(seed=9, shape=(60, 64), sharp_shape=(460, 460)).observe(np.random.default_rng(2))[0]
    flat = other.evolve(data=np.random.default_rng(5).normal(size=other.shape))
    with pytest.raises(InputError, match="same structures"):
        fit_kernel(flat, reference)
    with pytest.raises(InputError, match="not broader"):
        fit_kernel(reference, reference)
    with pytest.raises(InputError, match="model"):
        fit_kernel(image, reference, model="airy")
    with pytest.raises(InputError, match="start"):
        fit_kernel(image, reference, start=-1.0)
    with pytest.raises(ShapeError, match="mask has shape"):
        fit_kernel(image, reference, mask=np.zeros((3, 3), bool))
    with pytest.raises(InputError, match="pixels are usable"):
        fit_kernel(image, reference, mask=np.arange(60 * 64).reshape(60, 64) > 80)


def test_flat_and_empty_references_are_refused(pair, monkeypatch):
    sharp, blurred = pair
    flat = blurred.evolve(data=np.full_like(blurred.data, 7.0))
    with pytest.raises(InputError, match="the reference is the same everywhere"):
        fit_kernel(sharp, flat)
    monkeypatch.setattr(psf_fit, "LARGEST", 32)
    with pytest.raises(InputError, match="only 0 pixels are usable"):
        fit_kernel(sharp, blurred.evolve(mask=np.ones(blurred.shape, bool)))


def test_a_reference_sharper_than_the_image_is_refused(field, pair):
    """Bands exchanged: the blurred image cannot be made the sharp one."""
    image, reference = pair
    sharp = reproject(image, derived_grid(reference.wcs, reference.shape, factor=2), "area")
    with pytest.raises(InputError, match="the blurred one as reference"):
        fit_kernel(reference, sharp)
    smooth = convolve(reference, MoffatPSF(0.5, 2.8).render(reference.pixel_matrix, 21))
    with pytest.raises(InputError, match="not broader"):
        fit_kernel(smooth, reference)


def test_negative_slope_is_refused(pair):
    image, reference = pair
    with pytest.raises(InputError, match="same structures"):
        fit_kernel(image, reference.evolve(data=-reference.data))
