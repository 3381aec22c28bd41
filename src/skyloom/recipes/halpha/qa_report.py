"""The quality analysis as sections of a report, and ``skyloom qa``, which judges a folder of products again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from astropy.table import QTable

from skyloom.core.execution import collected_notes
from skyloom.errors import ConfigError, InputError
from skyloom.recipes.config import load_config, resolved_yaml
from skyloom.recipes.halpha.config import HalphaConfig
from skyloom.recipes.halpha.products import ObjectProduct
from skyloom.recipes.halpha.qa import QA_KINDS, Quality, quality
from skyloom.recipes.reporting import checks_sentence
from skyloom.recipes.result import ItemFailure, RunResult
from skyloom.report.html import write_report
from skyloom.report.model import DataTable, Product, ReportFigure, RunReport, Section

__all__ = ["judge_run", "quality_sections"]

CHANGEABLE = ("checks.", "nebulae", "output.figures")
SHOWN_NEBULAE = 12
CAPTIONS = {
    "qa_nebulae": (
        "Nebulae",
        "HST at the PSF of MUSE, so that both have lost the same light beyond the regions. Open circles: cut by a "
        "border, or masked in part; they are in no number.",
    ),
    "qa_pixels": (
        "Pixels",
        "Pixels of MUSE. Line: what was fitted, with its error. Bands are shown before offset and slope were "
        "taken off.",
    ),
    "qa_maps": ("Maps", "Circle: the PSF. Grey: unusable, or too faint for a ratio."),
    "qa_noise": (
        "Noise",
        "Boxes in source-free areas, each less the mean of those on either side, over the error that variance and "
        "correlation give.",
    ),
    "qa_power": (
        "Power spectra",
        "Averaged over directions, with a smooth border. Dashed: noise as claimed. Dotted: the widths of the PSFs.",
    ),
}
RERUN_TABLES = ("alignment", "bandfit", "linefit", "products")


def quality_sections(folder: Path, name: str) -> tuple[Section, ...]:
    """Return what a report shows of the quality analysis of an object; nothing when there was none."""
    folder = Path(folder)
    path = folder / f"{name}_qa.ecsv"
    if not path.is_file():
        return ()
    figures = tuple(
        ReportFigure(f"{name}: {title.lower()}", png.read_bytes(), caption, "qa")
        for kind, (title, caption) in CAPTIONS.items()
        if (png := folder / f"{name}_{kind}.png").is_file()
    )
    table = QTable.read(path, format="ascii.ecsv")
    verdicts = [str(verdict) for verdict in table["verdict"]]
    failed = [
        str(item) for item, verdict in zip(table["quantity"], verdicts, strict=True) if verdict == "failed"
    ]
    judged = len(failed) + verdicts.count("passed")
    text = f"{judged - len(failed)} of {judged} checks of quality passed"
    text += f"; not {', '.join(failed)}." if failed else "."
    tables = [DataTable.from_astropy(f"{name}: figures and verdicts", table, source=path)]
    nebulae = folder / f"{name}_nebulae.ecsv"
    if nebulae.is_file():
        tables.append(_brightest(QTable.read(nebulae, format="ascii.ecsv"), nebulae))
    else:
        text += " No label map of nebulae is configured: regions were not compared."
    return (Section(f"{name}: quality", text, figures, tuple(tables)),)


def _brightest(table: QTable, source: Path) -> DataTable:
    order = table["flux"].value.argsort()[::-1][:SHOWN_NEBULAE]
    caption = f"The brightest {len(order)} of {len(table)}; all are in {source.name}."
    return DataTable.from_astropy("Nebulae", table[order], caption, source)


def judge_run(directory: str | Path, overrides: Iterable[str] = ()) -> RunResult:
    """Judge the products of a run again, and write the page ``qa.html``.

    Parameters
    ----------
    directory : str or Path
        The folder of a run, with its ``config.yaml``.
    overrides : iterable of str
        ``checks.x=y`` and the like: bounds, nebulae, whether figures are drawn. All else decides how the products were
        made, and is refused.

    Returns
    -------
    RunResult
        Nothing is made anew but tables, figures and verdicts.

    Raises
    ------
    InputError
        When the folder holds no run of ``halpha``, or an override concerns the products.
    """
    directory, overrides = Path(directory), list(overrides)
    path = directory / "config.yaml"
    if not path.is_file():
        raise InputError(
            "there is no config.yaml",
            source=directory,
            remedy="give the folder of the products of skyloom run",
        )
    for item in overrides:
        if not item.strip().startswith(CHANGEABLE):
            raise ConfigError(
                "products are not made anew here",
                source="--set",
                field=item.partition("=")[0],
                remedy="use skyloom run for it; here are checks.*, nebulae.* and output.figures",
            )
    config = load_config(path, HalphaConfig, overrides)
    done: list[tuple[Quality, tuple[str, ...]]] = []
    failures: dict[str, str] = {}
    for name in config.object_names():
        try:
            with collected_notes() as notes:
                done.append((_judge_object(directory / name, config, name), tuple(notes)))
        except InputError as error:
            if len(config.object_names()) == 1:
                raise
            failures[name] = str(error)
    return _result(directory, config, done, failures)


def _judge_object(folder: Path, config: HalphaConfig, name: str) -> Quality:
    found = quality(folder, config, name)
    # The run's own record no longer describes these files; without it the next run judges once more, quietly.
    (folder / "stages" / "qa.json").unlink(missing_ok=True)
    return found


def _result(
    directory: Path,
    config: HalphaConfig,
    done: list[tuple[Quality, tuple[str, ...]]],
    failures: dict[str, str],
) -> RunResult:
    from skyloom.recipes.halpha.report import science_checks

    products = []
    for item, notes in done:
        tables = {
            kind: QTable.read(path, format="ascii.ecsv")
            for kind in RERUN_TABLES
            if (path := item.folder / f"{item.name}_{kind}.ecsv").is_file()
        }
        products.append(ObjectProduct(item.name, item.files, False, {}, tables, notes, checks=item.checks))
    checks = science_checks(products, config.checks)
    files = tuple(path for item, _ in done for path in item.files)
    page = RunReport(
        title=f"halpha, quality: {len(products)} {'galaxy' if len(products) == 1 else 'galaxies'}",
        summary=f"{checks_sentence(checks)} No image was made anew.",
        config_yaml=resolved_yaml(config),
        sections=tuple(section for item, _ in done for section in quality_sections(item.folder, item.name)),
        checks=checks,
        products=tuple(Product(path, _described(path)) for path in files),
        failures=failures,
    )
    report = write_report(page, directory / "qa.html")
    return RunResult(
        recipe="halpha: quality",
        directory=directory,
        products=files,
        failures=tuple(ItemFailure(*item) for item in failures.items()),
        checks=checks,
        report=report,
    )


def _described(path: Path) -> str:
    if path.suffix == ".png":
        return "figure"
    kind = next(
        (kind for kind in sorted(QA_KINDS, key=len, reverse=True) if path.stem.endswith(f"_{kind}")), ""
    )
    return QA_KINDS.get(kind, "")
