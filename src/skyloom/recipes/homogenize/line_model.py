"""Line maps of another instrument, predicted from matched bands: input, products, report of ``homogenize``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable

from skyloom.core.geometry import same_grid
from skyloom.core.image import Image
from skyloom.core.provenance import step
from skyloom.core.psf import GaussianPSF
from skyloom.core.units import sum_unit
from skyloom.errors import InputError, UnitError
from skyloom.imaging.line_models.halves import LineModelJudgement, judge_line_model
from skyloom.imaging.line_models.line_model import LineModel, fit_line_model
from skyloom.io.fits import read_product
from skyloom.io.fits import write_product as write_fits
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.headers import unit_text
from skyloom.io.formats.tables import write_ecsv, write_fits_table
from skyloom.io.images import read_image
from skyloom.recipes.homogenize.config import HomogenizeConfig, ObjectFiles
from skyloom.recipes.homogenize.line_model_config import LineModelSettings
from skyloom.report.model import Check, DataTable, ReportFigure, Section

if TYPE_CHECKING:
    from skyloom.recipes.homogenize.products import ObjectProduct

__all__ = [
    "LineModelProduct",
    "finished_line_model",
    "line_model_check",
    "line_model_product",
    "line_model_section",
    "line_model_table",
    "read_line_map",
    "write_line_model",
    "write_line_models",
]

RECORD = "line_model_record"
LINE_FLUX = u.erg / u.s / u.cm**2
Record = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class LineModelProduct:
    """The line model of one object.

    Attributes
    ----------
    name : str
        Of the object.
    line_map : Image
    model : LineModel
    record : dict
        What the table and the report need of it.
    """

    name: str
    line_map: Image
    model: LineModel
    record: Record


# --- input ---------------------------------------------------------------------------------------------------------


def read_line_map(settings: LineModelSettings, files: ObjectFiles) -> Image:
    """Read the line maps of an object and add them up.

    Raises
    ------
    InputError
        When a file is missing, holds no flux of a line, or lies on other pixels than the first.
    """
    maps = [_read_one(path, error, settings.unit) for path, error in files.line_maps]
    first = maps[0]
    for (path, _), item in zip(files.line_maps, maps, strict=True):
        if item.unit != first.unit:
            raise UnitError(
                f"is in {item.unit}, the first line map in {first.unit}", source=path, field="line_model.maps"
            )
        if item.shape != first.shape or not _same_place(item, first):
            raise InputError(
                "lies on other pixels than the first line map", source=path, field="line_model.maps"
            )
    if len(maps) == 1:
        return first
    names = [str(path) for path, _ in files.line_maps]
    return first.evolve(
        step("add_line_maps", maps=names),
        data=np.sum([item.data for item in maps], axis=0),
        variance=np.sum([item.variance for item in maps], axis=0),
        mask=np.logical_or.reduce([item.mask for item in maps]),
    )


def _read_one(path: Path, error: Path, unit: str | None) -> Image:
    for file, field in ((path, "line_model.maps"), (error, "line_model.errors")):
        if not file.is_file():
            raise InputError.missing(file, field=field)
    image = read_image(path, weight=error, weight_kind="rms", unit=unit)
    if image.wcs is None:
        raise InputError("the line map has no WCS", source=path, field="CTYPE1", remedy="add one to the file")
    if not sum_unit(image.unit).is_equivalent(LINE_FLUX):
        raise UnitError(
            f"is in {image.unit}; expected the flux of a line, like 1e-20 erg / (s cm2)",
            source=path,
            field="line_model.maps",
            remedy="give a map of line fluxes, or its unit as line_model.unit",
        )
    return image


def _same_place(first: Image, second: Image) -> bool:
    assert first.wcs is not None  # checked when it was read
    assert second.wcs is not None
    return same_grid(first.wcs, first.shape, second.wcs, second.shape, 0.05)


# --- one object ----------------------------------------------------------------------------------------------------


def line_model_product(
    config: HomogenizeConfig, name: str, matched: Mapping[str, Image], line_map: Image
) -> LineModelProduct:
    """Fit the line model of one object, and judge it on blocks left out.

    Raises
    ------
    InputError
        When bands and line map do not overlap, or their units do not fit together.
    """
    settings = config.line_model
    assert settings is not None  # the caller asks for a model only then
    bands = {band: matched[band] for band in settings.bands or matched}
    options: dict[str, Any] = {
        "oversample": settings.oversample,
        "psf": settings.psf if isinstance(settings.psf, str) else GaussianPSF(settings.psf.fwhm),
        "shift": settings.shift,
        "offset": settings.offset,
        "max_bands": settings.max_bands,
    }
    try:
        model = fit_line_model(bands, line_map, **options)
        judgement = judge_line_model(bands, line_map, **options)
    except InputError as error:
        raise error.located(line_map.meta["path"]) from error
    return LineModelProduct(name, line_map, model, _record(model, judgement, line_map, bands))


def _record(
    model: LineModel, judgement: LineModelJudgement, line_map: Image, bands: Mapping[str, Image]
) -> Record:
    scale = line_map.pixel_scale
    psf = model.rebinned.psf
    return {
        "line_map": line_map.meta["path"],
        "line_unit": unit_text(line_map.unit),
        "band_unit": unit_text(next(iter(bands.values())).unit),
        "bands": list(model.bands),
        "weights": model.weights.tolist(),
        "weight_err": np.sqrt(np.diag(model.covariance)).tolist(),
        "offset": model.offset,
        "offset_err": model.offset_err,
        "fwhm": model.blur.fwhm,
        "fwhm_err": model.fwhm_err,
        "psf_fwhm": math.nan if psf is None else psf.fwhm,
        "shift": (model.shift * scale).tolist(),
        "shift_err": (model.shift_err * scale).tolist(),
        "chi_square": model.chi_square,
        "n_pixels": int(np.count_nonzero(model.used)),
        "rms": model.residual_rms(model.used & model.residual.valid),
        "left_out_rms": judgement.rms,
        "left_out_bands": list(judgement.bands),
        "single_band": judgement.single,
        "single_band_rms": judgement.single_rms,
    }


def write_line_model(product: LineModelProduct, directory: Path, digest: str, config: str) -> list[Path]:
    """Write the line model of one object and its figure."""
    from skyloom.report.figures import line_model_panels

    model, record = product.model, {**product.record, "digest": digest}
    path, figure = _paths(directory, product.name)
    with atomic_path(figure, overwrite=True) as temporary:
        temporary.write_bytes(
            line_model_panels(
                product.name, product.line_map, model.rebinned, model.residual, model.high_resolution,
                offset=model.offset, caption=_caption(record),
            )
        )  # fmt: skip
    high = model.high_resolution
    images = {
        "high-resolution": high.evolve(meta={**high.meta, RECORD: record}),
        "smoothed": model.smoothed,
        "rebinned": model.rebinned,
        "residual": model.residual,
    }
    write_fits(path, images, config=config, one_grid=False, overwrite=True)
    return [path, figure]


def _paths(directory: Path, name: str) -> tuple[Path, Path]:
    stem = directory / "objects" / f"{name}_line_model"
    return stem.with_name(f"{stem.name}.fits"), stem.with_name(f"{stem.name}.png")


def _caption(record: Record) -> str:
    shares = zip(record["bands"], record["weights"], record["weight_err"], strict=True)
    weights = "   ".join(f"{band} {weight:.4g} ± {error:.2g}" for band, weight, error in shares)
    return f'{weights}   blur {record["fwhm"]:.3f}"   χ² {record["chi_square"]:.2f}'


def finished_line_model(directory: Path, name: str, digest: str) -> tuple[tuple[Path, ...], Record] | None:
    """Return the files and the record of a line model that an earlier run has finished."""
    path, figure = _paths(directory, name)
    if not path.exists() or not figure.exists():
        return None
    record = dict(read_product(path)["high-resolution"].meta.get(RECORD, {}))
    if record.pop("digest", None) != digest:
        return None
    return (path, figure), record


# --- all objects ---------------------------------------------------------------------------------------------------

_DESCRIPTIONS = {
    "weight": "of the band in the line model",
    "weight_err": "standard error, misfit included",
    "offset": "level of the line map",
    "offset_err": "its standard error",
    "fwhm": "of the blur between bands and line map",
    "fwhm_err": "standard error; NaN when it was given",
    "psf_fwhm": "of the model on the pixels of the line map",
    "shift_x": "of the line map against the bands",
    "shift_y": "of the line map against the bands",
    "chi_square": "per degree of freedom",
    "rms": "residual of the pixels of the fit",
    "left_out_rms": "residual on blocks left out",
    "single_band": "the best one alone",
    "single_band_rms": "its residual on blocks left out",
}


def line_model_table(products: Sequence[ObjectProduct]) -> QTable | None:
    """Return one row per object and band with a weight; None where there is no line model.

    Columns are plain numbers where objects differ in unit; ``line_unit`` and ``band_unit`` then say in what they are.
    """
    rows = [
        (product.name, number, product.line_model)
        for product in products
        if product.line_model is not None
        for number in range(len(product.line_model["bands"]))
    ]
    if not rows:
        return None
    line_units = [record["line_unit"] for _, _, record in rows]
    band_units = [record["band_unit"] for _, _, record in rows]
    alike = len(set(line_units)) == len(set(band_units)) == 1
    line = u.Unit(line_units[0]) if alike else u.dimensionless_unscaled
    weight = line / u.Unit(band_units[0]) if alike else u.dimensionless_unscaled
    table = QTable({"object": [name for name, _, _ in rows]})
    table["band"] = [record["bands"][number] for _, number, record in rows]
    if not alike:
        table["line_unit"], table["band_unit"] = line_units, band_units
    for column, key in (("weight", "weights"), ("weight_err", "weight_err")):
        table[column] = [record[key][number] for _, number, record in rows] * weight
    for column, unit in (
        ("offset", line),
        ("offset_err", line),
        ("fwhm", u.arcsec),
        ("fwhm_err", u.arcsec),
        ("psf_fwhm", u.arcsec),
    ):
        table[column] = [record[column] for _, _, record in rows] * unit
    for axis, letter in enumerate("xy"):
        for kind in ("shift", "shift_err"):
            name = kind.replace("shift", f"shift_{letter}")
            table[name] = [record[kind][axis] for _, _, record in rows] * u.arcsec
    table["chi_square"] = [record["chi_square"] for _, _, record in rows]
    table["n_pixels"] = [record["n_pixels"] for _, _, record in rows]
    for column in ("rms", "left_out_rms", "single_band_rms"):
        table[column] = [record[column] for _, _, record in rows] * line
    table["single_band"] = [record["single_band"] for _, _, record in rows]
    for column, text in _DESCRIPTIONS.items():
        table[column].info.description = text
    return table


def write_line_models(products: Sequence[ObjectProduct], directory: Path) -> tuple[Path, ...]:
    """Write the table of all line models, if there are any."""
    table = line_model_table(products)
    if table is None:
        return ()
    return (
        write_ecsv(table, directory / "line_models.ecsv"),
        write_fits_table(table, directory / "line_models.fits", "LINE_MODELS"),
    )


def line_model_check(name: str, record: Record | None, largest: float) -> Check:
    """Hold the combination against its best band alone, on blocks left out."""
    assert record is not None  # the caller has chosen objects with a line model
    return Check(
        "line model",
        name,
        record["left_out_rms"] / record["single_band_rms"],
        maximum=largest,
        meaning="residual of the line model on blocks left out, over that of its best band alone",
    )


def line_model_section(shown: Sequence[ObjectProduct], directory: Path) -> Section:
    """Figures and table for the report, with the folder of the products."""
    table = line_model_table(shown)
    figures = tuple(
        ReportFigure(f"Line model of {product.name}", path.read_bytes(), step="line model")
        for product in shown
        for path in product.files
        if path.name == f"{product.name}_line_model.png"
    )
    text = (
        "A line map predicted from a combination of the matched bands. The residuals of blocks left out are those of"
        " a combination fitted on every other block of pixels and judged on the rest."
    )
    source = directory / "line_models.ecsv"
    tables = () if table is None else (DataTable.from_astropy("Line models", table, source=source),)
    return Section("Line models", text, figures, tables)
