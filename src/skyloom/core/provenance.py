"""Steps: the record, inside every product, of what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skyloom._version import __version__

__all__ = ["Parameter", "Step", "step"]

Parameter = str | int | float | bool | None | list[Any] | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation in the history of a product.

    Parameters
    ----------
    name : str
        Name of the operation, e.g. ``match_psf``.
    version : str
        Version of the software that did it.
    parameters : mapping
        Plain values (what JSON can carry) that describe the call and its measured figures.
    """

    name: str
    version: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def describe(self) -> str:
        """Return one line for people: name, version and parameters."""
        shown = ", ".join(f"{key}={_short(value)}" for key, value in self.parameters.items())
        return f"{self.name} ({self.version}) {shown}".rstrip()


def step(name: str, **parameters: object) -> Step:
    """Make a `Step` of this version of Skyloom from any values that can be made plain."""
    return Step(name, __version__, {key: plain(value) for key, value in parameters.items()})


def plain(value: object) -> Parameter:
    """Return ``value`` as something JSON can carry; arrays become lists, quantities become text."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "unit"):
        return str(value)
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    return str(value)


def _short(value: Parameter) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
