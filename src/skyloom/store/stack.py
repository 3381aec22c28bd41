"""Means of images or spectra, weighted by their inverse variance, with the error of the mean.

By default each image has one weight, the inverse of its typical variance. Weights of single pixels follow the noise
wherever the variance was derived from the counts themselves, and pull the mean of bright and faint pixels down: about
one electron, whatever the number of images (a bias that does not average out).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.geometry import same_grid
from skyloom.core.image import Image, Mode
from skyloom.core.noise import combine_correlation
from skyloom.core.provenance import step
from skyloom.core.psf import PSF
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands
from skyloom.errors import InputError, UnitError
from skyloom.imaging.grids.reproject import reproject

__all__ = ["WEIGHTS", "place_image", "stack_images", "stack_spectra"]

Float = NDArray[np.float64]
WEIGHTS = ("observation", "pixel")


def stack_images(
    images: Sequence[Image], grid: tuple[WCS, tuple[int, int]] | None = None, *, weights: str = "observation"
) -> Image:
    """Average images of one unit on one grid.

    Parameters
    ----------
    images : sequence of Image
        Those on another grid are reprojected; those that do not reach the grid are left out.
    grid : (WCS, (ny, nx)), optional
        None: that of the first image.
    weights : {"observation", "pixel"}
        One weight per image, or one per pixel (see the module).

    Returns
    -------
    Image
        float32, in the unit of the first. Masked where no image has a usable pixel. The PSF is kept if all have the
        same. ``meta["n_stacked"]`` is how many images went in.

    Raises
    ------
    InputError, UnitError
        When there is none, none reaches the grid, or units do not fit.

    Notes
    -----
    ``mean = sum w d / sum w``, ``variance = sum w^2 v / (sum w)^2`` over the usable images of each pixel; the
    correlation is the mean of theirs, weighted with ``w^2 v``. An error that the pixels of one image share stays one:
    its map is multiplied by ``w / sum w``, and those of different images are independent.
    """
    _check(images, weights)
    target = grid or (images[0].wcs, images[0].shape)
    placed = []
    for image in images:
        fitted = place_image(image, target, images[0].unit)
        if fitted is not None:
            placed.append(fitted)
    if not placed:
        raise InputError("no image has a usable pixel on the grid", field="grid")
    shares = _shares([image.variance for image in placed], [image.mask for image in placed], weights)
    total = np.zeros(target[1])
    variance = np.zeros(target[1])
    flags = np.zeros(target[1], np.uint16)
    for image, share in zip(placed, shares, strict=True):
        used = ~image.mask
        total[used] += share[used] * image.data[used]
        variance[used] += share[used] ** 2 * image.variance[used]
        if image.flags is not None:
            flags[used] |= image.flags[used]
    mask = ~(variance > 0)
    total[mask] = variance[mask] = np.nan
    first = images[0]
    return Image(
        total.astype(np.float32),
        variance.astype(np.float32),
        mask,
        first.unit,
        target[0],
        psf=_common_psf([image.psf for image in placed]),
        correlation=_correlation(placed, shares),
        flags=flags if flags.any() else None,
        modes=tuple(
            mode
            for number, (image, share) in enumerate(zip(placed, shares, strict=True), 1)
            for mode in _modes(image.modes, share, number)
        ),
        meta=_meta([image.meta for image in placed]),
        history=(
            *first.history,
            step("stack", n=len(placed), left_out=len(images) - len(placed), weights=weights),
        ),
    )


def stack_spectra(spectra: Sequence[Spectra], *, weights: str = "observation") -> Spectra:
    """Average spectra that share their wavelengths.

    Parameters
    ----------
    spectra : sequence of Spectra
        All rows of all of them.
    weights : {"observation", "pixel"}

    Returns
    -------
    Spectra
        One row, float32, with the lags of the mean; its LSF is the root of the mean of their squares.

    Raises
    ------
    InputError, UnitError
        When there is none, or wavelengths or units do not fit.

    Notes
    -----
    As for `stack_images`; the covariance of channels i and i + d is ``sum w_i w_(i+d) s_i s_(i+d) rho(i, d)``, exactly.
    """
    _check(spectra, weights)
    first = spectra[0]
    rows = []
    for item in spectra:
        if item.medium != first.medium or not np.array_equal(item.wave, first.wave):
            raise InputError(
                "the spectra have different wavelengths",
                field="wave",
                remedy="use their common grid (grid='common')",
            )
        factor = _factor(item.unit, first.unit)
        rows += [(item, row, factor) for row in range(item.shape[0])]
    masks = [item.mask[row] for item, row, _ in rows]
    variances = [item.variance[row] * factor**2 for item, row, factor in rows]
    shares = _shares(variances, masks, weights)
    n_wave = first.wave.size
    bands = [lag_bands(item.correlation, n_wave) for item, _, _ in rows]
    radius = max(band.shape[1] // 2 for band in bands)
    mean, covariance = np.zeros(n_wave), np.zeros((n_wave, radius + 1))
    for (item, row, factor), share, variance, mask, band in zip(
        rows, shares, variances, masks, bands, strict=True
    ):
        mean[~mask] += share[~mask] * item.data[row][~mask] * factor
        spread = np.zeros(n_wave)
        spread[~mask] = share[~mask] * np.sqrt(variance[~mask], dtype=np.float64)
        middle = band.shape[1] // 2
        for lag in range(min(middle, n_wave - 1) + 1):
            covariance[: n_wave - lag, lag] += (
                spread[: n_wave - lag] * spread[lag:] * band[: n_wave - lag, middle + lag]
            )
    mask = ~(covariance[:, 0] > 0)
    mean[mask] = np.nan
    variance = np.where(mask, np.nan, covariance[:, 0])
    return Spectra(
        mean[None].astype(np.float32),
        variance[None].astype(np.float32),
        mask[None],
        first.unit,
        first.wave,
        first.medium,
        lsf=_lsf(rows, shares, n_wave),
        correlation=_lags(covariance),
        modes=tuple(
            mode
            for number, ((item, row, factor), share) in enumerate(zip(rows, shares, strict=True), 1)
            for mode in _row_modes(item, row, share, factor, number)
        ),
        meta=_meta([item.meta for item, _, _ in rows]),
        history=(*first.history, step("stack", n=len(rows), weights=weights)),
    )


def _check(items: Sequence[Any], weights: str) -> None:
    if not items:
        raise InputError("there is nothing to average", field="obs_ids")
    if weights not in WEIGHTS:
        raise InputError(
            f"weights is {weights!r}", field="weights", remedy=f"use one of {', '.join(WEIGHTS)}"
        )


def _factor(unit: Any, target: Any) -> float:
    try:
        return float(unit.to(target))
    except Exception as error:
        raise UnitError(
            f"an image or spectrum is in {unit}, the first one in {target}",
            field="unit",
            remedy="average what has the same unit",
        ) from error


def place_image(image: Image, target: tuple[WCS, tuple[int, int]], unit: Any) -> Image | None:
    """Return an image on the grid and in the unit of the mean; None where it does not reach the grid."""
    factor = _factor(image.unit, unit)
    wcs, shape = target
    if image.mask.all():
        return None
    if image.shape != shape or (
        image.wcs is not wcs and not (wcs and same_grid(image.wcs, image.shape, wcs, shape))
    ):
        try:
            image = reproject(image, (wcs, shape))
        except InputError as error:
            if error.field == "wcs" and image.wcs is not None and wcs is not None:
                return None
            raise
    if factor == 1.0:
        return image
    return image.evolve(
        data=image.data * factor,
        variance=image.variance * factor**2,
        unit=unit,
        modes=tuple(mode._replace(sigma=mode.sigma * factor) for mode in image.modes),
    )


def _shares(variances: Sequence[Any], masks: Sequence[Any], weights: str) -> list[Float]:
    """Return what each image contributes to each pixel; they add up to 1 where there is any."""
    shares = []
    for variance, mask in zip(variances, masks, strict=True):
        used = ~mask
        share = np.zeros(variance.shape)
        if used.any():
            share[used] = 1.0 / (np.median(variance[used]) if weights == "observation" else variance[used])
        shares.append(share)
    total = np.sum(shares, axis=0)
    return [np.divide(share, total, out=np.zeros_like(share), where=total > 0) for share in shares]


def _correlation(images: Sequence[Image], shares: Sequence[Float]) -> Any:
    typical = [
        float(np.mean(share[~image.mask] ** 2 * image.variance[~image.mask]))
        for image, share in zip(images, shares, strict=True)
    ]
    return combine_correlation(typical, [image.correlation for image in images])


def _modes(modes: Sequence[Mode], share: Float, number: int) -> list[Mode]:
    return [
        Mode(f"{mode.name} {number}", (share * np.nan_to_num(mode.map)).astype(np.float32), mode.sigma)
        for mode in modes
    ]


def _row_modes(item: Spectra, row: int, share: Float, factor: float, number: int) -> list[Mode]:
    maps = [np.broadcast_to(np.asarray(mode.map), item.shape)[row] for mode in item.modes]
    return [
        Mode(f"{mode.name} {number}", (share * np.nan_to_num(values))[None], mode.sigma * factor)
        for mode, values in zip(item.modes, maps, strict=True)
    ]


def _common_psf(psfs: Sequence[PSF | None]) -> PSF | None:
    first = psfs[0]
    if first is None or any(psf is None for psf in psfs):
        return None
    same = all(psf is first or repr(psf) == repr(first) for psf in psfs)
    return first if same else None


def _lsf(rows: Sequence[tuple[Spectra, int, float]], shares: Sequence[Float], n_wave: int) -> Any:
    if any(item.lsf is None for item, _, _ in rows):
        return None
    square, total = np.zeros(n_wave), np.sum(shares, axis=0)
    for (item, row, _), share in zip(rows, shares, strict=True):
        width = np.broadcast_to(np.asarray(item.lsf, dtype=np.float64), item.shape)[row]
        # Where all are masked, none counts more than another.
        square += np.where(total > 0, share, 1.0 / len(rows)) * width**2
    return np.sqrt(square)


def _lags(covariance: Float) -> Any:
    """Return the band of lags of channels with a covariance of ``(n_wave, radius + 1)``."""
    n_wave, radius = covariance.shape[0], covariance.shape[1] - 1
    if radius == 0:
        return None
    spread = np.sqrt(covariance[:, 0])
    band = np.zeros((n_wave, 2 * radius + 1))
    band[:, radius] = 1.0
    for lag in range(1, min(radius, n_wave - 1) + 1):
        both = spread[:-lag] * spread[lag:]
        rho = np.divide(covariance[: n_wave - lag, lag], both, out=np.zeros_like(both), where=both > 0)
        band[: n_wave - lag, radius + lag] = rho
        band[lag:, radius - lag] = rho
    return band


def _meta(metas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what all have in common, and how many there are."""
    first = metas[0]
    shared = {
        key: value
        for key, value in first.items()
        # Rows of a mean have no time of their own.
        if key != "row_time" and all(key in meta and repr(meta[key]) == repr(value) for meta in metas[1:])
    }
    return {**shared, "n_stacked": len(metas)}
