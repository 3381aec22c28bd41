"""What a ``homogenize`` run leaves behind: a file per object, tables, figures, and how a run resumes from them.

Everything that the tables and the report need of an object is stored in its file, band by band, under the key
``homogenize`` of the image's meta. A resumed run reads it from there, so that its report is that of a single run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, vstack

from skyloom._version import __version__
from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.core.noise import NoiseMeasurement
from skyloom.core.units import sum_unit
from skyloom.errors import InputError
from skyloom.imaging.measure.masks import ObjectMask
from skyloom.imaging.measure.regions import sum_regions
from skyloom.imaging.psfs.lost_flux import estimate_lost_flux
from skyloom.imaging.psfs.matching import MatchingKernel
from skyloom.imaging.sky.background import Background
from skyloom.io.fits import read_product
from skyloom.io.fits import write_product as write_fits
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.headers import unit_text
from skyloom.io.formats.tables import write_ecsv, write_fits_table
from skyloom.recipes.folder import file_stamp, open_folder, write_config
from skyloom.recipes.homogenize.config import BandFiles, HomogenizeConfig, ObjectFiles
from skyloom.recipes.homogenize.inputs import Preparation, read_sky_file, survey_names
from skyloom.recipes.homogenize.line_model import LineModelProduct, finished_line_model, write_line_model
from skyloom.recipes.reporting import added_steps
from skyloom.report.model import StepRecord

__all__ = [
    "BandProduct",
    "ObjectProduct",
    "finished_product",
    "measure_band",
    "noise_table",
    "object_steps",
    "open_directory",
    "photometry_table",
    "psf_table",
    "write_config",
    "write_product",
    "write_steps",
    "write_table",
]

RECORD = "homogenize"
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BandProduct:
    """One band of one object.

    Attributes
    ----------
    band : str
    native : Image
        Sky-subtracted, on its own grid, with its own PSF.
    matched : Image
        At the target PSF on the target grid, before the mask.
    product : Image
        The same with all but the object masked; its meta holds the `Record`.
    """

    band: str
    native: Image
    matched: Image
    product: Image


@dataclass(frozen=True, slots=True)
class ObjectProduct:
    """The files of one object, the record of each of its bands, and that of its line model."""

    name: str
    files: tuple[Path, ...]
    records: dict[str, Record]
    line_model: Record | None = None


# --- one band ------------------------------------------------------------------------------------------------------


def measure_band(
    files: BandFiles,
    on_grid: Image,
    matched: Image,
    mask: ObjectMask,
    sky: Background,
    noise: NoiseMeasurement | None,
    kernel: MatchingKernel,
) -> Record:
    """Measure the photometry of an object in one band and gather the figures that judge it.

    Parameters
    ----------
    files : BandFiles
    on_grid, matched : Image
        On the target grid, before and after the match.
    mask : ObjectMask
    sky : Background
        What was subtracted.
    noise : NoiseMeasurement or None
        What was applied.
    kernel : MatchingKernel
    """
    region = LabelMap(np.where(mask.inside, 0, -1).astype(np.int32))
    row = sum_regions(matched, region)[0]
    n_pixels, n_masked = int(row["n_pixels"]), int(row["n_masked"])
    unit = sum_unit(matched.unit)
    return {
        "image": str(files.image),
        "weight": None if files.weight is None else str(files.weight),
        "shape": list(on_grid.shape),
        "n_pixels": n_pixels,
        "n_masked": n_masked,
        "masked_fraction": n_masked / max(1, n_pixels + n_masked),
        "unknown_fraction": float(np.mean(mask.unknown)),
        "flux": float(row["flux"].to_value(unit)),
        "flux_err": float(row["flux_err"].to_value(unit)),
        "flux_unit": unit_text(unit),
        "sky": sky.level,
        "sky_err": sky.error,
        "sky_light": sky.light_level,
        "sky_scatter": sky.scatter,
        "sky_pixels": sky.n_pixels,
        "sky_unit": unit_text(sky.unit),
        "sky_edges": None if sky.histogram is None else sky.histogram.edges.tolist(),
        "sky_counts": None if sky.histogram is None else sky.histogram.counts.tolist(),
        "sky_light_counts": None if sky.histogram is None else sky.histogram.light_counts.tolist(),
        "sky_given": _compared_sky(files),
        "noise_scale": math.nan if noise is None else math.sqrt(noise.scale),
        "correlation_sum": 1.0 if noise is None else float(noise.correlation.sum()),
        "kernel": kernel.method,
        "kernel_residual": kernel.residual,
        "noise_gain": kernel.noise_gain,
        "lost_flux": estimate_lost_flux(on_grid, kernel.stencil, mask.inside),
        "fwhm_native": kernel.source_fwhm,
        "fwhm": kernel.target_fwhm,
    }


def _compared_sky(files: BandFiles) -> float | None:
    return None if files.compared_sky is None else read_sky_file(files.compared_sky)[0]


# --- one object ----------------------------------------------------------------------------------------------------


def write_product(
    preparation: Preparation,
    files: ObjectFiles,
    mask: ObjectMask,
    bands: Mapping[str, BandProduct],
    line_model: LineModelProduct | None = None,
) -> ObjectProduct:
    """Write the file of an object, its contact sheet if it is wanted, and its line model if there is one."""
    config, name = preparation.config, files.name
    directory = Path(config.output.directory)
    digest = _digest(config, files)
    images = {}
    for band, item in bands.items():
        record = {**item.product.meta[RECORD], "digest": digest}
        images[band] = item.product.evolve(meta={**item.product.meta, RECORD: record})
    sheets = [_write_sheet(directory, name, mask, bands)] if config.output.contact_sheet else []
    if line_model is not None:
        sheets += write_line_model(line_model, directory, digest, preparation.config_yaml)
    path = _product_path(directory, name)
    # Last, because its presence tells a resumed run that the object is finished.
    write_fits(
        path, images, inside=mask.inside, unknown=mask.unknown, config=preparation.config_yaml, overwrite=True
    )
    records = {band: image.meta[RECORD] for band, image in images.items()}
    return ObjectProduct(name, (path, *sheets), records, None if line_model is None else line_model.record)


def _write_sheet(directory: Path, name: str, mask: ObjectMask, bands: Mapping[str, BandProduct]) -> Path:
    from skyloom.report.figures import BandRow, contact_sheet

    rows = [
        BandRow(band, item.native, item.matched, mask.inside, _native_region(item, mask))
        for band, item in bands.items()
    ]
    path = _sheet_path(directory, name)
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_bytes(contact_sheet(name, rows))
    return path


def _sheet_path(directory: Path, name: str) -> Path:
    return directory / "objects" / f"{name}_sheet.png"


def _product_path(directory: Path, name: str) -> Path:
    return directory / "objects" / f"{name}.fits"


def _native_region(item: BandProduct, mask: ObjectMask) -> Any:
    """The object on the native grid, where that is the target grid; elsewhere no outline is drawn."""
    return mask.inside if item.native.shape == item.matched.shape else None


def finished_product(config: HomogenizeConfig, directory: Path, name: str) -> ObjectProduct | None:
    """Return what an earlier run with the same configuration and files made of an object, if it finished it.

    Raises
    ------
    InputError
        When the file was made otherwise; it is not overwritten unasked.
    """
    path = _product_path(directory, name)
    if not path.exists():
        return None
    try:
        digest = _digest(config, config.object_files(name))
    except InputError:
        return None  # The object's own treatment will say what is wrong with its files.
    records = {band: image.meta.get(RECORD, {}) for band, image in read_product(path).items()}
    if any(record.get("digest") != digest for record in records.values()) or set(records) != set(
        config.bands
    ):
        raise InputError(
            "was made with another configuration or from other files",
            source=path,
            remedy="give --overwrite to replace it, or another folder with --out",
        )
    sheet = _sheet_path(directory, name)
    if config.output.contact_sheet and not sheet.exists():
        return None
    files = (path, sheet) if config.output.contact_sheet else (path,)
    if config.line_model is None:
        return ObjectProduct(name, files, records)
    model = finished_line_model(directory, name, digest)
    return None if model is None else ObjectProduct(name, (*files, *model[0]), records, model[1])


def _digest(config: HomogenizeConfig, files: ObjectFiles) -> str:
    """Digest all that decides what the product of an object holds: settings, files and the software's version."""
    settings = config.model_dump(mode="json", exclude={"objects", "output", "workers", "checks"})
    named = [
        files.segmentation,
        *(path for band in files.bands for path in (band.image, band.weight, band.sky, band.compared_sky)),
        *(path for pair in files.line_maps for path in pair),
    ]
    stamps = [file_stamp(path) for path in named if path is not None]
    own = [files.name, [str(label) for label in files.labels], files.centre, survey_names(config)]
    text = json.dumps([__version__, settings, stamps, own], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def open_directory(config: HomogenizeConfig) -> Path:
    """Make the folder of the products, and clear it of what killed runs have left unfinished."""
    return open_folder(Path(config.output.directory), inner=("objects", "stages"))


# --- what the steps took -------------------------------------------------------------------------------------------


def _steps_path(directory: Path, name: str) -> Path:
    return directory / "stages" / f"{name}.json"


def write_steps(directory: Path, name: str, steps: Sequence[StepRecord]) -> None:
    """Leave what the steps of an object took for the report, also that of a resumed run."""
    content = [
        [step.name, round(step.wall, 4), round(step.cpu, 4), None if math.isnan(step.memory) else step.memory]
        for step in steps
    ]
    with atomic_path(_steps_path(directory, name), overwrite=True) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def object_steps(
    directory: Path, products: Sequence[ObjectProduct], kept: Container[str]
) -> tuple[StepRecord, ...]:
    """Return what the steps of all objects took; those of objects that are ``kept`` were done by an earlier run."""
    objects = []
    for name in (product.name for product in products):
        try:
            content = json.loads(_steps_path(directory, name).read_text(encoding="utf-8"))
            objects.append(
                [
                    StepRecord(
                        step, wall, cpu, math.nan if memory is None else memory, kept=int(name in kept)
                    )
                    for step, wall, cpu, memory in content
                ]
            )
        except (OSError, ValueError):
            # Nothing but the times of this object is lost.
            continue
    return added_steps(objects, {})


# --- tables --------------------------------------------------------------------------------------------------------

_COLUMNS = {
    "n_pixels": None,
    "n_masked": None,
    "flux": "flux_unit",
    "flux_err": "flux_unit",
    "sky": "sky_unit",
    "sky_err": "sky_unit",
    "sky_light": "sky_unit",
    "sky_pixels": None,
    "noise_scale": "",
    "correlation_sum": "",
    "kernel_residual": "",
    "noise_gain": "",
    "lost_flux": "",
    "fwhm_native": "arcsec",
    "fwhm": "arcsec",
}
_DESCRIPTIONS = {
    "n_pixels": "usable pixels of the object",
    "n_masked": "unusable pixels of the object",
    "flux": "sum over the object after matching",
    "flux_err": "its standard error, with noise correlation and the error of the sky",
    "sky": "sky per pixel that was subtracted",
    "sky_err": "its standard error, systematic part included",
    "sky_light": "sky per pixel if faint light and wings counted as sky",
    "sky_pixels": "pixels that entered the sky",
    "noise_scale": "measured over claimed standard deviation of the empty sky",
    "correlation_sum": "sum of the noise autocorrelation of the input",
    "kernel_residual": "largest relative residual of the encircled energy after matching",
    "noise_gain": "sum of the squared matching kernel",
    "lost_flux": "estimated share of the light that matching moves out of the mask",
    "fwhm_native": "FWHM of the PSF before matching",
    "fwhm": "FWHM of the target PSF",
}


def photometry_table(products: list[ObjectProduct]) -> QTable:
    """Return one row per object and band.

    Fluxes have the unit of the images where all agree; otherwise the columns are plain numbers and ``flux_unit`` and
    ``sky_unit`` say, row by row, in what.
    """
    rows = [(item.name, band, record) for item in products for band, record in item.records.items()]
    table = QTable()
    table["object"] = [name for name, _, _ in rows]
    table["band"] = [band for _, band, _ in rows]
    for column, unit in _COLUMNS.items():
        values = np.array([record[column] for _, _, record in rows])
        if unit is not None and unit.endswith("_unit"):
            units = [record[unit] for _, _, record in rows]
            if len(set(units)) == 1:
                table[column] = u.Quantity(values, units[0])
                continue
            table[unit] = units
        table[column] = values if not unit or unit.endswith("_unit") else u.Quantity(values, unit)
    for column, text in _DESCRIPTIONS.items():
        table[column].info.description = text
    return table


def psf_table(preparation: Preparation) -> QTable | None:
    """Return one row per star and band, as measured; None where no PSF was measured from stars."""
    tables = []
    for band, psf in preparation.psfs.items():
        if psf.measurement is not None:
            stars = psf.measurement.stars.copy()
            stars.add_column([band] * len(stars), name="band", index=0)
            tables.append(stars)
    return vstack(tables, metadata_conflicts="silent") if tables else None


def noise_table(preparation: Preparation) -> QTable | None:
    """Return one row per band whose noise was measured for all objects together; None where none was."""
    measured = preparation.noise
    if not measured:
        return None
    table = QTable({"band": list(measured)})
    table["noise_scale"] = [math.sqrt(item.scale) for item in measured.values()]
    table["noise_scale_err"] = [
        item.scale_error / (2.0 * math.sqrt(item.scale)) for item in measured.values()
    ]
    table["n_pixels"] = [item.n_pixels for item in measured.values()]
    table["noise_scale"].info.description = "measured over claimed standard deviation of the empty sky"
    table["noise_scale_err"].info.description = "its standard error"
    table["n_pixels"].info.description = "pixels of empty sky"
    return table


def write_table(table: QTable, directory: Path, name: str) -> tuple[Path, ...]:
    """Write a table as ECSV and as FITS."""
    return (
        write_ecsv(table, directory / f"{name}.ecsv"),
        write_fits_table(table, directory / f"{name}.fits", name.upper()),
    )
