"""Noise that neighbouring spaxels share, as the surveys publish it: correlation matrices, and laws fitted to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.core.noise import gaussian_correlation, truncate_correlation
from skyloom.errors import FileFormatError
from skyloom.io.formats.files import FitsFile, Hdu

__all__ = [
    "CALIFA_NOISE",
    "MANGA_NOISE",
    "califa_correlation",
    "correlation_of_tables",
    "manga_correlation",
]

Float = NDArray[np.float64]

MANGA_NOISE = "Gaussian of sigma 1.92 spaxels (Westfall et al. 2019, 10.3847/1538-3881/ab44a2)"
CALIFA_NOISE = (
    "Gaussian of sigma 1.25 spaxels, equivalent to an error ratio of 1 + 1.07 log10(N)"
    " (Garcia-Benito et al. 2015, 10.1051/0004-6361/201425080)"
)
_MANGA_SIGMA = 1.92
# Spaxels farther apart share no fibre: twice the 1.6 arcsec within which a fibre counts, in spaxels of 0.5 arcsec.
_MANGA_REACH = 6.4
_CALIFA_SIGMA = 1.25
_COLUMNS = ("INDXI_C1", "INDXI_C2", "INDXJ_C1", "INDXJ_C2", "RHOIJ")


def manga_correlation() -> Float:
    """Return the correlation of MaNGA spaxels where a file has no matrix.

    Notes
    -----
    ``rho = exp(-d^2 / (2 x 1.92^2))`` with d in spaxels of 0.5 arcsec, d <= 6.4 (Westfall et al. 2019, section 6,
    10.3847/1538-3881/ab44a2).
    """
    return gaussian_correlation(_MANGA_SIGMA, _MANGA_REACH)


def califa_correlation() -> Float:
    """Return a correlation of CALIFA spaxels that gives sums the published errors.

    Notes
    -----
    The survey publishes by how much the error of the sum of N spaxels exceeds that of independent ones,
    ``beta(N) = 1 + 1.07 log10(N)`` for N <= 80 (Garcia-Benito et al. 2015, 10.1051/0004-6361/201425080).
    A law of N alone cannot be a covariance: two spaxels far apart would count as two adjoining ones. A Gaussian of
    sigma 1.25 spaxels gives compact regions of 2 to 80 spaxels the published beta within +6 and -8 percent (the
    interpolation that makes the cubes, with sigma 0.75 arcsec in spaxels of 1 arcsec, accounts for 1.06 of it).
    """
    return gaussian_correlation(_CALIFA_SIGMA, 4.0 * _CALIFA_SIGMA)


def correlation_of_tables(file: FitsFile, names: tuple[str, ...], shape: tuple[int, int]) -> Float | None:
    """Return the mean correlation of spaxels, of all the matrices that a file has.

    Parameters
    ----------
    file : FitsFile
    names : tuple of str
        Tables with the columns ``INDXI_C1`` (x), ``INDXI_C2`` (y), the same for J, and ``RHOIJ``: the elements of
        the upper triangle that are not zero.
    shape : (ny, nx)

    Returns
    -------
    (k, k) float64 array or None
        At each offset the mean over all pairs of covered spaxels, those that the table leaves out counting as zero;
        None where there is no table.

    Raises
    ------
    FileFormatError
        When a table lacks a column or refers to spaxels beyond the cube.
    """
    found = [hdu for name in names for hdu in file if hdu.name == name]
    if not found:
        return None
    kernels = [_mean_correlation(hdu, shape) for hdu in found]
    radius = max(kernel.shape[0] // 2 for kernel in kernels)
    total = sum(np.pad(kernel, radius - kernel.shape[0] // 2) for kernel in kernels)
    return truncate_correlation(np.asarray(total) / len(kernels))


def _mean_correlation(hdu: Hdu, shape: tuple[int, int]) -> Float:
    rows = hdu.table()
    missing = [name for name in _COLUMNS if name not in rows.names]
    if missing:
        raise FileFormatError(f"the table has no column {missing[0]}", source=hdu.file.path, field=hdu.name)
    x1, y1, x2, y2 = (np.asarray(rows[name], dtype=np.int64) for name in _COLUMNS[:4])
    rho = np.asarray(rows["RHOIJ"], dtype=np.float64)
    inside = [
        (index >= 0) & (index < size)
        for index, size in ((x1, shape[1]), (x2, shape[1]), (y1, shape[0]), (y2, shape[0]))
    ]
    if not np.all(inside):
        raise FileFormatError(
            f"the table refers to spaxels beyond the {shape[1]} x {shape[0]} of the cube",
            source=hdu.file.path,
            field=hdu.name,
        )
    covered = np.zeros(shape)
    own = (x1 == x2) & (y1 == y2)
    covered[y1[own], x1[own]] = 1.0
    if not np.any(own):
        raise FileFormatError("the matrix has no diagonal", source=hdu.file.path, field=hdu.name)
    good = np.isfinite(rho)
    dx, dy = (x2 - x1)[good], (y2 - y1)[good]
    radius = int(max(np.abs(dx).max(), np.abs(dy).max()))
    side = 2 * radius + 1
    flat = (dy + radius) * side + dx + radius
    sums = np.bincount(flat, weights=rho[good], minlength=side * side).reshape(side, side)
    # The upper triangle has each pair once: the other direction is its mirror image, the middle stands for itself.
    sums = sums + sums[::-1, ::-1]
    sums[radius, radius] /= 2.0
    pairs = _pairs(covered, radius)
    mean = np.divide(sums, pairs, out=np.zeros_like(sums), where=pairs > 0)
    return np.asarray(mean / mean[radius, radius])


def _pairs(covered: Float, radius: int) -> Float:
    """Return how many pairs of covered spaxels there are at each offset up to ``radius``."""
    ny, nx = covered.shape
    shape = (ny + radius, nx + radius)
    power = np.abs(np.fft.rfft2(covered, shape)) ** 2
    counts = np.round(np.fft.irfft2(power, shape))
    offsets = np.arange(-radius, radius + 1)
    return np.asarray(counts[np.ix_(offsets % shape[0], offsets % shape[1])])
