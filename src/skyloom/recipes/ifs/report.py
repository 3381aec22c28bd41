"""The report of an ``ifs`` run: checks, figures and tables from what is known of its objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from astropy.table import QTable

from skyloom.core.execution import Outcome
from skyloom.core.labels import LabelMap
from skyloom.core.spectra import Spectra
from skyloom.io.formats.atomic import atomic_path
from skyloom.recipes.citations import citations
from skyloom.recipes.config import resolved_yaml
from skyloom.recipes.ifs.config import CheckSettings, IfsConfig
from skyloom.recipes.ifs.fit_report import FIT_FILES, fit_checks, fit_tables, fit_text
from skyloom.recipes.ifs.inputs import Source, rest_marks
from skyloom.recipes.ifs.noise import NoiseModel
from skyloom.recipes.ifs.products import TO_TARGET, Maps, ObjectProduct, Record, object_folder, summary_table
from skyloom.recipes.reporting import (
    COMMON_FILES,
    SHOWN_OBJECTS,
    added_steps,
    checks_sentence,
    described_by,
    failures_of,
    hidden_sentence,
    inspected,
    notes_of,
    notes_section,
    object_figures,
)
from skyloom.report.model import Check, DataTable, Product, RunReport, Section, StepRecord

__all__ = ["build_report", "draw_figures", "science_checks"]

SHOWN_SPECTRA = 4
Outcomes = list[Outcome[ObjectProduct]]


# --- figures of one object ------------------------------------------------------------------------------------------


def draw_figures(
    source: Source, noise: NoiseModel, maps: Maps, labels: LabelMap, spectra: Spectra, table: QTable
) -> tuple[Path, ...]:
    """Draw the maps, the bins, spectra of some bins and the noise; return the files."""
    # matplotlib takes a second to import, which a run without figures need not spend.
    from skyloom.report.figures.ifs import bin_maps, bin_spectra, cube_noise, line_maps, velocity_map

    name, folder = source.name, object_folder(source)
    drawn: list[Path] = []

    def save(kind: str, draw: Callable[[], bytes]) -> None:
        path = folder / f"{name}_{kind}.png"
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_bytes(draw())
        drawn.append(path)

    for line, item in maps.lines.items():
        save(f"map_{line}", partial(line_maps, f"{name}: {line}", item.signal, item.noise, item.snr))
    if maps.velocity is not None:
        velocity = maps.velocity
        save("velocity", lambda: velocity_map(f"{name}: velocity of the first pass", velocity))
    binning = source.config.binning
    target = binning.target if binning.method in TO_TARGET else None
    psf = maps.main.signal.psf
    save("bins", lambda: bin_maps(f"{name}: bins", labels, table, target, psf=psf))
    rows = shown_rows(table)
    names = [spectrum_name(table, row) for row in rows]
    save(
        "spectra",
        lambda: bin_spectra(
            f"{name}: spectra of bins",
            spectra,
            rows,
            names,
            marks=rest_marks(spectra, source.redshift),
            shaded=source.config.sky_residuals,
        ),
    )
    scale, (spatial, spectral) = noise.scale, noise.correlation
    save("noise", lambda: cube_noise(f"{name}: noise", source.cube.wave, scale, spatial, spectral))
    return tuple(drawn)


def spectrum_name(table: QTable, row: int) -> str:
    """Say which bin a spectrum is of."""
    n_pixels = int(table["n_pixels"][row])
    size = "1 spaxel" if n_pixels == 1 else f"{n_pixels} spaxels"
    return f"bin {table['id'][row]}: {size}, S/N {float(table['snr'][row]):.1f}"


def shown_rows(table: QTable) -> list[int]:
    """Choose bins to show: from the smallest to the largest."""
    order = np.argsort(np.asarray(table["n_pixels"]), kind="stable")
    places = np.linspace(0, len(order) - 1, min(SHOWN_SPECTRA, len(order))).round().astype(int)
    return [int(order[place]) for place in dict.fromkeys(places.tolist())]


# --- checks ---------------------------------------------------------------------------------------------------------


def science_checks(products: Sequence[ObjectProduct], settings: CheckSettings) -> tuple[Check, ...]:
    """Hold every object against the bounds of the configuration."""
    return tuple(check for item in products for check in _object_checks(item.name, item.record, settings))


def _object_checks(name: str, record: Record, settings: CheckSettings) -> Iterator[Check]:
    if not math.isnan(record["noise_scale"]):
        low, high = settings.noise_scale
        yield Check(
            "noise scale",
            name,
            record["noise_scale"],
            minimum=low,
            maximum=high,
            meaning="measured over claimed standard deviation in line-free channels",
        )
    if not math.isnan(record["bin_noise"]):
        low, high = settings.bin_noise
        yield Check(
            "bin noise",
            name,
            record["bin_noise"],
            minimum=low,
            maximum=high,
            meaning="median over bins of measured over claimed noise in their spectra",
        )
    if record["method"] in TO_TARGET:
        yield Check(
            "below target",
            name,
            record["below_target"],
            maximum=settings.below_target,
            meaning="share of bins below the target that are not said to be a remainder",
        )
        yield Check(
            "remainder",
            name,
            record["remainder"],
            maximum=settings.remainder,
            meaning="share of the light that is in bins below the target, which the data do not allow",
        )
    yield from fit_checks(name, record, settings)


# --- report ---------------------------------------------------------------------------------------------------------


def build_report(
    config: IfsConfig,
    outcomes: Outcomes,
    checks: tuple[Check, ...],
    products: tuple[Path, ...],
    total: StepRecord | None = None,
) -> RunReport:
    """Gather everything that the report of a run shows."""
    done = [outcome.result for outcome in outcomes if outcome.result is not None]
    bins = sum(item.record["n_bins"] for item in done)
    summary = next((path for path in products if path.name == "summary.ecsv"), None)
    sections = [_summary_section(done, summary)] if done else []
    sections += [_object_section(item) for item in done[:SHOWN_OBJECTS]]
    return RunReport(
        title=f"ifs: {len(outcomes)} {'cube' if len(outcomes) == 1 else 'cubes'}",
        summary=(
            f"{len(done)} of {len(outcomes)} cubes were mapped in {_lines(config)} and put into {bins} bins by the "
            f"method {config.binning.method}. {checks_sentence(checks)}"
        ),
        config_yaml=resolved_yaml(config),
        sections=(*sections, *notes_section(notes_of(outcomes))),
        checks=checks,
        products=tuple(
            Product(path, described_by(_DESCRIPTIONS, path), path.name.endswith(MAIN))
            for path in products
            if not _is_one_of_many(path)
        ),
        failures=failures_of(outcomes),
        steps=added_steps((item.steps for item in done), STEPS),
        total=total,
        citations=citations(_used(config, done)),
        **inspected(
            (path for item in done for path in item.record["inputs"]),
            {item.record["cube"]: _known(item.record, item.name) for item in done},
        ),
    )


def _used(config: IfsConfig, done: Sequence[ObjectProduct]) -> Iterator[tuple[str, str]]:
    """Tell which papers the methods of a run are from."""
    if config.binning.method == "voronoi":
        yield "cappellari2003", "adaptive binning to a target of signal over noise"
        yield "diehl2006", "weighted Voronoi tessellation"
    if config.binning.method == "quadtree" or config.snr.method == "peak":
        yield "gonzalezdiaz2024", "bins and signal over noise as BETIS makes them"
    if any(item.record["a_v"] for item in done):
        yield _CURVES[config.extinction.curve], "extinction curve of the Milky Way"
    if config.continuum.chosen != "none":
        yield "cappellari2017", "penalised fits of stellar continua"
    if config.continuum.chosen == "ppxf":
        yield "cappellari2023", "pPXF"
    if config.lines != "none":
        yield "golub1973", "fits of lines by variable projection"
        yield "baldwin1981", "diagrams of line ratios"
        yield "kewley2001", "demarcations in them"
        yield "kauffmann2003", "demarcations in them"
        yield "lacerda2018", "classes of diffuse gas by the equivalent width of Halpha"


def _lines(config: IfsConfig) -> str:
    return " + ".join(str(line) for line in config.snr.line)


def _summary_section(done: Sequence[ObjectProduct], source: Path | None) -> Section:
    table = DataTable.from_astropy("Objects", summary_table(done), source=source)
    return Section("Objects", hidden_sentence(len(done)), tables=(table,))


def _object_section(item: ObjectProduct) -> Section:
    record = item.record
    parts = [
        f"Redshift {record['redshift']:.6g}. Milky Way: {record['extinction']}.",
        f"{record['n_spaxels']} spaxels in {record['n_bins']} bins, median S/N {record['median_snr']:.3g}.",
    ]
    if not math.isnan(record["noise_scale"]):
        parts.append(
            f"Noise in line-free channels: {record['noise_scale']:.3f} ± {record['noise_scale_err']:.3f} of what the"
            f" file claims; the noise of a large sum is {math.sqrt(max(record['spatial_sum'], 0.0)):.2f} times that of"
            " independent spaxels."
        )
    if record["fits"] is not None:
        parts.append(fit_text(record["fits"]))
    tables = fit_tables(record["fits"])
    return Section(
        item.name, " ".join(parts), object_figures(item.name, item.files, FIGURE_STEPS, CAPTIONS), tables
    )


def _known(record: Record, name: str) -> dict[str, str]:
    n_wave, ny, nx = record["shape"]
    low, high = record["wave"]
    return {
        "object": name,
        "read as": f"{n_wave} channels of {ny} x {nx} spaxels, {low:.1f} to {high:.1f} A in {record['medium']}, in"
        f" {record['unit']}",
    }


MAIN = ("_line_maps.fits", "_maps.fits", "_lines.ecsv", "summary.ecsv", "checks.ecsv")
_CURVES = {"fitzpatrick99": "fitzpatrick1999", "ccm89": "cardelli1989", "odonnell94": "odonnell1994"}
STEPS = {
    "noise": "errors of the cube are held against its scatter; correlation of spaxels and channels",
    "maps": "signal, noise and S/N of the lines in each spaxel",
    "bins": "spaxels are put together until they reach the target",
    "spectra": "spectra of the bins, with the covariance of the spaxels",
    "table": "place, size and S/N of each bin",
    "resampled": "the cube on other wavelengths",
    "starlight": "files for STARLIGHT",
    "figures": "figures of all that came before",
    "continuum": "the light of stars in each bin",
    "lines": "emission lines in each bin",
    "fits": "maps and tables of lines, stars and what follows from them",
    "fit_figures": "figures of the fits",
}
FIGURE_STEPS = {
    "noise": "noise", "map_": "maps", "velocity": "maps", "bins": "bins", "spectra": "spectra",
    "line_fits": "lines", "fit_": "fits", "stars_": "continuum", "": "fits",
}  # fmt: skip
CAPTIONS = {
    "map_": "Grey: unusable. White circle: FWHM of the PSF.",
    "fit_": "Velocity and dispersion are shown where the line itself has told them (S/N of at least 3).",
    "bins": "Colours tell neighbours apart, nothing else.",
    "spectra": "Bands: one standard deviation. Grey: residuals of the sky.",
    "noise": "Left: 1 is what the file claims.",
}
_DESCRIPTIONS = {
    **FIT_FILES,
    "_noise.fits": "scale of the errors and correlation of the noise",
    "_maps.fits": "signal, noise and S/N of each line, with errors, masks and WCS",
    "_bins.fits": "label of the bin of each spaxel",
    ".map": "pixels of each bin, as text",
    "_spectra.fits": "spectrum, variance and mask of each bin",
    "_table.ecsv": "the bins: place, size, S/N claimed and measured, as text",
    "_table.fits": "the same as a FITS table",
    ".resam.fits": "resampled cube: data and errors",
    "summary.ecsv": "one row per object, as text",
    "summary.fits": "the same as a FITS table",
    **COMMON_FILES,
}


def _is_one_of_many(path: Path) -> bool:
    """Files for STARLIGHT are thousands; their grids stand for them."""
    return path.parent.name.endswith("_starlight") and not path.name.startswith("grid")
