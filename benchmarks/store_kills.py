"""What an ingest that is killed leaves behind, and what becomes of files that are corrupt."""

from __future__ import annotations

import bz2
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
from astropy.io import fits

from measure import ENVIRONMENT, command_line
from store_table import show

SHAPE = (93, 128)
SEED = 6
N_FRAMES = 24
PART_BYTES = 300_000  # two of these frames


# ----------------------------------------------------------------------------------------------------- kills


def digests(store: Path) -> dict[str, str]:
    """Return the digest of every visible observation."""
    from skyloom.store.query import open as open_store

    with open_store(store) as opened:
        table = opened.table(np.arange(len(opened)), ("obs_id", "digest"))
        return {str(name): str(digest) for name, digest in zip(*table.columns.values(), strict=True)}


def parts_of(store: Path) -> set[str]:
    """Return the parts on disk that have been finished."""
    paths = store.glob("partitions/*/*.h5")
    return {path.relative_to(store).as_posix() for path in paths if not path.name.startswith(".")}


def new_store(path: Path) -> Path:
    from skyloom.store.query import create

    create(path, part_bytes=PART_BYTES).close()
    return path


def killed(store: Path, files: Path, delay: float | None) -> float:
    """Ingest from the command line and kill it so long after it has locked the store; None lets it finish.

    Returns how long it has worked; 0 where it was finished before.
    """
    process = subprocess.Popen(
        command_line("store", "ingest", store, files),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    # The store is locked when the program has been loaded.
    while not (store / "lock").exists() and process.poll() is None:
        time.sleep(0.002)
    start = time.perf_counter()
    try:
        code = process.wait(delay)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return time.perf_counter() - start
    assert code == 0
    return time.perf_counter() - start if delay is None else 0.0


def show_kills(folder: Path, number: int) -> None:
    """Print the row about kills: each is followed by a run that nobody disturbs."""
    from skyloom.mock.sdss.files import write_quick_frames
    from skyloom.store.files.verify import verify
    from skyloom.store.ingest.run import ingest

    files = folder / "frames"
    write_quick_frames(files, N_FRAMES, shape=SHAPE, seed=SEED)
    # The second time files and kernels are in memory.
    killed(new_store(folder / "first"), files, None)
    reference = new_store(folder / "reference")
    duration = killed(reference, files, None)
    whole, parts = digests(reference), parts_of(reference)
    stores = [new_store(folder / f"store{index}") for index in range(number)]
    delays = duration * np.random.default_rng(SEED).uniform(0.0, 0.95, number)
    good = at_work = 0
    finished_at_kill = []
    # While one store is looked at, the next is being written to.
    with ThreadPoolExecutor(1) as pool:
        for store, worked in zip(
            stores, pool.map(killed, stores, repeat(files), delays.tolist()), strict=True
        ):
            at_work += worked > 0
            # The store opens, and shows nothing but what is whole.
            seen, finished = digests(store), parts_of(store)
            finished_at_kill.append(len(finished))
            result = ingest(store, [files])
            good += (
                seen.items() <= whole.items()
                and finished <= parts
                and not result.failures
                # What was finished is not made again.
                and not finished & {part.name for part in result.parts}
                and digests(store) == whole
                and not len(verify(store))
                and parts_of(store) == parts
            )
            shutil.rmtree(store)
    spread = f"{min(finished_at_kill)} to {max(finished_at_kill)} of {len(parts)} parts finished"
    show(
        "kill -9 at random moments: opens, whole, same",
        f"{good}/{number} ({at_work} at work; {spread})",
        f"{number}/{number}",
        good == number,
    )


# --------------------------------------------------------------------------------------------------- corrupt


def show_corrupt(folder: Path) -> None:
    """Print the row about corrupt files: how many of them are listed, with reasons, and what is stored."""
    from skyloom.mock.sdss.files import write_sdss_mock
    from skyloom.store.query import create

    mock = write_sdss_mock(folder / "mock", seed=SEED, shape=SHAPE, bands="gri", n_spectra=1, truth=False)
    frames = sorted(mock.frames.values())
    good, place = frames[0].read_bytes(), folder / "files"
    place.mkdir()
    (place / frames[0].name).write_bytes(good)
    (place / frames[1].with_suffix(".fits.bz2").name).write_bytes(
        bz2.compress(frames[1].read_bytes())[:-9000]
    )
    with fits.open(frames[2]) as hdus:
        fits.HDUList(hdus[:1]).writeto(place / frames[2].name)
    with fits.open(frames[3]) as hdus:
        hdus[1].data[5] = np.nan
        hdus[1].data[6:] = np.nan
        hdus.writeto(place / frames[3].name)
    with fits.open(frames[4]) as hdus:
        hdus[0].header["DATE-OBS"] = "1999-02-31"
        hdus.writeto(place / frames[4].name)
    (place / "twin.fits").write_bytes(good)
    with fits.open(mock.spectra[0]) as hdus:
        hdus[1].data["ivar"][:] = -1.0
        hdus.writeto(place / mock.spectra[0].name)
    causes = (
        "truncated bz2",
        "missing HDU",
        "NaN calibration",
        "wrong DATE-OBS",
        "duplicate",
        "negative ivar",
    )
    store = create(folder / "store")
    stored = store.ingest([place]).stored
    failures = {Path(str(row["source"])).name: str(row["reason"]) for row in store.failures()}
    listed = f"{len(failures)}/{len(causes)} listed, {len(stored)} stored"
    show(
        "corrupt files of six kinds",
        listed,
        f"{len(causes)}/{len(causes)} listed, 1 stored",
        len(failures) == len(causes) and len(stored) == 1,
    )
    for name, reason in failures.items():
        print(f"      {name[:36]:36s} {reason.replace(str(place) + '/', '')[:110]}")
