"""Lines in the narrow band and in the broad ones: how much each band sees of them, relative to one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.image import Image
from skyloom.core.linelist import LineList, convert_medium, default_lines
from skyloom.errors import InputError, ShapeError

__all__ = ["CASE_B_HALPHA_HBETA", "LineShares", "line_response", "line_shares", "ratio_plane"]

Array = NDArray[Any]
Float = NDArray[np.float64]
CASE_B_HALPHA_HBETA = 2.86
"""Halpha / Hbeta at 10^4 K and 100 cm-3 (Osterbrock & Ferland 2006, ISBN 978-1-891389-34-4, table 4.4)."""
MOST = 0.9  # Largest share of the line light that the broad bands may take from the narrow one.


def line_response(band: Bandpass, wave_vacuum: float) -> float:
    """Return the mean flux density that a line of unit flux gives a band, in 1/A; 0 where the band is opaque."""
    observed = float(convert_medium(np.asarray(wave_vacuum), "vacuum", band.medium))
    if float(band.throughput_at(observed)) <= 0:
        return 0.0
    return 1.0 / band.line_width(observed, band.medium)


def ratio_plane(ratio: float | ArrayLike | Image, shape: tuple[int, int], name: str) -> float | Array:
    """Return a line ratio as a number or a (ny, nx) array, NaN where an `Image` is masked.

    Raises
    ------
    ShapeError, InputError
        When a map has another shape, or a number is not finite and >= 0.
    """
    plane: Array = np.asarray(ratio.data if isinstance(ratio, Image) else ratio)
    if plane.ndim == 0:
        value = float(plane)
        if not 0 <= value < np.inf:
            raise InputError(f"the ratio of {name} is {value}; expected >= 0", field="line_ratios")
        return value
    if plane.shape != shape:
        raise ShapeError(
            f"the ratio map of {name} has shape {plane.shape}; expected {shape}, that of the narrow band",
            field="line_ratios",
        )
    if isinstance(ratio, Image) and ratio.mask.any():
        plane = np.where(ratio.mask, np.nan, plane)
    return plane


@dataclass(frozen=True, slots=True, eq=False)
class LineShares:
    """What lines add to the continua, per light of all lines in the narrow band.

    Parameters
    ----------
    keys : tuple of str
        Lines that any of the bands sees.
    ratios : tuple of float or (ny, nx) array
        Their fluxes relative to the reference line's.
    responses : (n_bands, n_lines) float64 array
        Flux density that a unit of flux of each line gives, in 1/A; the narrow band first.
    """

    keys: tuple[str, ...]
    ratios: tuple[float | Array, ...]
    responses: Float

    @property
    def are_maps(self) -> bool:
        """Whether a ratio changes over the image."""
        return any(np.ndim(ratio) for ratio in self.ratios)

    def over(self, rows: slice) -> tuple[Float, ...]:
        """Return for each continuum the share k, (1, 1) or (rows, nx), of some rows of the image.

        k = sum_l r_l / W_l(continuum) over sum_l r_l / W_l(narrow); NaN where a ratio is.
        """
        if not self.are_maps:
            narrow, *broad = self.responses @ np.array(self.ratios, dtype=np.float64)
            return tuple(np.full((1, 1), value / narrow) for value in broad)
        sums = [
            sum(
                response * (ratio[rows] if isinstance(ratio, np.ndarray) else ratio)
                for response, ratio in zip(line, self.ratios, strict=True)
                if response > 0
            )
            for line in self.responses
        ]
        with np.errstate(divide="ignore", invalid="ignore"):  # What is no number is masked by the kernel.
            return tuple(np.atleast_2d(np.asarray(total / sums[0], dtype=np.float64)) for total in sums[1:])

    def typical(self) -> tuple[float, ...]:
        """Return the share of each continuum, of the medians of the ratios."""
        middle = tuple(float(np.nanmedian(ratio)) for ratio in self.ratios)
        return tuple(float(k[0, 0]) for k in LineShares(self.keys, middle, self.responses).over(slice(None)))


def line_shares(
    bands: Sequence[Bandpass],
    redshift: float,
    ratios: Mapping[str, float | ArrayLike | Image],
    shape: tuple[int, int],
    *,
    line: str,
    dimming: Sequence[Callable[[float], float] | None],
    lines: LineList | None = None,
) -> LineShares:
    """Find what the lines add to each band.

    Parameters
    ----------
    bands : sequence of Bandpass
        The narrow one first.
    redshift : float
    ratios : mapping of line key to number or map
        Fluxes relative to ``line``. With Halpha, Hbeta is added at case B; lines tied by atomic physics to a given
        one ([N II] 6548, [O III] 4959) come with it.
    shape : (int, int)
        Of the images.
    line : str
        Key of the reference line; the narrow band must see it.
    dimming : sequence of callables or None
        For each band, what its calibration multiplies the light of a line with, given its observed wavelength.
    lines : LineList, optional
        Where the keys are found.

    Raises
    ------
    InputError
        When a key is unknown, a ratio not a number >= 0, the reference line falls outside the narrow band, or the
        broad bands see the lines nearly as well as the narrow one.
    """
    known = default_lines() if lines is None else lines
    if not np.isfinite(redshift) or redshift <= -1:
        raise InputError(f"redshift is {redshift}; expected a number > -1", field="redshift")
    table = _with_partners(ratios, line, known)
    seen = {key: known[key].rest_vacuum * (1.0 + redshift) for key in table}
    raw = np.array([[line_response(band, wave) for wave in seen.values()] for band in bands])
    if not raw[0, 0] > 0:
        raise outside_band(bands[0], line, seen[line], redshift)
    kept = [number for number in range(len(seen)) if raw[:, number].any()]
    keys = [list(seen)[number] for number in kept]
    factors = [[1.0 if factor is None else factor(seen[key]) for key in keys] for factor in dimming]
    responses = raw[:, kept] * np.array(factors)
    planes = tuple(ratio_plane(table[key], shape, key) for key in keys)
    shares = LineShares(tuple(keys), planes, responses)
    for band, share in zip(bands[1:], shares.typical(), strict=True):
        if not share < MOST:
            raise InputError(
                f"{band.name or 'a continuum band'} sees {share:.2f} of the line light that "
                f"{bands[0].name or 'the narrow band'} sees",
                field="bands",
                remedy="check the order of the bands: the narrow one comes first, the continua are broad",
            )
    return shares


def outside_band(band: Bandpass, line: str, wave: float, redshift: float) -> InputError:
    """Return the error that says that a line at ``wave`` A (vacuum) does not fall into a band."""
    low, high = band.limits
    return InputError(
        f"{line} lies at {wave:.1f} A (vacuum) at redshift {redshift:g}, where the band, {low:.0f}-{high:.0f} A, lets "
        "nothing through",
        source=band.name or None,
        field="redshift",
        remedy="check the redshift and the narrow band",
    )


def _with_partners(
    ratios: Mapping[str, float | ArrayLike | Image], line: str, lines: LineList
) -> dict[str, float | ArrayLike | Image]:
    """Add the reference line, Hbeta at case B, and the lines tied to those that are given."""
    table: dict[str, Any] = {line: 1.0, **{lines[key].key: ratio for key, ratio in ratios.items()}}
    if np.ndim(table[line]) or table[line] != 1.0:
        raise InputError(f"ratios are relative to {line}; its own cannot be given", field="line_ratios")
    if line == "Halpha":
        table.setdefault("Hbeta", 1.0 / CASE_B_HALPHA_HBETA)
    for partner in lines:
        if partner.tied is not None and partner.tied[0] in table and partner.key not in table:
            leader, share = partner.tied
            given = table[leader]
            if isinstance(given, Image):
                given = np.where(given.mask, np.nan, given.data)
            table[partner.key] = share * np.asarray(given) if np.ndim(given) else share * float(given)
    return table
