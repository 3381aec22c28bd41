"""Kernels that bring one PSF to a broader one.

Gaussians are matched by the Gaussian of the difference of their covariances, integrated over the pixels and with
exactly that second moment on the pixel grid. Any other pair goes through a regularised Wiener filter. Every kernel
carries what it is worth: the residual of the encircled energy and the gain on the noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from skyloom.core.apertures import circle_overlap
from skyloom.core.psf import PSF, GaussianPSF, SampledPSF
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.psfs.stencil import Stencil

__all__ = ["MatchingKernel", "encircled_fractions", "matching_kernel"]

Float = NDArray[np.float64]
SAME_WIDTH = 1e-6  # Relative difference of widths below which two PSFs are the same.
REACH_SIGMAS = 4.6  # A Gaussian keeps all but 4e-6 of its weight within this radius.
TOLERATED_RESIDUAL = 0.001  # Of the encircled energy; small against the 1-2 % between stars of one image.
NEARLY_BEST = 1.2  # Where that is out of reach, this times the least residual will do, for less noise.
UNREACHABLE = (
    0.05  # A residual of a target with a higher peak beyond which it counts as sharper than the source.
)
KEPT_WEIGHT = 0.998  # Share of sum |kernel| inside the compact support of a Wiener kernel.
PENALTIES = (1e-9, 1e-1)  # Range of the regularisation that is searched.
LEAST_SIDE = 41
ALIGNED = 1e-4  # Covariance of x and y, relative to their variances, that counts as none.
METHODS = ("auto", "gaussian", "wiener")


@dataclass(frozen=True, eq=False)
class MatchingKernel:
    """A kernel from one PSF to another, and its quality.

    Parameters
    ----------
    stencil : Stencil
        The kernel, prepared; its sum is 1.
    method : {"identity", "gaussian", "wiener"}
    source, target : PSF
    psf : PSF
        What is reached: the target itself for Gaussians, else the source convolved with the kernel.
    matrix : (2, 2) array
        Pixels it is for: pixel offset (x, y) to sky offset (east, north), arcsec per pixel.
    residual : float
        Largest ``|EE_reached(r) / EE_target(r) - 1|`` over all radii from 1 pixel on.
    residual_radii : (n,) array
        Those radii in pixels.
    residuals : (n,) array
        ``EE_reached(r) / EE_target(r) - 1`` at each of them.
    source_fwhm, target_fwhm : float
        arcsec.
    regularization : float or None
        Weight of the penalty of a Wiener kernel.
    """

    stencil: Stencil
    method: str
    source: PSF
    target: PSF
    psf: PSF
    matrix: Float
    residual: float
    residual_radii: Float = field(repr=False)
    residuals: Float = field(repr=False)
    source_fwhm: float
    target_fwhm: float
    regularization: float | None = None

    @property
    def kernel(self) -> Float:
        """(n, m) array, odd sides, sum 1."""
        return self.stencil.kernel

    @property
    def noise_gain(self) -> float:
        """``sum(kernel**2)``."""
        return self.stencil.noise_gain

    def fits(self, matrix: ArrayLike) -> bool:
        """Whether the kernel serves pixels of this (2, 2) matrix: the same to 0.1 %."""
        scale = float(np.sqrt(abs(np.linalg.det(self.matrix))))
        return bool(np.abs(np.asarray(matrix, dtype=np.float64) - self.matrix).max() <= 1e-3 * scale)

    def check_pixels(self, matrix: ArrayLike) -> None:
        """Raise `InputError` unless the kernel `fits` pixels of this (2, 2) matrix."""
        if not self.fits(matrix):
            raise InputError(
                f"the kernel is for pixels of matrix {np.round(self.matrix, 6).tolist()} arcsec, the image has "
                f"{np.round(np.asarray(matrix), 6).tolist()}",
                field="kernel",
                remedy="make the kernel with the image's pixel_matrix",
            )

    def describe(self) -> dict[str, object]:
        """Return the figures that go into the history of a matched image."""
        return {
            "kernel": self.method,
            "kernel_shape": list(self.kernel.shape),
            "source_fwhm": self.source_fwhm,
            "target_fwhm": self.target_fwhm,
            "encircled_energy_residual": self.residual,
            "noise_gain": self.noise_gain,
            "regularization": self.regularization,
        }


def matching_kernel(
    source: PSF,
    target: PSF,
    matrix: ArrayLike,
    *,
    method: str = "auto",
    regularization: float | None = None,
    size: int | None = None,
) -> MatchingKernel:
    """Make the kernel that brings ``source`` to ``target``.

    Parameters
    ----------
    source, target : PSF
    matrix : (2, 2) array
        Pixel offset (x, y) to sky offset (east, north), arcsec per pixel, of the images to convolve.
    method : {"auto", "gaussian", "wiener"}
        "auto": "gaussian" where both are `GaussianPSF`, else "wiener".
    regularization : float, optional
        Weight of the penalty of a Wiener kernel; by default the largest that keeps the residual of the encircled
        energy below 0.1 %, or within a fifth of the least there is.
    size : int, optional
        Side of the kernel, odd; by default as small as its accuracy allows.

    Returns
    -------
    MatchingKernel

    Raises
    ------
    InputError
        When the target is sharper than the source (both widths are named), the method is unknown, or "gaussian" is
        asked for PSFs that are not Gaussian.

    Notes
    -----
    Gaussian: the covariance ``target - source``, in pixels and less that of a pixel (1/12), is integrated over
    pixels; what its second moment lacks is made up by the nearest neighbours, so that it is exact even for widths far
    below a pixel.

    Wiener: ``K = S* T / (|S|^2 + lambda |L|^2)`` with the transforms S, T of the two PSFs and L of the discrete
    Laplacian (Boucaud et al. 2016, doi:10.1051/0004-6361/201629080), cut to a compact support with soft edges, sum 1.
    """
    pixels = np.asarray(matrix, dtype=np.float64)
    if pixels.shape != (2, 2) or not abs(np.linalg.det(pixels)) > 0:
        raise ShapeError(f"matrix has shape {pixels.shape}; expected an invertible (2, 2)", field="matrix")
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected one of {', '.join(METHODS)}", field="method")
    if size is not None and (size < 1 or size % 2 == 0):
        raise ShapeError(f"size is {size}; expected an odd number of pixels", field="size")
    gaussian = isinstance(source, GaussianPSF) and isinstance(target, GaussianPSF)
    if method == "gaussian" and not gaussian:
        raise InputError(
            f"method 'gaussian' needs two Gaussian PSFs; got {type(source).__name__} and {type(target).__name__}",
            field="method",
            remedy="use 'wiener' or 'auto'",
        )
    if isinstance(source, GaussianPSF) and isinstance(target, GaussianPSF) and method != "wiener":
        return _gaussian_matching(source, target, pixels, size)
    return _wiener_matching(source, target, pixels, regularization, size)


def _sharper(source_fwhm: float, target_fwhm: float, extra: str = "") -> InputError:
    return InputError(
        f'the target PSF (FWHM {target_fwhm:.4f}") is sharper than the source PSF (FWHM {source_fwhm:.4f}"){extra}',
        field="target_psf",
        remedy="choose a broader target; sharpening is not supported",
    )


def _identity(source: PSF, target: PSF, matrix: Float) -> MatchingKernel:
    radii = _radii(13)
    return MatchingKernel(
        Stencil(np.ones((1, 1))),
        method="identity",
        source=source,
        target=target,
        psf=target,
        matrix=matrix,
        residual=0.0,
        residual_radii=radii,
        residuals=np.zeros(radii.size),
        source_fwhm=source.fwhm,
        target_fwhm=target.fwhm,
    )


# --- Gaussians -------------------------------------------------------------------------------------------


def _gaussian_matching(
    source: GaussianPSF, target: GaussianPSF, matrix: Float, size: int | None
) -> MatchingKernel:
    inverse = np.linalg.inv(matrix)
    difference = target.covariance - source.covariance
    floor = 2.0 * SAME_WIDTH * source.sigma**2
    narrow, wide = np.linalg.eigvalsh(difference)
    if wide <= floor and narrow >= -floor:
        return _identity(source, target, matrix)
    if narrow < -floor:
        extra = "" if wide <= floor else " along one axis"
        raise _sharper(source.fwhm, target.fwhm, extra)
    kernel = _gaussian_kernel(inverse @ difference @ inverse.T, size)
    side = _odd(max(target.render(matrix).shape[0], 13) + kernel.shape[0])
    reached = _convolve_small(source.render(matrix, side), kernel)
    radii = _radii(side)
    residuals = (
        encircled_fractions(reached, radii) / encircled_fractions(target.render(matrix, side), radii) - 1.0
    )
    return MatchingKernel(
        Stencil(kernel),
        method="gaussian",
        source=source,
        target=target,
        psf=target,
        matrix=matrix,
        residual=float(np.abs(residuals).max()),
        residual_radii=radii,
        residuals=residuals,
        source_fwhm=source.fwhm,
        target_fwhm=target.fwhm,
    )


def _gaussian_kernel(covariance: Float, size: int | None) -> Float:
    """Pixel-integrated Gaussian whose second moments on the grid are ``covariance`` (pixels squared, (x, y))."""
    reach = np.sqrt(np.diag(covariance) + 1.0 / 12.0)
    radius_x, radius_y = (max(1, int(np.ceil(REACH_SIGMAS * width))) for width in reach)
    if size is not None:
        radius_x = radius_y = size // 2
    if abs(covariance[0, 1]) <= 0.5 * ALIGNED * np.trace(covariance):
        along_x = _gaussian_line(float(covariance[0, 0]), radius_x)
        along_y = _gaussian_line(float(covariance[1, 1]), radius_y)
        return np.outer(along_y, along_x)
    values, vectors = np.linalg.eigh(covariance)
    radius = max(radius_x, radius_y)
    kernel = _delta(radius)
    if values[1] > 1.0 / 12.0 + 1e-4:
        # A needle cannot be rendered: its narrow axis is given a width that is invisible to the pixels.
        inner = (vectors * np.maximum(values - 1.0 / 12.0, 2.5e-3)) @ vectors.T
        kernel = np.ascontiguousarray(GaussianPSF.from_covariance(inner).render(np.eye(2), 2 * radius + 1))
    axis = np.arange(-radius, radius + 1)
    found_xx, found_yy = np.sum(kernel * axis**2), np.sum(kernel * axis[:, np.newaxis] ** 2)
    found_xy = np.sum(kernel * np.outer(axis, axis))
    if values[0] > 1.0:
        return np.asarray(kernel / kernel.sum())  # What lacks is only the tail that was cut.
    return _add_moments(
        kernel,
        float(covariance[0, 0] - found_xx),
        float(covariance[1, 1] - found_yy),
        float(covariance[0, 1] - found_xy),
    )


def _gaussian_line(variance: float, radius: int) -> Float:
    """One-dimensional kernel of exactly this variance: an integrated Gaussian plus what its neighbours must add."""
    from scipy.special import erf

    wide = max(radius, 12)
    line = np.zeros(2 * wide + 1)
    line[wide] = 1.0
    if variance > 1.0 / 12.0:
        edges = (np.arange(2 * wide + 2) - wide - 0.5) / np.sqrt(2.0 * (variance - 1.0 / 12.0))
        line = 0.5 * np.diff(erf(edges))
        line /= line.sum()
    lacking = variance - np.sum(line * np.arange(-wide, wide + 1) ** 2)
    if variance < 1.0:  # Beyond that, what lacks is only the tail that was cut.
        line[wide] -= lacking
        line[wide - 1] += 0.5 * lacking
        line[wide + 1] += 0.5 * lacking
    line = line[wide - radius : wide + radius + 1]
    return np.asarray(line / line.sum())


def _add_moments(kernel: Float, moment_xx: float, moment_yy: float, moment_xy: float) -> Float:
    """Change the second moments of a kernel, not its sum, through the nine central pixels."""
    centre = kernel.shape[0] // 2
    near = slice(centre - 1, centre + 2)
    second = np.array([0.5, -1.0, 0.5])
    patch = np.zeros((3, 3))
    patch[1, :] += moment_xx * second
    patch[:, 1] += moment_yy * second
    patch += 0.25 * moment_xy * np.outer([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0])
    changed = kernel.copy()
    changed[near, near] += patch
    return changed


def _delta(radius: int) -> Float:
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    kernel[radius, radius] = 1.0
    return kernel


# --- any PSF ---------------------------------------------------------------------------------------------


def _wiener_matching(
    source: PSF, target: PSF, matrix: Float, regularization: float | None, size: int | None
) -> MatchingKernel:
    side = _common_side(source, target, matrix)
    first, second = source.render(matrix, side), target.render(matrix, side)
    if np.abs(first - second).max() <= 2.0 * SAME_WIDTH * second.max():
        return _identity(source, target, matrix)
    widths = source.fwhm, target.fwhm
    filters = _WienerFilters(first, second, size)
    if regularization is None:
        regularization, kernel = filters.search()
    else:
        kernel = filters.kernel(regularization)
    gain = float(np.sum(kernel**2))
    reached = filters.reached(kernel)
    residuals = filters.residuals(reached)
    residual = float(np.abs(residuals).max())
    if second.max() > first.max() and (gain > 1.0 or residual > UNREACHABLE):
        raise _sharper(*widths, f": noise gain {gain:.3g}, encircled energy off by {100 * residual:.1f} %")
    return MatchingKernel(
        Stencil(kernel),
        method="wiener",
        source=source,
        target=target,
        psf=SampledPSF(reached, matrix),
        matrix=matrix,
        residual=residual,
        residual_radii=filters.radii,
        residuals=residuals,
        source_fwhm=widths[0],
        target_fwhm=widths[1],
        regularization=regularization,
    )


def _common_side(source: PSF, target: PSF, matrix: Float) -> int:
    """Side in pixels on which both PSFs are known: a sampled one ends at its edge."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    known = [
        2 * int(psf.array.shape[0] // 2 * psf.pixel_scale / scale + 0.25) + 1
        for psf in (source, target)
        if isinstance(psf, SampledPSF)
    ]
    if known:
        return min(known)
    # A filter rings over more pixels than its PSFs cover; a narrow pair gets room for that.
    return max(LEAST_SIDE, *(psf.render(matrix).shape[0] for psf in (source, target)))


class _WienerFilters:
    """The filters between two PSFs for any weight of the penalty."""

    def __init__(self, source: Float, target: Float, size: int | None) -> None:
        self.size = size
        side = source.shape[0]
        self.radii = _radii(side)
        self.wanted = encircled_fractions(target, self.radii)
        self.half = side // 2
        self.length = fft.next_fast_len(2 * side - 1, real=True)
        self.lags = np.arange(-self.half, self.half + 1)
        self.spectrum = _centred_spectrum(source, self.length)
        self.cross = np.conj(self.spectrum) * _centred_spectrum(target, self.length)
        self.power = np.abs(self.spectrum) ** 2
        wave_y = np.cos(2.0 * np.pi * fft.fftfreq(self.length))[:, np.newaxis]
        wave_x = np.cos(2.0 * np.pi * fft.rfftfreq(self.length))
        self.penalty = (4.0 - 2.0 * wave_x - 2.0 * wave_y) ** 2

    def kernel(self, regularization: float) -> Float:
        """Return the compact kernel for one weight of the penalty."""
        spectrum = self.cross / (self.power + regularization * self.penalty)
        full = fft.irfft2(spectrum, (self.length, self.length))
        kernel = full[np.ix_(self.lags, self.lags)]
        radius = self.half if self.size is None else min(self.half, self.size // 2)
        if self.size is None:
            radius = _compact_radius(kernel)
        cut = kernel[self.half - radius : self.half + radius + 1, self.half - radius : self.half + radius + 1]
        cut = cut * _soft_edge(radius)
        return np.asarray(cut / cut.sum())

    def reached(self, kernel: Float) -> Float:
        """Return the source convolved with a kernel, on the array of the source."""
        spectrum = self.spectrum * _centred_spectrum(kernel, self.length)
        full = fft.irfft2(spectrum, (self.length, self.length))
        return np.asarray(full[np.ix_(self.lags, self.lags)])

    def residuals(self, reached: Float) -> Float:
        """Return how far the encircled energies are off; light carried out of the array counts as lost."""
        return encircled_fractions(reached, self.radii) * reached.sum() / self.wanted - 1.0

    def residual(self, kernel: Float) -> float:
        """Return the residual of the encircled energy that a kernel leaves."""
        return float(np.abs(self.residuals(self.reached(kernel))).max())

    def search(self) -> tuple[float, Float]:
        """Return the largest weight (and its kernel) whose residual is tolerated.

        The residual grows with the weight but never falls below what the compact support costs.
        """
        low, high = (float(np.log10(end)) for end in PENALTIES)
        kernel = self.kernel(10.0**low)
        tolerated = max(TOLERATED_RESIDUAL, NEARLY_BEST * self.residual(kernel))
        best = 10.0**low, kernel
        for _ in range(7):
            middle = 0.5 * (low + high)
            kernel = self.kernel(10.0**middle)
            if self.residual(kernel) <= tolerated:
                low = middle
                best = 10.0**middle, kernel
            else:
                high = middle
        return best


def _centred_spectrum(array: Float, length: int) -> NDArray[np.complex128]:
    """Transform of an odd square whose centre is the origin."""
    padded = np.zeros((length, length))
    side = array.shape[0]
    padded[:side, :side] = array
    return np.asarray(fft.rfft2(np.roll(padded, (-(side // 2), -(side // 2)), axis=(0, 1))))


def _compact_radius(kernel: Float) -> int:
    """Smallest radius of a square that holds nearly all of sum |kernel|."""
    centre = kernel.shape[0] // 2
    axis = np.abs(np.arange(-centre, centre + 1))
    ring = np.maximum(axis[:, np.newaxis], axis)
    inside = np.cumsum(np.bincount(ring.ravel(), weights=np.abs(kernel).ravel()))
    return max(1, int(np.searchsorted(inside, KEPT_WEIGHT * inside[-1])))


def _soft_edge(radius: int) -> Float:
    """Window that falls as a cosine over the outer fifth of the radius, without a step."""
    distance = np.abs(np.arange(-radius, radius + 1)) / (radius + 1.0)
    line = np.where(distance < 0.8, 1.0, 0.5 * (1.0 + np.cos(np.pi * (distance - 0.8) / 0.2)))
    return np.outer(line, line)


# --- encircled energy ------------------------------------------------------------------------------------


def _odd(side: int) -> int:
    return side + 1 - side % 2


def _radii(side: int) -> Float:
    """Radii in pixels at which encircled energies are compared: from one pixel on, as far as the array reaches."""
    half = side // 2
    near = np.arange(2, 13) / 2.0
    far = np.unique(np.rint(2.0 * np.geomspace(7.0, max(7.0, half), 8)) / 2.0)
    return np.asarray(np.concatenate([near, far[far <= half]]))


@lru_cache(maxsize=64)
def _apertures(side: int, radii: tuple[float, ...]) -> Float:
    """(n, side * side) overlaps of pixels with circles around the centre."""
    masks = np.array([circle_overlap((side, side), side // 2, side // 2, radius).ravel() for radius in radii])
    masks.flags.writeable = False
    return masks


def encircled_fractions(array: Float, radii: Float) -> Float:
    """Return the fraction of the sum of a centred odd square within circles of ``radii`` (pixels)."""
    masks = _apertures(array.shape[0], tuple(float(radius) for radius in radii))
    return np.asarray(masks @ array.ravel() / array.sum())


def _convolve_small(array: Float, kernel: Float) -> Float:
    """Convolution of a PSF with a kernel, cut to the PSF's array."""
    shape = tuple(
        fft.next_fast_len(a + b - 1, real=True) for a, b in zip(array.shape, kernel.shape, strict=True)
    )
    full = fft.irfft2(fft.rfft2(array, shape) * fft.rfft2(kernel, shape), shape)
    top, left = kernel.shape[0] // 2, kernel.shape[1] // 2
    return np.asarray(full[top : top + array.shape[0], left : left + array.shape[1]])
