"""Store: files into a store, which is made where there is none, and a report of what is in it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import ConfigError
from skyloom.recipes.config import resolved_yaml
from skyloom.recipes.folder import write_config
from skyloom.recipes.result import ItemFailure, Progress, RunResult
from skyloom.recipes.store.config import StoreConfig
from skyloom.report.html import write_report
from skyloom.report.model import DataTable, Product, ReportFigure, RunReport, Section
from skyloom.store.files.folder import is_store, make_folder, read_settings
from skyloom.store.files.manifest import MANIFEST_NAME, Manifest
from skyloom.store.ingest.run import IngestResult, ingest
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
    clock = time.process_time()
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
    timings = {"ingest (in this process)": time.process_time() - clock}
    parts = tuple(directory / part.name for part in result.parts)
    products = (*parts, directory / "master.h5", directory / MANIFEST_NAME, config_file)
    report = directory / "report.html" if config.output.report else None
    if report is not None:
        write_report(build_report(config, result, products, timings), report)
    return RunResult(
        recipe="store",
        directory=directory,
        products=products,
        resumed=len(result.skipped),
        failures=tuple(ItemFailure(failure.source, failure.reason) for failure in result.failures),
        report=report,
        summary=(
            f"{len(result.stored)} new observations in {len(result.parts)} parts,"
            f" {len(result.skipped)} files were stored already, {len(result.failures)} failed"
        ),
    )


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
    config: StoreConfig, result: IngestResult, products: tuple[Path, ...], timings: dict[str, float]
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
        sections=(_content_section(config, content), *_notes_section(result)),
        products=tuple(Product(path, _described(path)) for path in products),
        failures=failures,
        timings=timings,
    )


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
        figures = (ReportFigure("Coverage", png),)
    return Section("Content", text, figures, (table,))


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    decoded: NDArray[Any] = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
    return decoded


def _notes_section(result: IngestResult) -> tuple[Section, ...]:
    if not result.notes:
        return ()
    table = DataTable("Notes", ("file", "note"), result.notes[:SHOWN_FAILURES])
    return (Section("Notes", "What had to be repaired or assumed.", tables=(table,)),)


def _described(path: Path) -> str:
    known = {
        "master.h5": "index of all observations, links to all parts",
        MANIFEST_NAME: "journal: which parts are visible, what could not be stored",
        "config.yaml": "the resolved configuration; running it again stores what is new",
    }
    return known.get(path.name, f"observations of the partition {path.parent.name}")
