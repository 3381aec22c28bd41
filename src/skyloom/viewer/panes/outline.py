"""Outlines of what was picked in an image, along the edges of its pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.viewer.protocols import Float, PlaneSource

__all__ = ["bin_outline", "closed", "pixel_edges_of"]

Lines = tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]


def closed(x: Float, y: Float) -> Lines:
    """Return the line of a polygon."""
    return [np.append(x, x[0])], [np.append(y, y[0])]


def bin_outline(source: PlaneSource, x: float, y: float) -> Lines:
    """Return the outline of the bin at a place, or of the pixel where there are no bins."""
    label = source.labels_at(x, y)
    labels = getattr(source, "labels", None)
    if label is None or labels is None:
        column, row = round(x), round(y)
        corners = np.array([-0.5, 0.5, 0.5, -0.5, -0.5])
        return [column + corners], [row + np.roll(corners, -1)]
    return pixel_edges_of(labels == label)


def pixel_edges_of(inside: NDArray[np.bool_]) -> Lines:
    """Return the edges between pixels inside and outside, each run of them as one line."""
    framed = np.pad(inside, 1)
    xs: list[NDArray[np.float64]] = []
    ys: list[NDArray[np.float64]] = []
    for is_row in (True, False):
        change = (
            framed[1:, 1:-1] != framed[:-1, 1:-1] if is_row else (framed[1:-1, 1:] != framed[1:-1, :-1]).T
        )
        for line in np.flatnonzero(change.any(axis=1)):
            steps = np.flatnonzero(np.diff(np.concatenate([[0], change[line].astype(np.int8), [0]])))
            for start, stop in steps.reshape(-1, 2):
                along = np.array([start - 0.5, stop - 0.5])
                across = np.full(2, line - 0.5)
                xs.append(along if is_row else across)
                ys.append(across if is_row else along)
    return xs, ys
