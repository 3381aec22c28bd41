"""`Cube`: a spectrum for every pixel, with errors, correlation, PSF and LSF."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.display import Shown
from skyloom.core.image import Mode, as_float, check_correlation, check_planes, check_shapes, copy_with
from skyloom.core.provenance import Step
from skyloom.core.psf import PSF
from skyloom.core.units import parse_unit
from skyloom.errors import InputError, ShapeError

__all__ = ["Cube", "CubeCorrelation", "check_lags", "check_wave"]

Array = NDArray[Any]


class CubeCorrelation(NamedTuple):
    """Noise autocorrelation of a cube, taken as separable; None: independent along these axes."""

    spatial: NDArray[np.float64] | None
    spectral: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True, eq=False)
class Cube(Shown):
    """A calibrated integral-field cube with its uncertainties.

    Parameters
    ----------
    data : (n_wave, ny, nx) float array, in ``unit``
    variance : (n_wave, ny, nx) float array, in ``unit**2``
    mask : (n_wave, ny, nx) bool array
        True = unusable.
    unit : astropy unit or str
    wcs : astropy.wcs.WCS or None
        Celestial WCS of the spatial axes (or the three-dimensional one of the file).
    wave : (n_wave,) float64 array
        Wavelengths of the channel centres in A, ascending.
    medium : {"air", "vacuum"}
        What ``wave`` is measured in.
    lsf : float, (n_wave,) or (n_wave, ny, nx) array, optional
        Standard deviation of the line-spread function in A.
    psf, flags, modes, meta, history
        As for `skyloom.Image`.
    correlation : CubeCorrelation, optional
        Autocorrelation of the noise: spatial, a 2-D kernel, and spectral, (k,) lags or an (n_wave, k) band of lags.

    Raises
    ------
    ShapeError, InputError
        As for `skyloom.Image`; also for a wavelength axis of another length or not ascending, and an unknown medium.
    """

    data: Array
    variance: Array
    mask: NDArray[np.bool_]
    unit: u.UnitBase
    wcs: WCS | None
    wave: NDArray[np.float64]
    medium: str
    lsf: float | NDArray[np.float64] | None = None
    psf: PSF | None = None
    correlation: CubeCorrelation | None = None
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
        if self.data.ndim != 3:
            raise ShapeError(f"data has {self.data.ndim} dimensions; a Cube has 3 (wave, y, x)", field="data")
        check_shapes(self.data, self.variance, self.mask, self.flags, self.modes)
        object.__setattr__(self, "wave", check_wave(self.wave, self.data.shape[0], self.medium))
        if self.correlation is not None:
            separable = _check_separable(CubeCorrelation(*self.correlation), self.data.shape[0])
            object.__setattr__(self, "correlation", separable)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_wave, ny, nx)."""
        n_wave, ny, nx = self.data.shape
        return n_wave, ny, nx

    @property
    def valid(self) -> NDArray[np.bool_]:
        """True where the voxel is usable."""
        return ~self.mask

    def evolve(self, step: Step | None = None, **changes: Any) -> Cube:
        """Return a new cube with ``changes`` made and ``step`` added to the history."""
        if step is not None:
            changes["history"] = (*changes.get("history", self.history), step)
        changed: Cube = replace(self, **changes)
        return changed

    def evolve_checked(self, step: Step | None = None, **changes: Any) -> Cube:
        """Do what `evolve` does, for changes that leave the usable voxels usable.

        The caller vouches for the voxels: no plane is changed, or the kernel that wrote them has tested in its own pass
        that each one without a mask has a finite value and a positive, finite variance. Shapes, units, the axis and
        the correlation are checked as always; what is left out is another pass over the whole object.
        """
        if step is not None:
            changes["history"] = (*changes.get("history", self.history), step)
        changed: Cube = copy_with(self, changes)
        changed._settle()
        return changed


def _check_separable(correlation: CubeCorrelation, n_wave: int) -> CubeCorrelation:
    spatial, spectral = correlation
    return CubeCorrelation(
        None if spatial is None else check_correlation(spatial, ndim=2),
        None if spectral is None else check_lags(spectral, n_wave),
    )


def check_lags(correlation: object, n_wave: int) -> NDArray[np.float64]:
    """Return a noise autocorrelation along wavelength, (k,) or (n_wave, k), as float64 after checking its shape."""
    lags = np.asarray(correlation, dtype=np.float64)
    if lags.ndim == 1:
        return check_correlation(lags, ndim=1)
    if lags.ndim != 2 or lags.shape[0] != n_wave or lags.shape[1] % 2 == 0:
        raise ShapeError(
            f"correlation has shape {lags.shape}; expected (k,) or ({n_wave}, k) with k odd",
            field="correlation",
        )
    return lags


def check_wave(wave: object, n_wave: int, medium: str) -> NDArray[np.float64]:
    """Return a wavelength axis as float64 after checking its length, order and medium."""
    axis = np.asarray(wave, dtype=np.float64)
    if axis.shape != (n_wave,):
        raise ShapeError(f"wave has shape {axis.shape}; expected ({n_wave},)", field="wave")
    # Between finite ends what ascends is finite, too, and no comparison with NaN is true.
    if n_wave and not (np.isfinite(axis[0]) and np.isfinite(axis[-1]) and (axis[1:] > axis[:-1]).all()):
        raise InputError("wavelengths must be finite and ascending", field="wave")
    if medium not in ("air", "vacuum"):
        raise InputError(f"medium is {medium!r}; expected 'air' or 'vacuum'", field="medium")
    return axis
