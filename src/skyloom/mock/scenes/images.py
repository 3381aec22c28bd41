"""Noise-free images of a scene: the truth that measurements are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.geometry import pixel_area
from skyloom.core.image import Image
from skyloom.core.labels import NO_REGION, LabelMap
from skyloom.core.provenance import step
from skyloom.core.psf import PSF
from skyloom.mock.scenes.render import paint
from skyloom.mock.scenes.scene import Scene

__all__ = ["LineTruth", "line_truth", "object_images", "segmentation", "sky_wcs", "truth_image"]

Float = NDArray[np.float64]
FLUX_DENSITY = u.erg / u.s / u.cm**2 / u.AA
ELECTRON_RATE = u.electron / u.s


def sky_wcs(
    centre: tuple[float, float] | SkyCoord,
    shape: tuple[int, int],
    scale: float,
    *,
    angle: float = 0.0,
    reference: tuple[float, float] | None = None,
    shift: tuple[float, float] = (0.0, 0.0),
) -> WCS:
    """Return a tangential WCS of square pixels with a place of the sky in the middle of the image.

    Parameters
    ----------
    centre : (float, float) or SkyCoord
        Right ascension and declination in the middle of the image, degrees.
    shape : (int, int)
        (ny, nx).
    scale : float
        Side of a pixel, arcsec.
    angle : float
        Position angle of the y axis, degrees, north through east.
    reference : (float, float), optional
        CRVAL, where it lies elsewhere, as in cut-outs of a mosaic.
    shift : (float, float)
        Pixels (x, y) by which ``centre`` lies off the middle.
    """
    if isinstance(centre, SkyCoord):
        centre = (float(centre.ra.deg), float(centre.dec.deg))
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = reference or centre
    # Columns: where a step along x and along y leads, (east, north).
    wcs.wcs.cd = scale / 3600.0 * np.array([[-cosine, sine], [sine, cosine]])
    wcs.wcs.crpix = [1.0, 1.0]
    x, y = wcs.wcs_world2pix(*centre, 1)
    ny, nx = shape
    wcs.wcs.crpix = [(nx + 1) / 2 + shift[0] - x + 1.0, (ny + 1) / 2 + shift[1] - y + 1.0]
    wcs.wcs.set()
    return wcs


def object_images(
    scene: Scene,
    band: Bandpass,
    wcs: WCS,
    shape: tuple[int, int],
    psf: PSF | None = None,
    *,
    groups: Sequence[Sequence[int]] | None = None,
) -> Float:
    """Return one noise-free image per group of objects.

    Parameters
    ----------
    scene, band, wcs, shape, psf
        As for `truth_image`.
    groups : sequence of sequences of int, optional
        Labels of the objects in each image; by default one image with everything.

    Returns
    -------
    (n_groups, ny, nx) float64 array, erg s-1 cm-2 A-1 per pixel
    """
    fluxes = scene.band_fluxes(band)
    if groups is None:
        amplitudes = fluxes[np.newaxis]
    else:
        labels = scene.labels
        amplitudes = np.stack([np.where(np.isin(labels, list(group)), fluxes, 0.0) for group in groups])
    blur = None if psf is None else psf.at(band.pivot)
    return paint(scene.offsets, scene.covariance, amplitudes, scene.centre, wcs, shape, blur)


def truth_image(
    scene: Scene,
    band: Bandpass,
    wcs: WCS,
    shape: tuple[int, int],
    psf: PSF | None = None,
    *,
    photflam: float | None = None,
    variance: float = 1.0,
) -> Image:
    """Return the noise-free image of a scene in a band.

    Parameters
    ----------
    scene : Scene
    band : Bandpass
    wcs : astropy.wcs.WCS
        Of the image, distortions included.
    shape : (int, int)
        (ny, nx).
    psf : PSF, optional
        Applied before the pixels integrate; None: none.
    photflam : float, optional
        Flux density in erg s-1 cm-2 A-1 of one electron per second; without it the image is in erg s-1 cm-2 A-1.
    variance : float
        What fills the variance plane, which has no meaning without noise.

    Returns
    -------
    Image
        float64, per pixel, exact to 1e-7 of the brightest pixel where the WCS is smooth over each Gaussian.
    """
    data = object_images(scene, band, wcs, shape, psf)[0]
    if photflam is not None:
        data = data / photflam
    return noise_free(scene, band, wcs, data, psf, photflam, variance)


def noise_free(
    scene: Scene,
    band: Bandpass,
    wcs: WCS,
    data: Float,
    psf: PSF | None,
    photflam: float | None = None,
    variance: float = 1.0,
) -> Image:
    """Return painted pixels as an image; the parameters are those of `truth_image`, which calls this."""
    meta: dict[str, object] = {"band": band.name, "photplam": band.pivot, "scene": scene.name}
    if photflam is not None:
        meta["photflam"] = photflam
    return Image(
        data,
        np.full(data.shape, variance),
        np.zeros(data.shape, dtype=bool),
        FLUX_DENSITY if photflam is None else ELECTRON_RATE,
        wcs,
        psf=psf,
        meta=meta,
        history=(step("truth_image", scene=scene.name, band=band.name),),
    )


@dataclass(frozen=True, slots=True, eq=False)
class LineTruth:
    """Moments of an emission line in every pixel, blurred like an observation.

    Parameters
    ----------
    flux : (ny, nx) array
        erg s-1 cm-2 per pixel.
    velocity, dispersion : (ny, nx) arrays
        Flux-weighted mean velocity relative to the redshift, and standard deviation of the velocities in the pixel
        (gas dispersion and unresolved rotation), km/s; NaN where there is no flux.
    """

    flux: Float
    velocity: Float
    dispersion: Float


def line_truth(scene: Scene, key: str, wcs: WCS, shape: tuple[int, int], psf: PSF | None = None) -> LineTruth:
    """Return the exact flux, mean velocity and velocity dispersion of a line in every pixel."""
    flux = scene.line_fluxes(key)
    velocity, dispersion = scene.collect("gas_velocity"), scene.collect("gas_dispersion")
    amplitudes = np.stack([flux, flux * velocity, flux * (velocity**2 + dispersion**2)])
    moments = paint(scene.offsets, scene.covariance, amplitudes, scene.centre, wcs, shape, psf)
    lit = moments[0] > 0
    mean, square = (
        np.divide(moment, moments[0], out=np.full(shape, np.nan), where=lit) for moment in moments[1:]
    )
    return LineTruth(moments[0], mean, np.sqrt(np.maximum(square - mean**2, 0.0)))


def segmentation(
    scene: Scene,
    band: Bandpass,
    wcs: WCS,
    shape: tuple[int, int],
    psf: PSF | None = None,
    *,
    threshold: float,
) -> LabelMap:
    """Return the label map of an ideal detection: each pixel belongs to the object that is brightest there.

    Parameters
    ----------
    scene, band, wcs, shape, psf
        As for `truth_image`.
    threshold : float
        Surface brightness in erg s-1 cm-2 A-1 arcsec-2 that all objects together must exceed.
    """
    labels = np.unique(scene.labels)
    images = object_images(scene, band, wcs, shape, psf, groups=[[label] for label in labels])
    brightest = labels[np.argmax(images, axis=0)]
    seen = images.sum(axis=0) > threshold * pixel_area(wcs, shape)
    return LabelMap(
        np.where(seen, brightest, NO_REGION).astype(np.int32),
        wcs,
        history=(step("segmentation", scene=scene.name, band=band.name, threshold=threshold),),
    )
