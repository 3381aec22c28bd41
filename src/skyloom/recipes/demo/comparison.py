"""A measured quantity beside its truth: bias, pulls, and what is allowed of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from astropy.table import QTable
from numpy.typing import ArrayLike, NDArray

from skyloom.core.image import Image

__all__ = ["Allowed", "Comparison", "MapPair", "comparison_table", "percent_bias", "statistical"]

Float = NDArray[np.float64]


class Allowed(NamedTuple):
    """Limits of the absolute bias, of the mean pull and of the pulls' standard deviation less 1; None: not judged.

    Parameters
    ----------
    bias, mean, spread : float or None
    """

    bias: float | None = None
    mean: float | None = None
    spread: float | None = None

    def text(self, unit: str) -> str:
        """Tell the limits in words, the bias in ``unit``."""
        parts = []
        if self.bias is not None:
            parts.append(f"|bias| ≤ {self.bias:g} {unit}".rstrip())
        if self.mean is not None:
            parts.append(f"|mean| ≤ {self.mean:.2g}")
        if self.spread is not None:
            parts.append(f"|std − 1| ≤ {self.spread:.2g}")
        return ", ".join(parts)


def statistical(n: float, *, bias: float | None = None) -> Allowed:
    """Return what chance allows ``n`` independent pulls: three standard errors of their mean and of their spread."""
    return Allowed(bias, 3.0 / float(np.sqrt(n)), 3.0 / float(np.sqrt(2.0 * n)))


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """One row of the comparison with the truth.

    Parameters
    ----------
    recipe, quantity : str
    bias : float
        Measured less true, in ``unit``.
    unit : str
        ``%`` of the truth, or a unit.
    pulls : (n,) array
        (Measured - true) / error; empty where a quantity has no error.
    allowed : Allowed
    n : int
        How many values went in.
    meaning : str
        One sentence: what is compared with what, and why the limits are what they are.
    """

    recipe: str
    quantity: str
    bias: float
    unit: str
    pulls: Float
    allowed: Allowed
    n: int
    meaning: str

    @property
    def mean(self) -> float:
        """Mean of the pulls; NaN without any."""
        return float(np.mean(self.pulls)) if self.pulls.size else float("nan")

    @property
    def spread(self) -> float:
        """Standard deviation of the pulls; NaN with fewer than two."""
        return float(np.std(self.pulls, ddof=1)) if self.pulls.size > 1 else float("nan")

    @property
    def passed(self) -> bool:
        """Whether all limits are kept; what is unknown fails."""
        held = [
            limit is None or abs(value) <= limit
            for value, limit in zip((self.bias, self.mean, self.spread - 1.0), self.allowed, strict=True)
        ]
        return all(held)


@dataclass(frozen=True, slots=True, eq=False)
class MapPair:
    """A product beside its truth, for a picture.

    Parameters
    ----------
    title, caption : str
    measured, truth, pull : Image
        On one grid; ``pull`` is (measured - true) / error.
    pulls : (n,) array
        Of independent parts, ``counted`` says of what.
    unit : str
        Of ``measured``, as it is written.
    kind : {"flux", "signed"}
    counted : str
    """

    title: str
    caption: str
    measured: Image
    truth: Image
    pull: Image
    pulls: Float
    unit: str
    kind: Literal["flux", "signed"]
    counted: str


def percent_bias(measured: ArrayLike, true: ArrayLike) -> float:
    """Return by how many per cent the sum of what was measured is too large."""
    return float(100.0 * (np.sum(measured) / np.sum(true) - 1.0))


def comparison_table(rows: Sequence[Comparison]) -> QTable:
    """Return the rows as a table: recipe, quantity, n, bias, its unit, pulls, limits, verdict, meaning."""
    table = QTable()
    table["recipe"] = [row.recipe for row in rows]
    table["quantity"] = [row.quantity for row in rows]
    table["n"] = [row.n for row in rows]
    table["bias"] = [row.bias for row in rows]
    table["bias unit"] = [row.unit for row in rows]
    table["pull mean"] = [row.mean for row in rows]
    table["pull std"] = [row.spread for row in rows]
    table["allowed"] = [row.allowed.text(row.unit) for row in rows]
    table["verdict"] = ["passed" if row.passed else "failed" for row in rows]
    table["meaning"] = [row.meaning for row in rows]
    return table
