"""One sky level: sources masked and grown, their wings fitted together with the sky, the error from both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.errors import InputError
from skyloom.imaging.sky.level_error import level_error
from skyloom.imaging.sky.sources import find_excursions, grow_mask, lower_envelope
from skyloom.imaging.sky.wings import (
    LARGEST_SAMPLE,
    WingFit,
    fit_wings,
    refit_level,
    unbinned,
    wing_templates,
)

__all__ = ["Background", "Settings", "SkyHistogram", "measure_constant"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Method = Literal["constant", "mesh", "value"]
Wings = Literal["fit", "none"]

LIGHT_THRESHOLD = 5.0  # What stands out less is left in by the lightest masking that one might defend.
SMALLEST_SKY = 100  # Pixels.
GUESS_SAMPLE = 2500  # Pixels.


class SkyHistogram(NamedTuple):
    """Histogram of the sky pixels.

    ``edges`` (n + 1,); ``counts`` (n,) of the pixels that count as sky; ``light_counts`` (n,) of all pixels outside
    the bare sources, from which a single median would be taken.
    """

    edges: Array
    counts: Array
    light_counts: Array


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """A measured or given sky.

    Parameters
    ----------
    method : {"constant", "mesh", "value"}
    level : float, in ``unit``
        The sky; for a mesh the mean of its map.
    error : float, in ``unit``
        Standard error of the level: statistical (noise correlation included) and systematic in quadrature.
    statistical, systematic : float, in ``unit``
        Its parts. The systematic part is half of what masking and wings took from the lightest defensible
        estimate, and the spread between wing profiles.
    light_level : float, in ``unit``
        That lightest estimate: clipped mean of the pixels outside bare 5-sigma detections, no growth, no wings.
    plain_level : float, in ``unit``
        Clipped mean of the sky pixels, wings not taken off.
    scatter : float, in ``unit``
        Standard deviation of the sky pixels, robust against what was clipped.
    n_pixels : int
        Pixels that entered the level.
    unit : astropy unit
    sky_mask : (ny, nx) bool array
        True on the pixels taken for sky.
    histogram : SkyHistogram or None
        None when a value was given and the image shows no sky to compare it with.
    map : (ny, nx) float array or None
        The sky of each pixel, for a mesh.
    error_map : (ny, nx) float array or None
        Its standard error.
    wings : (ny, nx) float32 array or None
        Light of the sources beyond their pixels, as fitted together with the level; not a part of the sky. None
        where it was not fitted. Meaningful on the sky pixels only.
    parameters : dict
        How it was measured.
    """

    method: Method
    level: float
    error: float
    statistical: float
    systematic: float
    light_level: float
    plain_level: float
    scatter: float
    n_pixels: int
    unit: u.UnitBase
    sky_mask: Mask
    histogram: SkyHistogram | None
    map: Array | None
    error_map: Array | None
    wings: Array | None
    parameters: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """Return the figures as plain values, for headers and tables."""
        figures = ("level", "error", "statistical", "systematic", "light_level", "plain_level", "scatter")
        described: dict[str, Any] = {"method": self.method, **{name: getattr(self, name) for name in figures}}
        return {**described, "n_pixels": self.n_pixels, "unit": str(self.unit), **self.parameters}


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure: lengths in pixels."""

    threshold: float
    scales: tuple[float, ...]
    grow: float
    wing_radius: float
    wings: Wings
    clip: float


def measure_constant(image: Image, known: Mask | None, settings: Settings) -> Background:
    """Measure one sky level; see `skyloom.imaging.sky.background.measure_background`."""
    sources, bare, blocked = _masks(image, known, settings)
    sky_mask, grown = _sky_pixels(image, blocked, settings.grow)
    sky = _sample(sky_mask)
    values = image.data[sky].astype(np.float64)
    plain = fit_wings(values, None, *_first_guess(values), settings.clip)
    fit, level, spread, wings = _fit_with_wings(image, sources, sky, values, plain, settings)
    light_values = image.data[image.valid & ~bare]
    light = _clipped_mean(light_values, settings.clip)
    scatter = fit.scatter / _clipped_scatter(settings.clip)
    statistical = level_error(image, sky, fit, scatter)
    systematic = math.hypot(0.5 * (light - level), spread)
    return Background(
        method="constant",
        level=level,
        error=math.hypot(statistical, systematic),
        statistical=statistical,
        systematic=systematic,
        light_level=light,
        plain_level=plain.level,
        scatter=scatter,
        n_pixels=int(np.count_nonzero(fit.used)),
        unit=image.unit,
        sky_mask=sky_mask,
        histogram=_histogram(values, light_values, level, scatter),
        map=None,
        error_map=None,
        wings=wings,
        parameters={
            "threshold": settings.threshold,
            "grow_pixels": grown,
            "wings": settings.wings,
            "wing_radius_pixels": settings.wing_radius,
            "wing_spread": spread,
            "clip": settings.clip,
        },
    )


def _masks(image: Image, known: Mask | None, settings: Settings) -> tuple[Mask, Mask, Mask]:
    """Return the sources, the bare ones of the lightest masking, and all that is kept out of the sky."""
    nothing = np.zeros(image.shape, dtype=bool) if known is None else known
    if math.isinf(settings.threshold):
        return nothing, nothing, nothing
    excursions = find_excursions(image, scales=settings.scales, source_mask=known)
    sources = nothing | (excursions.highest > settings.threshold)
    bare = nothing | (excursions.highest > max(LIGHT_THRESHOLD, settings.threshold))
    return sources, bare, sources | (excursions.lowest < -settings.threshold)


def _sky_pixels(image: Image, blocked: Mask, grow: float) -> tuple[Mask, float]:
    """Return the sky pixels, and the growth that left enough of them."""
    enough = max(SMALLEST_SKY, int(0.02 * image.data.size))
    for radius in (grow, 0.5 * grow, 0.0):
        sky = image.valid & ~grow_mask(blocked, radius)
        number = int(np.count_nonzero(sky))
        if number >= enough:
            return sky, radius
    if number >= SMALLEST_SKY:
        return sky, 0.0
    raise InputError(
        f"{number} sky pixels are left beside the sources; at least {SMALLEST_SKY} are needed",
        field="source_mask",
        remedy="use a larger cut-out, mask less, or give the sky as a value",
    )


def _sample(sky: Mask) -> tuple[Array, Array]:
    """Return the indices of the sky pixels; of very many only some, evenly spread."""
    rows, columns = np.nonzero(sky)
    every = max(1, rows.size // LARGEST_SAMPLE)
    return rows[::every], columns[::every]


def _fit_with_wings(
    image: Image, sources: Mask, sky: tuple[Array, Array], values: Array, plain: WingFit, settings: Settings
) -> tuple[WingFit, float, float, Array | None]:
    """Fit the level with each wing profile.

    Returns the fit with the middle profile, mean and spread of the levels with all of them, and the light of the
    wings; the plain fit where there is nothing to have wings.
    """
    lit = sources & image.valid
    light = np.zeros(image.shape, dtype=np.float32)
    light[lit] = np.maximum(image.data[lit] - plain.level, 0.0)
    brightest = light.max()
    if settings.wings == "none" or not brightest > 0:
        return plain, plain.level, 0.0, None
    factor, templates = wing_templates(light / brightest, settings.wing_radius)
    binned = sky[0] // factor, sky[1] // factor
    middle = len(templates) // 2
    fit = fit_wings(values, templates[middle][binned], plain.level, plain.scatter, settings.clip)
    others = [template[binned] for number, template in enumerate(templates) if number != middle]
    levels = np.array([fit.level, *(refit_level(values, other, fit.used) for other in others)])
    wings = unbinned(templates[middle] * np.float32(fit.amplitude), factor, image.shape)
    return fit, float(levels.mean()), float(levels.std()), wings


def _clipped_mean(values: Array, clip: float) -> float:
    """Mean of the lowest population, clipped on both sides."""
    sample = values[:: max(1, values.size // LARGEST_SAMPLE)].astype(np.float64)
    return fit_wings(sample, None, *_first_guess(sample), clip).level


def _first_guess(values: Array) -> tuple[float, float]:
    """Level and scatter from some of the values: what they start is clipped by all of them."""
    return lower_envelope(values[:: max(1, values.size // GUESS_SAMPLE)])


def _clipped_scatter(clip: float) -> float:
    """Standard deviation of a unit Gaussian cut at +- clip."""
    if math.isinf(clip):
        return 1.0
    density = math.exp(-0.5 * clip**2) / math.sqrt(2 * math.pi)
    return math.sqrt(1.0 - 2.0 * clip * density / math.erf(clip / math.sqrt(2)))


def _histogram(values: Array, light_values: Array, level: float, scatter: float) -> SkyHistogram:
    """Count the sky pixels from 5 sigma below to 10 sigma above the level, in steps of a quarter sigma."""
    width = scatter if scatter > 0 else max(abs(level), 1.0)
    n_bins = 60
    edges = level + width * np.linspace(-5.0, 10.0, n_bins + 1)
    counts = []
    for sample in (values, light_values):
        index = np.floor((sample.astype(np.float64) - edges[0]) / (0.25 * width))
        inside = (index >= 0) & (index < n_bins)
        counts.append(np.bincount(index[inside].astype(np.intp), minlength=n_bins))
    return SkyHistogram(edges, counts[0], counts[1])
