"""Light of lines in a narrow band: what is left when the continuum, interpolated from broad bands, is taken off.

With the narrow band N and the broad ones B and R (mean flux densities, at pivot wavelengths l), weights
``w2 = (l_N - l_B) / (l_R - l_B)`` and ``w1 = 1 - w2``, and k the light of the lines in a broad band per light of the
lines in the narrow one (`skyloom.imaging.narrow_band.lines`):

==========  =================================================================================================
linear      ``C = w1 (B - k1 E) + w2 (R - k2 E)`` and ``E = N - C``, in closed form
            ``E = (N - w1 B - w2 R) / (1 - w1 k1 - w2 k2)``. Its variance is exact.
log         ``C = (B - k1 E)^w1 (R - k2 E)^w2``, solved by Newton's method to rounding; bias and variance to
            second order in the errors. Where a continuum is below ``minimum_snr`` times its error (zero and negative
            included) the logarithm is not defined or its expansion of no use. There C is linear,
            ``C = g1 (B - k1 E) + g2 (R - k2 E)``, with the weights that have log interpolation as its tangent at
            the colour s = R / B of the surroundings, ``g1 = w1 s^w2``, ``g2 = w2 s^-w1``; and with w1, w2 where
            no surroundings show a continuum. The pixels of each kind are counted.
==========  =================================================================================================

A common power law ``f ~ l^slope`` can be taken out of all bands before: slope = -2 interpolates per frequency, as
pipelines do that work with AB zero points.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.extinction import extinction_curve
from skyloom.core.image import Image, copy_with
from skyloom.core.provenance import Step, step
from skyloom.errors import AssumptionWarning, InputError
from skyloom.imaging.narrow_band.bands import BandSet, band_set, check_images, check_psfs, extinction_factors
from skyloom.imaging.narrow_band.continuum_pass import Plan, Result, make_plan, run_plan
from skyloom.imaging.narrow_band.errors import combined_modes, mean_correlation
from skyloom.imaging.narrow_band.lines import LineShares, line_shares
from skyloom.imaging.psfs.convolve import match_psf

__all__ = ["ContinuumSubtraction", "subtract_continuum"]

Array = NDArray[Any]
Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ContinuumSubtraction:
    """What `subtract_continuum` found.

    Parameters
    ----------
    excess : Image
        Narrow band less continuum, in the unit of the images.
    continuum : Image
        The continuum in the narrow band, ``narrow - excess``; its errors are correlated with those of the excess.
    bands : tuple of str
        Names, the narrow one first.
    pivots : tuple of float
        Wavelengths in A.
    weights : tuple of float
        Of the continua, sum 1.
    contamination : tuple of float
        Light of the lines in each continuum, per light of the lines in the narrow band; 0 where lines were left in.
        For maps of line ratios that of the median ratios.
    extinction : tuple of float
        What each image was multiplied by for the dust of the Milky Way.
    counts : dict of str to int
        Pixels: ``valid``, ``not_positive`` (continuum), ``unusable`` (no finite result); with log interpolation also
        ``logarithmic``, ``surroundings``, ``linear`` (how they were interpolated) and ``not_converged``.
    """

    excess: Image
    continuum: Image
    bands: tuple[str, ...]
    pivots: tuple[float, ...]
    weights: tuple[float, ...]
    contamination: tuple[float, ...]
    extinction: tuple[float, ...]
    counts: dict[str, int]


def subtract_continuum(
    narrow: Image,
    continua: Image | Sequence[Image],
    narrow_band: Bandpass | float | None = None,
    bands: Bandpass | float | Sequence[Bandpass | float | None] | None = None,
    *,
    interpolation: str = "linear",
    slope: float = 0.0,
    minimum_snr: float = 5.0,
    redshift: float | None = None,
    line: str = "Halpha",
    line_ratios: Mapping[str, float | ArrayLike | Image] | None = None,
    a_v: float | None = None,
    ebv: float | None = None,
    r_v: float = 3.1,
    curve: str = "fitzpatrick99",
    outside: str = "refuse",
    match: str = "none",
    psf_tolerance: float = 0.1,
    common_modes: Collection[str] = (),
    threads: int | None = None,
) -> ContinuumSubtraction:
    """Subtract the continuum from a narrow-band image.

    Parameters
    ----------
    narrow : Image
        Flux density per wavelength.
    continua : one or two Images
        Broad bands on the same grid, in the same unit.
    narrow_band : Bandpass or float, optional
        Its throughput, or its pivot wavelength in A; None: ``meta["photplam"]``.
    bands : one or two of Bandpass or float, optional
        The same for the continua.
    interpolation : {"linear", "log"}
        In flux or in log flux, by pivot wavelength. With one continuum both are the same.
    slope : float
        Of a power law ``f_lambda ~ l^slope`` that is taken out of all bands and put back: the colour for one band
        (0: the same flux density per wavelength; -2: per frequency).
    minimum_snr : float
        Signal to noise of the continua in a pixel from which on "log" takes the logarithm of the pixel itself.
    redshift : float, optional
        Given: the lines in the broad bands are taken out. Needs throughputs.
    line : str
        The line that the narrow band is for.
    line_ratios : mapping of str to float or map, optional
        Fluxes of lines (keys of `skyloom.core.linelist.default_lines`) relative to ``line``, outside of the Milky Way
        when its extinction is corrected here. With Halpha, Hbeta is 1 / 2.86 unless given; [N II] 6548 and
        [O III] 4959 follow their partners.
    a_v, ebv : float, optional
        Extinction by the Milky Way to be corrected for at the pivot wavelengths; at most one of them.
    r_v, curve
        As for `skyloom.core.extinction.extinction_curve`.
    outside : {"refuse", "extrapolate"}
        What to do when the narrow band does not lie between the continua.
    match : {"none", "broadest"}
        Whether PSFs that differ are matched to the broadest.
    psf_tolerance : float
        Relative difference of FWHM from which on PSFs differ.
    common_modes : collection of str
        Names of shared errors that are one and the same in all images (a flux calibration). All others are taken as
        independent from image to image; those of the continua get the name of their band added.
    threads : int, optional
        Threads; None: as many as there are cores.

    Returns
    -------
    ContinuumSubtraction
        Masks are united, and so are flags. Correlation of the noise: the mean of those of the images, weighted with
        their mean shares in the variance. A shared error of a continuum enters with the derivative of the excess.

    Raises
    ------
    InputError, ShapeError, UnitError
        When grids, units, bands or options do not fit, a continuum is zero everywhere, or no pixel is usable in all
        images. The message names the band.

    Warns
    -----
    AssumptionWarning
        When PSFs differ, the continuum is extrapolated, or the equations of some pixels did not converge.

    Notes
    -----
    Linear: ``Var E = (V_N + w1^2 V_B + w2^2 V_R) / (1 - w1 k1 - w2 k2)^2``, ``C = N - E``.

    Log, with b = B - k1 E, r = R - k2 E, C_B = w1 C / b, C_R = w2 C / r, D = 1 - k1 C_B - k2 C_R:
    ``Var E = (V_N + C_B^2 V_B + C_R^2 V_R) / D^2``; errors make C too faint by
    ``beta = w1 w2 C Var(ln b - ln r) / 2`` (too bright when extrapolated), so that ``E - beta / D`` is given. With
    u = V_B / b^2 and t = V_R / r^2, the variance of that, estimated without bias from noisy pixels, is less by
    ``(2 beta^2 + C^2 (w1^2 u w2 ((1 + w2) u - w1 t) + w2^2 t w1 ((1 + w1) t - w2 u))) / D^2``. Errors of the colour
    of the surroundings are neglected.
    """
    if interpolation not in ("linear", "log"):
        raise InputError(
            f"interpolation is {interpolation!r}; expected 'linear' or 'log'", field="interpolation"
        )
    images = [narrow, *([continua] if isinstance(continua, Image) else continua)]
    check_images(images)
    given = [None] * (len(images) - 1) if bands is None else bands
    given = [given] if isinstance(given, Bandpass) or np.ndim(given) == 0 else list(given)  # type: ignore[arg-type, list-item]
    chosen = band_set(images, [narrow_band, *given], outside, slope)  # type: ignore[list-item]
    factors, visual = extinction_factors(images, chosen, a_v=a_v, ebv=ebv, r_v=r_v, curve=curve)
    images = _matched(images, chosen.names, match, psf_tolerance)
    ratio = [pivot / chosen.pivots[0] for pivot in chosen.pivots]
    scales = np.array([factor * item**-slope for factor, item in zip(factors, ratio, strict=True)])
    shares = None
    if redshift is not None:
        dimming = [
            None if visual is None and not slope else _dimming(scale, visual, curve, r_v) for scale in scales
        ]
        shares = _shares(chosen, redshift, line_ratios or {}, narrow.shape, line, dimming)
    elif line_ratios:
        raise InputError(
            "line ratios are given, but no redshift",
            field="redshift",
            remedy="give the redshift of the lines",
        )
    contamination = (0.0,) * len(chosen.weights) if shares is None else shares.typical
    plan = make_plan(images, chosen, scales, shares, interpolation, minimum_snr)
    result = run_plan(images, plan, threads)
    counts = _checked_counts(result.counts, chosen.names, interpolation)
    record = step(
        "subtract_continuum",
        interpolation=interpolation,
        bands=list(chosen.names),
        pivots=list(chosen.pivots),
        weights=list(chosen.weights),
        slope=float(slope),
        redshift=redshift,
        lines=[] if shares is None else list(shares.keys),
        contamination=list(contamination),
        a_v=visual,
        extinction_factors=list(factors),
        **counts,
        continua=[[item.describe() for item in image.history] for image in images[1:]],
    )
    excess, continuum = _products(images, chosen, plan, result, record, visual, interpolation, common_modes)
    return ContinuumSubtraction(
        excess, continuum, chosen.names, chosen.pivots, chosen.weights, contamination, factors, counts
    )


def _products(
    images: Sequence[Image],
    bands: BandSet,
    plan: Plan,
    result: Result,
    record: Step,
    visual: float | None,
    interpolation: str,
    common_modes: Collection[str],
) -> tuple[Image, Image]:
    """Make the two images; the kernel has checked their pixels."""
    narrow = images[0]
    meta = {**narrow.meta, "continuum_interpolation": interpolation, "continuum_bands": list(bands.names[1:])}
    if visual is not None:
        meta["milky_way_corrected"] = True
    made = []
    for index in range(2):
        shares = result.counts[1 + 3 * index : 4 + 3 * index] / result.counts[0]
        modes = combined_modes(
            images, bands.names, index, plan.fixed, plan.scales, result.slopes, common_modes
        )
        changes = {
            "data": result.data[index],
            "variance": result.variance[index],
            "mask": result.mask,
            "flags": result.flags,
            "modes": modes,
            "correlation": mean_correlation(shares, images),
            "meta": dict(meta),
            "history": (*narrow.history, record),
        }
        made.append(copy_with(narrow, changes))
    return made[0], made[1]


def _shares(
    bands: BandSet,
    redshift: float,
    ratios: Mapping[str, float | ArrayLike | Image],
    shape: tuple[int, int],
    line: str,
    dimming: Sequence[Any],
) -> LineShares:
    curves = [curve for curve in bands.bandpasses if curve is not None]
    if len(curves) < len(bands.names):
        missing = [name for name, curve in zip(bands.names, bands.bandpasses, strict=True) if curve is None]
        raise InputError(
            f"the throughput of {', '.join(missing)} is not known; lines in the broad bands cannot be taken out",
            field="bands",
            remedy="give a Bandpass, or no redshift",
        )
    return line_shares(curves, redshift, ratios, shape, line=line, dimming=dimming)


def _dimming(scale: float, visual: float | None, curve: str, r_v: float) -> Any:
    """Return what a band's calibration, made for its pivot, does to a line elsewhere in it."""

    def factor(wave: float) -> float:
        if visual is None:
            return float(scale)
        # The ratios are those of light without the dust that the scale takes out.
        return float(scale * 10 ** (-0.4 * visual * float(extinction_curve(wave, curve, r_v))))

    return factor


def _matched(images: Sequence[Image], names: Sequence[str], match: str, tolerance: float) -> list[Image]:
    """Return the images with PSFs that agree, or warn that they do not."""
    if match not in ("none", "broadest"):
        raise InputError(f"match is {match!r}; expected 'none' or 'broadest'", field="match")
    trouble = check_psfs(images, names, tolerance)
    if not trouble:
        return list(images)
    if match == "none":
        warnings.warn(
            f'{trouble}: compact sources leave residuals; match="broadest" avoids them',
            AssumptionWarning,
            stacklevel=3,
        )
        return list(images)
    psfs = [image.psf for image in images if image.psf is not None]
    broadest = max(psfs, key=lambda psf: psf.fwhm)
    return [
        image if image.psf is None or image.psf is broadest else match_psf(image, broadest)
        for image in images
    ]


def _checked_counts(counts: Float, names: Sequence[str], interpolation: str) -> dict[str, int]:
    """Return the counts by name after checking that there is something to count."""
    given = counts[0] + counts[9]
    if given == 0:
        raise InputError(
            f"no pixel is usable in all of {', '.join(names)}",
            field="mask",
            remedy="check their masks and grids",
        )
    for name, used in zip(names[1:], counts[7:9], strict=False):
        if used == 0:
            raise InputError(
                "the continuum is zero in all usable pixels",
                source=name,
                field="continua",
                remedy="give another image, or subtract one continuum only",
            )
    if counts[0] == 0:
        raise InputError(
            "no pixel has a finite result", field="data", remedy="check the units and the line ratios"
        )
    table = {"valid": counts[0], "not_positive": counts[10], "unusable": counts[9]}
    if interpolation == "log" and len(names) == 3:
        table |= {
            "logarithmic": counts[11],
            "surroundings": counts[12],
            "linear": counts[13],
            "not_converged": counts[14],
            "iterations": counts[15],
        }
        if counts[14]:
            warnings.warn(
                f"the log interpolation of {int(counts[14])} pixels did not converge; they are linear",
                AssumptionWarning,
                stacklevel=3,
            )
    return {name: int(value) for name, value in table.items()}
