"""What is fitted together: lines into columns of one flux, columns into kinematic sets, wavelengths into segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyloom.core.linelist import Line, LineList, default_lines
from skyloom.errors import InputError
from skyloom.kernels.line_types import SPEED_OF_LIGHT, Plan

__all__ = ["PRESETS", "Grouping", "group_lines", "lines_named"]

Float = NDArray[np.float64]

# Short lists for those who want a few lines only.
PRESETS: Mapping[str, tuple[str, ...]] = {
    "balmer": ("Hbeta", "Halpha"),
    "strong": (
        "OII3726", "OII3729", "Hbeta", "OIII4959", "OIII5007", "OI6300", "OI6363", "NII6548", "Halpha", "NII6583",
        "SII6716", "SII6730",
    ),
    "bpt": ("Hbeta", "OIII4959", "OIII5007", "NII6548", "Halpha", "NII6583"),
    "sodium": ("NaD5889", "NaD5895"),
}  # fmt: skip
# Lines that blend with a preset's but are not asked for: left out of the model they would spoil it.
COMPANIONS: Mapping[str, tuple[str, ...]] = {"balmer": ("NII6548", "NII6583")}


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """The plan of a fit, and what its numbers stand for.

    Attributes
    ----------
    lines : LineList
        In order of wavelength; line i of the list is line i of the plan.
    plan : Plan
        For `skyloom.kernels.line_fits.fit_rows`.
    total : (n_lines,) int array
        The total (flux of the leading line of a column, summed over components) that each line belongs to.
    sets : tuple of str
        Names of the kinematic sets, one after the other for each component.
    line_set : (n_lines,) int array
        The first component's set of each line.
    leading : (n_lines,) bool array
        False for lines tied to another one.
    segment_of : (n_lines,) int array
    """

    lines: LineList
    plan: Plan
    total: NDArray[np.int64]
    sets: tuple[str, ...]
    line_set: NDArray[np.int64]
    leading: NDArray[np.bool_]
    segment_of: NDArray[np.int64]


def lines_named(lines: str | Sequence[str] | LineList) -> LineList:
    """Return a list of lines: ``"default"``, a preset, keys of the default list, or a list as it is.

    Raises
    ------
    InputError
        When a name is no preset and no key; the nearest key is suggested.
    """
    if isinstance(lines, LineList):
        return lines
    known = default_lines()
    if isinstance(lines, str):
        if lines == "default":
            return known
        if lines in PRESETS:
            return known.select((*PRESETS[lines], *COMPANIONS.get(lines, ())))
        lines = [lines]
    return known.select(dict.fromkeys(lines))


def group_lines(
    lines: LineList,
    medium: str,
    *,
    window: float,
    degree: int,
    velocity_range: float,
    sigma_range: tuple[float, float],
    components: int = 1,
) -> Grouping:
    """Arrange lines for a fit.

    Parameters
    ----------
    lines : LineList
    medium : {"air", "vacuum"}
        Of the wavelength axis.
    window : float
        km/s on either side of each line that are fitted; segments are the unions of windows that touch.
    degree : int
        Of the polynomial in each segment.
    velocity_range : float
        Largest velocity, km/s, up and down.
    sigma_range : (float, float)
        Limits of the intrinsic dispersion in km/s; a negative lower limit -s allows the variance to fall to -s^2.
    components : int
        Kinematic components that every line has.

    Raises
    ------
    InputError
        When there is no line, or a line is tied to one that is not in the list's group.
    """
    if not len(lines):
        raise InputError("the list has no lines", field="lines")
    members = list(lines)
    keys = {line.key: number for number, line in enumerate(members)}
    rest = lines.wavelengths(medium)  # type: ignore[arg-type]
    leader = np.array([_leader(line, keys, number) for number, line in enumerate(members)])
    leading = leader == np.arange(len(members))
    names = list(dict.fromkeys(_set_name(line) for line in members))
    line_set = np.array([names.index(_set_name(line)) for line in members])
    if np.any(line_set != line_set[leader]):
        wrong = members[int(np.flatnonzero(line_set != line_set[leader])[0])].key
        raise InputError("it is tied to a line of another group", source=wrong, field="tied")
    number_of = np.cumsum(leading) - 1
    total = number_of[leader]
    ratio = np.array(
        [
            1.0 if line.tied is None or own else line.tied[1]
            for line, own in zip(members, leading, strict=True)
        ]
    )
    segment_of, ranges = _segments(rest, leader, window)
    n_totals, n_lines = int(leading.sum()), len(members)
    order = np.flatnonzero(leading)
    copies = np.arange(components)
    columns = _columns_by_segment(segment_of[order], len(ranges), components, n_totals)
    pairs, limits = _pairs(members, keys, total, components, n_totals)
    lowest, highest = np.sign(sigma_range[0]) * sigma_range[0] ** 2, sigma_range[1] ** 2
    bounds = np.tile([[-velocity_range, velocity_range], [lowest, highest]], (len(names) * components, 1))
    line_column = (total[np.newaxis] + n_totals * copies[:, np.newaxis]).ravel()
    plan = Plan(
        np.tile(rest, components),
        np.tile(ratio, components),
        line_column,
        np.searchsorted(np.sort(line_column), np.arange(n_totals * components + 1)),
        np.argsort(line_column, kind="stable"),
        (line_set[order][np.newaxis] + len(names) * copies[:, np.newaxis]).ravel(),
        np.tile(np.arange(n_totals), components),
        columns,
        ranges,
        pairs,
        np.tile(segment_of[order], components)[pairs[:, 0]],
        limits,
        bounds,
        degree,
    )
    sets = tuple(names) * components
    return Grouping(lines, plan, total, sets, line_set, leading, segment_of[:n_lines])


def _set_name(line: Line) -> str:
    return line.group or line.key


def _leader(line: Line, keys: Mapping[str, int], own: int) -> int:
    """The line that this one is tied to, itself when it is free (or its partner is not fitted)."""
    if line.tied is None or line.tied[0] not in keys:
        return own
    return keys[line.tied[0]]


def _segments(rest: Float, leader: NDArray[np.int64], window: float) -> tuple[NDArray[np.int64], Float]:
    """Segment of each line, and the ranges of the segments; a tied line shares the segment of its leader."""
    reach = rest * window / SPEED_OF_LIGHT
    low, high = rest - reach, rest + reach
    for number, first in enumerate(leader):
        if first != number:
            # The gap between the two belongs to the segment too, so that one polynomial runs below both.
            left, right = min(low[number], low[first]), max(high[number], high[first])
            low[number], high[number], low[first], high[first] = left, right, left, right
    order = np.argsort(low)
    segment_of = np.empty(rest.size, dtype=np.int64)
    ranges: list[list[float]] = []
    for number in order:
        if ranges and low[number] <= ranges[-1][1]:
            ranges[-1][1] = max(ranges[-1][1], float(high[number]))
        else:
            ranges.append([float(low[number]), float(high[number])])
        segment_of[number] = len(ranges) - 1
    return segment_of, np.array(ranges)


def _columns_by_segment(
    segments: NDArray[np.int64], n_segments: int, components: int, n_totals: int
) -> NDArray[np.int64]:
    most = int(np.bincount(segments, minlength=n_segments).max()) * components
    columns = np.full((n_segments, most), -1, dtype=np.int64)
    for segment in range(n_segments):
        own = np.flatnonzero(segments == segment)
        every = (own[np.newaxis] + n_totals * np.arange(components)[:, np.newaxis]).ravel()
        columns[segment, : every.size] = every
    return columns


def _pairs(
    members: Sequence[Line], keys: Mapping[str, int], total: NDArray[np.int64], components: int, n_totals: int
) -> tuple[NDArray[np.int64], Float]:
    """Columns whose ratio is bounded; they must lie in one segment, which doublets do."""
    found = [
        (total[number] + n_totals * copy, total[keys[line.bounds[0]]] + n_totals * copy, *line.bounds[1:])
        for number, line in enumerate(members)
        if line.bounds is not None and line.bounds[0] in keys
        for copy in range(components)
    ]
    pairs = np.array([pair[:2] for pair in found], dtype=np.int64).reshape(-1, 2)
    limits = np.array([pair[2:] for pair in found], dtype=np.float64).reshape(-1, 2)
    return pairs, limits
