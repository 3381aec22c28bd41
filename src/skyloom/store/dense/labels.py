"""Labels of targets: columns of other tables, added while a cube is built, or to one that is there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.io.formats.atomic import atomic_path
from skyloom.store.dense.columns import Entries, key_columns
from skyloom.store.dense.join import label_columns, match_by_key, match_by_sky, read_table
from skyloom.store.dense.layout import open_dense, read_column, read_options, write_columns, write_provenance
from skyloom.store.dense.targets import MATCHING_RADIUS, Matches, Targets, arcsec_of

if TYPE_CHECKING:
    from skyloom.store.contents import Contents

__all__ = ["Join", "SpectrumKeys", "join_all", "join_labels", "loaded"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Join:
    """A table whose columns become labels.

    Parameters
    ----------
    table : path or Table
    key : sequence of str
        Columns of the table that name a spectrum, as plate, mjd, fiberid; empty: by place.
    radius : float
        arcsec; of a match by place.
    columns : sequence of str, optional
        None: all numbers and texts.
    prefix : str
        Put before the names of the columns.
    invalid : sequence of float
        Numbers that mean "not known".
    """

    table: Any
    key: Sequence[str] = ()
    radius: float = MATCHING_RADIUS
    columns: Sequence[str] | None = None
    prefix: str = ""
    invalid: Sequence[float] = ()

    def describe(self) -> dict[str, Any]:
        """Return it as plain values; of a table in memory without its path."""
        is_file = isinstance(self.table, (str, Path))
        return {
            "table": str(Path(self.table).resolve()) if is_file else None,
            "key": list(self.key),
            "radius": self.radius,
            "columns": None if self.columns is None else list(self.columns),
            "prefix": self.prefix,
            "invalid": list(self.invalid),
        }


def join_labels(
    path: str | Path, joins: Sequence[Join], out: str | Path | None = None, *, overwrite: bool = False
) -> tuple[Mapping[str, int], ...]:
    """Add labels to a dense cube that is there; the file is copied, and replaced when it is complete.

    Parameters
    ----------
    path : path
        Of the cube.
    joins : sequence of Join
    out : path, optional
        None: in the place of the old one.

    Returns
    -------
    tuple of mappings
        Counts of each join.
    """
    tables = [loaded(join) for join in joins]
    told = read_options(path)
    with atomic_path(out or path, overwrite=overwrite or out is None) as temporary:
        shutil.copyfile(path, temporary)
        with open_dense(temporary, "r+") as file:
            group = file["targets"]
            old = dict.fromkeys(group)
            places = Targets(
                tuple(read_column(group["name"])), read_column(group["ra"]), read_column(group["dec"])
            )
            columns: dict[str, Any] = dict(old)
            reports = join_all(columns, tables, SpectrumKeys.of_file(file), places)
            write_columns(group, {name: values for name, values in columns.items() if name not in old})
            told["joins"] = [*told["joins"], *(join.describe() for join in joins)]
            told["join_counts"] = [*told["join_counts"], *reports]
            write_provenance(file, told)
    return tuple(reports)


@dataclass(frozen=True, slots=True)
class SpectrumKeys:
    """The keys of the spectra of all targets, the nearest of each first."""

    owner: NDArray[np.int64]
    keys: Mapping[str, Array]

    @classmethod
    def of_store(
        cls, store: Contents, matches: Matches, entries: Entries, keys: Sequence[str]
    ) -> SpectrumKeys:
        """Return those of all spectra that belong to targets."""
        columns = key_columns([entries.get(row, {}) for row in matches.row.tolist()], keys)
        columns = {name: _known(values) for name, values in columns.items()}
        columns["obs_id"] = np.asarray(store.table(matches.row, ("obs_id",))["obs_id"], dtype=np.str_)
        owner = np.repeat(np.arange(matches.start.size - 1), np.diff(matches.start))
        return cls(owner, columns)

    @classmethod
    def of_file(cls, file: Any) -> SpectrumKeys:
        """Return those that went into a cube."""
        is_spectrum = file["sources/band"][:] < 0
        owner = file["sources/target"][:][is_spectrum]
        number = file["sources/observation"][:][is_spectrum]
        group = file["observations"]
        others = {"kind", "band", "source", "source_digest", "digest"}
        return cls(
            owner, {name: _known(read_column(group[name])[number]) for name in group if name not in others}
        )


def _known(values: Array) -> Any:
    """Return a column of `as_column` with what is not known masked."""
    unknown = values == ("" if values.dtype.kind == "U" else -1)
    return np.ma.array(values, mask=unknown | (np.isnan(values) if values.dtype.kind == "f" else False))


def loaded(join: Join) -> tuple[Join, Table]:
    """Return a join with its table, read from its file."""
    if not isinstance(join.table, (str, Path)):
        return join, Table(join.table)
    table = read_table(join.table)
    table.meta["path"] = str(join.table)
    return join, table


def join_all(
    columns: dict[str, Any], tables: Sequence[tuple[Join, Table]], spectra: SpectrumKeys, places: Targets
) -> list[dict[str, int]]:
    """Add the labels of each table to the columns of targets; return the counts of each."""
    reports = []
    for join, table in tables:
        if join.key:
            match = match_by_key(spectra.keys, spectra.owner, len(places.name), table, join.key)
        else:
            match = match_by_sky(places.ra, places.dec, table, arcsec_of(join.radius, "radius"))
        labels = label_columns(table, match, join.columns, key=join.key, invalid=join.invalid)
        status: dict[str, Any] = {"joined": match.status}
        if match.distance is not None:
            status["joined_distance"] = match.distance << u.arcsec
        added = {join.prefix + name: values for name, values in status.items()}
        added |= {join.prefix + name: labels[name] for name in labels.colnames}
        taken = [name for name in added if name in columns or name in ("n_exposures", "n_spectra")]
        if taken:
            raise InputError(
                f"targets have columns {', '.join(taken)} already",
                source=table.meta.get("path"),
                field="prefix",
                remedy="give a prefix, or choose columns",
            )
        columns |= added
        reports.append(match.describe())
    return reports
