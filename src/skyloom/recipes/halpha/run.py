"""Halpha: a narrow-band image of HST less its continuum, anchored to MUSE.

`halpha` treats each object by itself with `treat_object`, which reads like the method section of a paper: cosmic rays
are removed, HST is registered to MUSE and brought to its PSF, bands and line are anchored there, and what was fitted is
applied to the images of HST, which are written as they are made. Every step leaves files, so that a run goes on where
it stopped and repeats only what a change concerns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from skyloom.core.execution import Outcome
from skyloom.errors import InputError
from skyloom.recipes.folder import open_folder, write_config
from skyloom.recipes.halpha.alignment import align_bands
from skyloom.recipes.halpha.anchor import anchor_bands
from skyloom.recipes.halpha.cleaning import Hst, find_cosmic_rays, find_stars
from skyloom.recipes.halpha.config import HalphaConfig
from skyloom.recipes.halpha.dust import what_muse_saw
from skyloom.recipes.halpha.images import make_images
from skyloom.recipes.halpha.inputs import check_inputs, open_source
from skyloom.recipes.halpha.products import ObjectProduct
from skyloom.recipes.halpha.report import build_report, science_checks
from skyloom.recipes.halpha.stages import draw_images, gather, judge, object_stages
from skyloom.recipes.reporting import failures_of, total_of, write_checks
from skyloom.recipes.resources import Meter
from skyloom.recipes.result import ItemFailure, Progress, RunResult, StageProgress, tell_stage, treated
from skyloom.report.html import write_report

__all__ = ["Run", "halpha", "treat_object"]


@dataclass(frozen=True, slots=True)
class Run:
    """What the objects of a run share.

    Attributes
    ----------
    config : HalphaConfig
    overwrite : bool
        Do finished steps again.
    progress : callable or None
        Told the stage an object is at; only where objects are treated in the process of the caller.
    """

    config: HalphaConfig
    overwrite: bool = False
    progress: Progress | None = None

    def tick(self, item: str, stage: str, done: int, total: int) -> None:
        """Tell that ``done`` of ``total`` parts of a stage are finished."""
        tell_stage(self.progress, self.config.object_names(), item, StageProgress(stage, done, total))


def halpha(
    config: HalphaConfig,
    *,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Run the recipe.

    Parameters
    ----------
    config : HalphaConfig
        Checked configuration; ``config.output.directory`` receives a folder for each object.
    scheduler : str, optional
        Address of a Dask scheduler whose workers treat the objects; by default ``config.workers`` processes here.
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
        When the folder of the products cannot be written to, or the only object of the run cannot be treated.
    """
    check_inputs(config)
    directory = open_folder(Path(config.output.directory))
    names = config.object_names()
    config_file = write_config(config, directory)
    processes = min(config.workers, len(names))
    spread = scheduler if len(names) > 1 else None
    run = Run(config, overwrite)
    if processes == 1 and spread is None:
        run = replace(run, progress=progress)
    with Meter() as meter:
        outcomes = treated(treat_object, run, names, workers=processes, scheduler=spread, progress=progress)
        _raise_if_alone(outcomes)
        products = [outcome.result for outcome in outcomes if outcome.result is not None]
        checks = science_checks(products, config.checks)
        files = (
            *(path for item in products for path in item.files),
            *write_checks(checks, directory),
            config_file,
        )
    resumed = sum(item.kept for item in products)
    report = directory / "report.html" if config.output.report else None
    if report is not None:
        total = total_of(meter, len(names), resumed, processes)
        write_report(build_report(config, outcomes, checks, files, total), report)
    return RunResult(
        recipe="halpha",
        directory=directory,
        products=files,
        resumed=resumed,
        failures=tuple(ItemFailure(*failure) for failure in failures_of(outcomes).items()),
        checks=checks,
        report=report,
    )


def _raise_if_alone(outcomes: list[Outcome[ObjectProduct]]) -> None:
    """A run of one object that cannot be treated is bad input, not one failure among many."""
    if len(outcomes) == 1 and outcomes[0].failure and not outcomes[0].failure.startswith("internal error"):
        raise InputError(outcomes[0].failure)


def treat_object(run: Run, name: str) -> ObjectProduct:
    """Take an object from its images to its map of Halpha; what an earlier run has done is not done again.

    Raises
    ------
    InputError
        When an image, or something else of the object, cannot be used.
    """
    source = open_source(run.config, name, tick=lambda *what: run.tick(name, *what))
    stages, do = object_stages(source, overwrite=run.overwrite)
    hst = Hst(source)
    rays = do("cosmic_rays", find_cosmic_rays, source, hst)
    stars = do("stars", find_stars, source, hst)
    hst.rays, hst.star_map = rays.value, stars.value
    muse = do("muse", what_muse_saw, source)
    aligned = do("alignment", align_bands, source, hst, muse)
    anchors = do("anchors", anchor_bands, source, hst, aligned, muse)
    images = do("images", make_images, source, hst, muse, aligned, anchors)
    if run.config.output.figures:
        do("figures", draw_images, source, images)
    try:
        judged, problem = do("qa", judge, source, images), ""
    except InputError as error:
        # The images are none the worse when they cannot be judged; the run says so in the end.
        judged, problem = None, str(error)
    return gather(source, stages, judged, problem)
