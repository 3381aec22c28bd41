"""Spectra, continuum and redshifts in the form that the kernels of the line fit want."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.linelist import LineList
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands
from skyloom.errors import InputError, ShapeError
from skyloom.spectral.axes.grids import pixel_edges

__all__ = ["Inputs", "check_inputs", "lines_on_axis"]

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


class Inputs(NamedTuple):
    """Arrays of n spectra: ``values`` without continuum, ``variance`` 0 where masked, ``lsf`` (1 or n, n_wave) A,
    ``lags`` (n_wave, k), ``modes`` (n, m, n_wave) of the continuum's covariance, ``scale`` (n,) 1 + redshift,
    ``continuum`` and its variance (n, n_wave).
    """

    edges: Float
    values: Float32
    variance: Float32
    mask: NDArray[np.bool_]
    lsf: Float
    lags: Float
    modes: Float32
    scale: Float
    continuum: Float32
    continuum_variance: Float32

    def select(self, rows: NDArray[np.int64]) -> Inputs:
        """Return the inputs of some spectra."""
        lsf = self.lsf[rows] if len(self.lsf) > 1 else self.lsf
        return self._replace(
            values=self.values[rows], variance=self.variance[rows], mask=self.mask[rows], lsf=lsf,
            modes=self.modes[rows], scale=self.scale[rows], continuum=self.continuum[rows],
            continuum_variance=self.continuum_variance[rows],
        )  # fmt: skip


def check_inputs(spectra: Spectra, redshift: float | ArrayLike, continuum: Any) -> Inputs:
    """Check what a line fit is given.

    Raises
    ------
    ShapeError, InputError
        When redshifts or the continuum do not fit the spectra, a redshift is impossible, or the line-spread function
        is missing.
    """
    n, n_wave = spectra.shape
    z = np.asarray(redshift, dtype=np.float64)
    if z.shape not in ((), (n,)):
        raise ShapeError(f"redshift has shape {z.shape}; expected a number or ({n},)", field="redshift")
    if not np.all(np.isfinite(z)) or not np.all(z > -1):
        raise InputError(
            f"redshifts run from {z.min()} to {z.max()}; expected more than -1", field="redshift"
        )
    if spectra.lsf is None:
        raise InputError(
            "the spectra have no line-spread function", field="lsf",
            remedy="give its sigma in A: spectra.evolve(lsf=...)",
        )  # fmt: skip
    lsf = np.asarray(spectra.lsf, dtype=np.float64)
    lsf = np.ascontiguousarray(np.broadcast_to(lsf, (len(lsf) if lsf.ndim == 2 else 1, n_wave)))
    model, variance, modes = _continuum_planes(continuum, spectra)
    mask = spectra.mask | ~np.isfinite(spectra.data) | ~np.isfinite(model)
    values = np.where(mask, 0.0, spectra.data - model).astype(np.float32)
    return Inputs(
        pixel_edges(spectra.wave), values, np.where(mask, 0.0, spectra.variance).astype(np.float32), mask,
        np.where(np.isfinite(lsf) & (lsf > 0), lsf, np.nanmedian(lsf)), lag_bands(spectra.correlation, n_wave), modes,
        np.ascontiguousarray(1.0 + np.broadcast_to(z, n)), model, variance,
    )  # fmt: skip


def _continuum_planes(continuum: Any, spectra: Spectra) -> tuple[Float32, Float32, Float32]:
    """Model, its variance and the leading modes of its covariance."""
    shape = spectra.shape
    zeros = np.zeros(shape, dtype=np.float32)
    nothing = np.zeros((shape[0], 0, shape[1]), dtype=np.float32)
    if continuum is None:
        return zeros, zeros, nothing
    model = np.asarray(getattr(continuum, "model", continuum), dtype=np.float32)
    if model.shape != shape:
        raise ShapeError(f"continuum has shape {model.shape}; expected {shape}", field="continuum")
    variance = getattr(continuum, "variance", None)
    modes = getattr(continuum, "modes", None)
    return (
        model,
        zeros if variance is None else np.asarray(variance, dtype=np.float32),
        nothing if modes is None else np.nan_to_num(np.asarray(modes, dtype=np.float32)),
    )


def lines_on_axis(lines: LineList, spectra: Spectra, scale: Float) -> LineList:
    """Return the lines that fall on the axis for any of the redshifts.

    Raises
    ------
    InputError
        When none does.
    """
    rest = lines.wavelengths(spectra.medium)  # type: ignore[arg-type]
    inside = (rest * scale.max() > spectra.wave[0]) & (rest * scale.min() < spectra.wave[-1])
    if not inside.any():
        raise InputError(
            f"at redshift {np.median(scale) - 1:.5g} none of the {len(lines)} lines falls on the axis from"
            f" {spectra.wave[0]:.0f} to {spectra.wave[-1]:.0f} A",
            field="redshift",
            remedy="check the redshift, and whether the spectra are in the rest frame already",
        )
    return lines.select(key for key, there in zip(lines.keys, inside, strict=True) if there)
