"""Line fits: time per spectrum and accuracy, beside scipy's curve_fit and a Levenberg-Marquardt in plain Python.

Run with ``python benchmarks/bench_lines.py [n]``; times are CPU times on one core with a warm cache.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.special import erf

from skyloom.core.linelist import LineList, default_lines
from skyloom.core.spectra import Spectra
from skyloom.spectral.lines.linefit import fit_lines

LIGHT = 299792.458
UNIT = "1e-20 erg/(s cm2 AA)"
NII = 0.3279
VELOCITY, SIGMA = 40.0, 60.0


def edges_of(wave: np.ndarray) -> np.ndarray:
    step = wave[1] - wave[0]
    return np.append(wave - 0.5 * step, wave[-1] + 0.5 * step)


def profile(edges: np.ndarray, rest: float, lsf: float, velocity: float, sigma: float) -> np.ndarray:
    width = np.hypot(lsf, sigma / LIGHT * rest)
    x = (edges - rest * (1 + velocity / LIGHT)) / (np.sqrt(2) * width)
    return 0.5 * np.diff(erf(x)) / np.diff(edges)


def spectra_of(
    wave: np.ndarray, lsf: np.ndarray, lines: LineList, fluxes: dict[str, float], n: int, level: float
) -> Spectra:
    edges, clean = edges_of(wave), np.full(wave.size, level)
    for key, flux in fluxes.items():
        rest = lines[key].rest("air")
        clean += flux * profile(edges, rest, float(np.interp(rest, wave, lsf)), VELOCITY, SIGMA)
    data = (clean + np.random.default_rng(1).normal(size=(n, wave.size))).astype(np.float32)
    return Spectra(data, np.ones_like(data), np.zeros(data.shape, bool), UNIT, wave, "air", lsf=lsf)


def first_of(spectra: Spectra, n: int) -> Spectra:
    return spectra.evolve(data=spectra.data[:n], variance=spectra.variance[:n], mask=spectra.mask[:n])


def timed(call: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def group_model(edges: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Halpha and [N II] with shared kinematics on a straight line: v, sigma, two fluxes, two coefficients."""
    middle = 0.5 * (edges[1:] + edges[:-1])
    total = p[4] + p[5] * (middle - middle.mean()) / 50
    for rest, flux in ((6548.05, NII * p[3]), (6562.80, p[2]), (6583.45, p[3])):
        total = total + flux * profile(edges, rest, 1.1, p[0], p[1])
    return np.asarray(total)


def fit_scipy(edges: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    start = [0.0, 80.0, 20.0, 10.0, 3.0, 0.0]
    with warnings.catch_warnings():
        # At amplitude 3 a fit in a hundred ends without a covariance; it is counted as not fitted.
        warnings.simplefilter("ignore", OptimizeWarning)
        return _fit_scipy(edges, values, start)


def _fit_scipy(edges: np.ndarray, values: np.ndarray, start: list[float]) -> tuple[np.ndarray, np.ndarray]:
    best, covariance = curve_fit(
        lambda _, *p: group_model(edges, np.array(p)), None, values, p0=start, sigma=np.ones(values.size),
        absolute_sigma=True,
    )  # fmt: skip
    return best, np.sqrt(np.diag(covariance))


def fit_python(edges: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt with forward differences, as mpfit does it."""
    p = np.array([0.0, 80.0, 20.0, 10.0, 3.0, 0.0])
    step = np.array([0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3])
    damping, model = 1e-3, group_model(edges, p)
    chi2 = float(np.sum((values - model) ** 2))
    for _ in range(100):
        jacobian = np.array(
            [(group_model(edges, p + step * unit) - model) / step[k] for k, unit in enumerate(np.eye(6))]
        )
        normal, right = jacobian @ jacobian.T, jacobian @ (values - model)
        change = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), right)
        trial = group_model(edges, p + change)
        new = float(np.sum((values - trial) ** 2))
        if new < chi2:
            gain, p, model, chi2, damping = chi2 - new, p + change, trial, new, damping * 0.1
            if gain < 1e-4:
                break
        else:
            damping *= 10
            if damping > 1e8:
                break
    return p, np.sqrt(np.diag(np.linalg.inv(normal)))


def report(name: str, seconds: float, n: int, flux: np.ndarray, error: np.ndarray, true: float) -> None:
    good = np.isfinite(flux) & (error > 0) & np.isfinite(error)
    pull = (flux[good] - true) / error[good]
    bias = 100 * (flux[good].mean() / true - 1)
    print(
        f"  {name:28s} {1e3 * seconds / n:9.3f} ms per spectrum   Halpha bias {bias:+6.2f} %"
        f"   pull {pull.std():.3f}   fitted {100 * good.mean():.0f} %"
    )


def bench_group(n: int) -> None:
    wave = 6512 + 1.25 * np.arange(90)
    lines = default_lines().select(("NII6548", "Halpha", "NII6583"))
    for amplitude in (3, 5, 10, 30):
        flux = amplitude * np.sqrt(2 * np.pi) * np.hypot(1.1, SIGMA / LIGHT * 6562.8)
        fluxes = {"Halpha": flux, "NII6583": 0.5 * flux, "NII6548": 0.5 * NII * flux}
        spectra = spectra_of(wave, np.full(90, 1.1), lines, fluxes, n, 3.0)
        fit_lines(first_of(spectra, 2), lines, groups="shared", threads=1)
        ours, fit = timed(lambda s=spectra: fit_lines(s, lines, groups="shared", threads=1))
        table = fit.table  # type: ignore[attr-defined]
        print(f"Halpha + [N II], 90 channels, amplitude/noise {amplitude}")
        report("fit_lines", ours, n, table["Halpha_flux"].value, table["Halpha_flux_err"].value, flux)
        peers = min(n, 200)
        for name, function in (("scipy curve_fit", fit_scipy), ("plain Python LM (mpfit)", fit_python)):
            values, errors = np.full(peers, np.nan), np.full(peers, np.nan)
            start = time.process_time()
            for row in range(peers):
                try:
                    best, error = function(edges_of(wave), spectra.data[row].astype(float))
                except (RuntimeError, np.linalg.LinAlgError):
                    continue  # no convergence: counted as not fitted
                values[row], errors[row] = best[2], error[2]
            seconds = time.process_time() - start
            report(name, seconds, peers, values, errors, flux)
            print(f"  {'':28s} {seconds / peers / (ours / n):9.0f} x the time")


def bench_all(n: int) -> None:
    wave = 4750 + 1.25 * np.arange(3681)
    lsf = (5.866e-8 * wave**2 - 9.187e-4 * wave + 6.040) / 2.3548
    lines = default_lines()
    relative = {
        "Halpha": 1.0, "NII6583": 0.5, "NII6548": 0.5 * NII, "Hbeta": 0.35, "OIII5007": 0.4, "OIII4959": 0.4 * 0.3356,
        "SII6716": 0.3, "SII6730": 0.25, "OI6300": 0.1, "OI6363": 0.1 * 0.3226, "HeI5875": 0.05,
    }  # fmt: skip
    for amplitude in (5, 30):
        flux = amplitude * np.sqrt(2 * np.pi) * np.hypot(1.1, SIGMA / LIGHT * 6562.8)
        spectra = spectra_of(wave, lsf, lines, {key: flux * r for key, r in relative.items()}, n, 2.0)
        for name, options in (
            ("all lines on the axis", {}), ("the same, kinematics shared", {"groups": "shared"}),
            ("strong lines", {"lines": "strong"}),
            ("strong, components by BIC", {"lines": "strong", "components": "bic"}),
            ("strong, profile intervals", {"lines": "strong", "intervals": "profile"}),
        ):  # fmt: skip
            fit_lines(first_of(spectra, 2), threads=1, **options)  # type: ignore[arg-type]
            seconds, fit = timed(lambda s=spectra, o=options: fit_lines(s, threads=1, **o))
            table = fit.table  # type: ignore[attr-defined]
            print(f"3681 channels, amplitude/noise {amplitude}: {len(fit.lines)} lines")  # type: ignore[attr-defined]
            report(name, seconds, n, table["Halpha_flux"].value, table["Halpha_flux_err"].value, flux)


def main() -> None:
    """Print both tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    bench_group(count)
    bench_all(max(count // 4, 1))


if __name__ == "__main__":
    main()
