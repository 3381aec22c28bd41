"""Images of a galaxy whose smooth parts span many pixels: painted on a coarser grid and interpolated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from skyloom.core.psf import PSF
from skyloom.mock.halpha_scene import SMOOTH, HalphaScene
from skyloom.mock.render import paint

__all__ = ["paint_galaxy"]

Float = NDArray[np.float64]
# Nodes per standard deviation of the narrowest smooth Gaussian: a cubic spline errs by 6e-6 of its peak.
FINENESS = 6.0
# Nodes beyond the image, so that the ends of the splines do not reach into it.
MARGIN = 6


def paint_galaxy(
    source: HalphaScene, amplitudes: Float, wcs: WCS, shape: tuple[int, int], psf: PSF | None, first: int = 0
) -> Float:
    """Return noise-free images of a scene.

    Parameters
    ----------
    source : HalphaScene
    amplitudes : (m, n) array
        Light of each Gaussian, for m images at once.
    wcs : astropy.wcs.WCS
        Of the whole image, linear on the tangent plane.
    shape : (int, int)
        Of the part that is wanted.
    psf : PSF, optional
        Applied before the pixels integrate.
    first : int
        Row of the whole image that the part begins with.

    Returns
    -------
    (m, ny, nx) float64 array
    """
    scene = source.scene
    scale = float(np.sqrt(abs(np.linalg.det(wcs.wcs.cd)))) * 3600.0
    smooth = np.concatenate([np.full(len(part.mixture), part.name in SMOOTH) for part in scene.components])
    offsets, covariance = scene.offsets, scene.covariance
    step = int(np.sqrt(covariance[smooth, 0, 0].min()) / scale / FINENESS)
    grid = _Grid(wcs, shape, first, step)
    if step < 2:
        return paint(
            offsets, covariance, amplitudes, scene.centre, grid.moved(0.0, float(first), 1), shape, psf
        )
    compact = ~smooth
    image = paint(
        offsets[compact], covariance[compact], amplitudes[:, compact], scene.centre,
        grid.moved(0.0, float(first), 1), shape, psf,
    )  # fmt: skip
    # A wide pixel blurs by its own variance, which the Gaussians give up before.
    sharper = covariance[smooth] - (step**2 - 1) / 12 * scale**2 * np.eye(2)
    lit = amplitudes[:, smooth].any(axis=1)
    (y, along_y), (x, along_x) = grid.splines()
    coarse = paint(
        offsets[smooth], sharper, amplitudes[lit][:, smooth], scene.centre, grid.moved(x[0], y[0], step),
        (y.size, x.size), psf,
    )  # fmt: skip
    image[lit] += along_y @ (coarse / step**2) @ along_x.T
    return image


@dataclass(frozen=True, slots=True)
class _Grid:
    """Rows of an image, and the nodes that lie ``step`` pixels apart around them."""

    wcs: WCS
    shape: tuple[int, int]
    first: int
    step: int

    def moved(self, x: float, y: float, step: int) -> WCS:
        """Return the WCS of pixels ``step`` times as wide, the first of which is centred on the pixel (x, y)."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.cunit = list(self.wcs.wcs.ctype), list(self.wcs.wcs.cunit)
        wcs.wcs.crval, wcs.wcs.cd = self.wcs.wcs.crval, self.wcs.wcs.cd * step
        wcs.wcs.crpix = (self.wcs.wcs.crpix - 1.0 - np.array([x, y])) / step + 1.0
        wcs.wcs.set()
        return wcs

    def splines(self) -> tuple[tuple[Float, Float], tuple[Float, Float]]:
        """Return nodes (pixels of the whole image), and the matrix from them to the pixels, along y and x."""
        return _spline(self.first, self.shape[0], self.step), _spline(0, self.shape[1], self.step)


def _spline(first: int, number: int, step: int) -> tuple[Float, Float]:
    low, high = first // step - MARGIN, -(-(first + number) // step) + MARGIN
    nodes = step * np.arange(low, high + 1, dtype=np.float64)
    spline = make_interp_spline(nodes, np.eye(nodes.size), k=3)
    return nodes, np.asarray(spline(np.arange(first, first + number, dtype=np.float64)))
