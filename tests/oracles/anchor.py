"""Slow twins of the anchors: York's line by iteration, pairs of pixels one by one, the ratio of sums in a loop."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize


def york_line(x, y, x_variance, y_variance):
    """Slope and offset of the least ``sum (y - s x - o)^2 / (vy + s^2 vx)``: the denominator too."""

    def chi_square(parameters):
        slope, offset = parameters
        return np.sum((y - slope * x - offset) ** 2 / (y_variance + slope**2 * x_variance))

    start = np.polyfit(x, y, 1)
    return minimize(chi_square, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9}).x


def pair_sum(maps, rows, columns, correlation):
    """``sum_ij m_p(i) m_q(j) rho(i - j)``, pixel by pixel."""
    radius = correlation.shape[0] // 2
    total = np.zeros((len(maps), len(maps)))
    for i in range(rows.size):
        for j in range(rows.size):
            dy, dx = rows[j] - rows[i], columns[j] - columns[i]
            if max(abs(dy), abs(dx)) <= radius:
                total += np.outer(maps[:, i], maps[:, j]) * correlation[radius + dy, radius + dx]
    return total


def field_value(field, longitude, latitude):
    """A smooth field at one point, from its definition."""
    (u,), (v,) = field.frame.coordinates(np.array([longitude]), np.array([latitude]))
    value, k = 0.0, 0
    for order in range(field.degree + 1):
        for j in range(order + 1):
            p, q = np.zeros(order - j + 1), np.zeros(j + 1)
            p[-1] = q[-1] = 1.0
            value += (
                field.coefficients[k]
                * np.polynomial.legendre.legval(u, p)
                * np.polynomial.legendre.legval(v, q)
            )
            k += 1
    return value
