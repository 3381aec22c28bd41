"""Dense cubes for machine learning: errors of the means, CPU per target, memory, and how fast batches are read.

    python benchmarks/bench_store_dense.py [--quick] [--only pulls cost memory batches]

CPU is that of one thread with a warm numba cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from measure import ENVIRONMENT
from store_table import child, missed, show

TOLERANCE = 0.03
BANDS = "ugriz"
EXPOSURES = (1, 2, 5)
SHAPE = (300, 420)
CENTRE = (38.33, -0.107)
# Shifts in pixels and turns in degrees of five nights.
PLACING = (
    ((0.0, 0.0), 0.0),
    ((3.37, -2.61), 0.013),
    ((-1.5, 4.25), 0.4),
    ((2.71, 1.9), -2.0),
    ((-3.2, -0.33), 5.0),
)
SIZE = 96
SEED = 5
DAY = 86400.0


def sections(quick: bool) -> dict[str, Callable[[Path], None]]:
    """Return what prints the rows of each section into a folder of its own."""
    return {
        "pulls": lambda folder: show_pulls(folder, 2 if quick else 6),
        "cost": show_cost,
        "memory": lambda folder: show_memory(folder, (20, 200) if quick else (100, 1000)),
        "batches": lambda folder: show_batches(folder, 40 if quick else 200),
    }


def nights() -> list[Any]:
    from dataclasses import replace

    from skyloom.mock.sdss.frames import EPOCHS

    return [
        replace(EPOCHS[0], run=2820 + i, tai=EPOCHS[0].tai + 1e6 * i, shift=shift, angle=angle)
        for i, (shift, angle) in enumerate(PLACING)
    ]


def places(size: int) -> list[tuple[float, float]]:
    """Targets side by side in the part that all nights cover."""
    step = 0.396 * (size + 2) / 3600
    return [(CENTRE[0] + 0.5 * i * step, CENTRE[1] + j * step) for i in (-1, 1) for j in (-1, 0, 1)]


def make_store(folder: Path, correlation: float, seed: int, *, noise_alone: bool) -> Any:
    """Store five nights in five bands; with ``noise_alone`` without what is in the sky."""
    from skyloom.io.fits import write
    from skyloom.mock.sdss.field import sdss_field
    from skyloom.mock.sdss.frames import observe_frame
    from skyloom.store.query import create

    field = sdss_field(4, shape=SHAPE, n_stars=8, n_galaxies=6, spiral=False)
    (folder / "files").mkdir(parents=True)
    for epoch in nights():
        light = observe_frame(field, epoch, "r", SHAPE, seed=0).truth
        for band in BANDS:
            rng = np.random.default_rng([seed, epoch.run, ord(band)])
            image = observe_frame(
                field, epoch, band, SHAPE, truth=light, correlation=correlation, n_dead=300, seed=rng
            ).image
            if noise_alone:
                image = image.evolve(data=(image.data - light).astype(np.float32))
            write(image, folder / "files" / f"{epoch.run}-{band}.fits")
    store = create(folder / "sky", levels=3)
    store.ingest([folder / "files"])
    return store


def show_pulls(folder: Path, n_draws: int) -> None:
    """Print pulls of (stack - truth): the stack of the noise, as everything is linear in the data."""
    from skyloom.store.dense import DenseCube

    for correlation, name in ((0.0, "white"), (0.7, "correlated")):
        found: dict[tuple[int, int], list[np.ndarray]] = {}
        shared: dict[tuple[int, int], float] = {}
        for draw in range(n_draws):
            store = make_store(folder / f"{name}{draw}", correlation, SEED + draw, noise_alone=True)
            for n in EXPOSURES:
                path = folder / f"{name}{draw}-{n}.h5"
                last = nights()[n - 1].tai / DAY + 0.02
                store.dense_cube(
                    path, places(SIZE), size=SIZE, bands=BANDS, levels=(0, 1, 2), where={"time": (None, last)}
                )
                cube = DenseCube(path)
                for batch in cube.batches(8):
                    for level in (0, 1, 2):
                        valid = batch[f"image_{level}_valid"]
                        noise, ivar = batch[f"image_{level}"], batch[f"image_{level}_ivar"]
                        found.setdefault((n, level), []).append((noise * np.sqrt(ivar))[valid].astype(float))
                        shared[n, level] = float(np.sum(cube.image(0, "r", level).correlation ** 2))
        for n in EXPOSURES:
            pulls = [np.concatenate(found[n, level]) for level in (0, 1, 2)]
            scatter = [pull.std() for pull in pulls]
            chance = [shared[n, z] ** 0.5 / np.sqrt(2 * pull.size) for z, pull in enumerate(pulls)]
            figure = " ".join(f"{s:.3f}({c:.3f})" for s, c in zip(scatter, chance, strict=True))
            met = max(abs(s - 1) for s in scatter) < TOLERANCE
            show(f"images, {name}, {n} exposures: levels 0 1 2", figure, "1.00 +- 0.03", met)
    for n in EXPOSURES:
        scatter = spectrum_pulls(folder, n)
        figure = " ".join(f"{s:.3f}" for s in scatter)
        met = max(abs(s - 1) for s in scatter) < TOLERANCE
        show(f"spectra, correlated, {n} exposures: levels 0 to 4", figure, "1.00 +- 0.03", met)


def spectrum_pulls(folder: Path, n: int, n_places: int = 40) -> list[float]:
    """Return the scatter of the noise of means of spectra over their errors at each level."""
    from skyloom.core.spectra import Spectra
    from skyloom.io.fits import write
    from skyloom.store.dense import DenseCube
    from skyloom.store.query import create

    rng = np.random.default_rng([SEED, n])
    taps = np.array([0.5, 1.0, 0.5]) / np.sqrt(1.5)
    white = rng.normal(size=(n * n_places, 4702))
    noise = sum(weight * white[:, i : i + 4700] for i, weight in enumerate(taps))
    variance = np.tile([1.0, 0.5, 2.0, 0.8, 1.2][:n], n_places)[:, None] * np.linspace(1, 2, 4700)
    meta = {
        "instrument": "spectrograph",
        "ra": [20 + 0.01 * place + 1e-6 * number for place in range(n_places) for number in range(n)],
        "dec": [0.5] * (n * n_places),
    }
    wave = 10 ** (1e-4 * (35460.37 + np.arange(4700)))
    lags = np.convolve(taps, taps[::-1])
    unit = "1e-17 erg/(s cm2 AA)"
    spectra = Spectra(
        noise * np.sqrt(variance), variance, None, unit, wave, "vacuum", correlation=lags, meta=meta
    )
    write(spectra, folder / f"spectra{n}.fits")
    store = create(folder / f"spectra{n}", levels=5)
    store.ingest([folder / f"spectra{n}.fits"])
    store.dense_cube(folder / f"spectra{n}.h5")
    batch = next(DenseCube(folder / f"spectra{n}.h5").batches(n_places))
    return [
        float(
            (batch[f"spectrum_{z}"] * np.sqrt(batch[f"spectrum_{z}_ivar"]))[
                batch[f"spectrum_{z}_valid"]
            ].std()
        )
        for z in range(5)
    ]


def show_cost(folder: Path) -> None:
    """Print CPU per target, and per exposure and level."""
    store = make_store(folder / "cost", 0.0, SEED, noise_alone=False)
    store.dense_cube(folder / "warm.h5", places(64)[:1], size=64, bands=BANDS, levels=(0, 1, 2))
    start = time.process_time()
    store.dense_cube(folder / "cube.h5", places(64), size=64, bands=BANDS, levels=(0, 1, 2))
    cpu = (time.process_time() - start) / len(places(64))
    stacked = 5 * len(BANDS) * 3
    show("CPU per target, 64 pixels, 5 bands, 5 exposures", f"{1e3 * cpu:.0f} ms")
    show("  per exposure and level", f"{1e3 * cpu / stacked:.2f} ms")
    size = (folder / "cube.h5").stat().st_size / len(places(64))
    show("disk per target, three levels, no spectra", f"{size / 1e3:.0f} kB")


def first_night() -> tuple[None, float]:
    return None, nights()[0].tai / DAY + 0.02


def many_places(n: int) -> np.ndarray:
    rng = np.random.default_rng(SEED)
    return np.array(CENTRE) + rng.uniform(-0.01, 0.01, (n, 2))


def build_many(store: str, out: str, n: int) -> dict[str, float]:
    """Build a cube in this process and return what that took."""
    from skyloom.store.query import Store

    opened = Store(store)
    options = {
        "size": 32,
        "bands": "gr",
        "levels": (0, 1),
        "overwrite": True,
        "where": {"time": first_night()},
    }
    opened.dense_cube(out, many_places(4), **options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.process_time()
    opened.dense_cube(out, many_places(n), **options)
    cpu = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu": cpu, "before": before, "peak": peak}


def show_memory(folder: Path, numbers: tuple[int, int]) -> None:
    """Print the memory at the peak for few and many targets."""
    make_store(folder / "memory", 0.0, SEED, noise_alone=False)
    grown = []
    for n in numbers:
        used = child("bench_store_dense.py", "--build", folder / "memory" / "sky", folder / "m.h5", n)
        grown.append(used["peak"])
        text = f"{used['peak']:.0f} MB, CPU {1e3 * used['cpu'] / n:.1f} ms per target"
        show(f"memory at the peak, {n} targets", text)
    ratio = grown[1] / grown[0]
    show("  ratio for ten times as many targets", f"{ratio:.3f}", "<= 1.1", ratio <= 1.1)


def show_batches(folder: Path, n: int) -> None:
    """Print how fast samples are read: in order, shuffled, and level 0 of the images alone."""
    from skyloom.store.dense import DenseCube

    store = make_store(folder / "batches", 0.0, SEED, noise_alone=False)
    path = folder / "b.h5"
    last = nights()[0].tai / DAY + 0.02
    store.dense_cube(
        path, many_places(n), size=64, bands=BANDS, levels=(0, 1, 2), where={"time": (None, last)}
    )
    for name, options, shuffle in (
        ("all levels, in order", {}, None),
        ("all levels, shuffled", {}, 1),
        ("images of level 0, shuffled", {"images": 0}, 1),
    ):
        cube = DenseCube(path, **options)
        for _ in cube.batches(32):
            pass
        start, seconds = time.process_time(), time.perf_counter()
        count, size = 0, 0
        for batch in cube.batches(32, shuffle=shuffle):
            count += batch["index"].size
            size += sum(values.nbytes for values in batch.values())
        cpu, wall = time.process_time() - start, time.perf_counter() - seconds
        rate = f"{count / cpu:.0f} samples, {size / cpu / 1e6:.0f} MB per CPU s ({count / wall:.0f} per s)"
        show(f"read, {name}", rate)


def main() -> int:
    if sys.argv[1:2] == ["--build"]:
        print(json.dumps(build_many(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and smaller, in about a minute")
    names = tuple(sections(False))
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.only:
            folder = Path(temporary) / name
            folder.mkdir()
            sections(options.quick)[name](folder)
    show("all", f"missed: {', '.join(missed()) or 'none'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
