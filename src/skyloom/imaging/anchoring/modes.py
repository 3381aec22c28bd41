"""The errors of many fitted parameters as few maps of errors that pixels share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.image import Mode

if TYPE_CHECKING:
    from skyloom.imaging.anchoring.line_anchor import LineAnchor

__all__ = ["anchor_modes"]

Array = NDArray[Any]
Float = NDArray[np.float64]
KEPT = 0.995
"""Share of the variance of sums, noise included, that must not be lost with the modes left out."""
MOST_PIXELS = 256_000_000
"""Pixels of all maps together, unless the caller says how many there may be; float32 makes it 1 GB."""
FEWEST_AND_MOST = (4, 16)
BLOCKS = (24, 6, 1)
"""Blocks along each axis over which it is judged."""


def anchor_modes(
    anchored: Array,
    noise: tuple[Array, Float | None],
    continuum: Array,
    mask: NDArray[np.bool_],
    wcs: WCS | None,
    anchor: LineAnchor,
    max_modes: int | None,
) -> tuple[tuple[Mode, ...], float]:
    """Return the modes of an anchored image, and the share of the variance of sums that is lost with the others.

    Parameters
    ----------
    anchored, continuum : (ny, nx) array
        The anchored excess, and the continuum, in the unit of the anchor.
    noise : (variance, correlation)
        Of the anchored excess.
    mask : (ny, nx) bool array
    wcs : WCS or None
        None only where the anchor has no field.
    anchor : LineAnchor
    max_modes : int or None
        None: 16, fewer on images of so many pixels that the maps would take more than 1 GB, never below 4.

    Notes
    -----
    The derivatives by slope, offset and the field's coefficients are ``-r / slope``, ``-1 / slope`` and
    ``-C basis_k / slope``. With Sigma = S S^T and j_b the mean of the derivatives over block b, the eigenvectors v of
    the mean over b of ``S^T j_b (S^T j_b)^T``, each divided by the variance of the block's mean (noise and shared
    errors), turn the parameters into independent ones ``S v`` in order of what a sum loses without them. Blocks of
    1/24, 1/6 and the whole of the field along each axis count alike. Those kept are enlarged by a common factor so
    that the mean variance of such sums is the full one.
    """
    root = _root(anchor.covariance)
    parts = []
    for number in BLOCKS:
        derivatives, variance = _block_derivatives(anchored, noise, continuum, mask, wcs, anchor, number)
        projected = derivatives @ root
        total = np.sum(projected**2, axis=1) + variance
        if total.size:
            parts.append(projected / np.sqrt(total * total.size * len(BLOCKS))[:, None])
    if not parts:
        return (), 0.0
    projected = np.concatenate(parts)
    shares, vectors = np.linalg.eigh(projected.T @ projected)
    order = np.argsort(shares)[::-1]
    if not shares[order[0]] > 0:
        return (), 0.0
    # What is lost of the variance when only the first n are kept.
    lost = np.append(np.cumsum(shares[order][::-1])[::-1][1:], 0.0)
    if max_modes is None:
        max_modes = int(np.clip(MOST_PIXELS // mask.size, *FEWEST_AND_MOST))
    number = min(max_modes, int(np.argmax(lost <= 1.0 - KEPT)) + 1)
    # Those kept stand for those left out: on average over the field no variance is missing.
    kept = float(np.sum(shares[order[:number]]))
    enlarged = np.sqrt(1.0 + max(0.0, float(lost[number - 1])) / kept)
    combinations = enlarged * (root @ vectors[:, order[:number]]).T
    modes = tuple(
        Mode(f"line_anchor_{i + 1}", _map(weights, anchored, continuum, mask, wcs, anchor), 1.0)
        for i, weights in enumerate(combinations)
    )
    return modes, float(max(0.0, lost[number - 1]))


def _root(covariance: Float) -> Float:
    """Return S with S S^T = covariance; parameters of different size do not spoil its digits."""
    size = np.sqrt(np.diag(covariance))
    size[size == 0] = 1.0
    values, vectors = np.linalg.eigh(covariance / np.outer(size, size))
    return np.asarray(size[:, None] * vectors * np.sqrt(np.maximum(values, 0.0)))


def _block_derivatives(
    anchored: Array,
    noise: tuple[Array, Float | None],
    continuum: Array,
    mask: NDArray[np.bool_],
    wcs: WCS | None,
    anchor: LineAnchor,
    n_blocks: int,
) -> tuple[Float, Float]:
    """Return the mean derivative by each parameter over blocks with usable pixels, (n, 2 + K), and its variance."""
    edges = [np.unique(np.linspace(0, side, min(n_blocks, side) + 1).astype(int)) for side in mask.shape]
    number = _block_sums((~mask).astype(np.float32), edges)
    filled = number > 0
    sums = [
        _block_sums(np.where(mask, 0.0, plane), edges)[filled] / number[filled]
        for plane in (anchored, continuum, noise[0])
    ]
    result = np.empty((int(filled.sum()), 2 + anchor.field.coefficients.size))
    result[:, 0], result[:, 1] = sums[0], 1.0
    if anchor.field.degree >= 0:
        assert wcs is not None
        y, x = np.meshgrid(*((edge[:-1] + edge[1:] - 1) / 2 for edge in edges), indexing="ij")
        longitude, latitude = wcs.celestial.all_pix2world(x[filled], y[filled], 0)
        result[:, 2:] = anchor.field.basis_at(longitude, latitude) * sums[1][:, None]
    spread = 1.0 if noise[1] is None else max(float(noise[1].sum()), 1.0)
    return result / -anchor.slope, sums[2] * spread / number[filled]


def _block_sums(plane: Array, edges: list[NDArray[np.int_]]) -> Float:
    rows = np.add.reduceat(plane, edges[0][:-1], axis=0, dtype=np.float64)
    return np.asarray(np.add.reduceat(rows, edges[1][:-1], axis=1))


def _map(
    weights: Float,
    anchored: Array,
    continuum: Array,
    mask: NDArray[np.bool_],
    wcs: WCS | None,
    anchor: LineAnchor,
) -> NDArray[np.float32]:
    """Return the sum of the derivative maps with these weights, float32, 0 under the mask."""
    weights = weights / -anchor.slope
    pattern = np.multiply(anchored, weights[0], dtype=np.float32)
    pattern += np.float32(weights[1])
    if anchor.field.degree >= 0:
        assert wcs is not None
        share = anchor.field.grid(wcs, (mask.shape[0], mask.shape[1])).combine(weights[2:])
        with np.errstate(invalid="ignore", over="ignore"):  # What the mask hides is overwritten.
            share *= continuum
        pattern += share
    pattern[mask] = 0.0
    return pattern
