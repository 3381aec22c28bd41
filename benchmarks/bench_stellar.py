"""Stellar continua: cost per spectrum, errors of velocity and dispersion, pulls, beside dense scipy and pPXF.

    python benchmarks/bench_stellar.py [--spectra N] [--data FOLDER]

Run it from the root of the project: the scenes are those of the tests. Costs are CPU ms per spectrum on one thread with
a warm numba cache. With real data (``SKYLOOM_DATA``) the MaStar populations take the place of the analytic ones in a
second table, and the real spectra of MaNGA follow, with pPXF beside them where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.inputs.stellar import SPEED_OF_LIGHT, Stars, make_stars, mastar_library, observe, template_library

import skyloom as sl
from measure import best_cpu
from skyloom.core.continuum import ContinuumFit
from skyloom.core.spectra import Spectra
from skyloom.core.templates import TemplateLibrary
from skyloom.kernels.stellar.broadening import Channels, broaden, fill_taps, tap_space
from skyloom.spectral.axes.attenuation import attenuation_curve
from skyloom.spectral.axes.grids import pixel_edges
from skyloom.spectral.stellar.fit import fit_continuum
from skyloom.spectral.stellar.template_grid import prepare_templates

WAVE = 4750.0 + 1.25 * np.arange(2200)
Z = 0.02
LSF = 1.2


def cpu_ms(function) -> float:
    return 1e3 * best_cpu(function)


def report(name: str, found: np.ndarray, error: np.ndarray, truth: np.ndarray) -> None:
    good = np.isfinite(error)
    off = (found - truth)[good]
    pulls = off / error[good]
    print(
        f"  {name:10s} median offset {np.median(off):7.2f}   median |offset| {np.median(np.abs(off)):6.2f}   "
        f"median error {np.median(error[good]):6.2f}   pull {pulls.mean():+.2f} +- {pulls.std():.3f}"
    )


def dense_loop(library: TemplateLibrary, spectra: Spectra, fit: ContinuumFit) -> float:
    """CPU ms of 20 dense non-negative fits, which a loop over kinematics needs at the very least."""
    columns = np.stack([np.interp(WAVE / (1 + Z), library.wave, flux) for flux in library.flux], axis=1)
    good = np.isfinite(fit.model[0])
    error = np.sqrt(spectra.variance[0][good].astype(float))
    scaled = columns[good] / columns.mean() / error[:, np.newaxis]
    values = spectra.data[0][good] / error
    return 20 * cpu_ms(lambda: nnls(scaled, values))


def measure(name: str, library: TemplateLibrary, stars: Stars, snr: float, kernel=None) -> None:
    rng = np.random.default_rng(3)
    spectra = observe(stars, WAVE, snr, rng=rng, kernel=kernel)
    n = len(spectra.data)
    fit = fit_continuum(spectra, library, redshift=Z, threads=1)
    cost = cpu_ms(lambda: fit_continuum(spectra, library, redshift=Z, threads=1)) / n
    setup = cpu_ms(lambda: prepare_templates(library, LSF / WAVE[-1]))
    print(f"{name}: {n} spectra, {len(library)} templates, {WAVE.size} channels, S/N {snr:g}")
    print(
        f"  {cost:.2f} ms per spectrum (target 15), of which {setup / n:.2f} for the templates, once per call"
    )
    if kernel is None:
        dense = dense_loop(library, spectra, fit)
        print(f"  20 dense scipy NNLS alone: {dense:.1f} ms; ratio {dense / cost:.1f}")
    report("velocity", fit.velocity, fit.velocity_err, stars.velocity)
    report("dispersion", fit.sigma, fit.sigma_err, stars.sigma)
    report("A_V", fit.av, fit.av_err, stars.av)
    print(f"  chi2/dof {fit.chi2_dof.mean():.3f}; flagged {np.count_nonzero(fit.flags)} of {n}")


def mixtures(library: TemplateLibrary, n: int) -> Stars:
    """Mixtures of a library's templates, broadened by the kernels (which the tests hold against direct sums)."""
    rng = np.random.default_rng(9)
    grid = prepare_templates(library, 0.0)
    edges = np.log(pixel_edges(WAVE))
    centre = 0.5 * (edges[1:] + edges[:-1]) - np.log1p(Z)
    extra = (LSF / WAVE) ** 2 - np.interp(np.exp(centre), grid.wave, grid.sigma) ** 2
    channels = Channels(
        (centre - grid.start) / grid.step, np.diff(edges) / grid.step, extra / grid.step**2, grid.spread, grid.step
    )  # fmt: skip
    velocity, sigma = rng.uniform(-200, 200, n), rng.uniform(80, 250, n)
    av, dust = rng.uniform(0.1, 1.0, n), attenuation_curve(WAVE / (1 + Z))
    weights, flux = np.zeros((n, len(library))), np.empty((n, WAVE.size))
    for row in range(n):
        chosen = rng.choice(len(library), 4, replace=False)
        weights[row, chosen] = rng.dirichlet(np.ones(4))
        taps = tap_space(channels, sigma[row] ** 2, len(grid.coefficients))
        fill_taps(channels, velocity[row], sigma[row] ** 2, len(grid.coefficients), taps)
        columns = np.empty((WAVE.size, len(library)))
        broaden(taps, grid.coefficients, columns)
        flux[row] = columns @ weights[row] * 10 ** (-0.4 * av[row] * dust)
    return Stars(velocity, sigma, av, weights, flux, Z)


def real(folder: Path, library: TemplateLibrary) -> None:
    with warnings.catch_warnings():
        # What the reader and the fit assume about these spectra is part of the tests, not of the figures here.
        warnings.simplefilter("ignore")
        spectra = sl.read(folder / "manga/MaNGA_test_spectra.fits.gz")
        redshift = np.array(spectra.meta["redshift"])
        fit = fit_continuum(spectra, library, redshift=redshift, attenuation=None, multiplicative_degree=8)
    beside = ppxf_beside(spectra, redshift, library)
    print("real spectra of MaNGA, multiplicative polynomial of degree 8")
    print(f"  {'row':>3s}{'S/N':>7s}{'velocity':>18s}{'dispersion':>18s}{'chi2/dof':>10s}   pPXF")
    for row in range(len(fit)):
        print(
            f"  {row:3d}{fit.snr[row]:7.1f}{fit.velocity[row]:10.1f} +-{fit.velocity_err[row]:5.1f}"
            f"{fit.sigma[row]:10.1f} +-{fit.sigma_err[row]:5.1f}{fit.chi2_dof[row]:10.2f}   "
            f"{beside[row] if beside else 'not installed'}   {fit.reasons[row]}"
        )


def ppxf_beside(spectra: Spectra, redshift: np.ndarray, library: TemplateLibrary) -> list[str]:
    """Velocity and dispersion by pPXF, and its CPU ms, on the same channels; empty where it is not installed."""
    if importlib.util.find_spec("ppxf") is None:
        return []
    from ppxf.ppxf import ppxf

    step = float(np.diff(np.log(spectra.wave)).mean())
    rows = []
    for row in range(len(spectra.data)):
        rest = spectra.wave / (1 + redshift[row])
        good = spectra.valid[row] & (rest > library.wave[0] * 1.01) & (rest < library.wave[-1] * 0.99)
        if np.count_nonzero(good) < 100:
            rows.append("too few channels")
            continue
        inside = slice(int(np.argmax(good)), int(good.size - np.argmax(good[::-1])))
        data = spectra.data[row, inside].astype(float)
        noise = np.sqrt(
            np.where(good[inside], spectra.variance[row, inside], np.median(spectra.variance[row]))
        )
        start = time.process_time()
        result = ppxf(
            library.flux.T / library.flux.mean(), np.where(good[inside], data, np.median(data)), noise,
            SPEED_OF_LIGHT * step, [0.0, 150.0], goodpixels=np.flatnonzero(good[inside]), degree=-1, mdegree=8,
            lam=rest[inside], lam_temp=library.wave, quiet=True,
        )  # fmt: skip
        took = 1e3 * (time.process_time() - start)
        rows.append(f"{result.sol[0]:.1f} {result.sol[1]:.1f} ({took:.0f} ms)")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--spectra", type=int, default=200)
    parser.add_argument("--data", type=Path, default=os.environ.get("SKYLOOM_DATA"))
    options = parser.parse_args()
    analytic = template_library()
    stars = make_stars(options.spectra, WAVE, rng=np.random.default_rng(1), redshift=Z)
    measure("analytic populations", analytic, stars, 30.0)
    measure("the same, correlated noise", analytic, stars, 30.0, kernel=[1.0, 2.0, 1.0])
    if options.data and Path(options.data).is_dir():
        mastar = mastar_library(Path(options.data))
        mastar = mastar.evolve(flux=mastar.flux / mastar.flux.mean(axis=1, keepdims=True))
        measure("MaStar populations", mastar, mixtures(mastar, options.spectra), 30.0)
        real(Path(options.data), mastar)


if __name__ == "__main__":
    main()
