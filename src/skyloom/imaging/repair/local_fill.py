"""Single bad pixels filled from their good neighbours, with errors that say so."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.kernels.images.local_fill import fill_pixels

__all__ = ["Fill", "fill_from_neighbours"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]

WIDEST = 4  # Times the width of the kernel that a pixel without enough neighbours may reach.


class Fill(NamedTuple):
    """Predicted pixels.

    ``rows`` and ``columns`` are their places; all others are (n,) arrays too: ``value`` in the unit of the image; in
    its square the variance ``noise`` that the value has from the neighbours' noise, the mean square ``scatter`` of the
    neighbours about the fit, and what noise alone leads one to expect of it; ``found`` is False where there were no
    neighbours to predict from.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    value: Array
    noise: Array
    scatter: Array
    expected: Array
    found: Mask

    @property
    def variance(self) -> Array:
        """Variance of the pixel: noise of its value, and how far a pixel differs from its neighbours."""
        return np.asarray(self.noise + np.maximum(self.scatter, self.expected))


def fill_from_neighbours(
    image: Image,
    wanted: Mask,
    good: Mask,
    *,
    sigma: float,
    plane: bool = True,
    least: float = 0.15,
    widest: int = WIDEST,
) -> Fill:
    """Predict pixels from the good ones around them.

    Parameters
    ----------
    image : Image
    wanted : (ny, nx) bool array
        Pixels to predict.
    good : (ny, nx) bool array
        Pixels to predict from.
    sigma : float
        Of the Gaussian weights, in pixels; they end at three of them.
    plane : bool
        A weighted plane instead of the weighted mean, where the neighbours surround the pixel.
    least : float
        Share of the weights that must lie on good pixels.
    widest : int
        Where they do not, the kernel is doubled up to this many times its width.

    Returns
    -------
    Fill

    Notes
    -----
    `Fill.variance` is that of the weighted sum, correlation included, plus the weighted scatter of the neighbours about
    the fit, which is never taken below their noise: a predicted pixel is worth less than a measured one, and its light
    differs from its neighbourhood as theirs does.
    """
    rows, columns = (np.ascontiguousarray(index, dtype=np.int64) for index in np.nonzero(wanted))
    rho = np.ones((1, 1)) if image.correlation is None else np.ascontiguousarray(image.correlation)
    planes = np.full((rows.size, 4), np.nan)
    found = np.zeros(rows.size, dtype=bool)
    width = 1
    while width <= widest and not found.all():
        left = np.flatnonzero(~found)
        radius = int(np.ceil(3.0 * width * sigma))
        figures = fill_pixels(
            image.data,
            image.variance,
            np.ascontiguousarray(good),
            rows[left],
            columns[left],
            float(width * sigma),
            radius,
            plane,
            rho,
        )
        enough = figures[:, 4] >= least
        planes[left[enough]] = figures[enough, :4]
        found[left[enough]] = True
        width *= 2
    value, noise, scatter, expected = planes.T
    return Fill(rows, columns, value, noise, scatter, expected, found)
