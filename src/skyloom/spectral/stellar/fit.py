"""Stellar continua fitted to spectra: velocity, dispersion, dust and populations, with errors that reach the lines."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import qr

from skyloom.core.continuum import ContinuumFit
from skyloom.core.linelist import LineList, convert_medium
from skyloom.core.provenance import step
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands
from skyloom.core.templates import TemplateLibrary
from skyloom.core.threads import blocks, run_blocks
from skyloom.errors import AssumptionWarning, InputError, ShapeError
from skyloom.kernels.lines.profiles import SPEED_OF_LIGHT
from skyloom.spectral.axes.attenuation import attenuation_curve
from skyloom.spectral.axes.grids import pixel_edges
from skyloom.spectral.axes.rest_frame import applied_redshift
from skyloom.spectral.lines.groups import lines_named
from skyloom.spectral.noise.sky_residuals import SKY_RESIDUALS, Range, sky_residual_mask
from skyloom.spectral.stellar.lines import GasColumns, gas_columns, line_channels, lines_in_the_way
from skyloom.spectral.stellar.results import collect
from skyloom.spectral.stellar.rows import PARTLY_COVERED, Axis, Plan, Results, fit_spectrum
from skyloom.spectral.stellar.template_grid import TemplateGrid, prepare_templates

__all__ = ["fit_continuum"]

Float = NDArray[np.float64]
ROWS = 16  # Spectra per task of a thread.
SEARCH_STEP = 150.0  # km/s
SEARCH_TEMPLATES = 6
SEARCH_DEGREE = 3
GAS_SIGMA = 60.0  # km/s
GAS_SIGMA_RANGE = (-40.0, 400.0)  # km/s; a negative one stands for a negative square.
DUST_CURVE_RANGE = (1250.0, 21000.0)  # A, where all curves are defined
START_DUST = 0.3  # mag


class _Options(NamedTuple):
    """What the caller asked for, checked."""

    attenuation: str | None
    additive_degree: int
    multiplicative_degree: int
    emission: str
    half_width: float
    velocity_range: float
    sigma_start: float
    sigma_range: tuple[float, float]
    av_range: tuple[float, float]
    clip: float
    least_snr: float
    n_modes: int
    tolerance: float


def fit_continuum(
    spectra: Spectra,
    templates: TemplateLibrary,
    *,
    redshift: float | ArrayLike = 0.0,
    backend: str = "builtin",
    attenuation: str | None = "calzetti00",
    additive_degree: int = -1,
    multiplicative_degree: int = 0,
    emission: str = "mask",
    lines: str | Sequence[str] | LineList = "default",
    half_width: float = 400.0,
    sky: Sequence[Range] | None = SKY_RESIDUALS,
    wave_range: tuple[float, float] | None = None,
    velocity: ArrayLike | None = None,
    velocity_range: float = 500.0,
    sigma_start: float = 120.0,
    sigma_range: tuple[float, float] = (0.0, 600.0),
    av_range: tuple[float, float] = (0.0, 4.0),
    clip: float = 4.0,
    least_snr: float = 1.5,
    n_modes: int = 4,
    tolerance: float = 4e-3,
    threads: int | None = None,
) -> ContinuumFit:
    """Fit the light of stars in spectra.

    Parameters
    ----------
    spectra : Spectra
        n spectra with their variance, correlation between channels and line-spread function.
    templates : TemplateLibrary
        Stellar populations; their medium may differ from that of the spectra (both are brought to vacuum).
        ``meta["mass_to_light"]`` (n_templates,), or ``meta["flux_per_mass"] = True`` where each template is the light
        of the same mass, make mass fractions possible.
    redshift : float or (n,) array
        Of the systems; 0 for spectra in the rest frame.
    backend : {"builtin", "ppxf"}
        The fit described here, or pPXF where it is installed (`skyloom.spectral.stellar.ppxf_backend.fit_ppxf`: lines
        are masked, and any ``clip`` above 0 is pPXF's own). Results of STARLIGHT are read, not fitted:
        `skyloom.io.starlight.read_starlight_continuum`.
    attenuation : str, optional
        Curve of the dust, see `skyloom.spectral.axes.attenuation.attenuation_curve`; None: no dust.
    additive_degree, multiplicative_degree : int
        Of Legendre polynomials in wavelength; -1: none are added, 0: none multiplied.
    emission : {"mask", "fit"}
        Leave channels with lines out, or fit Gaussians with common kinematics of the gas together with the stars.
    lines : str, sequence of str, or LineList
        The lines meant; emission lines and interstellar absorption of them.
    half_width : float
        km/s on either side of a line that are left out, on top of three sigma of the line-spread function.
    sky : sequence of (low, high), optional
        Observed wavelengths in air, A, left out; None: all stay.
    wave_range : (low, high), optional
        Rest wavelengths, A in the medium of the spectra, that are fitted; by default all.
    velocity : (n,) array, optional
        Start values, km/s; by default searched within ``velocity_range``.
    velocity_range, sigma_range, av_range
        Limits: km/s, km/s, mag. Equal limits hold a value.
    sigma_start : float
        km/s.
    clip : float
        Standard deviations (of the residuals, when these are larger than the errors) beyond which a channel is left
        out; 0: none is.
    least_snr : float
        Spectra with a smaller median S/N per channel are fitted with velocity and dispersion held.
    n_modes : int
        Shared errors of the model that are kept, 0 to 4.
    tolerance : float
        Of chi square, in a step; 4e-3 is a sixteenth of a standard deviation. Along the valley between dust and age,
        where chi square hardly changes, smaller ones take many more steps.
    threads : int, optional
        By default as many as this process may use.

    Returns
    -------
    ContinuumFit
        Single spectra that cannot be fitted are flagged, with a reason, not raised.

    Raises
    ------
    InputError
        When the templates cover no part of any spectrum, the spectra have no line-spread function, or a parameter
        makes no sense.

    Notes
    -----
    Data are fitted on their own pixels. Templates are broadened by the stars and from their line-spread function to
    that of each channel, and averaged over it, exactly (`skyloom.kernels.stellar.broadening`). Where templates are
    broader than the spectrograph, the squared dispersion makes up for it as far as it goes, and the spectrum is
    flagged. The ideas of penalised pixel fitting are those of Cappellari (2017, 10.1093/mnras/stw3020; 2023,
    10.1093/mnras/stad2597); the method is described in ``docs/design/stellar_continuum.md``.
    """
    if backend == "ppxf":
        from skyloom.spectral.stellar.ppxf_backend import fit_ppxf

        if emission != "mask":
            raise InputError(f"emission is {emission!r}; pPXF masks lines here", field="emission")
        return fit_ppxf(
            spectra, templates, redshift=redshift, attenuation=attenuation, additive_degree=additive_degree,
            multiplicative_degree=multiplicative_degree, lines=lines, half_width=half_width, sky=sky,
            wave_range=wave_range, velocity=velocity, velocity_range=velocity_range, sigma_start=sigma_start,
            sigma_range=sigma_range, av_range=av_range, clip=clip, least_snr=least_snr, n_modes=n_modes,
        )  # fmt: skip
    if backend != "builtin":
        raise InputError(f"backend is {backend!r}", field="backend", remedy="known are 'builtin' and 'ppxf'")
    options = _Options(
        attenuation, additive_degree, multiplicative_degree, emission, half_width, velocity_range, sigma_start,
        sigma_range, av_range, clip, least_snr, n_modes, tolerance,
    )  # fmt: skip
    _check(options)
    axis, lsf_known = _axis(spectra)
    scale = _stretch(spectra, redshift)
    known = np.isfinite(scale) & (scale > 0)
    stretch = np.where(known, scale, 1.0)
    shared_lsf = axis.lsf
    library = _cut(templates, axis, stretch[known])
    narrowest = float(np.min(shared_lsf / spectra.wave))
    grid = prepare_templates(library, narrowest)
    listed = lines_in_the_way(lines_named(lines))
    used = spectra.valid & known[:, np.newaxis] & lsf_known & np.isfinite(spectra.data)
    used &= _channels_wanted(spectra, sky)[np.newaxis]
    if wave_range is not None:
        rest = spectra.wave / stretch[:, np.newaxis]
        used &= (rest >= wave_range[0]) & (rest <= wave_range[1])
    covered = used.any(axis=0)
    medium = spectra.medium
    line_mask = line_channels(listed, spectra.wave, medium, shared_lsf, stretch, half_width)  # type: ignore[arg-type]
    gas = GasColumns(np.zeros(0), np.zeros(0), np.zeros(0, np.int64), 0, ())
    if emission == "fit":
        gas = gas_columns(listed, spectra.wave, medium, stretch[known], covered)  # type: ignore[arg-type]
        # Interstellar absorption has no column of its own.
        rest = LineList(tuple(line for line in listed if line.kind != "emission"))  # type: ignore[assignment]
        used &= ~line_channels(rest, spectra.wave, medium, shared_lsf, stretch, half_width)  # type: ignore[arg-type]
    else:
        used &= ~line_mask
    plan = _plan(grid, spectra, listed, gas, options, search=velocity is None)
    results = _run(plan, axis, spectra, used, line_mask, stretch, _start(velocity, len(used)), threads)
    _say_coverage(results, grid, spectra, stretch, known)
    done = step(
        "fit_continuum", templates=templates.name, backend=backend, attenuation=attenuation,
        additive_degree=additive_degree, multiplicative_degree=multiplicative_degree, emission=emission,
        half_width=half_width, clip=clip, medium_of_templates=templates.medium, medium_of_spectra=spectra.medium,
    )  # fmt: skip
    return collect(spectra, templates, grid, plan, results, scale, known, done)


def _check(options: _Options) -> None:
    checks = (
        ("emission", options.emission, options.emission in ("mask", "fit"), "'mask' or 'fit'"),
        ("additive_degree", options.additive_degree, -1 <= options.additive_degree <= 30, "-1 to 30"),
        (
            "multiplicative_degree",
            options.multiplicative_degree,
            0 <= options.multiplicative_degree <= 30,
            "0 to 30",
        ),
        ("half_width", options.half_width, options.half_width >= 0, "km/s >= 0"),
        (
            "velocity_range",
            options.velocity_range,
            0 <= options.velocity_range < 0.1 * SPEED_OF_LIGHT,
            "km/s",
        ),
        (
            "sigma_range",
            options.sigma_range,
            0 <= options.sigma_range[0] <= options.sigma_range[1] < np.inf,
            "0 <= low <= high",
        ),
        ("av_range", options.av_range, options.av_range[0] <= options.av_range[1] < np.inf, "low <= high"),
        (
            "clip",
            options.clip,
            options.clip == 0 or options.clip >= 2,
            "0, or at least 2 standard deviations",
        ),
        ("tolerance", options.tolerance, 0 < options.tolerance <= 1, "more than 0, at most 1"),
        ("n_modes", options.n_modes, 0 <= options.n_modes <= 4, "0 to 4"),
    )
    for name, value, right, expected in checks:
        if not right:
            raise InputError(f"{name} is {value!r}; expected {expected}", field=name)


def _axis(spectra: Spectra) -> tuple[Axis, NDArray[np.bool_]]:
    """Axis in vacuum with the line-spread function, and where the latter is known."""
    if spectra.lsf is None:
        raise InputError(
            "the spectra have no line-spread function", field="lsf",
            remedy="give its sigma in A: spectra.evolve(lsf=...)",
        )  # fmt: skip
    n_wave = spectra.shape[1]
    before = 1.0 + applied_redshift(spectra)
    edges = pixel_edges(spectra.wave)
    # Air has its index at the wavelength that was observed.
    vacuum = np.log(convert_medium(edges * before, spectra.medium, "vacuum") / before)  # type: ignore[arg-type]
    lsf = np.asarray(spectra.lsf, dtype=np.float64)
    lsf = np.broadcast_to(lsf, (len(lsf) if lsf.ndim == 2 else 1, n_wave))
    good = np.isfinite(lsf) & (lsf > 0)
    if not good.any():
        raise InputError("the line-spread function is nowhere positive", field="lsf")
    lsf = np.where(good, lsf, np.median(lsf[good]))
    centre, width = 0.5 * (vacuum[1:] + vacuum[:-1]), np.diff(vacuum)
    return Axis(centre, width, edges, lsf, lag_bands(spectra.correlation, n_wave)), good


def _stretch(spectra: Spectra, redshift: float | ArrayLike) -> Float:
    z = np.asarray(redshift, dtype=np.float64)
    n = spectra.shape[0]
    if z.shape not in ((), (n,)):
        raise ShapeError(f"redshift has shape {z.shape}; expected a number or ({n},)", field="redshift")
    scale = 1.0 + np.broadcast_to(z, n)
    if not np.any(np.isfinite(scale) & (scale > 0)):
        raise InputError("no redshift is a number above -1", field="redshift")
    return np.asarray(scale)


def _cut(templates: TemplateLibrary, axis: Axis, stretch: Float) -> TemplateLibrary:
    """The part of the templates that any of the spectra can use."""
    vacuum = convert_medium(templates.wave, templates.medium, "vacuum")
    low = np.exp(axis.centre[0]) / stretch
    high = np.exp(axis.centre[-1]) / stretch
    overlapping = (low < vacuum[-1]) & (high > vacuum[0])
    if not overlapping.any():
        raise InputError(
            f"the templates {templates.name!r} cover {vacuum[0]:.0f} to {vacuum[-1]:.0f} A (vacuum); the spectra cover "
            f"{low.min():.0f} to {high.max():.0f} A at rest",
            field="redshift",
            remedy="check the redshift, and whether the spectra are in the rest frame already; or take other templates",
        )
    wanted = (vacuum > 0.97 * low[overlapping].min()) & (vacuum < 1.03 * high[overlapping].max())
    if wanted.all():
        return templates
    return templates.evolve(
        wave=templates.wave[wanted], flux=templates.flux[:, wanted], fwhm=np.asarray(templates.fwhm)[wanted]
    )


def _channels_wanted(spectra: Spectra, sky: Sequence[Range] | None) -> NDArray[np.bool_]:
    if not sky:
        return np.ones(spectra.shape[1], dtype=bool)
    return ~sky_residual_mask(spectra, sky)


def _start(velocity: ArrayLike | None, n: int) -> Float:
    if velocity is None:
        return np.zeros(n)
    values = np.broadcast_to(np.asarray(velocity, dtype=np.float64), n)
    return np.where(np.isfinite(values), values, 0.0)


def _plan(
    grid: TemplateGrid, spectra: Spectra, lines: LineList, gas: GasColumns, options: _Options, *, search: bool
) -> Plan:
    n_grid = len(grid.coefficients)
    wave = np.exp(grid.start + grid.step * np.arange(n_grid))
    dust = np.zeros(n_grid)
    if options.attenuation is not None:
        dust = attenuation_curve(np.clip(wave, *DUST_CURVE_RANGE), options.attenuation)
    x = np.interp(spectra.wave, spectra.wave[[0, -1]], [-1.0, 1.0])
    degrees = max(options.additive_degree, options.multiplicative_degree, SEARCH_DEGREE)
    polynomials: Float = np.array(legendre.legvander(x, degrees).T, dtype=np.float64, order="C")
    shapes = polynomials[1 : options.multiplicative_degree + 1].copy()
    low, high, start, held = _limits(options, len(shapes), gas.number > 0)
    count = min(SEARCH_TEMPLATES, grid.coefficients.shape[1])
    _, order = qr(grid.coefficients[::8], mode="r", pivoting=True)
    reach = int(options.velocity_range // SEARCH_STEP) if search and not held[0] else 0
    margin = options.velocity_range / SPEED_OF_LIGHT
    first, last = np.log(grid.wave[0]) + margin, np.log(grid.wave[-1]) - margin
    return Plan(
        grid.coefficients, np.ascontiguousarray(grid.coefficients[:, np.sort(order[:count])]), grid.start, grid.step,
        grid.spread, dust, np.interp(wave, grid.wave, grid.sigma) ** 2, shapes,
        polynomials[: options.additive_degree + 1].copy(), polynomials[: SEARCH_DEGREE + 1].copy(), start, low, high,
        held, SEARCH_STEP * np.arange(-reach, reach + 1.0) if reach else np.zeros(0),
        float((first - grid.start) / grid.step), float((last - grid.start) / grid.step),
        lines.wavelengths(spectra.medium), gas.wave, gas.ratio, gas.column, gas.number,  # type: ignore[arg-type]
        options.n_modes, float(options.clip), float(options.least_snr), options.tolerance,
    )  # fmt: skip


def _limits(options: _Options, n_shapes: int, gas: bool) -> tuple[Float, Float, Float, NDArray[np.bool_]]:
    """Lower and upper limits, start values, and which parameters are held."""
    dust = options.av_range if options.attenuation is not None else (0.0, 0.0)
    reach = options.velocity_range
    low = [-reach, options.sigma_range[0] ** 2, dust[0], *[-1.0] * n_shapes]
    high = [reach, options.sigma_range[1] ** 2, dust[1], *[1.0] * n_shapes]
    start = [0.0, options.sigma_start**2, START_DUST, *[0.0] * n_shapes]
    if gas:
        low += [-reach, -(GAS_SIGMA_RANGE[0] ** 2)]
        high += [reach, GAS_SIGMA_RANGE[1] ** 2]
        start += [0.0, GAS_SIGMA**2]
    limits = np.array(low), np.array(high)
    return *limits, np.clip(start, *limits), limits[0] == limits[1]


def _run(
    plan: Plan, axis: Axis, spectra: Spectra, used: NDArray[np.bool_], lines: NDArray[np.bool_],
    stretch: Float, velocity: Float, threads: int | None,
) -> Results:  # fmt: skip
    n, n_wave = used.shape
    n_parameters = plan.parameters.size

    def unknown(*shape: int, kind: type = np.float64) -> NDArray[np.float64]:
        return np.full(shape, np.nan, dtype=kind)

    results = Results(
        unknown(n, n_parameters), unknown(n, n_parameters), unknown(n, plan.templates.shape[1]), unknown(n),
        np.zeros(n, np.int64), np.zeros(n, np.int64), unknown(n), np.zeros(n, np.int64),
        unknown(n, n_wave, kind=np.float32), unknown(n, n_wave, kind=np.float32),  # type: ignore[arg-type]
        np.zeros((n, plan.n_modes, n_wave), np.float32),
    )  # fmt: skip

    def fit(rows: slice) -> None:
        for row in range(rows.start, rows.stop):
            fit_spectrum(
                plan, axis, spectra.data[row].astype(np.float64), spectra.variance[row].astype(np.float64), used[row],
                lines[row], float(stretch[row]), float(velocity[row]), row, results,
            )  # fmt: skip

    run_blocks(fit, blocks(n, ROWS), threads)
    return results


def _say_coverage(
    results: Results, grid: TemplateGrid, spectra: Spectra, stretch: Float, known: NDArray[np.bool_]
) -> None:
    partly = (results.status & PARTLY_COVERED) > 0
    if partly.any():
        rest = spectra.wave[[0, -1]] / np.median(stretch[known])
        warnings.warn(
            f"the templates cover {grid.wave[0]:.0f} to {grid.wave[-1]:.0f} A (vacuum), the spectra {rest[0]:.0f} to "
            f"{rest[1]:.0f} A at rest: {int(partly.sum())} of {len(partly)} spectra have no model in part of them",
            AssumptionWarning,
            stacklevel=3,
        )
