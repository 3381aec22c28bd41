"""The report of a ``halpha`` run: checks, figures and tables from what its objects have left in their folders."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import QTable

from skyloom.core.execution import Outcome
from skyloom.recipes.citations import citations
from skyloom.recipes.config import resolved_yaml
from skyloom.recipes.halpha.config import CheckSettings, HalphaConfig
from skyloom.recipes.halpha.products import DESCRIPTIONS, ObjectProduct
from skyloom.recipes.halpha.qa import QA_KINDS
from skyloom.recipes.halpha.qa_report import quality_sections
from skyloom.recipes.reporting import (
    COMMON_FILES,
    SHOWN_OBJECTS,
    added_steps,
    checks_sentence,
    described_by,
    failures_of,
    inspected,
    notes_of,
    notes_section,
    object_figures,
)
from skyloom.report.model import Check, DataTable, Product, RunReport, Section, StepRecord

__all__ = ["build_report", "described", "science_checks"]

FIGURE_CAPTIONS = {"hst_ha": "Grey: unusable. White circle: FWHM of the PSF."}
TITLES = {
    "alignment": "Where HST lies relative to MUSE, and the kernel between them",
    "bandfit": "Bands of HST against MUSE",
    "linefit": "Halpha of HST against MUSE: excess = slope * lines + offset + a(x) * continuum",
    "products": "Images",
}
Outcomes = Sequence[Outcome[ObjectProduct]]


# --- checks ---------------------------------------------------------------------------------------------------------


def science_checks(products: Sequence[ObjectProduct], settings: CheckSettings) -> tuple[Check, ...]:
    """Hold every object against the bounds of the configuration; the verdicts of the quality analysis come last."""
    checks: list[Check] = []
    for item in products:
        tables = item.tables
        if "alignment" in tables:
            checks += _alignment_checks(item.name, tables["alignment"], settings)
        if "bandfit" in tables:
            checks += _band_checks(item.name, tables["bandfit"], settings)
        if "linefit" in tables:
            checks += _line_checks(item.name, tables["linefit"], settings)
        if "products" in tables:
            checks += _image_checks(item.name, tables["products"], settings)
        checks += item.checks
    return tuple(checks)


def _alignment_checks(name: str, table: QTable, settings: CheckSettings) -> Iterator[Check]:
    for row in table:
        item = f"{name} {row['band']}"
        if np.isfinite(row["correlation"]):
            yield Check(
                "kernel correlation",
                item,
                float(row["correlation"]),
                minimum=settings.kernel_correlation,
                meaning="correlation of HST, brought to the PSF of MUSE, with MUSE",
            )
            low, high = settings.kernel_fwhm
            yield Check(
                "kernel width",
                item,
                _number(row["fwhm"]),
                minimum=low,
                maximum=high,
                meaning="FWHM in arcsec of the kernel that makes HST look like MUSE",
            )
        if bool(row["measured"]):
            east, north = (_number(row[key]) for key in ("east", "north"))
            error = max(_number(row["east_err"]), _number(row["north_err"]))
            yield Check(
                "shift", item, math.hypot(east, north), maximum=settings.shift, meaning="of HST, arcsec"
            )
            yield Check(
                "shift error",
                item,
                error,
                maximum=settings.shift_error,
                meaning="standard error of the registration, arcsec",
            )


def _band_checks(name: str, table: QTable, settings: CheckSettings) -> Iterator[Check]:
    low, high = settings.anchor_slope
    for row in table:
        item = f"{name} {row['band']}"
        yield Check(
            "anchor slope", item, _number(row["slope"]), minimum=low, maximum=high, meaning="HST over MUSE"
        )
        yield Check(
            "sky offset",
            item,
            abs(_number(row["offset_share"])),
            maximum=settings.sky_offset,
            meaning="sky left in HST over the median light of the band",
        )


def _line_checks(name: str, table: QTable, settings: CheckSettings) -> Iterator[Check]:
    low, high = settings.anchor_slope
    yield Check(
        "anchor slope",
        f"{name} line",
        parameter(table, "slope")[0],
        minimum=low,
        maximum=high,
        meaning="Halpha and [NII] of HST over those of MUSE",
    )


def _image_checks(name: str, table: QTable, settings: CheckSettings) -> Iterator[Check]:
    for row in table:
        if row["product"] == "anchored_intnegs":
            yield Check(
                "replaced negatives",
                name,
                float(row["n_negative"]) / max(float(row["n_pixels"]), 1.0),
                maximum=settings.negative_fraction,
                meaning="share of pixels whose negative value was replaced",
            )


def _number(value: Any) -> float:
    return float(getattr(value, "value", value))


def parameter(table: QTable, name: str) -> tuple[float, float]:
    """Return value and error of a parameter of the line anchor."""
    place = [str(item) for item in table["name"]].index(name)
    return float(table["value"][place]), float(table["error"][place])


# --- report ---------------------------------------------------------------------------------------------------------


def build_report(
    config: HalphaConfig,
    outcomes: Outcomes,
    checks: tuple[Check, ...],
    products: tuple[Path, ...],
    total: StepRecord | None = None,
) -> RunReport:
    """Gather everything that the report of a run shows."""
    done = [outcome.result for outcome in outcomes if outcome.result is not None]
    sections = []
    for item in done[:SHOWN_OBJECTS]:
        folder = Path(config.output.directory) / item.name
        sections += [_object_section(config, item, folder), *quality_sections(folder, item.name)]
    bands = f"{config.narrow.band} less {' and '.join(config.continua)}"
    tied = "not tied to MUSE" if config.muse is None else f"tied to MUSE by the method {config.anchor.method}"
    return RunReport(
        title=f"halpha: {len(outcomes)} {'galaxy' if len(outcomes) == 1 else 'galaxies'}",
        summary=(
            f"Halpha of {len(done)} of {len(outcomes)} objects was made of {bands}, and {tied}. "
            f"{checks_sentence(checks)}"
        ),
        config_yaml=resolved_yaml(config),
        sections=(*sections, *notes_section(notes_of(outcomes))),
        checks=checks,
        products=tuple(Product(path, described(path), path.name.endswith(MAIN)) for path in products),
        failures=failures_of(outcomes),
        steps=added_steps((item.steps for item in done), STEPS),
        total=total,
        citations=citations(_used(config)),
        **inspected(
            (path for item in done for path in item.record["inputs"]),
            {
                path: {"object": item.name, "redshift of the object": f"{item.record['redshift']:.6g}"}
                for item in done
                for path in item.record["inputs"]
            },
        ),
    )


def _used(config: HalphaConfig) -> Iterator[tuple[str, str]]:
    """Tell which papers the methods of a run are from."""
    yield "chandar2025", "Halpha of HST anchored to MUSE"
    if config.cosmic_rays.method != "none":
        yield "vandokkum2001", "cosmic rays"
    if config.muse is not None and config.registration.method != "none":
        yield "padfield2012", "registration of masked images"
    yield "kennicutt2012", "star formation from Halpha"


MAIN = ("_anchored_intnegs.fits", "_hst_ha.fits", "_qa.ecsv", "checks.ecsv")
STEPS = {
    "cosmic_rays": "cosmic rays in all bands are found and repaired",
    "stars": "stars are found and masked",
    "muse": "bands and lines as MUSE has seen them",
    "alignment": "HST is registered to MUSE and brought to its PSF",
    "anchors": "bands and line of HST are fitted to those of MUSE",
    "images": "continuum is taken off and the images are written",
    "figures": "figures of the images",
    "qa": "HST is compared with MUSE, nebula by nebula and pixel by pixel, and its noise is judged",
}


def _object_section(config: HalphaConfig, item: ObjectProduct, folder: Path) -> Section:
    pictures = [path for path in item.files if not path.stem.startswith(f"{item.name}_qa_")]
    figures = object_figures(item.name, pictures, {"": "images"}, FIGURE_CAPTIONS)
    tables = tuple(
        DataTable.from_astropy(
            f"{item.name}: {TITLES.get(kind, kind)}", table, source=folder / f"{item.name}_{kind}.ecsv"
        )
        for kind, table in item.tables.items()
        if kind not in QA_KINDS
    )
    return Section(item.name, " ".join(_sentences(config, item)), figures, tables)


def _sentences(config: HalphaConfig, item: ObjectProduct) -> Iterator[str]:
    """Tell what was done, with the figures that matter."""
    record, tables = item.record, item.tables
    yield f"Redshift {record['redshift']:.6g}."
    a_v = record["a_v"]
    if a_v and config.muse is not None:
        muse = "MUSE came without it" if config.muse.milky_way_corrected else "and off the lines of MUSE"
        yield f"Milky Way: A_V = {a_v:g} mag was taken off HST, {muse}."
    else:
        yield f"Milky Way: A_V = {a_v:g} mag was taken off." if a_v else "Milky Way: nothing was taken off."
    if "products" in tables:
        rays = {str(row["product"]): int(row["n_cosmic_rays"]) for row in tables["products"]}
        if config.cosmic_rays.method != "none":
            yield f"Cosmic rays: {rays.get('halpha_raw', 0)} pixels of all bands were repaired and flagged."
    if "alignment" in tables:
        yield from _alignment_sentences(config, tables["alignment"])
    if "bandfit" in tables:
        slopes = ", ".join(
            f"{row['band']} {_number(row['slope']):.4f} ± {_number(row['slope_err']):.4f}"
            for row in tables["bandfit"]
        )
        yield f"Slopes of HST over MUSE: {slopes}; slopes and offsets were applied."
    if "linefit" in tables:
        slope, error = parameter(tables["linefit"], "slope")
        offset, offset_error = parameter(tables["linefit"], "offset")
        yield (
            f"The line has slope {slope:.4f} ± {error:.4f} and offset {offset:.3g} ± {offset_error:.2g}; absorption "
            f"of the stars as a fraction of the continuum: {tables['linefit'].meta.get('field', 'none')}. All of it"
            " was applied."
            if config.anchor.method == "fit"
            else f"The line has slope {slope:.4f} ± {error:.4f}; it was not applied, since anchor.method is"
            f" {config.anchor.method}."
        )
    for what, reason in record.get("reasons", {}).items():
        yield f"Not anchored ({what}): {reason}."


def _alignment_sentences(config: HalphaConfig, table: QTable) -> Iterator[str]:
    row = next((row for row in table if bool(row["measured"])), None)
    if row is None:
        yield "The shift of HST was not measured (registration.method is none)."
    else:
        east, east_err, north, north_err = (
            _number(row[key]) for key in ("east", "east_err", "north", "north_err")
        )
        done = (
            "was taken off" if config.registration.apply else "was not applied (registration.apply is false)"
        )
        yield (
            f"HST lies {east:.3f} ± {east_err:.3f} arcsec east and {north:.3f} ± {north_err:.3f} north of MUSE in"
            f" {row['band']}; that {done}."
        )
    widths = ", ".join(f"{row['band']} {_number(row['fwhm']):.3f}" for row in table)
    yield f"FWHM of the kernels to MUSE, arcsec: {widths}."


def described(path: Path) -> str:
    """Say what a file is."""
    if path.name in COMMON_FILES or path.suffix == ".png":
        return described_by(COMMON_FILES, path)
    if path.name.endswith("_cosmicrays.fits"):
        return "pixels of cosmic rays, and what replaced them"
    # Longer names first: _hst_ha_err is no _hst_ha.
    known = DESCRIPTIONS | QA_KINDS
    for kind in sorted(known, key=len, reverse=True):
        if path.stem.endswith(f"_{kind}"):
            return known[kind] + (", as text" if path.suffix == ".ecsv" else "")
    return ""
