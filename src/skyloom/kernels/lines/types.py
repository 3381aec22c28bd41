"""What the kernels of the line fit pass to each other."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.lines.profiles import LEAST_SIGMA, SPEED_OF_LIGHT

__all__ = [
    "LEAST_SIGMA",
    "SPEED_OF_LIGHT",
    "Controls",
    "Data",
    "Plan",
    "Results",
    "State",
    "Work",
    "make_work",
]

Float = NDArray[np.float64]
Int = NDArray[np.int64]


class Plan(NamedTuple):
    """What is fitted, the same for all spectra.

    ``rest``, ``ratio``, ``line_column`` : (n_lines,) wavelength in A, flux relative to its column, and the column;
    ``first_line`` (n_columns + 1,), ``lines_by_column`` (n_lines,) : the lines of column c are
    ``lines_by_column[first_line[c]:first_line[c + 1]]``; ``column_set`` : (n_columns,) kinematic set;
    ``column_total`` : (n_columns,) the sum of fluxes it is part of (the components of one line);
    ``segment_columns`` : (n_segments, p) columns, -1 fills up; ``segment_range`` : (n_segments, 2) rest wavelengths;
    ``pairs`` : (n_pairs, 2) columns with a bounded ratio, ``pair_segment`` : (n_pairs,) where they are, and
    ``pair_range`` : (n_pairs, 2) the bounds; ``bounds`` : (2 n_sets, 2) of v and q; ``degree`` of the polynomials.
    """

    rest: Float
    ratio: Float
    line_column: Int
    first_line: Int
    lines_by_column: Int
    column_set: Int
    column_total: Int
    segment_columns: Int
    segment_range: Float
    pairs: Int
    pair_segment: Int
    pair_range: Float
    bounds: Float
    degree: int


class Controls(NamedTuple):
    """How the fit proceeds.

    ``search`` : (n_velocities,) km/s, tried as first guess; ``start_variance`` : km2/s2; ``anchors`` : (n_columns,)
    bool, columns that the first guess looks at; ``absorbing`` : (n_columns,) bool, columns that usually are negative;
    ``alone`` : (n_sets,) bool, sets that keep their first guess where others would borrow; ``weak`` : significance
    below which a set borrows the kinematics of the strongest one; ``tolerance`` : of chi square; ``most`` : steps.
    """

    search: Float
    start_variance: float
    anchors: NDArray[np.bool_]
    absorbing: NDArray[np.bool_]
    alone: NDArray[np.bool_]
    weak: float
    tolerance: float
    most: int


class Results(NamedTuple):
    """Arrays that are filled, one row per spectrum.

    ``kinematics``, ``kinematic_variance`` : (n, 2 n_sets); ``flux``, ``flux_variance``, ``flux_lent`` :
    (n, n_columns), the last the part of the variance that comes through the kinematics; ``total``, ``total_variance``,
    ``total_lent`` : (n, n_totals); ``set_flags`` : (n, n_sets) bits; ``donor`` : (n, n_sets), see `State`;
    ``tied`` : (n, n_pairs); ``chi2``, ``n_used``, ``n_unknown`` : (n,) over all segments; ``active`` :
    (n, n_segments) bool, segments that determined the kinematics; ``seen`` : (n, 3) chi square, channels and unknowns
    of these; ``model``, ``baseline`` : (n, n_wave).
    """

    kinematics: Float
    kinematic_variance: Float
    flux: Float
    flux_variance: Float
    flux_lent: Float
    total: Float
    total_variance: Float
    total_lent: Float
    set_flags: Int
    donor: Int
    tied: Float
    chi2: Float
    n_used: Int
    n_unknown: Int
    active: NDArray[np.bool_]
    seen: Float
    model: NDArray[np.float32]
    baseline: NDArray[np.float32]


class Data(NamedTuple):
    """One spectrum: ``edges`` (n_wave + 1,), ``flux`` and ``root`` (n_wave,): values times, and, 1 / sigma, 0 where
    masked; ``lsf`` (n_wave,) sigma in A; ``scale`` 1 + redshift.
    """

    edges: Float
    flux: Float
    root: Float
    lsf: Float
    scale: float


class State(NamedTuple):
    """What takes part in the fit of one spectrum.

    ``active`` : (n_segments,) bool, segments that determine the kinematics; ``free`` : (2 n_sets,) bool; ``donor`` :
    (n_sets,) the set whose kinematics it has, its own or those of a stronger one; ``tied`` : (n_pairs,) ratio that is
    held, NaN where free; ``pin`` : (3,) a total, the flux it is held at, and the weight of that (0: no total is).
    """

    active: NDArray[np.bool_]
    free: NDArray[np.bool_]
    donor: Int
    tied: Float
    pin: Float


class Work(NamedTuple):
    """Room for one spectrum after the other; all that is per segment has the segment first.

    ``low``, ``high`` : (n_segments,) channels; ``members``, ``filled`` : (n_segments, p) columns that are covered, and
    how many; ``groups`` : (n_segments, p) sets whose kinematics these columns have; ``present`` : (n_segments, n_sets)
    bool; ``unshifted``, ``moving``, ``instrument`` : (n_lines,) observed wavelength at rest, A per km/s, and variance
    of the instrument in A2.

    With r = p + degree + 1 linear parameters: ``basis`` : (n_segments, r, m) columns, then polynomials, in units of
    the noise, from the first channel of the segment on; ``support`` : (n_segments, r, 2) where they are not 0;
    ``slopes`` : (n_segments, 2 p, m) derivatives of the columns by v and by q, one after the other; ``reach`` :
    (n_segments, 2 p, 2) where they are not 0; ``bends`` : (n_segments, 2 p, m) derivatives by v and q, and twice by q.

    ``factor`` : (n_segments, r, r), ``linear`` : (n_segments, r), ``residual`` : (n_segments, m) of the solution;
    ``back``, ``answer`` : (n_segments, 2 n_sets, r) ``B^T D`` and X; ``curvature`` : (n_segments, m) and ``bias`` :
    (n_segments, r), what `skyloom.kernels.lines.bias` leaves; ``cross`` : (r, 2 p), ``square`` : (2 p, 2 p), ``line`` :
    (r + 2 p,) scratch.
    """

    low: Int
    high: Int
    members: Int
    filled: Int
    groups: Int
    present: NDArray[np.bool_]
    unshifted: Float
    moving: Float
    instrument: Float
    basis: Float
    support: Int
    slopes: Float
    reach: Int
    bends: Float
    factor: Float
    linear: Float
    residual: Float
    back: Float
    answer: Float
    curvature: Float
    bias: Float
    cross: Float
    square: Float
    line: Float


@numba.njit(cache=True, nogil=True, error_model="numpy")
def make_work(plan: Plan, most: int) -> Work:
    """Make room for segments of at most ``most`` channels."""
    n_segments, p = plan.segment_columns.shape
    n_kinematics, orders = plan.bounds.shape[0], plan.degree + 1
    size = p + orders
    return Work(
        np.zeros(n_segments, dtype=np.int64),
        np.zeros(n_segments, dtype=np.int64),
        np.zeros((n_segments, p), dtype=np.int64),
        np.zeros(n_segments, dtype=np.int64),
        np.zeros((n_segments, p), dtype=np.int64),
        np.zeros((n_segments, n_kinematics // 2), dtype=np.bool_),
        np.zeros(plan.rest.size),
        np.zeros(plan.rest.size),
        np.zeros(plan.rest.size),
        np.zeros((n_segments, size, most)),
        np.zeros((n_segments, size, 2), dtype=np.int64),
        np.zeros((n_segments, 2 * p, most)),
        np.zeros((n_segments, 2 * p, 2), dtype=np.int64),
        np.zeros((n_segments, 2 * p, most)),
        np.zeros((n_segments, size, size)),
        np.zeros((n_segments, size)),
        np.zeros((n_segments, most)),
        np.zeros((n_segments, n_kinematics, size)),
        np.zeros((n_segments, n_kinematics, size)),
        np.zeros((n_segments, most)),
        np.zeros((n_segments, size)),
        np.zeros((size, 2 * p)),
        np.zeros((2 * p, 2 * p)),
        np.zeros(size + 2 * p),
    )
