"""Rows of an index for tests, without any file."""

from __future__ import annotations

import numpy as np

from skyloom.store.search.cells import healpix_of
from skyloom.store.search.index import NUMBERS, Coded, SkyIndex, sky_order
from skyloom.store.search.polygons import parse_regions


def rectangle(
    ra: float, dec: float, height: float, width: float, angle: float = 0.0
) -> list[tuple[float, float]]:
    """Corners (ra, dec) of a rectangle on the tangent plane of its centre; sides in deg."""
    corners = []
    a0, d0, turn = np.radians(ra), np.radians(dec), np.radians(angle)
    for east, north in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        x = np.radians(0.5 * (width * east * np.cos(turn) - height * north * np.sin(turn)))
        y = np.radians(0.5 * (width * east * np.sin(turn) + height * north * np.cos(turn)))
        vector = (
            np.array([np.cos(d0) * np.cos(a0), np.cos(d0) * np.sin(a0), np.sin(d0)])
            + x * np.array([-np.sin(a0), np.cos(a0), 0.0])
            + y * np.array([-np.sin(d0) * np.cos(a0), -np.sin(d0) * np.sin(a0), np.cos(d0)])
        )
        vector /= np.linalg.norm(vector)
        corners.append(
            (
                float(np.degrees(np.arctan2(vector[1], vector[0])) % 360.0),
                float(np.degrees(np.arctan2(vector[2], np.hypot(*vector[:2])))),
            )
        )
    return corners


def outline(corners) -> str:
    return "Polygon ICRS " + " ".join(f"{value!r}" for corner in corners for value in corner)


def make_index(rows: list[dict]) -> tuple[SkyIndex, np.ndarray]:
    """An index of rows (``s_ra``, ``s_dec``, ``kind`` and any column) and the order in which it keeps them."""
    n = len(rows)
    columns = {name: np.array([row.get(name, np.nan) for row in rows], dtype=float) for name in NUMBERS}
    columns["radius"] = np.nan_to_num(columns["radius"])
    columns["n_levels"] = np.array([row.get("n_levels", 1) for row in rows], dtype=np.int64)
    columns["healpix"] = healpix_of(columns["s_ra"], columns["s_dec"]) if n else np.empty(0, np.int64)
    order = sky_order(columns["radius"], columns["healpix"])
    texts = [rows[place].get("s_region", "") for place in order]
    index = SkyIndex.build(
        {name: column[order] for name, column in columns.items()},
        Coded.of([rows[place].get("kind", "spectrum") for place in order]),
        Coded.of([rows[place].get("band", "") for place in order]),
        parse_regions(texts),
    )
    return index, order


def frame(ra: float, dec: float, height: float, width: float, angle: float = 0.0, **columns) -> dict:
    """Row of an image with an outline."""
    corners = rectangle(ra, dec, height, width, angle)
    return {
        "kind": "image",
        "s_ra": ra,
        "s_dec": dec,
        "radius": 0.5 * float(np.hypot(height, width)) * 1.001,
        "s_region": outline(corners),
        "corners": corners,
        **columns,
    }


def fibre(ra: float, dec: float, **columns) -> dict:
    return {"kind": "spectrum", "s_ra": ra, "s_dec": dec, "radius": 1.5 / 3600, **columns}
