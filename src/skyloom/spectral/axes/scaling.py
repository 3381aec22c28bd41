"""A cube or spectra times one factor per channel: what rest frame, dereddening and both together have in common."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.image import Mode
from skyloom.core.provenance import Step
from skyloom.core.spectra import Spectra
from skyloom.core.threads import blocks, run_blocks
from skyloom.errors import InputError
from skyloom.kernels.spectra.prepare import scale_channels

__all__ = ["Storage", "scale_subject"]

Subject = TypeVar("Subject", Cube, Spectra)
Storage = Literal["new", "reuse"]
Array = NDArray[Any]
Float = NDArray[np.float64]
BLOCK = 1 << 20  # Voxels of one piece of work: large beside the cost of handing it to a thread.


def scale_subject(
    subject: Subject, factor: Float, record: Step, *, storage: str = "new", **changes: Any
) -> Subject:
    """Return ``subject`` with data times ``factor``, variance times its square, and other ``changes``.

    Parameters
    ----------
    subject : Cube or Spectra
    factor : (n_wave,) float64 array
        Positive; one per channel.
    record : Step
    storage : {"new", "reuse"}
        Into new arrays, or over those of ``subject``, which is then spoilt.
    **changes
        Other fields of the result.

    Raises
    ------
    InputError
        When results leave the range of the floating-point type, or the arrays cannot be written over.
    """
    if not np.all(np.isfinite(factor)) or not np.all(factor > 0):
        worst = int(np.argmin(np.where(np.isfinite(factor), factor, -1.0)))
        raise InputError(
            f"the factor at {subject.wave[worst]:.1f} A is {factor[worst]}; it cannot be applied",
            field="data",
        )
    data, variance = _targets(subject, storage)
    if isinstance(subject, Cube):
        n_bad = _scale_planes(subject, factor, data, variance)
    else:
        n_bad = _scale_rows(subject, factor, data, variance)
    if n_bad:
        raise InputError(
            f"{n_bad} usable voxels leave the range of {variance.dtype} when they are scaled by up to "
            f"{factor.max():.4g}",
            field="variance",
            remedy='give a unit that brings the values near 1 ("1e-20 erg / (s cm2 AA)"), or float64 arrays',
        )
    column = factor[:, None, None] if isinstance(subject, Cube) else factor
    modes = tuple(_scaled_mode(mode, column, subject.data.shape) for mode in subject.modes)
    return subject.evolve_checked(record, data=data, variance=variance, modes=modes, **changes)


def _targets(subject: Cube | Spectra, storage: str) -> tuple[Array, Array]:
    if storage == "new":
        return np.empty_like(subject.data, order="C"), np.empty_like(subject.variance, order="C")
    if storage != "reuse":
        raise InputError(f"storage is {storage!r}; expected 'new' or 'reuse'", field="storage")
    for name, array in (("data", subject.data), ("variance", subject.variance)):
        if not (array.flags.writeable and array.flags.c_contiguous):
            raise InputError(
                f"the {name} cannot be written over: the array is read-only or a part of another one",
                field="storage",
                remedy='use storage="new"',
            )
    return subject.data, subject.variance


def _scale_planes(cube: Cube, factor: Float, data: Array, variance: Array) -> int:
    n_wave = cube.shape[0]

    def flat(array: Array) -> Array:
        return np.ascontiguousarray(array).reshape(n_wave, -1)

    source, spread, hidden = flat(cube.data), flat(cube.variance), flat(cube.mask)
    target, width = data.reshape(n_wave, -1), variance.reshape(n_wave, -1)

    def scale(part: slice) -> int:
        return int(
            scale_channels(source[part], spread[part], hidden[part], factor[part], target[part], width[part])
        )

    return sum(run_blocks(scale, blocks(n_wave, BLOCK // max(1, source.shape[1]))))


def _scale_rows(spectra: Spectra, factor: Float, data: Array, variance: Array) -> int:
    # Anything may lie under the mask; what is usable is tested here.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        np.multiply(spectra.data, factor.astype(data.dtype), out=data)
        np.multiply(spectra.variance, (factor**2).astype(variance.dtype), out=variance)
    usable = np.isfinite(data) & (variance > 0) & (variance < np.inf)
    return int(np.count_nonzero(~usable & ~spectra.mask))


def _scaled_mode(mode: Mode, column: Float, shape: tuple[int, ...]) -> Mode:
    """Scale a shared error like the data; a constant factor goes into its sigma, whatever its map is."""
    if np.all(column == column.flat[0]):
        return mode._replace(sigma=mode.sigma * float(column.flat[0]))
    if np.ndim(mode.map) == 0:
        # A view with strides of zero: no plane of the size of the cube for one number per channel.
        return mode._replace(map=np.broadcast_to(column * float(mode.map), shape))
    plane = np.asarray(mode.map)
    return mode._replace(map=plane * column.astype(plane.dtype))
