"""`Bandpass`: a throughput curve, its widths and its means.

The throughput counts photons (electrons out per photon in), as the curves of HST, SDSS and SVO do, so a mean
over the band weights the flux density with wavelength times throughput.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.linelist import Medium, check_medium, convert_medium
from skyloom.errors import InputError, ShapeError

__all__ = ["Bandpass", "HeaderWidth", "photbw_width"]

Float = NDArray[np.float64]
SPEED_OF_LIGHT = 2.99792458e18  # A/s, exact
AB_ZERO = 3.630780547701014e-20  # erg s-1 cm-2 Hz-1: 10**(-48.6 / 2.5), Oke & Gunn 1983, 10.1086/160817


@dataclass(frozen=True, slots=True, eq=False)
class Bandpass:
    """A photon-counting throughput, linear between its samples and zero outside.

    Parameters
    ----------
    wave : (n,) array
        Wavelengths in A, ascending.
    throughput : (n,) array
        Fraction of the photons that is counted; a common factor changes nothing but `throughput_at`.
    name : str
        Name of the band, e.g. ``F657N``.
    medium : {"vacuum", "air"}
        What the wavelengths are measured in.

    Raises
    ------
    ShapeError
        When the arrays differ in shape or are shorter than 2.
    InputError
        When wavelengths do not ascend, or the throughput is negative, not finite or zero everywhere.
    """

    wave: Float
    throughput: Float
    name: str = ""
    medium: Medium = "vacuum"

    def __post_init__(self) -> None:
        wave = np.asarray(self.wave, dtype=np.float64)
        throughput = np.asarray(self.throughput, dtype=np.float64)
        where = self.name or "bandpass"
        if wave.ndim != 1 or wave.shape != throughput.shape or wave.size < 2:
            raise ShapeError(
                f"wave has shape {wave.shape}, throughput {throughput.shape}; expected two equal vectors",
                source=where,
            )
        if not (np.all(np.isfinite(wave)) and np.all(np.diff(wave) > 0) and wave[0] > 0):
            raise InputError("wavelengths must be positive and ascend", source=where, field="wave")
        if not np.all(throughput >= 0) or not 0 < throughput.max() < np.inf:
            raise InputError(
                f"throughput runs from {throughput.min()} to {throughput.max()}; expected finite, >= 0, not all 0",
                source=where,
                field="throughput",
            )
        check_medium(self.medium, where)
        object.__setattr__(self, "wave", wave)
        object.__setattr__(self, "throughput", throughput)

    @classmethod
    def tophat(
        cls,
        centre: float,
        width: float,
        *,
        edge: float = 1.0,
        peak: float = 1.0,
        name: str = "",
        medium: Medium = "vacuum",
    ) -> Bandpass:
        """Make a box of ``width`` A between half-height points, whose edges rise over ``edge`` A."""
        if not 0 < edge <= width:
            raise InputError(
                f"edge is {edge} A; expected more than 0 and at most the width, {width} A", field="edge"
            )
        offsets = np.array([-width - edge, -width + edge, width - edge, width + edge]) / 2
        if edge == width:
            return cls(centre + offsets[[0, 1, 3]], np.array([0.0, peak, 0.0]), name, medium)
        return cls(centre + offsets, np.array([0.0, peak, peak, 0.0]), name, medium)

    @classmethod
    def gaussian(
        cls, centre: float, fwhm: float, *, peak: float = 1.0, name: str = "", medium: Medium = "vacuum"
    ) -> Bandpass:
        """Make a Gaussian of ``fwhm`` A, with 40 samples per standard deviation, out to 5 of them."""
        if fwhm <= 0:
            raise InputError(f"fwhm is {fwhm} A; expected more than 0", field="fwhm")
        units = np.linspace(-5.0, 5.0, 401)
        sigma = fwhm / np.sqrt(8 * np.log(2))
        return cls(centre + sigma * units, peak * np.exp(-0.5 * units**2), name, medium)

    @property
    def pivot(self) -> float:
        """Pivot wavelength in A: sqrt(int T l dl / int T / l dl).

        It converts the mean flux density per wavelength into that per frequency: f_nu = f_lambda pivot^2 / c
        (Koornneef et al. 1986, HiA 7, 833; Tokunaga & Vacca 2005, 10.1086/429382).
        """
        return float(np.sqrt(self._moment(1) / self._moment(-1)))

    @property
    def photon_mean(self) -> float:
        """Mean wavelength in A of the photons counted from a source of constant f_lambda.

        int T l^2 dl / int T l dl.
        """
        return self._moment(2) / self._moment(1)

    @property
    def photon_integral(self) -> float:
        """Int T l dl, in A2: the mean flux density of a line of flux F at l is F T(l) l over this."""
        return self._moment(1)

    @property
    def rectangular_width(self) -> float:
        """Width in A of the box that has the same integral and the same maximum: int T dl / max T."""
        return float(self._moment(0) / self.throughput.max())

    @property
    def rms_width(self) -> float:
        """RMS width in A, the ``PHOTBW`` of HST headers; a box has 0.29 of its width.

        l0 sqrt(int T ln(l / l0)^2 dl / l / int T dl / l) with ln l0 = int T ln l dl / l / int T dl / l
        (Schneider, Gunn & Hoessel 1983, 10.1086/160602).
        """
        points, weights = self._quadrature()
        measure = weights * self.throughput_at(points) / points
        logarithm = np.log(points)
        mean = np.sum(measure * logarithm) / measure.sum()
        return float(np.exp(mean) * np.sqrt(np.sum(measure * (logarithm - mean) ** 2) / measure.sum()))

    @property
    def limits(self) -> tuple[float, float]:
        """First and last wavelength in A between which the throughput is not zero."""
        inside = np.flatnonzero(self.throughput > 0)
        first, last = max(inside[0] - 1, 0), min(inside[-1] + 1, self.wave.size - 1)
        return float(self.wave[first]), float(self.wave[last])

    def throughput_at(self, wave: ArrayLike) -> Float:
        """Return the throughput at wavelengths (A, in `medium`); 0 outside the curve."""
        return np.asarray(
            np.interp(np.asarray(wave, dtype=np.float64), self.wave, self.throughput, left=0.0, right=0.0)
        )

    def line_width(self, wave: float, medium: Medium = "vacuum") -> float:
        """Return the width in A that turns the band's mean flux density of a line into the line's flux.

        Parameters
        ----------
        wave : float
            Observed wavelength of the line, A.
        medium : {"vacuum", "air"}
            What it is measured in.

        Returns
        -------
        float
            W = int T l dl / (T(wave) wave): a line of flux F adds F / W to the photon-weighted mean flux density of
            the band, so flux and its error are those of the mean times W. For a box of constant throughput it is
            the width of the box, for other curves it depends on where the line sits.

        Raises
        ------
        InputError
            When the band does not let the line through.
        """
        observed = float(convert_medium(np.asarray(wave, dtype=np.float64), medium, self.medium))
        throughput = float(self.throughput_at(observed))
        if not throughput > 0:
            raise InputError(
                f"the throughput at {observed:.2f} A ({self.medium}) is 0; the band spans "
                f"{self.limits[0]:.1f}-{self.limits[1]:.1f} A",
                source=self.name or None,
                field="wave",
                remedy="check the redshift and the filter",
            )
        return self.photon_integral / (throughput * observed)

    def to_medium(self, medium: Medium) -> Bandpass:
        """Return the same band with wavelengths in ``medium``."""
        return replace(self, wave=convert_medium(self.wave, self.medium, medium), medium=medium)

    def covered_fraction(self, start: float, stop: float) -> float:
        """Return the fraction of int T l dl that lies between two wavelengths (A, in `medium`)."""
        points, weights = self._quadrature(np.array([start, stop]))
        inside = (points >= start) & (points <= stop)
        measure = weights * points * self.throughput_at(points)
        return float(measure[inside].sum() / measure.sum())

    def mean_weights(
        self, wave: ArrayLike, medium: Medium = "vacuum", *, minimum_coverage: float = 1.0
    ) -> Float:
        """Return the weights whose sum with a flux density is its photon-weighted mean over the band.

        Parameters
        ----------
        wave : (n_wave,) array
            Wavelengths in A at which the flux density is known, ascending.
        medium : {"vacuum", "air"}
            What they are measured in.
        minimum_coverage : float
            Smallest acceptable fraction of int T l dl within ``wave``.

        Returns
        -------
        (n_wave,) float64 array, sum 1
            The mean is ``weights @ flux``, the variance of independent pixels ``weights**2 @ variance``.

        Raises
        ------
        InputError
            When the wavelengths cover less than ``minimum_coverage`` of the band.

        Notes
        -----
        <f> = int f T l dl / int T l dl, over the part of the band that is covered. Exact for an f that is linear
        between its samples: on the union of both grids the integrand is a cubic, and the quadrature exact.
        """
        samples = convert_medium(np.asarray(wave, dtype=np.float64), medium, self.medium)
        if samples.ndim != 1 or samples.size < 2 or not np.all(np.diff(samples) > 0):
            raise ShapeError(f"wave has shape {samples.shape}; expected an ascending vector", field="wave")
        covered = self.covered_fraction(samples[0], samples[-1])
        if covered < minimum_coverage - 1e-9 or covered == 0:
            raise InputError(
                f"{samples[0]:.1f}-{samples[-1]:.1f} A hold {covered:.4f} of the band, which spans "
                f"{self.limits[0]:.1f}-{self.limits[1]:.1f} A",
                source=self.name or None,
                field="wave",
                remedy="give a longer spectrum or a lower minimum_coverage",
            )
        points, quadrature = self._quadrature(samples)
        inside = (points >= samples[0]) & (points <= samples[-1])
        points = points[inside]
        measure = quadrature[inside] * points * self.throughput_at(points)
        left = np.clip(np.searchsorted(samples, points, side="right") - 1, 0, samples.size - 2)
        fraction = (points - samples[left]) / (samples[left + 1] - samples[left])
        weights = np.bincount(left, measure * (1 - fraction), samples.size)
        weights += np.bincount(left + 1, measure * fraction, samples.size)
        return np.asarray(weights / weights.sum())

    def mean_flux_density(
        self, wave: ArrayLike, flux: ArrayLike, medium: Medium = "vacuum", *, minimum_coverage: float = 1.0
    ) -> Float:
        """Return the photon-weighted mean over the band of flux densities (..., n_wave); see `mean_weights`."""
        values = np.asarray(flux, dtype=np.float64)
        weights = self.mean_weights(wave, medium, minimum_coverage=minimum_coverage)
        if values.shape[-1:] != weights.shape:
            raise ShapeError(f"flux has shape {values.shape}; expected (..., {weights.size})", field="flux")
        used = weights > 0
        return np.asarray(values[..., used] @ weights[used])

    def photflam(self, ab_zero_point: float) -> float:
        """Return the erg s-1 cm-2 A-1 of one count per second, of which ``ab_zero_point`` is the magnitude."""
        return float(AB_ZERO * SPEED_OF_LIGHT / self.pivot**2 * 10 ** (-0.4 * ab_zero_point))

    def _moment(self, power: Literal[-1, 0, 1, 2]) -> float:
        points, weights = self._quadrature()
        return float(np.sum(weights * self.throughput_at(points) * points**power))

    def _quadrature(self, breaks: Float | None = None) -> tuple[Float, Float]:
        """Gauss-Legendre points and weights in every interval between the samples and further ``breaks``.

        Order 6 is exact for polynomials up to degree 11, and to 1e-11 for logarithms and 1 / l in wide boxes.
        """
        nodes = self.wave
        if breaks is not None:
            inside = breaks[(breaks > nodes[0]) & (breaks < nodes[-1])]
            nodes = np.union1d(nodes, inside)
        abscissae, factors = _gauss_legendre()
        half = np.diff(nodes)[:, np.newaxis] / 2
        points = nodes[:-1, np.newaxis] + half * (1.0 + abscissae)
        return points.ravel(), (half * factors).ravel()


@cache
def _gauss_legendre() -> tuple[Float, Float]:
    """Points and weights of order 6; finding them takes longer than to use them."""
    points, weights = np.polynomial.legendre.leggauss(6)
    return points, weights


@dataclass(frozen=True, slots=True)
class HeaderWidth:
    """Which of a band's widths a header's ``PHOTBW`` is.

    Parameters
    ----------
    kind : {"rms", "rectangular", "neither"}
        The width it agrees with.
    photbw, rms, rectangular : float
        The header's value and the two widths of the curve, A.
    leak : float
        Share of the throughput that would have to lie one tenth of the pivot wavelength off the band to raise the RMS
        width of the curve to ``photbw``, to first order; 0 where it exceeds that already.
    """

    kind: Literal["rms", "rectangular", "neither"]
    photbw: float
    rms: float
    rectangular: float
    leak: float

    def describe(self) -> str:
        """Return one sentence for people."""
        widths = (
            f"the curve has an RMS width of {self.rms:.2f} A, a rectangular one of {self.rectangular:.2f} A"
        )
        if self.kind == "rms":
            return f"PHOTBW = {self.photbw:.2f} A is the RMS width ({widths}); it never stands for the latter"
        if self.kind == "rectangular":
            return f"PHOTBW = {self.photbw:.2f} A is the rectangular width, not the RMS one of HST ({widths})"
        hint = (
            f"; an RMS width, if {self.leak:.2%} of the throughput leaks in 10 % of the pivot off the band"
            if self.leak > 0
            else ""
        )
        return f"PHOTBW = {self.photbw:.2f} A is neither width of the band ({widths}){hint}"


def photbw_width(photbw: float, bandpass: Bandpass, *, tolerance: float = 0.15) -> HeaderWidth:
    """Tell which width a header's ``PHOTBW`` agrees with; HST means the RMS width, a third of the rectangular one.

    Parameters
    ----------
    photbw : float
        As in the header, A.
    bandpass : Bandpass
        Its whole curve: the RMS width counts light by the square of its distance, so that a leak of half a per cent far
        from a narrow band may dominate it (150 A for F658N of WFC3/UVIS, which is 28 A wide), and curves that were
        cut off close to the band miss that.
    tolerance : float
        Largest relative difference that counts as agreement; the nearer width wins.

    Raises
    ------
    InputError
        When ``photbw`` is not a positive number.
    """
    if not 0 < photbw < np.inf:
        raise InputError(
            f"PHOTBW is {photbw}; expected a positive width in A",
            source=bandpass.name or None,
            field="PHOTBW",
            remedy="check the header",
        )
    rms, rectangular = bandpass.rms_width, bandpass.rectangular_width
    distance = 0.1 * bandpass.pivot
    leak = max(0.0, photbw**2 - rms**2) / distance**2
    off_rms, off_rectangular = abs(photbw / rms - 1.0), abs(photbw / rectangular - 1.0)
    kind: Literal["rms", "rectangular", "neither"] = "neither"
    if min(off_rms, off_rectangular) <= tolerance:
        kind = "rms" if off_rms <= off_rectangular else "rectangular"
    return HeaderWidth(kind, float(photbw), rms, rectangular, leak)
