"""Lines in the narrow band and in the broad ones: how much each band sees of them, relative to one line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.image import Image
from skyloom.core.linelist import LineList, convert_medium, default_lines
from skyloom.core.provenance import step
from skyloom.errors import InputError, ShapeError, UnitError

__all__ = [
    "CASE_B_HALPHA_HBETA",
    "LineShares",
    "dimensionless",
    "line_response",
    "line_shares",
    "ratio_plane",
]

Array = NDArray[Any]
Float = NDArray[np.float64]
CASE_B_HALPHA_HBETA = 2.86
"""Halpha / Hbeta at 10^4 K and 100 cm-3 (Osterbrock & Ferland 2006, ISBN 978-1-891389-34-4, table 4.4)."""
MEDIAN_OF = 1 << 18  # Pixels that a typical ratio is taken from.
MOST = 0.9  # Largest share of the line light that the broad bands may take from the narrow one.


def line_response(band: Bandpass, wave_vacuum: float) -> float:
    """Return the mean flux density that a line of unit flux gives a band, in 1/A; 0 where the band is opaque."""
    observed = float(convert_medium(np.asarray(wave_vacuum), "vacuum", band.medium))
    if float(band.throughput_at(observed)) <= 0:
        return 0.0
    return 1.0 / band.line_width(observed, band.medium)


def dimensionless(ratio: Image, name: str) -> Image:
    """Return a ratio map as plain numbers, percent included.

    Raises
    ------
    UnitError
        When it has a unit of its own.
    """
    try:
        factor = float(ratio.unit.to(u.dimensionless_unscaled))
    except u.UnitConversionError:
        raise UnitError(
            f"the ratio map of {name} is in {ratio.unit}; a ratio has no unit",
            source=ratio.meta.get("path"),
            field="line_ratios",
            remedy="divide the maps of both lines, in one unit",
        ) from None
    record = step("dimensionless", unit_before=ratio.unit, factor=factor)
    if factor == 1.0:
        return ratio.evolve(record, unit=u.dimensionless_unscaled)
    return ratio.evolve(
        record,
        data=ratio.data * factor,
        variance=ratio.variance * factor**2,
        unit=u.dimensionless_unscaled,
        modes=tuple(mode._replace(sigma=mode.sigma * factor) for mode in ratio.modes),
    )


def ratio_plane(ratio: float | ArrayLike | Image, shape: tuple[int, int], name: str) -> float | Array:
    """Return a line ratio as a number or a (ny, nx) array, NaN where an `Image` is masked.

    Raises
    ------
    ShapeError, InputError, UnitError
        When a map has another shape or a unit, or a number is not finite and >= 0.
    """
    if isinstance(ratio, Image):
        ratio = dimensionless(ratio, name)
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
    numbers : (n_bands,) float64 array
        Flux density, in 1/A, of the lines whose ratio is a number, per flux of the reference line; the narrow band
        first.
    maps : tuple of (ny, nx) array
        Ratios that change over the image.
    responses : (n_bands, n_maps) float64 array
        Flux density, in 1/A, that a unit of flux of each of these lines and of those tied to it gives.
    typical : tuple of float
        Share of each continuum, of the medians of the ratios.
    """

    keys: tuple[str, ...]
    numbers: Float
    maps: tuple[Array, ...]
    responses: Float
    typical: tuple[float, ...]

    def over(self, rows: slice) -> tuple[Float, ...]:
        """Return for each continuum the share k, (1, 1) or (rows, nx), of some rows of the image.

        k = sum_l r_l / W_l(continuum) over sum_l r_l / W_l(narrow); NaN where a ratio is.
        """
        if not self.maps:
            return tuple(np.full((1, 1), share) for share in self.typical)
        sums = []
        for number, responses in zip(self.numbers, self.responses, strict=True):
            total = np.full(self.maps[0][rows].shape, number)
            for response, ratio in zip(responses, self.maps, strict=True):
                if response > 0:
                    total += response * ratio[rows]
            sums.append(total)
        with np.errstate(divide="ignore", invalid="ignore"):  # What is no number is masked by the kernel.
            shares = tuple(np.divide(total, sums[0], out=total) for total in sums[1:])
        for ratio in self.maps:
            # A line that the narrow band and this continuum do not see still has to be known for the other one.
            shares[0][~np.isfinite(ratio[rows])] = np.nan
        return shares


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
    table = _complete(ratios, line, known)
    if line_response(bands[0], known[line].rest_vacuum * (1.0 + redshift)) <= 0:
        raise outside_band(bands[0], line, known[line].rest_vacuum * (1.0 + redshift), redshift)
    keys: list[str] = []
    numbers = np.zeros(len(bands))
    maps, responses, medians = [], [], []
    for key, given in table.items():
        response = np.zeros(len(bands))
        for member, share in ((key, 1.0), *_partners(key, table, known)):
            wave = known[member].rest_vacuum * (1.0 + redshift)
            light = np.array([line_response(band, wave) for band in bands])
            if light.any():
                keys.append(member)
                response += share * light * [1.0 if factor is None else factor(wave) for factor in dimming]
        ratio = ratio_plane(given, shape, key)
        if not response.any():
            continue
        if isinstance(ratio, np.ndarray):
            maps.append(ratio)
            responses.append(response)
            medians.append(_median(ratio, key))
        else:
            numbers += ratio * response
    total = numbers + sum(
        (median * part for median, part in zip(medians, responses, strict=True)), np.zeros(len(bands))
    )
    typical = tuple(float(value) for value in total[1:] / total[0])
    for band, share in zip(bands[1:], typical, strict=True):
        if not share < MOST:
            raise InputError(
                f"{band.name or 'a continuum band'} sees {share:.2f} of the line light that "
                f"{bands[0].name or 'the narrow band'} sees",
                field="bands",
                remedy="check the order of the bands: the narrow one comes first, the continua are broad",
            )
    return LineShares(tuple(keys), numbers, tuple(maps), np.array(responses).T, typical)


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


def _complete(
    ratios: Mapping[str, float | ArrayLike | Image], line: str, lines: LineList
) -> dict[str, float | ArrayLike | Image]:
    """Add the reference line, and Hbeta at case B."""
    table: dict[str, Any] = {line: 1.0, **{lines[key].key: ratio for key, ratio in ratios.items()}}
    if np.ndim(table[line]) or table[line] != 1.0:
        raise InputError(f"ratios are relative to {line}; its own cannot be given", field="line_ratios")
    if line == "Halpha":
        table.setdefault("Hbeta", 1.0 / CASE_B_HALPHA_HBETA)
    return table


def _partners(key: str, table: Collection[str], lines: LineList) -> list[tuple[str, float]]:
    """Return the lines that atomic physics ties to this one and that are not given, with their shares of its flux."""
    return [
        (partner.key, partner.tied[1])
        for partner in lines
        if partner.tied is not None and partner.tied[0] == key and partner.key not in table
    ]


def _median(ratio: Array, key: str) -> float:
    """Return the median of a map, of a part of its pixels if there are many."""
    every = max(1, int((ratio.size / MEDIAN_OF) ** 0.5))
    some = ratio[::every, ::every]
    known = some[np.isfinite(some)]
    if known.size == 0:
        known = ratio[np.isfinite(ratio)]
    if known.size == 0:
        raise InputError(f"the ratio map of {key} has no finite value", field="line_ratios")
    return float(np.median(known))
