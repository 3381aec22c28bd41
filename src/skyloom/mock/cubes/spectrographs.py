"""Integral-field spectrographs: wavelength grids, line and point spread, sky and noise like MUSE, MaNGA and PMAS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.linelist import Medium
from skyloom.core.psf import FWHM_PER_SIGMA, PSF, ChromaticPSF, GaussianPSF, MoffatPSF
from skyloom.errors import InputError
from skyloom.mock.cubes.sky_lines import sky_continuum, sky_line_spectrum
from skyloom.mock.scenes.spectral_axis import SpectralAxis

__all__ = ["SPECTROGRAPHS", "Field", "Spectrograph", "manga", "muse", "pmas", "spectrograph"]

Float = NDArray[np.float64]
Field = Literal["square", "circle", "hexagon"]
FLUX_DENSITY = u.erg / u.s / u.cm**2 / u.AA
# (low, high) in A; channels whose centres lie within are kept.
Range = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Spectrograph:
    """What a spectrograph does to the light, and the noise it adds.

    Parameters
    ----------
    name : str
        As in `Cube.meta`: ``MUSE``, ``MaNGA``, ``PMAS``.
    wave, edges : (n_wave,) and (n_wave + 1,) arrays
        Centres and edges of the channels in A, in ``medium``.
    medium : {"air", "vacuum"}
    first : int
        Number of the first channel on the instrument's full grid, where the range was shortened.
    lsf : (n_wave,) array
        Standard deviation of the line-spread function in A, before the channels average it.
    psf : PSF
        Usually chromatic.
    pixel_scale : float
        Side of a spaxel, arcsec.
    unit : astropy unit
        Of the cubes: flux density per spaxel.
    electrons : (n_wave,) array
        Electrons that a flux density of one unit leaves in a channel of a spaxel.
    sky : (n_wave,) array
        Of the night sky, in ``unit``.
    sky_lines : (n_wave,) array
        The part of ``sky`` that comes in lines.
    read_variance : float
        Of the detector, electrons^2 per channel and spaxel.
    spatial_kernel, spectral_kernel : (k,) arrays
        Filters that act on white noise along x and y, and along wavelength; k odd, any norm.
    corrected : bool
        Whether the survey publishes cubes that are corrected for the extinction by the Milky Way.
    field : {"square", "circle", "hexagon"}
        Shape of the field of view.
    exposure : float
        Seconds.
    """

    name: str
    wave: Float
    edges: Float
    medium: Medium
    first: int
    lsf: Float
    psf: PSF
    pixel_scale: float
    unit: u.UnitBase
    electrons: Float
    sky: Float
    sky_lines: Float
    read_variance: float
    spatial_kernel: Float
    spectral_kernel: Float
    corrected: bool
    field: Field
    exposure: float

    @property
    def axis(self) -> SpectralAxis:
        """The channels as the scene needs them."""
        return SpectralAxis.build(self.wave, self.medium, self.lsf, self.edges)

    @property
    def background_variance(self) -> Float:
        """(n_wave,) variance without sources, in ``unit**2``: sky photons and detector."""
        return np.asarray((self.sky * self.electrons + self.read_variance) / self.electrons**2)

    @property
    def spatial_correlation(self) -> Float:
        """(k, k) autocorrelation of the noise between spaxels."""
        lags = autocorrelation(self.spatial_kernel)
        return np.outer(lags, lags)

    @property
    def spectral_correlation(self) -> Float:
        """(k,) autocorrelation of the noise between channels."""
        return autocorrelation(self.spectral_kernel)

    @property
    def flux_unit(self) -> float:
        """One unit of the cube in erg s-1 cm-2 A-1."""
        return float(self.unit.to(FLUX_DENSITY))

    def evolve(self, **changes: object) -> Spectrograph:
        """Return the spectrograph with fields changed, e.g. ``spatial_kernel=np.ones(1)``."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def select(self, wave_range: Range | None) -> Spectrograph:
        """Return the spectrograph with the channels whose centres lie in (low, high) A only."""
        if wave_range is None:
            return self
        low, high = wave_range
        kept = np.flatnonzero((self.wave >= low) & (self.wave <= high))
        if kept.size < 2:
            raise InputError(
                f"{self.name} has {kept.size} channels between {low} and {high} A",
                field="wave_range",
                remedy=f"choose a range within {self.wave[0]:.0f} to {self.wave[-1]:.0f} A",
            )
        cut = slice(int(kept[0]), int(kept[-1]) + 1)
        planes = {name: getattr(self, name)[cut] for name in ("wave", "lsf", "electrons", "sky", "sky_lines")}
        edges = self.edges[cut.start : cut.stop + 1]
        return replace(self, edges=edges, first=self.first + cut.start, **planes)


def autocorrelation(kernel: ArrayLike) -> Float:
    """Return the autocorrelation, peak 1, of white noise after a one-dimensional filter."""
    taps = np.asarray(kernel, dtype=np.float64)
    lags = np.correlate(taps, taps, mode="full")
    return np.asarray(lags / lags[lags.size // 2])


def gaussian_taps(sigma: float) -> Float:
    """Return the samples of a Gaussian filter of ``sigma`` pixels; one sample, hence white noise, for 0."""
    if sigma == 0:
        return np.ones(1)
    radius = int(np.ceil(3.5 * sigma))
    return np.asarray(np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2))


def _spectrograph(
    name: str,
    wave: Float,
    edges: Float,
    medium: Medium,
    lsf: Float,
    psf: PSF,
    pixel_scale: float,
    unit: float,
    *,
    area: float,
    exposure: float,
    throughput: Float,
    read_variance: float,
    spatial: Float,
    spectral: Float,
    corrected: bool,
    field: Field,
) -> Spectrograph:
    """Put an instrument together; ``area`` of the telescope in cm2, ``unit`` in erg s-1 cm-2 A-1."""
    photon = 1.98645e-8 / wave  # erg
    electrons = unit * np.diff(edges) * exposure * area * throughput / photon
    axis = SpectralAxis.build(wave, medium, lsf, edges)
    lines = sky_line_spectrum(axis) * pixel_scale**2 / unit
    sky = sky_continuum(wave) * pixel_scale**2 / unit + lines
    return Spectrograph(
        name, wave, edges, medium, 0, lsf, psf, pixel_scale, u.Unit(unit * FLUX_DENSITY), electrons, sky, lines,
        read_variance, spatial, spectral, corrected, field, exposure,
    )  # fmt: skip


def _throughput(wave: Float, peak: float, blue: float, red: float) -> Float:
    """Smooth efficiency that falls to half of ``peak`` at the wavelengths ``blue`` and ``red``."""
    edges = 1 / (1 + np.exp(-(wave - blue) / 250.0)) / (1 + np.exp((wave - red) / 350.0))
    return np.asarray(peak * edges)


def _linear(start: float, width: float, number: int) -> tuple[Float, Float]:
    """Centres and edges of channels of one width."""
    wave = np.asarray(start + width * np.arange(number), dtype=np.float64)
    return wave, np.asarray(start + width * (np.arange(number + 1) - 0.5), dtype=np.float64)


def muse(
    wave_range: Range | None = None,
    *,
    exposure: float = 3600.0,
    seeing: float = 0.8,
    spatial: ArrayLike = (0.12, 1.0, 0.12),
    spectral: ArrayLike = (0.10, 1.0, 0.10),
) -> Spectrograph:
    """Return MUSE in its wide-field mode: 4750-9350 A in air, 1.25 A, 0.2 arcsec, a Moffat PSF that shrinks redwards.

    Parameters
    ----------
    wave_range : (float, float), optional
        Keep the channels between these wavelengths (A) only.
    exposure : float
        Seconds.
    seeing : float
        FWHM of the PSF at 7000 A, arcsec.
    spatial, spectral : (k,) arrays
        Filters that correlate the noise, which imitate the resampling of the pixel table.

    Notes
    -----
    The line spread follows the UDF-10 field, FWHM = 5.866e-8 l^2 - 9.187e-4 l + 6.040 A (Bacon et al. 2017,
    10.1051/0004-6361/201730833, equation 8).
    """
    wave, edges = _linear(4750.0, 1.25, 3681)
    fwhm = 5.866e-8 * wave**2 - 9.187e-4 * wave + 6.040
    nodes = np.linspace(4400.0, 9600.0, 14)
    psf = ChromaticPSF(nodes, tuple(MoffatPSF(seeing - 3.3e-5 * (node - 7000.0), 2.8) for node in nodes))
    instrument = _spectrograph(
        "MUSE", wave, edges, "air", fwhm / FWHM_PER_SIGMA, psf, 0.2, 1e-20,
        area=4.8e5, exposure=exposure, throughput=_throughput(wave, 0.32, 4650.0, 9500.0), read_variance=40.0,
        spatial=_taps(spatial), spectral=_taps(spectral), corrected=False, field="square",
    )  # fmt: skip
    return instrument.select(wave_range)


def manga(
    wave_range: Range | None = None,
    *,
    exposure: float = 10800.0,
    sampling: Literal["log", "linear"] = "log",
    spatial_sigma: float = 1.92 / np.sqrt(2.0),
    spectral: ArrayLike = (0.06, 1.0, 0.06),
) -> Spectrograph:
    """Return MaNGA: vacuum, 10^(3.5589 + 1e-4 i) A or 3622-10353 A in steps of 1 A, 0.5 arcsec, hexagonal bundles.

    Parameters
    ----------
    wave_range, exposure, spectral
        As for `muse`.
    sampling : {"log", "linear"}
    spatial_sigma : float
        Of the filter that correlates the spaxels, in spaxels. The default makes their correlation at a distance d
        exp(-0.5 (d / 1.92)^2), as in the survey's cubes (Law et al. 2016, 10.3847/0004-6256/152/4/83, section 9.3).
    """
    if sampling == "log":
        index = np.arange(4563)
        wave = np.asarray(10 ** (3.5589 + 1e-4 * index))
        edges = np.asarray(10 ** (3.5589 + 1e-4 * (np.arange(4564) - 0.5)))
    else:
        wave, edges = _linear(3622.0, 1.0, 6732)
    resolution = np.interp(wave, [3600.0, 6000.0, 6300.0, 10400.0], [1450.0, 2000.0, 1850.0, 2500.0])
    nodes = np.linspace(3600.0, 10400.0, 5)
    psf = ChromaticPSF(nodes, tuple(GaussianPSF(2.55 - 3.5e-5 * (node - 5500.0)) for node in nodes))
    instrument = _spectrograph(
        "MaNGA", wave, edges, "vacuum", wave / resolution / FWHM_PER_SIGMA, psf, 0.5, 1e-17,
        area=3.6e4, exposure=exposure, throughput=_throughput(wave, 0.24, 3800.0, 10000.0), read_variance=25.0,
        spatial=gaussian_taps(spatial_sigma), spectral=_taps(spectral), corrected=False, field="hexagon",
    )  # fmt: skip
    return instrument.select(wave_range)


def pmas(
    wave_range: Range | None = None,
    *,
    exposure: float = 2700.0,
    spatial_sigma: float = 0.88,
    spectral: ArrayLike = (0.08, 1.0, 0.08),
) -> Spectrograph:
    """Return PMAS/PPak as CALIFA used it in the V500 setup: air, 3749-7501 A in steps of 2 A, 1 arcsec, hexagonal.

    Parameters
    ----------
    wave_range, exposure, spectral
        As for `muse`.
    spatial_sigma : float
        Of the filter that correlates the spaxels, in spaxels. The default makes the noise of a sum over N of them
        about 1 + 1.07 log10(N) times that of independent spaxels, as in the survey's cubes.

    Notes
    -----
    FWHM of the line spread 6 A (Garcia-Benito et al. 2015, 10.1051/0004-6361/201425080); the published cubes are
    corrected for the extinction by the Milky Way.
    """
    wave, edges = _linear(3749.0, 2.0, 1877)
    nodes = np.linspace(3600.0, 7600.0, 5)
    psf = ChromaticPSF(nodes, tuple(MoffatPSF(2.6 - 6e-5 * (node - 5500.0), 3.5) for node in nodes))
    instrument = _spectrograph(
        "PMAS", wave, edges, "air", np.full(wave.size, 6.0 / FWHM_PER_SIGMA), psf, 1.0, 1e-16,
        area=8.0e4, exposure=exposure, throughput=_throughput(wave, 0.14, 3800.0, 8500.0), read_variance=30.0,
        spatial=gaussian_taps(spatial_sigma), spectral=_taps(spectral), corrected=True, field="hexagon",
    )  # fmt: skip
    return instrument.select(wave_range)


def _taps(values: ArrayLike) -> Float:
    taps = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if taps.ndim != 1 or taps.size % 2 == 0:
        raise InputError(f"a filter has shape {taps.shape}; expected an odd number of taps", field="kernel")
    return taps


SPECTROGRAPHS: dict[str, Callable[..., Spectrograph]] = {"muse": muse, "manga": manga, "pmas": pmas}


def spectrograph(name: str, wave_range: Range | None = None, **options: object) -> Spectrograph:
    """Return a spectrograph by its name in `SPECTROGRAPHS`; the options are those of its function."""
    if name not in SPECTROGRAPHS:
        raise InputError(
            f"{name!r} is no spectrograph",
            field="instrument",
            remedy=f"choose one of {', '.join(SPECTROGRAPHS)}",
        )
    return SPECTROGRAPHS[name](wave_range, **options)
