"""Put an image on another pixel grid, with its variance, noise correlation, mask, flags, shared errors and
PSF.

================  ====================================  ====================================
method            value of a target pixel               default for
================  ====================================  ====================================
``"lanczos3"``    6 x 6 pixels around its centre,       grids of like scale, or finer
                  windowed sinc, weights sum to 1
``"area"``        mean over the exact overlap with      pixels more than 1.2 x coarser
                  the source pixels
``"bilinear"``    2 x 2 pixels around its centre        (on request)
================  ====================================  ====================================

Identical grids and shifts by whole pixels are copies. ``docs/design/resampling.md`` argues the choices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.geometry import pixel_matrix
from skyloom.core.image import Image, Mode
from skyloom.core.noise import resample_correlation
from skyloom.core.provenance import Step, step
from skyloom.core.threads import blocks, run_blocks
from skyloom.core.units import adds_up
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.grids.pixel_map import PixelMap, pixel_map
from skyloom.imaging.psfs.resampled_psf import resampled_psf

__all__ = ["COARSER", "MASKED_SHARE", "METHODS", "Planes", "pixel_variance", "reproject", "resample_planes"]

Array = NDArray[Any]
METHODS = ("auto", "lanczos3", "area", "bilinear")
COARSER = 1.2
"""Steps longer than this, in source pixels, are averaged over ("area") and not sampled ("lanczos3")."""
MASKED_SHARE = {"lanczos3": 0.1, "bilinear": 0.5, "area": 0.5}
"""Largest share of a pixel's (absolute) weight that may be masked; what is used with less is flagged."""
WHOLE = 1e-4
"""Pixels by which a shift may differ from a whole number and still be a copy."""
TAPS = {"lanczos3": 6, "bilinear": 2}
PART = 1 << 20
"""Pixels of the target that a thread takes at a time."""

Target = Image | tuple[WCS, tuple[int, int]]


class Planes(NamedTuple):
    """What one pass of a kernel makes."""

    data: Array
    variance: Array
    mask: NDArray[np.bool_]
    flags: NDArray[np.uint16] | None


def reproject(image: Image, target: Target, method: str = "auto") -> Image:
    """Resample ``image`` onto the grid of ``target``.

    Parameters
    ----------
    image : Image
    target : Image or (WCS, (ny, nx))
        Grid of the result.
    method : {"auto", "lanczos3", "area", "bilinear"}
        See the module; "auto" chooses by the scale of the two grids.

    Returns
    -------
    Image
        In the unit of ``image``. A flux per pixel is multiplied by the local ratio of the pixel areas, a
        surface brightness is not. Lanczos weights are partly negative: next to saturated or undersampled
        stars the result rings, and nothing is clamped.

        Pixels whose stencil leaves the image are masked. Masked source pixels are left out and the remaining
        weights renormalised as long as the masked ones carry at most `MASKED_SHARE` of the absolute weight
        (such pixels get the flag LOW_COVERAGE); beyond that the result is masked. Masked results are NaN.

    Raises
    ------
    InputError
        When ``method`` is unknown, a WCS is missing, or the grids do not overlap.

    Notes
    -----
    Variance: ``v' = g P(v)`` with the noise gain g and the correlation of
    `skyloom.core.noise.resample_correlation` at the centre of the target, averaged over the sub-pixel phases
    that occur. P interpolates bilinearly (or averages over the overlap), never with negative weights. For a
    flux per pixel it is multiplied by the squared ratio of areas, and where masked pixels are missing by the
    factor that they cost for independent noise. For the variance of single pixels see `pixel_variance`.
    """
    wcs, shape = _grid(target)
    if method not in METHODS:
        raise InputError(f"method is {method!r}", field="method", remedy=f"use one of {', '.join(METHODS)}")
    if wcs is image.wcs and shape == image.shape:
        return image.evolve(step("reproject", method="copy", shift=[0, 0]))
    chart, method = _chart(image, wcs, shape, method)
    shift = chart.whole_shift(WHOLE)
    if shift is not None:
        return _copied(image, wcs, shape, shift)
    correlation, gain = resample_correlation(method, chart.matrix, image.correlation, chart.phases())
    per_pixel = adds_up(image.unit)
    result = resample_planes(image, chart, shape, method, gain, per_pixel)
    masked = int(np.count_nonzero(result.mask))
    if masked == result.mask.size:
        raise InputError(
            "no pixel of the target is covered by usable pixels of the image",
            field="wcs",
            remedy="check the WCS and the mask of the image",
        )
    return Image(
        result.data,
        result.variance.astype(image.variance.dtype, copy=False),
        result.mask,
        image.unit,
        wcs,
        psf=_psf(image, wcs, shape, method),
        correlation=correlation,
        flags=result.flags,
        modes=tuple(_mode(mode, image, chart, shape, method, per_pixel) for mode in image.modes),
        meta=dict(image.meta),
        history=(*image.history, _record(image, chart, method, gain, masked)),
    )


def pixel_variance(image: Image, target: Target, method: str = "auto") -> NDArray[np.float64]:
    """Return the exact variance of every single pixel that `reproject` makes.

    It differs from the result's ``variance`` by the sub-pixel phase of each pixel (bilinear: by factors of
    0.5 to 2). It is right for one pixel at a time; sums and further steps use the plane of the result.

    Parameters
    ----------
    image, target, method
        As for `reproject`.

    Returns
    -------
    (ny, nx) float64 array, in unit**2
        NaN where the result is masked.
    """
    from skyloom.kernels.images import pixel_variance as kernel
    from skyloom.kernels.images.resample import kernel_table

    wcs, shape = _grid(target)
    result = reproject(image, target, method)
    last = result.history[-1].parameters["method"]
    if last == "copy":
        return np.where(result.mask, np.nan, result.variance).astype(np.float64)
    chart, method = _chart(image, wcs, shape, str(last))
    deviation = np.zeros(image.shape)
    np.sqrt(image.variance, out=deviation, where=~image.mask)
    rho = np.ones((1, 1)) if image.correlation is None else image.correlation
    table = np.empty((0, 0, 0)) if method == "area" else kernel_table(TAPS[method])
    exact = np.full(shape, np.nan)
    kernel.pixel_variance(
        deviation,
        _plain(image.mask),
        _plain(rho),
        table,
        chart.coefficients,
        chart.grid,
        chart.dense,
        chart.window,
        adds_up(image.unit),
        result.mask,
        exact,
    )
    return exact


def _grid(target: Target) -> tuple[WCS, tuple[int, int]]:
    """Return WCS and shape of a target after checking them."""
    if isinstance(target, Image):
        wcs, shape = target.wcs, target.shape
    else:
        try:
            wcs, (ny, nx) = target
            shape = (int(ny), int(nx))
        except (TypeError, ValueError) as error:
            raise ShapeError("the target is neither an Image nor (wcs, (ny, nx))", field="target") from error
    if min(shape) < 1:
        raise ShapeError(f"the target has shape {shape}; expected at least one pixel", field="target")
    if wcs is None:
        raise InputError("the target has no WCS", field="target", remedy="give it one")
    return wcs, shape


def _chart(image: Image, wcs: WCS, shape: tuple[int, int], method: str) -> tuple[PixelMap, str]:
    """Map the target's pixels into the image and settle the method."""
    chart = pixel_map(image.wcs, image.shape, wcs, shape, corners=method in ("area", "auto"))
    if method == "auto":
        method = "area" if chart.coarseness > COARSER else "lanczos3"
        if chart.dense.size and method != "area":
            chart = pixel_map(image.wcs, image.shape, wcs, shape)
    return chart, method


def _copied(image: Image, wcs: WCS, shape: tuple[int, int], shift: tuple[int, int]) -> Image:
    """Move whole pixels: target (x, y) is source (x + shift x, y + shift y)."""
    record = step("reproject", method="copy", shift=list(shift))
    if shift == (0, 0) and shape == image.shape:
        return image.evolve(record, wcs=wcs)
    (y_to, y_from), (x_to, x_from) = (
        _common(shape[axis], image.shape[axis], shift[1 - axis]) for axis in (0, 1)
    )

    def moved(plane: Array, outside: Any) -> Array:
        copy = np.full(shape, outside, dtype=plane.dtype)
        copy[y_to, x_to] = plane[y_from, x_from]
        return copy

    mask = moved(image.mask, True)
    if mask.all():
        raise InputError(
            "no pixel of the target is covered by usable pixels of the image",
            field="wcs",
            remedy="check the WCS and the mask of the image",
        )
    return image.evolve(
        record,
        data=moved(image.data, np.nan),
        variance=moved(image.variance, np.nan),
        mask=mask,
        wcs=wcs,
        flags=None if image.flags is None else moved(image.flags, 0),
        modes=tuple(
            mode._replace(map=moved(np.asarray(mode.map), 0.0)) if np.ndim(mode.map) else mode
            for mode in image.modes
        ),
    )


def _common(target: int, source: int, shift: int) -> tuple[slice, slice]:
    start, stop = max(0, -shift), max(0, min(target, source - shift))
    stop = max(start, stop)
    return slice(start, stop), slice(start + shift, stop + shift)


def _plain(array: Array, dtype: Any = None) -> Array:
    """Return a contiguous, writeable array: the one kind that the kernels are compiled for."""
    return np.require(array, dtype=dtype, requirements=["C", "W"])


def resample_planes(
    image: Image, chart: PixelMap, shape: tuple[int, int], method: str, gain: float, per_pixel: bool
) -> Planes:
    """Run the kernel over data, variance, mask and flags.

    Parameters
    ----------
    image : Image
    chart : PixelMap
        Where the pixels of the result lie in the image.
    shape : (ny, nx)
        Of the result.
    method : {"lanczos3", "bilinear", "area"}
    gain : float
        Factor on the variance.
    per_pixel : bool
        Whether to multiply by the ratio of the pixel areas.
    """
    kind = image.data.dtype
    has_masked = bool(image.mask.any())
    carries_flags = image.flags is not None or has_masked
    flags = np.empty((0, 0), np.uint16) if image.flags is None else _plain(image.flags)
    out_flags = np.zeros(shape if carries_flags else (0, 0), np.uint16)
    planes = _run(
        _plain(image.data),
        _plain(image.variance, kind),
        _plain(image.mask),
        flags,
        chart,
        shape,
        method,
        np.array([gain, MASKED_SHARE[method], float(per_pixel)]),
        out_flags,
    )
    kept = out_flags if image.flags is not None or out_flags.any() else None
    return planes._replace(flags=kept)


def _run(
    data: Array,
    variance: Array,
    mask: NDArray[np.bool_],
    flags: NDArray[np.uint16],
    chart: PixelMap,
    shape: tuple[int, int],
    method: str,
    limits: NDArray[np.float64],
    out_flags: NDArray[np.uint16],
) -> Planes:
    # Numba is loaded when pixels are really resampled, not when the package is imported.
    from skyloom.kernels.images.overlap import overlap
    from skyloom.kernels.images.resample import interpolate, kernel_table

    window = chart.window
    whole = (int(window[1] - window[0]), int(window[3] - window[2])) == shape
    out_data = np.empty(shape, data.dtype) if whole else np.full(shape, np.nan, data.dtype)
    out_variance = np.full(shape if variance.size else (0, 0), np.nan, data.dtype)
    out_mask = np.ones(shape, bool)
    outputs = (out_data, out_variance, out_mask, out_flags)
    taps = TAPS.get(method, 0)
    touched = _touched(mask, taps) if taps and mask.any() else mask

    def work(rows: slice) -> None:
        part = window.copy()
        part[:2] = rows.start + window[0], rows.stop + window[0]
        places = (chart.coefficients, chart.grid, chart.dense, part, limits)
        if method == "area":
            overlap(data, variance, mask, flags, *places, *outputs)
        else:
            interpolate(data, variance, mask, touched, flags, kernel_table(taps), *places, *outputs)

    height = int(window[1] - window[0])
    # Positions that no polynomial describes are stored for the window as a whole.
    step_size = height if chart.dense.size else max(1, PART // max(1, int(window[3] - window[2])))
    run_blocks(work, blocks(height, step_size))
    return Planes(out_data, out_variance, out_mask, None)


def _touched(mask: NDArray[np.bool_], taps: int) -> NDArray[np.bool_]:
    """Tell for every pixel whether the stencil of ``taps`` x ``taps`` pixels that starts there is masked
    anywhere.

    Running ORs of doubling length over the flat array; stencils that leave the image, whose answers wrap
    around, are never asked for.
    """
    touched = mask.ravel().copy()
    for stride in (1, mask.shape[1]):
        length = 1
        while length < taps:
            reach = min(length, taps - length)
            head, tail = touched[: -reach * stride], touched[reach * stride :]
            np.logical_or(head, tail, out=head)
            length += reach
    return touched.reshape(mask.shape)


def _mode(
    mode: Mode, image: Image, chart: PixelMap, shape: tuple[int, int], method: str, per_pixel: bool
) -> Mode:
    """Carry a shared error along: it is resampled like the data it adds to."""
    if np.ndim(mode.map) == 0:
        if not per_pixel:
            return mode
        if _has_even_area(chart):
            return mode._replace(map=float(mode.map) * chart.scale**2)
    kind = image.data.dtype
    values = np.ascontiguousarray(np.broadcast_to(np.asarray(mode.map, kind), image.shape))
    none = np.empty((0, 0), kind)
    limits = np.array([1.0, MASKED_SHARE[method], float(per_pixel)])
    no_flags = np.empty((0, 0), np.uint16)
    planes = _run(_plain(values), none, _plain(image.mask), no_flags, chart, shape, method, limits, no_flags)
    return mode._replace(map=np.where(planes.mask, 0.0, planes.data).astype(kind))


def _has_even_area(chart: PixelMap) -> bool:
    """Tell whether the ratio of the pixel areas is the same everywhere to 1e-4."""
    areas = chart.coefficients[2, :, :, 0, 0]
    return chart.dense.size == 0 and float(np.ptp(areas)) < 1e-4 * float(areas.mean())


def _psf(image: Image, wcs: WCS, shape: tuple[int, int], method: str) -> Any:
    if image.psf is None:
        return None
    return resampled_psf(image.psf, image.pixel_matrix, pixel_matrix(wcs, shape), method)


def _record(image: Image, chart: PixelMap, method: str, gain: float, masked: int) -> Step:
    return step(
        "reproject",
        method=method,
        scale=chart.scale,
        rotation=chart.rotation,
        source_shape=list(image.shape),
        masked_pixels=masked,
        noise_gain=gain,
        position_error=chart.error,
    )
