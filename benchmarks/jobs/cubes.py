"""Jobs on cubes in files and in memory: reading, rest frame and dereddening."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from benchmarks.jobs import Contender, Goal, Job, Task
from benchmarks.muse_file import BAD, write_cube

Size = Mapping[str, Any]


@lru_cache(maxsize=1)
def folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes with this process."""
    return tempfile.TemporaryDirectory()


def cube_file(size: Size) -> Path:
    path = Path(folder().name) / f"{size['side']}x{size['channels']}.fits"
    if not path.exists():
        write_cube(path, size["side"], size["channels"])
    return path


def masked_rightly(size: Size, mask: np.ndarray) -> dict[str, float]:
    true = size["channels"] * len(range(0, size["side"], BAD))
    return {"masked over truth": float(mask.sum() / true)}


def read_ours(size: Size) -> Task:
    from skyloom.io.cubes.files import open_cube

    cube = open_cube(cube_file(size))
    return Task(cube.read, lambda found: masked_rightly(size, found.mask))


def read_astropy(size: Size) -> Task:
    path = cube_file(size)

    def read() -> np.ndarray:
        with fits.open(path) as hdus:
            data, variance = (np.asarray(hdus[name].data, dtype=np.float32) for name in ("DATA", "STAT"))
        return ~(np.isfinite(data) & np.isfinite(variance) & (variance > 0))

    return Task(read, lambda found: masked_rightly(size, found))


def judged_plane(size: Size) -> Any:
    """All channels of the cube are the same."""
    with fits.open(cube_file(size)) as hdus:
        plane = np.array(hdus["DATA"].section[0], dtype=float)

    def judge(found: np.ndarray) -> dict[str, float]:
        return {"largest error": float(np.nanmax(np.abs(found - plane)))}

    return judge


def view_ours(size: Size) -> Task:
    from skyloom.viewer.shelf import Shelf

    path, judge, side = cube_file(size), judged_plane(size), size["side"]

    def look() -> np.ndarray:
        shelf = Shelf(path)
        entry = shelf.first("cube")
        assert entry is not None
        view = shelf.open(entry.key).view(
            "value", box=(-0.5, side - 0.5, -0.5, side - 0.5), pixels=(side, side)
        )
        return np.asarray(view.values)

    return Task(look, judge)


def view_astropy(size: Size) -> Task:
    path, judge = cube_file(size), judged_plane(size)

    def look() -> np.ndarray:
        with fits.open(path) as hdus:
            return np.nanmean(hdus["DATA"].data, axis=0)

    return Task(look, judge)


Z, A_V = 0.0185, 0.32


def plain_cube(size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (size["channels"], size["side"], size["side"])
    data = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    return data, np.ones(shape, np.float32), 4750.0 + 1.25 * np.arange(shape[0])


def factor_of(wave: np.ndarray) -> np.ndarray:
    from skyloom.core.linelist import air_to_vacuum
    from skyloom.spectral.axes.extinction import extinction_curve

    return (1 + Z) * 10 ** (0.4 * A_V * extinction_curve(air_to_vacuum(wave)))


def judged_factor(size: Size) -> Any:
    data, _, wave = plain_cube(size)
    expected = data[:, 0, 0].astype(float) * factor_of(wave)

    def judge(found: Any) -> dict[str, float]:
        return {"largest error": float(np.abs(found[:, 0, 0] / expected - 1).max())}

    return judge


def rest_ours(size: Size) -> Task:
    from skyloom.core.cube import Cube, CubeCorrelation
    from skyloom.spectral.axes.prepare import prepare_cube

    data, variance, wave = plain_cube(size)
    judge = judged_factor(size)
    mask = np.zeros(data.shape, bool)
    cube = Cube(
        data,
        variance,
        mask,
        "1e-20 erg/(s cm2 AA)",
        None,
        wave,
        "air",
        correlation=CubeCorrelation(None, None),
    )
    return Task(lambda: prepare_cube(cube, redshift=Z, av=A_V), lambda found: judge(found.data))


def rest_numpy(size: Size) -> Task:
    data, variance, wave = plain_cube(size)
    judge = judged_factor(size)

    def prepare() -> tuple[np.ndarray, np.ndarray]:
        factor = factor_of(wave)[:, np.newaxis, np.newaxis]
        return data * factor, variance * factor**2

    return Task(prepare, lambda found: judge(found[0]))


JOBS = (
    Job(
        "read cube",
        "a MUSE cube of {channels} x {side} x {side}, data, variance and mask, from a file in memory",
        {"side": 150, "channels": 2000},
        {"side": 12, "channels": 20},
        Contender("Skyloom", read_ours),
        (Contender("astropy", read_astropy, note="float32 and a mask made by hand"),),
        accuracy="masked voxels over those without a value",
    ),
    Job(
        "first picture",
        "white light of {channels} x {side} x {side} from a file, as the viewer shows it first",
        {"side": 150, "channels": 2000},
        {"side": 12, "channels": 20},
        Contender("Skyloom", view_ours, note="some channels, as the picture says"),
        (Contender("astropy", view_astropy, note="all channels"),),
        accuracy="largest difference to the true plane, noise 1",
        goals=(Goal("wall", 0, 3.0, "under 3 s"),),
    ),
    Job(
        "prepare_cube",
        "rest frame and dereddening of {channels} x {side} x {side} float32: data and variance",
        {"side": 100, "channels": 1800},
        {"side": 8, "channels": 60},
        Contender("Skyloom", rest_ours),
        (Contender("plain numpy", rest_numpy, note="float64 in between"),),
        accuracy="largest relative error",
        goals=(Goal("largest error", 0, 1e-6, "1e-6"),),
    ),
)
