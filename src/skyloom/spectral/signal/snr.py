"""Signal, noise and S/N of emission lines and continua in cubes and spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.table import QTable
from numpy.typing import ArrayLike

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.image import Image
from skyloom.core.linelist import LineList
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError, ShapeError
from skyloom.spectral.axes.widths import Width
from skyloom.spectral.signal.continuum_snr import continuum_snr, side_scatter
from skyloom.spectral.signal.first_pass import first_velocity_map
from skyloom.spectral.signal.functional import cut_channels, measure
from skyloom.spectral.signal.line_maps import LineSNR, line_images, no_spaxel_left
from skyloom.spectral.signal.line_setup import set_up_line
from skyloom.spectral.signal.peak_snr import peak_snr
from skyloom.spectral.signal.windows import Continuum, Lines, LineWindows, channels_needed

__all__ = [
    "LineSNR",
    "LineWindows",
    "channels_needed",
    "continuum_snr",
    "first_velocity_map",
    "line_snr",
    "spectra_line_snr",
]

METHODS = ("window", "matched", "peak")
WINDOW_COVERAGE = 0.9
CONTINUUM_COVERAGE = 0.5


def line_snr(
    cube: Cube,
    line: Lines,
    redshift: float | ArrayLike | Image,
    method: str = "window",
    *,
    half_width: Width | None = None,
    continuum: Continuum = None,
    degree: int = 1,
    velocity: float | ArrayLike | Image | None = None,
    sigma: float | ArrayLike | Image | None = None,
    scale: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    window_coverage: float = WINDOW_COVERAGE,
    continuum_coverage: float = CONTINUUM_COVERAGE,
    lines: LineList | None = None,
    workers: int | None = None,
) -> LineSNR:
    """Measure signal, noise and S/N of an emission line, or of the sum of several, in every spaxel.

    Parameters
    ----------
    cube : Cube
        As observed, or in the rest frame (then ``redshift`` is 0).
    line : str, float, Line or a sequence of them
        Keys of the line list, or rest wavelengths (A) in ``cube.medium``. A sequence: the sum of the lines;
        windows that overlap are united, so nothing counts twice.
    redshift : float, (ny, nx) array or Image
        Spaxels without a finite redshift are masked.
    method : {"window", "matched", "peak"}
        ``window``: sum of the flux within ``half_width`` of the line minus a local continuum. ``matched``: weights
        by the profile of the line at a known velocity, for the flux of the whole line. ``peak``: the definition
        of BETIS (maximum near the line minus the mean beside it, over the scatter there), kept for comparison: a
        maximum is not linear, so pure noise has a mean S/N of about 2.3 in it, and bins made with it are too
        small by far.
    half_width : float, Quantity or str, optional
        Half the window about each line: A, or ``"25 px"``, ``"5 AA"``, ``"200 km/s"``. Default: three standard
        deviations of the line (LSF and ``sigma``) plus an allowance for velocity of 200 km/s with one redshift
        for all, 50 km/s with a map, but not beyond the middle to the next emission line; ``peak``: 25 px.
        ``matched`` uses it only to keep the continuum off the line.
    continuum : (inner, outer) or (s, 2) array, optional
        Distances from the line (widths as above; other lines are cut out), or windows in rest wavelength, A,
        taken as they are. Default: on each side the nearest 30 A, or three half widths, free of the lines of
        the list; ``peak``: 35 to 100 px.
    degree : {1, 0}
        Straight line, or mean, weighted by the inverse of the typical variance of each channel.
    velocity : float, (ny, nx) array or Image, optional
        Velocity relative to ``redshift``, km/s; ``matched`` needs it (or a map of redshifts).
        `first_velocity_map` makes one that leaves the noise of each spaxel unbiased.
    sigma : float, (ny, nx) array or Image, optional
        Intrinsic velocity dispersion of the line, km/s; default 40.
    scale : float or (n_wave,) array, optional
        True over claimed variance, from `measure_cube_noise`.
    exclude : (n_wave,) bool array, optional
        Channels not to use, such as residuals of the sky.
    window_coverage, continuum_coverage : float
        Least share of the line's light, and of the continuum windows (on each side), on usable channels; spaxels
        with less are masked. Below 1 the functional is renormalised and the spaxel gets the flag LOW_COVERAGE.
    lines : LineList, optional
        Lines to know by key and to keep clear of; default `default_lines`.
    workers : int, optional
        Threads.

    Returns
    -------
    LineSNR
        ``signal`` in ``cube.unit * A`` (``peak``: in ``cube.unit``) with its variance and the spatial correlation
        of the cube; ``noise`` and ``snr``.

    Raises
    ------
    InputError
        When the line or its windows lie outside the axis, no voxel or spaxel is usable, a key is unknown,
        ``matched`` has no velocity, or a width cannot be read.
    ShapeError
        When a map does not fit the cube.

    Notes
    -----
    ``signal = sum_i w_i d_i`` and ``noise^2 = sum_ij w_i w_j s_i s_j rho_ij`` over all channels of line and
    continuum, with ``s_i`` the claimed error of channel i and ``rho`` the spectral correlation of the cube. The
    weights do not depend on the data: of noise the signal has mean 0 and the S/N standard deviation 1.
    ``window``: ``w_i`` is the length (A) of channel i inside the window, fractions at its edges. ``matched``: with
    profiles ``P_k`` (Gaussians integrated over channels, one per line and one per emission line that blends with
    it) and diagonal variance ``c`` the amplitudes are least-squares solutions; their noise has all
    correlations. Its signal is right for the assumed width: an error of 10 % in the width is 5 % in flux, and
    0.3 % in S/N. In both, ``c`` is the median over the spaxels, channel by channel, because the variance of a
    single spaxel may itself follow its noise. ``peak`` after Gonzalez-Diaz et al. 2024,
    10.1051/0004-6361/202348453.
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}", field="method", remedy=f"use one of {', '.join(METHODS)}")
    limits = (window_coverage, continuum_coverage)
    _check_options(degree, limits)
    if method == "peak":
        if velocity is not None or sigma is not None:
            raise InputError(
                "a velocity or a width means nothing to a maximum",
                field="method",
                remedy="leave velocity and sigma out, or use method='matched'",
            )
        return peak_snr(
            cube, line, redshift, half_width=half_width, continuum=continuum, exclude=exclude,
            limits=limits, lines=lines, workers=workers,
        )  # fmt: skip
    if method == "matched" and velocity is None and not _is_map(redshift):
        raise InputError(
            "the matched filter needs to know where the line is in each spaxel",
            field="velocity",
            remedy="give velocity=first_velocity_map(cube, line, redshift), or use method='window'",
        )
    setup = set_up_line(
        cube, line, redshift, method, half_width=half_width, continuum=continuum, velocity=velocity,
        sigma=sigma, lines=lines,
    )  # fmt: skip
    channels = cut_channels(cube, setup.channels, scale=scale, exclude=exclude)
    result = measure(
        channels, setup.windows, setup.stretch, setup.sigma, matched=method == "matched", degree=degree,
        limits=limits, workers=workers,
    )  # fmt: skip
    no_spaxel_left(result, setup.windows)
    parameters = {
        "method": method,
        "line": list(setup.windows.keys),
        "redshift": float(np.nanmedian(setup.stretch)) - 1.0,
        "windows": setup.windows.describe(),
        "degree": degree,
        "window_coverage": window_coverage,
        "continuum_coverage": continuum_coverage,
    }
    return line_images(cube, setup, channels, result, degree, limits, parameters, workers)


def _is_map(values: float | ArrayLike | Image) -> bool:
    return isinstance(values, Image) or np.ndim(values) > 0


def _check_options(degree: int, limits: tuple[float, float]) -> None:
    if degree not in (0, 1):
        raise InputError(
            f"degree is {degree}; expected 0 (mean) or 1 (straight line)",
            field="degree",
            remedy="wider continua are the business of continuum_snr",
        )
    for name, value in zip(("window_coverage", "continuum_coverage"), limits, strict=True):
        if not 0.0 < value <= 1.0:
            raise InputError(f"{name} is {value}; expected 0 < {name} <= 1", field=name)


def spectra_line_snr(
    spectra: Spectra,
    line: Lines,
    redshift: float | ArrayLike,
    method: str = "window",
    *,
    half_width: Width | None = None,
    continuum: Continuum = None,
    degree: int = 1,
    velocity: float | ArrayLike | None = None,
    sigma: float | ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    window_coverage: float = WINDOW_COVERAGE,
    continuum_coverage: float = CONTINUUM_COVERAGE,
    lines: LineList | None = None,
    workers: int | None = None,
) -> QTable:
    """Measure a line in spectra, with the noise that is claimed and the noise that the continuum shows.

    Parameters
    ----------
    spectra : Spectra
    redshift, velocity, sigma : float or (n,) array
    method : {"window", "matched"}

    The others are those of `line_snr`.

    Returns
    -------
    QTable
        One row per spectrum: ``signal`` and ``noise`` (``spectra.unit * A``), ``snr``, ``noise_measured``,
        ``snr_measured``, ``n_continuum`` (channels); NaN where it cannot be measured.

    Raises
    ------
    InputError, ShapeError
        As for `line_snr`.

    Notes
    -----
    ``noise_measured = noise * sqrt(Q / E)``: Q is the weighted sum of squared residuals of a straight line through the
    continuum windows, E what variance and spectral correlation expect it to be. So the claimed correlation of channels
    carries the scatter of single channels to the sum over the line; relative error ``1 / sqrt(2 n_continuum)``.
    """
    if method == "peak":
        raise InputError("spectra are not measured by their peak", field="method", remedy="use 'window'")
    n = spectra.shape[0]
    cube = _as_cube(spectra)
    redshift, velocity, sigma = _as_row(redshift, n), _as_row(velocity, n), _as_row(sigma, n)
    maps = line_snr(
        cube, line, redshift, method, half_width=half_width, continuum=continuum, degree=degree,
        velocity=velocity, sigma=sigma, exclude=exclude, window_coverage=window_coverage,
        continuum_coverage=continuum_coverage, lines=lines, workers=workers,
    )  # fmt: skip
    setup = set_up_line(
        cube, line, redshift, method, half_width=half_width, continuum=continuum, velocity=velocity,
        sigma=sigma, lines=lines, quiet=True,
    )  # fmt: skip
    channels = cut_channels(cube, setup.channels, scale=None, exclude=exclude)
    ratio, count = side_scatter(
        channels, setup.windows.sides, setup.stretch, degree, continuum_coverage, workers
    )
    hidden = maps.signal.mask[0]
    signal, noise = (np.where(hidden, np.nan, image.data[0]) for image in (maps.signal, maps.noise))
    measured = np.where(count > 0, noise * np.sqrt(ratio), np.nan)
    unit = maps.signal.unit
    return QTable(
        {
            "signal": signal * unit,
            "noise": noise * unit,
            "snr": signal / noise,
            "noise_measured": measured * unit,
            "snr_measured": signal / measured,
            "n_continuum": count,
        },
        meta={"method": method, "line": "+".join(setup.windows.keys), "windows": setup.windows.describe()},
    )


def _as_cube(spectra: Spectra) -> Cube:
    """Spectra side by side as a cube of one row; a view, nothing is copied."""
    lsf = spectra.lsf
    if lsf is not None and np.ndim(lsf) == 2:
        lsf = np.asarray(lsf).T[:, np.newaxis, :]
    data, variance, mask = (
        plane.T[:, np.newaxis, :] for plane in (spectra.data, spectra.variance, spectra.mask)
    )
    return Cube(
        data, variance, mask, spectra.unit, None, spectra.wave, spectra.medium, lsf=lsf,
        correlation=None if spectra.correlation is None else CubeCorrelation(None, spectra.correlation),
    )  # fmt: skip


def _as_row(values: Any, n: int) -> Any:
    if values is None or np.ndim(values) == 0:
        return values
    array = np.asarray(values)
    if array.shape != (n,):
        raise ShapeError(f"the values have shape {array.shape}; expected ({n},)", field="redshift")
    return array.reshape(1, n)
