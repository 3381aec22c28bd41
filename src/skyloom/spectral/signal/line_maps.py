"""The maps that a measurement of a line ends in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.image import Flag, Image, Mode
from skyloom.core.provenance import step
from skyloom.errors import InputError
from skyloom.kernels.signal.weights import FEW_CONTINUUM, MEASURED, OUTSIDE, UNSEEN_LINE
from skyloom.spectral.signal.functional import Channels, Measurement, measure
from skyloom.spectral.signal.line_setup import LineSetup
from skyloom.spectral.signal.windows import LineWindows

__all__ = ["LineSNR", "line_images", "no_spaxel_left", "snr_images"]

Array = NDArray[Any]
Float = NDArray[np.float64]

ROUNDING = 1e-5
REASONS = {
    OUTSIDE: "their window lies outside the axis",
    UNSEEN_LINE: "too little of the line is on usable channels",
    FEW_CONTINUUM: "too few usable channels of continuum",
}


@dataclass(frozen=True, slots=True, eq=False)
class LineSNR:
    """Signal, noise and their ratio, each a map.

    Parameters
    ----------
    signal : Image
        With ``variance = noise**2`` and the spatial correlation of the cube.
    noise : Image
        Standard deviation of the signal. Its own variance is ``noise**2 / (2 n)``: as well as the scatter of the n
        channels that were used could tell it.
    snr : Image
        signal / noise; its variance is 1.
    method : str
        "window", "matched", "peak" or "continuum".
    windows : LineWindows or None
        Where it was measured, in rest wavelength.
    noise_claimed : Image or None
        Of a continuum: what the errors expect ``noise`` to be.
    """

    signal: Image
    noise: Image
    snr: Image
    method: str
    windows: LineWindows | None = None
    noise_claimed: Image | None = None


def no_spaxel_left(result: Measurement, windows: LineWindows) -> None:
    """Raise when nothing could be measured, naming why."""
    if np.any(result.status == MEASURED):
        return
    codes, counts = np.unique(result.status, return_counts=True)
    reasons = ", ".join(f"{REASONS[int(code)]} ({count})" for code, count in zip(codes, counts, strict=True))
    raise InputError(
        f"{' + '.join(windows.keys)} cannot be measured in any spaxel: {reasons}",
        field="line",
        remedy="check the redshift and the mask, or lower window_coverage or continuum_coverage",
    )


def line_images(
    cube: Cube,
    setup: LineSetup,
    channels: Channels,
    result: Measurement,
    degree: int,
    limits: tuple[float, float],
    parameters: dict[str, Any],
    workers: int | None,
) -> LineSNR:
    """Turn planes into maps with WCS, PSF, flags, shared errors and history."""
    shape = cube.shape[1:]
    good = (result.status == MEASURED) & (result.variance > 0) & np.isfinite(result.signal + result.variance)
    matched = parameters["method"] == "matched"
    modes = []
    for mode in cube.modes:
        plane = np.broadcast_to(np.asarray(mode.map, cube.data.dtype), cube.shape)[setup.channels]
        moved = measure(
            channels, setup.windows, setup.stretch, setup.sigma, matched=matched, degree=degree, limits=limits,
            workers=workers, data=np.ascontiguousarray(plane.reshape(plane.shape[0], -1)),
        )  # fmt: skip
        modes.append(Mode(mode.name, np.where(good, moved.signal, 0.0).reshape(shape), mode.sigma))
    flags = _flags(cube, setup, good & (result.coverage < 1.0 - ROUNDING))
    windows, middle = setup.windows, float(np.nanmedian(setup.stretch))
    length = float(np.diff(windows.line, axis=1).sum() + np.diff(windows.sides, axis=1).sum()) * middle
    count = length / float(np.median(np.diff(channels.edges)))
    observed = middle * float(np.average(windows.centres, weights=windows.wanted))
    return snr_images(
        cube, result.signal, np.sqrt(np.where(good, result.variance, 1.0)), good, cube.unit * u.AA,
        parameters, count=max(count, 1.0), wavelength=observed, windows=windows, flags=flags,
        modes=tuple(modes),
    )  # fmt: skip


def _flags(cube: Cube, setup: LineSetup, low: NDArray[np.bool_]) -> NDArray[np.uint16] | None:
    """Flags of the channels that were used, and LOW_COVERAGE where some of the line is missing."""
    if cube.flags is None and not low.any():
        return None
    flags = np.zeros(cube.shape[1:], np.uint16)
    if cube.flags is not None:
        used = np.where(cube.mask[setup.channels], 0, cube.flags[setup.channels])
        flags |= np.bitwise_or.reduce(used.astype(np.uint16), axis=0)
    flags[low.reshape(flags.shape)] |= np.uint16(Flag.LOW_COVERAGE)
    return flags


def snr_images(
    cube: Cube,
    signal: Float,
    noise: Float,
    good: NDArray[np.bool_],
    unit: u.UnitBase,
    parameters: dict[str, Any],
    *,
    count: float | Float,
    wavelength: float,
    windows: LineWindows | None = None,
    flags: NDArray[np.uint16] | None = None,
    modes: tuple[Mode, ...] = (),
    claimed: Float | None = None,
) -> LineSNR:
    """Make the maps of `LineSNR` from flat planes; ``count`` is the number of channels that were used."""
    shape = cube.shape[1:]
    mask = ~good.reshape(shape)
    wcs = cube.wcs if cube.wcs is None or cube.wcs.naxis == 2 else cube.wcs.celestial
    label = "+".join(windows.keys) if windows is not None else parameters.get("window")
    record = step("line_snr" if windows is not None else "continuum_snr", **parameters)

    def image(values: Float, variance: Float, of: u.UnitBase, what: str, **more: Any) -> Image:
        planes = (np.where(good, values, np.nan), np.where(good, variance, np.nan))
        return Image(
            planes[0].reshape(shape), planes[1].reshape(shape), mask, of, wcs,
            psf=None if cube.psf is None else cube.psf.at(wavelength),
            correlation=None if cube.correlation is None else cube.correlation.spatial,
            flags=flags,
            meta={**cube.meta, "line": label, "map": what},
            history=(*cube.history, record),
            **more,
        )  # fmt: skip

    safe = np.where(good, noise, 1.0)
    known = safe**2 / (2.0 * np.maximum(count, 1.0))
    return LineSNR(
        image(signal, safe**2, unit, "signal", modes=modes),
        image(safe, known, unit, "noise"),
        image(signal / safe, np.ones_like(safe), u.dimensionless_unscaled, "snr"),
        str(parameters["method"]),
        windows,
        None if claimed is None else image(claimed, known, unit, "noise_claimed"),
    )
