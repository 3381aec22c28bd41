"""Building a dense cube of a store: target by target, into a file that appears when it is complete."""

from __future__ import annotations

import datetime as dt
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.table import Table
from numpy.typing import NDArray

from skyloom._version import __version__
from skyloom.errors import InputError
from skyloom.io.formats.atomic import atomic_path
from skyloom.store.dense.columns import observation_columns, spectrum_entries, target_columns
from skyloom.store.dense.labels import Join, SpectrumKeys, join_all, loaded
from skyloom.store.dense.layout import DenseWriter, check_compression, open_dense, read_column, read_options
from skyloom.store.dense.plan import make_plan
from skyloom.store.dense.stacks import Plan, TargetStack, stack_target
from skyloom.store.dense.targets import (
    MATCHING_RADIUS,
    Matches,
    Targets,
    arcsec_of,
    find_targets,
    match_spectra,
)
from skyloom.store.files.digests import digest_of_part

if TYPE_CHECKING:
    from skyloom.store.contents import Contents

__all__ = ["KEYS", "DenseSummary", "build_dense_cube", "rebuild_dense_cube"]

Array = NDArray[Any]
Progress = Callable[[str, int, int], None]
KEYS = ("plate", "mjd", "fiberid")
"""What is kept of each spectrum to join catalogues by, where its file tells it."""
BATCH = 4
"""Targets that a worker is given at a time."""


@dataclass(frozen=True, slots=True)
class DenseSummary:
    """What has been written.

    Attributes
    ----------
    path : path
    n_targets : int
    n_observations : int
        Of the store, that went in.
    joins : tuple of mappings
        For each table the counts of targets that found a row, none, or several; see `skyloom.store.dense.join.Match`.
    bytes : int
    """

    path: Path
    n_targets: int
    n_observations: int
    joins: tuple[Mapping[str, int], ...]
    bytes: int


def build_dense_cube(
    store: Contents,
    out: str | Path,
    targets: Any = None,
    *,
    size: int = 64,
    bands: str | Sequence[str] | None = None,
    levels: int | Sequence[int] | None = None,
    radius: Any = MATCHING_RADIUS,
    pixel_scale: Any = None,
    spectra: str = "mean",
    weights: str = "observation",
    keys: Sequence[str] = KEYS,
    joins: Sequence[Join] = (),
    where: Mapping[str, Any] | None = None,
    compression: str = "lz4",
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DenseSummary:
    """Write images and spectra of many targets as arrays of one shape.

    Parameters
    ----------
    store : Store
    out : path
        HDF5 file; the layout is that of `skyloom.store.dense.layout`.
    targets : table, path of one, SkyCoord, pairs (ra, dec) or obs_ids, optional
        See `skyloom.store.dense.targets.find_targets`. None: where the spectra of the store are, merged within
        ``radius``.
    size : int
        Pixels along a side at level 0; level z has ``size / 2^z`` (rounded up) of them, 2^z times as large.
    bands : str or sequence of str, optional
        A text is one letter for each band. None: all of the store. A band that a target has no image in is not valid.
    levels : int or sequence of int, optional
        None: all of the store. Images are left out of levels where they would have fewer than 4 pixels.
    radius : quantity or float, arcsec
        Spectra so far from a target belong to it.
    pixel_scale : quantity or float, optional
        arcsec, at level 0. None: the median of the images.
    spectra : {"mean", "nearest"}
        What is made of several spectra of one target.
    weights : {"observation", "pixel"}
        See `skyloom.store.stack`.
    keys : sequence of str
        Entries of spectra that are kept for joins: what their readers tell, or keywords of their headers.
    joins : sequence of Join
        Tables whose columns become labels.
    where : mapping, optional
        Further conditions on the images: ``time``, ``resolution``; see `Contents.search`.
    compression : {"lz4", "gzip"}
    workers : int
        Processes.
    overwrite : bool
    progress : callable, optional
        Called with the name of a target, how many are done, and how many there are.

    Returns
    -------
    DenseSummary

    Raises
    ------
    InputError, UnitError
        When an option has no meaning, there are no targets, or bands mix units that do not fit.

    Notes
    -----
    ``mean = sum w d / sum w`` and ``variance = sum w^2 v / (sum w)^2`` of the exposures on the grid of the target; v is
    the variance after reprojection, and ``ivar`` one over that of the mean. Correlations of the noise are kept beside.
    """
    check_compression(compression)
    distance = arcsec_of(radius, "radius")
    plan, waves = make_plan(store, size, bands, levels, pixel_scale, spectra, weights, where or {})
    places = find_targets(store, targets, distance)
    matches = match_spectra(store, places, distance)
    entries = spectrum_entries(store, matches.row, keys)
    columns = target_columns(store, places, matches, entries, keys)
    # Before anything is averaged: a mistake in a join is told at once.
    reports = join_all(
        columns,
        [loaded(join) for join in joins],
        SpectrumKeys.of_store(store, matches, entries, keys),
        places,
    )
    options = {
        "size": size,
        "bands": list(plan.bands),
        "levels": sorted({*plan.image_levels, *plan.spectrum_levels}),
        "radius": distance,
        "pixel_scale": plan.pixel_scale,
        "spectra": spectra,
        "weights": weights,
        "keys": list(keys),
        "compression": compression,
    }
    with atomic_path(out, overwrite=overwrite) as temporary:
        with DenseWriter(temporary, plan, waves, len(places.name), compression) as writer:
            stacks = _stacks(store, plan, places, matches, workers)
            for index, found in enumerate(stacks):
                writer.write(index, found)
                if progress is not None:
                    progress(places.name[index], index + 1, len(places.name))
            observations = observation_columns(store, writer.rows, entries, keys)
            provenance = {
                "options": options,
                "where": dict(where or {}),
                "targets": "spectra" if targets is None else "given",
                "joins": [join.describe() for join in joins],
                "join_counts": reports,
                **_origin(store, observations),
            }
            writer.finish(columns, observations, provenance)
            n_observations = len(writer.rows)
        size_of_file = temporary.stat().st_size
    return DenseSummary(Path(out), len(places.name), n_observations, tuple(reports), size_of_file)


def _origin(store: Contents, observations: Mapping[str, Any]) -> dict[str, str]:
    """Return what a cube was made of, when, and by what."""
    sources = zip(observations["obs_id"], observations["digest"], strict=True)
    return {
        "store": str(store.path.resolve()),
        "sources_digest": digest_of_part(sources),
        "created": _now(),
        "skyloom_version": __version__,
    }


def rebuild_dense_cube(
    store: Contents,
    path: str | Path,
    out: str | Path | None = None,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> DenseSummary:
    """Build a dense cube again from what it tells of itself: its options, its targets, and its joins.

    Parameters
    ----------
    store : Store
        As it is now.
    path : path
        Of the cube.
    out : path, optional
        None: in the place of the old one.

    Raises
    ------
    InputError
        When labels came from a table in memory, or their file is missing.
    """
    told = read_options(path)
    for join in told["joins"]:
        if join["table"] is None or not Path(join["table"]).is_file():
            raise InputError(
                f"labels came from {join['table'] or 'a table in memory'}, which is not there",
                source=path,
                field="joins",
                remedy="build the cube anew, with the table",
            )
    return build_dense_cube(
        store,
        out or path,
        None if told["targets"] == "spectra" else _old_targets(path),
        joins=[Join(**join) for join in told["joins"]],
        where=told["where"],
        workers=workers,
        overwrite=True,
        progress=progress,
        **told["options"],
    )


def _old_targets(path: str | Path) -> Table:
    with open_dense(path) as file:
        group = file["targets"]
        return Table({name: read_column(group[name]) for name in ("name", "ra", "dec")})


# --- the stacks -----------------------------------------------------------------------------------------------------


def _stacks(
    store: Contents, plan: Plan, places: Targets, matches: Matches, workers: int
) -> Iterator[TargetStack]:
    """Yield the stack of each target, in order."""
    work = (
        ((float(ra), float(dec)), matches.of(index))
        for index, (ra, dec) in enumerate(zip(places.ra, places.dec, strict=True))
    )
    if workers <= 1:
        for place, spectra in work:
            yield stack_target(store, plan, place, spectra)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _open_here, (str(store.path), plan)) as pool:
        waiting: deque[Future[list[TargetStack]]] = deque()
        for batch in _batches(work):
            waiting.append(pool.submit(_stack_some, batch))
            # So few are under way that what is finished never piles up.
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _batches(work: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in work:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


_HERE: dict[str, Any] = {}


def _open_here(path: str, plan: Plan) -> None:
    from skyloom.store.query import Store

    _HERE["store"], _HERE["plan"] = Store(path), plan


def _stack_some(batch: list[tuple[tuple[float, float], Array]]) -> list[TargetStack]:
    return [stack_target(_HERE["store"], _HERE["plan"], place, spectra) for place, spectra in batch]


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
