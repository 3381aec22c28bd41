"""Links: what there is of a data set, as DataLink 1.0 lists it: the whole, cut-outs of it, its coarser levels."""

from __future__ import annotations

from typing import Any

import numpy as np

from skyloom.store.query import Store
from skyloom.store.service.documents import VOTABLE_TYPE, results, votable
from skyloom.store.service.obscore import FITS_FORMAT, ObsCoreColumn, Places, obscore_table
from skyloom.store.service.parameters import Parameters, ServiceError
from skyloom.store.service.soda import soda_descriptor

__all__ = ["LINKS_TYPE", "links"]

LINKS_TYPE = f"{VOTABLE_TYPE};content=datalink"
MOST_IDENTIFIERS = 500


def _text(name: str, ucd: str, description: str, datatype: str = "char", unit: str = "") -> ObsCoreColumn:
    return ObsCoreColumn(name, "", ucd, unit, datatype, description, "")


COLUMNS = (
    _text("ID", "meta.id;meta.main", "the data set"),
    _text("access_url", "meta.ref.url", "where it is"),
    _text("service_def", "meta.ref", "descriptor of the service that gives it"),
    _text("error_message", "meta.code.error", "why there is none"),
    _text("semantics", "meta.code", "what it is to the data set"),
    _text("description", "meta.note", "in words"),
    _text("content_type", "meta.code.mime", "its form"),
    _text("content_length", "phys.size;meta.file", "its size", "long", "byte"),
)


def links(store: Store, parameters: Parameters, places: Places) -> bytes:
    """Return the links of all data sets that a request names.

    Raises
    ------
    ServiceError
        When it names too many, or asks for another form.
    """
    identifiers = list(dict.fromkeys(parameters.all("ID")))
    if len(identifiers) > MOST_IDENTIFIERS:
        raise ServiceError(f"{len(identifiers)} values of ID; at most {MOST_IDENTIFIERS} in one request")
    form = parameters.one("RESPONSEFORMAT")
    if form is not None and form.partition(";")[0].strip().lower() not in (
        "votable",
        VOTABLE_TYPE,
        "text/xml",
    ):
        raise ServiceError(f"RESPONSEFORMAT is {form[:60]!r}; links are {VOTABLE_TYPE}")
    rows = store.rows_named([places.obs_id(text) for text in identifiers])
    found: list[dict[str, Any]] = []
    for identifier, row in zip(identifiers, rows.tolist(), strict=True):
        found += _links_of(store, row, identifier, places)
    values = {column.name: [link.get(column.name) for link in found] for column in COLUMNS}
    only = len(identifiers) == 1 and rows[0] >= 0
    # Of one data set the descriptor tells the limits, too.
    described = (
        soda_descriptor("soda", places.soda(), identifier=identifiers[0], limits=_limits(store, int(rows[0])))
        if only
        else soda_descriptor("soda", places.soda(), reference="ID")
    )
    return votable(results(COLUMNS, values, name="links"), described)


def _links_of(store: Store, row: int, identifier: str, places: Places) -> list[dict[str, Any]]:
    if row < 0:
        return [
            {
                "ID": identifier,
                "error_message": "NotFoundFault: there is no such data set",
                "semantics": "#this",
            }
        ]
    told = {name: values[0] for name, values in obscore_table(store, [row], places).items()}
    whole = {
        "ID": identifier,
        "access_url": told["access_url"],
        "semantics": "#this",
        "description": f"the whole {told['dataproduct_type']}, with variance and mask",
        "content_type": FITS_FORMAT,
        "content_length": 1000 * told["access_estsize"],
    }
    part = {
        "ID": identifier,
        "service_def": "soda",
        "semantics": "#cutout",
        "description": "a part of it",
        "content_type": FITS_FORMAT,
    }
    coarser = [
        {
            "ID": identifier,
            "access_url": f"{told['access_url']}&LEVEL={level}",
            "semantics": "#derivation",
            "description": f"level {level}: pixels {2**level} times as large",
            "content_type": FITS_FORMAT,
        }
        for level in range(1, told["n_levels"])
    ]
    return [whole, part, *coarser]


def _limits(store: Store, row: int) -> dict[str, str]:
    def value(name: str) -> float:
        return float(store.column(name, [row])[0])

    limits = {"LEVELS": str(int(value("n_levels")))}
    if np.isfinite(value("s_ra")):
        limits["CIRCLE"] = " ".join(f"{value(name):.9g}" for name in ("s_ra", "s_dec", "radius"))
    region = store.column("s_region", [row])[0].decode().split()
    if region[:1] and region[0].upper() == "POLYGON":
        limits["POLYGON"] = " ".join(region[2:])
    if np.isfinite(value("em_min")):
        limits |= {"BAND_MIN": repr(value("em_min")), "BAND_MAX": repr(value("em_max"))}
    return limits
