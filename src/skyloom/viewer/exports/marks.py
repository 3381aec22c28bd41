"""Marks of right ascension and declination along the edges of a picture."""

from __future__ import annotations

import numpy as np

from skyloom.viewer.protocols import Box, Float, PlaneSource

__all__ = ["edge_marks"]

Marks = list[tuple[float, str]]
_POINTS = 65
_FEWEST = 3
_STEPS = tuple(step * 10.0**power for power in range(1, -7, -1) for step in (5.0, 2.0, 1.0))


def edge_marks(source: PlaneSource, box: Box) -> tuple[Marks, Marks]:
    """Return marks along the upper and the left edge of a box, as (place from 0 to 1, text).

    Right ascension along one of them and declination along the other, in deg; pixels where the image is turned so far
    that neither edge follows one of them, or has no place on the sky.
    """
    x0, x1, y0, y1 = box
    along = np.linspace(0.0, 1.0, _POINTS)
    above = _sky(source, x0 + along * (x1 - x0), np.full(_POINTS, y1))
    beside = _sky(source, np.full(_POINTS, x0), y0 + along * (y1 - y0))
    if above is not None and beside is not None:
        if _along_ra(above) and _along_dec(beside):
            return _marks(above[0], "°", wrap=True), _marks(beside[1], "°", sign=True)
        if _along_dec(above) and _along_ra(beside):
            return _marks(above[1], "°", sign=True), _marks(beside[0], "°", wrap=True)
    return _marks(x0 + along * (x1 - x0), ""), _marks(y0 + along * (y1 - y0), "")


def _sky(source: PlaneSource, x: Float, y: Float) -> tuple[Float, Float] | None:
    sky = getattr(source, "sky", None)
    directions = None if sky is None else sky.directions(x, y)
    if directions is None or not np.isfinite(directions).all():
        return None
    ra = np.degrees(np.unwrap(np.arctan2(directions[:, 1], directions[:, 0])))
    return ra, np.degrees(np.arctan2(directions[:, 2], np.hypot(directions[:, 0], directions[:, 1])))


def _spans(edge: tuple[Float, Float]) -> tuple[float, float]:
    """Return how far an edge reaches along right ascension and along declination, in deg on the sky."""
    ra, dec = edge
    return float(abs(ra[-1] - ra[0]) * np.cos(np.radians(dec.mean()))), float(abs(dec[-1] - dec[0]))


def _along_ra(edge: tuple[Float, Float]) -> bool:
    across, up = _spans(edge)
    return up <= 0.5 * across and _is_monotonic(edge[0])


def _along_dec(edge: tuple[Float, Float]) -> bool:
    across, up = _spans(edge)
    return across <= 0.5 * up and _is_monotonic(edge[1])


def _is_monotonic(values: Float) -> bool:
    steps = np.diff(values)
    return bool((steps > 0).all() or (steps < 0).all())


def _marks(values: Float, unit: str, *, wrap: bool = False, sign: bool = False) -> Marks:
    rises = values[-1] > values[0]
    ordered, along = (values if rises else values[::-1]), np.linspace(0.0, 1.0, values.size)
    along = along if rises else along[::-1]
    low, high = float(ordered[0]), float(ordered[-1])
    step = next((step for step in _STEPS if (high - low) / step >= _FEWEST), _STEPS[-1])
    digits = max(0, int(np.ceil(-np.log10(step) - 1e-9)))
    numbers = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step + 0.0  # no minus zero
    return [
        (
            float(np.interp(number, ordered, along)),
            f"{number % 360.0 if wrap else number:{'+' if sign else ''}.{digits}f}{unit}",
        )
        for number in numbers[:20]
    ]
