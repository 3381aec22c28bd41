"""CPU of a frame and of a spectrum on their way into a store, size on disk, and CPU of small windows out of it.

    python benchmarks/store_costs.py frames|spectra|windows ...

is what `bench_store.py` starts: each is a process of its own, in which one small file has been stored before.
"""

from __future__ import annotations

import bz2
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from measure import DATA
from store_table import child, show

FULL = (1489, 2048)
SMALL = (372, 512)
N_LEVELS = 5
FRAME_SECONDS, SPECTRUM_SECONDS = 0.30, 5e-3
LOSSLESS_SIZE, QUANTISED_SIZE = 0.8, 0.35
PLANES_SECONDS, PLANES_WORST, IMAGE_SECONDS = 0.5e-3, 10e-3, 3e-3
SIDE = 64
SEED = 6


# ------------------------------------------------------------------------------------------------------ files


def frame_files(folder: Path, quick: bool) -> tuple[list[Path], str]:
    """Return uncompressed frames of full size, real ones where there are such, and what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = sorted((DATA / "sdss_frames").glob("frame-*.fits.bz2"))
    where = f"{packed[0].parent}/frame-*.fits.bz2" if packed else f"mock frames: no real ones below {DATA}"
    print(f"      {where}")
    paths = []
    for path in packed:
        paths.append(folder / path.stem)
        paths[-1].write_bytes(bz2.decompress(path.read_bytes()))
    if paths:
        return paths, "real"
    from skyloom.mock.sdss.field import sdss_field
    from skyloom.mock.sdss.files import write_frame
    from skyloom.mock.sdss.frames import EPOCHS, observe_frame
    from skyloom.mock.sdss.records import frame_name

    field = sdss_field(SEED, shape=FULL)
    for band in "gri" if quick else "ugriz":
        frame = observe_frame(field, EPOCHS[0], band, FULL, seed=SEED)
        paths.append(write_frame(folder / frame_name(EPOCHS[0], band), frame))
    return paths, "mock"


def spectrum_files(folder: Path, number: int) -> tuple[list[Path], list[Path]]:
    """Write frames of one field in two nights and five bands, and spectra in it; return frames and spectra.

    A half of the spectra lies on the grid that a store has by default, a half between its pixels; of each, a half is
    of either spectrograph.
    """
    from skyloom.mock.sdss.field import sdss_field
    from skyloom.mock.sdss.files import write_frame, write_spectrum
    from skyloom.mock.sdss.frames import EPOCHS, observe_frame
    from skyloom.mock.sdss.records import frame_name, spectrum_name
    from skyloom.mock.sdss.spectra import BOSS, SDSS, observe_spectrum

    field = sdss_field(SEED, shape=SMALL, n_stars=4, n_galaxies=2, spiral=False)
    generator = np.random.default_rng(SEED)
    frames = []
    for epoch in EPOCHS:
        for band in "ugriz":
            frame = observe_frame(field, epoch, band, SMALL, truth=np.zeros(SMALL), seed=generator)
            frames.append(write_frame(folder / "frames" / frame_name(epoch, band), frame))
    bases = [
        observe_spectrum(field, 100 + index % 4, tool, shift=shift, seed=index)
        for index, (tool, shift) in enumerate(((SDSS, 0.0), (BOSS, 0.0), (SDSS, 0.37), (BOSS, 0.37)))
    ]
    spectra = []
    centre = field.scene.centre
    for index in range(number):
        base = bases[index % 4]
        noise = generator.normal(0.0, 1.0, base.truth.shape) * np.sqrt(base.spectra.variance[0])
        drawn = base.spectra.evolve(data=(base.truth + noise)[np.newaxis].astype(np.float32))
        ra, dec = (float(centre[axis] + generator.uniform(-0.015, 0.015)) for axis in (0, 1))
        observed = replace(base, spectra=drawn, fiber=1 + index, ra=ra, dec=dec)
        name = spectrum_name(observed.plate, observed.mjd, observed.fiber)
        spectra.append(write_spectrum(folder / "spectra" / name, observed))
    return frames, spectra


# ------------------------------------------------------------------------------------- in processes of their own


@contextmanager
def cpu_of(times: dict[str, list[float]], name: str) -> Iterator[None]:
    """Note what CPU a block takes."""
    start = time.process_time()
    yield
    times.setdefault(name, []).append(time.process_time() - start)


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Return the median of each."""
    return {name: float(np.median(values)) for name, values in times.items()}


def warm_up(folder: Path, path: Path) -> None:
    """Store one file, so that modules and kernels are loaded."""
    from skyloom.store.query import create

    create(folder).ingest([path])


def frames_in(folder: str, warm: str, *paths: str) -> dict[str, Any]:
    """Store frames: each step by itself, then all in one ingest, without loss and rounded."""
    from skyloom.io.registry import read
    from skyloom.store.files.digests import column_value, observation_digest
    from skyloom.store.files.parts import write_part
    from skyloom.store.files.stored_form import apart
    from skyloom.store.ingest.locate import locate
    from skyloom.store.ingest.prepare import prepare
    from skyloom.store.levels.images import image_levels
    from skyloom.store.query import create
    from skyloom.store.schema import COLUMNS, StoreSettings

    place = Path(folder)
    warm_up(place / "warm", Path(warm))
    settings = StoreSettings(levels=N_LEVELS)
    times: dict[str, list[float]] = {}
    for number, path in enumerate(paths):
        with cpu_of(times, "locate, SHA-256 of the file"):
            source = locate(path)
        with cpu_of(times, "read, sigma"):
            image = read(path)
        with cpu_of(times, "5 levels"):
            image_levels(image, N_LEVELS)
        with cpu_of(times, "prepare"):
            (observation,) = prepare(source, settings)
        values = {name: column_value(name, observation.columns[name]) for name in COLUMNS}
        levels = {str(z): apart(level) for z, level in enumerate(observation.levels)}
        with cpu_of(times, "digest"):
            observation_digest(values, observation.header, levels)
        with cpu_of(times, "write"):
            write_part(place / f"part{number}.h5", [observation], settings)
    result: dict[str, Any] = {"steps": medians(times)}
    for compression in ("lossless", "quantised"):
        store = create(place / compression, levels=N_LEVELS, compression=compression)
        wall, start = time.perf_counter(), time.process_time()
        done = store.ingest(paths)
        result[compression] = {
            "cpu": (time.process_time() - start) / len(paths),
            "wall": (time.perf_counter() - wall) / len(paths),
            "bytes": sum(part.bytes for part in done.parts),
            "stored": len(done.stored),
        }
    # Of all levels of all frames: flux and sigma as float32.
    result["plain"] = 8 * len(paths) * sum(level.planes["flux"].size for level in levels.values())
    return result


def spectra_in(folder: str, frames: str, spectra: str, limit: str) -> dict[str, Any]:
    """Store spectra beside frames: each step by itself, then all in one ingest."""
    from skyloom.io.registry import read
    from skyloom.store.files.master import read_catalogue
    from skyloom.store.files.parts import write_part
    from skyloom.store.ingest.locate import locate
    from skyloom.store.ingest.prepare import prepare
    from skyloom.store.levels.spectra import spectrum_levels
    from skyloom.store.query import create
    from skyloom.store.schema import StoreSettings
    from skyloom.store.search.links import find_links

    place = Path(folder)
    paths = sorted(str(path) for path in Path(spectra).glob("spec-*.fits"))[: int(limit)]
    settings = StoreSettings(levels=N_LEVELS)
    warm_up(place / "warm", Path(paths[0]))
    times: dict[str, list[float]] = {}
    observations = []
    for path in paths:
        with cpu_of(times, "locate, SHA-256 of the file"):
            source = locate(path)
        with cpu_of(times, "read"):
            spectrum = read(path)
        with cpu_of(times, "common grid, 5 levels"):
            spectrum_levels(spectrum, settings)
        with cpu_of(times, "prepare"):
            observations += prepare(source, settings)
    each = times["common grid, 5 levels"]
    result: dict[str, Any] = {
        "n": len(paths),
        "steps": medians(times),
        "worst": float(np.percentile(each, 99)),
    }
    start = time.process_time()
    write_part(place / "part.h5", observations, settings)
    result["steps"]["write"] = (time.process_time() - start) / len(paths)
    del observations
    store = create(place / "store", levels=N_LEVELS)
    store.ingest([frames])
    wall, start = time.perf_counter(), time.process_time()
    result["stored"] = len(store.ingest(paths).stored)
    result["whole"] = (time.process_time() - start) / len(paths)
    result["whole_wall"] = (time.perf_counter() - wall) / len(paths)
    index = read_catalogue(store.path, store.manifest).index
    start = time.process_time()
    links = find_links(index)
    result["steps"]["links"] = (time.process_time() - start) / len(paths)
    result["links"] = int(links.image.size)
    return result


def windows_out(folder: str, number: str) -> dict[str, Any]:
    """Take windows out of a store of frames, all of which have been read before."""
    from skyloom.store.files.part_reader import PartReader
    from skyloom.store.query import open as open_store

    store = open_store(folder)
    generator = np.random.default_rng(SEED)
    names = [str(name) for name in store.observations()["obs_id"]]
    shape = store.cutout(names[0]).data.shape
    readers: dict[str, PartReader] = {}
    for part in store.manifest.parts:
        reader = PartReader(Path(folder) / part.name)
        readers |= dict.fromkeys(reader.obs_ids, reader)
    corners = generator.integers(0, np.array(shape) - SIDE, (int(number), 2))
    chosen = [names[index % len(names)] for index in range(int(number))]

    def planes(name: str, y: int, x: int) -> Any:
        window = slice(y, y + SIDE), slice(x, x + SIDE)
        return readers[name].planes(name, 0, window, ("flux", "variance"))

    def image(name: str, y: int, x: int) -> Any:
        return store.cutout(name, pixel=(x + (SIDE - 1) / 2, y + (SIDE - 1) / 2), size=SIDE)

    def timed(take: Callable[[str, int, int], Any]) -> dict[str, float]:
        for name in names:
            take(name, 0, 0)
        wall, cpu = [], []
        for name, (y, x) in zip(chosen, corners.tolist(), strict=True):
            begin, start = time.perf_counter(), time.process_time()
            found = take(name, y, x)
            cpu.append(time.process_time() - start)
            wall.append(time.perf_counter() - begin)
        assert np.shape(found["flux"] if isinstance(found, dict) else found.data) == (SIDE, SIDE)
        return {
            "cpu": float(np.median(cpu)),
            "cpu99": float(np.percentile(cpu, 99)),
            "wall": float(np.median(wall)),
            "wall99": float(np.percentile(wall, 99)),
        }

    return {"planes": timed(planes), "image": timed(image), "shape": list(shape)}


# ------------------------------------------------------------------------------------------------- the rows


def show_frames(folder: Path, quick: bool) -> None:
    """Print the rows about frames: CPU and size; and about windows of them."""
    from skyloom.mock.sdss.files import write_quick_frames

    paths, kind = frame_files(folder / "frames", quick)
    (warm,) = write_quick_frames(folder / "warm", 1, seed=SEED)
    # Kernels are compiled once, and not by what is measured.
    child("store_costs.py", "frames", folder / "compile", warm, *paths[:1])
    shutil.rmtree(folder / "compile")
    runs = [
        child("store_costs.py", "frames", folder / f"run{number}", warm, *paths)
        for number in range(1 if quick else 2)
    ]
    last = runs[-1]
    for name in ("lossless", "quantised"):
        assert last[name]["stored"] == len(paths)
    cpu, wall = (float(np.median([run["lossless"][key] for run in runs])) for key in ("cpu", "wall"))
    show(
        f"CPU per frame of {FULL[1]}x{FULL[0]} ({len(paths)} {kind}, one ingest)",
        f"{cpu:.3f} s (wall {wall:.3f} s)",
        f"<= {FRAME_SECONDS:.2f} s",
        cpu <= FRAME_SECONDS,
    )
    steps = {name: float(np.median([run["steps"][name] for run in runs])) for name in last["steps"]}
    steps["columns, header text"] = steps.pop("prepare") - steps["read, sigma"] - steps["5 levels"]
    steps["write"] -= steps["digest"]
    for name in ("locate, SHA-256 of the file", "read, sigma", "5 levels", "columns, header text", "digest"):
        show(f"    {name}", f"{steps[name]:.3f} s")
    show("    compress, write, flush", f"{steps['write']:.3f} s")
    show("    rounded to 0.1 sigma instead: all", f"{last['quantised']['cpu']:.3f} s")
    for name, limit in (("lossless", LOSSLESS_SIZE), ("quantised", QUANTISED_SIZE)):
        ratio = last[name]["bytes"] / last["plain"]
        told = "size on disk, lossless" if name == "lossless" else "size on disk, quantised at 0.1 sigma"
        show(
            told,
            f"{ratio:.3f} x flux + sigma + pyramid ({last[name]['bytes'] / len(paths) / 1e6:.1f} MB a frame)",
            f"<= {limit:.2f}",
            ratio <= limit,
        )
    show_windows(folder / f"run{len(runs) - 1}" / "lossless", 400 if quick else 2000)


def show_windows(store: Path, number: int) -> None:
    """Print the rows about windows of frames."""
    figures = child("store_costs.py", "windows", store, number)
    planes, image = figures["planes"], figures["image"]
    show(
        f"{SIDE}x{SIDE} flux + variance, warm: median / p99 wall",
        f"{planes['wall'] * 1e3:.3f} / {planes['wall99'] * 1e3:.3f} ms (CPU {planes['cpu'] * 1e3:.3f})",
        f"<= {PLANES_SECONDS * 1e3:g} / <= {PLANES_WORST * 1e3:g} ms",
        planes["wall"] <= PLANES_SECONDS and planes["wall99"] <= PLANES_WORST,
    )
    show(
        "    as Image with WCS: median / p99 wall",
        f"{image['wall'] * 1e3:.3f} / {image['wall99'] * 1e3:.3f} ms (CPU {image['cpu'] * 1e3:.3f})",
        f"<= {IMAGE_SECONDS * 1e3:g} ms",
        image["wall"] <= IMAGE_SECONDS,
    )


def show_spectra(folder: Path, number: int) -> None:
    """Print the rows about spectra."""
    spectrum_files(folder, number)
    # The first run compiles what is not compiled yet.
    for limit in (4, number):
        last = child(
            "store_costs.py", "spectra", folder / f"run{limit}", folder / "frames", folder / "spectra", limit
        )
    assert last["stored"] == number
    steps = last["steps"]
    cost = steps["common grid, 5 levels"] + steps["links"]
    show(
        "CPU per spectrum: common grid, 5 levels, links",
        f"{cost * 1e3:.2f} ms (p99 {last['worst'] * 1e3:.2f}; {number}, {last['links'] // number} links each)",
        f"<= {SPECTRUM_SECONDS * 1e3:g} ms",
        cost <= SPECTRUM_SECONDS,
    )
    steps["columns, header text"] = steps.pop("prepare") - steps["read"] - steps["common grid, 5 levels"]
    for name, seconds in steps.items():
        show(f"    {name}", f"{seconds * 1e3:.2f} ms")
    show(
        "    all of it, one ingest",
        f"{last['whole'] * 1e3:.2f} ms (wall {last['whole_wall'] * 1e3:.2f} ms)",
    )


if __name__ == "__main__":
    measured = {"frames": frames_in, "spectra": spectra_in, "windows": windows_out}[sys.argv[1]]
    print(json.dumps(measured(*sys.argv[2:])))
