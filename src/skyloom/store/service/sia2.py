"""Discovery: what of a store fulfils the conditions of a SIA 2.0 query.

Values of one parameter are alternatives, different parameters are conditions that must all hold, and a condition on
something that is not known does not hold (IVOA recommendation SIA 2.0, section 2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.store.query import Store
from skyloom.store.service.documents import (
    VOTABLE_TYPE,
    InputParameter,
    csv_text,
    descriptor,
    results,
    votable,
)
from skyloom.store.service.obscore import FITS_FORMAT, OBSCORE, Places, obscore_table
from skyloom.store.service.parameters import (
    Interval,
    Parameters,
    ServiceError,
    Shape,
    interval,
    region,
    whole_number,
)
from skyloom.store.service.shapes import SkyPolygon
from skyloom.store.service.soda import soda_descriptor
from skyloom.store.service.times import POLARISATIONS, as_tai

__all__ = ["FORMATS", "answer", "find", "response_format"]

Rows = NDArray[np.int64]
Bool = NDArray[np.bool_]

ROWS = 10_000
"""Of a response, where a client does not say how many it wants."""
MOST_SHAPES = 500
MOST_VERTICES = 1000
"""Of all regions of a query."""
MOST_WORK = 5_000_000
"""Comparisons of observations with edges of regions: some seconds."""
EXAMPLES = 1000
"""Rows among which an example is looked for."""
STANDARD = "ivo://ivoa.net/std/SIA#query-2.0"
KINDS = ("image", "cube")
"""What SIA 2.0 is about; spectra are found by DPTYPE=spectrum, as in its next version."""
_SPANS = {"BAND": ("em_min", "em_max"), "TIME": ("t_start", "t_stop")}
_WIDTHS = {"FOV": "s_fov", "SPATRES": "s_resolution", "SPECRP": "em_res_power", "EXPTIME": "t_exptime"}
_NAMES = {
    "COLLECTION": "obs_collection",
    "FACILITY": "facility_name",
    "INSTRUMENT": "instrument_name",
    "TARGET": "target_name",
}
FORMATS = {
    VOTABLE_TYPE: "votable",
    "votable": "votable",
    "text/xml": "votable",
    "application/xml": "votable",
    "text/csv": "csv",
    "csv": "csv",
    "text/tab-separated-values": "tsv",
    "tsv": "tsv",
}


class Answer(NamedTuple):
    """The body of a response, and its media type."""

    body: bytes
    media: str


def response_format(parameters: Parameters) -> str:
    """Return ``votable``, ``csv`` or ``tsv``.

    Raises
    ------
    ServiceError
        When another is asked for.
    """
    asked = parameters.one("RESPONSEFORMAT")
    if asked is None:
        return "votable"
    found = FORMATS.get(asked.partition(";")[0].strip().lower())
    if found is None:
        raise ServiceError(f"RESPONSEFORMAT is {asked[:60]!r}; expected one of {', '.join(FORMATS)}")
    return found


def find(store: Store, parameters: Parameters, places: Places) -> Rows:
    """Return the rows that fulfil the conditions of a query.

    Raises
    ------
    ServiceError
        When a value cannot be understood.
    """
    tests = _tests(store, parameters, places)
    shapes = _shapes(parameters)
    _check_work(store, shapes)
    if shapes:
        rows = np.unique(np.concatenate([store.touching(shape) for shape in shapes]))
    else:
        rows = np.arange(len(store))
    for test in tests:
        rows = rows[test(rows)]
    return rows


def _shapes(parameters: Parameters) -> list[Shape]:
    shapes = [region(text) for text in parameters.all("POS")]
    vertices = sum(len(shape.first) for shape in shapes if isinstance(shape, SkyPolygon))
    # Each costs a look at all that is near.
    if len(shapes) > MOST_SHAPES or vertices > MOST_VERTICES:
        raise ServiceError(
            f"POS has {len(shapes)} regions with {vertices} vertices; at most {MOST_SHAPES} and {MOST_VERTICES}"
        )
    return shapes


def _check_work(store: Store, shapes: list[Shape]) -> None:
    """Refuse regions that would keep the service busy for minutes."""
    edges = [len(shape.first) if isinstance(shape, SkyPolygon) else 1 for shape in shapes]
    # A single simple region is always looked at: at most at the whole store.
    most = max(MOST_WORK, 8 * len(store))
    if sum(edges) <= 8:
        return
    work = 0
    for shape, own in zip(shapes, edges, strict=True):
        work += own * store.near(shape)
        if work > most:
            raise ServiceError(
                f"too many observations are near the {len(shapes)} regions of POS with {sum(edges)} edges;"
                " ask for smaller or fewer regions"
            )


def _tests(store: Store, parameters: Parameters, places: Places) -> list[Callable[[Rows], Bool]]:
    """Return the tests of all conditions but that of the place, the quickest ones first."""
    tests: list[Callable[[Rows], Bool]] = []
    for name, (low, high) in _SPANS.items():
        if parameters.all(name):
            tests.append(_overlaps(store, low, high, _intervals(parameters, name)))
    kinds = [text.lower() for text in parameters.all("DPTYPE")] or list(KINDS)
    tests.append(_is_one_of(store, "dataproduct_type", kinds))
    wanted = [places.obs_id(text) for text in parameters.all("ID")]
    if wanted:
        tests.append(_is_one_of(store, "obs_id", wanted))
    for name, column in _WIDTHS.items():
        if parameters.all(name):
            tests.append(_lies_in(store, column, _intervals(parameters, name)))
    for name, column in _NAMES.items():
        if parameters.all(name):
            tests.append(_is_one_of(store, column, parameters.all(name)))
    if parameters.all("CALIB"):
        levels = [whole_number(text, "CALIB", 0, 4) for text in parameters.all("CALIB")]
        tests.append(lambda rows: np.isin(store.column("calib_level", rows), levels))
    if not _possible(parameters):
        tests.append(lambda rows: np.zeros(rows.size, bool))
    return tests


def _intervals(parameters: Parameters, name: str) -> list[Interval]:
    found = [interval(text, name) for text in parameters.all(name)]
    return [as_tai(own) for own in found] if name == "TIME" else found


def _possible(parameters: Parameters) -> bool:
    """Tell whether the conditions on what is the same for all observations of a store hold."""
    states = parameters.all("POL")
    unknown = [state for state in states if state not in POLARISATIONS]
    if unknown:
        raise ServiceError(f"POL is {unknown[0][:20]!r}; expected one of {', '.join(POLARISATIONS)}")
    for text in parameters.all("TIMERES"):
        interval(text, "TIMERES")
    forms = [text.partition(";")[0].strip().lower() for text in parameters.all("FORMAT")]
    fits = not forms or any(form in (FITS_FORMAT, "image/fits", "fits") for form in forms)
    # Neither polarisation nor resolution in time is known of anything.
    return fits and not states and not parameters.all("TIMERES")


def _overlaps(store: Store, low: str, high: str, wanted: list[Interval]) -> Callable[[Rows], Bool]:
    def test(rows: Rows) -> Bool:
        begin, end = store.column(low, rows), store.column(high, rows)
        # What is not known is NaN, and fulfils neither comparison.
        met = [(end >= own.low) & (begin <= own.high) for own in wanted]
        return np.asarray(np.logical_or.reduce(met))

    return test


def _lies_in(store: Store, name: str, wanted: list[Interval]) -> Callable[[Rows], Bool]:
    def test(rows: Rows) -> Bool:
        values = store.column(name, rows)
        met = [(values >= own.low) & (values <= own.high) for own in wanted]
        return np.asarray(np.logical_or.reduce(met))

    return test


def _is_one_of(store: Store, name: str, wanted: list[str]) -> Callable[[Rows], Bool]:
    texts = [text.encode() for text in wanted]
    return lambda rows: np.isin(store.column(name, rows), texts)


def answer(store: Store, parameters: Parameters, places: Places, most_rows: int) -> Answer:
    """Answer a query.

    Parameters
    ----------
    store : Store
    parameters : Parameters
    places : Places
    most_rows : int
        Rows of a response, whatever a client asks for.

    Raises
    ------
    ServiceError
        When the query cannot be understood.
    """
    form = response_format(parameters)
    _check_protocol(parameters)
    asked = parameters.one("MAXREC")
    limit = min(ROWS, most_rows) if asked is None else min(whole_number(asked, "MAXREC"), most_rows)
    rows = find(store, parameters, places) if limit else np.empty(0, np.int64)
    table = obscore_table(store, rows[:limit], places)
    if form != "votable":
        separator = "," if form == "csv" else "\t"
        return Answer(
            csv_text(OBSCORE, table, separator), "text/csv" if form == "csv" else "text/tab-separated-values"
        )
    infos = [
        ("SERVICE_PROTOCOL", "SIAv2"),
        ("QUERY_TIMESTAMP", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")),
    ]
    status = "OVERFLOW" if rows.size > limit else "OK"
    body = votable(
        results(OBSCORE, table, status=status, infos=infos, name="observations"),
        soda_descriptor("soda", places.soda(), reference="obs_publisher_did"),
        descriptor("this", STANDARD, f"{places.base}/sia2/query", PARAMETERS, name="this"),
    )
    return Answer(body, VOTABLE_TYPE)


def _check_protocol(parameters: Parameters) -> None:
    request, version = parameters.one("REQUEST"), parameters.one("VERSION")
    if request is not None and request.lower() not in ("query", "querydata"):
        raise ServiceError(f"REQUEST is {request[:40]!r}; expected query")
    if version is not None and version not in ("2", "2.0"):
        raise ServiceError(f"VERSION is {version[:20]!r}; this is SIA 2.0")


def _span(name: str, unit: str, ucd: str, description: str) -> InputParameter:
    return InputParameter(name, "double", "2", ucd, unit, "interval", description)


PARAMETERS = (
    InputParameter(
        "POS", ucd="pos.outline;obs", description="CIRCLE, RANGE or POLYGON and numbers, deg, ICRS"
    ),
    _span("BAND", "m", "em.wl;stat.interval", "wavelengths in vacuum"),
    _span("TIME", "d", "time.interval;obs.exposure", "MJD, UTC"),
    InputParameter("POL", ucd="meta.code;phys.polarization", description="state of polarisation"),
    _span("FOV", "deg", "phys.angSize;instr.fov", "diameter of the field"),
    _span("SPATRES", "arcsec", "pos.angResolution", "full width at half maximum of the PSF"),
    _span("SPECRP", "", "spect.resolution", "resolving power"),
    _span("EXPTIME", "s", "time.duration;obs.exposure", "exposure time"),
    _span("TIMERES", "s", "time.resolution", "resolution in time"),
    InputParameter("ID", ucd="meta.ref.ivoid", description="identifier of the data set"),
    InputParameter("COLLECTION", ucd="meta.id", description="survey or collection"),
    InputParameter("FACILITY", ucd="meta.id;instr.tel", description="telescope"),
    InputParameter("INSTRUMENT", ucd="meta.id;instr", description="instrument"),
    InputParameter("DPTYPE", ucd="meta.code.class", options=(*KINDS, "spectrum"), description="kind of data"),
    InputParameter("CALIB", "int", "", "meta.code;obs.calib", description="calibration level"),
    InputParameter("TARGET", ucd="meta.id;src", description="object as the header names it"),
    InputParameter("FORMAT", ucd="meta.code.mime", options=(FITS_FORMAT,), description="form of the data"),
    InputParameter(
        "MAXREC", "int", "", "meta.number", description="rows of the response; 0: its columns only"
    ),
)


def example_values(store: Store) -> dict[str, Any]:
    """Return the name and the place of an image of the store, for examples; empty where there is none."""
    some = np.arange(min(len(store), EXAMPLES))
    kinds, ra, dec = (store.column(name, some) for name in ("dataproduct_type", "s_ra", "s_dec"))
    usable = np.flatnonzero((kinds != b"spectrum") & np.isfinite(ra) & np.isfinite(dec))
    if not usable.size:
        return {}
    # An image before a cube, which may be larger than what is given away.
    row = int(usable[np.argmax(kinds[usable] == b"image")])
    name = store.column("obs_id", [row])[0].decode()
    return {"ra": round(float(ra[row]), 4), "dec": round(float(dec[row]), 4), "obs_id": name}
