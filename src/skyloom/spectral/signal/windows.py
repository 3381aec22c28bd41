"""Where a line is measured and where its continuum: windows of wavelength that keep clear of other lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.linelist import Line, LineList, Medium, convert_medium, default_lines
from skyloom.errors import InputError
from skyloom.spectral.axes.widths import LIGHT, Width, channel_edges, channel_widths, width_in_angstrom

__all__ = [
    "Continuum",
    "LineWindows",
    "Lines",
    "channels_needed",
    "measured_lines",
    "observed_windows",
    "plan_windows",
    "unite",
]

Float = NDArray[np.float64]
Lines: TypeAlias = str | float | Line | Sequence[str | float | Line]
Continuum: TypeAlias = tuple[Width, Width] | ArrayLike | None

DISPERSION = (
    40.0  # km/s; intrinsic width of a line when none is given: between HII regions and beam-smeared discs.
)
FREE_ALLOWANCE = 200.0  # km/s by which a line may lie off one redshift for a whole cube.
MAP_ALLOWANCE = 50.0  # km/s when each spaxel has its own redshift or velocity.
SIGMAS = 3.0  # Half a window holds this many standard deviations of the line.
SIDE_WIDTH = 30.0  # A of line-free continuum on each side, or SIDE_PER_HALF half widths when these are more.
SIDE_PER_HALF = 3.0
SIDE_REACH = 4.0  # Continuum is looked for no further than this many times its length.
PEAK_HALF, PEAK_CONTINUUM = "25 px", ("35 px", "100 px")
SAME_LINE = 1e-3  # A; wavelengths closer than this are one line.
NEIGHBOUR = 5.0  # Lines within this many sigma of a measured line are told apart by the matched filter.


@dataclass(frozen=True, slots=True, eq=False)
class LineWindows:
    """Windows in rest wavelength, A, in the medium of the cube.

    Parameters
    ----------
    keys : tuple of str
        What is measured.
    centres : (k,) array
        Rest wavelengths of the measured lines and of their close neighbours.
    wanted : (k,) array
        1 for measured lines, 0 for neighbours.
    line : (m, 2) array
        Disjoint windows that hold the measured lines.
    sides : (s, 2) array
        Disjoint windows of continuum.
    """

    keys: tuple[str, ...]
    centres: Float
    wanted: Float
    line: Float
    sides: Float

    @property
    def middle(self) -> float:
        """Middle of the line windows, rest wavelength in A."""
        return float(0.5 * (self.line[0, 0] + self.line[-1, 1]))

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest rest wavelength of any window."""
        both = np.concatenate([self.line, self.sides])
        return float(both.min()), float(both.max())

    def channels(self, wave: Float, low: float = 1.0, high: float = 1.0) -> slice:
        """Return the channels these windows need when stretched by ``low`` to ``high``, with one to spare."""
        first, last = self.span
        edges = channel_edges(wave)
        start = int(np.searchsorted(edges, first * low, "right")) - 2
        stop = int(np.searchsorted(edges, last * high, "left")) + 1
        return slice(max(0, start), min(wave.size, stop))

    def describe(self) -> dict[str, Any]:
        """Return the windows as plain numbers for a history."""
        return {"line": np.round(self.line, 3).tolist(), "continuum": np.round(self.sides, 3).tolist()}


def measured_lines(
    line: Lines, medium: Medium, lines: LineList | None = None
) -> tuple[tuple[str, ...], Float]:
    """Return names and rest wavelengths (A, ascending, in ``medium``) of a line or a set of lines.

    Raises
    ------
    InputError
        When a key is not in the list, a wavelength is no positive number, or there is none at all.
    """
    known = default_lines() if lines is None else lines
    several = [line] if isinstance(line, (str, Line)) or np.ndim(line) == 0 else list(line)  # type: ignore[arg-type]
    found: dict[str, float] = {}
    for item in several:
        if isinstance(item, Line):
            found[item.key] = item.rest(medium)
        elif isinstance(item, str):
            found[item] = known[item].rest(medium)
        else:
            rest = _rest(item)
            found[f"{rest:.6g}"] = rest
    if not found:
        raise InputError("there is no line to measure", field="line", remedy="name one, e.g. 'Halpha'")
    order = sorted(found, key=lambda key: found[key])
    keys = tuple(key for i, key in enumerate(order) if i == 0 or found[key] - found[order[i - 1]] > SAME_LINE)
    return keys, np.array([found[key] for key in keys])


def _rest(value: object) -> float:
    try:
        rest = float(value.to_value("AA") if hasattr(value, "to_value") else value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{value!r} is no line", field="line", remedy="give a key such as 'Halpha' or a wavelength in A"
        ) from error
    if not 0.0 < rest < np.inf:
        raise InputError(f"the rest wavelength is {rest} A", field="line")
    return rest


def unite(windows: ArrayLike) -> Float:
    """Return the windows in ascending order, those that touch or overlap made one."""
    ordered = sorted((float(low), float(high)) for low, high in np.reshape(windows, (-1, 2)))
    united: list[tuple[float, float]] = []
    for low, high in ordered:
        if united and low <= united[-1][1]:
            united[-1] = (united[-1][0], max(high, united[-1][1]))
        else:
            united.append((low, high))
    return np.array(united, dtype=np.float64).reshape(-1, 2)


def _without(low: float, high: float, zones: Float) -> list[tuple[float, float]]:
    """Return what is left of an interval outside of disjoint ascending zones."""
    free = []
    for start, end in zones:
        if end <= low or start >= high:
            continue
        if start > low:
            free.append((low, start))
        low = max(low, end)
    if low < high:
        free.append((low, high))
    return free


def plan_windows(
    wave: Float,
    medium: Medium,
    line: Lines,
    stretch: float,
    *,
    line_sigma: float,
    half_width: Width | None = None,
    continuum: Continuum = None,
    allowance: float = FREE_ALLOWANCE,
    lines: LineList | None = None,
) -> LineWindows:
    """Choose the windows of a line or a set of lines.

    Parameters
    ----------
    wave : (n,) array
        Channel centres, A.
    medium : {"air", "vacuum"}
    line : str, float, Line or a sequence of them
    stretch : float
        Observed over rest wavelength, typical for the cube.
    line_sigma : float
        Standard deviation of the line on the axis of the cube, A.
    half_width : float, Quantity or str, optional
        Half the window about each line, on the axis of the cube. None: 3 ``line_sigma`` plus ``allowance``, but no
        further than half-way to the next emission line that is not measured.
    continuum : (inner, outer), (s, 2) array or None
        Two widths: the nearest and farthest distance of the continuum from the outermost lines, on the axis of the
        cube, without the parts that other lines occupy. An array: windows in rest wavelength, A, taken as they are.
        None: on each side the nearest 30 A (or 3 half widths when these are more) free of lines.
    allowance : float
        Velocity by which a line may lie off, km/s.
    lines : LineList, optional
        Lines to keep clear of; the default list. An empty list: none.

    Raises
    ------
    InputError
        When a line or its windows lie outside the axis, or line and continuum overlap.
    """
    known = default_lines() if lines is None else lines
    keys, centres = measured_lines(line, medium, lines if lines is not None and len(lines) else None)
    edges = channel_edges(wave)
    _check_inside(keys, centres, centres, stretch, edges)
    half = _half_widths(centres, stretch, line_sigma, allowance, wave, half_width)
    others, emission = _others(known, medium, centres)
    bounds = np.stack([centres - half, centres + half], axis=1)
    if half_width is None:
        bounds = _cut_halfway(bounds, centres, emission)
    window = unite(bounds)
    _check_inside(keys, window[:, 0], window[:, 1], stretch, edges)
    reach = SIGMAS * line_sigma / stretch + others * allowance / LIGHT
    zones = unite(np.stack([others - reach, others + reach], axis=1))
    sides = _sides(continuum, wave, stretch, centres, window, zones, line_sigma)
    apart = np.abs(emission[:, np.newaxis] - centres).min(axis=1, initial=np.inf)
    near = emission[apart < 2.0 * NEIGHBOUR * line_sigma / stretch]
    wanted = np.concatenate([np.ones(centres.size), np.zeros(near.size)])
    return LineWindows(keys, np.concatenate([centres, near]), wanted, window, sides)


def _others(known: LineList, medium: Medium, centres: Float) -> tuple[Float, Float]:
    """Rest wavelengths of all lines that are not measured, and of those in emission."""
    rests = convert_medium([line.rest_vacuum for line in known], "vacuum", medium)
    other = np.abs(rests[:, np.newaxis] - centres).min(axis=1, initial=np.inf) > SAME_LINE
    shines = np.array([line.kind == "emission" for line in known], dtype=bool)
    return rests[other], rests[other & shines]


def _half_widths(
    centres: Float, stretch: float, sigma: float, allowance: float, wave: Float, half_width: Width | None
) -> Float:
    """Half widths of the windows in rest wavelength, A."""
    if half_width is None:
        return SIGMAS * sigma / stretch + centres * allowance / LIGHT
    return np.array(
        [width_in_angstrom(half_width, wave, rest * stretch, "half_width") / stretch for rest in centres]
    )


def _cut_halfway(bounds: Float, centres: Float, others: Float) -> Float:
    """Keep windows from reaching beyond the middle between their line and the next one that is not measured."""
    cut = bounds.copy()
    for window, centre in zip(cut, centres, strict=True):
        below, above = others[others < centre], others[others > centre]
        if below.size:
            window[0] = max(window[0], 0.5 * (centre + below.max()))
        if above.size:
            window[1] = min(window[1], 0.5 * (centre + above.min()))
    return cut


def _check_inside(keys: tuple[str, ...], low: Float, high: Float, stretch: float, edges: Float) -> None:
    if low.min() * stretch >= edges[0] and high.max() * stretch <= edges[-1]:
        return
    place = f"{low.min() * stretch:.1f} A"
    if high.max() > low.min():
        place = f"{low.min() * stretch:.1f} to {high.max() * stretch:.1f} A"
    raise InputError(
        f"{' + '.join(keys)} at redshift {stretch - 1.0:.5g} needs {place}; the axis covers {edges[0]:.1f} to "
        f"{edges[-1]:.1f} A",
        field="redshift",
        remedy="check the redshift (0 for a cube in the rest frame), choose another line or a narrower window",
    )


def _sides(
    continuum: Continuum,
    wave: Float,
    stretch: float,
    centres: Float,
    window: Float,
    zones: Float,
    sigma: float,
) -> Float:
    """Windows of continuum in rest wavelength, A."""
    edges = channel_edges(wave) / stretch
    if continuum is None:
        return _nearest_sides(edges, window, zones, sigma / stretch, stretch)
    if _is_pair(continuum):
        inner, outer = (
            width_in_angstrom(width, wave, float(centres.mean()) * stretch, "continuum") / stretch
            for width in continuum  # type: ignore[union-attr]
        )
        if not inner < outer:
            raise InputError(
                f"the continuum starts {inner * stretch:.2f} A from the line and ends {outer * stretch:.2f} A from it",
                field="continuum",
                remedy="give the nearer distance first",
            )
        ranges = [(centres[0] - outer, centres[0] - inner), (centres[-1] + inner, centres[-1] + outer)]
        sides = [part for low, high in ranges for part in _without(low, high, zones)]
    else:
        sides = [(float(low), float(high)) for low, high in _window_array(continuum)]
    united = unite(sides)
    if not united.size:
        raise InputError(
            "nothing of the continuum windows is free of lines",
            field="continuum",
            remedy="give others, or lines=LineList(()) to avoid none",
        )
    _check_sides(united, window, edges)
    return united


def _is_pair(continuum: Any) -> bool:
    return (
        not isinstance(continuum, (str, np.ndarray))
        and len(continuum) == 2
        and all(isinstance(item, str) or np.ndim(item) == 0 for item in continuum)
    )


def _window_array(continuum: ArrayLike) -> Float:
    try:
        windows = np.asarray(continuum, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"continuum is {continuum!r}",
            field="continuum",
            remedy="give two distances such as ('10 AA', '40 AA'), or windows [[low, high], ...] in rest wavelength",
        ) from error
    if windows.ndim != 2 or windows.shape[1] != 2 or not np.all(windows[:, 0] < windows[:, 1]):
        raise InputError(
            f"the continuum windows are {windows.tolist()}",
            field="continuum",
            remedy="give [[low, high], ...] in rest wavelength, A",
        )
    return windows


def _check_sides(sides: Float, window: Float, edges: Float) -> None:
    for low, high in sides:
        if np.any((window[:, 0] < high) & (low < window[:, 1])):
            raise InputError(
                f"the continuum window {low:.1f}-{high:.1f} A (rest frame) overlaps the line window "
                f"{window[0, 0]:.1f}-{window[-1, 1]:.1f} A",
                field="continuum",
                remedy="start the continuum farther out, or give a smaller half_width",
            )
    if sides.max() <= edges[0] or sides.min() >= edges[-1]:
        raise InputError(
            f"the continuum windows {sides.min():.1f}-{sides.max():.1f} A lie outside the axis "
            f"({edges[0]:.1f}-{edges[-1]:.1f} A, rest frame)",
            field="continuum",
            remedy="give windows inside it",
        )


def _nearest_sides(edges: Float, window: Float, zones: Float, sigma: float, stretch: float) -> Float:
    """Line-free continuum nearest to the line, on each side, as far as the axis goes."""
    half = 0.5 * float(np.max(window[:, 1] - window[:, 0]))
    length = max(SIDE_WIDTH / stretch, SIDE_PER_HALF * half)
    least = 2.0 * float(np.interp(window[0, 0], edges[1:], np.diff(edges)))
    sides: list[tuple[float, float]] = []
    for low, high, downward in (
        (max(edges[0], window[0, 0] - sigma - SIDE_REACH * length), window[0, 0] - sigma, True),
        (window[-1, 1] + sigma, min(edges[-1], window[-1, 1] + sigma + SIDE_REACH * length), False),
    ):
        left = length
        for start, end in _without(low, high, zones)[:: -1 if downward else 1]:
            taken = min(left, end - start)
            if taken < least:
                continue
            sides.append((end - taken, end) if downward else (start, start + taken))
            left -= taken
        if left > 0.75 * length:
            raise InputError(
                f"only {length - left:.1f} of {length:.1f} A (rest frame) of line-free continuum lie "
                f"{'below' if downward else 'above'} the line within the axis",
                field="continuum",
                remedy="give the continuum windows yourself, a smaller half_width or another line",
            )
    return unite(sides)


def observed_windows(windows: LineWindows, stretch: float) -> Float:
    """Return the line windows as observed, A."""
    return windows.line * stretch


def channels_needed(
    wave: ArrayLike,
    medium: Medium,
    line: Lines,
    redshift: float | ArrayLike,
    method: str = "window",
    *,
    lsf: float | ArrayLike | None = None,
    half_width: Width | None = None,
    continuum: Continuum = None,
    max_velocity: float = 0.0,
    sigma: float = DISPERSION,
    lines: LineList | None = None,
) -> slice:
    """Return the channels that `line_snr` needs, so that only these are read from a file.

    Parameters
    ----------
    wave : (n,) array
        Channel centres of the whole cube, A.
    medium : {"air", "vacuum"}
    line, method, half_width, continuum, sigma, lines
        As for `line_snr`.
    redshift : float or array
    lsf : float or (n,) array, optional
        Standard deviation of the line-spread function, A. None: one channel.
    max_velocity : float
        Velocities, km/s, that `first_velocity_map` is to look at, or that a velocity map reaches.

    Raises
    ------
    InputError
        As for `plan_windows`.
    """
    axis = np.asarray(wave, dtype=np.float64)
    values = np.asarray(redshift, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise InputError("the redshift has no finite value", field="redshift")
    low, typical, high = (1.0 + float(value) for value in (finite.min(), np.median(finite), finite.max()))
    _, centres = measured_lines(line, medium, lines)
    at = float(centres.mean()) * typical
    spread = float(np.interp(at, axis, channel_widths(axis))) if lsf is None else _lsf_number(lsf, axis, at)
    if method == "peak":
        outer = (PEAK_CONTINUUM if continuum is None else continuum)[1]  # type: ignore[index]
        reach = width_in_angstrom(outer, axis, at, "continuum") / typical  # type: ignore[arg-type]
        side = centres[:1, np.newaxis] + np.array([[-reach, reach]])
        return LineWindows((), centres, np.ones(1), side, side).channels(axis, low, high)
    windows = plan_windows(
        axis,
        medium,
        line,
        typical,
        line_sigma=float(np.hypot(spread, at * sigma / LIGHT)),
        half_width=half_width,
        continuum=continuum,
        allowance=max(FREE_ALLOWANCE, max_velocity),
        lines=lines,
    )
    shift = max_velocity / LIGHT
    return windows.channels(axis, low * (1.0 - shift), high * (1.0 + shift))


def _lsf_number(lsf: float | ArrayLike, wave: Float, at: float) -> float:
    values = np.asarray(lsf, dtype=np.float64)
    return float(values) if values.ndim == 0 else float(np.interp(at, wave, values))
