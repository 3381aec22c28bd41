"""Fitted lines as maps, and sums over such maps."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import ArrayLike, NDArray

from skyloom.core import geometry
from skyloom.core.image import check_correlation
from skyloom.core.labels import LabelMap, as_labels
from skyloom.core.line_fit import LineFit, LineFlag
from skyloom.core.line_maps import PER, BinValues, LineMaps
from skyloom.core.noise import region_variances, sum_variance
from skyloom.core.provenance import step
from skyloom.core.psf import PSF
from skyloom.core.units import area_unit
from skyloom.errors import InputError, ShapeError

__all__ = ["add_table", "line_maps", "sum_bins"]

Float = NDArray[np.float64]
KINDS = ("flux", "velocity", "sigma", "sigma_observed", "ew", "snr", "flux_direct", "upper_limit")
ADDITIVE = ("flux", "flux_direct", "upper_limit")
WHOLE_FIT = ("chi2_dof", "bic_1", "bic_2", "bic_3")


def line_maps(
    fit: LineFit,
    labels: LabelMap,
    *,
    per: str = "spaxel_area",
    correlation: ArrayLike | None = None,
    psf: PSF | None = None,
) -> LineMaps:
    """Make the maps of all lines of a fit.

    Parameters
    ----------
    fit : LineFit
        Its column ``id`` holds numbers of the bins in ``labels``.
    labels : LabelMap
        With a WCS, which "arcsec2" needs.
    per : {"bin", "spaxel_area", "arcsec2"}
        What fluxes are given per. "bin": every pixel of a bin holds the flux of the whole bin. "spaxel_area": that
        flux divided by the number of its pixels, as it is in the cube; the sum over the map is the flux of the object.
        "arcsec2": divided by the area of the bin.
    correlation : (k, k) array, optional
        Noise autocorrelation between spaxels of the cube, for sums of maps.
    psf : PSF, optional
        Of the cube; kept by the maps when every bin is one pixel.

    Returns
    -------
    LineMaps
        ``{line}_flux``, ``_velocity``, ``_sigma``, ``_sigma_observed``, ``_ew``, ``_snr``, ``_flux_direct``,
        ``_upper_limit``; ``chi2_dof``, and what else the fit says about whole spectra. The unit of a flux per bin holds
        ``/ bin``, that of a flux per arcsec2 ``/ arcsec2``; a flux per spaxel is what a pixel holds, as in all Images.
        The planes of flags are ``{line}_flag`` (`LineFlag`).

    Raises
    ------
    InputError
        When ``per`` is unknown, no fitted bin is on the map, a number occurs twice, or "arcsec2" finds no WCS.

    Notes
    -----
    Pixels of one bin share one error; see `skyloom.core.line_maps.LineMaps`. ``snr`` has variance 1.
    """
    if per not in PER:
        raise InputError(f"per is {per!r}; expected one of {', '.join(PER)}", field="per")
    rows = _rows(fit, labels)
    scale, suffix = _flux_scale(fit, labels, rows, per)
    values: dict[str, BinValues] = {}
    codes: dict[str, NDArray[np.int64]] = {}
    meanings: dict[str, dict[int, str]] = {}
    for line in fit.lines:
        if f"{line.key}_flux" not in fit.table.colnames:
            continue
        rest = line.rest(fit.medium)  # type: ignore[arg-type]
        observed = rest * float(1.0 + np.median(fit.redshift))
        for kind in KINDS:
            if f"{line.key}_{kind}" in fit.table.colnames:
                item = _values(fit.table, f"{line.key}_{kind}", kind, scale, suffix)
                values[f"{line.key}_{kind}"] = item._replace(wavelength=observed)
        codes[f"{line.key}_flag"] = fit.flags(line.key)
        meanings[f"{line.key}_flag"] = {int(flag): str(flag.name) for flag in LineFlag}
    values |= _whole_fit(fit.table)
    if "n_components" in fit.table.colnames:
        codes["n_components"] = np.asarray(fit.table["n_components"], dtype=np.int64)
    return LineMaps(
        values, codes, rows, labels.labels, per, fit.lines, fit.medium, np.asarray(fit.redshift, np.float64),
        labels.wcs,
        None if correlation is None else check_correlation(correlation, ndim=2),
        psf, meanings, _plain_meta(fit.meta),
        (*fit.history, step("line_maps", per=per, n_bins=len(fit))),
    )  # fmt: skip


def _plain_meta(meta: dict[str, Any]) -> dict[str, Any]:
    """What the spectra knew, without the lists that have an entry for each of them."""
    return {name: value for name, value in meta.items() if name not in ("labels", "n_pixels", "empty")}


def _rows(fit: LineFit, labels: LabelMap) -> NDArray[np.int32]:
    """(ny, nx) row of the table that each pixel takes."""
    ids = np.asarray(fit.table["id"], dtype=np.int64)
    order = np.argsort(ids, kind="stable")
    if np.any(np.diff(ids[order]) == 0):
        raise InputError("the fit holds the same bin twice", field="id")
    numbers = labels.labels.astype(np.int64)
    place = np.clip(np.searchsorted(ids[order], numbers), 0, max(ids.size - 1, 0))
    found = (ids[order][place] == numbers) & (numbers >= 0) if ids.size else np.zeros(numbers.shape, bool)
    if not found.any():
        raise InputError(
            f"none of the {ids.size} fitted bins is on the map, which has {labels.ids.size}",
            field="labels",
            remedy="give the labels that the spectra were extracted with",
        )
    return np.where(found, order[place], -1).astype(np.int32)


def _flux_scale(
    fit: LineFit, labels: LabelMap, rows: NDArray[np.int32], per: str
) -> tuple[Float, u.UnitBase]:
    """Factor for the fluxes of each bin, and the unit that comes with it."""
    member = rows[rows >= 0]
    n_pixels = np.bincount(member, minlength=len(fit)).astype(np.float64)
    n_pixels[n_pixels == 0] = np.nan  # a bin that is not on this map
    solid = area_unit(fit.unit)
    if solid is not None or per == "arcsec2":
        area = np.bincount(
            member, geometry.pixel_area_map(labels.wcs, labels.shape)[rows >= 0], minlength=len(fit)
        )
    if solid is not None:
        # A mean over the bin, per area: back to the flux of the bin.
        whole, bare = area * float((u.arcsec**2).to(solid)), solid
    else:
        whole = n_pixels if fit.meta.get("extraction") == "mean" else np.ones(len(fit))
        bare = u.dimensionless_unscaled
    if per == "bin":
        return np.where(np.isfinite(n_pixels), whole, np.nan), bare / u.bin
    if per == "spaxel_area":
        return whole / n_pixels, bare
    return np.where(np.isfinite(n_pixels), whole / np.where(area > 0, area, np.nan), np.nan), (
        bare / u.arcsec**2
    )


def _values(table: QTable, column: str, kind: str, scale: Float, suffix: u.UnitBase) -> BinValues:
    values, unit = _bare(table[column])
    name = f"{column}_err"
    error = None
    if kind == "snr":
        error = np.ones(values.size)
    elif name in table.colnames:
        error = np.asarray(u.Quantity(table[name]).to_value(unit), dtype=np.float64)
    additive = kind in ADDITIVE
    if additive:
        values, unit = values * scale, unit * suffix
        error = None if error is None else error * scale
    return BinValues(values, None if error is None else error**2, unit, additive)


def _bare(column: Any) -> tuple[Float, u.UnitBase]:
    if isinstance(column, u.Quantity):
        # A column of dex(1) holds logarithms; their error is in dex.
        return np.asarray(column.value, dtype=np.float64), getattr(column.unit, "function_unit", column.unit)
    return np.asarray(column, dtype=np.float64), u.dimensionless_unscaled


def _whole_fit(table: QTable) -> dict[str, BinValues]:
    found = {
        name: BinValues(_bare(table[name])[0], None, u.dimensionless_unscaled)
        for name in WHOLE_FIT
        if name in table.colnames
    }
    if "chi2_dof" not in found and {"chi2", "n_channels", "n_unknown"} <= set(table.colnames):
        freedom = np.asarray(table["n_channels"], np.float64) - np.asarray(table["n_unknown"], np.float64)
        ratio = np.divide(
            np.asarray(table["chi2"], np.float64),
            freedom,
            out=np.full(freedom.size, np.nan),
            where=freedom > 0,
        )
        found["chi2_dof"] = BinValues(ratio, None, u.dimensionless_unscaled)
    return found


def add_table(maps: LineMaps, table: QTable, *, prefix: str = "") -> LineMaps:
    """Add the columns of a table of the same bins to the maps.

    Parameters
    ----------
    maps : LineMaps
    table : QTable
        With ``id`` in any order; bins that are missing become unknown. A column ``x`` of floats becomes a map, with
        ``x_err`` as its error; columns of whole numbers become planes of codes; text is left out. What the codes stand
        for is taken from ``table.meta["meanings"]`` (column -> number -> word).
    prefix : str
        Put before the names of the columns.

    Raises
    ------
    InputError
        When a name is there already.
    """
    ids = {int(number): row for row, number in enumerate(np.asarray(table["id"]))}
    numbers = np.full(maps.n_bins, -1, dtype=np.int64)
    inside = maps.rows >= 0
    numbers[maps.rows[inside]] = maps.bins[inside]
    place = np.array([ids.get(int(number), -1) for number in numbers], dtype=np.int64)
    values, codes, meanings = dict(maps.quantities), dict(maps.codes), dict(maps.meanings)
    for name in table.colnames:
        if name == "id" or (name.endswith("_err") and name[:-4] in table.colnames):
            continue
        key = prefix + name
        if key in values or key in codes:
            raise InputError(f"there is a map {key!r} already", field="prefix", remedy="give another prefix")
        kind = np.asarray(table[name]).dtype.kind
        if kind in "iub":
            codes[key] = np.append(np.asarray(table[name], dtype=np.int64), 0)[place]
            meanings[key] = dict(table.meta.get("meanings", {}).get(name, {}))
        elif kind == "f":
            plain, unit = _bare(table[name])
            error = table[f"{name}_err"] if f"{name}_err" in table.colnames else None
            spread = (
                None if error is None else np.append(u.Quantity(error).to_value(unit), np.nan)[place] ** 2
            )
            values[key] = BinValues(np.append(plain, np.nan)[place], spread, unit)
    return maps.evolve(quantities=values, codes=codes, meanings=meanings)


# --- sums ------------------------------------------------------------------------------------------------


def sum_bins(maps: LineMaps, name: str, regions: ArrayLike | LabelMap) -> QTable:
    """Add up a flux over regions of the map, with the errors that the pixels of a bin share.

    Parameters
    ----------
    maps : LineMaps
        Whatever its fluxes are given per.
    name : str
        A flux, such as ``Halpha_flux``.
    regions : (ny, nx) int array or LabelMap
        Region of each pixel; negative: none. A bin that lies partly in a region gives its share of pixels.

    Returns
    -------
    QTable
        One row per region, ascending: ``label``, ``n_pixels`` that were added, ``n_masked`` that had no value,
        ``flux`` and ``flux_err``. A region without any value has NaN.

    Raises
    ------
    InputError
        When the map is no flux.
    ShapeError
        When the regions have another shape.

    Notes
    -----
    With f the share of the pixels of bin b inside the region, ``F = sum_b f_b F_b`` and
    ``Var = sum_bc f_b f_c s_b s_c r_bc``: r is 1 for b = c and, between bins, what the correlation rho of spaxels
    leaves, ``r_bc = S_bc / sqrt(S_bb S_cc)`` with ``S_bc = sum_{i in b, j in c} rho(x_i - x_j)``, for equal variances
    within a bin. Without a correlation bins are independent.
    """
    item = maps.quantities.get(name)
    if item is None or not item.additive or item.variance is None:
        fluxes = ", ".join(
            key for key, entry in maps.quantities.items() if entry.additive and entry.variance is not None
        )
        raise InputError(
            f"{name!r} is not a flux with an error", field="name", remedy=f"choose among {fluxes}"
        )
    target = as_labels(regions)
    if target.shape != maps.shape:
        raise ShapeError(f"regions have shape {target.shape}; expected {maps.shape}", field="regions")
    flux, variance, unit = _whole_flux(maps, item)
    known = np.isfinite(flux) & np.isfinite(variance)
    ids = np.unique(target[target >= 0])
    table = QTable()
    table["label"] = ids
    columns = np.full((4, ids.size), np.nan)
    sizes = np.maximum(maps.n_pixels, 1)
    own = region_variances(np.ones(maps.shape), maps.rows, maps.n_bins, maps.correlation)
    for number, label in enumerate(ids):
        member = maps.rows[target == label]
        used = member[(member >= 0) & known[member]]
        columns[:2, number] = used.size, member.size - used.size
        if used.size:
            share = np.bincount(used, minlength=maps.n_bins) / sizes
            touched = share > 0
            columns[2, number] = share[touched] @ flux[touched]
            amplitude = np.where(touched, share * np.sqrt(np.where(known, variance, 0.0)), 0.0)
            columns[3, number] = np.sqrt(_joint_variance(maps, amplitude, own))
    table["n_pixels"], table["n_masked"] = columns[0].astype(np.int64), columns[1].astype(np.int64)
    table["flux"], table["flux_err"] = columns[2] * unit, columns[3] * unit
    return table


def _whole_flux(maps: LineMaps, item: BinValues) -> tuple[Float, Float, u.UnitBase]:
    """Flux of each bin as a whole, its variance and unit."""
    if maps.per == "bin":
        return item.values, _variance(item), item.unit * u.bin
    if maps.per == "spaxel_area":
        counts = maps.n_pixels.astype(np.float64)
        return item.values * counts, _variance(item) * counts**2, item.unit
    inside = maps.rows >= 0
    areas = geometry.pixel_area_map(maps.wcs, maps.shape)[inside]
    size = np.bincount(maps.rows[inside], areas, minlength=maps.n_bins)
    return item.values * size, _variance(item) * size**2, item.unit * u.arcsec**2


def _variance(item: BinValues) -> Float:
    return np.full(item.values.size, np.nan) if item.variance is None else item.variance


def _joint_variance(maps: LineMaps, amplitude: Float, own: Float) -> float:
    """Variance of a sum of bins, each with its standard deviation."""
    if maps.correlation is None:
        return float(amplitude @ amplitude)
    per_pixel = np.divide(amplitude**2, own, out=np.zeros(amplitude.size), where=own > 0)
    plane = np.append(per_pixel, 0.0)[maps.rows]
    y, x = np.nonzero(plane)
    box = (slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1))
    return sum_variance(plane[box], (plane[box] > 0).astype(np.float64), maps.correlation)
