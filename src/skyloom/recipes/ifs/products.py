"""What an ``ifs`` run leaves behind for an object, and how each step's files are written and read again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from astropy.table import QTable

from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.core.spectra import Spectra
from skyloom.io.fits import read_product, read_skyloom, write, write_product
from skyloom.io.formats.headers import unit_text
from skyloom.io.formats.tables import write_ecsv, write_fits_table
from skyloom.io.products.bin_files import write_map_file
from skyloom.recipes.config import resolved_yaml
from skyloom.recipes.folder import file_stamp, open_folder
from skyloom.recipes.ifs.inputs import Source
from skyloom.recipes.ifs.noise import NoiseModel, read_noise, write_noise
from skyloom.recipes.stages import Files, Made, Stages
from skyloom.report.model import StepRecord

__all__ = [
    "LineMap",
    "Maps",
    "ObjectProduct",
    "gather",
    "object_folder",
    "object_stages",
    "summary_table",
    "write_summary",
]

Value = TypeVar("Value")
Record = dict[str, Any]
TO_TARGET = ("voronoi", "quadtree")
MOST_FAILURES = 20
BELOW = 1.0 - 1e-6  # Sums in another order differ by rounding.


@dataclass(frozen=True, slots=True)
class LineMap:
    """Maps of one line (or of the sum of several)."""

    signal: Image
    noise: Image
    snr: Image


@dataclass(frozen=True, slots=True)
class Maps:
    """Maps of all lines of an object; the first is what the bins are made for.

    Attributes
    ----------
    lines : mapping of name to LineMap
    velocity : Image or None
        Where the lines were looked for, km/s.
    """

    lines: Mapping[str, LineMap]
    velocity: Image | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the lines; several that were added are joined by ``+``."""
        return tuple(self.lines)

    @property
    def main(self) -> LineMap:
        """The maps that the bins are made for."""
        return next(iter(self.lines.values()))

    def images(self) -> dict[str, Image]:
        """All maps by the names that they have in a file: ``Halpha-snr``."""
        images = {
            f"{name}-{kind}": getattr(item, kind)
            for name, item in self.lines.items()
            for kind in ("signal", "noise", "snr")
        }
        return images if self.velocity is None else {**images, "velocity": self.velocity}

    @classmethod
    def from_images(cls, images: Mapping[str, Image]) -> Maps:
        """Put together what `images` took apart."""
        names = dict.fromkeys(name.rpartition("-")[0] for name in images if name != "velocity")
        lines = {
            name: LineMap(*(images[f"{name}-{kind}"] for kind in ("signal", "noise", "snr")))
            for name in names
        }
        return cls(lines, images.get("velocity"))


@dataclass(frozen=True, slots=True)
class ObjectProduct:
    """What was made of one object.

    Attributes
    ----------
    name : str
    files : tuple of Path
    kept : bool
        Whether an earlier run had done all of it.
    record : dict
        Figures for the summary, the checks and the report.
    notes : tuple of str
        What had to be assumed or repaired.
    steps : tuple of StepRecord
        What each stage took.
    failures : tuple of (str, str)
        What of it could not be done, such as the fit of one bin, and why.
    """

    name: str
    files: tuple[Path, ...]
    kept: bool
    record: Record
    notes: tuple[str, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()


def object_folder(source: Source) -> Path:
    """Where the files of an object are."""
    return Path(source.config.output.directory) / source.name


# --- stages ---------------------------------------------------------------------------------------------------------


def object_stages(source: Source, *, overwrite: bool) -> tuple[Stages, Callable[..., Made[Any]]]:
    """Return the stages of an object, and a function that does one: ``step(name, function, *inputs)``."""
    folder = open_folder(object_folder(source), inner=("stages",))
    stages = Stages(folder, overwrite, announce=lambda name: source.tick(name, 0, 1))
    settings = stage_settings(source)
    files = stage_files(source, folder)

    def step(name: str, function: Callable[..., Value], *inputs: Any) -> Made[Value]:
        return stages.do(name, function, *inputs, settings=settings[name], files=files[name])

    return stages, step


def stage_settings(source: Source) -> dict[str, Any]:
    """What decides the result of each stage, beside the stages that it builds on."""
    config, own = source.config, source.settings
    plain = config.model_dump(mode="json")
    cube = [source.stamps, own.cube.model_dump(mode="json", exclude={"milky_way_corrected"}), source.redshift]
    dust = [source.a_v, plain["extinction"]]
    maps = None if source.files.velocity is None else file_stamp(source.files.velocity)
    labels = None if source.files.segmentation is None else file_stamp(source.files.segmentation)
    binning = {
        key: value
        for key, value in plain["binning"].items()
        if key in {"method", "target", "minimum_snr", plain["binning"]["method"]}
    }
    given = (*config.snr.line, *(config.snr.also or ()))
    own_wavelengths = [line for line in given if isinstance(line, float)]
    geometry = [own.centre, own.position_angle, own.axis_ratio]
    return {
        "noise": [cube, plain["noise"], plain["sky_residuals"], own_wavelengths],
        "maps": [cube, dust, plain["snr"], maps],
        "bins": [source.name, binning, labels, geometry if config.binning.method == "radius" else None],
        "spectra": [cube, dust, plain["extraction"], plain["sky_residuals"]],
        "table": [plain["snr"], source.redshift],
        "resampled": [cube, dust, plain["resampled_cube"]],
        "starlight": [plain["starlight"], plain["sky_residuals"], source.redshift],
        "figures": [plain["sky_residuals"], config.binning.target],
    }


def stage_files(source: Source, folder: Path) -> dict[str, Files[Any]]:
    """How the value of each stage is kept."""
    config = resolved_yaml(source.config.only(source.name))
    place = {
        key: folder / f"{source.name}_{key}.fits" for key in ("noise", "maps", "bins", "spectra", "table")
    }

    def write_maps(maps: Maps) -> Sequence[Path]:
        write_product(place["maps"], maps.images(), config=config, overwrite=True)
        return [place["maps"]]

    def write_bins(labels: LabelMap) -> Sequence[Path]:
        write(labels.evolve(meta={**labels.meta, "config": config}), place["bins"], overwrite=True)
        map_file = folder / f"{source.name}.map"
        write_map_file(map_file, labels, name=source.name, overwrite=True)
        return [place["bins"], map_file]

    def write_spectra(spectra: Spectra) -> Sequence[Path]:
        write(spectra.evolve(meta={**spectra.meta, "config": config}), place["spectra"], overwrite=True)
        return [place["spectra"]]

    def write_both(table: QTable) -> Sequence[Path]:
        return [
            write_ecsv(table, place["table"].with_suffix(".ecsv")),
            write_fits_table(table, place["table"], "BINS"),
        ]

    return {
        "noise": Files(lambda noise: [write_noise(noise, place["noise"])], read_noise),
        "maps": Files(write_maps, lambda paths: Maps.from_images(read_product(paths[0]))),
        "bins": Files(write_bins, lambda paths: read_skyloom(paths[0])),
        "spectra": Files(write_spectra, lambda paths: read_skyloom(paths[0])),
        "table": Files(write_both, lambda paths: QTable.read(paths[0])),
        "resampled": Files(lambda path: [path], lambda paths: paths[0]),
        "starlight": Files(lambda paths: paths, lambda paths: tuple(paths)),
        "figures": Files(lambda paths: paths, lambda paths: tuple(paths)),
    }


# --- what is known of an object at the end --------------------------------------------------------------------------


def gather(
    source: Source,
    stages: Stages,
    noise: Made[NoiseModel],
    bins: Made[LabelMap],
    table: Made[QTable],
    fits: Record | None = None,
    problems: Mapping[str, str] | None = None,
) -> ObjectProduct:
    """Put together what the checks, the summary and the report need of an object.

    ``fits`` are the figures of the fits, ``problems`` tell of a part of the object, such as its
    fits, why it could not be made.
    """
    problems = problems or {}
    record = make_record(source, noise.value, bins.value, table.value)
    return ObjectProduct(
        source.name,
        # What stands beside the records of the stages is of use to a resumed run only.
        tuple(path for made in stages.done for path in made.files if path.parent.name != "stages"),
        all(made.kept for made in stages.done) and not problems,
        {**record, **fit_figures(fits), "fits": fits},
        tuple(dict.fromkeys(note for made in stages.done for note in made.notes)),
        stages.records(),
        item_failures(source.name, fits, problems),
    )


def fit_figures(fits: Record | None) -> Record:
    """Return what the summary says of the fits."""
    if fits is None:
        return {"line_chi2": math.nan, "unfitted": math.nan}
    chi2 = fits["chi2"]
    share = len(fits["unfitted"]) / max(fits["n_spectra"], 1)
    return {"line_chi2": math.nan if chi2 is None else chi2, "unfitted": share}


def item_failures(name: str, fits: Record | None, problems: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Name the parts that could not be made, and the bins not fitted; of very many, the first and how many more."""
    parts = tuple((f"{name}: {part}", problem) for part, problem in problems.items())
    failed = [] if fits is None else fits["unfitted"]
    shown = tuple((f"{name}: bin {number}", reason) for number, reason in failed[:MOST_FAILURES])
    more = len(failed) - len(shown)
    return (
        (*parts, *shown)
        if not more
        else (*parts, *shown, (f"{name}: {more} more bins", "flagged in the table of lines"))
    )


def make_record(source: Source, noise: NoiseModel, labels: LabelMap, table: QTable) -> Record:
    """Return the figures that judge an object."""
    n_pixels, snr = np.asarray(table["n_pixels"]), np.asarray(table["snr"], dtype=np.float64)
    to_target = labels.meta.get("method") in TO_TARGET
    target = float(labels.meta["target"]) if to_target else math.nan
    remainder = np.isin(np.asarray(table["id"]), labels.meta.get("remainder", []))
    several = n_pixels > 1
    ratio = _ratio(table, "noise_measured", "spectrum_noise")
    measured = noise.measured
    return {
        "cube": str(source.files.cube),
        "inputs": [str(path) for path in source.files.given],
        "instrument": str(source.cube.meta.get("instrument", "")),
        "shape": list(source.cube.shape),
        "wave": [float(source.cube.wave[0]), float(source.cube.wave[-1])],
        "medium": source.cube.medium,
        "unit": unit_text(source.cube.unit),
        "redshift": source.redshift,
        "extinction": source.extinction,
        "a_v": source.a_v,
        "noise_scale": math.nan if measured is None else math.sqrt(measured.value),
        "noise_scale_err": math.nan
        if measured is None
        else measured.error / (2.0 * math.sqrt(measured.value)),
        "spatial_sum": 1.0 if noise.correlation.spatial is None else float(noise.correlation.spatial.sum()),
        "spectral_sum": _lag_sum(noise),
        "method": str(labels.meta.get("method", "")),
        "target": target,
        "n_bins": len(table),
        "n_spaxels": int(n_pixels.sum()),
        "median_snr": float(np.nanmedian(snr)) if snr.size else math.nan,
        "median_over_target": float(np.nanmedian(snr[several]) / target)
        if to_target and several.any()
        else math.nan,
        "below_target": float(np.mean((snr < target * BELOW) & ~remainder)) if to_target else math.nan,
        "remainder": _light_share(table, remainder) if to_target else math.nan,
        "bin_noise": float(np.nanmedian(ratio)) if np.isfinite(ratio).any() else math.nan,
    }


def _light_share(table: QTable, chosen: Any) -> float:
    """Share of the light of all bins that is in the chosen ones; where these are all, all of it."""
    light = np.nan_to_num(np.asarray(getattr(table["signal"], "value", table["signal"]), dtype=np.float64))
    if chosen.all():
        return 1.0
    return float(max(light[chosen].sum(), 0.0) / max(light.sum(), np.finfo(np.float64).tiny))


def _ratio(table: QTable, above: str, below: str) -> Any:
    if above not in table.colnames or below not in table.colnames:
        return np.array([math.nan])
    return np.asarray((table[above] / table[below]).to_value(""), dtype=np.float64)


def _lag_sum(noise: NoiseModel) -> float:
    lags = noise.correlation.spectral
    if lags is None:
        return 1.0
    return float(lags.sum() if lags.ndim == 1 else np.median(lags.sum(axis=1)))


_SUMMARY = {
    "instrument": (None, "instrument of the cube"),
    "redshift": ("", "redshift that was used"),
    "method": (None, "how spaxels were binned"),
    "n_bins": (None, "number of bins"),
    "n_spaxels": (None, "number of spaxels in bins"),
    "median_snr": ("", "median S/N of the bins as claimed"),
    "median_over_target": ("", "the same over the target, bins of several spaxels"),
    "below_target": ("", "share of bins below the target that are not said to be a remainder"),
    "remainder": ("", "share of the light of all bins that is in bins below the target"),
    "noise_scale": ("", "measured over claimed standard deviation in line-free channels"),
    "noise_scale_err": ("", "its standard error"),
    "spatial_sum": ("", "sum of the noise correlation of spaxels"),
    "spectral_sum": ("", "sum of the noise correlation of channels"),
    "bin_noise": ("", "median over bins of measured over claimed noise in their spectra"),
    "line_chi2": ("", "median chi2 per degree of freedom of the fits of lines"),
    "unfitted": ("", "share of spectra in which no line could be fitted"),
}


def summary_table(products: Sequence[ObjectProduct]) -> QTable:
    """Return one row per object."""
    table = QTable()
    table["object"] = np.array([item.name for item in products], dtype=str)
    for name, (unit, text) in _SUMMARY.items():
        values = [item.record[name] for item in products]
        table[name] = np.array(
            values, dtype=str if unit is None and name in {"instrument", "method"} else None
        )
        table[name].info.description = text
    return table


def write_summary(products: Sequence[ObjectProduct], directory: Path) -> tuple[Path, ...]:
    """Write the summary of all objects as ECSV and as FITS."""
    if not products:
        return ()
    table = summary_table(products)
    return (
        write_ecsv(table, directory / "summary.ecsv"),
        write_fits_table(table, directory / "summary.fits", "SUMMARY"),
    )
