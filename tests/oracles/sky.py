"""Naive twins of the sky measurement, of moved labels and of sums over regions."""

from __future__ import annotations

import numpy as np


def lower_envelope(values, clip=2.5):
    """Median of what lies within clip of itself; scatter from the values below it."""
    values = np.asarray(values, dtype=float)
    level, scatter = np.sort(values)[values.size // 2], 0.0
    for _ in range(30):
        below = np.sort(values[values < level])
        half = below.size // 2
        scatter = 1.4826 * (level - (np.sort(values)[half]))
        near = np.sort(values)[
            (np.sort(values) >= level - clip * scatter) & (np.sort(values) < level + clip * scatter)
        ]
        new = near[near.size // 2]
        done = abs(new - level) <= 1e-3 * scatter
        level = new
        if done:
            break
    return level, scatter


def spread_light(light, radius, slope):
    """Each bright pixel spreads its light over the image, one by one; the profile's sum is left open."""
    ny, nx = light.shape
    y, x = np.mgrid[:ny, :nx]
    total = np.zeros(light.shape)
    for row, column in np.argwhere(light > 0):
        total += light[row, column] * (1 + ((y - row) ** 2 + (x - column) ** 2) / radius**2) ** -slope
    return total


def weighted_sum_variance(weights, correlation, variance):
    """Variance of sum(weights * noise) from every pair of pixels."""
    ny, nx = weights.shape
    radius = correlation.shape[0] // 2
    total = 0.0
    for row in range(ny):
        for column in range(nx):
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    if 0 <= row + dy < ny and 0 <= column + dx < nx:
                        pair = np.sqrt(variance[row, column] * variance[row + dy, column + dx])
                        product = weights[row, column] * weights[row + dy, column + dx]
                        total += product * pair * correlation[radius + dy, radius + dx]
    return total


def label_at(labels, source_wcs, target_wcs, row, column, n_samples, unknown=-2):
    """Labels under n x n points of one target pixel: the counts of each."""
    offsets = (np.arange(n_samples) + 0.5) / n_samples - 0.5
    points = np.array([[column + a, row + b] for b in offsets for a in offsets])
    places = source_wcs.all_world2pix(target_wcs.all_pix2world(points, 0), 0)
    counts = {}
    for source_x, source_y in places:
        i, j = int(np.floor(source_y + 0.5)), int(np.floor(source_x + 0.5))
        inside = 0 <= i < labels.shape[0] and 0 <= j < labels.shape[1]
        label = int(labels[i, j]) if inside else unknown
        counts[label] = counts.get(label, 0) + 1
    return counts


def grown(mask, radius_y, radius_x):
    """Pixels whose centre lies within an ellipse around the centre of any pixel of the mask."""
    result = np.zeros(mask.shape, bool)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    for row, column in np.argwhere(mask):
        result |= ((y - row) / radius_y) ** 2 + ((x - column) / radius_x) ** 2 <= 1.0 + 1e-12
    return result


def region_sums(image, labels, areas):
    """Sum, pixel by pixel, and the variance from every pair of pixels and every mode."""
    rows = {}
    for label in sorted({int(value) for value in labels.ravel() if value >= 0}):
        weights = np.where((labels == label) & ~image.mask, areas, 0.0)
        flux, n_pixels, n_masked = 0.0, 0, 0
        for place in np.argwhere(labels == label):
            place = tuple(place)
            if image.mask[place]:
                n_masked += 1
            else:
                n_pixels += 1
                flux += float(image.data[place]) * areas[place]
        correlation = np.ones((1, 1)) if image.correlation is None else image.correlation
        plain = np.where(image.mask, 0.0, image.variance)
        variance = weighted_sum_variance(weights, correlation, plain)
        for mode in image.modes:
            variance += (np.sum(weights * mode.map) * mode.sigma) ** 2
        rows[label] = (n_pixels, n_masked, flux, np.sqrt(variance))
    return rows
