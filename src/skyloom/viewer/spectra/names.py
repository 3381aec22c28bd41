"""Names of lines where they are seen, ranges that are left out, and numbers as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import astropy.units as u
import numpy as np

from skyloom.core.linelist import Line, convert_medium, default_lines
from skyloom.viewer.protocols import Bool, Float

__all__ = [
    "line_rank",
    "lines_at",
    "masked_ranges",
    "merged_ranges",
    "pretty_name",
    "unit_name",
    "with_error",
]

Range = tuple[float, float]
SUPERSCRIPTS = str.maketrans("0123456789-.", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻·")

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "zeta": "ζ"}
# Lines that tell most about a spectrum come first where there is no room for all names.
IMPORTANT = (
    "Halpha", "OIII5007", "Hbeta", "NII6583", "SII6716", "OII3729", "SIII9068", "Mgb5172", "NaD5889", "CaII8542",
    "OI6300", "SII6730", "OIII4959", "CaII3933", "CaII3968", "Hgamma", "NII6548", "HeI5875", "Hdelta", "OII3726",
)  # fmt: skip


def line_rank(key: str) -> int:
    """Return how soon a line is named where there is no room for all names; 0 first."""
    return IMPORTANT.index(key) if key in IMPORTANT else len(IMPORTANT)


def pretty_name(key: str) -> str:
    """Write the key of a line as spectroscopists do: ``Hα``, ``[N II] 6583``; a key that is not known, as it is."""
    broad = "broad " if key.startswith("Bl_") else ""
    key = key.removeprefix("Bl_")
    bare, _, component = key.partition(" ")
    suffix = f" ({component})" if component else ""
    if bare not in default_lines():
        return broad + key
    species = default_lines()[bare].species
    if species == "H I" and bare[1:] in GREEK:
        return f"{broad}H{GREEK[bare[1:]]}{suffix}"
    digits = bare[-4:] if bare[-4:].isdigit() else ""
    name = "DIB" if species.startswith("diffuse") else species
    return f"{broad}{name} {digits}".rstrip() + suffix


def lines_at(
    wave: Float, medium: str, redshift: float, lines: Iterable[Line] | None = None
) -> tuple[tuple[str, float], ...]:
    """Return names of lines and the wavelengths at which a source of this redshift shows them, in ``medium``.

    Only those on the axis; of the list that ships with Skyloom unless others are given.
    """
    found = []
    for line in default_lines() if lines is None else lines:
        seen = line.rest(medium) * (1.0 + redshift)  # type: ignore[arg-type]  # of a checked spectrum
        if wave[0] <= seen <= wave[-1]:
            found.append((line.key, float(seen)))
    return tuple(found)


def masked_ranges(edges: Float, mask: Bool) -> list[Range]:
    """Return the ranges of wavelengths whose channels are unusable, from the edges (n + 1,) of the channels."""
    steps = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    first, last = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return [(float(edges[start]), float(edges[stop])) for start, stop in zip(first, last, strict=True)]


def merged_ranges(own: Sequence[Range], sky: Sequence[Range], wave: Float, medium: str) -> tuple[Range, ...]:
    """Join ranges; those of the sky are given in air, and cut at the ends of the axis."""
    ranges = list(own)
    for low, high in sky:
        low, high = (float(value) for value in convert_medium([low, high], "air", medium))  # type: ignore[arg-type]
        if high > wave[0] and low < wave[-1]:
            ranges.append((max(low, float(wave[0])), min(high, float(wave[-1]))))
    joined: list[Range] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def with_error(value: float, error: float = float("nan")) -> str:
    """Write a value and its error with two digits of the error: ``12.3 ± 1.2``, ``(1.23 ± 0.12)·10⁻¹⁶``."""
    if not np.isfinite(value):
        return "–"
    known = np.isfinite(error) and error > 0
    size = max(abs(value), error if known else 0.0)
    power = int(np.floor(np.log10(size))) if size > 0 else 0
    if not -4 <= power < 7:
        text = with_error(value / 10.0**power, error / 10.0**power)
        ten = "·10" + str(power).translate(SUPERSCRIPTS)
        return f"({text}){ten}" if known else text + ten
    if not known:
        return f"{value:.4g}"
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def unit_name(unit: u.UnitBase | str) -> str:
    """Write a unit as on an axis, with raised exponents: ``10⁻²⁰ erg s⁻¹ cm⁻² Å⁻¹``."""
    parsed = u.Unit(unit)
    parts = []
    power = float(np.log10(parsed.scale))
    if abs(power) > 1e-9:
        whole = abs(power - round(power)) < 1e-9
        parts.append("10" + str(round(power)).translate(SUPERSCRIPTS) if whole else f"{parsed.scale:g}")
    for base, exponent in sorted(zip(parsed.bases, parsed.powers, strict=True), key=lambda item: -item[1]):
        raised = "" if exponent == 1 else f"{float(exponent):g}".translate(SUPERSCRIPTS)
        parts.append(f"{'Å' if base == u.AA else base.to_string()}{raised}")
    return " ".join(parts)
