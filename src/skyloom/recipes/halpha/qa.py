"""Quality of the products of a ``halpha`` run: HST against MUSE, nebula by nebula and pixel by pixel, and its noise.

`quality` works on what lies in the folder of an object, the label map and the catalogue of nebulae, and nothing else: a
run ends with it, and ``skyloom qa`` does it again without making any image anew.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray
from scipy import ndimage

from skyloom import io
from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.errors import AssumptionWarning, InputError
from skyloom.imaging.anchoring.anchor import fit_anchor
from skyloom.imaging.grids.label_grids import move_labels
from skyloom.imaging.measure.comparison import (
    RegionStatistics,
    compare_regions,
    region_statistics,
    running_median,
)
from skyloom.imaging.measure.empty_regions import EmptyRegions, empty_regions
from skyloom.imaging.measure.power_spectrum import PowerSpectrum, power_spectrum
from skyloom.imaging.sky.background import measure_background
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.tables import write_ecsv, write_fits_table
from skyloom.recipes.halpha.cleaning import binned
from skyloom.recipes.halpha.config import CheckSettings, HalphaConfig
from skyloom.recipes.halpha.qa_inputs import Products, bring_to_muse, read_nebulae
from skyloom.report.model import Check

__all__ = ["QA_KINDS", "Quality", "quality", "read_checks"]

Mask = NDArray[np.bool_]
QA_KINDS = {
    "nebulae": "flux of each nebula in HST and MUSE, with errors",
    "qa": "figures of the quality analysis and its verdicts",
    "power": "power spectra of Halpha",
    "qa_matched": "Halpha of HST with the PSF and on the grid of MUSE",
}
FAINT_SHARE = 0.5
"""Share of the pixels of MUSE, the faintest, in which empty regions are looked for."""
LARGE = 3.0
"""Scales beyond so many FWHM of MUSE are those on which both must have the same power."""
FEWEST_NEBULAE = 10
FEWEST_BOXES = 30
MATCHED = "HST at the PSF of MUSE"
NOTHING_COMMON = "no pixel is usable in both"
SKY_PIXEL = 8
"""Side in pixels of the blocks in which sources are looked for where there is no MUSE: faint light shows in them."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What the quality analysis of an object has made.

    Attributes
    ----------
    name : str
    folder : Path
    files : tuple of Path
    checks : tuple of Check
    """

    name: str
    folder: Path
    files: tuple[Path, ...]
    checks: tuple[Check, ...]


@dataclass(slots=True)
class Findings:
    """Figures and verdicts, as they come in."""

    name: str
    checks: list[Check] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        quantity: str,
        value: float,
        error: float = np.nan,
        unit: str = "",
        bounds: tuple[float, float] | None = None,
        meaning: str = "",
    ) -> None:
        """Note a figure; with bounds it is a check."""
        row: dict[str, Any] = {
            "quantity": quantity,
            "value": float(value),
            "error": float(error),
            "unit": unit,
        }
        row |= {"minimum": np.nan, "maximum": np.nan, "verdict": "", "meaning": meaning}
        if bounds is not None:
            check = Check(quantity, self.name, float(value), *bounds, meaning=meaning)
            self.checks.append(check)
            row |= {
                "minimum": bounds[0],
                "maximum": bounds[1],
                "verdict": "passed" if check.passed else "failed",
            }
        self.rows.append(row)

    def table(self) -> QTable:
        """Return all figures as a table."""
        table = QTable(rows=self.rows)
        for name in ("value", "error", "minimum", "maximum"):
            table[name] = np.asarray(table[name], dtype=np.float64)
            table[name].info.description = "in the unit of the row"
        table["unit"].info.description = "of value, error and bounds; empty: a number"
        return table


def quality(folder: Path, config: HalphaConfig, name: str) -> Quality:
    """Judge the products in the folder of an object, and write tables and figures beside them.

    Parameters
    ----------
    folder : Path
        With ``{name}_hst_ha_as2.fits`` and the rest; ``{name}_musehalpha.fits`` may be missing.
    config : HalphaConfig
        Its blocks ``checks``, ``nebulae``, ``narrow`` and ``output`` are used.
    name : str
        Of the object.

    Returns
    -------
    Quality

    Raises
    ------
    InputError
        When a product cannot be read, or the label map or the catalogue of nebulae is missing or of another field.
    """
    products = Products(Path(folder), name)
    checks, findings = config.checks, Findings(name)
    labels, catalogue = read_nebulae(config, name)
    final = products.image("hst_ha_as2")
    if final is None:
        raise InputError(
            "there is no such product", source=products.path("hst_ha_as2"), remedy="skyloom run first"
        )
    muse = products.image("musehalpha")
    matched = None if muse is None else bring_to_muse(final, muse, products, config.narrow.band)
    files = []
    figures: dict[str, bytes] = {}
    tables: dict[str, QTable] = {}
    if labels is not None:
        tables["nebulae"] = nebula_table(final, muse, labels, matched, catalogue)
        judge_nebulae(findings, tables["nebulae"], checks, with_muse=muse is not None)
    else:
        findings.add("nebulae", 0, meaning="no label map is configured: regions were not compared")
    empty = empty_regions(final.evolve(modes=()), source_mask(final, muse, labels))
    judge_noise(findings, empty, checks)
    spectra = find_spectra(findings, final, matched, muse)
    if muse is not None and matched is not None:
        judge_pixels(findings, matched, muse, spectra, checks)
    if spectra:
        tables["power"] = power_table(spectra)
    if config.output.figures:
        figures = draw(name, products, tables, empty, spectra, matched, muse)
    tables["qa"] = findings.table()
    if matched is not None:
        path = products.path("qa_matched")
        io.write(matched.evolve(modes=()), path, overwrite=True)
        files.append(path)
    return Quality(
        name, products.folder, (*files, *write_all(products, tables, figures)), tuple(findings.checks)
    )


def read_checks(folder: Path, name: str) -> tuple[Check, ...]:
    """Return the verdicts that the last quality analysis has left in its table."""
    table = QTable.read(Path(folder) / f"{name}_qa.ecsv", format="ascii.ecsv")
    return tuple(
        Check(
            str(row["quantity"]),
            name,
            float(row["value"]),
            float(row["minimum"]),
            float(row["maximum"]),
            meaning=str(row["meaning"]),
        )
        for row in table
        if str(row["verdict"]) in ("passed", "failed")
    )


# --- nebulae --------------------------------------------------------------------------------------------------------


def nebula_table(
    final: Image, muse: Image | None, labels: LabelMap, matched: Image | None, catalogue: QTable | None
) -> QTable:
    """Compare nebulae in both instruments, and with the catalogue where there is one."""
    table = compare_regions(final, muse, labels, matched=matched)
    if catalogue is None:
        return table
    order = np.argsort(catalogue["label"], kind="stable")
    known = np.asarray(catalogue["label"])[order]
    place = np.minimum(np.searchsorted(known, table["label"]), known.size - 1)
    found = known[place] == table["label"]
    n_missing = int(np.count_nonzero(~np.isin(known, table["label"])))
    if n_missing or not found.all():
        warnings.warn(
            f"the catalogue has {n_missing} nebulae that the label map has not, and lacks {int((~found).sum())} of its"
            f" {len(table)}",
            AssumptionWarning,
            stacklevel=2,
        )
    for name in ("flux", "flux_err"):
        if name in catalogue.colnames:
            values = catalogue[name][order][place]
            table[f"catalogue_{name}"] = np.where(found, values.value, np.nan) * values.unit
            table[f"catalogue_{name}"].info.description = "Halpha as the catalogue has it"
    return table


def judge_nebulae(findings: Findings, table: QTable, checks: CheckSettings, *, with_muse: bool) -> None:
    """Note how nebulae compare."""
    findings.add("nebulae", len(table), meaning="in the label map")
    findings.add(
        "nebulae that are whole",
        int(np.count_nonzero(table["whole"])),
        meaning="not cut by a border, by stars or by other masked pixels",
    )
    if not with_muse:
        return
    found: RegionStatistics = region_statistics(table)
    findings.add(
        "nebula ratio", found.ratio, found.ratio_err, bounds=checks.nebula_ratio,
        meaning="median of HST over MUSE, at the PSF of MUSE",
    )  # fmt: skip
    findings.add("nebula ratio, 16 %", found.low, meaning="percentile of HST over MUSE")
    findings.add("nebula ratio, 84 %", found.high, meaning="percentile of HST over MUSE")
    findings.add(
        "faint nebula ratio", found.faint_ratio, found.faint_ratio_err, bounds=checks.faint_ratio,
        meaning="the same of the faintest third",
    )  # fmt: skip
    findings.add("nebula pulls, median", found.pull_median, meaning="of (HST - MUSE) / error")
    # The scatter of a handful says nothing of errors.
    enough = int(np.count_nonzero(np.asarray(table["whole"]))) >= FEWEST_NEBULAE
    findings.add(
        "nebula pulls", found.pull_scatter, found.pull_scatter_err,
        bounds=checks.nebula_pulls if enough else None,
        meaning="scatter of (HST - MUSE) / error; 1 where errors are right"
        + ("" if enough else f" (not judged: fewer than {FEWEST_NEBULAE} whole nebulae)"),
    )  # fmt: skip
    if "catalogue_flux" in table.colnames:
        whole = np.asarray(table["whole"])
        ratio = (table["reference_flux"] / table["catalogue_flux"]).to_value(u.one)[whole]
        known = ratio[np.isfinite(ratio)]
        middle = float(np.median(known)) if known.size else np.nan
        findings.add("catalogue ratio", middle, meaning="median of MUSE, summed here, over the catalogue")


# --- noise ----------------------------------------------------------------------------------------------------------


def source_mask(final: Image, muse: Image | None, labels: LabelMap | None) -> Mask | None:
    """Mark what is not empty: regions of nebulae, grown by two pixels, and all but the faintest part of MUSE.

    Without MUSE: all that stands out of the sky of the image itself.
    """
    if muse is not None:
        bright = np.where(muse.mask, True, muse.data > np.quantile(muse.data[muse.valid], FAINT_SHARE))
        if labels is not None:
            bright |= ndimage.binary_dilation(move_labels(labels, muse).labels >= 0, iterations=2)
        return np.asarray(move_labels(LabelMap(bright.astype(np.int32), muse.wcs), final).labels != 0)
    if labels is not None:
        grown = ndimage.binary_dilation(labels.labels >= 0, iterations=2)
        grown_mask = np.asarray(move_labels(labels.evolve(labels=grown.astype(np.int32)), final).labels > 0)
        return sources_of(final, grown_mask)
    return sources_of(final, None)


def sources_of(final: Image, known: Mask | None) -> Mask:
    """Mark what is not empty by the image itself; all of it where it shows no sky."""
    side = max(1, min(SKY_PIXEL, min(final.shape) // 32))
    coarse = binned(final.evolve(modes=()), side)
    try:
        bright = ~measure_background(coarse).sky_mask
    except InputError:
        return np.ones(final.shape, dtype=bool)
    found = np.asarray(move_labels(LabelMap(bright.astype(np.int32), coarse.wcs), final).labels != 0)
    return found if known is None else found | known


def judge_noise(findings: Findings, empty: EmptyRegions, checks: CheckSettings) -> None:
    """Note how sums in empty regions scatter."""
    for row in empty.table:
        size = int(row["size"].value)
        if int(row["n_boxes"]) < FEWEST_BOXES:
            findings.add(f"empty {size}x{size}", np.nan, meaning="too few source-free boxes of this size")
            continue
        findings.add(
            f"empty {size}x{size}", float(row["ratio"]), float(row["ratio_err"]), bounds=checks.empty_scatter,
            meaning=f"scatter over claimed error of sums over {size}x{size} pixels, {int(row['n_boxes'])} boxes",
        )  # fmt: skip
        findings.add(
            f"empty {size}x{size} scatter", float(row["scatter"].value), unit=str(row["scatter"].unit),
            meaning="of the sum over the pixels of a box",
        )  # fmt: skip


# --- pixels ---------------------------------------------------------------------------------------------------------


def judge_pixels(
    findings: Findings,
    matched: Image,
    muse: Image,
    spectra: Mapping[str, PowerSpectrum],
    checks: CheckSettings,
) -> None:
    """Note how pixels and scales compare."""
    both = matched.valid & muse.valid
    if not both.any():
        findings.add("final slope", np.nan, meaning=f"not judged: {NOTHING_COMMON}")
        findings.add("large-scale power", np.nan, meaning=f"not judged: {NOTHING_COMMON}")
        return
    try:
        fit = fit_anchor(matched.evolve(modes=()), muse)
    except InputError as error:
        findings.add(
            "final slope", np.nan, bounds=checks.final_slope, meaning=f"could not be fitted: {error}"
        )
    else:
        findings.add(
            "final slope", fit.slope, fit.slope_err, bounds=checks.final_slope,
            meaning="of HST against MUSE after all that was applied",
        )  # fmt: skip
        findings.add("final offset", fit.offset, fit.offset_err, str(fit.unit), meaning="of the same fit")
        findings.add("final correlation", fit.correlation, meaning="of the same pixels")
    total = float(np.sum(muse.data[both], dtype=np.float64))
    share = float(np.sum(matched.data[both], dtype=np.float64)) / total if total else np.nan
    findings.add("field ratio", share, meaning="sum over the common field, HST over MUSE")
    if MATCHED not in spectra or "MUSE" not in spectra:
        findings.add("large-scale power", np.nan, meaning="not judged: there are no power spectra of both")
        return
    first, second = spectra[MATCHED], spectra["MUSE"]
    ratio = power_ratio(first, second, LARGE * first.fwhm)
    findings.add(
        "large-scale power", ratio, bounds=checks.large_scale_power,
        meaning=f"HST over MUSE on scales beyond {LARGE:g} FWHM of MUSE, noise taken off",
    )  # fmt: skip


def find_spectra(
    findings: Findings, final: Image, matched: Image | None, muse: Image | None
) -> dict[str, PowerSpectrum]:
    """Return the power spectra that there is something for; note what has too few usable pixels in one piece."""
    images = {"HST": final}
    if muse is not None and matched is not None:
        # Both over the same field, or the window of the one would see what the other does not.
        common = matched.mask | muse.mask
        images |= {MATCHED: matched.evolve(mask=common), "MUSE": muse.evolve(mask=common)}
    spectra = {}
    for name, image in images.items():
        try:
            spectra[name] = power_spectrum(image)
        except InputError as error:
            findings.add(f"power spectrum of {name}", np.nan, meaning=f"not made: {error}")
    return spectra


def power_ratio(first: PowerSpectrum, second: PowerSpectrum, scale: float) -> float:
    """Return the power of one image over that of another on scales above one in arcsec, noise taken off."""
    sums = []
    for spectrum in (first, second):
        table = spectrum.table
        large = table["frequency"].value < 1.0 / scale
        # Each ring by its own size: the lowest frequencies, of which there are few, do not decide alone.
        weight = table["n_modes"][large] * table["frequency"].value[large] ** 2
        sums.append(float(np.sum(weight * (table["power"] - table["noise"]).value[large])))
    return sums[0] / sums[1] if sums[1] > 0 else float("nan")


def power_table(spectra: Mapping[str, PowerSpectrum]) -> QTable:
    """Put power spectra below each other."""
    from astropy.table import vstack

    parts = []
    for name, spectrum in spectra.items():
        part = spectrum.table.copy()
        part.add_column([name] * len(part), name="image", index=0)
        parts.append(part)
    return vstack(parts)


# --- figures and files ----------------------------------------------------------------------------------------------


def draw(
    name: str,
    products: Products,
    tables: Mapping[str, QTable],
    empty: EmptyRegions,
    spectra: Mapping[str, PowerSpectrum],
    matched: Image | None,
    muse: Image | None,
) -> dict[str, bytes]:
    """Draw all figures that there is something for."""
    from skyloom.report.figures import halpha as figures
    from skyloom.report.figures.halpha_pixels import PixelPanel, pixel_figure

    drawn = {
        "qa_noise": figures.noise_figure(f"{name}: empty regions of HST", empty.pulls, empty.table),
    }
    if spectra:
        drawn["qa_power"] = figures.power_figure(
            f"{name}: power spectra of Halpha",
            {key: (item.table, item.fwhm) for key, item in spectra.items()},
        )
    if matched is None or muse is None or not (matched.valid & muse.valid).any():
        return drawn
    if "nebulae" in tables and np.any(tables["nebulae"]["whole"]):
        drawn["qa_nebulae"] = figures.nebula_figure(f"{name}: nebulae in HST and MUSE", tables["nebulae"])
    drawn["qa_maps"] = figures.comparison_maps(f"{name}: Halpha of HST and MUSE", matched, muse)
    panels = [
        PixelPanel(title, image, reference, line, running_median(image, reference), note)
        for title, image, reference, line, note in pixel_pairs(products, matched, muse)
    ]
    drawn["qa_pixels"] = pixel_figure(f"{name}: pixels of HST at the PSF of MUSE", panels)
    return drawn


Pair = tuple[str, Image, Image, tuple[float, float, float, float] | None, str]


def pixel_pairs(products: Products, matched: Image, muse: Image) -> Iterator[Pair]:
    """What is drawn pixel by pixel: Halpha as it came out, and each band with what was fitted to it."""
    note = ""
    line_fit = products.table("linefit")
    if line_fit is not None:
        row = {str(item["name"]): (float(item["value"]), float(item["error"])) for item in line_fit}
        note = f"applied before: slope {row['slope'][0]:.4f} ± {row['slope'][1]:.2g}"
    try:
        fit = fit_anchor(matched.evolve(modes=()), muse)
        final = (fit.slope, fit.slope_err, fit.offset, fit.offset_err)
    except InputError:
        final = None
    yield "Halpha, as it came out", matched, muse, final, note
    bands, own = products.images("matched"), products.images("muse")
    fits = products.table("bandfit")
    rows = {} if fits is None else {str(row["band"]): row for row in fits}
    for key, image in bands.items():
        kind, _, band = key.partition("-")
        reference = own.get(f"band-{band}")
        if kind != "own" or reference is None:
            continue
        line = None
        if band in rows:
            row = rows[band]
            line = tuple(
                float(getattr(row[item], "value", row[item]))
                for item in ("slope", "slope_err", "offset", "offset_err")
            )
        image = image.evolve(mask=image.mask | matched.mask)  # Without stars, as the fits were.
        yield f"{band}, before it was anchored", image, reference, line, ""  # type: ignore[misc]  # four numbers


def write_all(products: Products, tables: Mapping[str, QTable], figures: Mapping[str, bytes]) -> list[Path]:
    """Write tables (ECSV and FITS) and figures."""
    paths: list[Path] = []
    for kind, table in tables.items():
        path = products.path(kind)
        paths.append(write_ecsv(table, path.with_suffix(".ecsv")))
        paths.append(write_fits_table(table, path, kind.upper()))
    for kind in ("nebulae", "pixels", "maps", "noise", "power"):
        # What an earlier analysis has drawn must not be taken for this one.
        if f"qa_{kind}" not in figures:
            products.path(f"qa_{kind}").with_suffix(".png").unlink(missing_ok=True)
    for kind in {"nebulae", "power"} - set(tables):
        for suffix in (".ecsv", ".fits"):
            products.path(kind).with_suffix(suffix).unlink(missing_ok=True)
    for kind, png in figures.items():
        path = products.path(kind).with_suffix(".png")
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_bytes(png)
        paths.append(path)
    return paths
