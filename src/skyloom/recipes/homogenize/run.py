"""Homogenize: many objects in many bands, brought to one PSF, one grid, without sky, masked, with honest errors.

`homogenize` prepares what all objects share (the PSF of each band, the target PSF, the noise of each band), treats
each object by itself with `homogenize_object`, and gathers the photometry, the checks and the report.
"""

from __future__ import annotations

from pathlib import Path

from skyloom.core.execution import Outcome
from skyloom.core.image import Image
from skyloom.core.noise import add_source_poisson, apply_noise
from skyloom.core.psf import PSF
from skyloom.errors import InputError
from skyloom.imaging.grids.reproject import reproject
from skyloom.imaging.measure.masks import ObjectMask, apply_object_mask
from skyloom.imaging.psfs.convolve import match_psf
from skyloom.imaging.sky.background import subtract_background
from skyloom.recipes.homogenize.config import BandFiles, HomogenizeConfig
from skyloom.recipes.homogenize.inputs import (
    Grid,
    Preparation,
    object_mask,
    prepare,
    read_image,
    target_grid,
)
from skyloom.recipes.homogenize.line_model import line_model_product, read_line_map, write_line_models
from skyloom.recipes.homogenize.products import (
    BandProduct,
    ObjectProduct,
    finished_product,
    measure_band,
    noise_table,
    object_steps,
    open_directory,
    photometry_table,
    psf_table,
    write_config,
    write_product,
    write_steps,
    write_table,
)
from skyloom.recipes.homogenize.report import build_report, science_checks
from skyloom.recipes.reporting import failures_of, total_of, write_checks
from skyloom.recipes.resources import Meter, StepClock
from skyloom.recipes.result import ItemFailure, Progress, RunResult, treated
from skyloom.report.html import write_report
from skyloom.report.model import Check

__all__ = ["homogenize", "homogenize_band", "homogenize_object"]


def homogenize(
    config: HomogenizeConfig,
    *,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Run the recipe.

    Parameters
    ----------
    config : HomogenizeConfig
        Checked configuration; ``config.output.directory`` receives the products.
    scheduler : str, optional
        Address of a Dask scheduler whose workers treat the objects; by default ``config.workers`` processes here.
    overwrite : bool
        Do finished objects again.
    progress : callable, optional
        Called after each object.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        When nothing can be done: no PSF for a band, no readable object for the noise, or products of another
        configuration in the directory.
    """
    directory = open_directory(config)
    names = config.object_names()
    with Meter() as meter:
        finished = {} if overwrite else _finished(config, directory, names)
        write_config(config, directory)
        report = directory / "report.html"
        wanting = config.output.report and not report.exists()
        clock = StepClock()
        preparation = None
        if wanting or len(finished) < len(names):
            with clock.step("preparation"):
                preparation = prepare(config)
        outcomes = treated(
            homogenize_object,
            preparation,
            names,
            workers=config.workers,
            scheduler=scheduler,
            progress=progress,
            finished=finished.values(),
        )
        products = [outcome.result for outcome in outcomes if outcome.result is not None]
        checks = science_checks(products, config.checks)
        files = _write_tables(directory, products, checks, preparation)
    if preparation is not None and config.output.report:
        steps = (*clock.records(), *object_steps(directory, products, set(finished)))
        total = total_of(meter, len(names), len(finished), config.workers)
        write_report(build_report(config, outcomes, preparation, checks, files, steps, total), report)
    return RunResult(
        recipe="homogenize",
        directory=directory,
        products=files,
        resumed=len(finished),
        failures=tuple(ItemFailure(*failure) for failure in failures_of(outcomes).items()),
        checks=checks,
        report=report if report.exists() else None,
    )


def _finished(
    config: HomogenizeConfig, directory: Path, names: tuple[str, ...]
) -> dict[str, Outcome[ObjectProduct]]:
    products = {name: finished_product(config, directory, name) for name in names}
    return {name: Outcome(name, product) for name, product in products.items() if product is not None}


def _write_tables(
    directory: Path,
    products: list[ObjectProduct],
    checks: tuple[Check, ...],
    preparation: Preparation | None,
) -> tuple[Path, ...]:
    files = [path for product in products for path in product.files]
    if products:
        files += write_table(photometry_table(products), directory, "photometry")
        files += write_line_models(products, directory)
    stars = None if preparation is None else psf_table(preparation)
    if stars is not None:
        files += write_table(stars, directory, "stars")
    noise = None if preparation is None else noise_table(preparation)
    if noise is not None:
        files += write_table(noise, directory, "noise")
    files += write_checks(checks, directory)
    return (*files, directory / "config.yaml")


def homogenize_object(preparation: Preparation, name: str) -> ObjectProduct:
    """Bring all bands of one object to the target and write its product.

    Raises
    ------
    InputError
        When a file of the object cannot be used; nothing is written then.
    """
    config, clock = preparation.config, StepClock()
    with clock.step("reading"):
        files = config.object_files(name)
        line_map = None if config.line_model is None else read_line_map(config.line_model, files)
        natives = {item.band: read_image(config.bands[item.band], item) for item in files.bands}
        grid = target_grid(config, files, natives)
        mask = object_mask(config, files, grid)
        target = preparation.target_on(grid, natives)
    bands = {
        item.band: homogenize_band(preparation, item, natives[item.band], grid, target, mask, clock)
        for item in files.bands
    }
    model = None
    if line_map is not None:
        with clock.step("line model"):
            matched = {band: item.matched for band, item in bands.items()}
            model = line_model_product(config, name, matched, line_map)
    with clock.step("writing"):
        product = write_product(preparation, files, mask, bands, model)
    write_steps(Path(config.output.directory), name, clock.records())
    return product


def homogenize_band(
    preparation: Preparation,
    files: BandFiles,
    raw: Image,
    grid: Grid,
    target: PSF,
    mask: ObjectMask,
    clock: StepClock | None = None,
) -> BandProduct:
    """Treat one image: sky, noise, grid, PSF, and only then the mask, so that no light is lost at its rim."""
    clock = clock or StepClock()
    config, band = preparation.config, files.band
    with clock.step("sky and noise"):
        sky = preparation.sky_of(files, raw)
        noise = preparation.noise_of(band, raw, sky)
        native = raw if noise is None else apply_noise(raw, noise)
        native = subtract_background(native, sky)
        if config.noise.source_poisson:
            native = add_source_poisson(native, *_gain_and_exposure(config, band, raw))
    native = native.evolve(psf=preparation.psfs[band].psf)
    with clock.step("grid"):
        on_grid = reproject(native, grid, config.target.method)
    with clock.step("PSF matching"):
        kernel = preparation.kernel(band, on_grid, target)
        matched = match_psf(on_grid, target, kernel=kernel, coverage=config.matching.coverage)
    with clock.step("photometry"):
        record = measure_band(files, on_grid, matched, mask, sky, noise, kernel)
    product = apply_object_mask(matched, mask)
    return BandProduct(band, native, matched, product.evolve(meta={**product.meta, "homogenize": record}))


def _gain_and_exposure(config: HomogenizeConfig, band: str, image: Image) -> tuple[float, float]:
    settings = config.bands[band].images
    exposure = settings.exposure or image.meta.get("exposure")
    if not exposure:
        raise InputError(
            "the exposure time is not known",
            source=image.meta.get("path"),
            field="EXPTIME",
            remedy=f"give bands.{band}.images.exposure, or set noise.source_poisson=false",
        )
    return float(settings.gain or 1.0), float(exposure)
