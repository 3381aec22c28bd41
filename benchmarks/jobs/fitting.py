"""Jobs that fit spectra: emission lines and stellar continua."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit, nnls

from benchmarks.jobs import Contender, Goal, Job, Task
from benchmarks.pulls import pull_figures
from skyloom.core.linelist import default_lines
from skyloom.core.spectra import Spectra

Size = Mapping[str, Any]
LIGHT = 299792.458
NII = 0.3279
VELOCITY, SIGMA, LSF, AMPLITUDE = 40.0, 60.0, 1.1, 10.0
FLUX = AMPLITUDE * np.sqrt(2 * np.pi) * np.hypot(LSF, SIGMA / LIGHT * 6562.8)
START = (0.0, 80.0, 20.0, 10.0, 3.0, 0.0)

# ------------------------------------------------------------------------------------------------ lines


def lines_of(size: Size) -> Spectra:
    """Halpha and [N II] of known flux, velocity and width on a flat continuum, noise 1 per channel."""
    from tests.oracles.lines import mock_spectra

    wave = 6512 + 1.25 * np.arange(90)
    fluxes = {"Halpha": FLUX, "NII6583": 0.5 * FLUX, "NII6548": 0.5 * NII * FLUX}
    return mock_spectra(
        wave, default_lines(), fluxes, n=size["n"], rng=np.random.default_rng(1), velocity=VELOCITY, sigma=SIGMA,
        lsf=LSF, level=3.0,
    )  # fmt: skip


def line_figures(flux: Any, error: Any) -> dict[str, float]:
    flux, error = np.asarray(flux, float), np.asarray(error, float)
    good = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    pulls = (flux[good] - FLUX) / error[good]
    bias = 100 * (flux[good].mean() / FLUX - 1) if good.any() else np.nan
    return {"bias %": bias, "pull sd": float(pulls.std()), "fitted": float(good.mean())}


def lines_ours(size: Size) -> Task:
    from skyloom.spectral.lines.linefit import fit_lines

    spectra = lines_of(size)
    lines = default_lines().select(("NII6548", "Halpha", "NII6583"))

    def judge(found: Any) -> dict[str, float]:
        return line_figures(found.table["Halpha_flux"].value, found.table["Halpha_flux_err"].value)

    return Task(lambda: fit_lines(spectra, lines, groups="shared", threads=1), judge, size["n"])


def group_model(edges: np.ndarray, p: Any) -> np.ndarray:
    """Halpha and [N II] with shared kinematics on a straight line: v, sigma, two fluxes, two coefficients."""
    from tests.oracles.lines import gaussian

    middle = 0.5 * (edges[1:] + edges[:-1])
    total = p[4] + p[5] * (middle - middle.mean()) / 50
    for rest, flux in ((6548.05, NII * p[3]), (6562.80, p[2]), (6583.45, p[3])):
        width = np.hypot(LSF, p[1] / LIGHT * rest)
        total = total + flux * gaussian(edges, rest * (1 + p[0] / LIGHT), width)
    return np.asarray(total)


def one_by_one(size: Size, fit: Callable[[np.ndarray, np.ndarray], tuple[float, float]]) -> Task:
    """Fit the first spectra one after the other."""
    from tests.oracles.lines import edges_of

    spectra = lines_of(size)
    edges, rows = edges_of(spectra.wave), spectra.data[: size["peers"]].astype(float)

    def fit_all() -> np.ndarray:
        found = np.full((len(rows), 2), np.nan)
        for number, row in enumerate(rows):
            try:
                found[number] = fit(edges, row)
            except (RuntimeError, np.linalg.LinAlgError):
                continue  # no convergence: counted as not fitted
        return found

    return Task(fit_all, lambda found: line_figures(*found.T), len(rows))


def lines_scipy(size: Size) -> Task:
    def fit(edges: np.ndarray, row: np.ndarray) -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", OptimizeWarning
            )  # ends without a covariance: counted as not fitted
            best, covariance = curve_fit(
                lambda _, *p: group_model(edges, p),
                None,
                row,
                p0=START,
                sigma=np.ones(row.size),
                absolute_sigma=True,
            )
        return best[2], float(np.sqrt(covariance[2, 2]))

    return one_by_one(size, fit)


def three_gaussians() -> Any:
    """Halpha and [N II] as astropy's models, tied as far as they can be; amplitudes, not fluxes."""
    from astropy.modeling import models

    rests = {"NII6548": 6548.05, "Halpha": 6562.80, "NII6583": 6583.45}
    model = models.Linear1D(0.0, 3.0)
    for name, rest in rests.items():
        model = model + models.Gaussian1D(5.0, rest, 1.7, name=name)
    model = model.rename("lines")
    for name, rest in rests.items():
        if name != "Halpha":
            model[name].mean.tied = lambda m, rest=rest: m["Halpha"].mean * rest / 6562.80
            model[name].stddev.tied = lambda m: m["Halpha"].stddev
    model["NII6548"].amplitude.tied = lambda m: NII * m["NII6583"].amplitude
    return model


def flux_of(model: Any, covariance: Any) -> tuple[float, float]:
    """Flux of Halpha and its error from amplitude, width and their covariance (of the parameters that are free)."""
    line = model["Halpha"]
    flux = float(line.amplitude.value * abs(line.stddev.value) * np.sqrt(2 * np.pi))
    if covariance is None:
        return flux, np.nan
    names = [name for name in model.param_names if not (model.fixed[name] or model.tied[name])]
    at = {kind: names.index(f"{kind}_2") for kind in ("amplitude", "stddev")}
    slope = np.zeros(len(names))
    slope[at["amplitude"]], slope[at["stddev"]] = flux / line.amplitude.value, flux / line.stddev.value
    return flux, float(np.sqrt(slope @ covariance @ slope))


def lines_astropy(size: Size) -> Task:
    from astropy.modeling import fitting

    def fit(edges: np.ndarray, row: np.ndarray) -> tuple[float, float]:
        fitter = fitting.LevMarLSQFitter()
        wave = 0.5 * (edges[1:] + edges[:-1])
        # The weights are 1 / sigma; without absolute errors it would scale the covariance by its own chi square.
        model = fitter(three_gaussians(), wave, row, weights=np.ones(row.size))
        covariance = fitter.fit_info["param_cov"]
        if covariance is not None:
            degrees = row.size - len(covariance)
            covariance = covariance / (np.sum((row - model(wave)) ** 2) / degrees)
        return flux_of(model, covariance)

    return one_by_one(size, fit)


# ------------------------------------------------------------------------------------------------ stars

WAVE = 4750.0 + 1.25 * np.arange(2200)
REDSHIFT = 0.02


def stars_of(size: Size) -> tuple[Any, Any, Spectra]:
    from tests.inputs.stellar import make_stars, observe, template_library

    stars = make_stars(size["n"], WAVE, rng=np.random.default_rng(1), redshift=REDSHIFT)
    return template_library(), stars, observe(stars, WAVE, 30.0, rng=np.random.default_rng(3))


def star_figures(
    stars: Any, velocity: Any, velocity_error: Any, sigma: Any, sigma_error: Any
) -> dict[str, float]:
    n = len(velocity)
    off = {"v": np.asarray(velocity) - stars.velocity[:n], "sigma": np.asarray(sigma) - stars.sigma[:n]}
    errors = {"v": np.asarray(velocity_error), "sigma": np.asarray(sigma_error)}
    offsets = {f"{name} offset": float(np.median(values)) for name, values in off.items()}
    pulls = {}
    for name, values in off.items():
        pulls |= {f"{name} pull sd": pull_figures(values / errors[name]).get("pull sd", np.nan)}
    return offsets | pulls


def stars_ours(size: Size) -> Task:
    from skyloom.spectral.stellar.fit import fit_continuum

    library, stars, spectra = stars_of(size)
    return Task(
        lambda: fit_continuum(spectra, library, redshift=REDSHIFT, threads=1),
        lambda fit: star_figures(stars, fit.velocity, fit.velocity_err, fit.sigma, fit.sigma_err),
        size["n"],
    )


def stars_nnls(size: Size) -> Task:
    """Twenty dense non-negative fits for each spectrum, which a search for kinematics needs at the very least."""
    library, _, spectra = stars_of(size)
    columns = np.stack(
        [np.interp(WAVE / (1 + REDSHIFT), library.wave, flux) for flux in library.flux], axis=1
    )
    rows = list(zip(spectra.data, spectra.variance, strict=True))[: size["peers"]]

    def fit() -> list[Any]:
        found = []
        for data, variance in rows:
            error = np.sqrt(variance.astype(float))
            scaled = columns / columns.mean() / error[:, np.newaxis]
            found += [nnls(scaled, data / error) for _ in range(20)]
        return found

    return Task(fit, lambda _: {}, len(rows))


def stars_ppxf(size: Size) -> Task:
    from ppxf.ppxf import ppxf
    from ppxf.ppxf_util import log_rebin

    library, stars, spectra = stars_of(size)
    rest = WAVE[[0, -1]] / (1 + REDSHIFT)
    rows = []
    for data, variance in list(zip(spectra.data, spectra.variance, strict=True))[: size["peers"]]:
        flux, log_wave, step = log_rebin(rest, data.astype(float))
        noise = np.sqrt(log_rebin(rest, variance.astype(float))[0])
        rows.append((flux, noise, step, np.exp(log_wave)))
    near = (library.wave > rest[0] * 0.97) & (library.wave < rest[1] * 1.03)
    ends = library.wave[near][[0, -1]]
    templates = []
    for flux in library.flux[:, near]:
        rebinned, log_wave, _ = log_rebin(ends, flux / flux.mean(), velscale=float(rows[0][2]))
        templates.append(rebinned)

    def fit() -> np.ndarray:
        found = []
        for flux, noise, step, wave in rows:
            result = ppxf(
                np.array(templates).T, flux, noise, float(step), [0.0, 120.0], moments=2, degree=-1, mdegree=8,
                lam=wave, lam_temp=np.exp(log_wave), quiet=True,
            )  # fmt: skip
            found.append([result.sol[0], result.error[0], result.sol[1], result.error[1]])
        return np.array(found)

    return Task(fit, lambda found: star_figures(stars, *found.T), len(rows))


JOBS = (
    Job(
        "fit_lines",
        "Halpha and [N II] of {n} spectra of 90 channels, amplitude over noise 10",
        {"n": 2000, "peers": 100},
        {"n": 3, "peers": 2},
        Contender("Skyloom", lines_ours),
        (
            Contender("scipy curve_fit", lines_scipy, note="the same model"),
            Contender(
                "astropy LevMarLSQFitter", lines_astropy, note="as specutils does; not averaged over channels"
            ),
        ),
        item="spectrum",
        accuracy="flux of Halpha: mean error, pulls; share of spectra that are fitted",
        goals=(
            Goal("cpu", 0, 1e-4, "0.1 ms per spectrum"),
            Goal("bias %", -1, 1, "bias below 1 %"),
            Goal("pull sd", 0.95, 1.05, "pulls 1.00 +- 0.05"),
        ),
    ),
    Job(
        "fit_continuum",
        "stellar continua of {n} spectra, 54 templates, 2200 channels, S/N 30: velocity, dispersion, dust, ages",
        {"n": 60, "peers": 3},
        {"n": 2, "peers": 1},
        Contender("Skyloom", stars_ours),
        (
            Contender(
                "scipy nnls", stars_nnls, note="20 times for each spectrum, kinematics given: no search"
            ),
            Contender("ppxf", stars_ppxf, "ppxf"),
        ),
        item="spectrum",
        accuracy="median offsets in km/s, and pulls",
        goals=(
            Goal("cpu", 0, 15e-3, "15 ms per spectrum"),
            Goal("v offset", -3, 3, "velocity within 3 km/s"),
            Goal("sigma offset", -5, 5, "dispersion within 5 km/s"),
        ),
    ),
)
