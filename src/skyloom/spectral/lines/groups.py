"""What is fitted together: lines into columns of one flux, columns into kinematic sets, wavelengths into segments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skyloom.core.linelist import Line, LineList, default_lines
from skyloom.errors import InputError
from skyloom.kernels.lines.types import SPEED_OF_LIGHT, Plan

__all__ = ["BROAD", "PRESETS", "Grouping", "Groups", "add_broad", "group_lines", "lines_named", "regroup"]

Float = NDArray[np.float64]
Groups = str | Mapping[str, str]
BROAD = "broad"

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
        For `skyloom.kernels.lines.fits.fit_rows`.
    total : (n_lines,) int array
        The total (flux of the leading line of a column, summed over components) that each line belongs to.
    sets : tuple of str
        Names of the kinematic sets, one after the other for each component.
    line_set : (n_lines,) int array
        The first component's set of each line.
    leading : (n_lines,) bool array
        False for lines tied to another one.
    segment_of : (n_lines,) int array
    columns : (n_lines, components) int array
        The column of each component of each line, -1 where a line has fewer.
    """

    lines: LineList
    plan: Plan
    total: NDArray[np.int64]
    sets: tuple[str, ...]
    line_set: NDArray[np.int64]
    leading: NDArray[np.bool_]
    segment_of: NDArray[np.int64]
    columns: NDArray[np.int64]


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


def regroup(lines: LineList, groups: Groups) -> LineList:
    """Return the lines with the kinematic groups that are asked for.

    ``"default"``: those of the list. ``"shared"``: all emission lines have one velocity and one dispersion. A mapping
    of keys or group names to new groups: the first that applies to a line; others stay.

    Raises
    ------
    InputError
        When it is none of these, or names what is not in the list.
    """
    if isinstance(groups, str):
        if groups == "default":
            return lines
        if groups == "shared":
            return LineList(
                tuple(replace(line, group="gas") if line.kind == "emission" else line for line in lines)
            )
        raise InputError(
            f"groups is {groups!r}; expected 'default', 'shared' or a mapping of keys to groups",
            field="groups",
        )
    known = {*lines.keys, *(line.group for line in lines)}
    for name in groups:
        if name not in known:
            raise InputError(f"{name!r} is neither a line nor a group of the list", field="groups")
    return LineList(
        tuple(replace(line, group=groups.get(line.key, groups.get(line.group, line.group))) for line in lines)
    )


def add_broad(lines: LineList, keys: Iterable[str]) -> LineList:
    """Return the lines with another component ``Bl_{key}``, of the group ``broad``, for some of them."""
    wide = tuple(replace(lines[key], key=f"Bl_{key}", group=BROAD, tied=None, bounds=None) for key in keys)
    return LineList((*lines, *wide))


def group_lines(
    lines: LineList,
    medium: str,
    *,
    window: float,
    degree: int,
    limits: Mapping[str, tuple[float, tuple[float, float]]],
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
    limits : mapping
        For each group, and ``""`` for those that are not named: the largest velocity in km/s, and the limits of the
        intrinsic dispersion in km/s; a negative lower limit -s allows the variance to fall to -s^2.
    components : int
        Kinematic components of the emission lines; other lines have one.

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
    total = (np.cumsum(leading) - 1)[leader]
    segment_of, ranges = _segments(rest, leader, window)
    columns, sets = _component_columns(members, leader, components), list(names)
    column_set = np.empty(columns.max() + 1, dtype=np.int64)
    for copy in range(components):
        there = columns[:, copy] >= 0
        if copy:
            sets.extend(dict.fromkeys(names[number] for number in line_set[there]))
        place = {name: number for number, name in enumerate(sets)}  # the last set of each name
        column_set[columns[there, copy]] = [place[names[number]] for number in line_set[there]]
    plan = _plan(
        members, rest, leader, total, columns, column_set, segment_of, ranges, degree, keys, sets, limits
    )
    return Grouping(lines, plan, total, tuple(sets), line_set, leading, segment_of, columns)


def _component_columns(
    members: Sequence[Line], leader: NDArray[np.int64], components: int
) -> NDArray[np.int64]:
    """(n_lines, components) column of each component of each line, -1 where it has fewer."""
    columns = np.full((len(members), components), -1, dtype=np.int64)
    count = 0
    for copy in range(components):
        for number, first in enumerate(leader):
            if number == first and (copy == 0 or members[number].kind == "emission"):
                columns[number, copy] = count
                count += 1
    return columns[leader]


def _plan(
    members: Sequence[Line], rest: Float, leader: NDArray[np.int64], total: NDArray[np.int64],
    columns: NDArray[np.int64], column_set: NDArray[np.int64], segment_of: NDArray[np.int64], ranges: Float,
    degree: int, keys: Mapping[str, int], sets: Sequence[str],
    limits: Mapping[str, tuple[float, tuple[float, float]]],
) -> Plan:  # fmt: skip
    """Lay out lines, columns and segments as the kernels want them."""
    line, copy = np.nonzero(columns >= 0)
    order = np.lexsort((line, copy))
    line, copy = line[order], copy[order]
    line_column = columns[line, copy]
    n_columns = column_set.size
    first = np.unique(line_column, return_index=True)[1]
    ratio = np.array([_ratio(members[int(number)], number == leader[number]) for number in line])
    column_total, column_segment = total[line[first]], segment_of[line[first]]
    pairs, pair_range = _pairs(members, keys, columns)
    return Plan(
        rest[line],
        ratio,
        line_column,
        np.searchsorted(np.sort(line_column), np.arange(n_columns + 1)),
        np.argsort(line_column, kind="stable"),
        column_set,
        column_total,
        _columns_by_segment(column_segment, len(ranges)),
        ranges,
        pairs,
        column_segment[pairs[:, 0]],
        pair_range,
        _bounds(sets, limits),
        degree,
    )


def _ratio(line: Line, own: bool) -> float:
    return 1.0 if own or line.tied is None else line.tied[1]


def _bounds(sets: Sequence[str], limits: Mapping[str, tuple[float, tuple[float, float]]]) -> Float:
    bounds = np.empty((2 * len(sets), 2))
    for number, name in enumerate(sets):
        velocity, (narrow, wide) = limits.get(name, limits[""])
        bounds[2 * number] = -velocity, velocity
        bounds[2 * number + 1] = np.sign(narrow) * narrow**2, wide**2
    return bounds


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


def _columns_by_segment(segments: NDArray[np.int64], n_segments: int) -> NDArray[np.int64]:
    columns = np.full(
        (n_segments, int(np.bincount(segments, minlength=n_segments).max())), -1, dtype=np.int64
    )
    for segment in range(n_segments):
        own = np.flatnonzero(segments == segment)
        columns[segment, : own.size] = own
    return columns


def _pairs(
    members: Sequence[Line], keys: Mapping[str, int], columns: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Float]:
    """Columns whose ratio is bounded; they must lie in one segment, which doublets do."""
    found = [
        (columns[number, copy], columns[keys[line.bounds[0]], copy], *line.bounds[1:])
        for number, line in enumerate(members)
        if line.bounds is not None and line.bounds[0] in keys
        for copy in range(columns.shape[1])
        if columns[number, copy] >= 0
    ]
    pairs = np.array([pair[:2] for pair in found], dtype=np.int64).reshape(-1, 2)
    limits = np.array([pair[2:] for pair in found], dtype=np.float64).reshape(-1, 2)
    return pairs, limits
