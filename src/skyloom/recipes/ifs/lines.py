"""The lines in an object's spectra, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.line_fit import LineFit, LineFlag
from skyloom.core.linelist import Line, LineList
from skyloom.core.provenance import Step
from skyloom.core.spectra import Spectra
from skyloom.recipes.chunks import Arrays, ChunkPlan, Chunks, do_chunks, from_text, to_text, write_chunk
from skyloom.recipes.folder import file_stamp
from skyloom.recipes.ifs.continuum import in_full, read_continuum, spectra_of
from skyloom.recipes.ifs.fit_config import LineFitSettings
from skyloom.recipes.ifs.inputs import Source
from skyloom.spectral.lines.linefit import fit_lines
from skyloom.spectral.noise.sky_residuals import sky_residual_mask

__all__ = ["fit_all_lines", "list_stamp", "merged_lines", "unfitted"]

SINGLE_LINE = 60.0  # A; wider ranges are bands of telluric absorption or of many sky lines.
OPTIONS = (
    "components", "groups", "broad", "intervals", "window", "degree", "velocity_range", "sigma_range",
    "broad_sigma_range", "kinematics_snr",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LinesTask:
    """What the chunks of one object share."""

    plan: ChunkPlan
    spectra: Spectra
    settings: LineFitSettings
    redshift: float
    sky: tuple[tuple[float, float], ...]
    continuum: tuple[Path, ...]
    threads: int


def fit_all_lines(
    source: Source,
    plan: ChunkPlan,
    spectra: Spectra,
    continuum: Chunks | None,
    *,
    scheduler: str | None = None,
    overwrite: bool = False,
) -> Chunks:
    """Fit the lines in all spectra of an object.

    Raises
    ------
    InputError
        When no line falls on the axis, or the line-spread function is not known.
    """
    settings = source.config.lines
    assert isinstance(settings, LineFitSettings)  # not called where lines are not wanted
    task = LinesTask(
        plan,
        spectra,
        settings,
        source.redshift,
        chosen_sky(source.config.sky_residuals, settings.sky),
        () if continuum is None else continuum.paths,
        source.threads,
    )
    return do_chunks(
        plan,
        fit_lines_chunk,
        task,
        lambda done, total: source.tick("lines", done, total),
        scheduler=scheduler,
        overwrite=overwrite,
    )


def chosen_sky(ranges: Sequence[tuple[float, float]], kind: str) -> tuple[tuple[float, float], ...]:
    """Return the ranges that are left out of the fits of lines."""
    if kind == "none":
        return ()
    return tuple(item for item in ranges if kind == "all" or item[1] - item[0] <= SINGLE_LINE)


def fit_lines_chunk(task: LinesTask, item: str) -> None:
    """Fit the lines of one chunk and write what was found."""
    rows, settings = task.plan.rows(item), task.settings
    spectra = spectra_of(task.spectra, rows)
    continuum = None
    if task.continuum:
        continuum = in_full(read_continuum(task.continuum[task.plan.items.index(item)], spectra))
    if task.sky:
        spectra = spectra.evolve(mask=spectra.mask | sky_residual_mask(spectra, task.sky))
    options: dict[str, Any] = {name: getattr(settings, name) for name in OPTIONS}
    fit = fit_lines(
        spectra,
        settings.lines(),
        task.redshift,
        continuum,
        threads=task.threads,
        **options,
    )
    write_chunk(task.plan.path(item), rows, _packed(fit, len(spectra.history)))


def list_stamp(settings: LineFitSettings) -> Any:
    """What tells whether a user's list of lines is still the same."""
    path = Path(settings.list) if isinstance(settings.list, str) else None
    return file_stamp(path) if path is not None and path.is_file() else None


# --- chunks as files ------------------------------------------------------------------------------------------------


def _packed(fit: LineFit, n_before: int) -> Arrays:
    table = fit.table
    # One array per kind instead of one per column, of which there are hundreds.
    whole = [name for name in table.colnames if np.asarray(table[name]).dtype.kind in "iub"]
    plain = [name for name in table.colnames if np.asarray(table[name]).dtype.kind == "f"]
    return {
        "model": fit.model.astype(np.float32, copy=False),
        "baseline": fit.baseline.astype(np.float32, copy=False),
        "redshift": fit.redshift,
        "numbers": np.stack([np.asarray(table[name], dtype=np.int64) for name in whole], axis=1),
        "values": np.stack([u.Quantity(table[name]).value for name in plain], axis=1),
        "facts": to_text(
            {
                "order": table.colnames,
                "numbers": whole,
                "values": {name: u.Quantity(table[name]).unit.to_string() for name in plain},
                "lines": [asdict(line) for line in fit.lines],
                "steps": [
                    [made.name, made.version, dict(made.parameters)] for made in fit.history[n_before:]
                ],
            }
        ),
    }


def merged_lines(chunks: Chunks, spectra: Spectra) -> LineFit:
    """Put the lines of all chunks together."""
    planes = {name: np.empty(spectra.shape, np.float32) for name in ("model", "baseline")}
    numbers, values, redshift = [], [], []
    facts: dict[str, Any] = {}
    for rows, content in chunks:
        for name, plane in planes.items():
            plane[rows] = content[name]
        numbers.append(content["numbers"])
        values.append(content["values"])
        redshift.append(content["redshift"])
        facts = from_text(content["facts"])
    whole, plain = np.concatenate(numbers), np.concatenate(values)
    columns: dict[str, Any] = {name: whole[:, place] for place, name in enumerate(facts["numbers"])}
    for place, (name, unit) in enumerate(facts["values"].items()):
        columns[name] = np.ascontiguousarray(plain[:, place]) * u.Unit(unit)
    table = QTable({name: columns[name] for name in facts["order"]})
    steps = tuple(Step(*made) for made in facts["steps"])
    lines = LineList(tuple(Line(**{**line, **_pairs(line)}) for line in facts["lines"]))
    return LineFit(
        table, planes["model"], planes["baseline"], spectra.unit, spectra.wave, spectra.medium, lines,
        np.concatenate(redshift), dict(spectra.meta), (*spectra.history, *steps),
    )  # fmt: skip


def _pairs(line: dict[str, Any]) -> dict[str, Any]:
    """What JSON has made lists of, as the tuples that it was."""
    return {name: None if line[name] is None else tuple(line[name]) for name in ("tied", "bounds")}


def unfitted(fit: LineFit, spectra: Spectra) -> list[tuple[int, str]]:
    """Return the bins in which no line at all could be fitted, each with the reason."""
    flags = [name for name in fit.table.colnames if name.endswith("_flag")]
    missing: NDArray[np.bool_] = np.ones(len(fit), dtype=bool)
    for name in flags:
        missing &= (np.asarray(fit.table[name], dtype=np.int64) & int(LineFlag.NOT_COVERED)) > 0
    found = []
    for row in np.flatnonzero(missing):
        empty = bool(spectra.mask[row].all())
        reason = "no usable channel" if empty else "no usable channel at any line"
        found.append((int(fit.table["id"][row]), reason))
    return found
