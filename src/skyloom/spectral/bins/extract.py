"""Spectra of regions: sums over spaxels, with the covariance of the sum.

``docs/design/cube_noise.md`` says what is assumed and what it is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core import geometry
from skyloom.core.cube import Cube
from skyloom.core.image import Flag, Mode
from skyloom.core.labels import NO_REGION, LabelMap, as_labels
from skyloom.core.provenance import step
from skyloom.core.spectra import Spectra
from skyloom.core.threads import blocks, run_blocks
from skyloom.core.units import area_unit, sum_unit
from skyloom.errors import InputError, ShapeError
from skyloom.kernels.bins.extract import join_flags, sum_planes, sum_spectra
from skyloom.spectral.axes.slabs import merge_slabs

__all__ = ["DEFAULT_COVERAGE", "extract_spectra", "merge_slabs"]

Array = NDArray[Any]
DEFAULT_COVERAGE = 0.75
ROUNDING = 1e-6  # Weights are summed in any order; a region is not incomplete for that.
BLOCK_CHANNELS = 16  # One cache line of float32 per region and block in the result.
BLOCK_BYTES = 8_000_000  # And no more than this for the sums of a block.
SAME_GRID = 0.01  # Labels may lie this far, in pixels, from the cube's spaxels.


@dataclass(frozen=True, slots=True, eq=False)
class _Regions:
    """The regions of a label map in the forms the kernels read."""

    ids: NDArray[np.int32]
    dense: NDArray[np.int32]  # (ny, nx), numbered from 0; -1: none
    runs: NDArray[np.int32]
    offsets: NDArray[np.int64]
    weight: NDArray[np.float64]  # (ny, nx)
    n_pixels: Array
    n_left_out: Array
    shares: Array  # (n,), the summed weight of each region


def extract_spectra(
    cube: Cube,
    labels: ArrayLike | LabelMap,
    *,
    mode: str = "sum",
    missing: str = "scale",
    coverage: float = DEFAULT_COVERAGE,
    usable: NDArray[np.bool_] | None = None,
    workers: int = 1,
) -> Spectra:
    """Extract one spectrum for each region.

    Parameters
    ----------
    cube : Cube
        Whole, or a slab of channels (then see `merge_slabs`).
    labels : (ny, nx) int array or LabelMap
        Region of each spaxel; negative: none.
    mode : {"sum", "mean"}
        "sum": the flux of the region (surface brightness times the area of each spaxel); "mean": its mean per spaxel
        (mean surface brightness), in the unit of the cube.
    missing : {"scale", "mask"}
        What happens to a channel in which some voxels of a region are masked. "scale": the others stand in for them,
        the sum is multiplied with f = (weight of the region) / (weight of its usable voxels), its variance with
        f**2, and the channel is flagged ``LOW_COVERAGE``. "mask": the channel is masked.
    coverage : float
        Smallest usable share of a region in (0, 1]; channels with less are masked.
    usable : (ny, nx) bool array, optional
        Spaxels that count; the others are left out of their regions, which then are smaller, not incomplete. For
        dead spaxels that labels from elsewhere may hold. None: all. Slabs of one cube need the same for each.
    workers : int
        Threads.

    Returns
    -------
    Spectra
        Row i belongs to the i-th label in ascending order, ``meta["labels"][i]``, with ``meta["n_pixels"][i]``
        spaxels. ``lsf``: root mean square over the usable voxels of the region (second moments add), the same for
        faint and bright ones; where a region has none, interpolated along wavelength. ``correlation``: the spectral
        one of the cube. Regions without any usable channel are masked rows, listed in ``meta["empty"]``.

    Raises
    ------
    ShapeError
        When labels or ``usable`` have another shape than the cube's spaxels.
    InputError
        When there is no region, the labels lie on another grid, surface brightness is to be summed without a WCS, or an
        option is none of the above.

    Notes
    -----
    Per channel, with r the area of a spaxel or 1 (divided by their sum for a mean)::

        data = sum_i r_i d_i
        variance = sum_ij r_i r_j sqrt(v_i v_j) rho(x_i - x_j)

    and each shared error (mode) keeps its sigma, its map becoming ``sum_i r_i map_i``. Scaling a channel of usable
    share c makes it wrong by (1 - c) times the relative difference between the means of the missing and of the
    usable spaxels: for neighbours that differ by 30 %, by 7 % at the default limit.
    """
    _check_options(mode, missing, coverage, workers)
    regions = _make_regions(cube, labels, usable, _areas(cube, mode))
    factor, unit = (1.0, cube.unit)
    if mode == "sum":
        factor, unit = _sum_scale(cube)
    planes = _Planes.make(cube, regions, mode, factor)

    def extract(channels: slice) -> None:
        planes.fill(cube, regions, channels, missing, coverage)

    run_blocks(extract, blocks(cube.shape[0], planes.block), workers)
    empty = regions.ids[planes.mask.all(axis=1)].tolist()
    spatial = _spatial(cube)
    record = step(
        "extract_spectra",
        mode=mode,
        missing=missing,
        coverage=coverage,
        n_regions=regions.ids.size,
        n_pixels=int(regions.n_pixels.sum()),
        n_left_out=int(regions.n_left_out.sum()),
        n_scaled=planes.n_scaled,
        n_empty=len(empty),
        correlation_sum=1.0 if spatial is None else float(spatial.sum()),
    )
    return Spectra(
        planes.data,
        planes.variance,
        planes.mask,
        unit,
        cube.wave,
        cube.medium,
        lsf=planes.finished_lsf(cube),
        correlation=None if cube.correlation is None else cube.correlation.spectral,
        flags=planes.flags if cube.flags is not None or planes.n_scaled else None,
        modes=planes.modes,
        meta={
            **cube.meta,
            "labels": regions.ids.tolist(),
            "n_pixels": regions.n_pixels.tolist(),
            "extraction": mode,
            "empty": empty,
        },
        history=(*cube.history, record),
    )


def _spatial(cube: Cube) -> NDArray[np.float64] | None:
    return None if cube.correlation is None else cube.correlation.spatial


def _check_options(mode: str, missing: str, coverage: float, workers: int) -> None:
    for name, value, known in (("mode", mode, ("sum", "mean")), ("missing", missing, ("scale", "mask"))):
        if value not in known:
            raise InputError(f"{name} is {value!r}; expected one of {', '.join(known)}", field=name)
    if not 0.0 < coverage <= 1.0:
        raise InputError(f"coverage is {coverage}; expected 0 < coverage <= 1", field="coverage")
    if workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1", field="workers")


def _sum_scale(cube: Cube) -> tuple[float, u.UnitBase]:
    """What turns arcsec2 into the area of the cube's unit, and the unit of a sum."""
    per = area_unit(cube.unit)
    return (1.0 if per is None else float((u.arcsec**2).to(per))), sum_unit(cube.unit)


def _areas(cube: Cube, mode: str) -> Array:
    """What the data of each spaxel are multiplied with: its area, or 1 where the data are per spaxel."""
    per = area_unit(cube.unit)
    # Without a place on the sky spaxels are taken as equal, which is all that a mean needs to know of them.
    if per is None or (mode == "mean" and cube.wcs is None):
        return np.ones(cube.shape[1:])
    if cube.wcs is None:
        raise InputError(
            f"the data are per {per}, but without world coordinates the size of the spaxels is not known",
            field="unit",
            remedy="extract means, or say the unit of the flux per spaxel when reading the cube (in a configuration"
            " extraction.mode: mean, or unit in the block cube.instrument)",
        )
    return geometry.pixel_area_map(cube.wcs, cube.shape[1:])


def _make_regions(
    cube: Cube, labels: ArrayLike | LabelMap, usable: NDArray[np.bool_] | None, weight: Array
) -> _Regions:
    shape = cube.shape[1:]
    numbers = as_labels(labels)
    used = np.ones(shape, bool) if usable is None else np.asarray(usable, dtype=bool)
    for name, array in (("labels", numbers), ("usable", used)):
        if array.shape != shape:
            raise ShapeError(
                f"{name} has shape {array.shape}; expected {shape}, that of the cube's spaxels", field=name
            )
    _check_grid(cube, labels)
    ids = np.unique(numbers)
    ids = ids[ids >= 0]
    if ids.size == 0:
        raise InputError("the labels hold no region (none is >= 0)", field="labels")
    dense = np.searchsorted(ids, numbers).astype(np.int32)
    n_all = np.bincount(dense[numbers >= 0], minlength=ids.size)
    dense[(numbers < 0) | ~used] = NO_REGION
    inside = dense >= 0
    n_pixels = np.bincount(dense[inside], minlength=ids.size)
    shares = np.bincount(dense[inside], weights=weight[inside], minlength=ids.size)
    runs, offsets = _find_runs(dense)
    return _Regions(ids, dense, runs, offsets, weight, n_pixels, n_all - n_pixels, shares)


def _check_grid(cube: Cube, labels: ArrayLike | LabelMap) -> None:
    if not isinstance(labels, LabelMap) or labels.wcs is None or cube.wcs is None:
        return
    if not geometry.same_grid(labels.wcs, labels.shape, cube.wcs, labels.shape, SAME_GRID):
        raise InputError(
            "the labels lie on another grid than the cube, though of the same shape",
            field="labels",
            remedy="move them to the grid of the cube first",
        )


def _find_runs(dense: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the runs of equal labels along the rows (first, end, label), and where those of each row begin."""
    ny, nx = dense.shape
    begins = np.ones((ny, nx), bool)
    begins[:, 1:] = dense[:, 1:] != dense[:, :-1]
    row, first = np.nonzero(begins)
    end = np.append(first[1:], 0)
    end[end == 0] = nx  # The next run begins the next row.
    label = dense[row, first]
    kept = label >= 0
    runs = np.stack([first, end, label], axis=1)[kept].astype(np.int32)
    offsets = np.searchsorted(row[kept], np.arange(ny + 1))
    return np.ascontiguousarray(runs), offsets.astype(np.int64)


@dataclass(slots=True, eq=False)
class _Planes:
    """What is being extracted: the planes of the result, filled block by block of channels."""

    data: Array
    variance: Array
    mask: NDArray[np.bool_]
    flags: NDArray[np.uint16]
    lsf: NDArray[np.float64] | None
    modes: tuple[Mode, ...]
    scale: NDArray[np.float64]  # (n,), from weighted sums to the result
    block: int
    scaled: list[int]

    @classmethod
    def make(cls, cube: Cube, regions: _Regions, mode: str, factor: float) -> _Planes:
        n, n_wave = regions.ids.size, cube.shape[0]
        with_lsf = cube.lsf is not None and np.ndim(cube.lsf) == 3
        scale = np.full(n, factor)
        if mode == "mean":
            np.divide(1.0, regions.shares, out=scale, where=regions.shares > 0)
        return cls(
            data=np.zeros((n, n_wave), cube.data.dtype),
            variance=np.ones((n, n_wave), cube.variance.dtype),
            mask=np.ones((n, n_wave), bool),
            flags=np.zeros((n, n_wave), np.uint16),
            lsf=np.full((n, n_wave), np.nan) if with_lsf else None,
            modes=tuple(Mode(each.name, np.zeros((n, n_wave)), each.sigma) for each in cube.modes),
            scale=scale,
            block=int(np.clip(BLOCK_BYTES // (24 * n), 1, BLOCK_CHANNELS)),
            scaled=[],
        )

    @property
    def n_scaled(self) -> int:
        """Voxels of the result in which usable spaxels stand in for missing ones."""
        return sum(self.scaled)

    def fill(self, cube: Cube, regions: _Regions, where: slice, missing: str, coverage: float) -> None:
        """Extract the channels ``where``."""
        total, square, lost = _sum_block(cube, regions, where)
        share = 1.0 - lost / np.where(regions.shares > 0, regions.shares, 1.0)
        whole = lost <= ROUNDING * regions.shares
        kept = whole if missing == "mask" else share >= coverage - ROUNDING
        kept = kept & (share > ROUNDING) & (regions.shares > 0) & (square > 0)
        factor = self.scale / np.where(whole | ~kept, 1.0, share)
        self.data[:, where] = np.where(kept, total * factor, 0.0).T
        self.variance[:, where] = np.where(kept, square * factor**2, 1.0).T
        self.mask[:, where] = ~kept.T
        low = kept & ~whole
        self.flags[:, where][low.T] |= np.uint16(Flag.LOW_COVERAGE)
        self.scaled.append(int(np.count_nonzero(low)))
        self._fill_rest(cube, regions, where, factor)

    def _fill_rest(self, cube: Cube, regions: _Regions, where: slice, factor: Array) -> None:
        """Flags, shared errors and LSF of the channels ``where``."""
        mask = cube.mask[where]
        if cube.flags is not None:
            joined = np.zeros(factor.shape, np.uint16)
            join_flags(cube.flags[where], mask, regions.runs, regions.offsets, joined)
            self.flags[:, where] |= joined.T
        for source, result in zip(cube.modes, self.modes, strict=True):
            pattern = np.broadcast_to(np.asarray(source.map, dtype=np.float64), cube.shape)[where]
            sums, _ = _add_planes(np.ascontiguousarray(pattern), mask, regions)
            result.map[:, where] = np.where(self.mask[:, where], 0.0, (sums * factor).T)  # type: ignore[index]
        if self.lsf is not None:
            width = np.asarray(cube.lsf, dtype=np.float64)[where]
            known = np.isfinite(width) & (width > 0)
            sums, shares = _add_planes(np.where(known, width, 0.0) ** 2, mask | ~known, regions)
            ratio = np.divide(sums, shares, out=np.full(sums.shape, np.nan), where=shares > 0)
            self.lsf[:, where] = np.sqrt(ratio).T

    def finished_lsf(self, cube: Cube) -> float | NDArray[np.float64] | None:
        """Line-spread functions of the regions, gaps along wavelength filled."""
        if self.lsf is None:
            return cube.lsf
        known = np.isfinite(self.lsf)
        for row, good in zip(self.lsf, known, strict=True):
            if good.any() and not good.all():
                row[~good] = np.interp(cube.wave[~good], cube.wave[good], row[good])
        return self.lsf


def _sum_block(cube: Cube, regions: _Regions, where: slice) -> tuple[Array, Array, Array]:
    """Weighted sums, their variances and lost weights, (channels, n) each."""
    data, variance = (np.ascontiguousarray(plane[where]) for plane in (cube.data, cube.variance))
    spatial = _spatial(cube)
    rho = np.ones((1, 1)) if spatial is None else spatial
    radius = rho.shape[0] // 2
    bordered = np.pad(regions.dense, ((0, radius), (radius, radius)), constant_values=NO_REGION)
    sums = [np.zeros((data.shape[0], regions.ids.size)) for _ in range(3)]
    sum_spectra(
        data,
        variance,
        np.ascontiguousarray(cube.mask[where]),
        regions.weight.astype(variance.dtype),
        bordered,
        regions.runs,
        regions.offsets,
        np.ascontiguousarray(rho, dtype=variance.dtype),
        *sums,
    )
    return sums[0], sums[1], sums[2]


def _add_planes(values: Array, skip: Array, regions: _Regions) -> tuple[Array, Array]:
    sums, shares = (np.zeros((values.shape[0], regions.ids.size)) for _ in range(2))
    sum_planes(values, skip, regions.weight, regions.runs, regions.offsets, sums, shares)
    return sums, shares
