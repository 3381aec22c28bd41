"""The stellar continuum of an object's spectra, chunk by chunk."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.continuum import ContinuumFit, ContinuumFlag
from skyloom.core.labels import LabelMap
from skyloom.core.provenance import Step
from skyloom.core.spectra import Spectra
from skyloom.core.templates import TemplateLibrary
from skyloom.errors import AssumptionWarning, InputError
from skyloom.io.starlight import bin_names, read_starlight_continuum, spaxel_names
from skyloom.io.templates.sets import TEMPLATE_SETS, installed_path, load_templates
from skyloom.recipes.chunks import (
    Arrays,
    ChunkPlan,
    Chunks,
    do_chunks,
    from_text,
    read_chunk,
    to_text,
    write_chunk,
)
from skyloom.recipes.folder import file_stamp
from skyloom.recipes.ifs.fit_config import ContinuumSettings
from skyloom.recipes.ifs.inputs import Source
from skyloom.recipes.patterns import fill_pattern
from skyloom.spectral.stellar.fit import fit_continuum

__all__ = [
    "fit_stars",
    "in_full",
    "input_stamps",
    "merged_continuum",
    "read_continuum",
    "spectra_of",
    "spectrum_names",
]

_OF_SPECTRA = ("unit", "wave", "medium", "meta", "history")
_FACTS = ("templates", "backend", "weight_kind")
_SHARED = ("age", "metallicity")
_OPTIONS = (
    "attenuation", "additive_degree", "multiplicative_degree", "half_width", "wave_range", "velocity_range",
    "sigma_start", "sigma_range", "av_range", "clip", "least_snr",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StarsTask:
    """What the chunks of one object share."""

    plan: ChunkPlan
    spectra: Spectra
    settings: ContinuumSettings
    redshift: float
    sky: tuple[tuple[float, float], ...]
    templates: TemplateLibrary | None
    results: tuple[Path, ...]
    threads: int


def spectra_of(spectra: Spectra, rows: slice) -> Spectra:
    """Return some rows of spectra, with what belongs to them."""
    n = spectra.shape[0]

    def part(value: Any) -> Any:
        return value[rows] if isinstance(value, np.ndarray) and value.shape[:1] == (n,) else value

    meta = {
        key: value[rows] if key in ("labels", "n_pixels") and len(value) == n else value
        for key, value in spectra.meta.items()
    }
    lsf = spectra.lsf
    if isinstance(lsf, np.ndarray) and lsf.ndim == 2:
        lsf = lsf[rows]
    modes = tuple(mode._replace(map=part(mode.map)) for mode in spectra.modes)
    return spectra.evolve(
        data=spectra.data[rows],
        variance=spectra.variance[rows],
        mask=spectra.mask[rows],
        flags=part(spectra.flags),
        lsf=lsf,
        modes=modes,
        meta=meta,
    )


# --- fits -----------------------------------------------------------------------------------------------------------


def fit_stars(
    source: Source,
    plan: ChunkPlan,
    labels: LabelMap,
    spectra: Spectra,
    *,
    scheduler: str | None = None,
    overwrite: bool = False,
) -> Chunks:
    """Fit the light of stars in all spectra of an object.

    Raises
    ------
    InputError
        When the templates cannot be used, or results of STARLIGHT are missing.
    """
    settings = source.config.continuum
    task = StarsTask(
        plan,
        spectra,
        settings,
        source.redshift,
        source.config.sky_residuals,
        open_templates(settings),
        starlight_results(source, labels) if settings.chosen == "starlight" else (),
        source.threads,
    )
    chunks = do_chunks(
        plan,
        fit_stars_chunk,
        task,
        lambda done, total: source.tick("continuum", done, total),
        scheduler=scheduler,
        overwrite=overwrite,
    )
    _tell(chunks, plan.n_rows)
    return chunks


def fit_stars_chunk(task: StarsTask, item: str) -> None:
    """Fit the spectra of one chunk and write what was found."""
    rows = task.plan.rows(item)
    spectra = spectra_of(task.spectra, rows)
    with warnings.catch_warnings():
        # Each chunk would say how far the templates reach; `_tell` says it once.
        warnings.filterwarnings("ignore", "the templates cover", AssumptionWarning)
        fit = _fit(task, rows, spectra)
    write_chunk(task.plan.path(item), rows, _packed(fit, len(spectra.history)))


def _fit(task: StarsTask, rows: slice, spectra: Spectra) -> ContinuumFit:
    settings = task.settings
    if settings.chosen == "starlight":
        return read_starlight_continuum(
            task.results[rows], spectra, redshift=task.redshift, templates=task.templates
        )
    assert task.templates is not None  # the configuration requires them
    options: dict[str, Any] = {name: getattr(settings, name) for name in _OPTIONS}
    options |= {"redshift": task.redshift, "sky": task.sky, "threads": task.threads}
    if settings.chosen == "ppxf":
        from skyloom.spectral.stellar.ppxf_backend import fit_ppxf

        return fit_ppxf(spectra, task.templates, **options)
    return fit_continuum(spectra, task.templates, emission=settings.emission, **options)


def _tell(chunks: Chunks, n_rows: int) -> None:
    """Say how many continua need care."""
    flags = np.concatenate([content["flags"] for _, content in chunks]) if n_rows else np.zeros(0, np.int64)
    serious = {
        ContinuumFlag.NO_DATA: "have too few usable channels for a continuum",
        ContinuumFlag.NOT_COVERED: "are not covered by the templates",
        ContinuumFlag.PARTLY_COVERED: "reach beyond the templates; the continuum is taken for constant there",
        ContinuumFlag.FAILED: "got no continuum from the back end",
        ContinuumFlag.NEGATIVE: "show no light of stars",
    }
    for flag, text in serious.items():
        count = int(np.count_nonzero(flags & int(flag)))
        if count:
            warnings.warn(f"{count} of {n_rows} spectra {text}", AssumptionWarning, stacklevel=2)


# --- templates and results of STARLIGHT -----------------------------------------------------------------------------


def open_templates(settings: ContinuumSettings) -> TemplateLibrary | None:
    """Load the templates of a configuration; None where none are named.

    Raises
    ------
    InputError, FileFormatError
        When they are not installed, or cannot be read; the message has the remedy.
    """
    if settings.templates is None:
        return None
    known = settings.templates in TEMPLATE_SETS
    options: dict[str, Any] = {
        "folder": settings.templates_folder,
        "medium": settings.templates_medium,
        "fwhm": settings.templates_fwhm,
    }
    options = {name: value for name, value in options.items() if value is not None}
    return load_templates(settings.templates if known else Path(settings.templates), **options)


def spectrum_names(name: str, labels: LabelMap) -> tuple[str, ...]:
    """Return the names under which the spectra were written for STARLIGHT."""
    if labels.meta.get("method") != "none":
        return bin_names(name, labels.ids.tolist())
    y, x = np.nonzero(labels.labels >= 0)
    order = np.argsort(labels.labels[y, x])
    return spaxel_names(name, x[order].tolist(), y[order].tolist())


def results_folder(source: Source) -> Path:
    """Where the results of STARLIGHT are."""
    assert source.config.continuum.results is not None  # the configuration requires it
    own = source.settings
    return Path(
        fill_pattern(source.config.continuum.results, {"object": own.source or source.name, **own.fields})
    )


def starlight_results(source: Source, labels: LabelMap) -> tuple[Path, ...]:
    """Return the result of STARLIGHT for each spectrum, whether it is there or not.

    Raises
    ------
    InputError
        When none is there.
    """
    folder = results_folder(source)
    paths = tuple(folder / f"{name}.out" for name in spectrum_names(source.name, labels))
    if not any(path.is_file() for path in paths):
        raise InputError(
            f"none of the {len(paths)} results is there, such as {paths[0].name}",
            source=folder,
            field="continuum.results",
            remedy=f"run STARLIGHT on the grids in {source.name}_starlight (block starlight), then run again",
        )
    return paths


def input_stamps(source: Source) -> list[Any]:
    """What tells whether templates and results are still the same."""
    settings = source.config.continuum
    places: list[Path] = []
    if settings.templates is not None:
        known = settings.templates in TEMPLATE_SETS
        places.append(installed_path(settings.templates) if known else Path(settings.templates))
    if settings.results is not None:
        places.append(results_folder(source))
    files = [
        path
        for place in places
        for path in (sorted(place.iterdir()) if place.is_dir() else [place])
        if path.is_file()
    ]
    return [file_stamp(path) for path in files]


# --- chunks as files ------------------------------------------------------------------------------------------------


def _packed(fit: ContinuumFit, n_before: int) -> Arrays:
    """Return what has to be kept of a fit, as arrays; what comes from the spectra is not."""
    arrays: Arrays = {}
    for item in fields(fit):
        value = getattr(fit, item.name)
        if isinstance(value, np.ndarray) and item.name not in _OF_SPECTRA:
            planes = item.name in ("model", "variance", "modes")
            arrays[item.name] = value.astype(np.float32, copy=False) if planes else value
    arrays["facts"] = to_text(
        {
            **{name: getattr(fit, name) for name in _FACTS},
            "reasons": list(fit.reasons),
            "steps": [[made.name, made.version, dict(made.parameters)] for made in fit.history[n_before:]],
        }
    )
    return arrays


def read_continuum(path: Path, spectra: Spectra) -> ContinuumFit:
    """Read the continua of one chunk; ``spectra`` are those of its rows."""
    content = read_chunk(path)
    content.pop("rows")
    return _unpacked(content, spectra)


def _unpacked(content: dict[str, NDArray[Any]], spectra: Spectra) -> ContinuumFit:
    facts = from_text(content.pop("facts"))
    steps = tuple(Step(*made) for made in facts["steps"])
    known: dict[str, Any] = {**content, **{name: facts[name] for name in _FACTS}}
    return ContinuumFit(
        **known,
        unit=spectra.unit,
        wave=spectra.wave,
        medium=spectra.medium,
        reasons=tuple(facts["reasons"]),
        meta=dict(spectra.meta),
        history=(*spectra.history, *steps),
    )


def merged_continuum(chunks: Chunks, spectra: Spectra) -> ContinuumFit:
    """Put the continua of all chunks together, without their modes, which only fits of lines need."""
    planes = {name: np.empty(spectra.shape, np.float32) for name in ("model", "variance")}
    parts: dict[str, list[NDArray[Any]]] = {}
    reasons: list[str] = []
    facts: dict[str, Any] = {}
    for rows, content in chunks:
        facts = from_text(content.pop("facts"))
        content.pop("modes", None)
        for name, plane in planes.items():
            plane[rows] = content.pop(name)
        for name, values in content.items():
            parts.setdefault(name, []).append(values)
        reasons += facts["reasons"]
    whole = {name: values[0] if name in _SHARED else np.concatenate(values) for name, values in parts.items()}
    return _unpacked({**planes, **whole, "facts": to_text({**facts, "reasons": reasons})}, spectra)


def in_full(fit: ContinuumFit) -> ContinuumFit:
    """Return the continuum for fits of lines: goes on as a constant beyond the templates, 0 where there is none.

    Lines out there are fitted on their own polynomials; without this they would be lost.
    """
    unknown = ~np.isfinite(fit.model)
    if not unknown.any():
        return fit
    model, variance = np.array(fit.model), np.array(fit.variance)
    modes = None if fit.modes is None else np.nan_to_num(fit.modes)
    channels = np.arange(model.shape[1])
    for row in np.flatnonzero(unknown.any(axis=1)):
        known = ~unknown[row]
        for plane in (model, variance):
            plane[row] = np.interp(channels, channels[known], plane[row, known]) if known.any() else 0.0
    return fit.evolve(model=model, variance=np.nan_to_num(variance), modes=modes)
