"""`TemplateLibrary`: spectra of stellar populations on a common wavelength axis."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.linelist import Medium, check_medium
from skyloom.core.provenance import Step
from skyloom.errors import InputError, ShapeError

__all__ = ["TemplateLibrary"]

Float = NDArray[np.float64]
FWHM_PER_SIGMA = float(np.sqrt(8 * np.log(2)))


@dataclass(frozen=True, slots=True, eq=False)
class TemplateLibrary:
    """Spectra of simple stellar populations.

    Parameters
    ----------
    wave : (n_wave,) array
        Rest wavelengths in A, ascending.
    medium : {"vacuum", "air"}
        What they are measured in.
    flux : (n, n_wave) array
        Flux density per wavelength of each template, in any common unit; weights of a fit refer to it.
    age : (n,) array
        Age in Gyr.
    metallicity : (n,) array
        [M/H] in dex.
    fwhm : float or (n_wave,) array
        Full width at half maximum of the line-spread function of the templates, in A.
    name : str
        Name of the library.
    meta : dict
        Where it comes from, its unit, its initial mass function.
    history : tuple of Step
        What was done, oldest first.

    Raises
    ------
    ShapeError
        When the arrays do not fit together.
    InputError
        When a value is not finite, wavelengths do not ascend, or an age or a width is not positive.
    """

    wave: Float
    medium: Medium
    flux: Float
    age: Float
    metallicity: Float
    fwhm: Float | float
    name: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    history: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        for name in ("wave", "flux", "age", "metallicity", "fwhm"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        object.__setattr__(self, "fwhm", np.broadcast_to(self.fwhm, self.wave.shape))
        check_medium(self.medium, self.name or "template library")
        if self.flux.ndim != 2 or self.flux.shape[1:] != self.wave.shape:
            raise ShapeError(
                f"flux has shape {self.flux.shape}; expected (n, {self.wave.size})", field="flux"
            )
        for name in ("age", "metallicity"):
            if getattr(self, name).shape != self.flux.shape[:1]:
                raise ShapeError(
                    f"{name} has shape {getattr(self, name).shape}; expected ({len(self)},)",
                    field=name,
                )
        self._check_values()

    def _check_values(self) -> None:
        checks = (
            ("wave", bool(np.all(np.diff(self.wave) > 0)), "ascending wavelengths"),
            ("flux", bool(np.all(np.isfinite(self.flux))), "finite values"),
            ("age", bool(np.all(self.age > 0)), "ages > 0"),
            ("metallicity", bool(np.all(np.isfinite(self.metallicity))), "finite values"),
            ("fwhm", bool(np.all(np.asarray(self.fwhm) >= 0)), "widths >= 0"),
        )
        for name, right, expected in checks:
            if not right:
                raise InputError(f"expected {expected}", source=self.name or None, field=name)

    def __len__(self) -> int:
        return int(self.flux.shape[0])

    @property
    def sigma(self) -> Float:
        """(n_wave,) standard deviation of the line-spread function, in A."""
        return np.asarray(self.fwhm) / FWHM_PER_SIGMA

    def evolve(self, step: Step | None = None, **changes: Any) -> TemplateLibrary:
        """Return a new library with ``changes`` made and ``step`` added to the history."""
        if step is not None:
            changes["history"] = (*changes.get("history", self.history), step)
        changed: TemplateLibrary = replace(self, **changes)
        return changed
