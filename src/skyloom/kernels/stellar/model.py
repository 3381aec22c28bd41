"""The stellar model of one spectrum: columns of templates, polynomials and lines, and their derivatives.

``model = A(b) 10^(-0.4 A_V k) sum_k w_k T_k(v, s2) + sum_j a_j P_j + sum_l f_l G_l(v_gas, s2_gas)``: T are templates
broadened and averaged over channels, ``A = 1 + sum_j b_j P_j``, P Legendre polynomials. Weights, additive polynomials
and lines are linear; the parameters are ``v, s2, A_V, b_1 ... b_m, v_gas, s2_gas``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.lines.profiles import LEAST_SIGMA, SPEED_OF_LIGHT, add_profile, reach_of
from skyloom.kernels.stellar.broadening import Channels, Taps, broaden, broaden_slopes

__all__ = ["GasLines", "Row", "derivatives", "fill_columns"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
VELOCITY, SQUARED, DUST, SHAPES = 0, 1, 2, 3
MAGNITUDE = 0.4 * math.log(10.0)
LEAST_LEVEL = 1e-3  # The multiplicative polynomial never falls below.


class GasLines(NamedTuple):
    """Emission lines that are fitted together: wavelengths (A, observed at velocity 0), flux relative to the column,
    column of each; ``edges`` (n_wave + 1,) and ``lsf`` (n_wave,) of the spectrum in A.
    """

    wave: Float
    ratio: Float
    column: Int
    edges: Float
    lsf: Float


class Row(NamedTuple):
    """Channels of a spectrum: where they lie on the grid, root of their weight, weighted values, A / A_V, the
    polynomials (m, n) of shape and (j, n) to add, the channel's number on the axis.
    """

    channels: Channels
    root: Float
    values: Float
    dust: Float
    shapes: Float
    added: Float
    places: Int


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _level(row: Row, parameters: Float, p: int) -> float:
    """Multiplicative polynomial."""
    total = 1.0
    for j in range(row.shapes.shape[0]):
        total += parameters[SHAPES + j] * row.shapes[j, p]
    return max(total, LEAST_LEVEL)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def fill_columns(
    row: Row, gas: GasLines, taps: Taps, coefficients: Float, parameters: Float, columns: Float
) -> None:
    """Write the weighted columns (n, size): templates, polynomials, lines; ``taps`` are those of the parameters."""
    n_templates = coefficients.shape[1]
    size = n_templates + row.added.shape[0]
    broaden(taps, coefficients, columns)
    for p in range(row.root.size):
        factor = (
            row.root[p] * math.exp(-MAGNITUDE * parameters[DUST] * row.dust[p]) * _level(row, parameters, p)
        )
        for k in range(n_templates):
            columns[p, k] *= factor
        for j in range(n_templates, size):
            columns[p, j] = row.root[p] * row.added[j - n_templates, p]
    if gas.wave.size:
        line_columns(row, gas, parameters, np.zeros(0), size, columns, np.zeros((0, 0)))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def line_columns(
    row: Row, gas: GasLines, parameters: Float, solution: Float, offset: int, columns: Float, slopes: Float
) -> None:
    """Write the weighted columns of the lines from ``offset`` on; or, where ``solution`` is given, the derivatives.

    Derivatives by velocity and squared dispersion of the gas go into the last two columns of ``slopes``.
    """
    n_wave = gas.lsf.size
    sloped = solution.size > 0
    n_parameters = parameters.size
    velocity, squared = parameters[n_parameters - 2], parameters[n_parameters - 1]
    if sloped:
        slopes[:, n_parameters - 2 :] = 0.0
    else:
        columns[:, offset:] = 0.0
    one, by_flux = np.ones(n_wave), np.zeros(n_wave)
    by_velocity, by_variance = np.zeros(n_wave), np.zeros(n_wave)
    for line in range(gas.wave.size):
        scale = gas.wave[line] / SPEED_OF_LIGHT
        centre = gas.wave[line] + velocity * scale
        channel = min(max(int(np.searchsorted(gas.edges, centre)) - 1, 0), n_wave - 1)
        sigma = math.sqrt(max(gas.lsf[channel] ** 2 + squared * scale * scale, LEAST_SIGMA**2))
        first, last = reach_of(gas.edges, 0, n_wave, centre, sigma)
        by_flux[first:last], by_velocity[first:last], by_variance[first:last] = 0.0, 0.0, 0.0
        amount = gas.ratio[line] * (solution[offset + gas.column[line]] if sloped else 1.0)
        add_profile(
            gas.edges, one, first, last, 0, centre, sigma, amount, scale, scale * scale,
            by_flux, by_velocity, by_variance,
        )  # fmt: skip
        for p in range(np.searchsorted(row.places, first), np.searchsorted(row.places, last)):
            if sloped:
                slopes[p, n_parameters - 2] += row.root[p] * by_velocity[row.places[p]]
                slopes[p, n_parameters - 1] += row.root[p] * by_variance[row.places[p]]
            else:
                columns[p, offset + gas.column[line]] += row.root[p] * by_flux[row.places[p]]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def derivatives(
    row: Row, gas: GasLines, taps: Taps, coefficients: Float, parameters: Float, solution: Float, columns: Float,
    slopes: Float,
) -> None:  # fmt: skip
    """Write the weighted derivatives (n, n_parameters) of the model at given weights.

    ``columns`` as `fill_columns` left them, ``solution`` in their order.
    """
    n_grid, n_templates = coefficients.shape
    total = np.zeros(n_grid)
    for i in range(n_grid):
        for k in range(n_templates):
            total[i] += coefficients[i, k] * solution[k]
    n = row.root.size
    stars = np.empty((2, n))
    broaden_slopes(row.channels, taps, total, parameters[VELOCITY], max(parameters[SQUARED], 0.0), stars)
    for p in range(n):
        level = _level(row, parameters, p)
        factor = row.root[p] * math.exp(-MAGNITUDE * parameters[DUST] * row.dust[p]) * level
        value = 0.0
        for k in range(n_templates):
            value += columns[p, k] * solution[k]
        slopes[p, VELOCITY] = factor * stars[0, p]
        slopes[p, SQUARED] = factor * stars[1, p]
        slopes[p, DUST] = -MAGNITUDE * row.dust[p] * value
        for j in range(row.shapes.shape[0]):
            slopes[p, SHAPES + j] = value / level * row.shapes[j, p]
    if gas.wave.size:
        line_columns(row, gas, parameters, solution, n_templates + row.added.shape[0], columns, slopes)
