"""What a service says of itself and of what it found: VOTable 1.4, VOSI, CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from skyloom._version import __version__
from skyloom.store.service.obscore import OBSCORE, ObsCoreColumn, Places

__all__ = [
    "VOTABLE_TYPE",
    "InputParameter",
    "availability",
    "capabilities",
    "csv_text",
    "descriptor",
    "error_document",
    "results",
    "tables",
    "votable",
]

VOTABLE_TYPE = "application/x-votable+xml"
# What XML 1.0 cannot carry at all, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_SCHEMA = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
_COORDINATES = (
    '<COOSYS ID="icrs" system="ICRS"/>',
    '<TIMESYS ID="utc" timescale="UTC" refposition="UNKNOWN" timeorigin="MJD-origin"/>',
)
_SYSTEMS = {"s_ra": "icrs", "s_dec": "icrs", "s_region": "icrs", "t_min": "utc", "t_max": "utc"}


def _safe(text: object) -> str:
    return _NOT_XML.sub("?", str(text))


def _attributes(**values: object) -> str:
    return "".join(
        f" {name}={quoteattr(_safe(value))}" for name, value in values.items() if value not in ("", None)
    )


def votable(*resources: str) -> bytes:
    """Return a VOTable of resources."""
    body = "\n".join(resources)
    return (
        f'{_HEAD}<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3" {_SCHEMA}>\n{body}\n</VOTABLE>\n'
    ).encode()


def _info(name: str, value: str, content: str = "") -> str:
    # An attribute that is empty would be left out.
    return f"<INFO{_attributes(name=name, value=value or ' ')}>{escape(_safe(content))}</INFO>"


def error_document(message: str) -> bytes:
    """Return a VOTable that says that a query failed, and why."""
    return votable(f'<RESOURCE type="results">\n{_info("QUERY_STATUS", "ERROR", message)}\n</RESOURCE>')


def results(
    columns: Sequence[ObsCoreColumn],
    values: Mapping[str, Sequence[Any]],
    *,
    status: str = "OK",
    infos: Iterable[tuple[str, str]] = (),
    name: str = "results",
) -> str:
    """Return the resource with the rows of a response.

    Parameters
    ----------
    columns : sequence of ObsCoreColumn
    values : mapping of name to list
        None: not known.
    status : {"OK", "OVERFLOW"}
    infos : iterable of (name, value)
    name : str
        Of the table.
    """
    shown = [values[column.name] for column in columns]
    fields = [_field(column, own) for column, own in zip(columns, shown, strict=True)]
    cells = [_cells(own, column.datatype) for column, own in zip(columns, shown, strict=True)]
    rows = ["<TR>" + "".join(row) + "</TR>" for row in zip(*cells, strict=True)]
    told = [_info("QUERY_STATUS", status), *(_info(*info) for info in infos)]
    placed = any(column.name in _SYSTEMS for column in columns)
    return "\n".join(
        [
            '<RESOURCE type="results">',
            *(_COORDINATES if placed else ()),
            *told,
            f"<TABLE{_attributes(name=name)}>",
            *fields,
            "<DATA><TABLEDATA>",
            *rows,
            "</TABLEDATA></DATA>",
            "</TABLE>",
            "</RESOURCE>",
        ]
    )


def _field(column: ObsCoreColumn, values: Sequence[Any]) -> str:
    kind, size = column.datatype, ""
    if kind == "char":
        size = "*"
        if any(value is not None and not value.isascii() for value in values):
            kind = "unicodeChar"
    attributes = _attributes(
        # Descriptors of services refer to a column by this.
        ID=column.name,
        name=column.name,
        datatype=kind,
        arraysize=size,
        ucd=column.ucd,
        unit=column.unit,
        utype=column.utype,
        xtype="adql:REGION" if column.name == "s_region" else "",
        ref=_SYSTEMS.get(column.name, ""),
    )
    return f"<FIELD{attributes}><DESCRIPTION>{escape(column.description)}</DESCRIPTION></FIELD>"


def _cells(values: Sequence[Any], datatype: str) -> list[str]:
    if datatype == "char":
        return ["<TD/>" if value in (None, "") else f"<TD>{escape(_safe(value))}</TD>" for value in values]
    return ["<TD/>" if value is None else f"<TD>{value!r}</TD>" for value in values]


class InputParameter(NamedTuple):
    """A parameter of a service, as its descriptor tells it."""

    name: str
    datatype: str = "char"
    arraysize: str = "*"
    ucd: str = ""
    unit: str = ""
    xtype: str = ""
    description: str = ""
    ref: str = ""
    """Column of the results that has its values."""
    value: str = ""
    low: str = ""
    high: str = ""
    options: tuple[str, ...] = ()


def descriptor(
    identifier: str, standard: str, address: str, parameters: Iterable[InputParameter], *, name: str = ""
) -> str:
    """Return the resource that describes a service, for clients to call it with values of the results."""
    lines = [
        f"<RESOURCE{_attributes(type='meta', utype='adhoc:service', ID=identifier, name=name)}>",
        f"<PARAM{_attributes(name='standardID', datatype='char', arraysize='*')} value={quoteattr(standard)}/>",
        f"<PARAM{_attributes(name='accessURL', datatype='char', arraysize='*')} value={quoteattr(address)}/>",
        '<GROUP name="inputParams">',
        *(_input(parameter) for parameter in parameters),
        "</GROUP>",
        "</RESOURCE>",
    ]
    return "\n".join(lines)


def _input(own: InputParameter) -> str:
    attributes = _attributes(
        name=own.name,
        datatype=own.datatype,
        arraysize=own.arraysize,
        ucd=own.ucd,
        unit=own.unit,
        xtype=own.xtype,
        ref=own.ref,
    )
    content = f"<DESCRIPTION>{escape(own.description)}</DESCRIPTION>" if own.description else ""
    limits = "".join(
        f"<{word}{_attributes(value=limit)}/>"
        for word, limit in (("MIN", own.low), ("MAX", own.high))
        if limit
    )
    limits += "".join(f"<OPTION{_attributes(value=option)}/>" for option in own.options)
    content += f"<VALUES>{limits}</VALUES>" if limits else ""
    return f"<PARAM{attributes} value={quoteattr(_safe(own.value))}>{content}</PARAM>"


def csv_text(
    columns: Sequence[ObsCoreColumn], values: Mapping[str, Sequence[Any]], separator: str = ","
) -> bytes:
    """Return the rows of a response as CSV, or as TSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, lineterminator="\r\n")
    writer.writerow([column.name for column in columns])
    rows = zip(*(values[column.name] for column in columns), strict=True)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    return stream.getvalue().encode()


# --- VOSI -----------------------------------------------------------------------------------------------------------

_CAPABILITIES = (
    ("ivo://ivoa.net/std/VOSI#capabilities", "capabilities", "full", ""),
    ("ivo://ivoa.net/std/VOSI#availability", "availability", "full", ""),
    ("ivo://ivoa.net/std/VOSI#tables-1.1", "tables", "full", ""),
    ("ivo://ivoa.net/std/SIA#query-2.0", "sia2/query", "base", ' role="std" version="2.0"'),
    ("ivo://ivoa.net/std/SODA#sync-1.0", "soda/sync", "base", ' role="std" version="1.0"'),
    ("ivo://ivoa.net/std/DataLink#links-1.0", "datalink/links", "base", ' role="std" version="1.0"'),
)


def capabilities(places: Places) -> bytes:
    """Return what the service can do, as VOSI has it."""
    told = "\n".join(
        f'<capability standardID="{standard}"><interface xsi:type="vs:ParamHTTP"{more}>'
        f'<accessURL use="{use}">{escape(_safe(f"{places.base}/{path}"))}</accessURL></interface></capability>'
        for standard, path, use, more in _CAPABILITIES
    )
    return (
        f'{_HEAD}<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0" {_SCHEMA}'
        f' xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1">\n{told}\n</vosi:capabilities>\n'
    ).encode()


def availability(since: str, note: str) -> bytes:
    """Return that the service works, and since when (ISO 8601, UTC)."""
    return (
        f'{_HEAD}<vosi:availability xmlns:vosi="http://www.ivoa.net/xml/VOSIAvailability/v1.0">\n'
        f"<vosi:available>true</vosi:available><vosi:upSince>{escape(since)}</vosi:upSince>"
        f"<vosi:note>{escape(_safe(note))}</vosi:note>\n</vosi:availability>\n"
    ).encode()


def tables() -> bytes:
    """Return the columns of a response, as VOSI has tables."""
    told = "\n".join(
        f"<column><name>{own.name}</name><description>{escape(own.description)}</description>"
        + (f"<unit>{own.unit}</unit>" if own.unit else "")
        + f"<ucd>{own.ucd}</ucd>"
        + (f"<utype>{own.utype}</utype>" if own.utype else "")
        + f'<dataType xsi:type="vs:VOTableType"{_attributes(arraysize="*" if own.datatype == "char" else "")}>'
        f"{own.datatype}</dataType></column>"
        for own in OBSCORE
    )
    return (
        f'{_HEAD}<vosi:tableset xmlns:vosi="http://www.ivoa.net/xml/VOSITables/v1.0" {_SCHEMA}'
        ' xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1">\n<schema><name>ivoa</name><table type="output">'
        f"<name>ivoa.ObsCore</name><description>observations, by Skyloom {__version__}</description>\n{told}\n"
        "</table></schema>\n</vosi:tableset>\n"
    ).encode()
