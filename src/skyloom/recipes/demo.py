"""The demonstration: a mock field with known truth, through the recipes, to a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skyloom.mock.files import write_hst_mock
from skyloom.recipes.registry import recipe_of

if TYPE_CHECKING:
    from pathlib import Path

    from astropy.table import QTable

    from skyloom.recipes.result import Progress, RunResult

__all__ = ["BANDS", "compare_with_truth", "demo"]

BANDS = ("f435w", "f606w", "f814w", "f125w", "f160w")


def demo(directory: Path, *, workers: int = 1, progress: Progress | None = None) -> RunResult:
    """Observe a mock field of a spiral, an edge-on disc and a merger, and run ``homogenize`` on the files.

    Parameters
    ----------
    directory : Path
        Receives ``mock/`` with the observations and their truth, and ``homogenized/`` with the products.
    workers : int
        Worker processes.
    progress : callable, optional
        Called after each object.

    Returns
    -------
    RunResult
        Of the recipe; ``report`` is what to look at.
    """
    config = write_hst_mock(directory / "mock", seed=1, n_objects=3, bands=BANDS, fine=False).config
    recipe = recipe_of(config)
    output = (directory / "homogenized").resolve()
    loaded = recipe.load_config(config, [f'output.directory="{output}"', f"workers={workers}"])
    # The observations are new, so products of an earlier demonstration are not.
    return recipe.load_function()(loaded, overwrite=True, progress=progress)


def compare_with_truth(directory: Path) -> QTable:
    """Set the photometry of a demonstration beside the fluxes that the mock field was made with.

    Parameters
    ----------
    directory : Path
        That of `demo`.

    Returns
    -------
    QTable
        One row per object and band: ``object``, ``band``, ``flux`` and ``flux_err`` inside the mask, ``true_flux``
        of the object on the whole sky, and ``ratio``. The mask leaves out the faintest outskirts.
    """
    from astropy.table import QTable

    measured = QTable.read(directory / "homogenized" / "photometry.ecsv")
    truth = QTable.read(directory / "mock" / "truth.ecsv")
    known = {(str(row["object"]), str(row["band"])): row["object_flux"] for row in truth}
    table = measured["object", "band", "flux", "flux_err"]
    table["true_flux"] = [known[str(row["object"]), str(row["band"])] for row in measured]
    table["ratio"] = (table["flux"] / table["true_flux"]).to_value("")
    return table
