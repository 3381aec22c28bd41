"""`LabelMap`: which region each pixel belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import ArrayLike, DTypeLike, NDArray

from skyloom.core.provenance import Step
from skyloom.errors import InputError, ShapeError

__all__ = ["NO_REGION", "UNKNOWN", "LabelMap"]

NO_REGION = -1
UNKNOWN = -2


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """Integer labels of regions.

    Parameters
    ----------
    labels : (ny, nx) int array
        Label of each pixel; negative: no region (`NO_REGION`, -1) or not known (`UNKNOWN`, -2: outside the
        footprint, or a label that cannot be recovered).
    wcs : astropy.wcs.WCS, optional
        Where the pixels lie; needed to move labels between grids.
    meta : dict
        What the reader or the maker says about the map.
    history : tuple of Step
        What was done, oldest first.

    Raises
    ------
    ShapeError
        When the map is not two-dimensional.
    InputError
        When the labels are not whole numbers of 32 bits.
    """

    labels: NDArray[np.int32]
    wcs: WCS | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    history: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", as_labels(self.labels))

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        ny, nx = self.labels.shape
        return ny, nx

    @property
    def ids(self) -> NDArray[np.int32]:
        """The labels that occur, ascending, without the negative ones."""
        found = np.unique(self.labels)
        return found[found >= 0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the labels (int32), so that ``numpy.asarray(labels)`` works."""
        if copy:
            return np.array(self.labels, dtype=dtype)
        return np.asarray(self.labels, dtype=dtype)

    def evolve(self, step: Step | None = None, **changes: Any) -> LabelMap:
        """Return a new map with ``changes`` made and ``step`` added to the history."""
        if step is not None:
            changes["history"] = (*changes.get("history", self.history), step)
        changed: LabelMap = replace(self, **changes)
        return changed


def as_labels(labels: ArrayLike | LabelMap) -> NDArray[np.int32]:
    """Return ``labels`` as a two-dimensional int32 array, refusing what would be rounded or wrapped."""
    values = np.asarray(labels)
    if values.ndim != 2:
        raise ShapeError(f"labels have {values.ndim} dimensions; expected 2 (y, x)", field="labels")
    if values.dtype == np.int32:
        return values
    if values.dtype.kind not in "iub":
        raise InputError(
            f"labels have type {values.dtype}; expected integers",
            field="labels",
            remedy="read float maps with skyloom.io.segmentation, which recovers whole labels safely",
        )
    if values.size and (values.max() > np.iinfo(np.int32).max or values.min() < np.iinfo(np.int32).min):
        raise InputError(f"labels reach {values.max()}, beyond 32 bits", field="labels")
    return values.astype(np.int32)
