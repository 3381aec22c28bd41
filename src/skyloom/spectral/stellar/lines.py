"""Emission lines in the way of a stellar fit: channels to leave out, or columns to fit together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.core.linelist import LineList, Medium
from skyloom.kernels.lines.profiles import SPEED_OF_LIGHT

__all__ = ["GasColumns", "gas_columns", "line_channels", "lines_in_the_way"]

Float = NDArray[np.float64]
INTERSTELLAR = ("sodium", "bands")  # Groups of absorption lines that stars do not make alone.
LINE_SIGMAS = 3.0


class GasColumns(NamedTuple):
    """Rest wavelengths (A), flux relative to the column, and column of each line; columns; names of the columns."""

    wave: Float
    ratio: Float
    column: NDArray[np.int64]
    number: int
    keys: tuple[str, ...]


def lines_in_the_way(lines: LineList) -> LineList:
    """Return the lines of a list that templates of stars do not hold: of gas between the stars."""
    return LineList(tuple(line for line in lines if line.kind == "emission" or line.group in INTERSTELLAR))


def line_channels(
    lines: LineList, wave: Float, medium: Medium, lsf: Float, stretch: Float, half_width: float
) -> NDArray[np.bool_]:
    """Tell which channels hold lines.

    Parameters
    ----------
    lines : LineList
    wave : (n_wave,) array
        A.
    medium : {"vacuum", "air"}
    lsf : (1 or n, n_wave) array
        Standard deviation of the line-spread function, A.
    stretch : (n,) array
        1 + redshift.
    half_width : float
        km/s on either side; three times the line-spread function is added.

    Returns
    -------
    (n, n_wave) bool array
    """
    rest = lines.wavelengths(medium)
    masks: dict[tuple[float, int], NDArray[np.bool_]] = {}
    out = np.zeros((stretch.size, wave.size), dtype=bool)
    for number, scale in enumerate(stretch):
        row = min(number, len(lsf) - 1)
        key = (float(scale), row)
        if key not in masks:
            centres = rest * scale
            reach = centres * half_width / SPEED_OF_LIGHT + LINE_SIGMAS * np.interp(centres, wave, lsf[row])
            mask = np.zeros(wave.size, dtype=bool)
            for low, high in zip(
                np.searchsorted(wave, centres - reach), np.searchsorted(wave, centres + reach), strict=True
            ):
                mask[low:high] = True
            # One mask serves all spectra alike; without this, spectra with their own LSF would fill the memory.
            masks = {key: mask}
        out[number] = masks[key]
    return out


def gas_columns(
    lines: LineList, wave: Float, medium: Medium, stretch: Float, coverable: NDArray[np.bool_]
) -> GasColumns:
    """Return the columns of emission lines that are on the axis for any of the redshifts; tied lines share one."""
    gas = [line for line in lines if line.kind == "emission"]
    there = {}
    for line in gas:
        observed = line.rest(medium) * stretch
        channel = np.clip(np.searchsorted(wave, observed), 0, wave.size - 1)
        if np.any((observed > wave[0]) & (observed < wave[-1]) & coverable[channel]):
            there[line.key] = line
    columns: list[str] = [
        key for key, line in there.items() if line.tied is None or line.tied[0] not in there
    ]
    place = {key: number for number, key in enumerate(columns)}
    rows = [
        (line.rest(medium), 1.0, place[key])
        if key in place
        else (line.rest(medium), line.tied[1], place[line.tied[0]])  # type: ignore[index]  # tied, or it had a column
        for key, line in there.items()
    ]
    rest, ratio, column = (np.array(item) for item in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 3
    return GasColumns(
        rest.astype(np.float64),
        ratio.astype(np.float64),
        column.astype(np.int64),
        len(columns),
        tuple(columns),
    )
