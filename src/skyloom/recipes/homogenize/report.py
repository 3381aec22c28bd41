"""The report of a ``homogenize`` run: checks, figures and tables from the records of its objects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from skyloom.core.execution import Outcome
from skyloom.recipes.citations import citations
from skyloom.recipes.homogenize.config import CheckSettings, HomogenizeConfig
from skyloom.recipes.homogenize.inputs import Preparation
from skyloom.recipes.homogenize.line_model import line_model_check, line_model_section
from skyloom.recipes.homogenize.products import (
    ObjectProduct,
    Record,
    noise_table,
    photometry_table,
    psf_table,
)
from skyloom.recipes.reporting import (
    COMMON_FILES,
    SHOWN_OBJECTS,
    added_steps,
    checks_sentence,
    failures_of,
    hidden_sentence,
    inspected,
    notes_of,
    notes_section,
)
from skyloom.report.figures import (
    GrowthCurve,
    SkyHistogram,
    correlation_maps,
    growth_curves,
    sky_histograms,
)
from skyloom.report.model import (
    Check,
    DataTable,
    Product,
    ReportFigure,
    RunReport,
    Section,
    StepRecord,
)

__all__ = ["build_report", "science_checks"]

Outcomes = list[Outcome[ObjectProduct]]


def science_checks(products: list[ObjectProduct], settings: CheckSettings) -> tuple[Check, ...]:
    """Hold every band of every object, and its line model, against the bounds of the configuration."""
    bands = [
        check
        for product in products
        for band, record in product.records.items()
        for check in _band_checks(f"{product.name} {band}", record, settings)
    ]
    models = [product for product in products if product.line_model is not None]
    return (*bands, *(line_model_check(item.name, item.line_model, settings.line_model) for item in models))


def _band_checks(item: str, record: Record, settings: CheckSettings) -> Iterator[Check]:
    yield Check(
        "kernel residual",
        item,
        record["kernel_residual"],
        maximum=settings.kernel_residual,
        meaning="largest relative difference of the encircled energy to the target, at any radius from one pixel on",
    )
    if not math.isnan(record["noise_scale"]):
        low, high = settings.noise_scale
        yield Check(
            "noise scale",
            item,
            record["noise_scale"],
            minimum=low,
            maximum=high,
            meaning="measured over claimed standard deviation of the empty sky",
        )
    if record["n_pixels"] + record["n_masked"] > 0:
        yield Check(
            "masked fraction",
            item,
            record["masked_fraction"],
            maximum=settings.masked_fraction,
            meaning="share of the object's pixels that are unusable",
        )
    # Noise decides the ratio where there is hardly any light, so it says nothing about the mask there.
    if record["flux"] > 5.0 * record["flux_err"]:
        yield Check(
            "lost flux",
            item,
            record["lost_flux"],
            maximum=settings.lost_flux,
            meaning="estimated share of the light that matching moves out of the mask",
        )


def build_report(
    config: HomogenizeConfig,
    outcomes: Outcomes,
    preparation: Preparation,
    checks: tuple[Check, ...],
    products: tuple[Path, ...],
    steps: Sequence[StepRecord] = (),
    total: StepRecord | None = None,
) -> RunReport:
    """Gather everything that the report of a run shows."""
    done = [outcome.result for outcome in outcomes if outcome.result is not None]
    directory = Path(config.output.directory)
    sections = [_psf_section(config, preparation), _noise_section(preparation)]
    if done:
        sections = [
            _objects_section(done),
            _photometry_section(done, directory),
            *sections,
            _sky_section(done),
        ]
    if config.line_model is not None and done:
        sections.append(line_model_section(done[:SHOWN_OBJECTS], directory))
    return RunReport(
        title=f"homogenize: {len(outcomes)} objects in {len(config.bands)} bands",
        summary=(
            f"{len(done)} of {len(outcomes)} objects were brought to the PSF of "
            f"{_target_name(config)} (FWHM {preparation.target_psf.fwhm:.3f} arcsec) on one grid each. "
            f"{checks_sentence(checks)}"
        ),
        config_yaml=preparation.config_yaml,
        sections=(*sections, *notes_section(_notes(outcomes, preparation))),
        checks=checks,
        products=tuple(
            Product(path, _DESCRIPTIONS.get(path.name, _described(path)), path.name in MAIN)
            for path in products
        ),
        failures=failures_of(outcomes),
        steps=added_steps([steps], STEPS),
        total=total,
        citations=citations(
            [("boucaud2016", "kernels between PSFs"), ("fruchter2002", "correlated noise of drizzled images")]
        ),
        **inspected(*_inputs(done)),
    )


MAIN = ("photometry.ecsv", "stars.ecsv", "line_models.ecsv", "checks.ecsv")
STEPS = {
    "preparation": "PSF of each band, target PSF and kernels; noise of each band",
    "reading": "images, weights and segmentation maps are read; grid and mask of the object",
    "sky and noise": "the sky is measured and taken off; errors are scaled to what the empty sky shows",
    "grid": "images are brought to one grid, with their covariance",
    "PSF matching": "images are convolved to the target PSF",
    "photometry": "fluxes inside the mask, and how much light was lost",
    "line model": "the line map is predicted from the bands",
    "writing": "the product of the object and its contact sheet",
}
_DESCRIPTIONS = {
    "photometry.ecsv": "photometry of all objects and bands, as text",
    "photometry.fits": "the same as a FITS table",
    "stars.ecsv": "the stars the PSFs were measured on, as text",
    "stars.fits": "the same as a FITS table",
    "line_models.ecsv": "weights, blur and shift of all line models, as text",
    "line_models.fits": "the same as a FITS table",
    "noise.ecsv": "the noise of the empty sky in each band, as text",
    "noise.fits": "the same as a FITS table",
    **COMMON_FILES,
}


def _described(path: Path) -> str:
    if path.stem.endswith("_line_model"):
        return "line model" + (": figure" if path.suffix == ".png" else " at four stages, with errors")
    return (
        "contact sheet" if path.suffix == ".png" else "science, variance, weight, mask, correlation per band"
    )


def _target_name(config: HomogenizeConfig) -> str:
    return config.target.psf if isinstance(config.target.psf, str) else "the configured target"


# --- sections ------------------------------------------------------------------------------------------------------


def _psf_section(config: HomogenizeConfig, preparation: Preparation) -> Section:
    target = preparation.target_psf
    matrix = np.diag([-1.0, 1.0]) * target.fwhm / 6.0
    radii = np.linspace(0.0, 5.0 * target.fwhm, 60)[1:]
    wanted = GrowthCurve(_target_name(config), radii, target.encircled_energy(radii, matrix))
    curves = []
    for band, psf in preparation.psfs.items():
        reached = _reached_curve(preparation, band, radii)
        curves.append(GrowthCurve(band, radii, psf.psf.encircled_energy(radii, matrix), reached))
    figure = growth_curves("PSF matching", curves, wanted, limit=config.checks.kernel_residual)
    stars = psf_table(preparation)
    source = Path(config.output.directory) / "stars.ecsv"
    tables = () if stars is None else (DataTable.from_astropy("Stars", stars, source=source),)
    rejected = [
        f"{band}: {', '.join(psf.measurement.rejected)}"
        for band, psf in preparation.psfs.items()
        if psf.measurement is not None and psf.measurement.rejected
    ]
    text = f"Rejected as outliers: {'; '.join(rejected)}." if rejected else "No star was rejected."
    return Section(
        "PSF",
        text if stars is not None else "",
        (ReportFigure("Encircled energy", figure, step="PSF matching"),),
        tables,
    )


def _reached_curve(preparation: Preparation, band: str, radii: np.ndarray) -> np.ndarray | None:
    kernel = preparation.kernels.get(band)
    return None if kernel is None else kernel.psf.encircled_energy(radii, kernel.matrix)


def _noise_section(preparation: Preparation) -> Section:
    if not preparation.noise:
        return Section("Noise", "The correlation of the noise was not measured for all objects together.")
    figure = correlation_maps(
        "Noise correlation of the input", {band: item.correlation for band, item in preparation.noise.items()}
    )
    table = noise_table(preparation)
    assert table is not None  # there is a measurement
    shown = DataTable.from_astropy(
        "Noise of the empty sky",
        table,
        "measured over claimed standard deviation; variances were multiplied by its square",
        Path(preparation.config.output.directory) / "noise.ecsv",
    )
    text = "Source photon noise was " + (
        "added from gain and exposure." if preparation.config.noise.source_poisson else
        "not added: variances hold what the weight maps hold, usually the background only."
    )  # fmt: skip
    return Section("Noise", text, (ReportFigure("Autocorrelation", figure, step="preparation"),), (shown,))


def _sky_section(done: list[ObjectProduct]) -> Section:
    figures = []
    for product in done[:SHOWN_OBJECTS]:
        panels = [
            SkyHistogram(
                band,
                np.array(record["sky_edges"]),
                np.array(record["sky_counts"]),
                record["sky"],
                record["sky_err"],
                record["sky_scatter"],
                record["sky_unit"],
                light_counts=np.array(record["sky_light_counts"]),
                light_level=record["sky_light"],
                other=record["sky_given"],
            )
            for band, record in product.records.items()
            if record["sky_edges"] is not None
        ]
        if panels:
            png = sky_histograms(product.name, panels)
            figures.append(ReportFigure(f"Sky of {product.name}", png, step="sky and noise"))
    return Section("Sky", "Pixels taken as sky and the level found in them.", tuple(figures))


def _photometry_section(done: list[ObjectProduct], directory: Path) -> Section:
    table = DataTable.from_astropy("Photometry", photometry_table(done), source=directory / "photometry.ecsv")
    return Section("Photometry", tables=(table,))


def _objects_section(done: list[ObjectProduct]) -> Section:
    figures = [
        ReportFigure(f"{product.name}: all bands", path.read_bytes(), step="writing")
        for product in done[:SHOWN_OBJECTS]
        for path in product.files
        if path.name == f"{product.name}_sheet.png"
    ]
    return Section("Objects", hidden_sentence(len(done), "Sheets"), tuple(figures))


def _notes(outcomes: Outcomes, preparation: Preparation) -> Iterator[tuple[str, str]]:
    yield from (("all", note) for note in preparation.notes)
    yield from notes_of(outcomes)
    for item, reason in preparation.survey_failures.items():
        yield item, f"not used to measure the noise: {reason}"


def _inputs(done: list[ObjectProduct]) -> tuple[list[str | None], dict[str, dict[str, str]]]:
    """Return the images and their weights, and what the run knows of each image."""
    files: list[str | None] = []
    known = {}
    for product in done:
        for band, record in product.records.items():
            files += [record["image"], record["weight"]]
            known[str(record["image"])] = {
                "object": product.name,
                "band": band,
                "native FWHM": f"{record['fwhm_native']:.3f} arcsec",
            }
    return files, known
