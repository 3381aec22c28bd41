"""HII regions in the map of a line: found, told apart, grown, measured."""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.core.geometry import pixel_area
from skyloom.core.image import Image
from skyloom.core.labels import NO_REGION, LabelMap
from skyloom.core.noise import convolve_correlation
from skyloom.core.provenance import step
from skyloom.core.psf import GaussianPSF, square_matrix
from skyloom.errors import InputError
from skyloom.kernels.bins.flood import flood
from skyloom.spectral.bins.contents import measure_bins

__all__ = ["Regions", "find_regions"]

Float = NDArray[np.float64]
UNKNOWN_PSF = 1.0  # Sigma in pixels that is assumed where the image does not know its PSF.
# Of the sigma of the PSF: finds point sources with 0.8 of the significance of the matched filter, and still tells
# neighbours apart that the matched filter would blend.
SMOOTHING = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Regions of a map.

    Attributes
    ----------
    labels : LabelMap
        0 for the region with the brightest peak, and so on; -1 outside.
    catalogue : QTable
        One row per region: what `skyloom.spectral.measure_bins` gives (``id``, ``n_pixels``, ``area``, ``x``, ``y``,
        ``ra``, ``dec``, ``signal``, ``noise``, ``snr``), and ``peak_x``, ``peak_y``, ``peak`` (of the smoothed map)
        and ``peak_snr``, ``radius`` (of the circle of the same area), ``background`` (median per pixel just outside),
        ``touches_border`` (of the usable field) and ``touches_region`` (its light may be mixed with a neighbour's).
    """

    labels: LabelMap
    catalogue: QTable

    def __len__(self) -> int:
        return len(self.catalogue)


def find_regions(
    line_map: Image,
    *,
    threshold: float = 5.0,
    growth: float = 0.2,
    limit: float = 2.0,
    prominence: float = 4.0,
    contrast: float = 0.1,
    minimum_area: float | u.Quantity | None = None,
    smoothing: float | None = None,
) -> Regions:
    """Find compact regions in the map of an emission line.

    Parameters
    ----------
    line_map : Image
        Flux or surface brightness of the line, such as ``line_snr(...).signal``.
    threshold : float
        Significance that the peak of a region needs in the smoothed map.
    growth : float
        A region reaches down to this fraction of the brightness of its peak.
    limit : float
        And never below this significance in the smoothed map.
    prominence, contrast : float
        Two peaks are two regions when the lower one rises above the saddle between them by ``prominence`` times its
        noise and by the fraction ``contrast`` of its own brightness.
    minimum_area : float or Quantity, optional
        In pixels, or a solid angle; by default the area within the FWHM of the PSF, or 5 pixels where it is unknown.
    smoothing : float, optional
        Sigma of the Gaussian smoothing in pixels; by default half of that of the PSF.

    Returns
    -------
    Regions

    Raises
    ------
    InputError
        When a parameter makes no sense, or no pixel is usable. A map without regions is no error: the catalogue is
        empty.

    Notes
    -----
    The map is smoothed with a Gaussian half as wide as the PSF; its noise follows from the variance and
    the correlation of the map (`skyloom.core.noise.convolve_correlation`). Pixels are then flooded from the brightest
    downwards: each joins the basin that it lies on the slope of, and basins that meet merge unless both rise
    significantly above the saddle. Fluxes are sums over the unsmoothed map, with the covariance of the sum. A region
    chosen in the map it is measured in has a flux that is biased high by about its noise near the threshold.
    """
    _check(threshold, growth, limit, contrast)
    if not line_map.valid.any():
        raise InputError("no pixel of the map is usable", field="line_map", remedy="look at its mask")
    smooth, noise = _smoothed(line_map, SMOOTHING * _sigma(line_map) if smoothing is None else smoothing)
    basin, peaks = _flooded(smooth, noise, limit, (threshold, prominence, contrast))
    labels, kept = _grown(basin, peaks, smooth, growth, _least(line_map, minimum_area))
    criteria = {"threshold": threshold, "growth": growth, "limit": limit}
    history = step("find_regions", **criteria, prominence=prominence, contrast=contrast)
    regions = LabelMap(
        labels, line_map.wcs, {"method": "regions", "n_bins": kept.size}, (*line_map.history, history)
    )
    return Regions(regions, _catalogue(line_map, regions, kept, smooth, noise))


def _check(threshold: float, growth: float, limit: float, contrast: float) -> None:
    if not threshold > 0:
        raise InputError(f"threshold is {threshold}; expected > 0", field="threshold")
    if not 0 < growth < 1:
        raise InputError(
            f"growth is {growth}; expected a fraction of the peak between 0 and 1", field="growth"
        )
    if not 0 <= limit <= threshold:
        raise InputError(f"limit is {limit}; expected between 0 and the threshold {threshold}", field="limit")
    if not 0 <= contrast < 1:
        raise InputError(f"contrast is {contrast}; expected from 0 to below 1", field="contrast")


def _sigma(image: Image) -> float:
    """Sigma of the PSF in pixels."""
    if image.psf is None or image.wcs is None:
        return UNKNOWN_PSF
    return image.psf.fwhm / (2 * np.sqrt(2 * np.log(2))) / image.pixel_scale


def _least(image: Image, area: float | u.Quantity | None) -> float:
    """Smallest area of a region in pixels."""
    if area is None:
        if image.psf is None or image.wcs is None:
            return 5.0
        return max(5.0, np.pi / 4 * (image.psf.fwhm / image.pixel_scale) ** 2)
    if isinstance(area, u.Quantity):
        return float(area.to_value(u.arcsec**2) / pixel_area(image.wcs, image.shape))
    return float(area)


def _smoothed(image: Image, sigma: float) -> tuple[Float, Float]:
    """The map convolved with a Gaussian of ``sigma`` pixels, and its noise; masked pixels take no part."""
    if not sigma > 0:
        return np.where(image.mask, 0.0, image.data), np.sqrt(np.where(image.mask, 0.0, image.variance))
    from scipy import signal  # It takes long to load.

    kernel = GaussianPSF.from_sigma(sigma).render(square_matrix(1.0))
    _, variance_kernel = convolve_correlation(kernel, image.correlation)
    weight = signal.fftconvolve(image.valid.astype(np.float64), kernel, mode="same")
    enough = image.valid & (weight > 0.2)
    data = signal.fftconvolve(np.where(image.mask, 0.0, image.data), kernel, mode="same")
    variance = signal.fftconvolve(np.where(image.mask, 0.0, image.variance), variance_kernel, mode="same")
    smooth = np.divide(data, weight, out=np.zeros(image.shape), where=enough)
    noise = np.divide(np.sqrt(np.maximum(variance, 0.0)), weight, out=np.zeros(image.shape), where=enough)
    return smooth, noise


def _flooded(
    smooth: Float, noise: Float, limit: float, criteria: tuple[float, float, float]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Basin of each pixel, and the flat index of each peak."""
    ny, nx = smooth.shape
    # A border of nothing spares the kernel every question whether a neighbour exists.
    values, error = np.pad(smooth, 1).ravel(), np.pad(noise, 1).ravel()
    candidates = np.flatnonzero((values >= limit * error) & (error > 0))
    order = candidates[np.argsort(-values[candidates], kind="stable")]
    basin, peaks = flood(order, values, error, nx + 2, *criteria)
    y, x = np.divmod(peaks, nx + 2)
    inside = np.where(peaks < 0, -1, (y - 1) * nx + x - 1)
    return basin.reshape(ny + 2, nx + 2)[1:-1, 1:-1], inside


def _grown(
    basin: NDArray[np.int32], peaks: NDArray[np.int64], smooth: Float, growth: float, least: float
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Cut each basin at a fraction of its peak, drop what is too small, and number by brightness."""
    heights = np.where(peaks >= 0, smooth.ravel()[np.maximum(peaks, 0)], np.inf)
    member = basin >= 0
    member[member] = smooth[member] >= growth * heights[basin[member]]
    pieces = _pieces(np.where(member, basin, NO_REGION))
    alive = np.flatnonzero(peaks >= 0)
    own = pieces.ravel()[peaks[alive]]
    sizes = np.bincount(pieces[pieces >= 0], minlength=int(pieces.max(initial=-1)) + 1)
    large = sizes[own] >= least
    alive, own = alive[large], own[large]
    rank = np.argsort(-heights[alive], kind="stable")
    number = np.full(sizes.size + 1, NO_REGION, dtype=np.int32)
    number[own[rank]] = np.arange(rank.size, dtype=np.int32)
    return number[pieces], peaks[alive[rank]]


def _pieces(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Number the connected pieces of equal label, -1 outside.

    A basin cut at a level can fall apart where a lesser peak was merged across a saddle below that level.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    index = np.arange(labels.size).reshape(labels.shape)
    pairs = []
    for here, there in (
        (np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]), (np.s_[:-1, 1:], np.s_[1:, :-1]),
    ):  # fmt: skip
        same = (labels[here] == labels[there]) & (labels[here] >= 0)
        pairs.append((index[here][same], index[there][same]))
    rows, columns = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = coo_array((np.ones(rows.size, bool), (rows, columns)), shape=(labels.size, labels.size))
    pieces = connected_components(graph, directed=False)[1].reshape(labels.shape).astype(np.int64)
    pieces[labels < 0] = NO_REGION
    return pieces


def _catalogue(
    image: Image, regions: LabelMap, peaks: NDArray[np.int64], smooth: Float, noise: Float
) -> QTable:
    table = measure_bins(image, regions)
    table.remove_column("flag")
    labels = regions.labels
    y, x = np.divmod(peaks, image.shape[1])
    table["peak_x"], table["peak_y"] = x * u.pix, y * u.pix
    table["peak"] = smooth[y, x] * image.unit
    table["peak_snr"] = smooth[y, x] / noise[y, x]
    n_pixels = np.asarray(table["n_pixels"], dtype=np.float64)
    if image.wcs is None:
        table["radius"] = np.sqrt(n_pixels / np.pi) * u.pix
    else:
        table["radius"] = np.sqrt(table["area"] / np.pi).to(u.arcsec)
    facts = [
        _surroundings(image, labels, number, box)
        for number, box in enumerate(ndimage.find_objects(labels + 1))
    ]
    table["background"] = np.array([fact[0] for fact in facts], dtype=np.float64) * image.unit
    table["touches_border"] = np.array([fact[1] for fact in facts], dtype=bool)
    table["touches_region"] = np.array([fact[2] for fact in facts], dtype=bool)
    return table


def _surroundings(
    image: Image, labels: NDArray[np.int32], number: int, box: tuple[slice, slice]
) -> tuple[float, bool, bool]:
    """Median of the free pixels around a region, whether it touches the border, and whether another region."""
    reach = 3
    window = tuple(
        slice(max(0, side.start - reach), min(size, side.stop + reach))
        for side, size in zip(box, labels.shape, strict=True)
    )
    own = labels[window] == number
    rim = ndimage.binary_dilation(own, np.ones((3, 3), bool)) & ~own
    ring = ndimage.binary_dilation(own, iterations=reach) & (labels[window] < 0) & image.valid[window]
    edge = any(side.start == 0 or side.stop == size for side, size in zip(box, labels.shape, strict=True))
    border = edge or bool((rim & image.mask[window]).any())
    neighbour = bool((rim & (labels[window] >= 0)).any())
    background = float(np.median(image.data[window][ring])) if ring.any() else np.nan
    return background, border, neighbour
