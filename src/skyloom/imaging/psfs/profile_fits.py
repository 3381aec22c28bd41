"""Fits of elliptical Gaussian and Moffat profiles, integrated over the pixels, to many small windows at once.

All windows step together through one damped Gauss-Newton iteration, so that five stars cost little more than one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.psf import FWHM_PER_SIGMA

__all__ = ["ProfileFits", "fit_profiles"]

Array = NDArray[Any]
Float = NDArray[np.float64]
ITERATIONS = 30
CONVERGED = 1e-6  # Relative change of the squared residuals.
BETA_RANGE = (1.05, 30.0)

# Three Gauss-Legendre nodes per axis integrate a profile of sigma 0.35 px over a pixel to 1e-3, of 0.7 px to 1e-5.
_NODES = np.sqrt(0.6) / 2.0 * np.array([-1.0, 0.0, 1.0])
_WEIGHTS = np.array([5.0, 8.0, 5.0]) / 18.0
_NODE_X, _NODE_Y = (axis.ravel() for axis in np.meshgrid(_NODES, _NODES))
_NODE_WEIGHT = np.outer(_WEIGHTS, _WEIGHTS).ravel()


@dataclass(frozen=True, eq=False)
class ProfileFits:
    """What was fitted to n windows; lengths in pixels, offsets from the central pixel of the window.

    Parameters
    ----------
    profile : {"gaussian", "moffat"}
    x, y, x_error, y_error : (n,) arrays
        Centres.
    peak, level : (n,) arrays
        Height of the profile before the pixels integrate it, and the constant below it, in the unit of the data.
    metric : (n, 3) array
        Coefficients (xx, xy, yy) of the squared elliptical radius: ``exp(-q / 2)`` or ``(1 + q) ** -beta``.
    beta : (n,) array
        Slope of a Moffat; NaN for Gaussians.
    fwhm, fwhm_error : (n,) arrays
        Geometric mean of the two axes, and its error from the noise.
    covariance : (n, p, p) array
        Of (x, y, xx, xy, yy[, beta], peak, level), from the noise and its correlation.
    rms : (n,) array
        Root mean square residual relative to the peak of the window: how unlike the profile the star is.
    converged : (n,) bool array
    """

    profile: str
    x: Float
    y: Float
    x_error: Float
    y_error: Float
    peak: Float
    level: Float
    metric: Float
    beta: Float
    fwhm: Float
    fwhm_error: Float
    covariance: Float
    rms: Float
    converged: NDArray[np.bool_]

    def pixel_covariance(self) -> Float:
        """(n, 2, 2) covariance (x, y) of the Gaussian of the same FWHM and shape, in pixels squared."""
        inverse = np.linalg.inv(_metric_matrix(self.metric))
        scale = (self.fwhm / FWHM_PER_SIGMA) ** 2 / np.sqrt(np.linalg.det(inverse))
        return np.asarray(inverse * scale[:, np.newaxis, np.newaxis])


def fit_profiles(
    windows: Float,
    variances: Float,
    used: NDArray[np.bool_],
    *,
    profile: str = "gaussian",
    correlation: Float | None = None,
) -> ProfileFits:
    """Fit one profile on a constant level to each window by least squares.

    Parameters
    ----------
    windows, variances : (n, side, side) arrays
        Data and their variances; the star near the central pixel.
    used : (n, side, side) bool array
        Pixels that count.
    profile : {"gaussian", "moffat"}
    correlation : (k, k) array, optional
        Noise autocorrelation, for the errors.

    Returns
    -------
    ProfileFits

    Notes
    -----
    Pixels have equal weights, because no star is exactly a Gaussian and weights by noise would let the brightest
    pixels decide alone; the errors are those of that estimator: ``(J'J)^-1 J' V J (J'J)^-1`` with the noise
    covariance V.
    """
    n, side, _ = windows.shape
    half = side // 2
    axis = np.arange(side) - half
    x, y = (grid.ravel().astype(np.float64) for grid in np.meshgrid(axis, axis))
    count = used.reshape(n, -1).astype(np.float64)
    scale = np.where(used, windows, 0.0).reshape(n, -1).max(axis=1)
    scale = np.where(scale > 0, scale, 1.0)
    data = np.where(used, windows / scale[:, np.newaxis, np.newaxis], 0.0).reshape(n, -1)
    state = _start(data, count, x, y, profile)
    jacobian, residual, linear = _model(state, data, count, x, y, profile)
    cost = np.sum(residual**2, axis=1)
    damping = np.full(n, 1e-3)
    done = np.zeros(n, bool)
    for _ in range(ITERATIONS):
        normal = jacobian.transpose(0, 2, 1) @ jacobian
        gradient = np.einsum("npk,np->nk", jacobian, residual)
        diagonal = np.einsum("nkk->nk", normal)
        damped = (
            normal + np.eye(normal.shape[1]) * (damping[:, np.newaxis] * diagonal + 1e-14)[:, np.newaxis, :]
        )
        move = np.linalg.solve(damped, gradient[:, :, np.newaxis])[:, : state.shape[1], 0]
        trial = _limit(state, move, half, profile)
        trial_jacobian, trial_residual, trial_linear = _model(trial, data, count, x, y, profile)
        trial_cost = np.sum(trial_residual**2, axis=1)
        better = (trial_cost <= cost) & ~done
        done |= better & (cost - trial_cost <= CONVERGED * cost) | (damping > 1e6)
        state = np.where(better[:, np.newaxis], trial, state)
        linear = np.where(better[:, np.newaxis], trial_linear, linear)
        residual = np.where(better[:, np.newaxis], trial_residual, residual)
        jacobian = np.where(better[:, np.newaxis, np.newaxis], trial_jacobian, jacobian)
        damping = np.where(better, 0.2 * damping, 8.0 * damping)
        cost = np.where(better, trial_cost, cost)
        if done.all():
            break
    noise = np.sqrt(np.where(used, variances, 0.0)).reshape(n, -1) / scale[:, np.newaxis]
    covariance = _covariance(jacobian, noise, side, correlation)
    return _report(profile, state, linear, scale, covariance, cost / np.maximum(count.sum(axis=1), 1.0), done)


def _start(data: Float, count: Float, x: Float, y: Float, profile: str) -> Float:
    """First guess: centre of the brightest pixels, width from peak and flux above the edge."""
    n = data.shape[0]
    edge = np.maximum(np.abs(x), np.abs(y)) == np.abs(x).max()
    level = np.sum(data[:, edge], axis=1) / np.maximum(count[:, edge].sum(axis=1), 1.0)
    above = np.clip(data - level[:, np.newaxis], 0.0, None) * count
    core = above * (above > 0.3)
    total = np.maximum(core.sum(axis=1), 1e-12)
    width = np.clip(np.sqrt(above.sum(axis=1) / (2.0 * np.pi)), 0.4, np.abs(x).max())
    state = np.zeros((n, 5 if profile == "gaussian" else 6))
    state[:, 0], state[:, 1] = core @ x / total, core @ y / total
    inverse = 1.0 / width**2
    if profile == "moffat":
        state[:, 5] = 3.0
        inverse = inverse / 4.0  # A Moffat of slope 3 has alpha = 1.96 FWHM / 2.
    state[:, 2] = state[:, 4] = inverse
    return state


def _limit(state: Float, move: Float, half: int, profile: str) -> Float:
    """Apply a step, within what is sensible: inside the window, positive widths, decent slopes."""
    trial = state + move
    trial[:, :2] = np.clip(trial[:, :2], -half, half)
    for column in (2, 4):
        trial[:, column] = np.clip(trial[:, column], 0.3 * state[:, column], 3.0 * state[:, column])
    most = 0.95 * np.sqrt(trial[:, 2] * trial[:, 4])
    trial[:, 3] = np.clip(trial[:, 3], -most, most)
    if profile == "moffat":
        trial[:, 5] = np.clip(trial[:, 5], *BETA_RANGE)
    return trial


def _model(
    state: Float, data: Float, count: Float, x: Float, y: Float, profile: str
) -> tuple[Float, Float, Float]:
    """Derivatives (n, pixels, p), residuals (n, pixels) and the linear parameters (peak, level) that minimise them."""
    columns = [state[:, index, np.newaxis, np.newaxis] for index in range(state.shape[1])]
    dx = x[:, np.newaxis] + _NODE_X - columns[0]
    dy = y[:, np.newaxis] + _NODE_Y - columns[1]
    xx, xy, yy = columns[2:5]
    radius = xx * dx**2 + 2.0 * xy * dx * dy + yy * dy**2
    if profile == "gaussian":
        value = np.exp(-0.5 * radius)
        slope = -0.5 * value
        extra: list[Float] = []
    else:
        beta = columns[5]
        base = 1.0 + radius
        value = base**-beta
        slope = -beta * value / base
        extra = [-value * np.log(base)]
    terms = [
        value,
        -2.0 * slope * (xx * dx + xy * dy),
        -2.0 * slope * (xy * dx + yy * dy),
        slope * dx**2,
        2.0 * slope * dx * dy,
        slope * dy**2,
        *extra,
    ]
    shape, *derivatives = (term @ _NODE_WEIGHT for term in terms)
    weighted, total = shape * count, count.sum(axis=1)
    sum_s, sum_ss = weighted.sum(axis=1), np.sum(weighted * shape, axis=1)
    sum_d, sum_sd = data.sum(axis=1), np.sum(data * shape, axis=1)
    determinant = np.maximum(total * sum_ss - sum_s**2, 1e-300)
    peak = (total * sum_sd - sum_s * sum_d) / determinant
    level = (sum_ss * sum_d - sum_s * sum_sd) / determinant
    residual = data - (peak[:, np.newaxis] * shape + level[:, np.newaxis]) * count
    jacobian = np.stack(
        [*(peak[:, np.newaxis] * item for item in derivatives), shape, np.ones_like(shape)], axis=2
    )
    return jacobian * count[:, :, np.newaxis], residual, np.stack([peak, level], axis=1)


def _covariance(jacobian: Float, noise: Float, side: int, correlation: Float | None) -> Float:
    """Covariance of the parameters of an unweighted fit, for noise of this deviation and correlation."""
    inverse = np.linalg.pinv(jacobian.transpose(0, 2, 1) @ jacobian)
    estimator = (jacobian @ inverse) * noise[:, :, np.newaxis]
    if correlation is None:
        return np.asarray(estimator.transpose(0, 2, 1) @ estimator)
    row, column = np.divmod(np.arange(side * side), side)
    reach = correlation.shape[0] // 2
    dy, dx = row[:, np.newaxis] - row, column[:, np.newaxis] - column
    near = (np.abs(dy) <= reach) & (np.abs(dx) <= reach)
    rho = np.where(
        near, correlation[np.clip(dy + reach, 0, 2 * reach), np.clip(dx + reach, 0, 2 * reach)], 0.0
    )
    return np.asarray(estimator.transpose(0, 2, 1) @ (rho @ estimator))


def _report(
    profile: str, state: Float, linear: Float, scale: Float, covariance: Float, cost: Float, converged: Array
) -> ProfileFits:
    determinant = state[:, 2] * state[:, 4] - state[:, 3] ** 2
    beta = state[:, 5] if profile == "moffat" else np.full(state.shape[0], np.nan)
    unit = FWHM_PER_SIGMA if profile == "gaussian" else 2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0)
    fwhm = unit * determinant**-0.25
    # fwhm = unit(beta) * det^(-1/4)
    gradient = np.zeros((state.shape[0], covariance.shape[1]))
    gradient[:, 2] = -0.25 * fwhm * state[:, 4] / determinant
    gradient[:, 4] = -0.25 * fwhm * state[:, 2] / determinant
    gradient[:, 3] = 0.5 * fwhm * state[:, 3] / determinant
    if profile == "moffat":
        power = 2.0 ** (1.0 / beta)
        gradient[:, 5] = -0.5 * fwhm * power * np.log(2.0) / (beta**2 * (power - 1.0))
    fwhm_error = np.sqrt(np.einsum("nk,nkl,nl->n", gradient, covariance, gradient))
    return ProfileFits(
        profile=profile,
        x=state[:, 0],
        y=state[:, 1],
        x_error=np.sqrt(covariance[:, 0, 0]),
        y_error=np.sqrt(covariance[:, 1, 1]),
        peak=linear[:, 0] * scale,
        level=linear[:, 1] * scale,
        metric=state[:, 2:5],
        beta=beta,
        fwhm=fwhm,
        fwhm_error=fwhm_error,
        covariance=covariance,
        rms=np.sqrt(cost),
        converged=converged,
    )


def _metric_matrix(metric: Float) -> Float:
    xx, xy, yy = metric.T
    return np.asarray(np.stack([np.stack([xx, xy], axis=1), np.stack([xy, yy], axis=1)], axis=1))
