"""Ifs: integral-field cubes to bins of equal signal-to-noise ratio, their spectra, continua, lines and maps.

`ifs` treats each object by itself with `treat_object`, which reads like the method section of a paper: the noise is
measured, lines are mapped, spaxels are binned, spectra are extracted, stars and lines are fitted to them, and maps,
tables, figures and a report are made. Every
step leaves a file, so that a run goes on where it stopped and repeats only what a change concerns.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import QTable, hstack
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.core.spectra import Spectra
from skyloom.core.threads import stream_blocks
from skyloom.errors import AssumptionWarning, InputError
from skyloom.recipes.folder import open_folder, write_config
from skyloom.recipes.ifs.bins import make_bins, region_columns
from skyloom.recipes.ifs.config import IfsConfig, Line
from skyloom.recipes.ifs.fits import do_fits
from skyloom.recipes.ifs.inputs import Source, open_source, read_velocity
from skyloom.recipes.ifs.noise import NoiseModel, find_noise
from skyloom.recipes.ifs.products import (
    LineMap,
    Maps,
    ObjectProduct,
    Record,
    gather,
    object_stages,
    write_summary,
)
from skyloom.recipes.ifs.report import build_report, draw_figures, science_checks
from skyloom.recipes.ifs.requests import resample_cube, write_starlight
from skyloom.recipes.reporting import failures_of, total_of, write_checks
from skyloom.recipes.resources import Meter
from skyloom.recipes.result import ItemFailure, Progress, RunResult, StageProgress, tell_stage, treated
from skyloom.report.html import write_report
from skyloom.spectral.axes.slabs import merge_slabs
from skyloom.spectral.axes.widths import LIGHT
from skyloom.spectral.bins.contents import measure_bins
from skyloom.spectral.bins.extract import extract_spectra
from skyloom.spectral.signal.snr import (
    channels_needed,
    continuum_snr,
    first_velocity_map,
    line_snr,
    spectra_line_snr,
)

__all__ = ["Run", "extract_bins", "ifs", "map_lines", "measure_table", "treat_object"]

SLAB_BYTES = 1 << 26  # More in one piece is no faster, and shows no progress.
SLAB_COPIES = 3.0  # What a slab in work takes, over the slab itself.
PEAK_WINDOWS = {"half_width": "25 px", "continuum": ("35 px", "100 px")}


@dataclass(frozen=True, slots=True)
class Run:
    """What the objects of a run share.

    Attributes
    ----------
    config : IfsConfig
    threads : int
        For each object.
    memory : float
        Bytes, for each object.
    overwrite : bool
        Do finished steps again.
    progress : callable or None
        Told the stage an object is at; only where objects are treated in the process of the caller.
    scheduler : str or None
        Address of a Dask scheduler whose workers fit chunks of spectra.
    """

    config: IfsConfig
    threads: int
    memory: float
    overwrite: bool = False
    progress: Progress | None = None
    scheduler: str | None = None

    def tick(self, item: str, stage: str, done: int, total: int) -> None:
        """Tell that ``done`` of ``total`` parts of a stage are finished."""
        tell_stage(self.progress, self.config.object_names(), item, StageProgress(stage, done, total))


def ifs(
    config: IfsConfig,
    *,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Run the recipe.

    Parameters
    ----------
    config : IfsConfig
        Checked configuration; ``config.output.directory`` receives a folder for each object.
    scheduler : str, optional
        Address of a Dask scheduler whose workers treat the objects; by default they are treated here, in processes
        where there are several and ``config.workers`` allows; workers beyond their number become threads.
    overwrite : bool
        Do finished steps again.
    progress : callable, optional
        Called after each object, and for each stage of an object that is treated in this process.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        When the folder of the products cannot be written to.
    """
    directory = open_folder(Path(config.output.directory))
    names = config.object_names()
    config_file = write_config(config, directory)
    processes = min(config.workers, len(names))
    run = Run(config, max(1, config.workers // processes), config.memory_bytes / processes, overwrite)
    # One object stays here, and its chunks of spectra are spread; several are spread as a whole.
    spread = scheduler if len(names) > 1 else None
    if processes == 1 and spread is None:
        run = replace(run, progress=progress, scheduler=scheduler)
    with Meter() as meter:
        outcomes = treated(treat_object, run, names, workers=processes, scheduler=spread, progress=progress)
        products = [outcome.result for outcome in outcomes if outcome.result is not None]
        checks = science_checks(products, config.checks)
        files = (
            *(path for item in products for path in item.files),
            *write_summary(products, directory),
            *write_checks(checks, directory),
            config_file,
        )
    resumed = sum(item.kept for item in products)
    report = directory / "report.html" if config.output.report else None
    if report is not None:
        total = total_of(meter, len(names), resumed, processes)
        write_report(build_report(config, outcomes, checks, files, total), report)
    return RunResult(
        recipe="ifs",
        directory=directory,
        products=files,
        resumed=resumed,
        failures=tuple(ItemFailure(*failure) for failure in failures_of(outcomes).items()),
        checks=checks,
        report=report,
    )


def treat_object(run: Run, name: str) -> ObjectProduct:
    """Take an object from its cube to maps of its lines; what an earlier run has done is not done again.

    Raises
    ------
    InputError
        When the cube, or something else of the object, cannot be used.
    """
    source = open_source(
        run.config,
        name,
        threads=run.threads,
        memory=run.memory,
        tick=lambda stage, done, total: run.tick(name, stage, done, total),
    )
    stages, do = object_stages(source, overwrite=run.overwrite)
    noise = do("noise", find_noise, source)
    maps = do("maps", map_lines, source, noise)
    bins = do("bins", make_bins, source, maps)
    spectra = do("spectra", extract_bins, source, noise, bins)
    table = do("table", measure_table, source, maps, bins, spectra)
    # What came before is none the worse when one of these cannot be made; the run says so in the end.
    fits: Record | None = None
    problems: dict[str, str] = {}
    if run.config.resampled_cube is not None:
        with noted(problems, "resampled cube"):
            do("resampled", resample_cube, source, noise)
    if run.config.starlight is not None:
        with noted(problems, "starlight"):
            do("starlight", write_starlight, source, bins, spectra)
    if run.config.output.figures:
        do("figures", draw_figures, source, noise, maps, bins, spectra, table)
    if run.config.lines != "none":
        with noted(problems, "fits"):
            fits = do_fits(source, stages, noise, bins, spectra, scheduler=run.scheduler)
    return gather(source, stages, noise, bins, table, fits, problems)


@contextmanager
def noted(problems: dict[str, str], part: str) -> Iterator[None]:
    """Keep the message of bad input as the problem of one part of an object."""
    try:
        yield
    except InputError as error:
        problems[part] = str(error)


# --- maps -----------------------------------------------------------------------------------------------------------


def map_lines(source: Source, noise: NoiseModel) -> Maps:
    """Map signal, noise and S/N of the lines, reading only the channels that each needs.

    Raises
    ------
    InputError
        When the line that the bins are made for cannot be measured; other lines are left out with a note.
    """
    settings = source.config.snr
    velocity = velocities(source, noise)
    lines: dict[str, LineMap] = {}
    if settings.continuum_window is not None:
        lines["continuum"] = continuum_map(source, noise)
    main = line_map(source, noise, settings.line, velocity)
    lines = (
        {**lines, line_name(settings.line): main}
        if settings.method == "continuum"
        else {line_name(settings.line): main, **lines}
    )
    for line in settings.also or ():
        try:
            lines.setdefault(line_name((line,)), line_map(source, noise, (line,), velocity))
        except InputError as error:
            warnings.warn(f"no map of {line}: {error}", AssumptionWarning, stacklevel=2)
    return Maps(lines, velocity)


def line_map(source: Source, noise: NoiseModel, line: tuple[Line, ...], velocity: Image | None) -> LineMap:
    """Measure one line, or the sum of several."""
    settings = source.config.snr
    method = "window" if settings.method == "continuum" else settings.method
    options: dict[str, Any] = {"half_width": settings.half_width, "continuum": settings.continuum}
    if method == "peak":
        # `channels_needed` does not know that a maximum is looked for further out.
        options = {key: value or PEAK_WINDOWS[key] for key, value in options.items()}
    if settings.sigma is not None:
        options["sigma"] = settings.sigma
    channels = channels_needed(
        source.cube.wave, source.medium, line, _redshifts(source, velocity), lsf=source.cube.lsf, **options
    )
    cube = prepared(source, noise, channels)
    if velocity is not None and method != "peak":
        options["velocity"] = velocity
    found = line_snr(cube, line, source.redshift, method, workers=source.threads, **options)
    return LineMap(found.signal, found.noise, found.snr)


def continuum_map(source: Source, noise: NoiseModel) -> LineMap:
    """Measure the continuum in a window of rest wavelengths."""
    window = source.config.snr.continuum_window
    assert window is not None  # asked for by whoever calls this
    low, high = (value * (1.0 + source.redshift) for value in window)
    inside = np.flatnonzero((source.cube.wave >= low) & (source.cube.wave <= high))
    if inside.size == 0:
        wave = source.cube.wave
        raise InputError(
            f"the window runs from {low:.1f} to {high:.1f} A as observed; the axis covers {wave[0]:.1f} to"
            f" {wave[-1]:.1f} A",
            source=source.files.cube,
            field="snr.continuum_window",
            remedy="give [from, to] in rest wavelengths inside it",
        )
    channels = slice(max(0, inside[0] - 2), inside[-1] + 3)
    cube = prepared(source, noise, channels)
    found = continuum_snr(cube, window, redshift=source.redshift, workers=source.threads)
    return LineMap(found.signal, found.noise, found.snr)


def velocities(source: Source, noise: NoiseModel) -> Image | None:
    """Where the line is in each spaxel, km/s: from a first pass, a file, or not known."""
    settings = source.config.snr
    if settings.velocity_source == "none":
        return None
    if source.files.velocity is not None:
        return read_velocity(source.files.velocity, source.cube)
    line = settings.velocity_line or settings.line[0]
    channels = channels_needed(
        source.cube.wave,
        source.medium,
        line,
        source.redshift,
        lsf=source.cube.lsf,
        max_velocity=settings.max_velocity,
    )
    cube = prepared(source, noise, channels)
    return first_velocity_map(
        cube, line, source.redshift, max_velocity=settings.max_velocity, workers=source.threads
    )


def prepared(source: Source, noise: NoiseModel, channels: slice) -> Cube:
    """Read channels, with the noise that was found and without the Milky Way's extinction."""
    cube: Cube = source.deredden(noise.apply(source.read(channels), channels))
    return cube


def line_name(line: tuple[Line, ...]) -> str:
    """Name a line, or the sum of several, in files: ``SII6716+SII6730``."""
    return "+".join(item if isinstance(item, str) else f"{item:g}" for item in line)


def _redshifts(source: Source, velocity: Image | None) -> float | NDArray[np.float64]:
    """The redshifts that occur in the field."""
    if velocity is None or not velocity.valid.any():
        return source.redshift
    return (1.0 + source.redshift) * (1.0 + velocity.data[velocity.valid] / LIGHT) - 1.0


# --- spectra --------------------------------------------------------------------------------------------------------


def extract_bins(source: Source, noise: NoiseModel, labels: LabelMap) -> Spectra:
    """Extract the spectra of the bins, slab by slab of channels, and take the Milky Way's extinction off them.

    That is linear in each channel, so it comes to the same as taking it off the cube.

    Raises
    ------
    InputError
        When the spectra alone would take more than the memory that the configuration allows.
    """
    slabs = list(source.cube.slabs(_slab_bytes(source, labels)))
    parts: list[Spectra] = []

    def extract(channels: slice) -> Spectra:
        cube = noise.apply(source.read(channels), channels)
        return extract_spectra(cube, labels, mode=source.config.extraction.mode)

    for part in stream_blocks(extract, slabs, source.threads):
        parts.append(part)
        source.tick("spectra", len(parts), len(slabs))
    spectra: Spectra = source.deredden(merge_slabs(parts))
    ranges = [list(item) for item in source.config.sky_residuals]
    return spectra.evolve(meta={**spectra.meta, "sky_residuals": ranges})


def _slab_bytes(source: Source, labels: LabelMap) -> int:
    n_wave, n_bins = source.cube.shape[0], labels.ids.size
    result = 2.0 * 11 * n_bins * n_wave  # Data, variance, mask and flags, while slabs are joined.
    if result > source.memory:
        raise InputError(
            f"the spectra of {n_bins} bins take {result / 1e9:.2f} GB, and {source.memory / 1e9:.2f} GB are allowed",
            field="memory",
            remedy="allow more, ask for fewer bins (binning.minimum_snr), or use fewer workers",
        )
    room = max(source.memory - result, 0.1 * source.memory)
    return int(max(1, min(SLAB_BYTES, room / (SLAB_COPIES * source.threads))))


def measure_table(source: Source, maps: Maps, labels: LabelMap, spectra: Spectra) -> QTable:
    """List the bins: place, size, S/N as the map claims it, and the same in their spectra, claimed and measured."""
    table = measure_bins(maps.main.signal, labels)
    if source.config.binning.method == "regions":
        table = hstack([table, region_columns(source, maps)])
    settings = source.config.snr
    velocity = 0.0 if maps.velocity is None else mean_of_bins(maps.velocity, labels)
    try:
        own = spectra_line_snr(
            spectra,
            settings.line,
            source.redshift,
            half_width=settings.half_width,
            continuum=settings.continuum,
            velocity=velocity,
            workers=source.threads,
        )
    except InputError as error:
        # A continuum can be binned where no line is in sight.
        warnings.warn(f"no line in the spectra of bins: {error}", AssumptionWarning, stacklevel=2)
        return table
    for name in ("signal", "noise", "snr"):
        own.rename_column(name, f"spectrum_{name}")
    return hstack([table, own])


def mean_of_bins(image: Image, labels: LabelMap) -> NDArray[np.float64]:
    """Mean of a map over the usable pixels of each bin; 0 where there are none."""
    places = np.searchsorted(labels.ids, labels.labels[used := (labels.labels >= 0) & image.valid])
    n = labels.ids.size
    total = np.bincount(places, weights=image.data[used].astype(np.float64), minlength=n)
    return np.asarray(total / np.maximum(np.bincount(places, minlength=n), 1))
