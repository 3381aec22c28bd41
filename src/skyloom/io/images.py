"""Two-dimensional FITS images with a weight map, whatever telescope they come from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.geometry import same_grid
from skyloom.core.image import Image
from skyloom.core.provenance import step
from skyloom.core.units import parse_unit
from skyloom.errors import (
    AssumptionWarning,
    FileFormatError,
    InputError,
    RepairWarning,
    ShapeError,
    UnitError,
)
from skyloom.io.formats.files import FitsFile, Hdu, Header, open_fits
from skyloom.io.formats.headers import parse_bunit, wcs_from_header

__all__ = ["WEIGHT_KINDS", "find_image", "noise_scale", "read_image", "sniff"]

Array = NDArray[Any]
WEIGHT_KINDS = ("inverse_variance", "rms", "exposure", "variance")
_SCIENCE_NAMES = ("SCI", "DATA")
_WEIGHT_NAMES = {
    "inverse_variance": ("WHT", "IVAR", "IVM", "WEIGHT"),
    "rms": ("RMS", "ERR", "ERROR", "WHT"),
    "exposure": ("WHT", "EXP", "EXPOSURE"),
    "variance": ("STAT", "VAR", "VARIANCE"),
}
_LAG = 7  # Pixels; beyond the reach of the correlation that drizzling makes, within that of background gradients.
_LAG_SAMPLES = 1_000_000
_STRIPE = 1 << 17  # Pixels worked on at a time: what is made of them on the way stays in the cache.


def sniff(file: FitsFile) -> bool:
    """Tell whether a file has a two-dimensional image of numbers with a unit, and no cube."""
    if any(hdu.is_image and len(hdu.shape) > 2 for hdu in file):
        return False
    hdu = find_image(file, _SCIENCE_NAMES)
    return hdu is not None and hdu.is_float and "BUNIT" in hdu.header


def find_image(file: FitsFile, names: tuple[str, ...]) -> Hdu | None:
    """Return the first two-dimensional image HDU with one of ``names``, else the first of any name, else None."""
    flat = [hdu for hdu in file if hdu.is_image and len(hdu.shape) == 2]
    for name in names:
        for hdu in flat:
            if hdu.name == name:
                return hdu
    return flat[0] if flat else None


class _Plane(NamedTuple):
    """One image of a file and what stands around it."""

    path: Path
    data: Array
    header: Header
    primary: Header
    wcs: WCS | None
    notes: tuple[str, ...]
    sha256: str


def read_image(
    path: str | Path,
    *,
    weight: str | Path | None = None,
    weight_kind: str = "inverse_variance",
    unit: u.UnitBase | str | None = None,
    band: str | None = None,
) -> Image:
    """Read any two-dimensional image with a weight map.

    Parameters
    ----------
    path : str or path
        File of the image; the extension SCI or DATA, or else the first two-dimensional one.
    weight : str or path, optional
        File of the weight map; by default an extension (WHT, IVAR, RMS, ERR ...) of the same file.
    weight_kind : {"inverse_variance", "rms", "exposure", "variance"}
        What the weight map holds. An exposure map says how the noise varies and not how large it is: the variance
        is taken as c / exposure, with c from the scatter of the empty sky, and an `AssumptionWarning` says so.
    unit : unit or str, optional
        Unit of the data, needed where the header has none.
    band : str, optional
        Name of the band, where the header does not say.

    Returns
    -------
    Image
        Pixels without a finite value or a positive, finite weight are masked.

    Raises
    ------
    FileFormatError
        When a file is missing, truncated or holds no image.
    ShapeError
        When image and weight differ in shape.
    UnitError
        When there is no unit, or it cannot be read.
    InputError
        When there is no weight map, no usable pixel, or the weight map lies elsewhere on the sky.
    """
    known = {"band": band} if band else {}
    return assemble(path, weight, weight_kind, unit, lambda *_: dict(known), "read_image")


def assemble(
    path: str | Path,
    weight: str | Path | None,
    weight_kind: str,
    unit: u.UnitBase | str | None,
    describe: Callable[[Header, Header], dict[str, Any]],
    reader: str,
) -> Image:
    """Read image and weight, and put them together; ``describe`` makes `meta` of the headers."""
    if weight_kind not in WEIGHT_KINDS:
        raise InputError(
            f"weight_kind is {weight_kind!r}",
            field="weight_kind",
            remedy=f"use one of {', '.join(WEIGHT_KINDS)}",
        )
    science, companion = _read_planes(Path(path), weight, weight_kind)
    if companion.data.shape != science.data.shape:
        raise ShapeError(
            f"{science.path} has shape {science.data.shape}, its weight {companion.path} has {companion.data.shape}",
            remedy="give the weight map of this image",
        )
    _check_same_sky(science, companion)
    data_unit = _data_unit(science, unit)
    try:
        variance, mask = _variance(science.data, companion.data, weight_kind, companion.path)
    except InputError as error:
        raise error.located(science.path) from None
    meta = describe(science.primary, science.header)
    meta |= {"path": str(science.path), "sha256": science.sha256, "weight_kind": weight_kind}
    meta |= {"weight_path": str(companion.path), "weight_sha256": companion.sha256}
    if science.notes:
        meta["wcs_notes"] = list(science.notes)
    done = step(
        reader,
        path=str(science.path),
        sha256=science.sha256,
        weight_path=str(companion.path),
        weight_sha256=companion.sha256,
        weight_kind=weight_kind,
        masked=int(np.count_nonzero(mask)),
    )
    return Image(science.data, variance, mask, data_unit, science.wcs, meta=meta, history=(done,))


def _read_planes(path: Path, weight: str | Path | None, weight_kind: str) -> tuple[_Plane, _Plane]:
    names = _WEIGHT_NAMES[weight_kind]
    with open_fits(path) as file:
        science = _plane(file, _SCIENCE_NAMES)
        if weight is None:
            companion = find_image(file, names)
            if companion is None or companion.name not in names:
                raise _no_weight(path, names)
            return science, _plane(file, names)
    with open_fits(weight) as file:
        return science, _plane(file, names)


def _no_weight(path: Path, names: tuple[str, ...]) -> InputError:
    sibling = path.with_name(path.name.replace("_sci", "_wht"))
    hint = f" (there is {sibling})" if sibling != path and sibling.exists() else ""
    return InputError(
        f"the file has no weight map (no extension {', '.join(names)})",
        source=path,
        field="weight",
        remedy=f"pass weight=<file>{hint}",
    )


def _plane(file: FitsFile, names: tuple[str, ...]) -> _Plane:
    hdu = find_image(file, names)
    if hdu is None:
        raise FileFormatError("there is no two-dimensional image in this file", source=file.path)
    if names is _SCIENCE_NAMES and str(hdu.header.get("FILETYPE") or "").strip() == "WHT":
        raise InputError(
            "the header says that this is a weight map (FILETYPE)",
            source=file.path,
            remedy="give the image first, and this file as weight=...",
        )
    data = hdu.array()
    try:
        wcs, notes = wcs_from_header(hdu.header, data.shape)
    except InputError as error:
        raise error.located(file.path) from None
    if data.dtype.kind != "f":
        data = data.astype(np.float64)
    return _Plane(file.path, data, hdu.header, file[0].header, wcs, notes, file.sha256)


def _check_same_sky(science: _Plane, companion: _Plane) -> None:
    """Refuse a weight map of another place; half a pixel allows for the distortion terms that some headers keep."""
    first, second = science.wcs, companion.wcs
    if first is None or second is None or first.wcs.compare(second.wcs):
        return
    if not same_grid(
        _undistorted(first), science.data.shape, _undistorted(second), companion.data.shape, 0.5
    ):
        raise InputError(
            f"the weight map {companion.path} lies on another part of the sky than the image",
            source=science.path,
            field="weight",
            remedy="give the weight map of this image",
        )


def _undistorted(wcs: WCS) -> WCS:
    if wcs.sip is None:
        return wcs
    plain = wcs.deepcopy()
    plain.sip = None
    return plain


def _data_unit(science: _Plane, unit: u.UnitBase | str | None) -> u.UnitBase:
    written = str(science.header.get("BUNIT", "")).strip()
    if unit is None:
        if not written:
            raise UnitError(
                "the header says no unit",
                source=science.path,
                field="BUNIT",
                remedy='pass unit="electron/s", or what it is',
            )
        try:
            return parse_bunit(written)
        except UnitError as error:
            raise error.located(science.path) from None
    chosen = parse_unit(unit)
    if written and not _means(written, chosen):
        warnings.warn(
            f"{science.path}: BUNIT says {written!r}; taken as {chosen}, as asked",
            AssumptionWarning,
            stacklevel=4,
        )
    return chosen


def _means(written: str, unit: u.UnitBase) -> bool:
    try:
        return bool(parse_bunit(written) == unit)
    except UnitError:
        return False


# -------------------------------------------------------------------------------------- from weight to variance


def _variance(data: Array, weight: Array, kind: str, path: Path) -> tuple[Array, NDArray[np.bool_]]:
    """Return variance and mask; masked pixels have variance NaN."""
    finite = np.isfinite(data)
    if not finite.any():
        raise InputError("every pixel is NaN or infinite", remedy="check how the image was made")
    usable = weight > 0
    usable &= np.isfinite(weight)
    if not usable.any():
        raise InputError(
            f"no pixel of the weight map {path} is positive and finite",
            field="weight",
            remedy="check that it is a weight map of this image, and weight_kind",
        )
    negative = int(np.count_nonzero(weight < 0))
    if negative:
        warnings.warn(
            f"{path}: {negative} pixels have a negative weight; masked", RepairWarning, stacklevel=5
        )
    usable &= finite
    if not usable.any():
        raise InputError(f"no pixel has both a finite value and a positive weight in {path}", field="weight")
    factor = 1.0
    if kind == "exposure":
        factor = _exposure_factor(data, _filled(weight, usable, kind, 1.0, np.float64)[0], usable, path)
    if data.dtype == np.float32:
        variance, lowest, highest = _filled(weight, usable, kind, factor, np.float32)
        limits = np.finfo(np.float32)
        if lowest >= 10 * limits.tiny and highest <= limits.max / 10:
            return variance, ~usable
    # In float32 some would lose digits or range.
    return _filled(weight, usable, kind, factor, np.float64)[0], ~usable


def _filled(
    weight: Array, usable: NDArray[np.bool_], kind: str, factor: float, dtype: type[np.floating[Any]]
) -> tuple[Array, float, float]:
    """Return the variance, its smallest and its largest value; what has none is taken out of ``usable``.

    Some rows at a time in float64, so that nothing as large as the image is made on the way.
    """
    variance = np.full(weight.shape, np.nan, dtype)
    lowest, highest = np.inf, 0.0
    step_size = max(1, _STRIPE // max(1, weight[:1].size))
    for start in range(0, weight.shape[0], step_size):
        rows = slice(start, start + step_size)
        good = usable[rows]
        whole = bool(good.all())
        values = (weight[rows] if whole else weight[rows][good]).astype(np.float64)
        if kind == "rms":
            values *= values
        elif kind != "variance":
            np.divide(1.0, values, out=values)
        values *= factor
        fine = (values > 0) & (values < np.inf)
        if not fine.all():
            good[good] = fine.ravel()
            values, whole = values[fine], False
        if values.size:
            lowest, highest = min(lowest, float(values.min())), max(highest, float(values.max()))
        with np.errstate(over="ignore", under="ignore"):  # The caller looks at the range.
            variance[rows][... if whole else good] = values
    return variance, lowest, highest


def _exposure_factor(data: Array, relative: Array, usable: NDArray[np.bool_], path: Path) -> float:
    factor = noise_scale(data, relative, ~usable)
    if not 0 < factor < np.inf:
        raise InputError(
            f"the noise cannot be measured from the image (scatter {factor:g}) to scale the exposure map {path}",
            field="weight_kind",
            remedy="give a weight map that holds the inverse variance or the rms",
        )
    warnings.warn(
        f"{path}: an exposure map does not say how large the noise is; variance taken as {factor:.4g} / exposure,"
        " from the scatter of the empty sky",
        AssumptionWarning,
        stacklevel=6,
    )
    return factor


def noise_scale(
    data: Array, variance: Array, mask: NDArray[np.bool_], axes: tuple[int, ...] = (-2, -1), lag: int = _LAG
) -> float:
    """Return the factor that brings ``variance`` to the scatter of the empty sky.

    The scatter is that of differences between pixels ``lag`` apart: far enough to be independent in drizzled images,
    near enough for gradients of the sky to cancel. Differences in units of their claimed error are clipped at three
    standard deviations (from the median absolute value) until sources are out.

    Parameters
    ----------
    data, variance, mask : arrays of one shape
        Masked pixels are left out.
    axes : tuple of int
        Along which to take differences; both axes of an image, the spectral one of a cube.
    lag : int
        Distance of the pixels, at most half of the axis.

    Returns
    -------
    float
        1 when the variance is right; NaN when fewer than ten pairs of pixels are usable.
    """
    stride = max(1, int(np.ceil(data.size / _LAG_SAMPLES)))
    collected = []
    for axis in axes:
        step_size = min(lag, data.shape[axis] // 2)
        if step_size == 0:
            continue
        # Moving the axis to the front, every stride-th start is a fair sample of a large array.
        planes = (np.moveaxis(plane, axis, 0) for plane in (data, variance, mask))
        ahead, behind = zip(*((p[step_size::stride], p[:-step_size:stride]) for p in planes), strict=True)
        good = ~(ahead[2] | behind[2])
        difference = ahead[0][good].astype(np.float64) - behind[0][good]
        expected = ahead[1][good].astype(np.float64) + behind[1][good]
        collected.append(np.abs(difference) / np.sqrt(expected))
    deviation = np.concatenate(collected) if collected else np.zeros(0)
    return _clipped_variance(deviation)


def _clipped_variance(deviation: Array, rounds: int = 5) -> float:
    """Variance of a normal distribution from absolute deviations, outliers clipped at three sigma."""
    if deviation.size < 10:
        return float("nan")
    sigma = 0.0
    for _ in range(rounds):
        sigma = 1.4826 * float(np.median(deviation))
        kept = deviation[deviation <= 3.0 * sigma]
        if kept.size in (deviation.size, 0):
            break
        deviation = kept
    return sigma**2
