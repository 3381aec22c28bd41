"""Pulls: what came out less the truth, over the error that was claimed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from skyloom.core.image import Image

Float = NDArray[np.float64]


def pull_figures(pulls: Any, name: str = "pull") -> dict[str, float]:
    """Mean and standard deviation of the pulls that are finite."""
    values = np.asarray(pulls, dtype=float).ravel()
    values = values[np.isfinite(values)]
    if values.size < 2:
        return {}
    return {f"{name} mean": float(values.mean()), f"{name} sd": float(values.std())}


def box_labels(shape: tuple[int, int], side: int, gap: int = 3, margin: int = 0) -> NDArray[np.int32]:
    """Label square boxes side by side with a gap between them; -1 elsewhere."""
    step = side + gap
    axes = []
    for size in shape:
        place = np.arange(size) - margin
        whole = (size - 2 * margin) // step
        good = (place >= 0) & (place % step < side) & (place // step < whole)
        axes.append((np.where(good, place // step, -1), whole))
    (rows, _), (columns, n_columns) = axes
    labels = rows[:, None] * n_columns + columns
    labels[(rows[:, None] < 0) | (columns < 0)] = -1
    return labels.astype(np.int32)


def whole_boxes(labels: NDArray[np.int32], bad: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number the boxes anew of which no pixel is bad."""
    spoilt = np.unique(labels[bad & (labels >= 0)])
    kept = np.where(np.isin(labels, spoilt), -1, labels)
    found = np.unique(kept[kept >= 0])
    return np.where(kept >= 0, np.searchsorted(found, kept), -1).astype(np.int32)


def image_pulls(
    image: Image, side: int, truth: Float | float = 0.0, *, margin: int = 0, gap: int = 3
) -> Float:
    """Pulls of sums over boxes of an image, with the errors that its covariance and its shared errors give."""
    from skyloom.imaging.measure.regions import sum_regions

    labels = whole_boxes(box_labels(image.shape, side, gap, margin), image.mask)
    table = sum_regions(image, labels)
    true = np.bincount(labels[labels >= 0], np.broadcast_to(truth, image.shape)[labels >= 0])
    return np.asarray((table["flux"].value - true[np.asarray(table["label"])]) / table["flux_err"].value)


def plain_pulls(data: Any, variance: Any, side: int, truth: Float | float = 0.0) -> Float:
    """The same for planes without covariance: the errors of pixels are added in quadrature."""
    data, variance = (np.asarray(plane, dtype=float) for plane in (data, variance))
    labels = whole_boxes(box_labels(data.shape, side), ~(np.isfinite(data) & (variance > 0)))
    inside = labels >= 0
    off = (data - truth)[inside]
    return np.asarray(
        np.bincount(labels[inside], off) / np.sqrt(np.bincount(labels[inside], variance[inside]))
    )
