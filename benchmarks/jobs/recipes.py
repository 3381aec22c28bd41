"""The recipes from end to end on mocks of known truth; nothing else does the same, so there are no peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import QTable

from benchmarks.jobs import Contender, Goal, Job, Task
from benchmarks.jobs.store import folder
from benchmarks.pulls import image_pulls, pull_figures

Size = Mapping[str, Any]
BANDS = ("f606w", "f814w", "f160w")


def runner(config: Path, out: Path, *settings: str) -> Callable[[], Path]:
    """Run a recipe in this process, without pictures."""
    from skyloom.recipes.registry import recipe_of

    recipe = recipe_of(config)
    loaded = recipe.load_config(config, [f'output.directory="{out.resolve()}"', "workers=1", *settings])

    def run() -> Path:
        result = recipe.load_function()(loaded, overwrite=True)
        failed = [f"{failure.item}: {failure.reason}" for failure in result.failures]
        if failed:
            raise RuntimeError("; ".join(failed))
        return out

    return run


def quiet(config: Path, out: Path, *settings: str) -> Callable[[], Path]:
    return runner(config, out, "output.figures=false", "output.report=false", *settings)


def homogenize_ours(size: Size) -> Task:
    from skyloom.mock.hubble.files import write_hst_mock

    place = folder("homogenize") / str(size["objects"])
    bands = BANDS[-size["bands"] :]
    mock = write_hst_mock(
        place / "mock", seed=5, n_objects=size["objects"], bands=bands, fine=False, n_stars=size["stars"]
    )
    run = runner(mock.config, place / "out", "output.contact_sheet=false", "output.report=false")

    def judge(out: Path) -> dict[str, float]:
        table = QTable.read(out / "photometry.ecsv")
        true = [mock.stamp(str(row["object"]), str(row["band"])).object_flux for row in table]
        return {"flux over truth": float(np.median(table["flux"].value / np.array(true)))}

    return Task(run, judge, size["objects"] * len(bands))


def ifs_ours(size: Size) -> Task:
    from skyloom.mock.cubes.files import write_cube_mock

    place = folder("ifs") / str(size["side"])
    mock = write_cube_mock(
        place / "mock", "muse", seed=3, shape=(size["side"],) * 2, wave_range=tuple(size["range"]), name="disc",
        noise_free=True,
    )  # fmt: skip
    return Task(quiet(mock.config, place / "out"), lambda out: judge_lines(mock, out / "disc"))


def judge_lines(mock: Any, out: Path) -> dict[str, float]:
    """Line fluxes against the same fit to the light of the gas without noise: a rotating disc has no Gaussian lines."""
    import skyloom as sl
    from skyloom.core.line_fit import LineFlag
    from skyloom.spectral.lines.linefit import fit_lines

    spectra, labels = sl.read(out / "disc_spectra.fits"), sl.read(out / "disc_bins.fits").labels
    table, summary = QTable.read(out / "disc_lines.fits"), QTable.read(out / "disc_table.ecsv")
    with fits.open(mock.noise_free) as light, fits.open(mock.lines) as truth:
        gas = (light["TRUTH"].data - light["CONTINUUM"].data) / truth["EXTINCTION"].data[:, None, None]
    clean = spectra.evolve(data=np.array([gas[:, labels == number].sum(axis=1) for number in table["id"]]))
    true = fit_lines(clean, ["Halpha", "NII6548", "NII6583"], 0.01).table
    # Where the light without noise lets no line of its own be fitted, that fit is no truth.
    known = (np.asarray(true["Halpha_flag"]) & int(LineFlag.FAINT | LineFlag.BORROWED)) == 0
    found = {"bins": float(len(table)), "judged": float(known.sum())}
    pulls = (table["Halpha_flux"] - true["Halpha_flux"]) / table["Halpha_flux_err"]
    found |= pull_figures(pulls.value[known], "flux pull")
    bright = known & (np.asarray(table["Halpha_snr"]) > 10)
    off = (table["Halpha_velocity"] - true["Halpha_velocity"]) / table["Halpha_velocity_err"]
    found |= pull_figures(off.value[bright], "v pull")
    ratio = (summary["noise_measured"] / summary["spectrum_noise"]).to_value("")
    return found | {"noise over claimed": float(np.nanmedian(ratio))}


def halpha_ours(size: Size) -> Task:
    from skyloom.mock.halpha.files import write_halpha_mock

    place = folder("halpha") / str(size["side"])
    mock = write_halpha_mock(
        place / "mock",
        seed=5,
        size=size["side"],
        n_nebulae=size["nebulae"],
        n_stars=size["stars"],
        cosmic_rays=0.0,
    )
    return Task(
        quiet(mock.config, place / "out", "cosmic_rays=none"), lambda out: judge_halpha(mock, out / "spiral")
    )


def judge_halpha(mock: Any, out: Path) -> dict[str, float]:
    import skyloom as sl

    image = sl.read(out / "spiral_hst_ha.fits")
    with fits.open(mock.truth["halpha"]) as hdus:
        truth = next(hdu.data for hdu in hdus if hdu.data is not None).astype(float) * image.pixel_area
    usable = image.valid
    figures = {"sum over truth": float(image.data[usable].sum(dtype=float) / truth[usable].sum())}
    return figures | pull_figures(image_pulls(image, 20, truth), "pull of 20 x 20")


JOBS = (
    Job(
        "homogenize",
        "homogenize, {objects} objects in {bands} bands, from files to photometry",
        {"objects": 3, "bands": 3, "stars": 5},
        {"objects": 1, "bands": 2, "stars": 3},
        Contender("Skyloom", homogenize_ours),
        item="object and band",
        accuracy="flux in the mask over all that the object emits, median: the mask leaves out the faintest outskirts",
        goals=(Goal("cpu", 0, 25e-3, "25 ms per object and band (in a run of 54)"),),
    ),
    Job(
        "ifs",
        "ifs, a mock of MUSE of {side} x {side} spaxels, {range[0]:.0f} to {range[1]:.0f} A: bins, stars, lines, maps",
        {"side": 48, "range": (6300.0, 6900.0)},
        {"side": 16, "range": (6500.0, 6800.0)},
        Contender("Skyloom", ifs_ours),
        accuracy="Halpha of the bins: pulls of fluxes, and of velocities where S/N > 10; scatter of the spectra over "
        "their errors",
        rounds=1,
    ),
    Job(
        "halpha",
        "halpha, a mock of {side} x {side} pixels with {nebulae} nebulae: all products",
        {"side": 600, "nebulae": 150, "stars": 4},
        {"side": 240, "nebulae": 40, "stars": 1},
        Contender("Skyloom", halpha_ours),
        accuracy="flux of the field over the truth; pulls of sums of 20 x 20 px, errors of the anchors included",
        goals=(Goal("sum over truth", 0.98, 1.02, "sum within 2 %"),),
        rounds=1,
    ),
)
