"""Spectra of the gas alone: what is left without the stars, as spectra and as a cube."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.continuum import ContinuumFit
from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.image import Mode, check_correlation
from skyloom.core.labels import LabelMap
from skyloom.core.provenance import step
from skyloom.core.psf import PSF
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError, ShapeError

__all__ = ["nebular_cube", "nebular_spectra"]

Array = NDArray[Any]
ROWS = 2048  # Spectra that are turned into columns of the cube at a time.


def nebular_spectra(spectra: Spectra, continuum: ContinuumFit, *, shared: str = "variance") -> Spectra:
    """Take the stellar continuum off spectra.

    Parameters
    ----------
    spectra : Spectra
    continuum : ContinuumFit
        Of the same spectra.
    shared : {"variance", "modes"}
        Where the errors go that channels share because one fit made the whole continuum. "variance": all of the model's
        variance is added channel by channel; right for single channels, too small for wide sums. "modes": the leading
        shared errors become modes (`skyloom.core.image.Mode`) and only the rest is added to the variance; sums along
        wavelength within one spectrum are right, sums over several spectra too large.

    Returns
    -------
    Spectra
        ``data - model``, with ``variance + variance of the model``; masked where there is no model.

    Raises
    ------
    ShapeError
        When the continuum belongs to other spectra.
    InputError
        When ``shared`` is unknown.

    Notes
    -----
    The fit made the model from the same data, of whose noise it took up a part (the number of its free parameters over
    the number of channels, below 1 %): adding the variances neglects that, and the errors are that much too large.
    """
    if shared not in ("variance", "modes"):
        raise InputError(f"shared is {shared!r}; expected 'variance' or 'modes'", field="shared")
    if continuum.model.shape != spectra.shape:
        raise ShapeError(
            f"the continuum has shape {continuum.model.shape}; expected {spectra.shape}", field="continuum"
        )
    kind = spectra.data.dtype
    model = np.asarray(continuum.model, dtype=kind)
    extra = np.asarray(continuum.variance, dtype=spectra.variance.dtype)
    unknown = spectra.mask | ~np.isfinite(model) | ~np.isfinite(extra)
    modes = list(spectra.modes)
    if shared == "modes" and continuum.modes is not None:
        taken = (continuum.modes.astype(extra.dtype) ** 2).sum(axis=1)
        extra = np.maximum(extra - taken, 0)
        modes += [
            Mode(f"continuum {number + 1}", np.where(unknown, 0, plane).astype(kind), 1.0)
            for number, plane in enumerate(np.moveaxis(continuum.modes, 1, 0))
        ]
    done = step("nebular_spectra", shared=shared, backend=continuum.backend, templates=continuum.templates)
    return spectra.evolve(
        done,
        data=np.where(unknown, 0, spectra.data - model),
        variance=np.where(unknown, 1, spectra.variance + np.where(unknown, 0, extra)),
        mask=unknown,
        modes=tuple(modes),
    )


def nebular_cube(
    spectra: Spectra,
    labels: LabelMap,
    *,
    correlation: ArrayLike | None = None,
    psf: PSF | None = None,
) -> Cube:
    """Put spectra of single spaxels back into a cube.

    Parameters
    ----------
    spectra : Spectra
        n spectra; ``meta["labels"]`` says which regions they are of (0 to n - 1 without).
    labels : LabelMap
        (ny, nx) with regions of one spaxel each; its WCS is that of the cube.
    correlation : (k, k) array, optional
        Noise autocorrelation between spaxels of the cube that the spectra came from.
    psf : PSF, optional
        Of that cube.

    Returns
    -------
    Cube
        (n_wave, ny, nx), spaxels without a spectrum masked, with the correlation along wavelength of the spectra.

    Raises
    ------
    InputError
        When a region has several spaxels: they would all hold the same noise. Also when a spectrum has no region.
    """
    rows, columns = _places(spectra, labels)
    n_wave, shape = spectra.shape[1], labels.shape
    planes = [
        np.zeros((n_wave, *shape), spectra.data.dtype),
        np.ones((n_wave, *shape), spectra.variance.dtype),
        np.ones((n_wave, *shape), bool),
    ]
    for plane, source in zip(planes, (spectra.data, spectra.variance, spectra.mask), strict=True):
        _scatter(plane, source, rows, columns)
    lsf = spectra.lsf
    if lsf is not None and np.ndim(lsf) == 2:
        # Spaxels without a spectrum take the typical one: they are masked, but a width must be a number.
        middle = np.nanmedian(np.asarray(lsf), axis=0)[:, np.newaxis, np.newaxis]
        lsf = np.broadcast_to(middle, (n_wave, *shape)).copy()
        _scatter(lsf, np.asarray(spectra.lsf), rows, columns)
    flags = None
    if spectra.flags is not None:
        flags = np.zeros((n_wave, *shape), np.uint16)
        _scatter(flags, spectra.flags, rows, columns)
    modes = []
    for mode in spectra.modes:
        plane = np.zeros((n_wave, *shape), spectra.data.dtype)
        _scatter(plane, np.broadcast_to(np.asarray(mode.map), spectra.shape), rows, columns)
        modes.append(Mode(mode.name, plane, mode.sigma))
    spatial = None if correlation is None else check_correlation(correlation, ndim=2)
    whole = (
        None if spatial is None and spectra.correlation is None
        else CubeCorrelation(spatial, spectra.correlation)
    )  # fmt: skip
    meta = {key: value for key, value in spectra.meta.items() if key not in ("labels", "n_pixels", "empty")}
    done = step("nebular_cube", n_spectra=len(spectra.data))
    return Cube(
        planes[0], planes[1], planes[2], spectra.unit, labels.wcs, spectra.wave, spectra.medium, lsf=lsf, psf=psf,
        correlation=whole, flags=flags, modes=tuple(modes), meta=meta, history=(*spectra.history, done),
    )  # fmt: skip


def _places(spectra: Spectra, labels: LabelMap) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the spaxel of each spectrum."""
    ids = np.asarray(spectra.meta.get("labels", np.arange(len(spectra.data))), dtype=np.int64)
    y, x = np.nonzero(labels.labels >= 0)
    numbers = labels.labels[y, x].astype(np.int64)
    order = np.argsort(numbers, kind="stable")
    numbers = numbers[order]
    if np.any(np.diff(numbers) == 0):
        raise InputError(
            f"{np.unique(numbers).size} regions on {numbers.size} spaxels; a cube needs regions of one spaxel",
            field="labels",
            remedy="paint the bins' lines with line_maps, or run spaxel by spaxel (no binning)",
        )
    place = np.searchsorted(numbers, ids)
    there = (place < numbers.size) & (numbers[np.minimum(place, numbers.size - 1)] == ids)
    if not there.all():
        lost = ids[~there]
        raise InputError(
            f"spectrum {lost[0]} (and {lost.size - 1} more) has no spaxel in labels", field="labels"
        )
    return y[order][place], x[order][place]


def _scatter(plane: Array, source: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
    """Write spectra into columns of a cube, some at a time so that both stay in the cache."""
    for first in range(0, rows.size, ROWS):
        some = slice(first, first + ROWS)
        plane[:, rows[some], columns[some]] = source[some].T
