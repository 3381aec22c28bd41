"""Cosmic rays in a single image: found by their sharp edges, told from stars by the PSF, filled from neighbours."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.core.image import Flag, Image
from skyloom.core.provenance import step
from skyloom.core.psf import PSF
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.repair.local_fill import fill_from_neighbours
from skyloom.kernels.images.local_fill import sharpness

__all__ = ["CosmicRays", "remove_cosmic_rays"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]

TILE = 2048  # Pixels; astroscrappy needs about 60 bytes for each pixel of a tile.
OVERLAP = 48  # The filters of two iterations reach less far.
BORDER = 8  # Mirrored pixels around the image: the medians leave the outermost ones out.
SIGMA_LEVEL = (
    10.0  # astroscrappy has absolute floors (1e-5 electron^2); noise is brought to this many electrons.
)
CONTRAST_WITH_PSF, CONTRAST_ALONE = 2.0, 5.0
SMALLEST_RATIO = 0.85  # Of the ratios that the PSF allows, so that a PSF known to a tenth does no harm.
SIGNIFICANCE = 2.0  # By which a group of candidates must be sharper than the PSF allows.
BRIGHT = 0.4  # Of the brightest pixel of a group: fainter ones must be twice as significant.
NEIGHBOURS = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, slots=True, eq=False)
class CosmicRays:
    """An image without its cosmic rays.

    Parameters
    ----------
    image : Image
        Repaired, the repaired pixels flagged `Flag.REPAIRED_COSMIC_RAY`.
    mask : (ny, nx) bool array
        True where a ray was found.
    n_pixels, n_rays : int
        Pixels in the mask, and connected groups of them.
    settings : dict
        With which they were found.
    """

    image: Image
    mask: Mask
    n_pixels: int
    n_rays: int
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Search:
    """Settings of a search; see `remove_cosmic_rays`."""

    exposure: float | None
    gain: float
    threshold: float
    neighbours: float
    growth: float
    contrast: float
    iterations: int
    saturation: float | None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name != "growth" and value is not None and not 0 < value < np.inf:
                raise InputError(f"{item.name} is {value}; expected > 0", field=item.name)
        if not self.growth >= 0:
            raise InputError(f"growth is {self.growth}; expected >= 0 (0: rays do not grow)", field="growth")
        if self.neighbours > 1:
            raise InputError(
                f"neighbours is {self.neighbours}; expected a share of the threshold", field="neighbours"
            )


def remove_cosmic_rays(
    image: Image,
    *,
    exposure: float | None = None,
    gain: float = 1.0,
    threshold: float = 4.0,
    neighbours: float = 0.6,
    growth: float = 3.0,
    contrast: float | None = None,
    iterations: int = 2,
    psf: PSF | None = None,
    saturation: float | None = None,
    protect: Mask | None = None,
    fill_sigma: float = 1.0,
) -> CosmicRays:
    """Find cosmic rays and fill their pixels from those around them.

    Parameters
    ----------
    image : Image
        In any unit: it is brought to a common noise before the search, so that rates and fluxes serve as well as
        electrons.
    exposure : float, optional
        Seconds. Given for an image in rates whose variance holds the background only (weight maps): the photon noise
        of sources is added for the search. None: the variance is complete.
    gain : float
        Electrons per unit of ``data`` times second, together with ``exposure``.
    threshold : float
        Significance of the Laplacian from which on a pixel is a candidate.
    neighbours : float
        Times the threshold: for pixels beside a candidate.
    growth : float
        Pixels beside a ray join it when they exceed their surroundings by this many sigma.
    contrast : float, optional
        Least ratio of the Laplacian to the fine structure. None: 2 when the PSF tells stars from rays afterwards, else
        5, which spares stars at the cost of rays that the resampling has smoothed.
    iterations : int
        Passes of the search; a second one finds what the first pass's rays hid.
    psf : PSF, optional
        None: that of the image. Without any, groups of candidates are not tested against it.
    saturation : float, optional
        Level in the unit of the image; extended areas above it are left alone.
    protect : (ny, nx) bool array, optional
        True where nothing may be found, such as bleeding columns. Pixels flagged as near saturation are protected.
    fill_sigma : float
        Of the Gaussian weights of the neighbours from which a pixel is filled, in pixels.

    Returns
    -------
    CosmicRays
        The variance of a repaired pixel is that of the prediction (noise of the neighbours with its correlation, and
        their scatter about the prediction), never below what the pixel had. The mask of the image stays, but for
        pixels of rays that have no good neighbour: these are masked.

    Raises
    ------
    InputError
        When a setting is out of range, or nothing is left to search.
    ShapeError
        When ``protect`` has another shape than the image.

    Notes
    -----
    Candidates are those of L.A.Cosmic (van Dokkum 2001, 10.1086/323894) as implemented by astroscrappy, on the
    variance plane. A sum of point sources of any positions and fluxes >= 0, seen through a PSF, shows a mean of two
    opposite neighbours of at least q times the pixel between them, where q is the smallest ratio of a single point
    source over its sub-pixel positions. A pixel is sharp when it breaks this by two sigma (four, if it is much fainter
    than the brightest one of its group) in one of four directions, with q lowered by 15 %; candidates are kept when
    they are sharp, beside sharp ones, or in a group whose brightest pixel is.
    """
    if not fill_sigma > 0:
        raise InputError(f"fill_sigma is {fill_sigma}; expected > 0", field="fill_sigma")
    model = image.psf if psf is None else psf
    ratios = None if model is None or image.wcs is None else _smallest_ratios(model, image.pixel_matrix)
    if contrast is None:
        contrast = CONTRAST_ALONE if ratios is None else CONTRAST_WITH_PSF
    search = _Search(exposure, gain, threshold, neighbours, growth, contrast, iterations, saturation)
    rays = _find(image, search, ratios, _protected(image, saturation, protect))
    settings = {"method": "astroscrappy", **asdict(search), "fill_sigma": fill_sigma}
    settings["psf_fwhm"] = None if ratios is None or model is None else model.fwhm
    return _repair(image, rays, settings)


def _repair(image: Image, rays: Mask, settings: dict[str, Any]) -> CosmicRays:
    """Fill the pixels of rays."""
    fill = fill_from_neighbours(image, rays, image.valid & ~rays, sigma=settings["fill_sigma"])
    data, variance, mask = image.data.copy(), image.variance.copy(), image.mask.copy()
    flags = np.zeros(image.shape, np.uint16) if image.flags is None else image.flags.copy()
    place = fill.rows[fill.found], fill.columns[fill.found]
    data[place] = fill.value[fill.found]
    variance[place] = np.maximum(fill.variance[fill.found], variance[place])
    flags[place] |= np.uint16(Flag.REPAIRED_COSMIC_RAY)
    mask[fill.rows[~fill.found], fill.columns[~fill.found]] = True
    n_pixels, n_rays = int(np.count_nonzero(rays)), int(ndimage.label(rays, NEIGHBOURS)[1])
    repaired = image.evolve(
        step("remove_cosmic_rays", pixels=n_pixels, rays=n_rays, **settings),
        data=data,
        variance=variance,
        mask=mask,
        flags=flags,
    )
    return CosmicRays(repaired, rays, n_pixels, n_rays, settings)


def _find(image: Image, search: _Search, ratios: Array | None, protected: Mask) -> Mask:
    """Return the mask of the cosmic rays."""
    if not image.valid.any():
        raise InputError("all pixels are masked: there is nothing to search", field="mask")
    noisy = image if search.exposure is None else _with_photons(image, search.gain * search.exposure)
    searched = image.valid & ~protected
    rays = candidates = _candidates(noisy, searched, search)
    if ratios is not None:
        rays = _sharper_than_psf(noisy, candidates, ratios)
        searched &= ~ndimage.binary_dilation(candidates & ~rays, NEIGHBOURS)
    if search.growth > 0:
        for _ in range(2):
            rays = rays | _faint_ends(noisy, rays, searched, search.growth)
    return rays


def _with_photons(image: Image, electrons: float) -> Image:
    """Add the photon noise of the sources; a median of 5 x 5 pixels keeps that of a ray out of its own noise."""
    level = ndimage.median_filter(np.where(image.mask, 0, image.data), 5)
    added = np.maximum(level, 0) / image.data.dtype.type(electrons)
    return image.evolve(variance=image.variance + added)


def _protected(image: Image, saturation: float | None, protect: Mask | None) -> Mask:
    """Pixels in which nothing is looked for."""
    if protect is not None and np.shape(protect) != image.shape:
        raise ShapeError(
            f"protect has shape {np.shape(protect)}; expected {image.shape}, the shape of the image",
            field="protect",
        )
    found = np.zeros(image.shape, bool) if protect is None else np.array(protect, dtype=bool)
    if image.flags is not None:
        found |= (image.flags & np.uint16(Flag.NEAR_SATURATED)) != 0
    if saturation is not None:
        above = image.valid & (image.data >= saturation)
        # Rays may exceed the level too, but they are thin.
        extended = above & (ndimage.uniform_filter(above.astype(np.float32), 3) > 5.5 / 9)
        found |= ndimage.binary_dilation(ndimage.binary_propagation(extended, NEIGHBOURS, above), NEIGHBOURS)
    return found


# --- candidates ------------------------------------------------------------------------------------------


def _candidates(image: Image, searched: Mask, search: _Search) -> Mask:
    """Return the cosmic rays of astroscrappy, tile by tile so that its memory stays bounded."""
    typical = float(np.median(image.variance[searched])) if searched.any() else 1.0
    scale = SIGMA_LEVEL / np.sqrt(typical)
    found = np.zeros(image.shape, dtype=bool)
    for inner, outer in _tiles(image.shape):
        if not searched[inner].any():
            continue
        data, variance = (plane[outer] for plane in (image.data, image.variance))
        plane = _padded(data * scale, ~image.mask[outer])
        noise = _padded(variance * scale**2, ~image.mask[outer])
        rays = _detect(plane, noise, np.pad(~searched[outer], BORDER, mode="reflect"), search)
        top, left = (a.start - b.start + BORDER for a, b in zip(inner, outer, strict=True))
        height, width = found[inner].shape
        found[inner] = rays[top : top + height, left : left + width]
    return found & searched


def _detect(data: Array, variance: Array, mask: Mask, search: _Search) -> Mask:
    """Call astroscrappy, which has threads of its own, on data in electrons."""
    try:
        from astroscrappy import detect_cosmics
    except ImportError as error:
        raise InputError(
            "cosmic rays are found by astroscrappy, which is not installed",
            field="cosmic_rays",
            remedy="pip install astroscrappy",
        ) from error
    rays, _ = detect_cosmics(
        data,
        inmask=mask,
        invar=variance,
        sigclip=search.threshold,
        sigfrac=search.neighbours,
        objlim=search.contrast,
        niter=search.iterations,
        satlevel=np.inf,
        sepmed=True,
        cleantype="meanmask",
        fsmode="median",
    )
    return np.asarray(rays, dtype=bool)


def _tiles(shape: tuple[int, int]) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Return squares that cover an image, and the same with their overlap."""
    tiles = []
    for top in range(0, shape[0], TILE):
        for left in range(0, shape[1], TILE):
            inner, outer = [], []
            for start, size in ((top, shape[0]), (left, shape[1])):
                stop = min(start + TILE, size)
                inner.append(slice(start, stop))
                outer.append(slice(max(0, start - OVERLAP), min(size, stop + OVERLAP)))
            tiles.append(((inner[0], inner[1]), (outer[0], outer[1])))
    return tiles


def _padded(plane: Array, valid: Mask) -> Array:
    """Return a plane as float32 with a mirrored border, holes filled with the mean around them."""
    values = plane.astype(np.float32)
    if not valid.all():
        values[~valid] = 0.0
        share = ndimage.uniform_filter(valid.astype(np.float32), 7)
        mean = ndimage.uniform_filter(values, 7)
        typical = float(np.median(values[valid])) if valid.any() else 1.0
        # Sums of a running window leave rounding where nothing is valid.
        near = share > 0.5 / 49
        filled = np.where(near, mean / np.maximum(share, 0.5 / 49), typical)
        values = np.where(valid, values, filled).astype(np.float32)
    return np.pad(values, BORDER, mode="reflect")


# --- rays told from stars --------------------------------------------------------------------------------


def _smallest_ratios(psf: PSF, matrix: Array) -> Array:
    """Mean of two opposite neighbours over the pixel between, the smallest over sub-pixel places of a point source."""
    steps = ((0, 1), (1, 0), (1, 1), (1, -1))
    smallest = np.full(len(steps), np.inf)
    for x in np.linspace(-0.5, 0.5, 5):
        for y in np.linspace(-0.5, 0.5, 5):
            stamp = psf.render(matrix, 9, (float(x), float(y)))
            for index, (dy, dx) in enumerate(steps):
                pair = 0.5 * (stamp[4 + dy, 4 + dx] + stamp[4 - dy, 4 - dx])
                smallest[index] = min(smallest[index], pair / stamp[4, 4])
    return np.maximum(SMALLEST_RATIO * smallest, 1e-3)


def _sharper_than_psf(image: Image, candidates: Mask, ratios: Array) -> Mask:
    """Keep the candidates that no source behind the PSF can make.

    A group is kept whole when its brightest pixel is sharp or beside a sharp one. Where a ray touches a star, which is
    the brighter of the two, only the sharp pixels and those beside them are kept. Groups that cannot be tested,
    between masked pixels, are kept.
    """
    if not candidates.any():
        return candidates
    around = image.valid & ~ndimage.binary_dilation(candidates, np.ones((5, 5), dtype=bool))
    fill = fill_from_neighbours(image, candidates, around, sigma=1.5, plane=False, least=0.02)
    background = np.where(fill.found, fill.value, 0.0)
    excess = sharpness(
        image.data, image.variance, image.valid, fill.rows, fill.columns, background, np.asarray(ratios)
    )
    labels, n_groups = ndimage.label(candidates, NEIGHBOURS)
    group = labels[fill.rows, fill.columns]
    height = image.data[fill.rows, fill.columns] - background
    highest = np.full(n_groups + 1, -np.inf)
    np.maximum.at(highest, group, height)
    # The wing of a star has many pixels for noise to play with; the sharp ones of a ray are its bright ones.
    needed = np.where(height >= BRIGHT * highest[group], SIGNIFICANCE, 2.0 * SIGNIFICANCE)
    sharp = np.zeros(image.shape, dtype=bool)
    sharp[fill.rows, fill.columns] = excess > needed
    near = ndimage.binary_dilation(sharp, NEIGHBOURS) & candidates
    whole = np.ones(n_groups + 1, dtype=bool)
    whole[group[np.isfinite(excess)]] = False
    whole[group[near[fill.rows, fill.columns] & (height >= highest[group])]] = True
    return near | (whole[labels] & candidates)


def _faint_ends(image: Image, rays: Mask, searched: Mask, growth: float) -> Mask:
    """Pixels beside rays that exceed what is further out by ``growth`` sigma."""
    if not rays.any():
        return rays
    near = ndimage.binary_dilation(rays, NEIGHBOURS)
    ring = near & ~rays & searched
    fill = fill_from_neighbours(image, ring, image.valid & ~near, sigma=1.0, plane=False, widest=2)
    found = np.zeros(image.shape, dtype=bool)
    place = fill.rows, fill.columns
    excess = image.data[place] - fill.value
    noise = np.sqrt(image.variance[place] + fill.noise + np.maximum(fill.scatter - fill.expected, 0.0))
    found[place] = fill.found & (excess > growth * noise)
    return found
