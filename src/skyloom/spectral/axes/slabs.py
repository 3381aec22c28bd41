"""Joining the spectra of consecutive slabs of channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Mode
from skyloom.core.provenance import step
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError

__all__ = ["merge_slabs"]


def merge_slabs(parts: Sequence[Spectra]) -> Spectra:
    """Join the spectra extracted from consecutive slabs of channels.

    Parameters
    ----------
    parts : sequence of Spectra
        Of the same regions, in the order of wavelength.

    Returns
    -------
    Spectra
        One correlation for all wavelengths stays one when all parts share it; otherwise it becomes a band of lags.
        ``meta["empty"]`` lists the regions without a usable channel in any part.

    Raises
    ------
    InputError
        When there is no part, the wavelengths do not follow each other, or rows, numbers of spaxels, units or media
        differ.
    """
    if not parts:
        raise InputError("there are no spectra to join", field="parts")
    first = parts[0]
    for part in parts[1:]:
        _check_parts(first, part)
    wave = np.concatenate([part.wave for part in parts])
    if np.any(np.diff(wave) <= 0):
        starts = ", ".join(f"{part.wave[0]:.2f}-{part.wave[-1]:.2f}" for part in parts)
        raise InputError(
            f"the slabs do not follow each other in wavelength: {starts} A",
            field="wave",
            remedy="give them in the order of wavelength, none twice",
        )
    mask: NDArray[np.bool_] = np.concatenate([part.mask for part in parts], axis=1)
    meta = dict(first.meta)
    if "labels" in meta:
        meta["empty"] = [meta["labels"][row] for row in np.flatnonzero(np.all(mask, axis=1))]
    return Spectra(
        np.concatenate([part.data for part in parts], axis=1),
        np.concatenate([part.variance for part in parts], axis=1),
        mask,
        first.unit,
        wave,
        first.medium,
        lsf=_joined_lsf(parts),
        correlation=_joined_correlation(parts),
        flags=_joined_flags(parts),
        modes=_joined_modes(parts),
        meta=meta,
        history=(*first.history, step("merge_slabs", n_slabs=len(parts), n_wave=wave.size)),
    )


def _check_parts(first: Spectra, part: Spectra) -> None:
    same = {
        "number of spectra": (first.shape[0], part.shape[0]),
        "unit": (first.unit, part.unit),
        "medium": (first.medium, part.medium),
        "labels": (first.meta.get("labels"), part.meta.get("labels")),
        "extraction": (first.meta.get("extraction"), part.meta.get("extraction")),
        "n_pixels": (first.meta.get("n_pixels"), part.meta.get("n_pixels")),
    }
    for name, (mine, its) in same.items():
        if mine != its:
            raise InputError(
                f"the slabs differ in {name}: {_shorten(mine)} and {_shorten(its)}",
                field=name,
                remedy="extract all slabs with the same labels and options",
            )


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) < 60 else text[:56] + " ..."


def _joined_lsf(parts: Sequence[Spectra]) -> float | NDArray[np.float64] | None:
    kinds = [part.lsf for part in parts if part.lsf is not None]
    if len(kinds) < len(parts):
        return None
    if all(np.ndim(kind) == 0 and kind == kinds[0] for kind in kinds):
        return kinds[0]
    rows = max(np.ndim(kind) for kind in kinds) == 2
    shapes = [part.shape if rows else (part.shape[1],) for part in parts]
    full = [
        np.broadcast_to(np.asarray(kind, float), shape) for kind, shape in zip(kinds, shapes, strict=True)
    ]
    return np.concatenate(full, axis=-1)


def _joined_correlation(parts: Sequence[Spectra]) -> NDArray[np.float64] | None:
    bands = [np.ones(1) if part.correlation is None else part.correlation for part in parts]
    if all(part.correlation is None for part in parts):
        return None
    if all(band.ndim == 1 and np.array_equal(band, bands[0]) for band in bands):
        return bands[0]
    k = max(band.shape[-1] for band in bands)
    full = []
    for part, band in zip(parts, bands, strict=True):
        wide = np.pad(band, [(0, 0)] * (band.ndim - 1) + [((k - band.shape[-1]) // 2,) * 2])
        full.append(np.broadcast_to(wide, (part.shape[1], k)))
    return np.concatenate(full)


def _joined_flags(parts: Sequence[Spectra]) -> NDArray[np.uint16] | None:
    if all(part.flags is None for part in parts):
        return None
    return np.concatenate(
        [np.zeros(part.shape, np.uint16) if part.flags is None else part.flags for part in parts], axis=1
    )


def _joined_modes(parts: Sequence[Spectra]) -> tuple[Mode, ...]:
    """Shared errors by name; a part that lacks one has none of it."""
    sigmas = {mode.name: mode.sigma for part in parts for mode in part.modes}
    joined = []
    for name, sigma in sigmas.items():
        maps = []
        for part in parts:
            own = {
                mode.name: np.asarray(mode.map) * (mode.sigma / sigma if sigma else 1.0)
                for mode in part.modes
            }
            maps.append(np.broadcast_to(own.get(name, np.zeros(())), part.shape))
        joined.append(Mode(name, np.concatenate(maps, axis=1), sigma))
    return tuple(joined)
