"""Spectra of bins that a run of the recipe ifs has fitted: one bin, or the sum of several with their covariance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.linelist import Line
from skyloom.spectral.axes.grids import pixel_edges
from skyloom.viewer.protocols import Float, Region, SpectrumView
from skyloom.viewer.spectra.bin_files import BinFiles, Readable
from skyloom.viewer.spectra.components import add_up, line_curve, profiles_of
from skyloom.viewer.spectra.names import lines_at, masked_ranges, merged_ranges, with_error
from skyloom.viewer.spectra.numbers import SEPARATOR, line_numbers, star_numbers, unit_name
from skyloom.viewer.spectra.regions import bin_correlation, pixels_inside, rows_of

__all__ = ["POLYNOMIAL", "BinSpectra"]

Rows = NDArray[np.int64]
POLYNOMIAL = "polynomial"  # what was fitted with the lines, on top of the continuum
MOST_CURVES = 500  # Bins whose lines are drawn one by one; each takes some milliseconds.
COVERAGE = 0.75  # Smallest share of spaxels with a value, as for the extraction of spectra.


class BinSpectra:
    """Spectra and fits of the bins of an object.

    Parameters
    ----------
    prefix : path
        What the names of its products begin with.
    may_read : callable
        Tells of each of these files whether it is there and may be read.
    """

    def __init__(self, prefix: Path, may_read: Readable = Path.is_file) -> None:
        self.files = BinFiles(prefix, may_read)
        self.edges = pixel_edges(self.files.wave)

    @property
    def names(self) -> tuple[str, ...]:
        """What the rows are called in a list."""
        return tuple(
            f"bin {number}" + (f" ({size} spaxels)" if size else "")
            for number, size in zip(self.files.ids, self.files.sizes, strict=True)
        )

    def spectrum(self, region: Region) -> SpectrumView | None:
        """Return the spectrum of the bin that was clicked, or the sum of those that a lasso meets.

        Whole bins are added up: a bin has one spectrum, whichever of its spaxels are inside.
        """
        rows = self._chosen(region)
        if rows.size == 0:
            return None
        return self._one(int(rows[0])) if rows.size == 1 else self._sum(rows)

    def _chosen(self, region: Region) -> Rows:
        files = self.files
        listed = rows_of(region)
        if listed is not None:
            return np.array([row for row in sorted(set(listed)) if 0 <= row < files.ids.size], dtype=np.int64)
        if files.labels is None:
            return np.zeros(0, np.int64)
        met = np.unique(files.labels[pixels_inside(region, files.labels.shape)])
        return np.flatnonzero(np.isin(files.ids, met[met >= 0]))

    # --- one bin ----------------------------------------------------------------------------------------

    def _one(self, row: int) -> SpectrumView:
        files = self.files
        rows = np.array([row])
        planes = {name: self._plane(name, rows)[0] for name in ("SCI", "VAR", "MASK")}
        mask = planes["MASK"] != 0
        parts = self._models(rows, np.ones(1))
        number, size = int(files.ids[row]), int(files.sizes[row])
        mean = files.meta.get("extraction") == "mean" and size > 1
        spaxels = f"{'mean of ' if mean else ''}{size} spaxel{'s' if size != 1 else ''}"
        return self._view(
            f"bin {number}" + (f" ({spaxels})" if size else ""),
            planes["SCI"],
            np.sqrt(np.where(mask, np.nan, planes["VAR"])),
            mask,
            parts,
            self._components(row, parts["LINES"]),
            tuple(self._numbers(row)),
        )

    def _components(self, row: int, total: Float | None) -> dict[str, Float]:
        files = self.files
        if files.lines is None or total is None or files.redshift is None:
            return {}
        found = files.lines.row(int(files.ids[row]))
        curves = {}
        for line in files.line_list:
            seen = line.rest(files.medium) * (1.0 + files.redshift)  # type: ignore[arg-type]  # of a checked file
            lsf = files.lsf_at(row, seen)
            for profile in profiles_of(found, line, files.medium, files.redshift, lsf):
                curves[profile.name] = line_curve(self.edges, profile)
        return add_up(curves, total)

    def _numbers(self, row: int) -> list[tuple[str, str]]:
        files = self.files
        number = int(files.ids[row])
        found = [] if files.redshift is None else [("redshift", f"{files.redshift:.6g}")]
        if files.stars is not None:
            found += star_numbers(files.stars.row(number))
        if files.lines is not None:
            lines = files.lines.row(number)
            if np.isfinite(lines.get("chi2_dof", np.nan)):
                found.append(("lines: χ² per degree of freedom", f"{lines['chi2_dof']:.2f}"))
            for line in files.line_list:
                found += line_numbers(lines, line.key, files.flux_unit)
        return found

    # --- several bins -----------------------------------------------------------------------------------

    def _sum(self, rows: Rows) -> SpectrumView:
        """Add up bins; of mean spectra, the mean over their spaxels."""
        files = self.files
        mean = files.meta.get("extraction") == "mean"
        sizes = np.maximum(files.sizes[rows], 1).astype(np.float64)
        weights = sizes / sizes.sum() if mean else np.ones(rows.size)
        flux, error, plain, mask = self._added(rows, weights, sizes)
        parts = self._models(rows, weights)
        components = self._summed_components(rows, weights, parts["LINES"])
        with np.errstate(invalid="ignore", divide="ignore"):  # channels without errors are left out
            ratio = np.nanmedian(error / plain) if (~mask).any() else np.nan
        n_spaxels = int(files.sizes[rows].sum())
        title = f"{'mean' if mean else 'sum'} of {rows.size} bins"
        title += f" ({n_spaxels} spaxels)" if n_spaxels else ""
        title += f", errors with covariance ({ratio:.2f}× larger than without)"
        numbers = [] if files.redshift is None else [("redshift", f"{files.redshift:.6g}")]
        numbers += self._summed_numbers(rows, weights)
        return self._view(title, flux, error, mask, parts, components, tuple(numbers))

    def _summed_components(self, rows: Rows, weights: Float, total: Float | None) -> dict[str, Float]:
        """Each line summed over the bins; of very many bins all lines as one."""
        if total is None:
            return {}
        if rows.size > MOST_CURVES:
            return {"lines": total}
        components: dict[str, Float] = {}
        for weight, row, lines in zip(weights, rows, self._plane("LINES", rows), strict=True):
            for name, curve in self._components(int(row), lines).items():
                components[name] = components.get(name, 0.0) + weight * curve
        return components

    def _added(self, rows: Rows, weights: Float, sizes: Float) -> tuple[Float, Float, Float, Any]:
        """Flux, error, error without covariance and mask of a weighted sum; usable spaxels stand in for others."""
        files = self.files
        n_wave = files.wave.size
        flux, variance, alone = (np.zeros(n_wave) for _ in range(3))
        share = np.zeros(n_wave)
        together = self._correlation(rows)
        for part in files.blocks(rows):
            good = files.rows("MASK", rows, part) == 0
            values = np.where(good, files.rows("SCI", rows, part), 0.0)
            spread = np.sqrt(np.where(good, files.rows("VAR", rows, part), 0.0)) * weights[:, np.newaxis]
            share[part] = (sizes @ good) / sizes.sum()
            flux[part] = weights @ values
            variance[part] = np.sum((together @ spread) * spread, axis=0)
            alone[part] = np.sum(spread**2, axis=0)
        mask = (share < COVERAGE) | ~(variance > 0)
        factor = np.divide(1.0, share, out=np.ones(n_wave), where=share > 0)
        error = np.where(mask, np.nan, np.sqrt(np.maximum(variance, 0.0)) * factor)
        return flux * factor, error, np.where(mask, np.nan, np.sqrt(alone) * factor), mask

    def _correlation(self, rows: Rows) -> Any:
        """How the errors of these bins hang together, in their order."""
        files = self.files
        ids = files.ids[rows]
        order = np.argsort(ids)
        labels = np.full((1, 1), -1, np.int32) if files.labels is None else files.labels
        found = bin_correlation(labels, ids[order], files.correlation)
        back = np.argsort(order)
        return found[back][:, back]

    def _summed_numbers(self, rows: Rows, weights: Float) -> list[tuple[str, str]]:
        """Flux of each line: the sum over the bins where it was measured, its error with their covariance."""
        files = self.files
        if files.lines is None:
            return []
        together = self._correlation(rows)
        table = [files.lines.row(int(files.ids[row])) for row in rows]
        numbers = []
        for line in files.line_list:
            flux = np.array([row.get(f"{line.key}_flux", np.nan) for row in table], np.float64)
            error = np.array([row.get(f"{line.key}_flux_err", np.nan) for row in table], np.float64)
            known = np.isfinite(flux) & np.isfinite(error)
            if not known.any():
                continue
            spread = np.where(known, error * weights, 0.0)
            total, scatter = (
                float(weights[known] @ flux[known]),
                float(np.sqrt((together @ spread) @ spread)),
            )
            head = f"{line.key}{SEPARATOR}"
            numbers += [
                (f"{head}flux ({unit_name(files.flux_unit)})", with_error(total, scatter)),
                (f"{head}S/N", f"{total / scatter:.1f}" if scatter > 0 else "–"),
                (f"{head}bins", f"{int(known.sum())} of {rows.size}"),
            ]
        return numbers

    # --- both -------------------------------------------------------------------------------------------

    def _plane(self, name: str, rows: Rows) -> Float:
        return self.files.rows(name, rows)

    def _models(self, rows: Rows, weights: Float) -> dict[str, Float | None]:
        """Weighted sums of what was fitted."""
        files = self.files
        found: dict[str, Float | None] = {}
        for name in ("CONTINUUM", "LINES", "BASELINE"):
            if not files.has(name):
                found[name] = None
                continue
            total = np.zeros(files.wave.size)
            for part in files.blocks(rows):
                total[part] = weights @ files.rows(name, rows, part)
            found[name] = total
        return found

    def _view(
        self, title: str, flux: Float, error: Float, mask: Any, parts: dict[str, Float | None],
        components: dict[str, Float], numbers: tuple[tuple[str, str], ...],
    ) -> SpectrumView:  # fmt: skip
        files = self.files
        continuum, lines, baseline = (parts[name] for name in ("CONTINUUM", "LINES", "BASELINE"))
        if baseline is not None and np.any(baseline != 0):
            components = {**components, POLYNOMIAL: baseline}
        fitted = [part for part in (continuum, lines, baseline) if part is not None]
        model = np.sum(fitted, axis=0) if fitted else None
        if continuum is None and model is not None:
            # Without a continuum nothing was fitted between the segments of the lines.
            model = np.where(model == 0, np.nan, model)
        sky = files.meta.get("sky_residuals", ())
        own = masked_ranges(self.edges, mask)
        seen: tuple[tuple[str, float], ...] = ()
        if files.redshift is not None:
            known: list[Line] = list(files.line_list) if files.lines is not None else []
            seen = lines_at(files.wave, files.medium, files.redshift, known or None)
        return SpectrumView(
            title=title,
            wave=files.wave,
            medium=files.medium,
            flux=np.where(mask, np.nan, flux),
            error=np.where(mask, np.nan, error),
            mask=mask,
            unit=files.unit.to_string(),
            continuum=continuum,
            components=components,
            model=model,
            residual=None if model is None else np.where(mask, np.nan, flux - model),
            masked_ranges=merged_ranges(own, [(low, high) for low, high in sky], files.wave, files.medium),
            lines=seen,
            numbers=numbers,
            redshift=files.redshift,
        )
