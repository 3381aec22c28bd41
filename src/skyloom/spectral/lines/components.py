"""How many kinematic components a spectrum needs, and whether it needs a broad one.

Fits with one to three components compete by the Bayesian information criterion (Schwarz 1978,
10.1214/aos/1176344136), ``BIC = chi2 / s + k ln(n / s)`` with k parameters and n channels of the segments where lines
are seen, and s the sum of the correlation between channels: that many of them count as one. A further component is
taken when it lowers the criterion by more than 10 (very strong evidence: Kass & Raftery 1995,
10.1080/01621459.1995.10476572) and each component has a line of its own that is positive and significant, and
kinematics that differ from those of the others. All emission lines share the kinematics of each component unless other
groups are asked for; the decision is one for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.lines.fits import AT_BOUND
from skyloom.kernels.lines.types import SPEED_OF_LIGHT, Results
from skyloom.spectral.lines.groups import BROAD, Grouping
from skyloom.spectral.lines.inputs import Inputs
from skyloom.spectral.lines.runs import empty_results, make_controls, run_fit

__all__ = ["BIC_GAIN", "Contest", "Entry", "compete", "information"]

Float = NDArray[np.float64]
BIC_GAIN = 10.0
LEAST_SNR = 3.0  # Of the strongest line of each component.
APART = 0.5  # Components differ by this many of the smaller dispersion in velocity,
WIDER = 1.25  # or by this factor in dispersion.
# Shift in dispersions and factor of the variance for a component that is split, and the same for the new one: a line
# that is two, a wing to either side, a narrow core on a broad base.
SPLITS = ((-0.8, 0.4, 0.8, 0.4), (0.3, 0.6, -1.3, 1.5), (-0.3, 0.6, 1.3, 1.5), (0.0, 0.6, 0.0, 5.0))


class Entry(NamedTuple):
    """One candidate for all spectra: its grouping, fit, criterion (n,), and where it may be taken (n,)."""

    grouping: Grouping
    results: Results
    criterion: Float
    admissible: NDArray[np.bool_]


class Contest(NamedTuple):
    """Candidates in order of complexity, and which of them each spectrum takes."""

    entries: tuple[Entry, ...]
    winner: NDArray[np.int64]


def information(results: Results, inputs: Inputs) -> Float:
    """(n,) Bayesian information criterion over the segments where lines are seen."""
    spread = max(float(np.median(inputs.lags.sum(axis=1))), 0.1)
    chi2, channels, unknowns = results.seen.T
    return np.asarray(chi2 / spread + unknowns * np.log(np.maximum(channels / spread, 2.0)))


def compete(
    first: Entry, groupings: list[Grouping], inputs: Inputs, weak: float, threads: int | None,
    progress: Callable[[Entry, Grouping, Float], Iterator[Float]] | None = None,
) -> Contest:  # fmt: skip
    """Fit spectra with more and more components, each from several starts of what the last one found."""
    entries = [first]
    width = _instrument_width(first.grouping, inputs)
    winner = np.zeros(len(first.criterion), dtype=np.int64)
    for number, grouping in enumerate(groupings, start=1):
        # Who did not need one more does not need two more.
        rows = np.flatnonzero(winner == number - 1)
        entry = _challenge(entries[-1], grouping, inputs, rows, width, weak, threads, progress or _splits)
        lowest = entries[-1].criterion
        with np.errstate(invalid="ignore"):  # spectra without a fit have no criterion
            winner[entry.admissible & (entry.criterion < lowest - BIC_GAIN)] = number
        entries.append(entry)
    return Contest(tuple(entries), winner)


def _challenge(
    last: Entry, grouping: Grouping, inputs: Inputs, rows: NDArray[np.int64], width: Float, weak: float,
    threads: int | None, progress: Callable[[Entry, Grouping, Float], Iterator[Float]],
) -> Entry:  # fmt: skip
    """Fit some of the spectra with a larger grouping; the others stay unknown."""
    n = len(width)
    results = empty_results(grouping.plan, n, inputs.values.shape[1])
    chosen = inputs.select(rows)
    for start in progress(last, grouping, width):
        found = run_fit(
            grouping,
            make_controls(grouping, 0.0, weak),
            chosen,
            start[rows],
            threads,
            last.results.active[rows],
        )
        better = ~(found.seen[:, 0] >= results.seen[rows, 0])
        _take(results, rows[better], found, better)
    criterion = information(results, inputs)
    return Entry(grouping, results, criterion, _admissible(grouping, results, width))


def _take(results: Results, rows: NDArray[np.int64], found: Results, which: NDArray[np.bool_]) -> None:
    """Replace the fits of some spectra."""
    for name in Results._fields:
        getattr(results, name)[rows] = getattr(found, name)[which]


def _instrument_width(grouping: Grouping, inputs: Inputs) -> Float:
    """(n,) typical width of the instrument at the lines, km/s."""
    rest = np.median(grouping.plan.rest) * inputs.scale
    channel = np.clip(np.searchsorted(inputs.edges, rest) - 1, 0, inputs.lsf.shape[1] - 1)
    rows = np.arange(len(rest)) if len(inputs.lsf) > 1 else np.zeros(len(rest), dtype=np.int64)
    return np.asarray(inputs.lsf[rows, channel] / rest * SPEED_OF_LIGHT)


def _splits(last: Entry, grouping: Grouping, width: Float) -> Iterator[Float]:
    """Starting kinematics for one component more: those of the last fit, with each of its components split in turn."""
    kinematics, old = last.results.kinematics, len(last.grouping.sets)
    new = np.arange(old, len(grouping.sets))
    instrument = width[:, np.newaxis] ** 2
    for copy in range(last.grouping.sets.count(grouping.sets[old])):
        origin = np.array([_places(last.grouping.sets, grouping.sets[number])[copy] for number in new])
        velocity = kinematics[:, 2 * origin]
        observed = np.sqrt(np.maximum(kinematics[:, 2 * origin + 1] + instrument, 100.0))
        for here, narrower, there, wider in SPLITS:
            start = np.zeros((len(kinematics), 2 * len(grouping.sets)))
            start[:, : 2 * old] = kinematics
            start[:, 2 * origin] = velocity + here * observed
            start[:, 2 * origin + 1] = np.maximum(narrower * observed**2 - instrument, 100.0)
            start[:, 2 * new] = velocity + there * observed
            start[:, 2 * new + 1] = np.maximum(wider * observed**2 - instrument, 200.0)
            yield np.nan_to_num(start)


def _places(names: tuple[str, ...], name: str) -> list[int]:
    return [place for place, other in enumerate(names) if other == name]


def broad_starts(last: Entry, grouping: Grouping, width: Float) -> Iterator[Float]:
    """Starting kinematics with a broad component beside those of the last fit."""
    kinematics = last.results.kinematics
    for sigma in (2.5, 6.0):
        start = np.zeros((len(kinematics), 2 * len(grouping.sets)))
        for number, name in enumerate(grouping.sets):
            donor = last.grouping.sets.index(name) if name in last.grouping.sets else 0
            start[:, 2 * number] = kinematics[:, 2 * donor]
            start[:, 2 * number + 1] = kinematics[:, 2 * donor + 1]
            if name == BROAD:
                start[:, 2 * number + 1] = (sigma * np.maximum(width, 60.0)) ** 2
        yield np.nan_to_num(start)


def _admissible(grouping: Grouping, results: Results, width: Float) -> NDArray[np.bool_]:
    """Where every component of every set that has several is positive, significant, and unlike the others."""
    several = [
        name for name in dict.fromkeys(grouping.sets) if grouping.sets.count(name) > 1 or name == BROAD
    ]
    good = np.ones(len(width), dtype=np.bool_)
    with np.errstate(invalid="ignore", divide="ignore"):  # what is unknown compares as False
        snr = results.flux / np.sqrt(results.flux_variance)
        for name in several:
            members = [number for number, other in enumerate(grouping.sets) if other == name]
            for number in members:
                columns = np.flatnonzero(grouping.plan.column_set == number)
                strongest = np.max(np.where(np.isfinite(snr[:, columns]), snr[:, columns], -1.0), axis=1)
                # A component may be unresolved, but not at the edge of what is allowed otherwise.
                variance = results.kinematics[:, 2 * number + 1]
                highest = grouping.plan.bounds[2 * number + 1, 1]
                bound = (results.set_flags[:, number] & AT_BOUND > 0) & (variance > 0)
                good &= (strongest > LEAST_SNR) & ~bound & (variance < highest)
            good &= _apart(results, members, width)
    return good


def _apart(results: Results, members: list[int], width: Float) -> NDArray[np.bool_]:
    apart = np.ones(len(width), dtype=np.bool_)
    for place, one in enumerate(members):
        for two in members[place + 1 :]:
            widths = [
                np.sqrt(np.maximum(results.kinematics[:, 2 * k + 1] + width**2, 1.0)) for k in (one, two)
            ]
            narrow, wide = np.minimum(*widths), np.maximum(*widths)
            distance = np.abs(results.kinematics[:, 2 * one] - results.kinematics[:, 2 * two])
            apart &= (distance > APART * narrow) | (wide > WIDER * narrow)
    return apart
