"""The table of a line fit: fluxes, kinematics, widths, equivalent widths, limits and flags, with their units."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.line_fit import LineFlag
from skyloom.core.spectra import Spectra
from skyloom.core.threads import blocks, run_blocks
from skyloom.kernels.lines.fits import AT_BOUND, BORROWED, NOT_CONVERGED
from skyloom.kernels.lines.moments import direct_fluxes
from skyloom.kernels.lines.types import SPEED_OF_LIGHT
from skyloom.spectral.lines.groups import Grouping
from skyloom.spectral.lines.inputs import Inputs
from skyloom.spectral.lines.intervals import Intervals
from skyloom.spectral.lines.runs import ROWS, Measured

__all__ = ["LineTable"]

Float = NDArray[np.float64]
FAINT = 3.0  # Standard deviations below which a line counts as not seen.


class LineTable:
    """Columns for every line, from the arrays of the fit.

    Parameters
    ----------
    spectra : Spectra
    inputs : Inputs
    grouping : Grouping
        Of the lines; components do not matter.
    found : Measured
    rejected : (n, n_lines) bool array
        Broad lines that the spectra do not need.
    threads : int or None
    """

    def __init__(
        self, spectra: Spectra, inputs: Inputs, grouping: Grouping, found: Measured, rejected: NDArray[np.bool_],
        threads: int | None,
    ) -> None:  # fmt: skip
        self.spectra, self.inputs, self.grouping, self.found = spectra, inputs, grouping, found
        self.rejected = rejected
        rest = grouping.lines.wavelengths(spectra.medium)  # type: ignore[arg-type]
        self.unshifted = rest * inputs.scale[:, np.newaxis]
        channel = np.clip(np.searchsorted(inputs.edges, self.unshifted) - 1, 0, spectra.shape[1] - 1)
        rows = np.arange(len(channel))[:, np.newaxis] if len(inputs.lsf) > 1 else np.zeros((1, 1), np.int64)
        self.instrument = inputs.lsf[rows, channel] / self.unshifted * SPEED_OF_LIGHT
        self.covered = np.isfinite(found.total) & np.isfinite(found.total_error)
        self.velocity, self.velocity_error = self._own(found.velocity), self._own(found.velocity_error)
        self.variance, self.variance_error = self._own(found.variance), self._own(found.variance_error)
        self.direct, self.direct_error = self._direct(threads)
        self.level, self.level_error = self._levels()

    def _own(self, plane: Float) -> Float:
        """The component that counts as the line's."""
        chosen: Float = np.take_along_axis(plane, self.found.strongest[:, :, np.newaxis], axis=2)[:, :, 0]
        return chosen

    def _direct(self, threads: int | None) -> tuple[Float, Float]:
        inputs, found = self.inputs, self.found
        residual = inputs.values - found.model - found.baseline
        total, variance = np.empty_like(found.total), np.empty_like(found.total)
        unshifted = self.unshifted[:, :, np.newaxis]
        centre = unshifted * (1 + found.velocity / SPEED_OF_LIGHT)
        width = np.sqrt(np.maximum(self.instrument[:, :, np.newaxis] ** 2 + found.variance, 1.0))
        width = np.where(self.covered[:, :, np.newaxis], width / SPEED_OF_LIGHT * unshifted, np.nan)

        def add(rows: slice) -> None:
            direct_fluxes(
                inputs.edges, residual, inputs.variance, inputs.mask, inputs.lags, centre, width, found.flux,
                rows.start, rows.stop, total, variance,
            )  # fmt: skip

        run_blocks(add, blocks(len(residual), ROWS), threads)
        return total, np.sqrt(variance)

    def _levels(self) -> tuple[Float, Float]:
        """Continuum at each line, and its error: of the model, and of the mean over the channels of the segment."""
        inputs, grouping = self.inputs, self.grouping
        n, n_wave = self.spectra.shape
        rows = np.arange(n)[:, np.newaxis]
        centre = self.unshifted * (1 + np.nan_to_num(self.velocity) / SPEED_OF_LIGHT)
        channel = np.clip(np.searchsorted(inputs.edges, centre) - 1, 0, n_wave - 1)
        level = inputs.continuum[rows, channel] + self.found.baseline[rows, channel]
        weights = np.divide(1.0, inputs.variance, out=np.zeros(inputs.variance.shape), where=~inputs.mask)
        sums = np.concatenate([np.zeros((n, 1)), np.cumsum(weights, axis=1)], axis=1)
        ends = np.searchsorted(
            self.spectra.wave, grouping.plan.segment_range[grouping.segment_of] * inputs.scale[:, None, None]
        )
        weight = sums[rows, ends[:, :, 1]] - sums[rows, ends[:, :, 0]]
        spread = np.maximum(inputs.lags.sum(axis=1), 0.0)[channel]
        mean = np.divide(spread, weight, out=np.full(weight.shape, np.nan), where=weight > 0)
        error = np.sqrt(mean + inputs.continuum_variance[rows, channel])
        return np.asarray(level, dtype=np.float64), np.asarray(error, dtype=np.float64)

    def build(self) -> QTable:
        """Return the table."""
        found, spectra = self.found, self.spectra
        labels = np.asarray(spectra.meta.get("labels", np.arange(len(found.chi2))))
        table = QTable({"id": labels})
        with np.errstate(divide="ignore", invalid="ignore"):  # NaN and infinite where a line was not measured
            columns = self._columns()
            flags = self._flags(columns["snr"][0])
        for number, line in enumerate(self.grouping.lines):
            there = self.covered[:, number] & ~self.rejected[:, number]
            for name, (values, unit) in columns.items():
                kept = there if name != "upper_limit" else self.covered[:, number]
                table[f"{line.key}_{name}"] = np.where(kept, values[:, number], np.nan) * unit
            table[f"{line.key}_flag"] = flags[:, number]
        spare = found.n_used - found.n_unknown
        table["chi2"], table["n_channels"], table["n_unknown"] = found.chi2, found.n_used, found.n_unknown
        table["chi2_dof"] = np.divide(found.chi2, spare, out=np.full(len(table), np.nan), where=spare > 0)
        table["n_components"] = np.where(self.covered.any(axis=1), found.n_components, 0)
        serious = LineFlag.NOT_CONVERGED | LineFlag.AT_BOUND
        table["flag"] = np.bitwise_or.reduce(np.where(self.covered, flags & serious, 0), axis=1)
        table["flag"][~self.covered.any(axis=1)] = int(LineFlag.NOT_COVERED)
        return table

    def _columns(self) -> dict[str, tuple[Float, Any]]:
        """Name, values (n, n_lines) and unit of the columns of a line."""
        found, flux_unit, speed = self.found, self.spectra.unit * u.AA, u.km / u.s
        flux, error = found.total, found.total_error
        stretch = self.inputs.scale[:, np.newaxis]
        sigma, sigma_error = intrinsic(self.variance, self.variance_error)
        observed, observed_error = observed_width(self.variance, self.variance_error, self.instrument)
        ew = flux / self.level / stretch
        ew_error = np.hypot(error, flux / self.level * self.level_error) / np.abs(self.level) / stretch
        return {
            "flux": (flux, flux_unit), "flux_err": (error, flux_unit),
            "velocity": (self.velocity, speed), "velocity_err": (self.velocity_error, speed),
            "sigma": (sigma, speed), "sigma_err": (sigma_error, speed),
            "sigma_observed": (observed, speed), "sigma_observed_err": (observed_error, speed),
            "ew": (ew, u.AA), "ew_err": (ew_error, u.AA), "snr": (flux / error, u.one),
            "upper_limit": (np.maximum(flux, 0.0) + FAINT * error, flux_unit),
            "flux_direct": (self.direct, flux_unit), "flux_direct_err": (self.direct_error, flux_unit),
        }  # fmt: skip

    def add_components(self, table: QTable, room: int) -> None:
        """Add the columns of single components; NaN where a spectrum has fewer."""
        found, flux_unit, speed = self.found, self.spectra.unit * u.AA, u.km / u.s
        sigma, sigma_error = intrinsic(found.variance, found.variance_error)
        planes = {
            "flux": (found.flux, flux_unit), "flux_err": (found.flux_error, flux_unit),
            "velocity": (found.velocity, speed), "velocity_err": (found.velocity_error, speed),
            "sigma": (sigma, speed), "sigma_err": (sigma_error, speed),
        }  # fmt: skip
        for number, line in enumerate(self.grouping.lines):
            if line.kind != "emission":
                continue
            for part in range(room):
                there = self.covered[:, number] & np.isfinite(found.flux[:, number, part])
                for name, (values, unit) in planes.items():
                    table[f"{line.key}_{name}_{part + 1}"] = (
                        np.where(there, values[:, number, part], np.nan) * unit
                    )

    def add_intervals(self, table: QTable, ends: Intervals) -> None:
        """Add the lower and upper ends of intervals of 68.27 %."""
        speed = u.km / u.s
        planes = {
            "flux": (ends.flux, self.spectra.unit * u.AA), "velocity": (ends.velocity, speed),
            "sigma": (np.sqrt(np.maximum(ends.variance, 0.0)), speed),
            "sigma_observed": (
                np.sqrt(np.maximum(ends.variance + self.instrument[:, :, np.newaxis] ** 2, 0.0)), speed,
            ),
        }  # fmt: skip
        for number, line in enumerate(self.grouping.lines):
            there = self.covered[:, number] & ~self.rejected[:, number]
            for name, (values, unit) in planes.items():
                for side, end in enumerate(("lower", "upper")):
                    table[f"{line.key}_{name}_{end}"] = (
                        np.where(there, values[:, number, side], np.nan) * unit
                    )

    def _flags(self, snr: Float) -> NDArray[np.int64]:
        found = self.found
        flags = np.zeros(snr.shape, dtype=np.int64)
        flags[(found.set_flags & BORROWED) > 0] |= LineFlag.BORROWED
        flags[(found.set_flags & AT_BOUND) > 0] |= LineFlag.AT_BOUND
        flags[(found.set_flags & NOT_CONVERGED) > 0] |= LineFlag.NOT_CONVERGED
        # Unknown errors compare as False.
        flags[~(self.variance > 2 * self.variance_error)] |= LineFlag.UNRESOLVED
        expected = np.array([line.kind == "absorption" for line in self.grouping.lines])
        flags[np.where(expected, np.abs(snr), snr) < FAINT] |= LineFlag.FAINT
        flags[~(self.level > FAINT * self.level_error)] |= LineFlag.NO_CONTINUUM
        flags[found.bound] |= LineFlag.RATIO_AT_BOUND
        flags[:, ~self.grouping.leading] |= LineFlag.TIED
        flags[self.rejected] |= LineFlag.REJECTED
        flags[~self.covered] = LineFlag.NOT_COVERED
        return flags


def intrinsic(variance: Float, error: Float) -> tuple[Float, Float]:
    """Dispersion and its error from the intrinsic variance; where that is not positive, 0 and a limit of one sigma."""
    sigma = np.sqrt(np.maximum(variance, 0.0))
    # Far from zero this is error / (2 sigma); near zero it stays finite.
    return sigma, np.sqrt(np.maximum(variance, 0.0) + error) - sigma


def observed_width(variance: Float, error: Float, instrument: Float) -> tuple[Float, Float]:
    """Dispersion with the instrument, and its error, from the intrinsic variance.

    The root of an unbiased variance is too small by ``error^2 / (8 sigma^3)`` on average, which is put back as far as
    an expansion to second order carries.
    """
    plain = np.sqrt(np.maximum(instrument**2 + variance, 1.0))
    spread = error / (2 * plain)
    return plain + np.nan_to_num(np.minimum(spread**2 / (2 * plain), 0.25 * spread)), spread
