"""Slow twins of the comparison of regions: a mask of the whole image for each of them, pixel by pixel."""

from __future__ import annotations

import numpy as np


def labels_by_sky(labels, wcs, shape):
    """Label of each pixel of another grid: that of the pixel of the map in which its centre lies, by both WCS."""
    ny, nx = shape
    rows, columns = np.mgrid[:ny, :nx]
    ra, dec = wcs.all_pix2world(columns.ravel(), rows.ravel(), 0)
    x, y = labels.wcs.all_world2pix(ra, dec, 0)
    x, y = (np.floor(values + 0.5).astype(int).reshape(shape) for values in (x, y))
    inside = (x >= 0) & (x < labels.shape[1]) & (y >= 0) & (y < labels.shape[0])
    found = np.full(shape, -2)
    found[inside] = labels.labels[y[inside], x[inside]]
    return found


def flux_by_masks(image, labels, areas):
    """Flux and error of each region, from one mask and all pairs of its pixels."""
    rho = np.ones((1, 1)) if image.correlation is None else image.correlation
    radius = rho.shape[0] // 2
    fluxes = {}
    for label in np.unique(labels[labels >= 0]):
        mask = (labels == label) & ~image.mask
        flux = float(np.sum(image.data[mask] * areas[mask]))
        rows, columns = np.nonzero(mask)
        sigma = (areas * np.sqrt(np.where(image.mask, 0, image.variance)))[mask]
        dy, dx = np.subtract.outer(rows, rows), np.subtract.outer(columns, columns)
        near = (np.abs(dy) <= radius) & (np.abs(dx) <= radius)
        share = np.where(
            near, rho[np.clip(dy + radius, 0, 2 * radius), np.clip(dx + radius, 0, 2 * radius)], 0
        )
        variance = float(sigma @ share @ sigma)
        for mode in image.modes:
            variance += (
                float(np.sum((np.broadcast_to(mode.map, image.shape) * areas)[mask]) * mode.sigma) ** 2
            )
        fluxes[int(label)] = (flux, np.sqrt(variance), int(mask.sum()))
    return fluxes
