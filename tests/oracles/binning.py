"""Naive twins of the binning: every pair of pixels, every window, every cell, written out."""

from __future__ import annotations

import numpy as np


def bin_sums(signal, variance, labels, correlation=None):
    """{label: (signal, noise, pixels)}, from every ordered pair of pixels of each bin."""
    radius = 0 if correlation is None else correlation.shape[0] // 2
    sums = {}
    for label in np.unique(labels[labels >= 0]):
        pixels = np.argwhere(labels == label)
        total, noise = 0.0, 0.0
        for y1, x1 in pixels:
            total += signal[y1, x1]
            for y2, x2 in pixels:
                dy, dx = y2 - y1, x2 - x1
                if abs(dy) <= radius and abs(dx) <= radius:
                    rho = 1.0 if correlation is None else correlation[radius + dy, radius + dx]
                    noise += rho * np.sqrt(variance[y1, x1] * variance[y2, x2])
        sums[int(label)] = (total, np.sqrt(noise), len(pixels))
    return sums


def connected_parts(member):
    """Number of 4-connected parts of a boolean map, by growing from one pixel at a time."""
    todo = {tuple(pixel) for pixel in np.argwhere(member)}
    parts = 0
    while todo:
        parts += 1
        edge = [todo.pop()]
        while edge:
            y, x = edge.pop()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in todo:
                    todo.remove(near)
                    edge.append(near)
    return parts


def stays_connected(labels, y, x):
    """Whether the bin of (y, x) is one part without it."""
    member = labels == labels[y, x]
    member[y, x] = False
    return connected_parts(member) == 1


def nearest_cell(labels, generators, y, x):
    """The cell of least distance over radius among those of the pixel and its neighbours."""
    ny, nx = labels.shape
    candidates = [labels[y, x]]
    for near_y, near_x in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
        if 0 <= near_y < ny and 0 <= near_x < nx and labels[near_y, near_x] >= 0:
            candidates.append(labels[near_y, near_x])
    distances = [
        ((y - generators[cell, 0]) ** 2 + (x - generators[cell, 1]) ** 2) / generators[cell, 2]
        for cell in candidates
    ]
    return candidates[int(np.argmin(distances))], min(distances)


def density(signal, variance, free, target, halves, floor):
    """Bins per pixel from the smallest window that reaches the target; independent pixels."""
    ny, nx = signal.shape
    result = np.zeros((ny, nx))

    def window(y, x, half):
        box = (slice(max(0, y - half), y + half + 1), slice(max(0, x - half), x + half + 1))
        used = free[box]
        return signal[box][used].sum(), variance[box][used].sum(), used.sum()

    for y, x in np.argwhere(free):
        for half in halves:
            total, noise, n_pixels = window(y, x, half)
            if total <= 0 or total**2 < target**2 * noise:
                continue
            inner, _, n_inner = window(y, x, half // 2)
            if half > 1 and inner / n_inner < floor * total / n_pixels:
                continue
            result[y, x] = total**2 / (noise * target**2 * n_pixels)
            break
    return result


def square_inflation(side, correlation):
    """Variance of the sum over a square of ``side`` pixels of unit variance, per pixel."""
    labels = np.zeros((side, side), dtype=int)
    ones = np.ones((side, side))
    return bin_sums(ones, ones, labels, correlation)[0][1] ** 2 / side**2
