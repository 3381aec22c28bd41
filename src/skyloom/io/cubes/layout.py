"""Where everything of a cube stands in its file: found from headers by an instrument's reader, or said by the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.cube import CubeCorrelation
from skyloom.core.psf import PSF
from skyloom.errors import InputError

__all__ = ["ERROR_KINDS", "LSF_KINDS", "CubeLayout", "GenericLayout", "error_kind_of"]

Float = NDArray[np.float64]

ERROR_KINDS = ("variance", "sigma", "inverse_variance")
LSF_KINDS = ("sigma", "fwhm", "resolution")
# What an extension of each name promises to hold.
_ERROR_NAMES = {
    **dict.fromkeys(("VAR", "STAT", "VARIANCE"), "variance"),
    **dict.fromkeys(("ERR", "ERROR", "RMS", "SIGMA", "UNCERT", "UNC", "NOISE"), "sigma"),
    **dict.fromkeys(("WHT", "IVAR", "IVM", "WEIGHT"), "inverse_variance"),
}


def error_kind_of(name: str) -> str:
    """Return what the name of an extension promises (F814W_VAR: variance), empty when it names no errors."""
    return _ERROR_NAMES.get(name.upper().rpartition("_")[2], "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeLayout:
    """What a reader finds out about a cube from headers (and small tables) alone.

    Attributes
    ----------
    data : int
        Number of the extension with the (n_wave, ny, nx) array.
    error : int or None
        Number of the extension with the errors; None: there are none.
    error_kind : {"variance", "sigma", "inverse_variance"}
    wave : (n_wave,) float64 array
        Wavelengths in A.
    medium : {"air", "vacuum"}
    unit : astropy unit
    factor : float
        By what to multiply the array of the file to have it in ``unit`` (its errors accordingly).
    error_path : path, optional
        File of the errors where it is another one.
    mask : int, optional
        Number of the extension with a 3-D or 2-D mask.
    bad_bits : int, optional
        Which bits of the mask make a voxel unusable; by default any value other than ``good_value``.
    good_value : float
        See ``bad_bits``.
    wcs : WCS, optional
        Celestial, two-dimensional.
    lsf : float, (n_wave,) array or int, optional
        Standard deviation of the line-spread function in A, or the number of an extension (n_wave, ny, nx) of it.
    lsf_scale : float
        By what to multiply that extension to have standard deviations in A.
    psf : PSF, optional
    correlation : CubeCorrelation, optional
    meta : dict
    notes : tuple of str
        Given as one `AssumptionWarning` each when the cube is opened.
    error_floor : float, optional
        Standard deviations of this and more mean that a voxel is bad.
    """

    data: int
    error: int | None
    error_kind: str
    wave: Float
    medium: str
    unit: u.UnitBase
    factor: float = 1.0
    error_path: Path | None = None
    mask: int | None = None
    bad_bits: int | None = None
    good_value: float = 0.0
    wcs: WCS | None = None
    lsf: float | Float | int | None = None
    lsf_scale: float = 1.0
    psf: PSF | None = None
    correlation: CubeCorrelation | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error_floor: float | None = None

    def __post_init__(self) -> None:
        if self.error_kind not in ERROR_KINDS:
            raise InputError(
                f"error_kind is {self.error_kind!r}",
                field="error_kind",
                remedy=f"use one of {', '.join(ERROR_KINDS)}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenericLayout:
    """What a user says about a cube that no reader knows: the ``instrument:`` block of a configuration.

    Everything left out is looked for in the file.

    Attributes
    ----------
    name : str
        Name of the instrument, for the records.
    data, error, mask : str or int, optional
        Name or number of the extensions.
    error_kind : {"variance", "sigma", "inverse_variance"}, optional
        By default what the name of the extension promises.
    bad_bits, good_value : int, float, optional
        Meaning of the mask: which bits make a voxel unusable, or which value makes it usable (0 by default).
    unit : unit or str, optional
        Of the data, instead of BUNIT; per area (``erg/(s cm2 AA arcsec2)``) means a surface brightness.
    medium : {"air", "vacuum"}, optional
    wave : str, int, optional
        Name or number of an extension that lists the wavelengths.
    wave_start, wave_step : float, optional
        Wavelength of the first channel and the step, instead of the header.
    wave_sampling : {"linear", "log", "log10"}
        How ``wave_step`` or the extension is meant; see `skyloom.io.formats.wavelengths.sampled_wave`.
    wave_unit : unit or str, optional
        Of the wavelengths, instead of CUNIT.
    lsf : float or str, optional
        Width of the line-spread function, or the name of the extension that holds it, per channel or per voxel.
    lsf_kind : {"sigma", "fwhm", "resolution"}
        Whether ``lsf`` is a standard deviation or a full width in A, or the resolving power; of an extension per
        voxel, the first two only.
    psf_fwhm : float, optional
        Full width at half maximum of a Gaussian PSF, in arcsec.
    error_floor : float, optional
        Standard deviations of this and more mean that a voxel is bad.
    milky_way_corrected : bool, optional
        Whether the fluxes are already corrected for the extinction of the Milky Way.
    ebv : float, optional
        E(B-V) of the Milky Way towards the object.
    redshift : float, optional
    """

    name: str = ""
    data: str | int | None = None
    error: str | int | None = None
    error_kind: str | None = None
    mask: str | int | None = None
    bad_bits: int | None = None
    good_value: float | None = None
    unit: u.UnitBase | str | None = None
    medium: str | None = None
    wave: str | int | None = None
    wave_start: float | None = None
    wave_step: float | None = None
    wave_sampling: str = "linear"
    wave_unit: u.UnitBase | str | None = None
    lsf: float | str | None = None
    lsf_kind: str = "sigma"
    psf_fwhm: float | None = None
    error_floor: float | None = None
    milky_way_corrected: bool | None = None
    ebv: float | None = None
    redshift: float | None = None

    def __post_init__(self) -> None:
        choices = (("error_kind", ERROR_KINDS), ("lsf_kind", LSF_KINDS))
        for key, known in choices:
            value = getattr(self, key)
            if value is not None and value not in known:
                raise InputError(f"{key} is {value!r}", field=key, remedy=f"use one of {', '.join(known)}")
        if (self.wave_start is None) != (self.wave_step is None):
            raise InputError("wave_start and wave_step belong together", field="wave_start")

    @classmethod
    def from_mapping(cls, block: Mapping[str, Any]) -> GenericLayout:
        """Make a layout from the plain values of a configuration.

        Raises
        ------
        InputError
            When a key is unknown; it lists the known ones.
        """
        known = [item.name for item in fields(cls)]
        for key in block:
            if key not in known:
                raise InputError(
                    f"there is no key {key!r} in the instrument block",
                    field=str(key),
                    remedy=f"known: {', '.join(known)}",
                )
        return cls(**block)
