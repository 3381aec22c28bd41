"""Linear fits of one image by others when all of them are noisy, their noise is correlated and the model is not exact.

The score of weighted least squares is biased when a column of the model carries noise: the noise of the column is
correlated with the residual. Here its expectation is taken off, which needs the variance of the column only and stays
exact under the robust weights (Stein's identity); where noise is the only difference it is the estimate of the
effective variance with the derivative of the denominator (York et al. 2004, 10.1119/1.1632486).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from skyloom.core.noise import wrapped_correlation
from skyloom.errors import InputError

__all__ = ["NoiseSource", "Problem", "Regression", "block_index", "block_moments", "regress"]

Array = NDArray[Any]
Float = NDArray[np.float64]

HUBER = 1.5
"""Where Huber's weights begin to fall, in sigma; they find the start for Tukey's."""
CUT = 5.0
"""Tukey's biweight is 0 beyond this many sigma: such pixels are rejected. It costs 3 % in the errors."""
HUBER_STEPS = 6
MOST_STEPS = 60
SETTLED = 1e-3
"""Step in units of the error at which the fit has settled."""
SCATTER_STEPS = 12
"""Steps during which the intrinsic scatter is estimated anew."""
SCATTER_BINS = 16
FEWEST_PER_BIN = 20


class NoiseSource(NamedTuple):
    """Independent noise that enters the observed values, columns of the model, or both.

    Parameters
    ----------
    variance : (n,) array
        Of each pixel.
    smooth : (n,) array
        The same averaged over neighbours: a weight that follows the noise of its own pixel would bias the fit.
    correlation : (k, k) array or None
        Autocorrelation.
    observed : float
        Its coefficient in the observed values.
    columns : (start, stop)
        Columns that carry it.
    basis : (n, stop - start) array or None
        Its coefficient in each of these columns; None: 1.
    """

    variance: Array
    smooth: Array
    correlation: Float | None
    observed: float
    columns: tuple[int, int] = (0, 0)
    basis: Array | None = None

    def coefficients(self) -> Array:
        """Return the coefficients in the columns, (n, stop - start) or (1, stop - start)."""
        start, stop = self.columns
        return np.ones((1, stop - start)) if self.basis is None else self.basis

    def gain(self, parameters: Float) -> Array:
        """Return the coefficient of this noise in the residual."""
        start, stop = self.columns
        return np.asarray(self.observed - self.coefficients() @ parameters[start:stop])


class Problem(NamedTuple):
    """``observed = columns @ parameters`` at pixels of an image.

    ``features`` are brightnesses the images may differ by a fraction of, beyond their noise; ``rows``, ``columns_of``
    and ``shape`` place the pixels. ``prior`` is the inverse variance of parameters that are known to lie near 0 (0:
    nothing known), and ``dependence`` the pixels that vary as one, by which the data count less against it.
    """

    observed: Float
    columns: Array
    sources: tuple[NoiseSource, ...]
    features: tuple[Array, ...]
    rows: Array
    columns_of: Array
    shape: tuple[int, int]
    prior: Float | None = None
    dependence: float = 1.0

    def penalty(self) -> Float:
        """Return what the prior adds to the diagonal of the matrix of moments."""
        if self.prior is None:
            return np.zeros(self.columns.shape[1])
        return self.prior * self.dependence


class Regression(NamedTuple):
    """Result of `regress`.

    ``covariance`` is that of the noise model enlarged, parameter by parameter, to the jackknife over blocks where
    that is larger (by ``excess`` in the error); ``dependence`` the mean ratio of its variances to those of independent
    pixels; ``scatter`` the absolute intrinsic scatter and its fractions of the
    features; ``weights`` and ``slopes`` the derivative of psi and psi / residual times the inverse variance.
    """

    parameters: Float
    covariance: Float
    dependence: float
    excess: Float
    scatter: Float
    chi_square: float
    residual: Float
    sigma: Float
    weights: Float
    slopes: Float
    used: NDArray[np.bool_]


def regress(
    problem: Problem, blocks: Array, groups: Array | None = None, start: Regression | None = None
) -> Regression:
    """Fit by robust weights with the noise of the columns allowed for.

    Parameters
    ----------
    problem : Problem
    blocks : (n,) int array
        Block of each pixel, from `block_index`.
    groups : (P,) int array, optional
        Parameters of one group share the enlargement of their errors; None: each its own.
    start : Regression, optional
        A fit of the first columns only, whose scatter is taken over.

    Raises
    ------
    InputError
        When the columns do not determine the parameters.

    Notes
    -----
    With residual r, its variance s^2 = sum_j gamma_j^2 v_j + scatter, u = r / s and the noise sources j, which enter
    the residual with gamma_j = alpha_j - beta_j . theta, it solves

        sum_i [ psi(u) z / s - psi'(u) / s^2 sum_j gamma_j beta_j v_j ] = 0,

    psi Huber's, then Tukey's. The covariance is J^-1 G J^-T, J the derivative of the score, G from the pairs of
    pixels with the correlation of each source, and G from the sums of the scores over blocks (delete-one). A prior
    of precision P adds k P to the matrix (k: ``dependence``) and ``J^-1 k^2 P J^-T`` to the covariance: the expected
    square of what it pulls the parameters off.
    """
    scatter = np.zeros(1 + len(problem.features))
    penalty = np.diag(problem.penalty())
    parameters = _start(problem, penalty) if start is None else _extended(start.parameters, penalty.shape[0])
    if start is not None:
        scatter = start.scatter
    one = np.zeros(problem.observed.size, dtype=np.intp)
    first = 0 if start is None else SCATTER_STEPS
    for iteration in range(first, MOST_STEPS):
        noise, residual = _noise(problem, parameters), problem.observed - problem.columns @ parameters
        if iteration < SCATTER_STEPS:
            scatter = _scatter(problem, residual, noise)
        total = noise + _scatter_variance(problem, scatter)
        weights, slopes = _robust(residual / np.sqrt(total), iteration < HUBER_STEPS)
        weights, slopes = weights / total, slopes / total
        matrices, vectors = block_moments(problem, weights, slopes, one, 1)
        updated = _solve(matrices[0] + penalty, vectors[0])
        change, parameters = updated - parameters, updated
        if iteration >= SCATTER_STEPS and float(change @ matrices[0] @ change) < SETTLED**2 * change.size:
            break
    residual = problem.observed - problem.columns @ parameters
    used = weights > 0
    covariance, dependence, excess = _covariance(problem, parameters, weights, slopes, total, blocks, groups)
    noise = _noise(problem, parameters)
    freedom = max(1, int(np.count_nonzero(used)) - parameters.size)
    chi_square = float(np.sum(residual[used] ** 2 / noise[used])) / freedom
    return Regression(
        parameters,
        covariance,
        dependence,
        excess,
        scatter,
        chi_square,
        residual,
        np.sqrt(total),
        weights,
        slopes,
        used,
    )


def block_index(rows: Array, columns: Array, shape: tuple[int, int], width: float) -> Array:
    """Return the block of each pixel: squares of about ``width`` pixels, 3 to 10 along each axis, 0 to n - 1."""
    numbers = [int(np.clip(side // max(width, 1.0), 3, 10)) for side in shape]
    box = [(int(axis.min()), int(np.ptp(axis)) + 1) for axis in (rows, columns)]
    index = [
        (axis - low) * number // extent
        for axis, (low, extent), number in zip((rows, columns), box, numbers, strict=True)
    ]
    return np.unique(index[0] * numbers[1] + index[1], return_inverse=True)[1].ravel()


def block_moments(
    problem: Problem, weights: Array, slopes: Array, blocks: Array, n_blocks: int
) -> tuple[Float, Float]:
    """Return matrices M (n_blocks, P, P) and vectors m (n_blocks, P): the score of a block is ``m - M parameters``."""
    n_columns = problem.columns.shape[1]
    matrices, vectors = np.zeros((n_blocks, n_columns, n_columns)), np.zeros((n_blocks, n_columns))
    order = np.arange(blocks.size) if n_blocks == 1 else np.argsort(blocks, kind="stable")
    edges = np.searchsorted(blocks[order], np.arange(n_blocks + 1)) if n_blocks > 1 else [0, blocks.size]
    for block in range(n_blocks):
        member: Any = slice(None) if n_blocks == 1 else order[edges[block] : edges[block + 1]]
        columns = problem.columns[member]
        weighted = columns * weights[member, None]
        matrices[block] = columns.T @ weighted
        vectors[block] = weighted.T @ problem.observed[member]
        for source in problem.sources:
            start, stop = source.columns
            if start == stop:
                continue
            noise = slopes[member] * source.variance[member]
            carried = source.coefficients()
            if carried.shape[0] == 1:
                carried, noise = carried, np.array([noise.sum()])
            else:
                carried = carried[member]
            inside = slice(start, stop)
            matrices[block, inside, inside] -= carried.T @ (carried * noise[:, None])
            vectors[block, inside] -= source.observed * (carried.T @ noise)
    return matrices, vectors


def _extended(parameters: Float, size: int) -> Float:
    return np.concatenate([parameters, np.zeros(size - parameters.size)])


def _start(problem: Problem, penalty: Float) -> Float:
    """Weighted least squares without the noise of the columns, bright pixels held down."""
    total = np.zeros(problem.observed.size)
    for source in problem.sources:
        total += source.smooth
    for feature in problem.features:
        total += (0.1 * feature) ** 2
    weighted = problem.columns / total[:, None]
    return _solve(problem.columns.T @ weighted + penalty, weighted.T @ problem.observed)


def _solve(matrix: Float, vector: Float) -> Float:
    diagonal = np.diag(matrix)
    if not np.all(diagonal > 0) or not np.all(np.isfinite(matrix)):
        raise _undetermined()
    size = np.sqrt(diagonal)
    scaled = matrix / np.outer(size, size)
    # What the noise of the columns leaves must still be positive: a map that is all noise determines nothing.
    if not np.linalg.eigvalsh(scaled)[0] > 1e-12:
        raise _undetermined()
    return np.asarray(np.linalg.solve(scaled, vector / size) / size)


def _undetermined() -> InputError:
    return InputError(
        "the pixels do not determine the parameters: a map of the model is zero everywhere or a multiple of another",
        remedy="check that the images are not empty and not the same, or fit fewer parameters",
    )


def _noise(problem: Problem, parameters: Float) -> Float:
    total = np.zeros(problem.observed.size)
    for source in problem.sources:
        total += source.gain(parameters) ** 2 * source.smooth
    return total


def _robust(u: Float, huber: bool) -> tuple[Float, Float]:
    """Return psi(u) / u and psi'(u)."""
    if huber:
        inside = np.abs(u) <= HUBER
        return np.where(inside, 1.0, HUBER / np.maximum(np.abs(u), HUBER)), inside.astype(np.float64)
    t = np.minimum((u / CUT) ** 2, 1.0)
    return (1.0 - t) ** 2, (1.0 - t) * (1.0 - 5.0 * t)


def _scatter_variance(problem: Problem, scatter: Float) -> Float:
    variance = np.full(problem.observed.size, scatter[0] ** 2)
    for fraction, feature in zip(scatter[1:], problem.features, strict=True):
        variance += (fraction * feature) ** 2
    return variance


def _scatter(problem: Problem, residual: Float, noise: Float) -> Float:
    """Estimate the scatter beyond the noise: a floor, and a fraction of each feature.

    The residuals' robust variance in bins of the features is the noise plus a combination, nowhere negative, of 1 and
    the squares of the features.
    """
    from scipy.optimize import nnls

    index = _bins(problem.features, residual.size)
    rows, values = [], []
    for members in _members(index):
        if members.size < FEWEST_PER_BIN:
            continue
        spread = (1.4826 * float(np.median(np.abs(residual[members])))) ** 2
        row = [1.0, *(float(np.mean(feature[members] ** 2)) for feature in problem.features)]
        error = spread * math.sqrt(2.0 / members.size)
        if error > 0:
            rows.append(np.array(row) / error)
            values.append((spread - float(np.mean(noise[members]))) / error)
    if not rows:
        return np.zeros(1 + len(problem.features))
    matrix = np.array(rows)
    size = np.maximum(matrix.max(axis=0), np.finfo(float).tiny)
    return np.asarray(np.sqrt(nnls(matrix / size, np.array(values))[0] / size))


def _bins(features: tuple[Array, ...], size: int) -> Array:
    """Equally filled bins of the first feature, each cut into quarters of the second when there is one."""
    index = np.zeros(size, dtype=np.intp)
    for feature, number in zip(features, (SCATTER_BINS, 4), strict=False):
        shares = 1.0 - np.geomspace(1.0, 1.0 / 256.0, number + 1)[1:-1] if number > 4 else [0.5, 0.75, 0.95]
        edges = np.unique(np.quantile(feature, shares))
        index = index * (number + 1) + np.searchsorted(edges, feature)
    return index


def _members(index: Array) -> list[Array]:
    order = np.argsort(index, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(index[order])) + 1)


def _covariance(
    problem: Problem,
    parameters: Float,
    weights: Float,
    slopes: Float,
    total: Float,
    blocks: Array,
    groups: Array | None,
) -> tuple[Float, float, Float]:
    """Covariance of the noise model, enlarged where the jackknife over blocks says more; and by how much."""
    n_blocks = int(blocks.max()) + 1
    matrices, vectors = block_moments(problem, weights, slopes, blocks, n_blocks)
    scores = vectors - matrices @ parameters
    # The derivative of the score has psi' where the matrices have psi / u: one factor, since both scatter about a mean.
    jacobians = matrices * (float(slopes.sum()) / float(weights.sum()))
    penalty = np.diag(problem.penalty())
    data = jacobians.sum(axis=0)
    jacobian = data + penalty
    inverse = _inverse(jacobian)
    score = _score_covariance(problem, parameters, weights, slopes, total)
    covariance = inverse @ score @ inverse.T
    # How much less than so many independent pixels they are worth, over the combinations that the data fix.
    dependence = max(1.0, float(np.trace(inverse @ score)) / max(float(np.trace(inverse @ data)), 1e-9))
    left_out = np.array(
        [
            _solve(jacobian - block_jacobian, block_score)
            for block_score, block_jacobian in zip(scores, jacobians, strict=True)
        ]
    )
    left_out -= left_out.mean(axis=0)
    ratio = np.sum(left_out**2, axis=0) * (n_blocks - 1) / n_blocks / np.diag(covariance)
    if groups is not None:
        number = np.bincount(groups)
        ratio = (np.bincount(groups, weights=ratio) / np.maximum(number, 1))[groups]
    excess = np.sqrt(np.maximum(ratio, 1.0))
    pulled = inverse @ (penalty * problem.dependence) @ inverse.T
    covariance = covariance * np.outer(excess, excess) + pulled
    return (covariance + covariance.T) / 2.0, dependence, excess


def _inverse(matrix: Float) -> Float:
    size = np.sqrt(np.diag(matrix))
    return np.asarray(np.linalg.inv(matrix / np.outer(size, size)) / np.outer(size, size))


def _score_covariance(
    problem: Problem, parameters: Float, weights: Float, slopes: Float, total: Float
) -> Float:
    """Covariance of the score from all pairs of pixels."""
    used = weights > 0
    # One factor for all: psi' of a pixel scatters with its own noise and would count that twice.
    efficiency = float(np.sum(slopes[used] * total[used]) / np.count_nonzero(used))
    influence = (problem.columns[used] * (efficiency / total[used])[:, None]).T
    terms = [
        (source.gain(parameters) * np.sqrt(source.variance), source.correlation) for source in problem.sources
    ]
    widest = max(
        (source.correlation for source in problem.sources if source.correlation is not None),
        key=lambda rho: float(rho.sum()),
        default=None,
    )
    noise = np.sqrt(np.maximum(total - _noise(problem, parameters), 0.0))
    if noise.any():
        terms.append((noise, widest))
    score = np.zeros((parameters.size, parameters.size))
    place = (problem.rows[used], problem.columns_of[used])
    for sigma, correlation in terms:
        score += _pair_sum(influence * sigma[used], place, problem.shape, correlation)
    return score


def _pair_sum(
    maps: Array, place: tuple[Array, Array], shape: tuple[int, int], correlation: Float | None
) -> Float:
    """``sum_ij m_p(i) m_q(j) rho(i - j)`` for all pairs of maps, by FFT with wide enough borders."""
    if correlation is None:
        return np.asarray(maps @ maps.T)
    radius = correlation.shape[0] // 2
    padded = tuple(fft.next_fast_len(side + radius, real=True) for side in shape)
    spectrum = fft.rfft2(wrapped_correlation(correlation, padded)).real
    # rfft2 holds half of the plane: columns other than the first (and the middle one) stand for two.
    double = np.full(spectrum.shape[1], 2.0)
    double[0] = 1.0
    if padded[1] % 2 == 0:
        double[-1] = 1.0
    density = (spectrum * double).ravel() / (padded[0] * padded[1])
    transforms = np.empty((maps.shape[0], density.size), dtype=np.complex64)
    for transform, values in zip(transforms, maps, strict=True):
        plane = np.zeros(shape, dtype=np.float32)
        plane[place] = values / _size(values)
        transform[:] = fft.rfft2(plane, padded).ravel()
    sizes = np.array([_size(values) for values in maps])
    product = ((transforms * density.astype(np.float32)) @ transforms.conj().T).real
    return np.asarray(product * np.outer(sizes, sizes), dtype=np.float64)


def _size(values: Array) -> float:
    return float(np.sqrt(np.sum(np.square(values, dtype=np.float64)))) or 1.0
