"""Any cube with a wavelength axis: what its headers say, and what the user says where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.psf import FWHM_PER_SIGMA, PSF, GaussianPSF
from skyloom.errors import FileFormatError, InputError
from skyloom.io.cubes.files import missing_errors, read_whole
from skyloom.io.cubes.layout import CubeLayout, GenericLayout, error_kind_of
from skyloom.io.cubes.observation import celestial_wcs, observation_meta, unit_of
from skyloom.io.formats.files import FitsFile, Hdu, open_fits
from skyloom.io.formats.wavelengths import (
    WaveAxis,
    check_medium,
    header_wave,
    is_spectral,
    sampled_wave,
    table_wave,
)
from skyloom.io.inspection.scatter import PLAUSIBLE, best_kind, sample_channels

__all__ = [
    "error_extension",
    "layout",
    "read_cube",
    "science_extension",
    "sniff",
]

Float = NDArray[np.float64]

_SAMPLE_BYTES = 2**22
_SCIENCE_NAMES = ("SCI", "DATA", "FLUX", "")
_MASK_NAMES = ("DQ", "MASK", "BADPIX", "QUALITY", "FLAGS")
_WEIGHT_KINDS = {"rms": "sigma", **{kind: kind for kind in ("variance", "sigma", "inverse_variance")}}


def sniff(file: FitsFile) -> bool:
    """Tell whether a file has a cube with a wavelength axis."""
    return any(hdu.is_image and len(hdu.shape) == 3 and is_spectral(hdu.header, 3) for hdu in file)


def layout(
    file: FitsFile,
    *,
    layout: GenericLayout | None = None,
    weight: str | Path | None = None,
    weight_kind: str = "inverse_variance",
    unit: u.UnitBase | str | None = None,
    medium: str | None = None,
) -> CubeLayout:
    """Find out from headers where everything of a cube stands.

    Parameters
    ----------
    file : FitsFile
    layout : GenericLayout, optional
        What the user says.
    weight : str or path, optional
        File that holds the errors.
    weight_kind : {"inverse_variance", "variance", "rms", "sigma"}
        What that file holds.
    unit : unit or str, optional
        Of the data, instead of BUNIT.
    medium : {"air", "vacuum"}, optional

    Raises
    ------
    FileFormatError, UnitError, InputError
        As `skyloom.io.cubes.files.open_cube`.
    """
    said = layout if layout is not None else GenericLayout()
    data = science_extension(file, said.data)
    axis = _wave(file, file[data], said, medium or said.medium)
    chosen, factor, unit_notes = _unit(file, data, unit if unit is not None else said.unit)
    errors = error_extension(file, data, said.error, said.error_kind, weight, weight_kind)
    wcs, wcs_notes = celestial_wcs(file[data])
    meta = observation_meta(file[0].header, file[data].header, said.name)
    meta |= {
        key: value
        for key in ("milky_way_corrected", "ebv", "redshift")
        if (value := getattr(said, key)) is not None
    }
    lsf, lsf_scale = _lsf(file, said, axis.wave)
    asked = said.error_kind is not None or weight is not None
    error_notes = () if asked else _error_notes(file[data], file[errors[0]], errors[1])
    return CubeLayout(
        data=data,
        error=errors[0],
        error_kind=errors[1],
        error_path=errors[2],
        wave=axis.wave,
        medium=axis.medium,
        unit=chosen,
        factor=factor,
        mask=_mask(file, data, said),
        bad_bits=said.bad_bits,
        good_value=0.0 if said.good_value is None else said.good_value,
        wcs=wcs,
        lsf=lsf,
        lsf_scale=lsf_scale,
        psf=None if said.psf_fwhm is None else _psf(said.psf_fwhm),
        meta=meta,
        notes=(*axis.notes, *unit_notes, *wcs_notes, *error_notes),
        error_floor=said.error_floor,
    )


def read_cube(
    path: str | Path,
    *,
    layout: GenericLayout | None = None,
    weight: str | Path | None = None,
    weight_kind: str = "inverse_variance",
    unit: u.UnitBase | str | None = None,
    medium: str | None = None,
) -> Cube:
    """Read any cube with a wavelength axis whole; see `layout` for the options.

    Returns
    -------
    Cube

    Raises
    ------
    FileFormatError, ShapeError, UnitError, InputError
        As `skyloom.io.cubes.files.open_cube`, and when no voxel is usable.
    """
    options: dict[str, Any] = {"weight": weight, "weight_kind": weight_kind, "unit": unit, "medium": medium}
    if layout is None:
        return read_whole(path, instrument="cube", **options)
    return read_whole(path, layout=layout, **options)


# ---------------------------------------------------------------------------------------------- extensions


def find_extension(file: FitsFile, key: str | int, role: str) -> int:
    """Return the number of an extension given by name or number.

    Raises
    ------
    FileFormatError
        When there is none; it lists those that are.
    """
    for number, hdu in enumerate(file):
        if number == key or (isinstance(key, str) and hdu.name == key.strip().upper()):
            return number
    known = ", ".join(f"{number} {hdu.name or 'PRIMARY'}" for number, hdu in enumerate(file))
    raise FileFormatError(
        f"there is no extension {key!r}", source=file.path, field=role, remedy=f"known: {known}"
    )


def science_extension(file: FitsFile, key: str | int | None = None) -> int:
    """Return the number of the extension with the data of a cube.

    Raises
    ------
    FileFormatError
        When there is no three-dimensional array, or the one that was named has other dimensions.
    """
    if key is not None:
        number = find_extension(file, key, "data")
        if len(file[number].shape) != 3:
            raise FileFormatError(
                f"extension {key!r} has {len(file[number].shape)} dimensions; a cube has 3",
                source=file.path,
                field="data",
            )
        return number
    cubes = [number for number, hdu in enumerate(file) if hdu.is_image and len(hdu.shape) == 3]
    candidates = [number for number in cubes if not error_kind_of(file[number].name)]
    if not candidates:
        found = ", ".join(f"{hdu.name or 'PRIMARY'} {len(hdu.shape)}-d" for hdu in file)
        raise FileFormatError(
            f"there is no three-dimensional array of data in this file (extensions: {found})",
            source=file.path,
            field="data",
        )
    for name in _SCIENCE_NAMES:
        for number in candidates:
            if file[number].name == name:
                return number
    return candidates[0]


def error_extension(
    file: FitsFile,
    data: int,
    key: str | int | None = None,
    kind: str | None = None,
    weight: str | Path | None = None,
    weight_kind: str = "inverse_variance",
) -> tuple[int, str, Path | None]:
    """Return number and kind of the errors, and their file where it is another one.

    Parameters
    ----------
    file : FitsFile
    data : int
        Number of the extension with the data.
    key, kind : str or int, str, optional
        What the user says of the errors in this file.
    weight, weight_kind : path, str
        What the user says of the errors in another file.

    Raises
    ------
    FileFormatError
        When there are none.
    InputError
        When their kind is unknown.
    """
    if weight is not None:
        if weight_kind not in _WEIGHT_KINDS:
            raise InputError(
                f"weight_kind is {weight_kind!r}",
                field="weight_kind",
                remedy=f"use one of {', '.join(_WEIGHT_KINDS)}",
            )
        with open_fits(weight) as other:
            number = _errors_in(other, file[data].shape, key)
        if number is None:
            raise missing_errors(Path(weight))
        return number, _WEIGHT_KINDS[weight_kind], Path(weight)
    if key is not None:
        found: int | None = find_extension(file, key, "error")
    else:
        claimed = [n for n, hdu in enumerate(file) if hdu.is_image and error_kind_of(hdu.name) and n != data]
        same = [n for n in claimed if file[n].shape == file[data].shape]
        found = next(iter(same or [n for n in claimed if len(file[n].shape) == 3]), None)
    if found is None:
        raise missing_errors(file.path)
    kind = kind or error_kind_of(file[found].name)
    if not kind:
        raise InputError(
            f"the name of the extension {file[found].name!r} does not say what kind of errors it holds",
            source=file.path,
            field="error_kind",
            remedy="say error_kind: variance, sigma or inverse_variance",
        )
    return found, kind, None


def _error_notes(data: Hdu, errors: Hdu, kind: str) -> tuple[str, ...]:
    """Return a note where the scatter of the data shows that errors are not what the name of their extension says."""
    if data.shape != errors.shape:
        return ()
    values, stretch = sample_channels(data, _SAMPLE_BYTES)
    sigma, _ = sample_channels(errors, _SAMPLE_BYTES)
    if values.dtype.kind != "f" or values.shape != sigma.shape:
        return ()
    best, ratios = best_kind(values, sigma, axis=0, stretch=stretch)
    ratio = ratios[kind]
    if not best or best == kind or not np.isfinite(ratio) or 1 / PLAUSIBLE < ratio < PLAUSIBLE:
        return ()
    shown = best.replace("_", " ")
    return (
        f"{errors.name} is read as {kind.replace('_', ' ')}, but the data scatter by {ratio:.3g} of that; it looks like"
        f" the {shown} (error_kind: {best})",
    )


def _errors_in(file: FitsFile, shape: tuple[int, ...], key: str | int | None) -> int | None:
    """Return which extension of a file of errors to take: the one asked for, of a good name, or of the right shape."""
    if key is not None:
        return find_extension(file, key, "error")
    cubes = [number for number, hdu in enumerate(file) if hdu.is_image and len(hdu.shape) == 3]
    named = [number for number in cubes if error_kind_of(file[number].name)]
    fitting = [number for number in cubes if file[number].shape == shape]
    return next(iter(named or fitting or cubes), None)


def _mask(file: FitsFile, data: int, said: GenericLayout) -> int | None:
    if said.mask is not None:
        return find_extension(file, said.mask, "mask")
    shape = file[data].shape
    for name in _MASK_NAMES:
        for number, hdu in enumerate(file):
            if hdu.name == name and hdu.is_image and hdu.shape in (shape, shape[1:]):
                return number
    return None


# ---------------------------------------------------------------------------------------- what they mean


def _wave(file: FitsFile, hdu: Hdu, said: GenericLayout, medium: str | None) -> WaveAxis:
    size = hdu.shape[0]
    if said.wave is None and said.wave_start is None:
        if medium is not None:
            check_medium(medium)
        return header_wave(hdu, 3, size, medium=medium, unit=said.wave_unit)
    if said.wave_start is not None and said.wave_step is not None:
        unit = u.AA if said.wave_unit is None else said.wave_unit
        wave = sampled_wave(said.wave_start, said.wave_step, size, sampling=said.wave_sampling, unit=unit)
    else:
        wave = table_wave(file, said.wave or 0, size, sampling=said.wave_sampling, unit=said.wave_unit)
    if medium is None:
        raise InputError(
            "the medium of the wavelengths is not known",
            field="medium",
            remedy='say medium: "air" or "vacuum"',
        )
    check_medium(medium)
    return WaveAxis(wave, medium, ())


def _unit(
    file: FitsFile, data: int, unit: u.UnitBase | str | None
) -> tuple[u.UnitBase, float, tuple[str, ...]]:
    """Return the unit, the factor that brings the array to it, and notes.

    The square of a flux density in plain cgs units is near the smallest number that float32 knows; a power of ten
    moves from the numbers into the unit.
    """
    chosen, notes = unit_of(file[data], file[0].header, unit)
    middle = file[data].section(slice(file[data].shape[0] // 2, file[data].shape[0] // 2 + 1))
    sizes = np.abs(middle[np.isfinite(middle) & (middle != 0)]).astype(np.float64)
    if not sizes.size or 1e-12 < (typical := float(np.median(sizes))) < 1e12:
        return chosen, 1.0, notes
    power = int(np.floor(np.log10(typical)))
    return u.Unit(10.0**power * chosen), 10.0**-power, notes


def _lsf(file: FitsFile, said: GenericLayout, wave: Float) -> tuple[float | Float | int | None, float]:
    """Return the line-spread function as `CubeLayout` has it, and its scale."""
    if said.lsf is None:
        return None, 1.0
    if not isinstance(said.lsf, str):
        return _sigma(np.full(wave.size, float(said.lsf)), said.lsf_kind, wave), 1.0
    number = find_extension(file, said.lsf, "lsf")
    if len(file[number].shape) == 1:
        widths = np.asarray(file[number].array(), dtype=np.float64)
        if widths.size != wave.size:
            raise FileFormatError(
                f"the extension {said.lsf!r} has {widths.size} values; the cube has {wave.size} channels",
                field="lsf",
            )
        return _sigma(widths, said.lsf_kind, wave), 1.0
    if said.lsf_kind == "resolution":
        raise InputError(
            "a resolving power per voxel is not read",
            field="lsf_kind",
            remedy="give the width in A (fwhm or sigma)",
        )
    return number, 1.0 if said.lsf_kind == "sigma" else 1.0 / FWHM_PER_SIGMA


def _sigma(widths: Float, kind: str, wave: Float) -> Float:
    if not np.all(widths > 0):
        raise InputError(f"the line-spread function has the width {np.min(widths):g}", field="lsf")
    scale = {"sigma": 1.0, "fwhm": 1.0 / FWHM_PER_SIGMA, "resolution": 1.0 / FWHM_PER_SIGMA}[kind]
    return np.asarray(scale * (wave / widths if kind == "resolution" else widths))


def _psf(fwhm: float) -> PSF:
    return GaussianPSF(fwhm)
