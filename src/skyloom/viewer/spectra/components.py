"""Each line of a fit as a curve, from the numbers in its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from skyloom.core.linelist import Line
from skyloom.kernels.lines.profiles import SPEED_OF_LIGHT, add_profile, reach_of
from skyloom.viewer.protocols import Float

__all__ = ["Profile", "add_up", "line_curve", "profiles_of"]

MOST_COMPONENTS = 3
NARROWEST = 0.2**0.5  # Of the instrument's width: less a fit does not allow, whatever the noise.


class Profile(NamedTuple):
    """A Gaussian in a spectrum.

    Attributes
    ----------
    name : str
        Key of the line, with the number of the component where there are several.
    flux : float
        In the unit of the spectrum times A.
    centre, sigma : float
        Where and how wide it is seen, with the instrument, in A.
    """

    name: str
    flux: float
    centre: float
    sigma: float


def profiles_of(
    row: Mapping[str, float], line: Line, medium: str, redshift: float, lsf: float
) -> list[Profile]:
    """Return the Gaussians of a line from the numbers of one spectrum.

    Parameters
    ----------
    row : mapping
        Columns of `skyloom.core.line_fit.LineFit.table`, in km/s and the unit of the spectrum times A.
    line : Line
    medium : {"air", "vacuum"}
    redshift : float
        What the velocities refer to.
    lsf : float
        Standard deviation of the instrument at the line, A.

    Returns
    -------
    list of Profile
        Empty where the line was not measured.
    """
    unshifted = line.rest(medium) * (1.0 + redshift)  # type: ignore[arg-type]  # of a checked spectrum
    per_speed = unshifted / SPEED_OF_LIGHT
    parts = []
    for number in range(1, MOST_COMPONENTS + 1):
        flux, velocity, sigma = (
            row.get(f"{line.key}_{item}_{number}", np.nan) for item in ("flux", "velocity", "sigma")
        )
        if np.isfinite([flux, velocity, sigma]).all():
            width = float(np.hypot(lsf, sigma * per_speed))
            parts.append(Profile(f"{line.key} {number}", flux, unshifted + per_speed * velocity, width))
    if len(parts) > 1:
        return parts
    flux, velocity = row.get(f"{line.key}_flux", np.nan), row.get(f"{line.key}_velocity", np.nan)
    width = fitted_width(
        row.get(f"{line.key}_sigma_observed", np.nan), row.get(f"{line.key}_sigma_observed_err", np.nan)
    )
    if not np.isfinite([flux, velocity, width]).all():
        return []
    width = max(width * per_speed, NARROWEST * lsf) if np.isfinite(lsf) else width * per_speed
    return [Profile(line.key, flux, unshifted + per_speed * velocity, width)]


def fitted_width(observed: float, error: float) -> float:
    """Return the width that was fitted from the one in the table, which had its bias of second order put back.

    The table has ``o = p + min(e^2 / 2p, e / 4)`` for the fitted p and its error e
    (`skyloom.spectral.lines.table.observed_width`).
    """
    if not (np.isfinite(error) and error > 0):
        return observed
    inside = observed**2 - 2 * error**2
    plain = 0.5 * (observed + np.sqrt(inside)) if inside >= 0 else np.nan
    return float(plain) if plain >= 2 * error else observed - 0.25 * error


def line_curve(edges: Float, profile: Profile) -> Float:
    """Return a Gaussian averaged over each channel, as the fit evaluates it; ``edges`` (n + 1,) in A."""
    n = edges.size - 1
    curve, slope, bend = np.zeros(n), np.zeros(n), np.zeros(n)
    first, last = reach_of(edges, 0, n, profile.centre, profile.sigma)
    add_profile(
        edges, np.ones(n), first, last, 0, profile.centre, profile.sigma, profile.flux, 1.0, 1.0, curve, slope, bend
    )  # fmt: skip
    return curve


def add_up(curves: Mapping[str, Float], total: Float) -> dict[str, Float]:
    """Return the curves so that they add up to the model of the fit, channel by channel.

    The table has fluxes and kinematics without the bias of least squares, the model is the best fit itself; what they
    differ by, a fraction of the error, goes to the lines in proportion to what they have in the channel. Where none
    reaches it goes to the one whose peak is the highest.
    """
    if not curves:
        return {}
    stack = np.array(list(curves.values()))
    sizes = np.abs(stack)
    whole = sizes.sum(axis=0)
    strongest = np.zeros(sizes.shape)
    strongest[int(np.argmax(sizes.max(axis=1)))] = 1.0
    share = np.divide(sizes, whole, out=strongest, where=whole > 0)
    stack = stack + share * (total - stack.sum(axis=0))
    return dict(zip(curves, stack, strict=True))
