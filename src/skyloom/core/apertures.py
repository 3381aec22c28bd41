"""Exact overlap of circles with square pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["circle_overlap"]

Float = NDArray[np.float64]


def circle_overlap(shape: tuple[int, int], x: float, y: float, radius: float) -> Float:
    """Return the fraction of each pixel that lies inside a circle.

    Parameters
    ----------
    shape : (ny, nx)
        Shape of the image.
    x, y : float
        Centre in pixels, 0 being the centre of the first pixel.
    radius : float
        Radius in pixels.

    Returns
    -------
    (ny, nx) float64 array
        Area of the overlap, 0 to 1, exact to 1e-8.

    Notes
    -----
    The area of a circle inside the rectangle from its centre to (x, y) is elementary; four corners of a pixel, with
    signs, give the pixel.
    """
    ny, nx = shape
    x_edges = np.arange(nx + 1, dtype=np.float64) - 0.5 - x
    y_edges = np.arange(ny + 1, dtype=np.float64) - 0.5 - y
    corner = _corner_area(x_edges[np.newaxis, :], y_edges[:, np.newaxis], radius)
    overlap = corner[1:, 1:] - corner[:-1, 1:] - corner[1:, :-1] + corner[:-1, :-1]
    return np.clip(overlap, 0.0, 1.0)


def _corner_area(x: Float, y: Float, radius: float) -> Float:
    """Signed area of the circle within the rectangle spanned by the centre and (x, y)."""
    width, height = np.minimum(np.abs(x), radius), np.minimum(np.abs(y), radius)
    width, height = np.broadcast_arrays(width, height)
    # A height cut to the radius can exceed it by rounding once squared.
    start = np.minimum(np.sqrt(np.maximum(radius**2 - height**2, 0.0)), width)
    area = height * start + _segment(width, radius) - _segment(start, radius)
    return np.asarray(np.sign(x) * np.sign(y) * area)


def _segment(u: Float, radius: float) -> Float:
    """Integral of sqrt(radius^2 - t^2) from 0 to u."""
    return np.asarray(
        0.5 * (u * np.sqrt(np.maximum(radius**2 - u**2, 0.0)) + radius**2 * np.arcsin(u / radius))
    )
