"""Images of a galaxy whose wide Gaussians, and the wings of whose PSF, are painted on coarser grids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.interpolate import BSpline, make_interp_spline
from scipy.sparse import csr_array

from skyloom.core.psf import PSF
from skyloom.mock.scenes.mixture import psf_mixture
from skyloom.mock.scenes.render import paint
from skyloom.mock.scenes.scene import Scene

__all__ = ["paint_galaxy"]

Float = NDArray[np.float64]
# Nodes per standard deviation of a Gaussian: a cubic spline errs by 6e-6 of its peak.
FINENESS = 6.0
# Distances of nodes in pixels that are tried, the largest first.
STEPS = (64, 32, 16, 8, 4)
# Nodes beyond the image, so that the ends of the splines do not reach into it.
MARGIN = 8


def paint_galaxy(
    scene: Scene, amplitudes: Float, wcs: WCS, shape: tuple[int, int], psf: PSF, first: int = 0
) -> Float:
    """Return noise-free images of a scene of round Gaussians.

    Parameters
    ----------
    scene : Scene
    amplitudes : (m, n) array
        Light of each Gaussian, for m images at once.
    wcs : astropy.wcs.WCS
        Of the whole image, linear on the tangent plane.
    shape : (int, int)
        Of the part that is wanted.
    psf : PSF
        Gaussian or Moffat, applied before the pixels integrate.
    first : int
        Row of the whole image that the part begins with.

    Returns
    -------
    (m, ny, nx) float64 array
    """
    scale = float(np.sqrt(abs(np.linalg.det(wcs.wcs.cd)))) * 3600.0
    blur = psf_mixture(psf)
    offsets, covariance = scene.offsets, scene.covariance
    number, parts = len(scene), len(blur)
    total = (covariance[:, np.newaxis] + blur.covariance).reshape(-1, 2, 2)
    light = (amplitudes[:, :, np.newaxis] * blur.fraction).reshape(-1, number * parts)
    nodes = np.sqrt(total[:, 0, 0]) / scale / FINENESS
    image = np.zeros((amplitudes.shape[0], *shape))
    left = np.any(light != 0, axis=0)
    for step in (*STEPS, 1):
        chosen = np.flatnonzero(left & ((nodes >= step) | (step == 1)))
        left[chosen] = False
        if chosen.size:
            # A wide pixel blurs by its own variance, which the Gaussians give up before.
            sharper = total[chosen] - (step**2 - 1) / 12 * scale**2 * np.eye(2)
            grid = _Grid(wcs, shape, first, step)
            grid.add(image, offsets[chosen // parts], sharper, light[:, chosen], scene.centre)
    return image


@dataclass(frozen=True, slots=True)
class _Grid:
    """Rows of an image, and the nodes that lie ``step`` pixels apart around them."""

    wcs: WCS
    shape: tuple[int, int]
    first: int
    step: int

    def add(
        self, image: Float, offsets: Float, covariance: Float, light: Float, centre: tuple[float, float]
    ) -> None:
        """Add Gaussians to the images by way of the nodes."""
        if self.step == 1:
            image += paint(offsets, covariance, light, centre, self.moved(0, self.first), self.shape)
            return
        y, x = _nodes(self.first, self.shape[0], self.step), _nodes(0, self.shape[1], self.step)
        coarse = paint(offsets, covariance, light, centre, self.moved(x[0], y[0]), (y.size, x.size))
        for plane, values in zip(image, coarse / self.step**2, strict=True):
            if values.any():
                rows = _interpolate(y, values, self.first, self.shape[0])
                plane += _interpolate(x, rows.T, 0, self.shape[1]).T

    def moved(self, x: float, y: float) -> WCS:
        """Return the WCS of pixels ``step`` times as wide, the first of which is centred on the pixel (x, y)."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.cunit = list(self.wcs.wcs.ctype), list(self.wcs.wcs.cunit)
        wcs.wcs.crval, wcs.wcs.cd = self.wcs.wcs.crval, self.wcs.wcs.cd * self.step
        wcs.wcs.crpix = (self.wcs.wcs.crpix - 1.0 - np.array([x, y])) / self.step + 1.0
        wcs.wcs.set()
        return wcs


def _nodes(first: int, number: int, step: int) -> Float:
    """Multiples of ``step`` around pixels."""
    low, high = first // step - MARGIN, -(-(first + number) // step) + MARGIN
    return step * np.arange(low, high + 1, dtype=np.float64)


def _interpolate(nodes: Float, values: Float, first: int, number: int) -> Float:
    """Interpolate values at nodes along the first axis to ``number`` pixels."""
    spline = make_interp_spline(nodes, values, k=3)
    pixels = np.arange(first, first + number, dtype=np.float64)
    return np.asarray(csr_array(BSpline.design_matrix(pixels, spline.t, 3)) @ spline.c)
