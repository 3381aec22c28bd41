"""How spaxels are put together: one label map for every way of binning."""

from __future__ import annotations

import warnings

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.labels import NO_REGION, LabelMap
from skyloom.core.provenance import step
from skyloom.errors import AssumptionWarning, InputError
from skyloom.recipes.ifs.inputs import Source, read_labels
from skyloom.recipes.ifs.products import TO_TARGET, Maps
from skyloom.spectral.bins.binning import bin_to_snr
from skyloom.spectral.bins.radius import bin_by_radius
from skyloom.spectral.bins.regions import Regions, find_regions

__all__ = ["make_bins", "region_columns"]


def make_bins(source: Source, maps: Maps) -> LabelMap:
    """Bin the spaxels of an object as the configuration asks.

    Raises
    ------
    InputError, ShapeError
        When no spaxel can be binned, or a map of labels does not fit.
    """
    signal, settings = maps.main.signal, source.config.binning
    left_out = _left_out(maps, settings.minimum_snr)
    if settings.method in TO_TARGET:
        labels = bin_to_snr(signal, signal.variance, settings.target, settings.method, mask=left_out)
    elif settings.method == "radius":
        labels = _rings(source, signal, left_out)
    elif settings.method == "regions":
        labels = _regions(source, maps).labels
    elif settings.method == "segmentation":
        assert source.files.segmentation is not None  # the configuration requires one
        labels = read_labels(source.files.segmentation, signal.evolve(mask=left_out))
    else:
        labels = _spaxels(signal, left_out)
    return labels.evolve(meta={**labels.meta, "object": source.name, "line": maps.names[0]})


def _left_out(maps: Maps, minimum: float | None) -> NDArray[np.bool_]:
    """Spaxels that enter no bin: without a measured line, or below the minimum."""
    left_out: NDArray[np.bool_] = maps.main.signal.mask.copy()
    if minimum is not None:
        snr = maps.main.snr
        left_out |= np.where(snr.mask, -np.inf, snr.data) < minimum
        if left_out.all():
            best = float(np.max(snr.data[snr.valid])) if snr.valid.any() else float("nan")
            raise InputError(
                f"no spaxel reaches binning.minimum_snr {minimum:g}; the best has {best:.2f}",
                field="binning.minimum_snr",
                remedy="lower it",
            )
    return left_out


def _rings(source: Source, signal: Image, left_out: NDArray[np.bool_]) -> LabelMap:
    own, radius = source.settings, source.config.binning.radius
    assert radius is not None  # the configuration requires it
    ny, nx = signal.shape
    centre: SkyCoord | tuple[float, float] = ((nx - 1) / 2, (ny - 1) / 2)
    if own.centre is not None:
        centre = SkyCoord(*own.centre, unit=u.deg)
    unknown = [name for name in ("centre", "position_angle", "axis_ratio") if getattr(own, name) is None]
    if unknown:
        warnings.warn(
            f"{source.name}: {', '.join(unknown)} not given; rings are "
            + ("about the middle of the field" if own.centre is None else "about the centre")
            + f", position angle {own.position_angle or 0:g} deg, axis ratio {own.axis_ratio or 1:g}",
            AssumptionWarning,
            stacklevel=2,
        )
    return bin_by_radius(
        signal,
        centre,
        edges=radius.edges,
        width=radius.width,
        position_angle=own.position_angle or 0.0,
        axis_ratio=own.axis_ratio or 1.0,
        mask=left_out,
    )


def region_columns(source: Source, maps: Maps) -> QTable:
    """Return what the catalogue of HII regions knows beyond other bins: peaks, sizes, surroundings."""
    catalogue = _regions(source, maps).catalogue
    first = catalogue.colnames.index("peak_x")
    return catalogue[catalogue.colnames[first:]]


def _regions(source: Source, maps: Maps) -> Regions:
    settings = source.config.binning.regions
    left_out = _left_out(maps, source.config.binning.minimum_snr)
    regions = find_regions(
        maps.main.signal.evolve(mask=left_out),
        threshold=settings.threshold,
        growth=settings.growth,
        limit=settings.limit,
        prominence=settings.prominence,
        contrast=settings.contrast,
        minimum_area=None if settings.minimum_area is None else settings.minimum_area * u.arcsec**2,
        smoothing=settings.smoothing,
    )
    if not len(regions):
        raise InputError(
            f"no region reaches a significance of {settings.threshold:g}",
            source=source.files.cube,
            field="binning.regions.threshold",
            remedy="lower it, or choose a brighter line",
        )
    return regions


def _spaxels(signal: Image, left_out: NDArray[np.bool_]) -> LabelMap:
    """Every usable spaxel a bin of its own, numbered row by row."""
    labels = np.full(signal.shape, NO_REGION, dtype=np.int32)
    used = ~left_out
    labels[used] = np.arange(int(used.sum()), dtype=np.int32)
    meta = {"method": "none", "n_bins": int(used.sum())}
    return LabelMap(labels, signal.wcs, meta, (*signal.history, step("each_spaxel", n_bins=int(used.sum()))))
