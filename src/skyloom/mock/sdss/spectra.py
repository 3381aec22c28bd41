"""Fibre spectra of a mock field of the Sloan Digital Sky Survey: light in the fibre, on logarithmic wavelengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from skyloom.core.apertures import circle_overlap
from skyloom.core.provenance import step
from skyloom.core.psf import PSF, GaussianPSF
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError
from skyloom.io.sdss.spec import TYPICAL_CORRELATION
from skyloom.mock.scenes.images import sky_wcs
from skyloom.mock.scenes.render import paint_each, sky_to_plane
from skyloom.mock.scenes.scene import Component, Scene
from skyloom.mock.sdss.field import SdssField, Source

__all__ = ["BOSS", "SDSS", "FibreSpectrograph", "SpectrumObservation", "fibre_fractions", "observe_spectrum"]

Float = NDArray[np.float64]
UNIT = 1e-17
# arcsec: fine pixels of the fibre's aperture, and how far beyond it light is looked for.
FINE, MARGIN = 0.1, 6.0


@dataclass(frozen=True, slots=True)
class FibreSpectrograph:
    """One of the survey's two pairs of spectrographs.

    Parameters
    ----------
    name : {"SDSS", "BOSS"}
    diameter : float
        Of a fibre on the sky, arcsec.
    start : float
        log10 of the first wavelength in A, vacuum.
    n_wave : int
    step : float
        dex.
    noise : tuple of (wavelength, standard deviation)
        Of the sky and the read-out, 1e-17 erg s-1 cm-2 A-1 per pixel; linear between.
    dispersion : tuple of (wavelength, pixels)
        Standard deviation of the line-spread function in pixels.
    photons : float
        Variance per flux, 1e-17 erg s-1 cm-2 A-1.
    """

    name: str
    diameter: float
    start: float
    n_wave: int
    step: float = 1e-4
    noise: tuple[tuple[float, float], ...] = (
        (3800, 1.4),
        (4600, 0.7),
        (6500, 0.35),
        (7500, 0.36),
        (9200, 0.65),
    )
    dispersion: tuple[tuple[float, float], ...] = ((3800, 1.15), (5500, 0.9), (5900, 0.95), (9200, 0.7))
    photons: float = 0.012

    @property
    def wave(self) -> Float:
        """(n_wave,) wavelengths in A, vacuum."""
        return np.asarray(10 ** (self.start + self.step * np.arange(self.n_wave)))

    @property
    def edges(self) -> Float:
        """(n_wave + 1,) edges of the pixels, halfway in the logarithm."""
        return np.asarray(10 ** (self.start + self.step * (np.arange(self.n_wave + 1) - 0.5)))

    @property
    def dispersion_pixels(self) -> Float:
        """(n_wave,) standard deviation of the line-spread function in pixels."""
        return _between(self.dispersion, self.wave)

    @property
    def lsf(self) -> Float:
        """(n_wave,) standard deviation of the line-spread function in A."""
        return np.asarray(self.dispersion_pixels * self.wave * np.log(10) * self.step)


SDSS = FibreSpectrograph("SDSS", 3.0, 3.5802, 3826)
BOSS = FibreSpectrograph(
    "BOSS",
    2.0,
    3.5524,
    4621,
    noise=((3600, 0.7), (4500, 0.3), (6500, 0.21), (8500, 0.25), (10300, 0.5)),
    dispersion=((3600, 1.7), (5500, 1.0), (6500, 0.98), (10300, 0.75)),
    photons=0.005,
)


@dataclass(frozen=True, slots=True, eq=False)
class SpectrumObservation:
    """A spectrum, and what is known about it.

    Parameters
    ----------
    spectra : Spectra
        One spectrum in 1e-17 erg s-1 cm-2 A-1 with its true variance and correlation.
    truth : (n_wave,) array
        Without noise.
    sky : (n_wave,) array
        That was taken off.
    source : Source
    spectrograph : FibreSpectrograph
    plate, mjd, fiber : int
    ra, dec : float
        Of the fibre, degrees.
    fraction : float
        Share of a point source's light that the fibre takes in; spectra are divided by it, as the survey calibrates
        them to the magnitudes of point sources.
    """

    spectra: Spectra
    truth: Float
    sky: Float
    source: Source
    spectrograph: FibreSpectrograph
    plate: int
    mjd: int
    fiber: int
    ra: float
    dec: float
    fraction: float


def observe_spectrum(
    field: SdssField,
    label: int,
    spectrograph: FibreSpectrograph = SDSS,
    *,
    plate: int = 3126,
    mjd: int = 54804,
    fiber: int = 211,
    offset: tuple[float, float] = (0.0, 0.0),
    shift: float = 0.0,
    seeing: PSF | None = None,
    correlation: float | Sequence[float] = TYPICAL_CORRELATION,
    noise: float = 1.0,
    n_bad: int = 12,
    seed: int | np.random.Generator,
) -> SpectrumObservation:
    """Observe a source of a field through a fibre.

    Parameters
    ----------
    field : SdssField
    label : int
        Of the source.
    spectrograph : FibreSpectrograph
    plate, mjd, fiber : int
    offset : (float, float)
        Of the fibre from the source, (east, north) in arcsec.
    shift : float
        Pixels by which the wavelengths lie off whole multiples of the step.
    seeing : PSF, optional
        By default a Gaussian of 1.5 arcsec.
    correlation : float or sequence of float
        Standard deviation in pixels of the Gaussian that the noise has been filtered with; 0: independent. Several
        numbers: the autocorrelation itself, over an odd number of lags; by default that of real spectra.
    noise : float
        Factor of the standard deviation.
    n_bad : int
        Pixels that are masked.
    seed : int or numpy.random.Generator
    """
    generator = np.random.default_rng(seed)
    source = field.source(label)
    if shift:
        spectrograph = _shifted(spectrograph, shift)
    ra = source.ra + offset[0] / 3600.0 / np.cos(np.radians(source.dec))
    dec = source.dec + offset[1] / 3600.0
    blur = GaussianPSF(1.5) if seeing is None else seeing
    truth, fraction = _fibre_light(field.scene, (ra, dec), spectrograph, blur)
    wave, n_wave = spectrograph.wave, spectrograph.n_wave
    base = _between(spectrograph.noise, wave) * _sky_lines(wave)
    variance = noise**2 * (base**2 + spectrograph.photons * np.maximum(truth, 0.0))
    unit, lags = _unit_noise(n_wave, correlation, generator)
    mask = np.zeros(n_wave, dtype=bool)
    mask[generator.choice(n_wave, n_bad, replace=False)] = True
    meta: dict[str, Any] = {
        "instrument": spectrograph.name,
        "object": f"{plate:04d}-{mjd}-{fiber:04d}",
        "plate": plate,
        "mjd": mjd,
        "fiberid": fiber,
        "ra": ra,
        "dec": dec,
        "redshift": source.redshift,
        "fibre_diameter": spectrograph.diameter,
    }
    spectra = Spectra(
        (truth + np.sqrt(variance) * unit)[np.newaxis],
        variance[np.newaxis],
        mask[np.newaxis],
        UNIT * u.erg / u.s / u.cm**2 / u.AA,
        wave,
        "vacuum",
        spectrograph.lsf,
        lags,
        meta=meta,
        history=(step("observe_spectrum", label=label, shift=shift, correlation=_plain(correlation)),),
    )
    sky = 6.0 * _sky_lines(wave) ** 2
    return SpectrumObservation(
        spectra, truth, sky, source, spectrograph, plate, mjd, fiber, ra, dec, fraction
    )


def _shifted(spectrograph: FibreSpectrograph, shift: float) -> FibreSpectrograph:
    return replace(spectrograph, start=spectrograph.start + shift * spectrograph.step)


def _between(points: tuple[tuple[float, float], ...], wave: Float) -> Float:
    x, y = np.array(points).T
    return np.asarray(np.interp(wave, x, y))


def _sky_lines(wave: Float) -> Float:
    """Return by how much lines of the night sky raise the noise."""
    lines = np.array([5578.9, 5891.5, 6302.0, 7342.0, 7752.0, 7995.0, 8401.0, 8832.0, 8922.0])
    strength = np.array([3.0, 0.8, 1.5, 1.0, 1.2, 1.2, 1.6, 1.6, 1.8])
    profile = np.exp(-0.5 * ((wave[:, np.newaxis] - lines) / 2.5) ** 2)
    return np.asarray(1.0 + profile @ strength)


def _plain(correlation: float | Sequence[float]) -> float | list[float]:
    return (
        float(correlation) if isinstance(correlation, (int, float)) else [float(lag) for lag in correlation]
    )


def _unit_noise(
    n_wave: int, correlation: float | Sequence[float], generator: np.random.Generator
) -> tuple[Float, Float | None]:
    """Return noise of unit variance along wavelength, and its lags (None: independent)."""
    if not isinstance(correlation, (int, float)):
        lags = np.asarray(correlation, dtype=np.float64)
        return _noise_with_lags(n_wave, lags, generator), lags
    width = float(correlation)
    if width == 0:
        return generator.standard_normal(n_wave), None
    if not width > 0:
        raise InputError(f"correlation is {width} pixels; expected >= 0", field="correlation")
    reach = int(np.ceil(4.5 * width))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    taps /= np.sqrt(np.sum(taps**2))
    lags = np.convolve(taps, taps[::-1])
    white = generator.standard_normal(n_wave + 2 * reach)
    return np.asarray(fftconvolve(white, taps, mode="valid")), lags / lags[lags.size // 2]


def _noise_with_lags(n_wave: int, lags: Float, generator: np.random.Generator) -> Float:
    """Return noise of unit variance with exactly these lags: on a circle that is cut open where it overlaps."""
    reach = lags.size // 2
    if lags.size % 2 == 0 or not np.array_equal(lags, lags[::-1]) or lags[reach] != 1:
        raise InputError(
            f"correlation is {lags.tolist()}; expected an odd number of symmetric lags about 1",
            field="correlation",
        )
    size = n_wave + reach
    circle = np.zeros(size)
    circle[: reach + 1] = lags[reach:]
    circle[size - reach :] = lags[:reach]
    power = np.fft.rfft(circle).real
    if power.min() < -1e-9:
        raise InputError(f"no noise has the correlation {lags.tolist()}", field="correlation")
    white = np.fft.rfft(generator.standard_normal(size))
    return np.asarray(np.fft.irfft(white * np.sqrt(np.maximum(power, 0.0)), size)[:n_wave])


def fibre_fractions(scene: Scene, centre: tuple[float, float], diameter: float, seeing: PSF) -> Float:
    """Return the share of the light of every Gaussian of a scene that a fibre takes in.

    Parameters
    ----------
    scene : Scene
    centre : (float, float)
        Of the fibre: right ascension and declination, degrees.
    diameter : float
        arcsec.
    seeing : PSF

    Returns
    -------
    (n,) float64 array
        Good to 1e-4: light that has been integrated over pixels of 0.1 arcsec, times their exact overlap with the
        circle.
    """
    if not diameter > 0:
        raise InputError(f"diameter is {diameter} arcsec; expected > 0", field="diameter")
    east, north = sky_to_plane(np.array([centre[0]]), np.array([centre[1]]), scene.centre)
    distance = np.hypot(scene.offsets[:, 0] - east[0], scene.offsets[:, 1] - north[0])
    width = np.sqrt(np.trace(scene.covariance, axis1=1, axis2=2) + 2 * (seeing.fwhm / 2.35) ** 2)
    near = np.flatnonzero(distance < MARGIN * width + diameter / 2)
    fractions = np.zeros(distance.size)
    side = 2 * int(np.ceil(diameter / 2 / FINE)) + 5
    aperture = circle_overlap((side, side), side // 2, side // 2, diameter / 2 / FINE)
    wcs = sky_wcs(centre, (side, side), FINE)
    images = paint_each(scene.offsets[near], scene.covariance[near], scene.centre, wcs, (side, side), seeing)
    fractions[near] = np.einsum("nij,ij->n", images.astype(np.float64), aperture)
    return fractions


def _fibre_light(
    scene: Scene, centre: tuple[float, float], spectrograph: FibreSpectrograph, seeing: PSF
) -> tuple[Float, float]:
    """Return the spectrum in the fibre, divided by the share of a point source, and that share."""
    fractions = fibre_fractions(scene, centre, spectrograph.diameter, seeing)
    total, start = np.zeros(spectrograph.n_wave), 0
    for component in scene.components:
        stop = start + len(component.mixture)
        share = fractions[start:stop]
        if share.max() > 1e-8:
            total += share @ _component_light(component, spectrograph)
        start = stop
    fraction = _point_fraction(spectrograph.diameter, seeing)
    return total / (fraction * UNIT), fraction


# Repeated spectra of a source differ in their noise alone.
@lru_cache(maxsize=64)
def _component_light(component: Component, spectrograph: FibreSpectrograph) -> Float:
    scene = Scene("part", (0.0, 0.0), (component,))
    return scene.spectra(spectrograph.wave, "vacuum", spectrograph.lsf, edges=spectrograph.edges)


def _point_fraction(diameter: float, seeing: PSF) -> float:
    """Return the share of a point source in the middle of a fibre that the fibre takes in."""
    side = 2 * int(np.ceil(diameter / 2 / FINE)) + 5
    aperture = circle_overlap((side, side), side // 2, side // 2, diameter / 2 / FINE)
    point = paint_each(
        np.zeros((1, 2)),
        np.zeros((1, 2, 2)),
        (0.0, 0.0),
        sky_wcs((0.0, 0.0), (side, side), FINE),
        (side, side),
        seeing,
    )
    return float(np.sum(point[0].astype(np.float64) * aperture))
