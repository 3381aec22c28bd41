"""Store: files into a store, which is made where there is none, and a report of what is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sized
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import ConfigError
from skyloom.recipes.citations import citations
from skyloom.recipes.config import resolved_yaml
from skyloom.recipes.folder import write_config
from skyloom.recipes.reporting import inspected, notes_section, total_of
from skyloom.recipes.resources import Meter
from skyloom.recipes.result import ItemFailure, Progress, RunResult
from skyloom.recipes.store.config import StoreConfig
from skyloom.report.html import write_report
from skyloom.report.model import Check, DataTable, Product, ReportFigure, RunReport, Section, StepRecord
from skyloom.store.files.folder import is_store, make_folder, read_settings
from skyloom.store.files.manifest import MANIFEST_NAME, Manifest
from skyloom.store.ingest.run import IngestResult, ingest
from skyloom.store.ingest.sources import find_files, listed_files
from skyloom.store.query import Store
from skyloom.store.schema import StoreSettings

__all__ = ["store"]

SHOWN_FAILURES = 200
_KINDS = ("dataproduct_type", "instrument_name", "band")
_COLUMNS = (*_KINDS, "s_ra", "s_dec", "radius")


def store(
    config: StoreConfig,
    *,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Run the recipe.

    Parameters
    ----------
    config : StoreConfig
        Checked configuration; ``config.output.directory`` is the store.
    scheduler : str, optional
        Address of a Dask scheduler whose workers write the parts; by default ``config.workers`` processes here.
    overwrite : bool
        Replace observations whose names are taken, as ``replace`` of the configuration.
    progress : callable, optional
        Called after each file.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        When the store cannot be made or written to, or no file is found.
    ConfigError
        When the store that is there was made with another layout.
    """
    directory = Path(config.output.directory)
    _open_store(directory, config.layout.to_store())
    config_file = write_config(config, directory)
    with Meter() as meter:
        result = ingest(
            directory,
            config.files,
            lists=config.file_lists(),
            workers=config.workers,
            scheduler=scheduler,
            replace=config.replace or overwrite,
            options=config.options,
            progress=progress,
        )
    parts = tuple(directory / part.name for part in result.parts)
    products = (*parts, directory / "master.h5", directory / MANIFEST_NAME, config_file)
    report = directory / "report.html" if config.output.report else None
    if report is not None:
        write_report(build_report(config, result, products, meter), report)
    return RunResult(
        recipe="store",
        directory=directory,
        products=products,
        resumed=len(result.skipped),
        failures=tuple(ItemFailure(failure.source, failure.reason) for failure in result.failures),
        report=report,
        summary=(
            f"{_counted(result.stored, 'new observation')} in {_counted(result.parts, 'part')},"
            f" {len(result.skipped)} files were stored already, {len(result.failures)} failed"
        ),
    )


def _counted(items: Sized, noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _open_store(directory: Path, wanted: StoreSettings) -> None:
    """Make the store, or see that the one that is there is laid out as wanted."""
    if not is_store(directory):
        make_folder(directory, wanted)
        return
    there = read_settings(directory)
    for key in (item.name for item in fields(StoreSettings)):
        found, value = getattr(there, key), getattr(wanted, key)
        if found != value:
            raise ConfigError(
                f"the store was made with {key} {found}; the configuration says {value}",
                source=str(directory),
                field=f"layout.{key}",
                remedy="keep that value, or make another store",
            )


# --- report ---------------------------------------------------------------------------------------------------------


def build_report(
    config: StoreConfig, result: IngestResult, products: tuple[Path, ...], meter: Meter
) -> RunReport:
    """Gather what the report of a run shows."""
    directory = Path(config.output.directory)
    content = Store(directory)
    manifest = Manifest.read(directory)
    n_bytes = sum(part.bytes for part in manifest.parts)
    failures = {item.source: item.reason for item in result.failures[:SHOWN_FAILURES]}
    if len(result.failures) > SHOWN_FAILURES:
        rest = len(result.failures) - SHOWN_FAILURES
        failures["..."] = f"{rest} more; 'skyloom store info {directory} --failures' lists all"
    return RunReport(
        title=f"store: {manifest.n_visible} observations",
        summary=(
            f"{len(result.stored)} observations are new, {len(result.skipped)} files were stored already,"
            f" {len(result.failures)} could not be stored. The store holds {manifest.n_visible} observations in"
            f" {len(manifest.parts)} files of {n_bytes / 1e6:.4g} MB."
        ),
        config_yaml=resolved_yaml(config),
        sections=(_content_section(config, content), *notes_section(result.notes[:SHOWN_FAILURES])),
        products=tuple(Product(path, _described(path), path.name in MAIN) for path in products),
        failures=failures,
        checks=(
            Check(
                "files not stored",
                "this run",
                float(len(result.failures)),
                maximum=0.0,
                meaning="files that were given and could not be stored, each listed with its reason",
            ),
        ),
        steps=_steps(result, meter),
        total=total_of(meter, len(result.stored) + len(result.skipped) + len(result.failures)),
        citations=citations(
            [
                ("nadvornik2021", "hierarchical semi-sparse cubes, whose job the store does"),
                ("gorski2005", "partitions of the sky"),
            ]
        ),
        **inspected(_input_files(config)),
    )


MAIN = ("master.h5", MANIFEST_NAME)


def _steps(result: IngestResult, meter: Meter) -> tuple[StepRecord, ...]:
    text = "files are read, located on the sky and written as parts, all resolutions with their errors"
    found = len(result.skipped) + len(result.failures) + len(result.stored)
    return (StepRecord("ingest", meter.wall, meter.cpu, meter.memory, found, len(result.skipped), text),)


def _input_files(config: StoreConfig) -> Iterator[Path]:
    """Yield the files that were given, one of each folder first, so that all kinds are seen."""
    files = dict.fromkeys(find_files(config.files))
    for listing in config.file_lists():
        files |= dict.fromkeys(listed_files(listing)[0])
    yield from {path.parent: path for path in files}.values()
    yield from files


def _content_section(config: StoreConfig, content: Store) -> Section:
    columns = {name: _plain(content.column(name)) for name in _COLUMNS}
    counts = Counter(zip(*(columns[name].tolist() for name in _KINDS), strict=True))
    rows = tuple((*key, counts[key]) for key in sorted(counts))
    table = DataTable("What is stored", ("kind", "instrument", "band", "observations"), rows)
    placed = np.isfinite(columns["s_ra"])
    without = int(np.count_nonzero(~placed))
    text = f"{without} of {len(placed)} observations have no position." if without else ""
    figures: tuple[ReportFigure, ...] = ()
    if config.output.figures and placed.any():
        from skyloom.report.figures.coverage import sky_coverage

        png = sky_coverage(
            "Where the observations lie",
            columns["s_ra"][placed],
            columns["s_dec"][placed],
            np.nan_to_num(columns["radius"][placed]),
            columns["dataproduct_type"][placed],
            content.outlines(np.flatnonzero(placed)),
        )
        figures = (ReportFigure("Coverage", png, "Where the observations lie.", "ingest"),)
    return Section("Content", text, figures, (table,))


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    decoded: NDArray[Any] = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
    return decoded


def _described(path: Path) -> str:
    known = {
        "master.h5": "index of all observations, links to all parts",
        MANIFEST_NAME: "journal: which parts are visible, what could not be stored",
        "config.yaml": "the resolved configuration; running it again stores what is new",
    }
    return known.get(path.name, f"observations of the partition {path.parent.name}")
