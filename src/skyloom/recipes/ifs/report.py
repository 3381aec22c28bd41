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
from skyloom.recipes.config import resolved_yaml
from skyloom.recipes.ifs.config import CheckSettings, IfsConfig
from skyloom.recipes.ifs.fit_report import FIT_FILES, fit_checks, fit_tables, fit_text
from skyloom.recipes.ifs.inputs import Source, rest_marks
from skyloom.recipes.ifs.noise import NoiseModel
from skyloom.recipes.ifs.products import TO_TARGET, Maps, ObjectProduct, Record, object_folder, summary_table
from skyloom.report.model import Check, DataTable, InputSummary, Product, ReportFigure, RunReport, Section

__all__ = ["build_report", "draw_figures", "science_checks"]

SHOWN_OBJECTS = 12  # A page with the figures of hundreds of objects would not open.
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
    save("bins", lambda: bin_maps(f"{name}: bins", labels, table, target))
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
    timings: dict[str, float],
) -> RunReport:
    """Gather everything that the report of a run shows."""
    done = [outcome.result for outcome in outcomes if outcome.result is not None]
    failures = {outcome.item: outcome.failure for outcome in outcomes if outcome.failure}
    failures |= dict(failure for item in done for failure in item.failures)
    failed = sum(not check.passed for check in checks)
    bins = sum(item.record["n_bins"] for item in done)
    stages = {
        f"{stage} of all objects": sum(item.seconds.get(stage, (0.0, 0.0))[0] for item in done)
        for stage in dict.fromkeys(stage for item in done for stage in item.seconds)
    }
    sections = [_summary_section(done)] if done else []
    sections += [_object_section(item) for item in done[:SHOWN_OBJECTS]]
    return RunReport(
        title=f"ifs: {len(outcomes)} {'cube' if len(outcomes) == 1 else 'cubes'}",
        summary=(
            f"{len(done)} of {len(outcomes)} cubes were mapped in {_lines(config)} and put into {bins} bins by the "
            f"method {config.binning.method}. {len(checks) - failed} of {len(checks)} science checks passed."
        ),
        config_yaml=resolved_yaml(config),
        sections=(*sections, *_notes_section(outcomes, done)),
        checks=checks,
        inputs=tuple(_input(item) for item in done),
        products=tuple(Product(path, _described(path)) for path in products if not _is_one_of_many(path)),
        failures=failures,
        timings={**stages, **timings},
    )


def _lines(config: IfsConfig) -> str:
    return " + ".join(str(line) for line in config.snr.line)


def _summary_section(done: Sequence[ObjectProduct]) -> Section:
    table = DataTable.from_astropy("Objects", summary_table(done))
    hidden = len(done) - min(len(done), SHOWN_OBJECTS)
    text = f"Figures of {hidden} more objects are among the products." if hidden else ""
    return Section("Objects", text, tables=(table,))


def _object_section(item: ObjectProduct) -> Section:
    figures = tuple(
        ReportFigure(path.stem.removeprefix(f"{item.name}_").replace("_", " "), path.read_bytes())
        for path in item.files
        if path.suffix == ".png"
    )
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
    return Section(item.name, " ".join(parts), figures, fit_tables(record["fits"]))


def _notes_section(outcomes: Outcomes, done: Sequence[ObjectProduct]) -> tuple[Section, ...]:
    rows = [(outcome.item, note) for outcome in outcomes for note in outcome.notes]
    rows += [(item.name, note) for item in done for note in item.notes]
    if not rows:
        return ()
    rows = list(dict.fromkeys(rows))
    table = DataTable("Notes", ("item", "note"), tuple(rows))
    return (Section("Notes", "What had to be repaired or assumed.", tables=(table,)),)


def _input(item: ObjectProduct) -> InputSummary:
    record = item.record
    n_wave, ny, nx = record["shape"]
    low, high = record["wave"]
    facts = {
        "object": item.name,
        "instrument": record["instrument"],
        "shape": f"{n_wave} channels, {ny} x {nx} spaxels",
        "wavelengths": f"{low:.1f} to {high:.1f} A in {record['medium']}",
        "unit": record["unit"],
    }
    return InputSummary(record["cube"], facts)


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
    "config.yaml": "the resolved configuration; running it again gives the same products",
}


def _described(path: Path) -> str:
    if path.suffix == ".png":
        return "figure"
    return next((text for end, text in _DESCRIPTIONS.items() if path.name.endswith(end)), "")


def _is_one_of_many(path: Path) -> bool:
    """Files for STARLIGHT are thousands; their grids stand for them."""
    return path.parent.name.endswith("_starlight") and not path.name.startswith("grid")
