"""Slow twins of the stellar fit: broadening by direct sums, dense non-negative least squares, scipy's optimiser."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import least_squares, nnls

from skyloom.core.linelist import convert_medium
from skyloom.core.spectra import Spectra
from skyloom.core.templates import TemplateLibrary
from skyloom.mock.scenes.templates import SPEED_OF_LIGHT
from skyloom.spectral.axes.attenuation import attenuation_curve
from skyloom.spectral.axes.grids import pixel_edges


def broadened(library: TemplateLibrary, edges, medium, redshift, velocity, sigma, lsf, samples=3, step=6.0):
    """Templates (n_wave, n) averaged over channels; ``lsf`` (n_wave,) in A. Every Gaussian is summed by hand."""
    vacuum = convert_medium(library.wave, library.medium, "vacuum")
    spline = CubicSpline(np.log(vacuum), library.flux, axis=1)
    own = np.interp(np.arange(edges.size - 1), np.arange(lsf.size), lsf)
    nodes, shares = np.polynomial.legendre.leggauss(samples)
    out = np.zeros((edges.size - 1, len(library)))
    for channel, (low, high) in enumerate(pairwise(edges)):
        for node, share in zip(nodes, shares, strict=True):
            observed = convert_medium(low + 0.5 * (node + 1) * (high - low), medium, "vacuum")
            rest = float(observed) / (1 + redshift)
            template = np.interp(rest, vacuum, library.sigma / vacuum)
            spread2 = (own[channel] / observed) ** 2 - template**2 + (sigma / SPEED_OF_LIGHT) ** 2
            centre = np.log(rest) - np.log1p(velocity / SPEED_OF_LIGHT)
            spread = np.sqrt(max(spread2, 0.0))
            if spread < 1e-9:
                out[channel] += 0.5 * share * spline(centre)
                continue
            u = np.arange(-6 * spread, 6 * spread, min(step / SPEED_OF_LIGHT, spread / 4))
            weights = np.exp(-0.5 * (u / spread) ** 2)
            out[channel] += 0.5 * share * (spline(centre + u) @ weights) / weights.sum()
    return out


def fit_slowly(spectra: Spectra, row: int, library: TemplateLibrary, redshift, used, start=(0.0, 120.0, 0.3)):
    """Velocity, dispersion, A_V, weights and chi square of one spectrum on the channels ``used``."""
    edges = pixel_edges(spectra.wave)
    lsf = np.broadcast_to(np.asarray(spectra.lsf, float), spectra.wave.shape)
    dust = attenuation_curve(convert_medium(spectra.wave, spectra.medium, "vacuum") / (1 + redshift))
    error = np.sqrt(spectra.variance[row].astype(float))
    data = spectra.data[row].astype(float)
    scale = library.flux.mean(axis=1)
    found = {}

    def residual(parameters):
        velocity, sigma, av = parameters
        columns = broadened(
            library, edges, spectra.medium, redshift, velocity, sigma, lsf, samples=2, step=20.0
        )
        columns = columns / scale * 10 ** (-0.4 * av * dust)[:, np.newaxis]
        weights, _ = nnls((columns / error[:, np.newaxis])[used], (data / error)[used])
        found.update(weights=weights / scale, model=columns @ weights)
        return ((data - found["model"]) / error)[used]

    result = least_squares(
        residual, start, bounds=([-500, 0, 0], [500, 600, 4]), x_scale=[20, 20, 0.1], diff_step=1e-3
    )
    residual(result.x)
    return (*result.x, found["weights"], 2 * result.cost, found["model"])
