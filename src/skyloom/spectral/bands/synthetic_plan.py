"""Which channels of a cube enter a synthetic image, with which weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.linelist import Medium
from skyloom.errors import InputError
from skyloom.spectral.bands.synthetic_colour import N_WINDOWS

__all__ = ["BandPlan", "Beyond", "plan_band"]

Float = NDArray[np.float64]
Beyond = Literal["slope", "constant", "none"]
NEGLIGIBLE = (
    1e-5  # Share of the photons at either end, in the leaks of measured curves, that no channel is read for.
)
WHOLE = 0.999  # A band of which more than this is covered is not corrected.
ENDS = 0.005  # Share of the photons on either side of the windows for the colour.
WIDEST_NARROW = 300.0  # A; over less than this a spectrum has no slope worth the noise.
NEEDED = 600.0  # A, to which the windows of a narrow band are spread when it is partly covered.
FEWEST = 3  # channels in a window


@dataclass(frozen=True, slots=True, eq=False)
class BandPlan:
    """How to make one image.

    Parameters
    ----------
    bandpass : Bandpass
    weights : (n_wave,) array
        Sum 1; 0 where a channel does not count.
    parts : (n_wave,) int array
        Window of the colour that a channel belongs to; -1: none.
    channels : slice
        That are needed.
    centre : float
        Mean wavelength of the covered part, A, in the medium of the cube: the reference of ``distances``.
    distances : (n_wave,) array
    covered : float
        Fraction of the photons of a flat spectrum that the axis covers.
    target : float
        Distance of the wavelength at which a spectrum of constant slope has the mean of the whole band.
    other : float
        The same for the other way to go on beyond the ends.
    spread : float
        What a parabola x^2 adds to the mean over the whole band, beyond its mean over the covered part.
    """

    bandpass: Bandpass
    weights: Float
    parts: NDArray[np.int64]
    channels: slice
    centre: float
    distances: Float
    covered: float
    target: float
    other: float
    spread: float

    @property
    def n_windows(self) -> int:
        """Number of windows for the colour, 0 where none is needed."""
        return int(self.parts.max()) + 1

    @property
    def partial(self) -> bool:
        """Whether a part of the band that counts lies beyond the axis."""
        return self.covered < WHOLE


def plan_band(
    wave: Float, medium: Medium, bandpass: Bandpass, *, minimum_coverage: float, beyond: Beyond
) -> BandPlan:
    """Plan a synthetic image.

    Raises
    ------
    InputError
        When the axis covers less than ``minimum_coverage`` of the band, ``beyond`` is unknown, or the axis is too
        short to tell the colour that it needs.
    """
    if beyond not in get_args(Beyond):
        raise InputError(
            f"beyond is {beyond!r}; expected one of {', '.join(get_args(Beyond))}", field="beyond"
        )
    band = bandpass.to_medium(medium)
    weights = _without_leaks(band.mean_weights(wave, medium, minimum_coverage=minimum_coverage))
    covered = band.covered_fraction(float(wave[0]), float(wave[-1]))
    centre = float(weights @ wave)
    distances = wave - centre
    partial = covered < WHOLE and beyond != "none"
    parts = _colour_windows(wave, weights, covered < WHOLE)
    if partial and not np.any(parts >= 0):
        raise InputError(
            f"the axis holds {covered:.3f} of the band, and {wave[0]:.0f}-{wave[-1]:.0f} A are too short to tell"
            " how its spectrum goes on",
            source=bandpass.name or None,
            field="beyond",
            remedy="give a longer cube, or beyond='none' for the mean over the covered part",
        )
    aims = _aims(band, wave, centre) if covered < WHOLE else (0.0, 0.0, 0.0)
    slope, constant, spread = aims
    target, other = {"slope": (slope, constant), "constant": (constant, slope), "none": (0.0, slope)}[beyond]
    needed = np.flatnonzero((weights > 0) | (parts >= 0))
    return BandPlan(
        bandpass, weights, parts, slice(int(needed[0]), int(needed[-1]) + 1), centre, distances,
        covered, target, other, spread,
    )  # fmt: skip


def _without_leaks(weights: Float) -> Float:
    """Leave out the ends of a curve that hold nothing: they would have the whole cube read."""
    inside = np.minimum(np.cumsum(weights), np.cumsum(weights[::-1])[::-1]) > NEGLIGIBLE
    kept = np.where(inside, weights, 0.0)
    return np.asarray(kept / kept.sum())


def _colour_windows(wave: Float, weights: Float, partial: bool) -> NDArray[np.int64]:
    """Cut the covered part of the band into windows; none where it is narrow and whole."""
    share = np.cumsum(weights)
    ends = np.searchsorted(share, [ENDS, 1 - ENDS])
    low, high = (float(wave[min(int(end), wave.size - 1)]) for end in ends)
    parts = np.full(wave.size, -1)
    if not partial and high - low < WIDEST_NARROW:
        return parts
    lacking = 0.5 * max(0.0, NEEDED - (high - low)) if partial else 0.0
    inside = np.flatnonzero((wave >= low - lacking) & (wave <= high + lacking))
    if inside.size < FEWEST * N_WINDOWS:
        return parts
    parts[inside] = np.arange(inside.size) * N_WINDOWS // inside.size
    return parts


def _aims(band: Bandpass, wave: Float, centre: float) -> tuple[float, float, float]:
    """Mean distances over the whole band with slopes that go on, with slopes that end at the axis; spread."""
    low, high = float(wave[0]), float(wave[-1])
    points = np.union1d(np.union1d(band.wave, np.linspace(*band.limits, 400)), [low, high])
    whole = band.mean_weights(points, band.medium)
    distance = points - centre
    clipped = np.clip(points, low, high) - centre
    within = band.mean_weights(wave, band.medium, minimum_coverage=0.0) @ (wave - centre) ** 2
    spread = float(whole @ distance**2 - within)
    return float(whole @ distance), float(whole @ clipped), spread
