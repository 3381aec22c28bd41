"""A stand-in for the package ppxf with the call and the attributes that its documentation describes.

It fits the same model (templates shifted and broadened in ln(wavelength), dust, polynomials) with scipy, so that what
is handed over and taken back is tested with numbers. Nothing of pPXF is in it.
"""

from __future__ import annotations

import inspect
import sys
import types
from typing import Any

import numpy as np
from numpy.polynomial import legendre
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import least_squares, nnls

C = 299792.458


class ppxf:  # noqa: N801  # the name that callers import
    """Arguments and attributes of ``ppxf.ppxf.ppxf`` that are used here."""

    def __init__(
        self, templates, galaxy, noise, velscale, start, *, bounds=None, clean=False, degree=4, dust=None,
        goodpixels=None, lam=None, lam_temp=None, mdegree=0, moments=2, plot=False, quiet=False,
    ) -> None:  # fmt: skip
        assert np.all((noise > 0) & np.isfinite(noise)), "NOISE must be a positive vector"
        assert np.all(np.isfinite(galaxy))
        assert np.isclose(velscale, C * np.diff(np.log(lam[[0, -1]]))[0] / (lam.size - 1))
        assert lam_temp.size == templates.shape[0]
        assert lam_temp[0] <= lam[goodpixels[0]] / np.exp((bounds[0][1] + 900) / C)
        assert lam_temp[-1] >= lam[goodpixels[-1]] / np.exp((bounds[0][0] - 900) / C)
        assert np.all(np.diff(goodpixels) > 0)
        assert quiet
        assert not plot
        self.clean, self.goodpixels, self.dust = clean, goodpixels, dust
        self._given = templates, galaxy, noise, velscale, lam, lam_temp, degree, mdegree
        first = [*start, *(dust[0]["start"] if dust else []), *[0.0] * mdegree]
        limits = [*bounds, *(dust[0]["bounds"] if dust else []), *[(-1.0, 1.0)] * mdegree]
        free = np.array([moments > 0, moments > 0, *[True] * (len(first) - 2)])
        values = np.array(first, dtype=float)

        def residual(part: Any) -> Any:
            values[free] = part
            return self._evaluate(values)[goodpixels]

        if free.any():
            low, high = np.array(limits, dtype=float).T
            found = least_squares(
                residual, values[free].clip(low[free] + 1e-6, high[free] - 1e-6), bounds=(low[free], high[free]),
                diff_step=1e-3, x_scale=np.maximum(np.abs(values[free]), 0.1),
            ).x  # fmt: skip
            values[free] = found
        rest = self._evaluate(values)[goodpixels]
        self.sol = values[:2].copy()
        if dust:
            dust[0]["sol"] = values[2:3].copy()
        self.chi2 = float(rest @ rest) / (goodpixels.size - free.sum())

    def _evaluate(self, values: Any) -> Any:
        templates, galaxy, noise, velscale, lam, lam_temp, degree, mdegree = self._given
        broad = gaussian_filter1d(templates, values[1] / velscale, axis=0, mode="nearest")
        stars = CubicSpline(np.log(lam_temp), broad)(np.log(lam) - values[0] / C)
        if self.dust:
            stars *= self.dust[0]["func"](lam, values[2])[:, np.newaxis]
        x = np.linspace(-1, 1, lam.size)
        self.mpoly = legendre.legval(x, np.append(1.0, values[len(values) - mdegree :])) if mdegree else None
        if mdegree:
            stars *= self.mpoly[:, np.newaxis]
        polynomials = legendre.legvander(x, degree) if degree >= 0 else np.zeros((lam.size, 0))
        self.matrix = np.hstack([polynomials, stars])
        signed = np.hstack([polynomials, -polynomials, stars]) / noise[:, np.newaxis]
        weights, _ = nnls(signed[self.goodpixels], (galaxy / noise)[self.goodpixels])
        n = polynomials.shape[1]
        both = np.append(weights[:n] - weights[n : 2 * n], weights[2 * n :])
        self.weights = both[n:]
        self.bestfit = self.matrix @ both
        return (galaxy - self.bestfit) / noise


KEYWORDS = tuple(inspect.signature(ppxf.__init__).parameters)


def install(monkeypatch: Any) -> list[dict[str, Any]]:
    """Put the stand-in where ``import ppxf.ppxf`` finds it; return the list that calls are noted in."""
    calls: list[dict[str, Any]] = []

    def noted(*args: Any, **options: Any) -> ppxf:
        calls.append(options)
        return ppxf(*args, **options)

    package, module = types.ModuleType("ppxf"), types.ModuleType("ppxf.ppxf")
    module.ppxf = noted  # type: ignore[attr-defined]
    package.ppxf = module  # type: ignore[attr-defined]
    package.__version__ = "9.9-mock"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ppxf", package)
    monkeypatch.setitem(sys.modules, "ppxf.ppxf", module)
    return calls
