"""Stars brought onto one grid: sky taken off, centred to a fraction of a pixel, neighbours found, scaled to unit flux.

Everything works on all stars at once, as (n, side, side) stacks whose central pixel holds the star.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_propagation, grey_dilation

from skyloom.core.image import Flag, Image
from skyloom.imaging.psfs.matching import encircled_fractions
from skyloom.imaging.psfs.profile_fits import ProfileFits, fit_profiles

__all__ = ["StarStack", "combine", "curves_of_growth", "radius_grid", "rescale", "stack_stars"]

Array = NDArray[Any]
Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
SEARCH = 3  # Pixels around a given position in which the star's peak is looked for.
EDGE = 4  # Pixels over which a model fades to zero at its border.


@dataclass(eq=False)
class StarStack:
    """Stars on one grid.

    Parameters
    ----------
    values : (n, side, side) array
        Sky-subtracted, centred, in units of each star's flux.
    valid : (n, side, side) bool array
        False: masked, outside, a neighbour, or saturated.
    x, y : (n,) arrays
        Centres in the pixels of the input images.
    flux : (n,) array
        Scale of each star: its sum within ``radius_norm``, holes filled with the model.
    sky, sky_error, noise : (n,) arrays
        Level subtracted, its error, and the scatter of single sky pixels, in the unit of the images.
    fits : ProfileFits
        Gaussian fits to the cores.
    saturated : (n,) bool array
        Whether pixels of the core are flagged or above the saturation level.
    radius_norm : float
        Radius in pixels within which fluxes are compared.
    model : (side, side) array
        Current combined star.
    """

    values: Float
    valid: Bool
    x: Float
    y: Float
    flux: Float
    sky: Float
    sky_error: Float
    noise: Float
    fits: ProfileFits
    saturated: Bool
    radius_norm: float
    model: Float

    @property
    def side(self) -> int:
        """Side of the grid."""
        return int(self.values.shape[1])

    @property
    def width(self) -> float:
        """Typical full width at half maximum in pixels."""
        return float(np.median(self.fits.fwhm))


@lru_cache(maxsize=16)
def radius_grid(side: int) -> Float:
    """Return the distance of each pixel from the central one, in pixels."""
    axis = np.arange(side) - side // 2
    radius = np.hypot(axis[:, np.newaxis], axis)
    radius.flags.writeable = False
    return radius


def stack_stars(
    images: Sequence[Image],
    positions: Float | None,
    side: int | None,
    saturation: float | None,
    correlation: Float | None,
    profile: str = "gaussian",
) -> StarStack:
    """Bring stars onto one grid; see `skyloom.imaging.psfs.psf.measure_psf` for the parameters."""
    places = [_locate(image, None if positions is None else positions[i]) for i, image in enumerate(images)]
    width = float(
        np.median([_rough_width(image, place) for image, place in zip(images, places, strict=True)])
    )
    reach = int(np.clip(round(1.1 * width) + 1, 3, 12))
    cuts = [_cut(image, place, reach) for image, place in zip(images, places, strict=True)]
    windows, variances, valid = (np.stack(planes) for planes in list(zip(*cuts, strict=True))[:3])
    fits = fit_profiles(windows, variances, valid, profile=profile, correlation=correlation)
    centre_x = np.array([place[1] for place in places]) + fits.x
    centre_y = np.array([place[0] for place in places]) + fits.y
    if side is None:
        side = _largest_side(images, centre_x, centre_y, width)
    half = side // 2
    values, used, skies = [], [], []
    for image, x, y in zip(images, centre_x, centre_y, strict=True):
        place = (round(float(y)), round(float(x)))
        # A margin keeps what the shift wraps around outside the final grid.
        window, _, good, outside = _cut(image, place, half + 2)
        sky = _border_sky(window, good, half)
        filled = np.where(good, window - sky[0], 0.0)
        mirrored = filled[::-1, ::-1] * ~outside
        values.append(np.where(good, filled, mirrored))
        used.append(good & ~_saturated_pixels(image, place, half + 2, window, saturation))
        skies.append(sky)
    stack = np.stack(values)
    shift_x, shift_y = np.rint(centre_x) - centre_x, np.rint(centre_y) - centre_y
    stack = _shifted(stack, shift_x, shift_y)[:, 2:-2, 2:-2]
    good = np.stack(used)[:, 2:-2, 2:-2]
    sky_values = np.array(skies)
    near = radius_grid(side) <= max(1.5, 0.75 * width)
    radius_norm = min(0.8 * half, max(6.0 * width, 10.0))
    result = StarStack(
        values=stack,
        valid=good,
        x=centre_x,
        y=centre_y,
        flux=np.ones(len(images)),
        sky=sky_values[:, 0],
        sky_error=sky_values[:, 1],
        noise=sky_values[:, 2],
        fits=fits,
        saturated=~np.all(good | ~near, axis=(1, 2)),
        radius_norm=radius_norm,
        model=np.zeros((side, side)),
    )
    _start_scale(result)
    return result


# --- finding and cutting ---------------------------------------------------------------------------------


def _locate(image: Image, position: Float | None) -> tuple[int, int]:
    """Pixel (y, x) of the star's peak: brightest 3x3 sum of the central half, or near the given position."""
    ny, nx = image.shape
    if position is None:
        top, bottom, left, right = ny // 4, ny - ny // 4, nx // 4, nx - nx // 4
    else:
        x, y = round(float(position[0])), round(float(position[1]))
        top, bottom, left, right = y - SEARCH, y + SEARCH + 1, x - SEARCH, x + SEARCH + 1
    top, left, bottom, right = max(top, 1), max(left, 1), min(bottom, ny - 1), min(right, nx - 1)
    box = slice(top - 1, bottom + 1), slice(left - 1, right + 1)
    values = np.where(image.mask[box], 0.0, image.data[box]).astype(np.float64)
    rows = values[:-2] + values[1:-1] + values[2:]
    sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    row, column = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return top + int(row), left + int(column)


def _rough_width(image: Image, place: tuple[int, int]) -> float:
    """Full width at half maximum in pixels from the number of pixels above half of the peak."""
    window, _, good, _ = _cut(image, place, 12)
    centre = window.shape[0] // 2
    level = float(np.median(window[good])) if good.any() else 0.0
    core = window[centre - 1 : centre + 2, centre - 1 : centre + 2]
    peak = float(np.max(core[good[centre - 1 : centre + 2, centre - 1 : centre + 2]], initial=level))
    above = good & (window > 0.5 * (peak + level))
    return float(2.0 * np.sqrt(np.count_nonzero(above) / np.pi) + 0.5)


def _cut(image: Image, place: tuple[int, int], half: int) -> tuple[Float, Float, Bool, Bool]:
    """Data, variance, usable pixels and what lies outside, of a square around a pixel."""
    side = 2 * half + 1
    ny, nx = image.shape
    top, left = place[0] - half, place[1] - half
    from_y, to_y, from_x, to_x = max(0, top), min(ny, top + side), max(0, left), min(nx, left + side)
    source = slice(from_y, to_y), slice(from_x, to_x)
    target = slice(from_y - top, to_y - top), slice(from_x - left, to_x - left)
    data, variance = np.zeros((side, side)), np.zeros((side, side))
    good, outside = np.zeros((side, side), bool), np.ones((side, side), bool)
    data[target], variance[target] = image.data[source], image.variance[source]
    good[target], outside[target] = ~image.mask[source], False
    data[~good], variance[~good] = 0.0, 0.0
    return data, variance, good, outside


def _saturated_pixels(
    image: Image, place: tuple[int, int], half: int, window: Float, saturation: float | None
) -> Bool:
    """Pixels of a cut-out above the saturation level or flagged as near it, and their neighbours."""
    found = np.zeros(window.shape, bool)
    if saturation is not None:
        found |= window >= saturation
    if image.flags is not None:
        flagged = (image.flags & np.uint16(Flag.NEAR_SATURATED)) != 0
        if flagged.any():
            found |= _cut(image.evolve(mask=~flagged | image.mask), place, half)[2]
    return _grown(found) if found.any() else found


def _largest_side(images: Sequence[Image], x: Float, y: Float, width: float) -> int:
    """Largest odd side that fits into the cut-outs, at least 13 and at most 25 FWHM.

    A star far off the middle of its cut-out does not decide: it is used as far as it reaches.
    """
    room = np.array(
        [
            min(cx, image.shape[1] - 1 - cx, cy, image.shape[0] - 1 - cy)
            for image, cx, cy in zip(images, x, y, strict=True)
        ]
    )
    room = room[room >= 0.6 * np.median(room)]
    return 2 * int(np.clip(np.floor(room.min()), 6, np.ceil(12.5 * width))) + 1


# --- sky, centring, scaling ------------------------------------------------------------------------------


def _border_sky(window: Float, good: Bool, half: int) -> tuple[float, float, float]:
    """Sky level, its error and the pixel noise, from the pixels beyond 85 % of the half side.

    The error comes from the scatter of the means of eight sectors, so that correlated noise and residual light in
    the border (spikes, neighbours) count in full.
    """
    side = window.shape[0]
    ring = good & (radius_grid(side) > 0.85 * half)
    values = window[ring]
    if values.size < 16:
        return 0.0, np.nan, float(np.std(window[good])) if good.any() else np.nan
    order = np.argsort(values)
    ranked = values[order]
    low, high = 0, ranked.size
    level, scatter = 0.0, 0.0
    for _ in range(5):
        # Quantiles of what is kept so far, from one sort.
        level, below, above = ranked[
            (low + np.array([0.5, 0.1587, 0.8413]) * (high - low - 1)).astype(np.int64)
        ]
        scatter = 0.5 * float(above - below)
        low, high = np.searchsorted(ranked, [level - 2.5 * scatter, level + 2.5 * scatter])
        if high - low < 16:
            return float(level), np.nan, scatter
    sector = _sectors(side)[ring][order[low:high]]
    count = np.bincount(sector, minlength=8)
    means = np.bincount(sector, weights=ranked[low:high], minlength=8)[count >= 4] / count[count >= 4]
    # The median of normal noise scatters 1.25 times as much as its mean.
    error = 1.2533 * float(np.std(means, ddof=1) / np.sqrt(means.size)) if means.size > 1 else np.nan
    return float(level), error, scatter


@lru_cache(maxsize=16)
def _sectors(side: int) -> NDArray[np.int64]:
    axis = np.arange(side) - side // 2
    angle = np.arctan2(axis[:, np.newaxis], axis)
    return np.asarray(np.floor((angle / (2.0 * np.pi) + 0.5) * 8.0).astype(np.int64) % 8)


def _shifted(stack: Float, shift_x: Float, shift_y: Float) -> Float:
    """Shift each image by a fraction of a pixel with quintic splines.

    A shift by Fourier phases would ring along rows and columns through every star whose PSF is not quite sampled; the
    ringing of a spline dies out within a few pixels.
    """
    along_y = _spline_shifts(stack.shape[1], shift_y)
    along_x = _spline_shifts(stack.shape[2], shift_x)
    return np.asarray(along_y @ stack @ along_x.transpose(0, 2, 1))


def _spline_shifts(size: int, shifts: Float) -> Float:
    """Return (n, size, size) matrices that shift a line by each of ``shifts`` pixels, zeros beyond its ends."""
    lag = np.arange(-3, 4)
    values = _quintic(lag - shifts[:, np.newaxis])
    banded = np.zeros((shifts.size, size, size + 6))
    row = np.arange(size)
    for index, offset in enumerate(lag):
        banded[:, row, row + 3 + offset] = values[:, index, np.newaxis]
    # Taps at lag d multiply the coefficient d pixels before: the shifted line is sum_d basis(d - shift) c(x - d).
    return np.asarray(banded[:, :, 3:-3].transpose(0, 2, 1) @ _spline_inverse(size))


@lru_cache(maxsize=16)
def _spline_inverse(size: int) -> Float:
    """Matrix from the values of a line to its quintic spline coefficients."""
    lags = range(-2, 3)
    collocation = np.zeros((size, size))
    for lag, value in zip(lags, _quintic(np.array(lags, dtype=np.float64)), strict=True):
        collocation += float(value) * np.eye(size, k=lag)
    return np.asarray(np.linalg.inv(collocation))


def _quintic(x: Float) -> Float:
    """Quintic B-spline."""
    distance = np.abs(x)
    return np.asarray(
        (
            np.maximum(3.0 - distance, 0.0) ** 5
            - 6.0 * np.maximum(2.0 - distance, 0.0) ** 5
            + 15.0 * np.maximum(1.0 - distance, 0.0) ** 5
        )
        / 120.0
    )


def _start_scale(stack: StarStack) -> None:
    """Bring the stars to about unit flux by their cores, then find their neighbours and scale them properly."""
    core = radius_grid(stack.side) <= 1.5 * stack.width
    rough = np.sum(stack.values * core, axis=(1, 2))
    stack.flux = np.where(rough > 0, rough, np.nan)
    stack.values = stack.values / stack.flux[:, np.newaxis, np.newaxis]
    rescale(stack)
    stack.valid &= ~_neighbours(stack.values, stack.model, stack.noise / stack.flux, stack.width)
    rescale(stack)


def rescale(stack: StarStack, used: Bool | None = None) -> None:
    """Make the median of the used stars the model, and bring every star to its flux over the pixels that are valid."""
    chosen = np.isfinite(stack.flux) if used is None else used
    if not chosen.any():
        return
    within = radius_grid(stack.side) <= stack.radius_norm
    model = _median_star(stack.values[chosen], stack.valid[chosen])
    model = model / model[within].sum()
    good = stack.valid & within
    ratio = np.sum(stack.values * good, axis=(1, 2)) / np.maximum(np.sum(model * good, axis=(1, 2)), 1e-12)
    ratio = np.where(ratio > 0, ratio, np.nan)
    stack.values = stack.values / ratio[:, np.newaxis, np.newaxis]
    stack.flux = stack.flux * ratio
    stack.model = model


def _median_star(values: Float, valid: Bool) -> Float:
    """Pixelwise median of three stars or more; of fewer, the median of four rotations of their mean."""
    count = valid.sum(axis=0)
    if values.shape[0] >= 3:
        ordered = _sorted_planes(np.where(valid, values, np.inf))
        low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(values) - 1)
        median = 0.5 * np.add(
            *(np.take_along_axis(ordered, rank[np.newaxis], axis=0)[0] for rank in (low, high))
        )
        if count.min() > 0:
            return np.asarray(median)
        return np.where(count > 0, median, np.median(values, axis=0))
    mean = np.where(count > 0, np.sum(values * valid, axis=0) / np.maximum(count, 1), values.mean(axis=0))
    return np.asarray(np.median([np.rot90(mean, turn) for turn in range(4)], axis=0))


def _sorted_planes(planes: Float) -> Float:
    """Sort along the first axis: by neighbouring exchanges while the planes are few, five times faster than sort."""
    n = planes.shape[0]
    if n > 10:
        return np.sort(planes, axis=0)
    for sweep in range(n):
        for index in range(sweep % 2, n - 1, 2):
            low = np.minimum(planes[index], planes[index + 1])
            planes[index + 1] = np.maximum(planes[index], planes[index + 1])
            planes[index] = low
    return planes


def _neighbours(values: Float, model: Float, noise: Float, width: float) -> Bool:
    """Pixels where a star exceeds the model, and its own other three sides, by far more than PSFs differ.

    A neighbour must be brighter than what the model holds anywhere at that radius (so that turned diffraction spikes
    do not count) and than the median of the star turned by quarters (so that a halo around the star is not taken for
    one), by five sigma and 0.3 % of the peak; from there its mask grows over the contiguous excess.
    """
    radius = radius_grid(model.shape[0])
    outside = radius > 1.2 * width
    peak = model.max()
    expected = np.maximum(grey_dilation(model, size=(5, 5)), _ring_maxima(model))
    found = np.zeros(values.shape, bool)
    for index, image in enumerate(values):
        turned = _sorted_planes(np.stack([image, np.rot90(image), np.rot90(image, 2), np.rot90(image, 3)]))
        own = np.maximum(model, 0.5 * (turned[1] + turned[2]))
        excess = image - own
        sigma = noise[index]
        least = np.where(radius > 6.0 * width, 8.0 * sigma, np.maximum(5.0 * sigma, 3e-3 * peak))
        seed = outside & (excess > least) & (excess > 1.5 * np.maximum(expected, own))
        if seed.any():
            grown = outside & (excess > 3.0 * sigma) & (excess > 0.4 * own)
            found[index] = _grown(binary_propagation(seed, mask=grown | seed))
    return found


def _grown(mask: Bool) -> Bool:
    """Add the four neighbours of every pixel that is set."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _ring_maxima(model: Float) -> Float:
    """Largest value of the model at each radius."""
    ring, order, starts = _rings(model.shape[0])
    return np.asarray(np.maximum.reduceat(model.ravel()[order], starts)[ring])


@lru_cache(maxsize=16)
def _rings(side: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Ring (one pixel wide) of each pixel, the pixels sorted by ring, and where each ring starts in that order."""
    ring = np.rint(radius_grid(side)).astype(np.int64)
    order = np.argsort(ring.ravel(), kind="stable")
    starts = np.searchsorted(ring.ravel()[order], np.arange(ring.max() + 1))
    return ring, order, starts


# --- combining -------------------------------------------------------------------------------------------


def curves_of_growth(stack: StarStack, radii: Float) -> Float:
    """Return the (n, m) fractions of the light within ``radii`` of the light within ``radius_norm``.

    Holes are filled with the model.
    """
    filled = np.where(stack.valid, stack.values, stack.model)
    wanted = np.append(radii, stack.radius_norm)
    curves = np.array([encircled_fractions(image, wanted) for image in filled])
    return np.asarray(curves[:, :-1] / curves[:, -1:])


def combine(stack: StarStack, used: Bool, core_used: Bool, core_radius: float) -> Float:
    """Return the weighted mean of the used stars, wings cleaned, faded to zero at the border, sum 1.

    Parameters
    ----------
    used : (n,) bool array
        Stars that count.
    core_used : (n,) bool array
        Stars whose pixels within ``core_radius`` count too.
    core_radius : float
        pixels

    Notes
    -----
    Weights are equal for bright stars and fall with the noise of faint ones. Pixels that no star covers are filled
    from the point-reflected model.
    """
    radius = radius_grid(stack.side)
    relative = (stack.noise / stack.flux)[used]
    weight = 1.0 / (relative**2 + float(np.median(relative)) ** 2)
    good = stack.valid[used] & ~((radius <= core_radius) & ~core_used[used, np.newaxis, np.newaxis])
    weights = weight[:, np.newaxis, np.newaxis] * good
    total = weights.sum(axis=0)
    seen = total > 0
    mean = np.divide(
        np.sum(weights * stack.values[used], axis=0), total, out=np.zeros_like(total), where=seen
    )
    noise = np.sqrt(np.sum((weights * relative[:, np.newaxis, np.newaxis]) ** 2, axis=0))
    noise = np.divide(noise, total, out=np.full_like(total, np.inf), where=seen)
    mean = np.where(seen, mean, np.where(seen[::-1, ::-1], mean[::-1, ::-1], stack.model))
    cleaned = _clean_wings(mean, noise)
    half = stack.side // 2
    fade = 0.5 - 0.5 * np.cos(np.pi * np.clip((half + 0.5 - radius) / EDGE, 0.0, 1.0))
    cleaned = cleaned * fade
    return np.asarray(cleaned / cleaned.sum())


def _clean_wings(mean: Float, noise: Float) -> Float:
    """Replace pixels by the mean of their ring where the ring as a whole is below three sigma per pixel."""
    ring = _rings(mean.shape[0])[0]
    finite = np.isfinite(noise)
    count = np.maximum(np.bincount(ring.ravel(), weights=finite.ravel()), 1.0)
    level = np.bincount(ring.ravel(), weights=np.where(finite, mean, 0.0).ravel()) / count
    spread = np.sqrt(np.bincount(ring.ravel(), weights=np.where(finite, noise, 0.0).ravel() ** 2) / count)
    share = np.clip(np.abs(level) / np.maximum(3.0 * spread, 1e-300), 0.0, 1.0)[ring]
    return np.asarray(share * mean + (1.0 - share) * level[ring])
