"""Convolution and PSF matching of a whole `Image`: data, variance, mask, correlation, shared errors and PSF in one go.

Masked and missing pixels are neither spread nor counted: the output is ``sum(k d w) / sum(k w)`` over usable pixels
(w = 1), its variance the propagated one over the same square, and pixels for which too little of the kernel is left
are masked. ``docs/design/psf_matching.md`` says why, and what it is worth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.image import Flag, Image, Mode
from skyloom.core.provenance import step
from skyloom.core.psf import PSF, SampledPSF
from skyloom.errors import InputError
from skyloom.imaging.psfs.matching import MatchingKernel, matching_kernel
from skyloom.imaging.psfs.stencil import Shares, Stencil
from skyloom.kernels.images.convolve import normalise_convolution

__all__ = ["DEFAULT_COVERAGE", "MatchingKernel", "convolve", "match_psf", "matching_kernel"]

Array = NDArray[Any]
DEFAULT_COVERAGE = 0.9
LOW_COVERAGE = 0.99
ROUNDING = 1e-5  # A share of the kernel closer to 1 than this is the whole kernel.


def convolve(
    image: Image,
    kernel: ArrayLike | Stencil,
    *,
    coverage: float = DEFAULT_COVERAGE,
    psf: PSF | None = None,
) -> Image:
    """Convolve an image with a kernel, its noise included.

    Parameters
    ----------
    image : Image
    kernel : (n, m) array or Stencil
        Odd sides, positive sum. A `Stencil` is prepared once and serves many images.
    coverage : float
        Smallest share of the kernel (of its sum, and of its sum of absolute values) that must lie on usable pixels,
        in (0, 1]; output pixels with less are masked, those with less than 0.99 flagged ``LOW_COVERAGE``.
    psf : PSF, optional
        PSF of the result; unknown by default.

    Returns
    -------
    Image
        Same grid, unit and type. Where the stencil is complete the data are ``kernel conv data``, the variance
        ``variance_kernel conv variance`` and the correlation ``(k star k) conv rho``
        (`skyloom.core.noise.convolve_correlation`).

    Raises
    ------
    ShapeError, InputError
        When the kernel has even sides or no positive sum, or ``coverage`` is outside (0, 1].

    Notes
    -----
    What is missing is replaced by the weighted mean of what is there. A pixel of coverage c is then wrong by at most
    ``(1 - c)`` times the difference between the two means: at the default of 0.9 and for structure that changes by
    20 % over the kernel, by 2 %.
    """
    stencil = kernel if isinstance(kernel, Stencil) else Stencil(kernel)
    changes, figures = _convolved(image, stencil, coverage)
    record = step("convolve", **_kernel_record(stencil), **figures)
    return image.evolve(record, psf=psf, **changes)


def match_psf(
    image: Image,
    target_psf: PSF,
    *,
    kernel: MatchingKernel | None = None,
    method: str = "auto",
    coverage: float = DEFAULT_COVERAGE,
) -> Image:
    """Bring an image to a broader PSF.

    Parameters
    ----------
    image : Image
        With its PSF, unless ``kernel`` is given.
    target_psf : PSF
    kernel : MatchingKernel, optional
        A kernel made by `matching_kernel` for these PSFs and this pixel size, to be used for many images.
    method : {"auto", "gaussian", "wiener"}
        As for `matching_kernel`; ignored when ``kernel`` is given.
    coverage : float
        As for `convolve`.

    Returns
    -------
    Image
        Its ``psf`` is what was reached: the target for Gaussians, the source convolved with the kernel otherwise.
        When source and target agree the pixels are unchanged.

    Raises
    ------
    InputError
        When the target is sharper than the source, the image has no PSF, or the kernel is for other pixels.
    """
    if kernel is None:
        if image.psf is None:
            raise InputError(
                "the image has no PSF to start from",
                field="psf",
                remedy="measure it (measure_psf) or declare it",
            )
        kernel = matching_kernel(image.psf, target_psf, _matrix(image), method=method)
    elif image.wcs is not None:
        kernel.check_pixels(image.pixel_matrix)
    figures: dict[str, object] = {}
    changes: dict[str, Any] = {}
    if not kernel.stencil.is_identity:
        changes, figures = _convolved(image, kernel.stencil, coverage)
    record = step("match_psf", **kernel.describe(), **figures)
    return image.evolve(record, psf=kernel.psf, **changes)


def _matrix(image: Image) -> Array:
    """Pixel matrix of the image; without a WCS, that of the grid its sampled PSF was measured on."""
    if image.wcs is None and isinstance(image.psf, SampledPSF):
        return image.psf.matrix
    return image.pixel_matrix


def _kernel_record(stencil: Stencil) -> dict[str, object]:
    return {
        "kernel_shape": list(stencil.kernel.shape),
        "kernel_sum": stencil.total,
        "noise_gain": stencil.noise_gain,
    }


def _convolved(image: Image, stencil: Stencil, coverage: float) -> tuple[dict[str, Any], dict[str, object]]:
    """Return the changed fields of the image, and the figures for its history."""
    if not 0.0 < coverage <= 1.0:
        raise InputError(f"coverage is {coverage}; expected 0 < coverage <= 1", field="coverage")
    correlation, variance_stencil = stencil.noise(image.correlation)
    used = np.ascontiguousarray(image.mask)
    data = stencil.convolve(np.ascontiguousarray(image.data), used)
    variance = variance_stencil.convolve(np.ascontiguousarray(image.variance), used)
    shares = stencil.shares(data, used)
    mask, flagged = np.empty(image.shape, bool), np.empty(image.shape, bool)
    # Rounding must not mask a pixel whose whole stencil is there, even where coverage 1 is asked for.
    n_masked, n_flagged = normalise_convolution(
        data, variance, *shares, coverage - ROUNDING, LOW_COVERAGE, mask, flagged
    )
    changes: dict[str, Any] = {"data": data, "variance": variance, "mask": mask, "correlation": correlation}
    if n_flagged:
        flags = np.zeros(image.shape, np.uint16) if image.flags is None else image.flags.copy()
        flags[flagged] |= np.uint16(Flag.LOW_COVERAGE)
        changes["flags"] = flags
    if image.modes:
        changes["modes"] = tuple(_convolved_mode(mode, stencil, used, shares, mask) for mode in image.modes)
    n_filled = int(np.count_nonzero(used)) - n_masked + int(np.count_nonzero(mask & ~used))
    return changes, {
        "coverage": coverage,
        "n_newly_masked": n_masked + n_filled - int(np.count_nonzero(used)),
        "n_filled": n_filled,
        "n_low_coverage": n_flagged,
    }


def _convolved_mode(
    mode: Mode, stencil: Stencil, used: NDArray[np.bool_], shares: Shares, mask: NDArray[np.bool_]
) -> Mode:
    """Convolve the map of a shared error like data; a constant stays the constant that it is."""
    if np.ndim(mode.map) == 0:
        return mode._replace(map=float(mode.map) * stencil.total)
    plane = np.ascontiguousarray(mode.map, dtype=shares.signed.dtype)
    smooth = stencil.convolve(plane, used)
    np.divide(smooth, shares.plane(shares.signed), out=smooth, where=~mask)
    smooth[mask] = 0.0
    return mode._replace(map=smooth)
