"""Spectra of a cube in a file: a spaxel, or the sum over a region with the covariance of its spaxels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.labels import NO_REGION
from skyloom.core.linelist import default_lines
from skyloom.core.spectra import Spectra
from skyloom.core.units import area_unit
from skyloom.errors import AssumptionWarning, InputError, RepairWarning
from skyloom.io.cubes.files import CubeFile, open_cube
from skyloom.spectral.axes.grids import pixel_edges
from skyloom.spectral.axes.rest_frame import applied_redshift
from skyloom.spectral.axes.slabs import merge_slabs
from skyloom.spectral.bins.extract import extract_spectra
from skyloom.spectral.noise.measure import measure_cube_noise
from skyloom.viewer.protocols import Bool, Float, Region, SpectrumView
from skyloom.viewer.spectra.names import lines_at, masked_ranges, merged_ranges
from skyloom.viewer.spectra.regions import pixels_inside

__all__ = ["CubeSpectra"]

SLAB_BYTES = 1 << 26
PROBES = 16  # Channels that tell which spaxels were observed, and how far neighbours share their errors.
NOISE_CHANNELS = 64  # Where the correlation of the noise is measured when the file does not tell it.
NOISE_RADIUS = 3
LINE_MARGIN = 500.0  # km/s on either side of a line that say nothing about the noise.


class CubeSpectra:
    """Spectra of the spaxels of a cube, of which no more is read than the rows they lie in.

    Parameters
    ----------
    path : path
        Of a cube, raw or a product.
    """

    def __init__(self, path: Path) -> None:
        with warnings.catch_warnings():
            # What a reader had to assume is told by `skyloom inspect` and the image; here it would be told twice.
            warnings.simplefilter("ignore", AssumptionWarning)
            self.file: CubeFile = open_cube(path)
        self.redshift: float | None = None
        known = self.file.meta.get("redshift")
        if isinstance(known, (int, float)) and np.isfinite(known):
            self.redshift = float(known)
        self._correlation: tuple[Float | None, str] | None = None

    def spectrum(self, region: Region) -> SpectrumView | None:
        """Return the spectrum of the spaxel that was clicked, or the sum of those inside a lasso."""
        inside = pixels_inside(region, self.file.shape[1:])
        y = np.flatnonzero(inside.any(axis=1))
        if y.size == 0:
            return None
        rows = slice(int(y[0]), int(y[-1]) + 1)
        probes = self._probes(rows)
        chosen = inside[rows] & ~np.all([part.mask[0] for part in probes], axis=0)
        if not chosen.any():
            return None
        labels = np.where(chosen, 0, NO_REGION).astype(np.int32)
        single = int(chosen.sum()) == 1
        spatial, known_from = (None, "") if single else self._spatial()
        spectra = self._extract(rows, labels, spatial, mode="mean" if single else self._mode())
        title = self._spaxel_title(rows, chosen) if single else ""
        if not single:
            title = f"{spectra.meta['extraction']} of {int(chosen.sum())} spaxels, "
            ratio = self._growth(probes, labels, spatial)
            title += (
                "errors as if spaxels were independent"
                if spatial is None
                else f"errors with covariance ({ratio:.2f}× larger than without)"
            )
        return self._view(title, spectra, int(chosen.sum()), known_from)

    # --- reading ----------------------------------------------------------------------------------------

    def _read(self, channels: slice, rows: slice = slice(None)) -> Cube:
        with warnings.catch_warnings():
            # Voxels that the reader repairs are masked, and seen as that.
            warnings.simplefilter("ignore", RepairWarning)
            return self.file.read(channels, rows)

    def _probes(self, rows: slice) -> list[Cube]:
        """Some channels over all wavelengths."""
        n_wave = self.file.shape[0]
        places = np.unique(np.linspace(0, n_wave - 1, PROBES + 2)[1:-1].astype(int)) if n_wave > 2 else [0]
        return [self._read(slice(int(place), int(place) + 1), rows) for place in places]

    def _extract(self, rows: slice, labels: NDArray[np.int32], spatial: Float | None, mode: str) -> Spectra:
        n_wave, _, nx = self.file.shape
        step = max(1, SLAB_BYTES // (13 * nx * (rows.stop - rows.start)))
        parts = []
        for start in range(0, n_wave, step):
            cube = self._read(slice(start, min(start + step, n_wave)), rows)
            parts.append(extract_spectra(_correlated(cube, spatial), labels, mode=mode))
        return merge_slabs(parts)

    def _mode(self) -> str:
        """Sums, but means where the data are per area and nobody knows the area of a spaxel."""
        return "mean" if area_unit(self.file.unit) is not None and self.file.wcs is None else "sum"

    # --- errors -----------------------------------------------------------------------------------------

    def _spatial(self) -> tuple[Float | None, str]:
        """Autocorrelation of the noise of spaxels, and where it is from; measured once where the file has none."""
        if self._correlation is None:
            own = None if self.file.correlation is None else self.file.correlation.spatial
            self._correlation = self._measured() if own is None else (own, "of the file")
        return self._correlation

    def _measured(self) -> tuple[Float | None, str]:
        start = self._quiet_channels()
        part = slice(start, start + min(NOISE_CHANNELS, self.file.shape[0]))
        low, high = self.file.wave[part][[0, -1]]
        try:
            found = measure_cube_noise(self._read(part), radius=NOISE_RADIUS)
        except InputError:  # a field without enough spaxels says nothing of its noise
            return None, "not known: the field is too small to measure it"
        return found.correlation.spatial, f"measured from {low:.0f} to {high:.0f} Å"

    def _quiet_channels(self) -> int:
        """First of the channels with the fewest lines, the nearer to the middle the better."""
        wave, n_wave = self.file.wave, self.file.shape[0]
        busy = np.zeros(n_wave)
        redshift = 0.0 if self.redshift is None else self.redshift
        for _, seen in lines_at(wave, self.file.medium, redshift, default_lines()):
            busy += np.abs(wave / seen - 1.0) * 299792.458 < LINE_MARGIN
        size = min(NOISE_CHANNELS, n_wave)
        total = np.convolve(busy, np.ones(size), mode="valid")
        away = np.abs(np.arange(total.size) - 0.5 * (n_wave - size)) / n_wave
        return int(np.argmin(total + away))

    def _growth(self, probes: list[Cube], labels: NDArray[np.int32], spatial: Float | None) -> float:
        """How much larger the error of the sum is than for independent spaxels: the median over some channels."""
        ratios = []
        for probe in probes:
            both = [
                extract_spectra(_correlated(probe, kernel), labels, mode=self._mode())
                for kernel in (spatial, None)
            ]
            if not both[0].mask.any():
                ratios.append(float(np.sqrt(both[0].variance / both[1].variance)[0, 0]))
        return float(np.median(ratios)) if ratios else float("nan")

    # --- what is shown ----------------------------------------------------------------------------------

    def _spaxel_title(self, rows: slice, chosen: Bool) -> str:
        y, x = (int(place[0]) for place in np.nonzero(chosen))
        return f"spaxel x = {x}, y = {y + rows.start}"

    def _view(self, title: str, spectra: Spectra, n_spaxels: int, known_from: str) -> SpectrumView:
        flux, error, mask = spectra.data[0].astype(np.float64), np.sqrt(spectra.variance[0]), spectra.mask[0]
        good = ~mask
        numbers = [("spaxels", f"{n_spaxels}")]
        if good.any():
            numbers.append(("median S/N per channel", f"{np.median(flux[good] / error[good]):.1f}"))
        numbers.append(("usable channels", f"{int(good.sum())} of {good.size}"))
        if known_from:
            numbers.append(("correlation of the noise", known_from))
        wave, medium = spectra.wave, spectra.medium
        rest = bool(applied_redshift(spectra))
        seen_at = 0.0 if rest else self.redshift
        return SpectrumView(
            title=title,
            wave=wave,
            medium=medium,
            flux=np.where(mask, np.nan, flux),
            error=np.where(mask, np.nan, error),
            mask=mask,
            unit=spectra.unit.to_string(),
            masked_ranges=merged_ranges(masked_ranges(pixel_edges(wave), mask), (), wave, medium),
            lines=() if seen_at is None else lines_at(wave, medium, seen_at),
            numbers=tuple(numbers),
            redshift=self.redshift,
            rest_frame=rest,
        )


def _correlated(cube: Cube, spatial: Float | None) -> Cube:
    """Give a cube another correlation of its spaxels."""
    spectral = None if cube.correlation is None else cube.correlation.spectral
    both = None if spatial is None and spectral is None else CubeCorrelation(spatial, spectral)
    return cube.evolve_checked(correlation=both)
