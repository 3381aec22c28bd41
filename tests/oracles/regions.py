"""Naive twins of the flooding of a map, and of elliptical radii."""

from __future__ import annotations

import numpy as np


def flood(order, values, noise, row, threshold, prominence, contrast):
    """Sets of pixels instead of a union-find; every merge is done pixel by pixel."""
    basins: dict[int, list[int]] = {}
    owner: dict[int, int] = {}
    around = [dy * row + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    for pixel in order:
        near = [pixel + step for step in around if pixel + step in owner]
        if not near:
            if values[pixel] >= threshold * noise[pixel]:
                basins[pixel] = [pixel]
                owner[pixel] = pixel
            continue
        touched = {owner[index] for index in near}
        tallest = max(touched, key=lambda peak: values[peak])
        slope = owner[max(near, key=lambda index: values[index])]
        for peak in touched - {tallest}:
            rise = values[peak] - values[pixel]
            if rise < prominence * noise[peak] or rise < contrast * values[peak]:
                for index in basins.pop(peak):
                    owner[index] = tallest
                    basins[tallest].append(index)
                if slope == peak:
                    slope = tallest
        owner[pixel] = slope
        basins[slope].append(pixel)
    return owner


def elliptical_radius(shape, x0, y0, scale, position_angle, axis_ratio):
    """North up, east to the left, pixel by pixel."""
    radius = np.zeros(shape)
    angle = np.radians(position_angle)
    for y in range(shape[0]):
        for x in range(shape[1]):
            east, north = -(x - x0) * scale, (y - y0) * scale
            along = east * np.sin(angle) + north * np.cos(angle)
            across = east * np.cos(angle) - north * np.sin(angle)
            radius[y, x] = np.sqrt(along**2 + (across / axis_ratio) ** 2)
    return radius
