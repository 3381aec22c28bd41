"""Wavelength channels of a spectrograph: samples of a spectrum at their centres, or averages between their edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from skyloom.core.linelist import Medium, convert_medium
from skyloom.errors import InputError, ShapeError

__all__ = ["SpectralAxis", "channel_edges"]

Float = NDArray[np.float64]
# Beyond this many standard deviations a line is left out: 1e-32 of its light.
REACH = 12.0


def channel_edges(wave: ArrayLike) -> Float:
    """Return the edges of channels from their centres: midpoints, and half a step beyond the ends."""
    centres = np.asarray(wave, dtype=np.float64)
    if centres.ndim != 1 or centres.size < 2:
        raise ShapeError(f"wave has shape {centres.shape}; expected two or more channels", field="wave")
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


@dataclass(frozen=True, slots=True, eq=False)
class SpectralAxis:
    """Channels in vacuum wavelengths, and the points at which smooth spectra are evaluated.

    Parameters
    ----------
    vacuum : (n_wave,) array
        Centres, A.
    lsf : (n_wave,) array
        Standard deviation of the line-spread function, A in vacuum.
    edges : (n_wave + 1,) array or None
        None: spectra are sampled at the centres.
    width : (n_wave,) array
        Of the channels in the medium of the axis, A.
    points : (n_points * n_wave,) array
        Where smooth spectra are evaluated.
    point_lsf : same shape
        The LSF there.
    weights : (n_points,) array
        Of the points of a channel.
    """

    vacuum: Float
    lsf: Float
    edges: Float | None
    width: Float
    points: Float
    point_lsf: Float
    weights: Float

    @classmethod
    def build(
        cls, wave: ArrayLike, medium: Medium = "vacuum", lsf: ArrayLike = 0.0, edges: ArrayLike | None = None
    ) -> SpectralAxis:
        """Make the axis; the parameters are those of `skyloom.mock.scenes.scene.Scene.spectra`."""
        axis = np.atleast_1d(np.asarray(wave, dtype=np.float64))
        vacuum = convert_medium(axis, medium, "vacuum")
        spread = np.broadcast_to(np.asarray(lsf, dtype=np.float64), vacuum.shape)
        if edges is None:
            return cls(vacuum, spread, None, np.ones(axis.size), vacuum, spread, np.ones(1))
        limits = np.asarray(edges, dtype=np.float64)
        if limits.shape != (axis.size + 1,):
            raise ShapeError(f"edges has shape {limits.shape}; expected ({axis.size + 1},)", field="edges")
        if np.any(axis <= limits[:-1]) or np.any(axis >= limits[1:]):
            raise InputError("a wavelength does not lie between the edges of its channel", field="edges")
        border = convert_medium(limits, medium, "vacuum")
        # An A in air is longer than one in vacuum; widths in the medium of the axis keep line fluxes.
        stretch = np.diff(border) / np.diff(limits)
        nodes, weights = np.polynomial.legendre.leggauss(3)
        points = 0.5 * (border[1:] + border[:-1]) + 0.5 * nodes[:, np.newaxis] * np.diff(border)
        spread = spread * stretch
        return cls(
            vacuum, spread, border, np.diff(limits), points.ravel(), np.tile(spread, nodes.size), weights / 2
        )

    @property
    def size(self) -> int:
        """Number of channels."""
        return int(self.vacuum.size)

    def average(self, spectra: Float) -> Float:
        """Return the channels' mean density per A of the axis, (n, n_wave), of densities at `points`."""
        if self.edges is None:
            return spectra
        values = spectra.reshape(spectra.shape[0], self.weights.size, self.size)
        mean = np.einsum("npw,p->nw", values, self.weights)
        return np.asarray(mean * (np.diff(self.edges) / self.width))

    def add_lines(self, spectra: Float, flux: Float, centre: Float, sigma: Float) -> None:
        """Add a line of each of n Gaussians to their spectra.

        Parameters
        ----------
        spectra : (n, n_wave) array
            Changed in place.
        flux, centre, sigma : (n,) arrays
            Vacuum wavelengths, A; ``sigma`` without the LSF.
        """
        lit = np.flatnonzero(flux)
        if lit.size == 0:
            return
        lsf = np.interp(centre[lit], self.vacuum, self.lsf)
        reach = REACH * float(np.hypot(sigma[lit].max(), self.lsf.max()))
        low, high = centre[lit].min() - reach, centre[lit].max() + reach
        start, stop = (int(np.searchsorted(self.vacuum, limit)) for limit in (low, high))
        start, stop = max(start - 1, 0), min(stop + 1, self.size)
        place, amplitude = centre[lit, np.newaxis], flux[lit, np.newaxis]
        if self.edges is None:
            total = np.hypot(sigma[lit, np.newaxis], self.lsf[start:stop])
            distance = (self.vacuum[start:stop] - place) / total
            profile = np.exp(-0.5 * distance**2) / (np.sqrt(2 * np.pi) * total)
        else:
            total = np.hypot(sigma[lit], lsf)[:, np.newaxis]
            distance = (self.edges[start : stop + 1] - place) / np.maximum(total, 1e-6)
            profile = np.diff(ndtr(distance), axis=1) / self.width[start:stop]
        spectra[lit, start:stop] += amplitude * profile
