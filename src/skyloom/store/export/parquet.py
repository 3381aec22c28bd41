"""Exports as Parquet: one file sorted by place, or the layout of HATS, which LSDB opens.

pyarrow writes them; it is needed for nothing else and is an extra.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from skyloom._version import __version__
from skyloom.errors import InputError
from skyloom.io.formats.atomic import atomic_path, flush
from skyloom.store.export.fields import Field, Rows, TableStream
from skyloom.store.export.partitions import MAX_ROWS, Partition, partitions
from skyloom.store.export.votable import votable_document

__all__ = ["HEALPIX", "write_hats", "write_parquet"]

HEALPIX = "_healpix_29"
"""Name that HATS gives to the cells of order 29."""
_PLACES = {"observations": ("s_ra", "s_dec"), "voxels": ("ra", "dec")}
_CATALOGUES = {"observations": "object", "voxels": "source"}


def write_parquet(stream: TableStream, path: str | Path, *, overwrite: bool = False) -> int:
    """Write a table as one Parquet file; return how many rows there are.

    Parameters
    ----------
    stream : TableStream
        With a column ``healpix``, which is named ``_healpix_29`` in the file, its first column, by which rows are
        sorted; -1, before all others, has no place.
    path : str or path
    overwrite : bool
        Whether an existing file may be replaced.

    Notes
    -----
    Each column has its ``unit``, ``ucd`` and ``description`` as metadata of its field. The file has them once more as a
    VOTable without data, as the VOParquet convention of the IVOA wants them, which TOPCAT reads. Rows wait in temporary
    files beside ``path`` until they can be sorted; memory does not grow with the table.

    Raises
    ------
    InputError
        When pyarrow is not installed, the file exists, or its folder does not.
    """
    parquet = _pyarrow().parquet
    schema = _schema(stream)
    n_rows = 0
    with (
        atomic_path(path, overwrite=overwrite) as temporary,
        _waiting(Path(path).parent) as folder,
        parquet.ParquetWriter(temporary, schema, **_OPTIONS) as writer,
    ):
        for part in partitions(stream.blocks, stream.dtype, folder):
            writer.write_table(_arrow(part.rows, stream.fields, schema))
            n_rows += len(part.rows)
    return n_rows


def write_hats(
    stream: TableStream, path: str | Path, *, overwrite: bool = False, max_rows: int = MAX_ROWS
) -> int:
    """Write a table as a catalogue of HATS, a folder; return how many rows there are.

    Parameters
    ----------
    stream : TableStream
        Rows without a place are left out: HATS has none for them. How many they are stands in ``hats.properties``.
    path : str or path
        The folder, which appears when it is complete.
    overwrite : bool
        Whether an existing catalogue may be replaced.
    max_rows : int
        Of a partition.

    Notes
    -----
    ``dataset/Norder=k/Dir=d/Npix=n.parquet`` with cells of different orders, ``dataset/_metadata`` and
    ``_common_metadata``, ``partition_info.csv``, ``hats.properties`` and its older name ``properties``: what `hats` and
    `lsdb.open_catalog` read.

    Raises
    ------
    InputError
        When pyarrow is not installed, the folder is there already, nothing has a place, or the parent does not exist.
    """
    _pyarrow()
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(
            f"the folder {target.parent} does not exist", source=target, remedy="create it first"
        )
    if target.exists() and not (overwrite and (target / "hats.properties").is_file()):
        raise InputError(
            "this exists already" if not overwrite else "this is no catalogue of HATS",
            source=target,
            remedy="choose another name, or overwrite it (overwrite=True, --overwrite)",
        )
    new = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with _waiting(target.parent) as folder:
            n_rows = _write_catalogue(
                stream, new, partitions(stream.blocks, stream.dtype, folder, max_rows=max_rows)
            )
        _replace(target, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return n_rows


def _replace(target: Path, new: Path) -> None:
    """Put a folder where another may be; the other is there until the new one can be."""
    old = new.with_name(new.name + ".old")
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _write_catalogue(stream: TableStream, root: Path, parts: Iterator[Partition]) -> int:
    parquet = _pyarrow().parquet
    schema = _schema(stream)
    dataset = root / "dataset"
    dataset.mkdir(parents=True)
    written: dict[tuple[int, int], int] = {}
    writer, metadata, lost = None, [], 0
    for part in parts:
        if part.pixel < 0:
            lost += len(part.rows)
            continue
        cell = part.order, part.pixel
        if cell not in written:
            _finish(writer)
            name = f"Norder={part.order}/Dir={part.pixel // 10000 * 10000}/Npix={part.pixel}.parquet"
            (dataset / name).parent.mkdir(parents=True, exist_ok=True)
            collected: list[Any] = []
            writer = parquet.ParquetWriter(dataset / name, schema, metadata_collector=collected, **_OPTIONS)
            metadata.append((name, collected))
        assert writer is not None
        writer.write_table(_arrow(part.rows, stream.fields, schema))
        written[cell] = written.get(cell, 0) + len(part.rows)
    _finish(writer)
    if not written:
        raise InputError(
            "nothing that is selected has a place on the sky", remedy="export a single Parquet file"
        )
    _write_metadata(dataset, schema, metadata)
    cells = "".join(f"{order},{pixel}\n" for order, pixel in sorted(written))
    (root / "partition_info.csv").write_text("Norder,Npix\n" + cells, encoding="ascii")
    text = _properties(stream, written, lost, root)
    for name in ("hats.properties", "properties"):
        (root / name).write_text(text, encoding="utf-8")
    return sum(written.values())


def _finish(writer: Any) -> None:
    if writer is not None:
        writer.close()


def _write_metadata(dataset: Path, schema: Any, metadata: list[tuple[str, list[Any]]]) -> None:
    parquet = _pyarrow().parquet
    collected = []
    for name, found in metadata:
        for one in found:
            one.set_file_path(name)
            collected.append(one)
    parquet.write_metadata(schema, dataset / "_common_metadata")
    parquet.write_metadata(schema, dataset / "_metadata", metadata_collector=collected)


def _properties(stream: TableStream, written: Mapping[tuple[int, int], int], lost: int, root: Path) -> str:
    ra, dec = _PLACES[stream.name]
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    area = sum(4.0**-order for order, _ in written) / 12.0
    values = {
        "obs_collection": f"skyloom_{stream.name}",
        "dataproduct_type": _CATALOGUES[stream.name],
        "hats_nrows": sum(written.values()),
        "hats_col_ra": ra,
        "hats_col_dec": dec,
        "hats_col_healpix": HEALPIX,
        "hats_col_healpix_order": 29,
        "hats_max_rows": max(written.values()),
        "hats_order": max(order for order, _ in written),
        "moc_sky_fraction": f"{area:.6g}",
        "hats_builder": f"Skyloom {__version__}",
        "hats_creation_date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MUTC"),
        "hats_estsize": max(1, size // 1024),
        "hats_release_date": "2025-08-22",
        "hats_version": "v1.0",
        "skyloom_rows_without_place": lost,
    }
    return "#HATS catalog\n" + "".join(f"{key}={value}\n" for key, value in values.items())


# ------------------------------------------------------------------------------------------------------- arrow

_OPTIONS: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "write_statistics": True}


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "Parquet needs pyarrow, which is not installed",
            field="format",
            remedy="pip install 'skyloom[parquet]', or export as VOTable or FITS",
        ) from error
    return pa


@contextmanager
def _waiting(parent: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".skyloom_sort_", dir=parent) as folder:
        yield Path(folder)


def _in_order(fields: tuple[Field, ...]) -> list[Field]:
    """Return the columns as they stand in the file: cells first."""
    return sorted(fields, key=lambda column: column.name != "healpix")


def _schema(stream: TableStream) -> Any:
    arrow = _pyarrow()
    fields = []
    for column in _in_order(stream.fields):
        told = {"unit": column.unit, "ucd": column.ucd, "description": column.description}
        kind = (
            arrow.string()
            if np.dtype(column.kind).kind in "SU"
            else arrow.from_numpy_dtype(np.dtype(column.kind))
        )
        name = HEALPIX if column.name == "healpix" else column.name
        fields.append(arrow.field(name, kind, metadata={key: value for key, value in told.items() if value}))
    notes = {"name": stream.name, "description": stream.description, **stream.notes}
    return arrow.schema(
        fields,
        metadata={
            "skyloom": json.dumps(notes),
            "IVOA.VOTable-Parquet.version": "1.0",
            "IVOA.VOTable-Parquet.content": votable_document(_as_in_file(stream)),
        },
    )


def _as_in_file(stream: TableStream) -> TableStream:
    ordered = tuple(_in_order(stream.fields))
    renamed = tuple(c._replace(name=HEALPIX) if c.name == "healpix" else c for c in ordered)
    return TableStream(stream.name, stream.description, renamed, iter(()), stream.notes)


def _arrow(rows: Rows, fields: tuple[Field, ...], schema: Any) -> Any:
    arrow = _pyarrow()
    columns = []
    for column in _in_order(fields):
        values = np.ascontiguousarray(rows[column.name])
        if column.values is not None:
            texts = arrow.array([text.decode("ascii") for text in column.values.tolist()], arrow.string())
            columns.append(arrow.DictionaryArray.from_arrays(values, texts).cast(arrow.string()))
        elif values.dtype.kind in "SU":
            texts = np.char.decode(values, "ascii") if values.dtype.kind == "S" else values
            columns.append(arrow.array(texts.tolist(), arrow.string()))
        else:
            columns.append(arrow.array(values))
    return arrow.Table.from_arrays(columns, schema=schema)
