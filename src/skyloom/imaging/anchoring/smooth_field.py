"""A field that varies smoothly over the sky, with the covariance of its coefficients, for any pixel grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core import geometry
from skyloom.errors import InputError

__all__ = ["FieldFrame", "SmoothField", "choose_prior", "n_terms", "total_orders"]

Array = NDArray[Any]
Float = NDArray[np.float64]
ARCSEC = 3600.0
SPACING = 6
"""Pixels between the nodes where the field is evaluated on a large grid."""
MOST_NODES = 65
DIRECT = 40
"""Grids with no more pixels along an axis have a node on every pixel."""


def n_terms(degree: int) -> int:
    """Return the number of polynomials of total degree up to ``degree``; 0 for -1."""
    return (degree + 1) * (degree + 2) // 2


@dataclass(frozen=True, slots=True, eq=False)
class FieldFrame:
    """Coordinates in which a field is written: -1 to 1 over a rectangle of the tangent plane.

    Parameters
    ----------
    centre : (float, float)
        Right ascension and declination of the tangent point, in degrees.
    axes : (2, 2) float64 array
        From (east, north) in arcsec on the tangent plane to the coordinates, less ``origin``.
    origin : (2,) float64 array
        Coordinates of the tangent point.
    """

    centre: tuple[float, float]
    axes: Float
    origin: Float

    @classmethod
    def around(cls, wcs: WCS | None, rows: Array, columns: Array) -> FieldFrame:
        """Return the frame of the rectangle, along the pixel axes, that holds the given pixels."""
        sky = geometry.celestial(wcs, "a field on the sky")
        (x0, x1), (y0, y1) = ((float(axis.min()), float(axis.max())) for axis in (columns, rows))
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        longitude, latitude = (float(value) for value in sky.all_pix2world(x, y, 0))
        half = np.diag([2.0 / max(x1 - x0, 1.0), 2.0 / max(y1 - y0, 1.0)])
        axes = half @ np.linalg.inv(geometry.local_matrix(sky, x, y))
        return cls((longitude, latitude), axes, np.zeros(2))

    def coordinates(self, longitude: Array, latitude: Array) -> tuple[Array, Array]:
        """Return the coordinates of points on the sky (degrees), held at the border of the rectangle outside it.

        Beyond the data that fixed it a polynomial knows nothing; the value at the border is the best there is.
        """
        alpha = np.radians(longitude - self.centre[0])
        delta, delta0 = np.radians(latitude), np.radians(self.centre[1])
        depth = np.sin(delta) * np.sin(delta0) + np.cos(delta) * np.cos(delta0) * np.cos(alpha)
        east = np.degrees(np.cos(delta) * np.sin(alpha) / depth) * ARCSEC
        north = np.sin(delta - delta0) + 2.0 * np.cos(delta) * np.sin(delta0) * np.sin(alpha / 2) ** 2
        north = np.degrees(north / depth) * ARCSEC
        first, second = (self.axes[i, 0] * east + self.axes[i, 1] * north + self.origin[i] for i in range(2))
        return np.clip(first, -1.0, 1.0), np.clip(second, -1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class SmoothField:
    """A polynomial of the position on the sky: ``sum_k coefficient_k P_i(k)(u) P_j(k)(v)``, Legendre in both.

    Parameters
    ----------
    frame : FieldFrame
    degree : int
        Largest i + j; -1: the field is 0.
    coefficients : (K,) float64 array
        In order of rising i + j.
    covariance : (K, K) float64 array
    """

    frame: FieldFrame
    degree: int
    coefficients: Float
    covariance: Float

    def __post_init__(self) -> None:
        if len(self.coefficients) != n_terms(self.degree):
            raise InputError(
                f"{len(self.coefficients)} coefficients for degree {self.degree}; expected {n_terms(self.degree)}",
                field="coefficients",
            )

    @property
    def names(self) -> list[str]:
        """``a_ij`` of each coefficient."""
        return [f"a_{i}{j}" for i, j in _orders(self.degree)]

    def basis_at(self, longitude: Array, latitude: Array) -> Float:
        """Return the (n, K) basis at points of the sky, in degrees."""
        first, second = self.frame.coordinates(np.asarray(longitude), np.asarray(latitude))
        return legendre_basis(first, second, self.degree)

    def on(self, wcs: WCS, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Return the field on a pixel grid."""
        return FieldGrid(self, wcs, shape).combine(self.coefficients)

    def error_on(self, wcs: WCS, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Return the standard error of the field on a pixel grid."""
        grid = FieldGrid(self, wcs, shape)
        error = np.sqrt(np.maximum(np.einsum("nk,kl,nl->n", grid.basis, self.covariance, grid.basis), 0.0))
        return grid.spread(error)

    def grid(self, wcs: WCS, shape: tuple[int, int]) -> FieldGrid:
        """Return the basis on a pixel grid, ready to be combined several times."""
        return FieldGrid(self, wcs, shape)


class FieldGrid:
    """The basis of a field at the nodes of a pixel grid, and the cubic splines between them."""

    def __init__(self, field: SmoothField, wcs: WCS, shape: tuple[int, int]) -> None:
        sky = geometry.celestial(wcs, "a field on the sky")
        self.nodes = [_nodes(side) for side in shape]
        x, y = np.meshgrid(self.nodes[1], self.nodes[0])
        longitude, latitude = sky.all_pix2world(x.ravel(), y.ravel(), 0)
        self.basis = field.basis_at(longitude, latitude)
        self.splines = [_spline_matrix(nodes, side) for nodes, side in zip(self.nodes, shape, strict=True)]

    def combine(self, coefficients: Float) -> NDArray[np.float32]:
        """Return the field with these coefficients."""
        return self.spread(self.basis @ coefficients)

    def spread(self, values: Float) -> NDArray[np.float32]:
        """Return the surface through values at the nodes."""
        plane = values.reshape(self.nodes[0].size, self.nodes[1].size)
        if np.ptp(plane) == 0:
            return np.full((self.splines[0].shape[0], self.splines[1].shape[0]), plane.flat[0], np.float32)
        half = (self.splines[0] @ plane).astype(np.float32)
        return np.asarray(half @ self.splines[1].T.astype(np.float32))


def legendre_basis(first: Array, second: Array, degree: int) -> Float:
    """Return the (n, K) products of Legendre polynomials of total degree up to ``degree``."""
    if degree < 0:
        return np.zeros((np.size(first), 0))
    rows, columns = (np.polynomial.legendre.legvander(np.ravel(axis), degree) for axis in (first, second))
    return np.stack([rows[:, i] * columns[:, j] for i, j in _orders(degree)], axis=1)


def _orders(degree: int) -> list[tuple[int, int]]:
    return [(total - j, j) for total in range(degree + 1) for j in range(total + 1)]


def total_orders(degree: int) -> NDArray[np.int_]:
    """Return i + j of each term."""
    return np.array([i + j for i, j in _orders(degree)], dtype=int)


def choose_prior(matrix: Float, vector: Float, orders: NDArray[np.int_]) -> tuple[Float, float, float]:
    """Return the prior of largest marginal likelihood for coefficients whose size falls with their order.

    Parameters
    ----------
    matrix, vector : (P, P), (P,) array
        Normal equations of the data: inverse covariance of the parameters, and that times their estimate.
    orders : (P,) int array
        Order d of each parameter; 0: nothing is known about it.

    Returns
    -------
    precision : (P,) float64 array
        ``1 / (t^2 g^d)``, 0 for order 0.
    t, g : float

    Notes
    -----
    Up to a constant ``2 log L = b^T (A + L)^-1 b - log det(A + L) + sum log L``, the sum over orders above 0
    (restricted likelihood; Patterson & Thompson 1971, 10.1093/biomet/58.3.545).
    """
    known = orders > 0
    size = np.sqrt(np.diag(matrix))
    best = (-np.inf, np.zeros(orders.size), 0.0, 0.0)
    for t in np.geomspace(1e-5, 3.0, 34):
        for g in (0.1, 0.18, 0.3, 0.45, 0.6, 0.75, 0.9):
            precision = np.where(known, 1.0 / (t**2 * g ** orders.astype(np.float64)), 0.0)
            scaled = (matrix + np.diag(precision)) / np.outer(size, size)
            sign, volume = np.linalg.slogdet(scaled)
            if sign <= 0:
                continue
            fitted = float(vector / size @ np.linalg.solve(scaled, vector / size))
            likelihood = fitted - volume + float(np.sum(np.log(precision[known])))
            if likelihood > best[0]:
                best = (likelihood, precision, float(t), g)
    if not np.isfinite(best[0]):
        raise InputError(
            "the images do not determine a smooth field: the continuum has no signal beyond its noise",
            field="continuum",
            remedy="fit with field='constant' or 'none'",
        )
    return best[1], best[2], best[3]


def _nodes(side: int) -> Float:
    if side <= DIRECT:
        return np.arange(side, dtype=np.float64)
    number = int(np.clip(-(-side // SPACING) + 1, 9, MOST_NODES))
    return np.linspace(0.0, side - 1.0, number)


def _spline_matrix(nodes: Float, side: int) -> Float:
    """Return the (side, nodes) matrix that puts a cubic spline through values at the nodes."""
    from scipy.interpolate import make_interp_spline

    if nodes.size == side:
        return np.eye(side)
    spline = make_interp_spline(nodes, np.eye(nodes.size), k=3)
    return np.asarray(spline(np.arange(side)))
