"""ObsCore 1.1: what the columns of a store are called in the Virtual Observatory.

Names, utypes, UCDs and units are those of the IVOA recommendation ObsCore 1.1 (table 1 and appendix B), with its
erratum on identifiers. Columns that ObsCore does not know have no utype.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.store.schema import COLUMNS

__all__ = ["FITS_FORMAT", "OBSCORE", "ObsCoreColumn", "Places", "obscore_table", "utype_of"]

FITS_FORMAT = "application/fits"
BYTES_PER_VALUE = 9
"""Value and variance in single precision, and the mask."""
HEADERS = 50
"""Kilobytes of headers and notes."""
BYTES_PER_CHANNEL = 24
"""Of a spectrum: wavelength, line-spread function and covariance, too."""


class ObsCoreColumn(NamedTuple):
    """A column of a response.

    Parameters
    ----------
    name, utype, ucd, unit, datatype, description : str
        As VOTable has them; texts have the type ``char``.
    source : str
        The column of the store; empty for what a store does not have.
    """

    name: str
    utype: str
    ucd: str
    unit: str
    datatype: str
    description: str
    source: str


_TYPES = {"str": "char", "i1": "int", "i2": "int", "i8": "long", "f8": "double"}


def _column(name: str, utype: str, ucd: str = "", source: str = "", **changes: str) -> ObsCoreColumn:
    """Describe a column by that of the store, where it has one."""
    own = COLUMNS.get(source or name)
    values = {
        "unit": own.unit if own else "",
        "datatype": _TYPES[own.kind] if own else "char",
        "description": own.description if own else "",
        "source": own.name if own else "",
    } | changes
    ucd = ucd or (own.ucd if own else "")
    return ObsCoreColumn(name, f"obscore:{utype}" if utype else "", ucd, **values)


_BOUNDS = "Coverage.Bounds"
OBSCORE: tuple[ObsCoreColumn, ...] = (
    _column("dataproduct_type", "ObsDataset.dataProductType"),
    _column("calib_level", "ObsDataset.calibLevel"),
    _column("obs_collection", "DataID.collection"),
    _column("obs_id", "DataID.observationID", "meta.id"),
    _column(
        "obs_publisher_did", "Curation.publisherDID", "meta.ref.ivoid", description="name of the data set for SODA"
    ),
    _column("access_url", "Access.reference", "meta.ref.url", description="where the whole of it is, as FITS"),
    _column("access_format", "Access.format", "meta.code.mime", description="form of what is there"),
    _column("access_estsize", "Access.size", description="size of what is there, roughly"),
    _column("target_name", "Target.name"),
    _column("s_ra", "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C1", "pos.eq.ra"),
    _column("s_dec", "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C2", "pos.eq.dec"),
    _column("s_fov", f"Char.SpatialAxis.{_BOUNDS}.Extent.diameter"),
    _column("s_region", "Char.SpatialAxis.Coverage.Support.Area"),
    _column("s_resolution", "Char.SpatialAxis.Resolution.Refval.value"),
    _column("s_xel1", "Char.SpatialAxis.numBins1"),
    _column("s_xel2", "Char.SpatialAxis.numBins2"),
    _column("s_pixel_scale", "Char.SpatialAxis.Sampling.RefVal.SamplingPeriod", source="pixel_scale")._replace(
        ucd="phys.angSize;instr.pixel"
    ),
    _column("t_min", f"Char.TimeAxis.{_BOUNDS}.Limits.StartTime"),
    _column("t_max", f"Char.TimeAxis.{_BOUNDS}.Limits.StopTime"),
    _column("t_exptime", "Char.TimeAxis.Coverage.Support.Extent"),
    _column(
        "t_resolution", "Char.TimeAxis.Resolution.Refval.value", "time.resolution", unit="s", datatype="double",
        description="resolution in time; empty: none",
    ),
    _column(
        "t_xel", "Char.TimeAxis.numBins", "meta.number", datatype="long", description="pixels along time"
    ),
    _column("em_min", f"Char.SpectralAxis.{_BOUNDS}.Limits.LoLimit"),
    _column("em_max", f"Char.SpectralAxis.{_BOUNDS}.Limits.HiLimit"),
    _column("em_res_power", "Char.SpectralAxis.Resolution.ResolPower.refVal"),
    _column("em_xel", "Char.SpectralAxis.numBins"),
    _column("o_ucd", "Char.ObservableAxis.ucd"),
    _column("o_unit", "Char.ObservableAxis.unit"),
    _column(
        "pol_states", "Char.PolarizationAxis.stateList", "meta.code;phys.polarization",
        description="states of polarisation; empty: not known",
    ),
    _column(
        "pol_xel", "Char.PolarizationAxis.numBins", "meta.number", datatype="long",
        description="pixels along polarisation; empty: no such axis",
    ),
    _column("facility_name", "Provenance.ObsConfig.Facility.name"),
    _column("instrument_name", "Provenance.ObsConfig.Instrument.name"),
    _column("band", ""),
    _column("n_levels", ""),
    _column("redshift", ""),
)  # fmt: skip


def utype_of(name: str) -> str:
    """Return the utype of a column of the store; empty for what ObsCore does not know."""
    return next((column.utype for column in OBSCORE if column.source == name), "")


class Columns(Protocol):
    """What is asked of a store."""

    def column(self, name: str, rows: ArrayLike | None = None) -> NDArray[Any]:
        """Return a column, or some rows of it; texts as bytes."""
        ...


class Places(NamedTuple):
    """Where the parts of a service are.

    Parameters
    ----------
    base : str
        Address of the service, without a slash at its end.
    publisher : str
        What identifiers of data sets begin with, the question mark included.
    """

    base: str
    publisher: str

    def soda(self, obs_id: str | None = None) -> str:
        """Return the address of the cut-outs, or of one whole observation."""
        address = f"{self.base}/soda/sync"
        return address if obs_id is None else f"{address}?ID={quote(self.identifier(obs_id), safe='')}"

    def identifier(self, obs_id: str) -> str:
        """Return the identifier of an observation."""
        return f"{self.publisher}{quote(obs_id, safe='+-._~')}"

    def obs_id(self, identifier: str) -> str:
        """Return the name of an observation in the store; its identifier and the plain name mean the same."""
        # Identifiers are the same in any case, the names in a store are not.
        if identifier[: len(self.publisher)].lower() == self.publisher.lower():
            return unquote(identifier[len(self.publisher) :])
        return identifier


def obscore_table(store: Columns, rows: ArrayLike, places: Places) -> dict[str, list[Any]]:
    """Return the columns `OBSCORE` of some rows as plain values; None for what is not known."""
    rows = np.asarray(rows, dtype=np.int64)
    table = {own.name: _plain(store.column(own.source, rows)) for own in OBSCORE if own.source}
    names = table["obs_id"]
    table["obs_publisher_did"] = [places.identifier(name) for name in names]
    table["access_url"] = [places.soda(name) for name in names]
    table["access_format"] = [FITS_FORMAT] * len(names)
    table["access_estsize"] = [
        _kilobytes(kind, sizes)
        for kind, *sizes in zip(
            *(table[name] for name in ("dataproduct_type", "s_xel1", "s_xel2", "em_xel")), strict=True
        )
    ]
    table["t_resolution"] = table["pol_states"] = table["pol_xel"] = [None] * len(names)
    table["t_xel"] = [1] * len(names)
    return {own.name: table[own.name] for own in OBSCORE}


def _kilobytes(kind: str, sizes: Any) -> int:
    across, along, channels = (max(int(size), 1) for size in sizes)
    size = {"image": BYTES_PER_VALUE * across * along, "spectrum": BYTES_PER_CHANNEL * channels}
    return -(-size.get(kind, BYTES_PER_VALUE * across * along * channels) // 1000) + HEADERS


def _plain(values: NDArray[Any]) -> list[Any]:
    plain = values.tolist()
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "replace") for value in plain]
    if values.dtype.kind == "f":
        return [value if np.isfinite(value) else None for value in plain]
    return list(plain)
