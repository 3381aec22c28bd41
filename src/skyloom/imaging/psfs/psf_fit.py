"""The kernel that makes a sharp image look like a blurred one, fitted to both; and images brought to it.

No stars are needed: everything that both images show tells how much broader the PSF of one is than that of the other.
``docs/numbers.md`` has the equations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.core.geometry import celestial, pixel_scale
from skyloom.core.image import Image
from skyloom.core.noise import convolve_full
from skyloom.core.provenance import step
from skyloom.core.psf import PSF, GaussianPSF, MoffatPSF, SampledPSF
from skyloom.core.units import is_per_area
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.grids.derived import derived_grid, richest_window
from skyloom.imaging.grids.divided import Divided, Origin, divide
from skyloom.imaging.grids.register import Registration, register, shift_wcs
from skyloom.imaging.psfs.kernel_profiles import MODELS, kernel_psf, kernel_reach, sample_kernel
from skyloom.imaging.psfs.kernel_solver import NARROWEST, KernelProblem, Solution, State, not_broader
from skyloom.imaging.psfs.matching import matching_kernel

__all__ = ["KernelFit", "align", "fit_kernel", "match_to"]

Float = NDArray[np.float64]
Grid = Image | tuple[WCS, tuple[int, int]]
AGREEMENT = 0.8
"""Least correlation of the matched images, once their noise is allowed for."""
SIGNIFICANCE = 6.0
"""Least slope in units of its error."""
USUAL_BETA = 2.8
USUAL_WIDTH = 4.0
"""Of the kernel, in pixels of the reference, before anything is known about it."""
LARGEST = 480
"""Side in pixels of the largest part of a reference that is fitted: more would cost time, not tell more."""
LOST_AT_MARGIN = 0.01
WIDEST_MARGIN = 64
SAMPLES = 5
"""Per pixel and axis, of the PSF that a matched image is given."""
SIMILAR = 0.15
"""Relative difference of widths that gaps and borders do not feel."""
ROUNDS = 4
MARGIN = 4
AT_REST = 0.5
"""Shift, in units of its error, that registration and kernel may leave."""


@dataclass(frozen=True, slots=True, eq=False)
class KernelFit:
    """``reference = slope * (kernel conv image) + offset``.

    Parameters
    ----------
    psf : GaussianPSF or MoffatPSF
        The kernel, as a profile on the sky.
    fwhm, fwhm_err : float
        Its width in arcsec.
    beta, beta_err : float
        Slope of the wings of a Moffat; NaN for a Gaussian.
    slope, slope_err : float
        Unit of the reference per unit of the image.
    offset, offset_err : float
        In the unit of the reference.
    shift, shift_err : (2,) arrays
        What stands at x in the reference stands at x + shift in the image, in pixels of the reference: what is left
        of the registration. It is fitted so that it does not widen the kernel, and is not applied.
    parameters : tuple of str
        What the rows of ``covariance`` belong to.
    covariance : (n, n) array
        Of fwhm, (beta,) shift_x, shift_y, slope and offset; multiplied by ``chi_square`` where that is above 1.
    chi_square : float
        Residual over noise, mean of squares.
    correlation : float
        Pearson correlation of the reference and the matched image.
    agreement : float
        The same with the noise of both allowed for.
    n_pixels : int
        Pixels used.
    kernel : (k, k) array
        Samples at the pixels of the reference, sum 1.
    matrix : (2, 2) array
        Pixel matrix of the reference, arcsec per pixel.
    """

    psf: GaussianPSF | MoffatPSF
    fwhm: float
    fwhm_err: float
    beta: float
    beta_err: float
    slope: float
    slope_err: float
    offset: float
    offset_err: float
    shift: Float
    shift_err: Float
    parameters: tuple[str, ...]
    covariance: Float
    chi_square: float
    correlation: float
    agreement: float
    n_pixels: int
    kernel: Float
    matrix: Float

    @property
    def model(self) -> str:
        """Which of the two profiles was fitted."""
        return "gaussian" if isinstance(self.psf, GaussianPSF) else "moffat"

    def describe(self) -> dict[str, object]:
        """Return the figures that go into the history of a matched image."""
        figures: dict[str, object] = {"kernel": self.model, "fwhm": self.fwhm, "fwhm_err": self.fwhm_err}
        if self.model == "moffat":
            figures |= {"beta": self.beta, "beta_err": self.beta_err}
        return figures


def fit_kernel(
    image: Image | Divided,
    reference: Image,
    *,
    model: str = "moffat",
    mask: NDArray[np.bool_] | None = None,
    start: float | PSF | None = None,
) -> KernelFit:
    """Fit the kernel with which ``image`` looks like ``reference``.

    Parameters
    ----------
    image : Image or Divided
        The sharp one, of the same band, registered to a pixel or two of the reference; one that was averaged by
        `skyloom.imaging.grids.divided.divide` onto the grid of which the reference is a window is not averaged again.
    reference : Image
        The blurred one. Its pixels at least twice across its PSF.
    model : {"gaussian", "moffat"}
    mask : (ny, nx) bool array, optional
        True where the reference must not be used beyond its own mask: saturated stars, what changed in between.
    start : float or PSF, optional
        Width (arcsec) to start from; by default several are tried.

    Returns
    -------
    KernelFit

    Raises
    ------
    InputError
        When the images do not overlap, too few pixels are usable, they do not show the same structures, the
        reference is as sharp as the image, or the fit does not settle.

    Notes
    -----
    The image is averaged over the pixels of the reference, each divided into up to 3 by 3 parts: a source narrower
    than a pixel would otherwise be as blurred at the edge of a pixel as in its middle, which is up to 10 % of its
    peak. The kernel acts on these means, and the mean over the parts restores those of whole pixels, so that no pixel
    is integrated over twice. The kernel is thus the difference of the two PSFs; the image's pixels, which count
    among its PSF, are in it twice, being seen as tiles (a PSF of 0.07" on pixels of 0.04" appears 0.08" wide).

    Of a reference of more than 480 pixels along a side only the window with most structure is fitted.

    Weighted least squares, the weights from the noise of both images. What the noise of the image, convolved, adds to
    sums of squares is taken off, so that it neither widens the kernel nor lowers the slope. Covariance: ``A^-1 J' W S
    W J A^-1`` with the derivatives J, the weights W, ``A = J' W J`` and the covariance S of the noise of both images
    with its correlation, that of the image as the kernel leaves it.
    """
    if model not in MODELS:
        raise InputError(f"model is {model!r}", field="model", remedy=f"use one of {', '.join(MODELS)}")
    used = ~_joined_mask(reference, mask)
    reference, used = richest_window(reference, used, LARGEST)
    state, scan = _start(start, reference.pixel_scale)
    margin = _margin(model, state, reference.pixel_scale)
    fine, factor = _fine(image, reference, margin)
    share: float | None = None
    for _ in range(ROUNDS):
        problem = KernelProblem(fine, reference, used, margin, factor, model, state)
        if scan:
            state = problem.scan(state.inverse_beta, reference.pixel_scale)
        solution = problem.solve(state, share)
        needed = _margin(model, solution.state, reference.pixel_scale)
        # Gaps are filled with, and borders left out by, the kernel that was fitted.
        similar = abs(solution.state.fwhm / problem.start.fwhm - 1.0) < SIMILAR
        if needed <= 1.25 * margin and (similar or problem.complete):
            break
        state, scan, share = solution.state, False, min(1.0, solution.chi_square)
        if needed > margin:
            margin = needed
            fine, factor = _fine(image, reference, margin)
    return _kernel_fit(solution, model, reference)


def _joined_mask(reference: Image, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    if mask is None:
        return reference.mask
    other = np.asarray(mask, dtype=bool)
    if other.shape != reference.shape:
        raise ShapeError(f"mask has shape {other.shape}; expected {reference.shape}", field="mask")
    return reference.mask | other


def _start(start: float | PSF | None, scale: float) -> tuple[State, bool]:
    """Return the state to start from, and whether widths are to be tried first."""
    if start is None:
        return State(USUAL_WIDTH * scale, 1.0 / USUAL_BETA), True
    width = start.fwhm if isinstance(start, PSF) else float(start)
    if not 0 < width < np.inf:
        raise InputError(f"start is {width} arcsec; expected a width > 0", field="start")
    beta = start.beta if isinstance(start, MoffatPSF) else USUAL_BETA
    return State(width, 1.0 / beta), False


def _margin(model: str, state: State, scale: float) -> int:
    """Return the pixels around the reference from which the kernel takes light."""
    reach = kernel_reach(kernel_psf(model, state.fwhm, state.inverse_beta), LOST_AT_MARGIN)
    return min(WIDEST_MARGIN, int(np.ceil(reach / scale)) + 1)


def _fine(image: Image | Divided, target: Image, margin: int) -> tuple[Image, int]:
    """Average onto the parts of a grid with a margin, fluxes staying those of whole pixels; and how many parts."""
    wcs = celestial(target.wcs)
    fine: Image | None
    if isinstance(image, Divided):
        fine, factor = image.window(wcs, target.shape, margin), image.factor
        if fine is None:
            raise InputError(
                f"the divided image does not hold the reference with a margin of {margin} pixels",
                field="image",
                remedy="divide it on the grid of the reference, with a wider margin",
            )
    else:
        divided = divide(image, wcs, target.shape, margin)
        fine, factor = divided.fine, divided.factor
    if factor == 1 or is_per_area(fine.unit):
        return fine, factor
    whole = fine.data.dtype.type(factor**2)
    return fine.evolve(data=fine.data * whole, variance=fine.variance * whole**2), factor


def _kernel_fit(solution: Solution, model: str, reference: Image) -> KernelFit:
    """Judge a solution and name its parts."""
    state, covariance = solution.state, solution.covariance.copy()
    errors = np.sqrt(np.diag(covariance))
    if not solution.slope > SIGNIFICANCE * errors[-2] or solution.agreement < AGREEMENT:
        raise InputError(
            f"image and reference do not show the same structures: correlation {solution.correlation:.3f} "
            f"({solution.agreement:.2f} with the noise allowed for, needed {AGREEMENT}), slope "
            f"{solution.slope:.3g} +- {errors[-2]:.2g}",
            remedy="choose images of the same band, registered to a pixel, and mask saturated stars",
        )
    if state.fwhm < max(NARROWEST * reference.pixel_scale, 2.0 * errors[0]):
        raise not_broader(state.fwhm, reference.pixel_scale)
    names = ["fwhm", "shift_x", "shift_y", "slope", "offset"]
    beta = beta_err = float("nan")
    if model == "moffat":
        names.insert(1, "beta")
        beta = 1.0 / state.inverse_beta
        covariance[1] *= -(beta**2)
        covariance[:, 1] *= -(beta**2)
        beta_err = float(np.sqrt(covariance[1, 1]))
    psf = kernel_psf(model, state.fwhm, state.inverse_beta)
    matrix = reference.pixel_matrix
    return KernelFit(
        psf=psf,
        fwhm=state.fwhm,
        fwhm_err=float(errors[0]),
        beta=beta,
        beta_err=beta_err,
        slope=solution.slope,
        slope_err=float(errors[-2]),
        offset=solution.offset,
        offset_err=float(errors[-1]),
        shift=np.array([state.shift_x, state.shift_y]),
        shift_err=errors[-4:-2].copy(),
        parameters=tuple(names),
        covariance=covariance,
        chi_square=solution.chi_square,
        correlation=solution.correlation,
        agreement=solution.agreement,
        n_pixels=solution.n_pixels,
        kernel=sample_kernel(psf, matrix),
        matrix=matrix,
    )


def match_to(image: Image | Divided, grid: Grid, kernel: KernelFit | PSF) -> Image:
    """Bring an image to the grid of another and to its PSF.

    Parameters
    ----------
    image : Image or Divided
        The sharp one; averaged onto this grid by `skyloom.imaging.grids.divided.divide` it serves many kernels.
    grid : Image or (WCS, (ny, nx))
        Of the result.
    kernel : KernelFit or PSF
        A fitted kernel, or the PSF that the result is to have (then the image must have its own).

    Returns
    -------
    Image
        In the unit of ``image``, slope and offset not applied. Averaged over the parts of the pixels (see
        `fit_kernel`), convolved, and averaged over the pixels: data, variance, correlation, mask and shared errors go
        along as `reproject` and `convolve` carry them. Its PSF is that of the image with the kernel, that of the
        kernel alone where the image has none, or the one asked for.

    Raises
    ------
    InputError
        When there is no overlap, the PSF asked for is sharper than that of the image, or the image has none.
    """
    wcs, shape = (grid.wcs, grid.shape) if isinstance(grid, Image) else grid
    wcs = celestial(wcs)
    fitted = isinstance(kernel, KernelFit)
    profile = kernel.psf if isinstance(kernel, KernelFit) else kernel
    divided = (
        image if isinstance(image, Divided) else divide(image, wcs, shape, _reach_margin(profile, wcs, shape))
    )
    result = _matched(divided, profile, as_kernel=fitted)
    psf = _reached(divided.origin, profile, result.pixel_matrix) if fitted else profile
    figures = (
        kernel.describe() if isinstance(kernel, KernelFit) else {"kernel": "to PSF", "fwhm": kernel.fwhm}
    )
    figures["image_psf"] = "unknown" if divided.origin.psf is None else "known"
    figures["source_shape"] = list(divided.origin.shape)
    return result.evolve(psf=psf, history=(*divided.origin.history, step("match_to", **figures)))


def _matched(divided: Divided, psf: PSF, *, as_kernel: bool) -> Image:
    """Convolve (with a PSF, or to it) and average over the pixels; the PSF of the result is left to the caller."""
    fine = divided.fine
    if as_kernel and isinstance(psf, (GaussianPSF, MoffatPSF)):
        return divided.blurred(sample_kernel(psf, fine.pixel_matrix))
    if fine.psf is None:
        raise InputError(
            "the image has no PSF to start from",
            field="psf",
            remedy="measure it (measure_psf) or declare it",
        )
    return divided.blurred(matching_kernel(fine.psf, psf, fine.pixel_matrix).stencil.kernel)


def _reach_margin(psf: PSF, wcs: WCS, shape: tuple[int, int]) -> int:
    """Return the pixels around a grid from which a kernel takes light."""
    return min(WIDEST_MARGIN, int(np.ceil(_reach(psf) / pixel_scale(wcs, shape))) + 1)


def _reach(psf: PSF) -> float:
    """Return the radius in arcsec within which almost all of the light of a PSF falls."""
    if isinstance(psf, (GaussianPSF, MoffatPSF)):
        return kernel_reach(psf, LOST_AT_MARGIN)
    return 3.0 * psf.fwhm


def _reached(image: Origin, kernel: PSF, matrix: Float) -> PSF:
    """Return the PSF of an image after averaging and convolution, on pixels of ``matrix``."""
    if image.psf is None or not isinstance(kernel, (GaussianPSF, MoffatPSF)):
        return kernel
    own = image.psf
    if isinstance(own, GaussianPSF):
        # The image's pixels blur twice: when it was observed, and as the tiles that are averaged over.
        pixel = image.pixel_matrix
        own = GaussianPSF.from_covariance(own.covariance + pixel @ pixel.T / 6.0)
        if isinstance(kernel, GaussianPSF):
            return GaussianPSF.from_covariance(own.covariance + kernel.covariance)
    fine = matrix / SAMPLES
    values = np.pad(sample_kernel(kernel, fine), 3 * SAMPLES)
    blur = own.render(fine)
    whole, half = convolve_full(values, blur), blur.shape[0] // 2
    values = whole[half : half + values.shape[0], half : half + values.shape[1]]
    # The mean over a pixel of the result, around each of its samples.
    values = ndimage.uniform_filter(values, SAMPLES, mode="constant")
    first = (values.shape[0] // 2) % SAMPLES
    return SampledPSF(np.ascontiguousarray(values[first::SAMPLES, first::SAMPLES]), matrix)


def align(
    image: Image,
    reference: Image,
    *,
    model: str = "moffat",
    mask: NDArray[np.bool_] | None = None,
    max_shift_arcsec: float | None = None,
    start: float | PSF | None = None,
) -> tuple[Registration, KernelFit]:
    """Register a sharp image to a blurred one and fit the kernel between them, each with the help of the other.

    Parameters
    ----------
    image, reference, model, mask
        As for `fit_kernel`, but the WCS of the image may be off.
    max_shift_arcsec : float, optional
        As for `register`.
    start : float or PSF, optional
        Kernel, or its width (arcsec), with which the image is registered first; by default 4 pixels of the reference.

    Returns
    -------
    Registration
        Of the image as given; apply it with `shift_wcs`.
    KernelFit
        Of the image so put right.

    Raises
    ------
    InputError
        As `register` and `fit_kernel`, or when the two do not come to rest.
    """
    joined = _joined_mask(reference, mask)
    target, _ = richest_window(reference.evolve(mask=joined), ~joined, LARGEST)
    scale = reference.pixel_scale
    kernel: PSF = kernel_psf("moffat", USUAL_WIDTH * scale, 1.0 / USUAL_BETA)
    if start is not None:
        kernel = start if isinstance(start, PSF) else kernel_psf("moffat", float(start), 1.0 / USUAL_BETA)
    reach = 20 if max_shift_arcsec is None else int(np.ceil(max_shift_arcsec / scale))
    wcs, shape = derived_grid(celestial(target.wcs), target.shape, margin=reach + MARGIN)
    fit, total, moved = None, None, image
    for _ in range(ROUNDS):
        blurred = _matched(
            divide(moved, wcs, shape, _reach_margin(kernel, wcs, shape)), kernel, as_kernel=True
        )
        found = register(blurred, target, max_shift_arcsec=max_shift_arcsec)
        rest = np.abs([found.shift_x, found.shift_y]) / found.shift_error
        if fit is not None and total is not None and rest.max() < AT_REST:
            return _after(total, found), fit
        total = found if total is None else _after(total, found)
        moved = shift_wcs(moved, found)
        fit = fit_kernel(moved, target, model=model, start=None if fit is None else fit.psf)
        kernel = fit.psf
    raise InputError(
        "registration and kernel do not come to rest",
        remedy="check that both images show the same structures, and mask what changed between them",
    )


def _after(first: Registration, second: Registration) -> Registration:
    """Return one registration after another, with the figures of the latter."""
    return replace(
        second,
        shift_x=first.shift_x + second.shift_x,
        shift_y=first.shift_y + second.shift_y,
        offset=first.offset + second.offset,
    )
