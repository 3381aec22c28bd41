"""Checks against known truth: input is made, noise is drawn, and what comes out is set beside what went in."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.measure import ROOT, ChildError, in_process

MODULES = ("imaging", "spectral", "lines", "store")
TIMEOUT = 400.0
Row = dict[str, Any]


@dataclass(frozen=True)
class Recovery:
    """Pulls of one quantity.

    Attributes
    ----------
    group, what : str
        Where it belongs, and what was recovered.
    n : float
        How many independent pulls there are; those of neighbours that share noise count as fewer.
    mean, sd : float
        Of the pulls.
    tolerance : float
        What the sd may be off beyond chance, where errors are an approximation that is documented.
    shift : float
        The same for the mean.
    note : str
        What else there is to say, e.g. the mean offset in the unit of the quantity.
    """

    group: str
    what: str
    n: float
    mean: float
    sd: float
    tolerance: float = 0.0
    shift: float = 0.0
    note: str = ""

    @property
    def allowed_mean(self) -> float:
        """Three standard errors of the mean of N pulls of scatter 1."""
        return 3 / math.sqrt(self.n) + self.shift

    @property
    def allowed_sd(self) -> float:
        """Three standard errors of the scatter of N pulls."""
        return 3 / math.sqrt(2 * self.n) + self.tolerance

    def row(self) -> Row:
        """Everything, as JSON can hold it."""
        good = abs(self.mean) <= self.allowed_mean and abs(self.sd - 1) <= self.allowed_sd
        more = {"allowed_mean": self.allowed_mean, "allowed_sd": self.allowed_sd, "met": bool(good)}
        return asdict(self) | more


def recovered(group: str, what: str, pulls: Any, *, each: float = 1.0, **more: Any) -> Recovery:
    """Sum up pulls; ``each`` is how many of them count as one."""
    values = np.asarray(pulls, dtype=float).ravel()
    values = values[np.isfinite(values)]
    return Recovery(group, what, values.size / each, float(values.mean()), float(values.std()), **more)


Check = Callable[[], list[Row]]


def all_checks() -> dict[str, Check]:
    """Return the checks by name, in the order of the page."""
    found: dict[str, Check] = {}
    for module in MODULES:
        found |= importlib.import_module(f"benchmarks.truth.{module}").CHECKS
    return found


def check_named(name: str) -> Check:
    """Find a check."""
    return all_checks()[name]


def run_checks(only: Collection[str] = (), *, tell: Callable[[str], None]) -> list[Row]:
    """Run the checks in processes of their own, two at a time: nothing is timed here."""
    names = [name for name in all_checks() if not only or name in only]

    def run(name: str) -> list[Row]:
        try:
            rows: list[Row] = in_process([ROOT / "benchmarks" / "run.py", "--check", name], timeout=TIMEOUT)[
                "rows"
            ]
        except ChildError as error:
            rows = [{"group": name, "what": name, "error": str(error)}]
        tell(f"  {name}: {len(rows)} rows")
        return rows

    with ThreadPoolExecutor(2) as pool:
        return [row for rows in pool.map(run, names) for row in rows]
