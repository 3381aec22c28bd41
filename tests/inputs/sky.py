"""Fields of galaxies with extended wings on a known sky, and the real stamps whose sky is measured."""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS
from scipy import fft, ndimage

import skyloom as sl
from skyloom.core.image import Image
from skyloom.core.psf import GaussianPSF

ACS = ("f435w", "f606w", "f775w", "f814w", "f850lp")
INFRARED = ("f105w", "f125w", "f140w", "f160w")
OBJECTS = ("3", "15", "37", "912", "919")
PIXEL = 0.06
# FWHM of the PSF in pixels, sigma of the filter that correlates the noise, flux of the brightest galaxies.
KINDS = {"acs": (1.8, 0.55, 4.3), "ir": (3.0, 1.3, 4.6)}


def tangent_wcs(shape, scale=PIXEL, angle=0.0, centre=(53.16, -27.79), pixel=None):
    """A gnomonic WCS with square pixels of ``scale`` arcsec, turned by ``angle`` degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = centre
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2] if pixel is None else pixel
    turn = np.radians(angle)
    rotation = np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.cd = rotation * scale / 3600
    return wcs


def filtered_noise(rng, sigma, shape=(100, 100)):
    """Stationary noise of unit variance: white noise after a Gaussian filter."""
    margin = 10
    white = rng.normal(size=(shape[0] + 2 * margin, shape[1] + 2 * margin))
    noise = ndimage.gaussian_filter(white, sigma)[margin:-margin, margin:-margin]
    delta = np.zeros((41, 41))
    delta[20, 20] = 1.0
    return noise / np.sqrt(np.sum(ndimage.gaussian_filter(delta, sigma) ** 2))


def _galaxy(size, rng, centre, radius, index, flux):
    y, x = np.mgrid[:size, :size] - np.asarray(centre)[:, None, None]
    ratio, turn = rng.uniform(0.3, 1.0), rng.uniform(0, np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / ratio
    profile = np.exp(-(2 * index - 0.32) * ((np.hypot(along, across) + 1e-3) / radius) ** (1 / index))
    return flux * profile / profile.sum()


def _psf(fwhm, halo):
    """A core and an aureole that falls as r^-2.8."""
    size = 80
    r2 = np.add.outer(np.arange(-size, size + 1) ** 2, np.arange(-size, size + 1) ** 2)

    def moffat(width, beta):
        scale = width / 2 / np.sqrt(2 ** (1 / beta) - 1)
        profile = (1 + r2 / scale**2) ** -beta
        return profile / profile.sum()

    return (1 - halo) * moffat(fwhm, 3.0) + halo * moffat(1.7 * fwhm, 1.4)


def galaxy_field(rng, kind, *, faint=10, size=100):
    """Light of a galaxy, its neighbours and ``faint`` sources below or near the noise, which has variance 1."""
    fwhm, _, brightest = KINDS[kind]
    pad = 30
    full = size + 2 * pad
    light = _galaxy(
        full,
        rng,
        full / 2 + rng.normal(size=2),
        rng.uniform(5, 9),
        rng.uniform(0.8, 1.6),
        10 ** rng.uniform(3.8, brightest),
    )
    for _ in range(rng.poisson(6)):
        light += _galaxy(
            full, rng, rng.uniform(0, full, 2), rng.uniform(2, 5), 1.0, 10 ** rng.uniform(2.0, 4.0)
        )
    for _ in range(rng.poisson(faint)):
        light += _galaxy(
            full, rng, rng.uniform(0, full, 2), rng.uniform(1, 2.5), 1.0, 10 ** rng.uniform(0.7, 2.0)
        )
    psf = _psf(fwhm, 0.15 if kind == "ir" else 0.10)
    padded = fft.next_fast_len(full + psf.shape[0], real=True)
    shape = (padded, padded)
    blurred = fft.irfft2(fft.rfft2(light, shape) * fft.rfft2(psf, shape), shape)
    start = psf.shape[0] // 2 + pad
    return blurred[start : start + size, start : start + size]


def sky_image(data, *, fwhm=None, mask=None, dtype=np.float64, **fields):
    """An image of unit variance in electron/s."""
    data = np.asarray(data, dtype=dtype)
    psf = None if fwhm is None else GaussianPSF(fwhm * PIXEL)
    return Image(data, np.ones_like(data), mask, "electron/s", tangent_wcs(data.shape), psf=psf, **fields)


def read_stamp(data_dir, name, band, scale="60mas"):
    """A real stamp with a nominal PSF."""
    stem = data_dir / "hst_udf" / "stamps" / f"{name}_{scale}_{band}"
    image = sl.read(f"{stem}_sci.fits", weight=f"{stem}_wht.fits")
    return image.evolve(psf=GaussianPSF(0.108 if band in ACS else 0.18))


def published_sky(data_dir, name, band):
    """The sky that the authors of the stamps measured."""
    digits = "".join(character for character in band if character.isdigit())
    return float((data_dir / "hst_udf" / "sky" / f"sky_{name}_{digits}.txt").read_text())
