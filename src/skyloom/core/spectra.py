"""`Spectra`: many spectra on one wavelength axis."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import check_lags, check_wave
from skyloom.core.display import Shown
from skyloom.core.image import Mode, as_float, check_planes, check_shapes, copy_with
from skyloom.core.provenance import Step
from skyloom.core.units import parse_unit
from skyloom.errors import ShapeError

__all__ = ["Spectra"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Spectra(Shown):
    """Spectra that share a wavelength axis.

    Parameters
    ----------
    data : (n, n_wave) float array, in ``unit``
    variance : (n, n_wave) float array, in ``unit**2``
    mask : (n, n_wave) bool array
        True = unusable.
    unit : astropy unit or str
    wave : (n_wave,) float64 array
        Wavelengths of the channel centres in A, ascending.
    medium : {"air", "vacuum"}
        What ``wave`` is measured in.
    lsf : float, (n_wave,) or (n, n_wave) array, optional
        Standard deviation of the line-spread function in A.
    correlation : (k,) or (n_wave, k) float array, optional
        Noise autocorrelation over k (odd) lags in channels, 1 in the middle; one for all wavelengths, or a band of
        lags per wavelength. None: independent.
    flags, modes, meta, history
        As for `skyloom.Image`.

    Raises
    ------
    ShapeError, InputError
        As for `skyloom.Cube`.
    """

    data: Array
    variance: Array
    mask: NDArray[np.bool_]
    unit: u.UnitBase
    wave: NDArray[np.float64]
    medium: str
    lsf: float | NDArray[np.float64] | None = None
    correlation: NDArray[np.float64] | None = None
    flags: NDArray[np.uint16] | None = None
    modes: tuple[Mode, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    history: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        self._settle()
        check_planes(self.data, self.variance, self.mask, self.flags, self.modes)

    def _settle(self) -> None:
        """Bring every field to its type and check all that costs no pass over the voxels."""
        object.__setattr__(self, "unit", parse_unit(self.unit))
        object.__setattr__(self, "data", as_float(self.data, "data"))
        object.__setattr__(self, "variance", as_float(self.variance, "variance"))
        mask = np.zeros(self.data.shape, bool) if self.mask is None else np.asarray(self.mask, dtype=bool)
        object.__setattr__(self, "mask", mask)
        if self.flags is not None:
            object.__setattr__(self, "flags", np.asarray(self.flags, dtype=np.uint16))
        object.__setattr__(self, "modes", tuple(Mode(*mode) for mode in self.modes))
        if self.data.ndim != 2:
            raise ShapeError(f"data has {self.data.ndim} dimensions; Spectra have 2 (n, wave)", field="data")
        check_shapes(self.data, self.variance, self.mask, self.flags, self.modes)
        object.__setattr__(self, "wave", check_wave(self.wave, self.data.shape[1], self.medium))
        if self.correlation is not None:
            object.__setattr__(self, "correlation", check_lags(self.correlation, self.data.shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n_wave)."""
        n, n_wave = self.data.shape
        return n, n_wave

    @property
    def valid(self) -> NDArray[np.bool_]:
        """True where the voxel is usable."""
        return ~self.mask

    def evolve(self, step: Step | None = None, **changes: Any) -> Spectra:
        """Return new spectra with ``changes`` made and ``step`` added to the history."""
        if step is not None:
            changes["history"] = (*changes.get("history", self.history), step)
        changed: Spectra = replace(self, **changes)
        return changed

    def evolve_checked(self, step: Step | None = None, **changes: Any) -> Spectra:
        """Do what `evolve` does, for changes that leave the usable voxels usable.

        The caller vouches for the voxels: no plane is changed, or the kernel that wrote them has tested in its own pass
        that each one without a mask has a finite value and a positive, finite variance. Shapes, units, the axis and
        the correlation are checked as always; what is left out is another pass over the whole object.
        """
        if step is not None:
            changes["history"] = (*changes.get("history", self.history), step)
        changed: Spectra = copy_with(self, changes)
        changed._settle()
        return changed
