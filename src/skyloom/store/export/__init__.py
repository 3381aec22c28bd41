"""What a store holds as files for other programs: tables, voxels, images and spectra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError

if TYPE_CHECKING:
    from astropy.table import QTable

    from skyloom.store.contents import Contents
    from skyloom.store.export.fields import Progress, TableStream

__all__ = ["FORMATS", "KINDS", "ExportResult", "export"]

KINDS = {"images": "image", "cubes": "cube", "spectra": "spectrum"}
"""What is exported one by one, and the kind of observation that it is."""
TABLES = ("observations", "voxels")
FORMATS = ("votable", "fits", "parquet", "hats")
_SUFFIXES = {
    ".vot": "votable",
    ".xml": "votable",
    ".votable": "votable",
    ".fits": "fits",
    ".fit": "fits",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".hats": "hats",
}
MOST_SHOWN = 25
"""Images or spectra that are sent to other programs at once."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What has been written.

    Attributes
    ----------
    paths : tuple of path
    rows : int
        Of a table; else how many images, cubes or spectra.
    observations : int
        How many of them went in.
    told : tuple of str
        Programs that were asked to open it.
    """

    paths: tuple[Path, ...]
    rows: int
    observations: int
    told: tuple[str, ...] = ()


def export(
    store: Contents,
    out: str | Path,
    what: str = "observations",
    *,
    format: str | None = None,  # noqa: A002  # as astropy's tables call it
    obs: str | Sequence[str] | QTable | None = None,
    level: int = 0,
    units: str = "own",
    overwrite: bool = False,
    samp: bool = False,
    progress: Progress | None = None,
    **where: Any,
) -> ExportResult:
    """Write a part of a store for other programs.

    Parameters
    ----------
    store : Contents
    out : str or path
        A file; a folder for images, cubes and spectra (of one of them also a file ``.fits``) and for HATS.
    what : {"observations", "voxels", "images", "cubes", "spectra"}
        The table of observations; the table of all usable values, see `skyloom.store.export.voxels`; or the
        observations themselves.
    format : {"votable", "fits", "parquet", "hats"}, optional
        By default what the suffix of ``out`` says: ``.vot``, ``.xml``, ``.fits``, ``.parquet``, ``.hats``.
    obs : obs_id, list of them or table with that column, optional
        Which observations, instead of conditions.
    level : int
        Resolution of voxels, images, cubes and spectra; what has no such level is left out unless it is named.
    units : {"own", "f_lambda", "surface"}
        Of voxels; see `skyloom.store.export.voxels.voxel_table`.
    overwrite : bool
        Whether an existing file may be replaced.
    samp : bool
        Ask TOPCAT, Aladin and the like, if they run, to open what was written.
    progress : callable, optional
        ``progress(item, done, total)``.
    **where
        Conditions as for `Contents.observations`; none: everything.

    Returns
    -------
    ExportResult

    Raises
    ------
    InputError
        When nothing is selected, a file is in the way, the format is unknown or its package missing, or there is no
        SAMP hub. A file that is being written appears complete or not at all.
    """
    if what not in (*TABLES, *KINDS):
        known = ", ".join((*TABLES, *KINDS))
        raise InputError(f"{what!r} cannot be exported", field="what", remedy=f"use one of {known}")
    _check(Path(out), what, format, level, units)
    if what != "observations" and obs is None:
        where = {"level": level, **where}
    rows = _selected(store, what, obs, where)
    if what in KINDS:
        if samp and rows.size > MOST_SHOWN:
            raise InputError(
                f"{rows.size} {what} are too many to be opened at once",
                field="samp",
                remedy=f"send at most {MOST_SHOWN}",
            )
        from skyloom.store.export.fits import write_objects

        paths = write_objects(store, rows, out, level=level, overwrite=overwrite, progress=progress)
        told = (
            _shown(paths, {"images": "image", "cubes": "image", "spectra": "spectrum"}[what]) if samp else ()
        )
        return ExportResult(tuple(paths), len(paths), len(paths), told)
    form = format or _format_of(Path(out))
    if samp and form not in ("votable", "fits"):
        raise InputError(f"{form} cannot be sent over SAMP", field="samp", remedy="export as votable or fits")
    write = _writer(form)
    written = write(_table(store, what, rows, level, units, progress), out, overwrite=overwrite)
    told = _shown([Path(out)], "votable" if form == "votable" else "fits-table") if samp else ()
    return ExportResult((Path(out),), written, int(rows.size), told)


def _check(out: Path, what: str, form: str | None, level: int, units: str) -> None:
    """Raise `InputError` on what does not fit together, before anything is read."""
    if what in KINDS:
        told = form or _SUFFIXES.get(out.suffix.lower(), "fits")
        if told != "fits" and not (form is None and out.is_dir()):
            raise InputError(
                f"{what} are written as FITS, not {told}",
                source=out,
                field="format",
                remedy="name a folder for them, or export voxels",
            )
    if what != "voxels" and units != "own":
        raise InputError(
            f"units of {what} are their own", field="units", remedy="leave it out, or export voxels"
        )
    if what == "observations" and level:
        raise InputError(
            "the table of observations has no levels", field="level", remedy="leave it out, or export voxels"
        )


def _selected(store: Contents, what: str, obs: Any, where: dict[str, Any]) -> NDArray[np.int64]:
    """Return the rows of what is asked for, in the order of the sky."""
    if obs is None:
        if what in KINDS:
            if where.get("kind", KINDS[what]) != KINDS[what]:
                raise InputError(
                    f"kind is {where['kind']!r}",
                    field="kind",
                    remedy=f"leave it out, or export other than {what}",
                )
            where = {**where, "kind": KINDS[what]}
        rows = store.search(**where)
    else:
        if where:
            raise InputError(
                "both observations and conditions are given", field="obs", remedy="give one of them"
            )
        named = [obs] if isinstance(obs, str) else np.asarray(_names_of(obs)).astype(str).tolist()
        rows = np.unique(store.rows_named(named)) if named else np.empty(0, np.int64)
        if rows.size and rows[0] < 0:
            # One at a time they tell what is wrong, and what was meant.
            for name in named:
                store.row(name)
    if not rows.size:
        level = where.get("level", 0)
        if level and not store.search(level=level).size:
            raise InputError(
                f"no observation has level {level}",
                source=store.path,
                field="level",
                remedy="see how many levels there are with 'skyloom store info'",
            )
        raise InputError(
            "nothing fulfils the conditions",
            source=store.path,
            field="where",
            remedy="widen them, and see what 'skyloom store query' finds",
        )
    return rows


def _names_of(obs: Any) -> Any:
    return obs["obs_id"] if hasattr(obs, "colnames") else list(obs)


def _format_of(out: Path) -> str:
    form = _SUFFIXES.get(out.suffix.lower())
    if form is None:
        raise InputError(
            f"the name does not tell the format: {out.name}",
            source=out,
            field="format",
            remedy=f"name it {', '.join(_SUFFIXES)}, or give one of {', '.join(FORMATS)}",
        )
    return form


def _writer(form: str) -> Callable[..., int]:
    if form == "votable":
        from skyloom.store.export.votable import write_votable

        return write_votable
    if form == "fits":
        from skyloom.store.export.fits import write_fits_stream

        return write_fits_stream
    if form in ("parquet", "hats"):
        from skyloom.store.export import parquet

        return parquet.write_parquet if form == "parquet" else parquet.write_hats
    raise InputError(f"{form!r} is no format", field="format", remedy=f"use one of {', '.join(FORMATS)}")


def _table(
    store: Contents, what: str, rows: NDArray[np.int64], level: int, units: str, progress: Progress | None
) -> TableStream:
    if what == "voxels":
        from skyloom.store.export.voxels import voxel_table

        return voxel_table(store, rows, level=level, units=units, progress=progress)
    from skyloom.store.export.observations import observation_table

    return observation_table(store, rows, progress=progress)


def _shown(paths: Sequence[Path], kind: str) -> tuple[str, ...]:
    from skyloom.io.samp import broadcast

    names: dict[str, None] = {}
    for path in paths:
        names |= dict.fromkeys(broadcast(path, kind))
    return tuple(names)
