"""Spectra of a file, chosen from a list: those of a fibre survey, of a table, of a set of rows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from skyloom.core.spectra import Spectra
from skyloom.errors import AssumptionWarning, FileFormatError, RepairWarning
from skyloom.io.registry import read
from skyloom.spectral.axes.grids import pixel_edges
from skyloom.spectral.axes.rest_frame import applied_redshift
from skyloom.viewer.protocols import Region, SpectrumView
from skyloom.viewer.spectra.names import lines_at, masked_ranges, merged_ranges
from skyloom.viewer.spectra.regions import rows_of

__all__ = ["ListedSpectra"]

NAMES = ("names", "name", "object", "labels")
FACTS = (
    ("class", "class", ""), ("ra", "right ascension", "°"), ("dec", "declination", "°"),
    ("instrument", "instrument", ""), ("plate", "plate", ""), ("mjd", "MJD", ""), ("fiberid", "fibre", ""),
)  # fmt: skip


class ListedSpectra:
    """The spectra of a file.

    Parameters
    ----------
    source : path or Spectra
    name : str
        What a single spectrum without a name is called.
    """

    def __init__(self, source: Path | Spectra, name: str = "") -> None:
        if isinstance(source, Spectra):
            self.spectra = source
        else:
            with warnings.catch_warnings():
                # What was assumed stands in the header of the list; a spectrum is only looked at here.
                warnings.simplefilter("ignore", AssumptionWarning)
                warnings.simplefilter("ignore", RepairWarning)
                found = read(source)
            if not isinstance(found, Spectra):
                raise FileFormatError(f"the file holds {type(found).__name__}, no spectra", source=source)
            self.spectra = found
        self._name = name or (source.name.partition(".")[0] if isinstance(source, Path) else "spectrum")

    @property
    def names(self) -> tuple[str, ...]:
        """What the spectra are called."""
        n, meta = len(self.spectra.data), self.spectra.meta
        if n == 1:
            return (str(meta.get("object") or self._name),)
        for key in NAMES:
            given = meta.get(key)
            if isinstance(given, (list, tuple, np.ndarray)) and len(given) == n:
                return tuple(f"bin {item}" if key == "labels" else str(item) for item in given)
        return tuple(f"spectrum {number}" for number in range(n))

    def redshift(self, row: int) -> float | None:
        """Return the redshift of a spectrum where it is known."""
        value = self._fact("redshift", row)
        return None if not isinstance(value, (int, float)) or not np.isfinite(value) else float(value)

    def _fact(self, key: str, row: int) -> Any:
        value = self.spectra.meta.get(key)
        if isinstance(value, (list, tuple, np.ndarray)):
            value = value[row] if len(value) == len(self.spectra.data) else None
        return value.item() if isinstance(value, np.generic) else value

    def spectrum(self, region: Region) -> SpectrumView | None:
        """Return the first of the rows that were chosen; of a single spectrum that one, wherever was clicked."""
        rows = rows_of(region)
        n = len(self.spectra.data)
        if rows is None:
            rows = [0] if n == 1 else []
        if not rows or not 0 <= rows[0] < n:
            return None
        return self._view(rows[0])

    def _view(self, row: int) -> SpectrumView:
        spectra = self.spectra
        mask, wave, medium = spectra.mask[row], spectra.wave, spectra.medium
        flux = np.where(mask, np.nan, spectra.data[row].astype(np.float64))
        error = np.where(mask, np.nan, np.sqrt(np.where(mask, 1.0, spectra.variance[row])))
        redshift = self.redshift(row)
        numbers = [] if redshift is None else [("redshift", f"{redshift:.6g}")]
        for key, name, unit in FACTS:
            value = self._fact(key, row)
            if value is not None and value != "":
                text = f"{value:.6f}" if key in ("ra", "dec") and isinstance(value, float) else str(value)
                numbers.append((name, f"{text}{unit}"))
        if not mask.all():
            numbers.append(("median S/N per channel", f"{np.nanmedian(flux / error):.1f}"))
        rest = bool(applied_redshift(spectra))
        seen = 0.0 if rest else redshift
        sky = spectra.meta.get("sky_residuals", ())
        return SpectrumView(
            title=self.names[row],
            wave=wave,
            medium=medium,
            flux=flux,
            error=error,
            mask=mask,
            unit=spectra.unit.to_string(),
            masked_ranges=merged_ranges(masked_ranges(pixel_edges(wave), mask), sky, wave, medium),
            lines=() if seen is None else lines_at(wave, medium, seen),
            numbers=tuple(numbers),
            redshift=redshift,
            rest_frame=rest,
        )
