"""The demonstration: a mock galaxy of Hubble, MUSE and SDSS, of which everything is known, through all recipes.

Each recipe runs on files as an observer has them, with a configuration that can be run again by hand. What comes out is
set beside the scene that the files were made of.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skyloom.errors import InputError
from skyloom.recipes.demo.aside import Aside
from skyloom.recipes.demo.comparison import Comparison, MapPair, comparison_table
from skyloom.recipes.demo.warm import compiling
from skyloom.recipes.registry import RECIPES
from skyloom.recipes.result import ExitCode, RunResult

if TYPE_CHECKING:
    from astropy.table import QTable

    from skyloom.mock.galaxy_files import GalaxyFiles
    from skyloom.recipes.result import Progress

__all__ = ["DemoResult", "demo"]

TABLE = "truth_comparison.ecsv"
CUBE = "ifs"
"""The recipe that takes longest, and needs nothing of the others."""
OWN = {"mock", *RECIPES, TABLE, "report.html"}
"""What a demonstration leaves in its folder."""
# Figures of single bins take longer than all of the small cube's fits.
_SETTINGS: dict[str, dict[str, tuple[str, ...]]] = {"full": {}, "small": {"ifs": ("output.figures=false",)}}


@dataclass(frozen=True, slots=True, eq=False)
class DemoResult:
    """What the demonstration has made.

    Attributes
    ----------
    directory : Path
    results : dict of str to RunResult
        By recipe.
    rows : tuple of Comparison
        Measured quantities beside their truth.
    comparison : QTable
        The same as it was written to ``truth_comparison.ecsv``.
    report : Path
        The first page.
    """

    directory: Path
    results: dict[str, RunResult]
    rows: tuple[Comparison, ...]
    comparison: QTable
    report: Path

    @property
    def exit_code(self) -> ExitCode:
        """Failed items weigh more than failed checks; a quantity too far from its truth is a failed check."""
        codes = [result.exit_code for result in self.results.values()]
        if ExitCode.ITEMS_FAILED in codes:
            return ExitCode.ITEMS_FAILED
        if ExitCode.CHECK_FAILED in codes or not all(row.passed for row in self.rows):
            return ExitCode.CHECK_FAILED
        return ExitCode.DONE


def demo(
    directory: str | Path,
    *,
    workers: int = 1,
    progress: Progress | None = None,
    begin: Callable[[str], None] | None = None,
    size: str = "full",
    seed: int = 1,
) -> DemoResult:
    """Observe one mock galaxy with Hubble, MUSE and SDSS, run all recipes, and compare with the truth.

    Parameters
    ----------
    directory : str or Path
        Receives ``mock/``, a folder for each recipe, ``truth_comparison.ecsv`` and ``report.html``. What an earlier
        demonstration left there is replaced.
    workers : int
        With more than one the cube is worked on in a process of its own, beside everything else.
    progress : callable, optional
        Told what each recipe tells.
    begin : callable, optional
        Told what begins: ``mock``, the recipes, ``truth``.
    size : {"full", "small"}
        As for `skyloom.mock.galaxy_files.write_galaxy_mock`.
    seed : int

    Returns
    -------
    DemoResult

    Raises
    ------
    InputError
        When the folder cannot be written to.
    """
    from skyloom.io.formats.tables import write_ecsv
    from skyloom.mock.galaxy_files import write_galaxy_mock
    from skyloom.recipes.demo.page import write_first_page

    folder = _open_folder(Path(directory))
    tell = begin or (lambda _: None)
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        if workers > 1:
            stack.enter_context(compiling())
        with _measured(seconds, "mock"):
            tell("mock")
            files = write_galaxy_mock(folder / "mock", seed=seed, size=size)
        results = _run_all(files, folder, size, workers, progress, tell, seconds)
    tell("truth")
    with _measured(seconds, "truth"):
        compared = _compare(files, results)
        rows = tuple(row for part, _ in compared.values() for row in part)
        table = comparison_table(rows)
        write_ecsv(table, folder / TABLE)
    maps = {recipe: pair for recipe, (_, pair) in compared.items()}
    report = write_first_page(files, results, rows, maps, folder, seconds)
    return DemoResult(folder, results, rows, table, report)


def _run_all(
    files: GalaxyFiles,
    folder: Path,
    size: str,
    workers: int,
    progress: Progress | None,
    tell: Callable[[str], None],
    seconds: dict[str, float],
) -> dict[str, RunResult]:
    """Run every recipe; with more workers than one that of the cube beside the others."""
    jobs = {
        recipe: (recipe, config, folder, _SETTINGS[size].get(recipe, ()))
        for recipe, config in files.configs.items()
    }
    results = {}
    with ExitStack() as stack:
        aside = stack.enter_context(Aside(_run, *jobs[CUBE], workers - 1)) if workers > 1 else None
        for recipe in sorted(jobs, key=lambda name: name == CUBE):
            tell(recipe)
            if recipe == CUBE and aside is not None:
                results[recipe], seconds[recipe] = aside.result(progress)
            else:
                with _measured(seconds, recipe):
                    results[recipe] = _run(*jobs[recipe], 1, progress=progress)
    return {recipe: results[recipe] for recipe in jobs}


@contextmanager
def _measured(seconds: dict[str, float], name: str) -> Iterator[None]:
    clock = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - clock


def _open_folder(folder: Path) -> Path:
    """Make the folder, and see that it can be written to before the work begins."""
    if folder.is_dir():
        foreign = sorted(
            path.name for path in folder.iterdir() if path.name not in OWN and path.name[0] != "."
        )
        if foreign:
            raise InputError(
                f"holds other files: {', '.join(foreign[:4])}", source=folder, field="--out",
                remedy="name a new folder, or that of an earlier demonstration",
            )  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".skyloom-demo"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot be made or written to: {error.strerror or error}", source=folder, field="--out",
            remedy="name a folder in which you may write",
        ) from error  # fmt: skip
    return folder.resolve()


def _run(
    recipe: str,
    config: Path,
    folder: Path,
    settings: tuple[str, ...],
    threads: int,
    *,
    progress: Progress | None = None,
) -> RunResult:
    """Run a recipe on the mock, into a folder beside it."""
    entry = RECIPES[recipe]
    # One object: more processes would only have to be started. The threads of a cube share its work.
    overrides = [f'output.directory="{folder / recipe}"', f"workers={threads}", *settings]
    if recipe == "store":
        overrides.append(f"files={_files_to_store(config, folder)}")
    # The observations are new, so products of an earlier demonstration are not.
    return entry.load_function()(entry.load_config(config, overrides), overwrite=True, progress=progress)


def _files_to_store(config: Path, folder: Path) -> str:
    """The files of the mock's configuration, and what the other recipes have made of them, as a YAML list."""
    from skyloom.recipes.config import read_values

    given, _ = read_values(config)
    paths = [str(config.parent / pattern) for pattern in given["files"]]
    paths += [str(path) for path in sorted((folder / "homogenize" / "objects").glob("*.fits"))]
    paths += [str(path) for path in sorted((folder / "halpha").glob("*/*_hst_ha.fits"))]
    return "[" + ", ".join(f'"{path}"' for path in paths) + "]"


def _compare(
    files: GalaxyFiles, results: dict[str, RunResult]
) -> dict[str, tuple[list[Comparison], MapPair]]:
    """Compare the products of every recipe that has made all of them."""
    from skyloom.recipes.demo.truth_images import compare_halpha, compare_homogenize
    from skyloom.recipes.demo.truth_spectra import compare_ifs
    from skyloom.recipes.demo.truth_store import compare_store

    compare = {
        "homogenize": compare_homogenize,
        "ifs": compare_ifs,
        "halpha": compare_halpha,
        "store": compare_store,
    }
    return {
        recipe: compare[recipe](files, result.directory)
        for recipe, result in results.items()
        if not result.failures
    }
