"""`DrawnRegion`: a circle, ellipse, box, polygon, annulus or point, drawn on an image or on the sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError

__all__ = ["FRAMES", "SHAPES", "DrawnRegion"]

Frame = Literal["image", "fk5", "icrs", "galactic"]
SizeUnit = Literal["arcsec", "pixel"]
FRAMES: tuple[Frame, ...] = ("image", "fk5", "icrs", "galactic")
SHAPES = {"circle": 1, "ellipse": 2, "box": 2, "polygon": 0, "annulus": 2, "point": 0}
"""Shapes, and how many sizes each has."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawnRegion:
    """A region as it was drawn.

    Parameters
    ----------
    shape : {"circle", "ellipse", "box", "polygon", "annulus", "point"}
    frame : {"image", "fk5", "icrs", "galactic"}
        What ``points`` are in.
    points : (n, 2) float array
        Centre (n = 1) or vertices of a polygon (n >= 3): degrees, or in the frame "image" pixels counted from 0.
    sizes : tuple of float
        Radius of a circle; semi-axes of an ellipse; width and height of a box; inner and outer radius of an annulus.
    size_unit : {"arcsec", "pixel"}
        Of ``sizes``.
    angle : float
        Of ellipse and box, degrees: from the x axis towards y in the frame "image"; else from west towards north.
    include : bool
        False: what lies inside is taken out of all other regions.
    text : str
        Its label.

    Raises
    ------
    InputError
        When the shape or the frame is unknown, or numbers are missing, not finite, or sizes are not > 0.
    """

    shape: str
    frame: Frame
    points: NDArray[np.float64]
    sizes: tuple[float, ...] = ()
    size_unit: SizeUnit = "arcsec"
    angle: float = 0.0
    include: bool = True
    text: str = ""

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise InputError(
                f"{self.shape!r} is no known shape", field="shape", remedy=f"use one of {', '.join(SHAPES)}"
            )
        if self.frame not in FRAMES:
            raise InputError(
                f"{self.frame!r} is no known frame", field="frame", remedy=f"use one of {', '.join(FRAMES)}"
            )
        points = np.atleast_2d(np.asarray(self.points, dtype=np.float64))
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "sizes", tuple(float(size) for size in self.sizes))
        enough = len(points) >= 3 if self.shape == "polygon" else len(points) == 1
        if points.shape[1:] != (2,) or not enough or not np.isfinite(points).all():
            raise InputError(
                f"a {self.shape} has {len(points)} points of which some may not be finite", field="points"
            )
        if len(self.sizes) != SHAPES[self.shape]:
            raise InputError(
                f"a {self.shape} has {len(self.sizes)} sizes; expected {SHAPES[self.shape]}", field="sizes"
            )
        smallest = 0.0 if self.shape == "annulus" else np.nextafter(0.0, 1.0)
        if not all(smallest <= size < np.inf for size in self.sizes):
            raise InputError(f"sizes are {self.sizes}; expected numbers > 0", field="sizes")
        if self.shape == "annulus" and not self.sizes[0] < self.sizes[1]:
            raise InputError(f"radii are {self.sizes}; expected the inner one first", field="sizes")
