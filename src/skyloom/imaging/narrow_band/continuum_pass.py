"""The pass of a continuum subtraction through the pixels: what is combined how, by which thread, into what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.threads import blocks, run_blocks
from skyloom.errors import InputError
from skyloom.imaging.narrow_band.bands import BandSet
from skyloom.imaging.narrow_band.lines import LineShares
from skyloom.kernels.images.continuum import N_COUNTS, SMALLEST, add_blocks, subtract_fixed, subtract_mapped

__all__ = ["Plan", "Result", "make_plan", "run_plan"]

Array = NDArray[Any]
Float = NDArray[np.float64]
TILE = 1 << 18  # Pixels that a thread works on at a time.
BLOCK = 16  # Side in pixels of the smallest surroundings that a colour is taken from.
COLOUR_SNR = 10.0  # Of both bands in these surroundings; larger ones are taken until they have it.


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How pixels are combined: everything that does not depend on the pixel, or a way to get it row by row."""

    scales: Float
    weights: Float
    shares: LineShares | None
    minimum_snr: float
    fixed: Float | None

    def over(self, rows: slice) -> tuple[Float, Float]:
        """Return both line shares of some rows; the second is 0 when there is one continuum."""
        none = np.zeros((1, 1))
        if self.shares is None:
            return none, none
        found = self.shares.over(rows)
        return found[0], (found[1] if len(found) > 1 else none)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The planes of excess and continuum, derivatives where shared errors need them, and counts."""

    data: tuple[Array, Array]
    variance: tuple[Array, Array]
    mask: NDArray[np.bool_]
    flags: NDArray[np.uint16] | None
    slopes: tuple[Array, Array, Array]
    counts: Float


def make_plan(
    images: Sequence[Image],
    bands: BandSet,
    scales: Float,
    shares: LineShares | None,
    interpolation: str,
    minimum_snr: float,
) -> Plan:
    """Choose between weights that are the same everywhere and weights per pixel."""
    if not 0 < minimum_snr < np.inf:
        raise InputError(f"minimum_snr is {minimum_snr}; expected a number > 0", field="minimum_snr")
    weights = np.zeros(2)
    weights[: len(bands.weights)] = bands.weights
    triple = np.ones(3) * scales[-1]
    triple[: len(images)] = scales
    if interpolation == "log" and len(images) == 3:
        return Plan(triple, weights, shares, float(minimum_snr), None)
    if shares is not None and shares.maps:
        return Plan(triple, weights, shares, np.inf, None)
    typical = (0.0,) if shares is None else shares.typical
    left = 1.0 - float(np.dot(weights[: len(typical)], typical))
    if not left > SMALLEST:
        raise InputError(
            f"{left:.2f} of the line light is left when the lines in {' and '.join(bands.names[1:])} are taken out",
            field="bands",
            remedy="give continua that see less of the line, on both sides of the narrow band",
        )
    gain = 1.0 / left
    excess = np.array([gain, -gain * weights[0], -gain * weights[1]])
    continuum = np.array([1.0, 0.0, 0.0]) - excess
    return Plan(triple, weights, shares, np.inf, np.array([excess, continuum]) * triple)


def run_plan(images: Sequence[Image], plan: Plan, threads: int | None) -> Result:
    """Go through all pixels once (twice for "log"), rows shared out among threads."""
    narrow, blue, red = images[0], images[1], images[-1]
    shape, kind, spread = narrow.shape, narrow.data.dtype, narrow.variance.dtype
    wide = (
        np.result_type(*(image.data.dtype for image in images)),
        np.result_type(*(image.variance.dtype for image in images)),
    )
    data = np.empty(shape, kind), np.empty(shape, kind)
    variance = np.empty(shape, spread), np.empty(shape, spread)
    mask = np.empty(shape, bool)
    flagged = [image.flags for image in images if image.flags is not None]
    flags = np.empty(shape, np.uint16) if flagged else None
    need = [plan.fixed is None and bool(image.modes) for image in images] + [False]
    slopes: tuple[Array, Array, Array] = tuple(  # type: ignore[assignment]
        np.empty(shape if wanted else (0, 0), kind) for wanted in need[:3]
    )
    coarse = np.empty((2, 0, 0))
    if np.isfinite(plan.minimum_snr):
        coarse = _coarse_weights(blue, red, plan, threads)

    def work(rows: slice) -> Float:
        used = (narrow, blue, red)
        values, errors, hidden = (
            tuple(np.ascontiguousarray(getattr(image, name)[rows], dtype) for image in used)
            for name, dtype in (("data", wide[0]), ("variance", wide[1]), ("mask", bool))
        )
        products, spreads = (tuple(plane[rows] for plane in pair) for pair in (data, variance))
        counts = np.zeros(N_COUNTS)
        if plan.fixed is not None:
            subtract_fixed(values, errors, hidden, plan.fixed, products, spreads, mask[rows], counts)
        else:
            share1, share2 = plan.over(rows)
            subtract_mapped(
                values,
                errors,
                hidden,
                plan.scales,
                plan.weights,
                share1,
                share2,
                coarse,
                (rows.start, BLOCK),
                plan.minimum_snr,
                products,
                spreads,
                mask[rows],
                tuple(plane[rows] if plane.size else plane for plane in slopes),
                counts,
            )
        if flags is not None:
            flags[rows] = flagged[0][rows]
            for plane in flagged[1:]:
                flags[rows] |= plane[rows]
        return counts

    parts = run_blocks(work, blocks(shape[0], max(1, TILE // max(1, shape[1]))), threads)
    counts = np.sum(parts, axis=0)
    counts[15] = max(part[15] for part in parts)
    return Result(data, variance, mask, flags, slopes, counts)


def _coarse_weights(blue: Image, red: Image, plan: Plan, threads: int | None) -> Float:
    """Return (2, n, m) linear weights at the colour of the surroundings; n = m = 0 when none show a continuum."""
    ny, nx = blue.shape
    sums = np.zeros((4, -(-ny // BLOCK), -(-nx // BLOCK)))

    def work(rows: slice) -> None:
        (first, second), (error1, error2), (mask1, mask2) = (
            tuple(np.ascontiguousarray(getattr(image, name)[rows]) for image in (blue, red))
            for name in ("data", "variance", "mask")
        )
        target = sums[:, rows.start // BLOCK : -(-rows.stop // BLOCK)]
        add_blocks(first, second, error1, error2, mask1, mask2, BLOCK, target)

    run_blocks(work, blocks(ny, BLOCK * max(1, TILE // (BLOCK * nx))), threads)
    scales = plan.scales[1:]
    sums[:2] *= scales[:, None, None]
    for index, image in enumerate((blue, red)):
        inflation = 1.0 if image.correlation is None else max(1.0, float(image.correlation.sum()))
        sums[2 + index] *= scales[index] ** 2 * inflation
    colour = _colours(sums)
    if colour is None:
        return np.empty((2, 0, 0))
    first, second = plan.weights
    return np.array([first * np.exp(second * colour), second * np.exp(-first * colour)])


def _colours(sums: Float) -> Float | None:
    """Return ln(R / B) of blocks, of larger blocks where one alone is too faint; None when all are together."""
    signal, noise = sums[:2], np.sqrt(sums[2:])
    bright = np.all((signal > COLOUR_SNR * noise) & (signal > 0), axis=0)
    own = np.full(bright.shape, np.nan)
    np.divide(signal[1], signal[0], out=own, where=bright)
    np.log(own, out=own, where=bright)
    if bright.all():
        return own
    if bright.size == 1:
        return None
    ny, nx = bright.shape
    padded = np.pad(sums, ((0, 0), (0, ny % 2), (0, nx % 2)))
    larger = _colours(padded.reshape(4, (ny + 1) // 2, 2, (nx + 1) // 2, 2).sum(axis=(2, 4)))
    if larger is None:
        return None if not bright.any() else np.where(bright, own, np.nanmedian(own))
    wide = np.repeat(np.repeat(larger, 2, axis=0), 2, axis=1)[:ny, :nx]
    return np.where(bright, own, wide)
