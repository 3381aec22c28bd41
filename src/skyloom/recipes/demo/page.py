"""The first page of the demonstration: what went in, what came out, how far from the truth, what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from skyloom.mock.galaxy import DISTANCE_MPC
from skyloom.mock.galaxy_files import BROAD_BANDS, NAME, GalaxyFiles
from skyloom.recipes.demo.comparison import Comparison, MapPair
from skyloom.recipes.demo.portrait import galaxy_portrait
from skyloom.recipes.result import RunResult
from skyloom.report.figures.demo import PullRow, pull_overview, truth_maps
from skyloom.report.first_page import Command, FirstPage, RunCard, TruthRow, write_page
from skyloom.report.html import format_bytes, format_seconds
from skyloom.report.model import DataTable, ReportFigure

__all__ = ["write_first_page"]

TABLE = "truth_comparison.ecsv"
SENTENCES = {
    "homogenize": (
        "Four bands of Hubble with PSFs of 0.1 to 0.2 arcsec, on two pixel grids, brought to one PSF and one grid:"
        " without sky, masked to the galaxy, with the noise and its correlation measured in each image."
    ),
    "ifs": (
        "The cube of MUSE in bins of equal S/N: the stars' light fitted and taken off, emission lines fitted with the"
        " width of the instrument taken out, maps of fluxes, velocities and widths with errors."
    ),
    "halpha": (
        "Hubble's narrow band less its continuum, tied to MUSE, which knows the true zero of the sky and the true"
        " scale: a map of Halpha at the resolution of Hubble. [N II] and the stars' absorption are taken off."
    ),
    "store": (
        "Frames and spectra of SDSS, the images of Hubble, the cube of MUSE and the products of the other recipes in"
        " one place, found by sky position, time and wavelength, at every resolution with errors."
    ),
}
PRODUCTS: dict[str, tuple[tuple[str, str], ...]] = {
    "homogenize": (
        (f"objects/{NAME}.fits", "all bands with variance, correlation, PSF, mask and history"),
        ("photometry.ecsv", "fluxes in the mask"),
        (f"objects/{NAME}_sheet.png", "contact sheet"),
    ),
    "ifs": (
        (f"{NAME}/{NAME}_line_maps.fits", "maps of all lines with errors"),
        (f"{NAME}/{NAME}_lines.ecsv", "the same as a table of bins"),
        (f"{NAME}/{NAME}_spectra.fits", "spectra of the bins"),
    ),
    "halpha": (
        (f"{NAME}/{NAME}_hst_ha.fits", "Halpha in flux per pixel, with errors"),
        (f"{NAME}/{NAME}_sfr.fits", "star formation per area"),
        (f"{NAME}/{NAME}_nebulae.ecsv", "nebulae in both instruments"),
    ),
    "store": (("master.h5", "the index of everything"), ("manifest.jsonl", "the journal")),
}


def write_first_page(
    files: GalaxyFiles,
    results: Mapping[str, RunResult],
    rows: Sequence[Comparison],
    maps: Mapping[str, MapPair],
    folder: Path,
    seconds: Mapping[str, float],
) -> Path:
    """Write ``report.html``.

    Parameters
    ----------
    files : GalaxyFiles
    results : mapping of recipe to RunResult
    rows : sequence of Comparison
    maps : mapping of recipe to MapPair
        A product of each beside its truth.
    folder : Path
    seconds : mapping of step to float
        By the clock.
    """
    failed = [row for row in rows if not row.passed]
    checks = [check for result in results.values() for check in result.checks]
    wrong = [check for check in checks if not check.passed]
    total = sum(seconds.values())
    chips: list[tuple[str, bool | None]] = [
        (f"{len(rows) - len(failed)} of {len(rows)} comparisons with the truth passed", not failed),
        (f"{len(checks) - len(wrong)} of {len(checks)} science checks passed", not wrong),
        (f"{len(results)} recipes in {format_seconds(total)}", None),
    ]
    page = FirstPage(
        "One galaxy, three telescopes, four recipes",
        "A mock spiral of which everything is known was observed by Hubble, MUSE and SDSS. Skyloom made maps, spectra"
        " and catalogues of the files; this page sets them beside the truth.",
        tuple(chips),
        ReportFigure(
            "The galaxy in all four recipes",
            galaxy_portrait(folder, recipes=[recipe for recipe, result in results.items() if not result.failures]),
            "What the recipes made of it. Each view has its scale bar, compass and the width of its PSF.",
        ),
        _story(files),
        _inputs(files),
        tuple(_card(recipe, result, maps.get(recipe), seconds) for recipe, result in results.items()),
        tuple(
            TruthRow(
                row.recipe, row.quantity, row.n, row.bias, row.unit, row.mean, row.spread,
                row.allowed.text(row.unit), row.passed, row.meaning,
            )
            for row in rows
        ),
        ReportFigure("Pulls", _pulls(rows)),
        folder / TABLE,
        _commands(folder),
    )  # fmt: skip
    return write_page(page, folder / "report.html")


def _story(files: GalaxyFiles) -> str:
    near, size = files.scene.near, files.size
    sky = ", ".join(f"{1e3 * level:.3g}" for level in files.model.sky.values())
    return (
        f"A spiral at redshift {near.redshift:g} ({DISTANCE_MPC:g} Mpc), with a scale length of"
        f" {near.scale_length:.2f} arcsec, an axis ratio of {near.axis_ratio:g} and {size.n_nebulae} HII regions, made"
        f" of {len(near.scene)} Gaussians, each with stars, dust, a velocity and emission lines of its own. Every file"
        " is that one sum, seen through the pixels, the PSF and the noise of its instrument. Hubble's images have"
        f" left-over sky ({sky} thousandths of an electron per second and pixel in {', '.join(files.model.sky)}),"
        " drizzled noise and cosmic rays; the cube has residuals of sky lines and correlated noise; SDSS"
        " counts whole photons."
    )


def _inputs(files: GalaxyFiles) -> tuple[DataTable, DataTable]:
    mock, size = files.directory, files.size
    described = (
        (
            "hst/", "Hubble",
            f"f658n (Halpha) and {', '.join(BROAD_BANDS)} with weights, {len(files.scene.psf_stars)} stars for the"
            " PSFs, segmentation map",
        ),
        (
            "muse/", "MUSE",
            f"a cube of {size.cube} x {size.cube} spaxels, {size.wave_range[0]:g} to {size.wave_range[1]:g} Å; images"
            " in Hubble's bands, maps of lines, nebulae",
        ),
        (
            "sdss/", "SDSS",
            f"{5 * size.n_epochs} frames (ugriz, {size.n_epochs} {'night' if size.n_epochs == 1 else 'nights'}),"
            f" {size.n_spectra} fibre spectra of the galaxy, stars and other galaxies",
        ),
        ("truth/", "the truth", "the same without noise; tables of regions, lines and sources"),
    )  # fmt: skip
    rows = tuple((f"mock/{place}", who, what, _size(mock / place)) for place, who, what in described)
    numbers = (
        ("redshift", f"{files.scene.near.redshift:g}"),
        ("rotation along the line of sight", f"±{_rotation(files):.0f} km/s"),
        ("Halpha flux", f"{1e15 * _halpha(files):.1f} × 10⁻¹⁵ erg s⁻¹ cm⁻²"),
        *(
            (f"flux in {name}", f"{files.scene.galaxy.band_fluxes(files.bands[name].bandpass).sum() * 1e17:.2f}"
             " × 10⁻¹⁷ erg s⁻¹ cm⁻² Å⁻¹")
            for name in BROAD_BANDS
        ),
    )  # fmt: skip
    return (
        DataTable("The files", ("folder", "from", "what", "size"), rows),
        DataTable("The truth in numbers", ("of the whole galaxy", "value"), numbers),
    )


def _rotation(files: GalaxyFiles) -> float:
    velocity = files.scene.galaxy.collect("gas_velocity")
    return float(abs(velocity).max())


def _halpha(files: GalaxyFiles) -> float:
    return float(files.scene.galaxy.line_fluxes("Halpha").sum())


def _size(folder: Path) -> str:
    return format_bytes(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


def _card(recipe: str, result: RunResult, pair: MapPair | None, seconds: Mapping[str, float]) -> RunCard:
    failed = [check for check in result.checks if not check.passed]
    facts = [f"{format_seconds(seconds[recipe])}"]
    if result.checks:
        facts.append(f"{len(result.checks) - len(failed)} of {len(result.checks)} science checks passed")
    facts.append(result.summary or f"{len(result.products)} files")
    verdict = "; ".join(
        [f"{check.name}, {check.item}: {check.value:.4g}, not {check.bounds}" for check in failed]
        + [f"{failure.item}: {failure.reason}" for failure in result.failures]
    )
    figure = ReportFigure("No picture", b"") if pair is None else _figure(pair)
    products = tuple(
        (result.directory / path, text)
        for path, text in PRODUCTS[recipe]
        if (result.directory / path).exists()
    )
    return RunCard(recipe, SENTENCES[recipe], figure, result.report, products, tuple(facts), verdict)


def _figure(pair: MapPair) -> ReportFigure:
    png = truth_maps(
        pair.title, pair.measured, pair.truth, pair.pull, pair.pulls, unit=pair.unit, kind=pair.kind,
        counted=pair.counted,
    )  # fmt: skip
    return ReportFigure(pair.title, png, pair.caption)


def _pulls(rows: Sequence[Comparison]) -> bytes:
    shown = [
        PullRow(row.recipe, row.quantity, row.mean, row.spread, row.allowed.mean, row.allowed.spread)
        for row in rows
        if row.pulls.size
    ]
    return pull_overview(shown)


def _commands(folder: Path) -> tuple[tuple[str, tuple[Command, ...]], ...]:
    name = folder.name
    return (
        (
            "With this galaxy",
            (
                Command(f"skyloom view {name}", "maps, spectra and the store in the browser"),
                Command(f"skyloom inspect {name}/mock/muse/galaxy_cube.fits", "what Skyloom sees in a file"),
                Command(
                    f"skyloom run {name}/mock/ifs.yaml --set binning.target=40 --out bins",
                    "the same cube in larger bins",
                ),
                Command(
                    f"skyloom run {name}/mock/halpha.yaml --set muse=none --out alone", "Halpha without MUSE"
                ),
                Command(
                    f"skyloom store query {name}/store --cone 38.33 -0.107 0.01",
                    "everything that the store has of the galaxy",
                ),
            ),
        ),
        (
            "With your own data",
            (
                Command("skyloom inspect YOUR_FILE.fits", "shape, unit, errors, PSF, and what is suspicious"),
                Command(
                    "skyloom init ifs > ifs.yaml", "a commented configuration; or homogenize, halpha, store"
                ),
                Command(
                    "skyloom run ifs.yaml", "products and a report; run again, and only what changed is done"
                ),
                Command("skyloom view ifs", "look at what came out"),
            ),
        ),
    )
