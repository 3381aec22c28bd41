"""Pixel grids and images for tests."""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS, Sip

from skyloom.core.image import Image


def tangent_wcs(
    shape, scale=0.05, rotation=0.0, shift=(0.0, 0.0), *, centre=(53.1, -27.8), sip=False, flip=True
):
    """A TAN grid of square pixels of ``scale`` arcsec, turned by ``rotation`` degrees.

    ``shift``: offset (x, y) of the tangent point from the centre of the grid, in pixels.
    """
    ny, nx = shape
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if sip else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = centre
    wcs.wcs.crpix = [(nx + 1) / 2 + shift[0], (ny + 1) / 2 + shift[1]]
    c, s = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    wcs.wcs.cd = scale / 3600 * np.array([[-c if flip else c, s if flip else -s], [s, c]])
    if sip:
        a, b = np.zeros((4, 4)), np.zeros((4, 4))
        # The size of the distortion of HST's ACS wide-field channel: 50 px in the corners of 4096 px.
        a[2, 0], a[1, 1], a[0, 2], a[3, 0], a[1, 2] = 8e-6, -5e-6, 2e-6, 3e-10, -2e-10
        b[2, 0], b[1, 1], b[0, 2], b[0, 3], b[2, 1] = -2e-6, 6e-6, -7e-6, 2e-10, -3e-10
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def noisy_image(rng, shape, wcs, unit="electron/s", *, masked=0.0, dtype=np.float32, **fields):
    """An image of unit noise around 10, with a variance gradient and masked pixels that hold garbage."""
    nx = shape[1]
    data = (10 + rng.normal(size=shape)).astype(dtype)
    variance = np.broadcast_to(1.0 + 2.0 * np.arange(nx) / nx, shape).astype(dtype)
    mask = rng.random(shape) < masked
    data[mask] = rng.choice([np.nan, np.inf, -1e30, 1e30], mask.sum())
    variance[mask] = rng.choice([np.nan, np.inf, -1.0, 0.0], mask.sum())
    return Image(data, variance, mask, unit, wcs, **fields)
