"""The store: every resolution, and stacks of several nights, less the truth."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.truth import Check, Row, recovered
from benchmarks.two_nights import N_LEVELS, SHARED, level_pulls

DRAWS = 16
GOAL = 0.03  # Of the project, for the scatter of pulls.
BANDS = "gri"


def levels(correlation: float) -> list[Row]:
    """Two nights of one field: their difference less the true one, at every resolution."""
    told = "correlated" if correlation else "white"
    return [
        recovered(
            "Store: two nights compared", f"{told} noise, level {z}", level, each=share,
            tolerance=GOAL,
        ).row()
        for z, (level, share) in enumerate(zip(level_pulls(correlation, DRAWS), SHARED[correlation], strict=True))
    ]  # fmt: skip


def stacks(correlation: float) -> list[Row]:
    """Stacks of one, two and five exposures of a dense cube, made of the noise alone."""
    from tests.inputs.dense import NIGHTS, night, noise_of, store_of

    from skyloom.store.dense import DenseCube

    centre, step = (38.33, -0.107), 0.396 * 111 / 3600
    places = [(centre[0], centre[1] + north * step) for north in (-0.5, 0.5)]
    rows = []
    told = "correlated" if correlation else "white"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        frames = {
            f"{epoch.run}-{band}": noise_of(*night(epoch, band, 11, correlation=correlation))
            for epoch in NIGHTS
            for band in BANDS
        }
        store = store_of(folder, frames, levels=3)
        for n in (1, 2, 5):
            where = {"time": (None, NIGHTS[n - 1].tai / 86400.0 + 0.02)}
            path = folder / f"{n}.h5"
            store.dense_cube(path, places, size=108, bands=BANDS, levels=(0, 1), where=where)
            cube = DenseCube(path)
            batch = next(cube.batches(len(places)))
            for level in (0, 1):
                valid = batch[f"image_{level}_valid"]
                pull = (batch[f"image_{level}"] * np.sqrt(batch[f"image_{level}_ivar"]))[valid]
                each = float(np.sum(cube.image(0, "r", level).correlation ** 2))
                what = f"{told} noise, {n} exposure{'s' * (n > 1)}, level {level}"
                rows.append(recovered("Store: stacks", what, pull, each=each, tolerance=GOAL).row())
    return rows


def spectra() -> list[Row]:
    """Spectra on the common grid and halved: sums of pixels."""
    from benchmarks.truth.spectral import KERNELS, noise_of, sum_pulls
    from skyloom.core.spectra import Spectra
    from skyloom.store.levels.common_grid import rows as each_row
    from skyloom.store.levels.spectra import spectrum_levels
    from skyloom.store.schema import CommonGrid, StoreSettings

    settings = StoreSettings(common_grid=CommonGrid(5000.0, 5800.0), levels=N_LEVELS)
    wave = 10 ** (1e-4 * (36985.37 + np.arange(655)))
    variance = np.linspace(1.0, 3.0, wave.size)
    found = []
    for kind, taps in KERNELS.items():
        noise, lags = noise_of(taps, 150, wave.size, 6)
        spectra = Spectra(
            noise * np.sqrt(variance), np.broadcast_to(variance, noise.shape).copy(), None,
            "1e-17 erg/(s cm2 AA)", wave, "vacuum", lsf=1.2, correlation=lags,
        )  # fmt: skip
        made = [[level.subject for level in spectrum_levels(row, settings)[1]] for row in each_row(spectra)]
        for z in (0, 2, 4):
            for width in (1, 5, 50):
                if width > made[0][z].wave.size:
                    continue
                pulls = np.concatenate([sum_pulls(levels_of[z], width) for levels_of in made])
                what = f"{kind} noise, level {z}, {width} px"
                found.append(recovered("Store: sums of pixels of spectra", what, pulls, tolerance=GOAL).row())
    return found


CHECKS: dict[str, Check] = {
    "levels, white": partial(levels, 0.0),
    "levels, correlated": partial(levels, 0.8),
    "stacks, white": partial(stacks, 0.0),
    "stacks, correlated": partial(stacks, 0.7),
    "spectra in a store": spectra,
}
