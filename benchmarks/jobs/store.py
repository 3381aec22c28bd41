"""Jobs of a store: taking files in, searching, cutting out, and tables of all voxels."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.jobs import Contender, Goal, Job, Task
from benchmarks.mock_index import SEED, write_index

Size = Mapping[str, Any]
RADIUS = 0.2  # Degrees, of cones.
SIDE = 64
LEVELS = 5
LIGHT_ROW = ("ra", "dec", "time", "wavelength")


@lru_cache(maxsize=8)
def folder(name: str) -> Path:
    """A folder that goes with this process."""
    place = tempfile.TemporaryDirectory(prefix=f"{name}-")
    _KEPT.append(place)
    return Path(place.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@lru_cache(maxsize=2)
def frames(n: int, ny: int, nx: int) -> list[Path]:
    from skyloom.mock.sdss.files import write_quick_frames

    return write_quick_frames(folder("frames") / f"{n}-{ny}", n, shape=(ny, nx), seed=SEED)


def frames_of(size: Size) -> list[Path]:
    return frames(size["n"], *size["shape"])


# ------------------------------------------------------------------------------------------------ taking in


def exact(size: Size, values: Any) -> dict[str, float]:
    """Largest difference to the image that Skyloom reads from the first file, in its errors."""
    from skyloom.io.registry import read

    image = read(frames_of(size)[0])
    good = ~image.mask
    return {"largest error": float(np.abs((values - image.data) / np.sqrt(image.variance))[good].max())}


def ingest_ours(size: Size) -> Task:
    from skyloom.store.query import create

    paths, place = frames_of(size), folder("ours")

    def ingest() -> Any:
        shutil.rmtree(place / "sky", ignore_errors=True)
        store = create(place / "sky", levels=LEVELS)
        store.ingest(paths)
        return store

    def judge(store: Any) -> dict[str, float]:
        table = store.observations()
        sources = [Path(str(source)).name for source in table["source"]]
        name = str(table["obs_id"][sources.index(frames_of(size)[0].name)])
        figures = exact(size, store.cutout(name).data)
        store.close()
        return figures | {"files": float(len(sources))}

    return Task(ingest, judge, size["n"])


def ingest_h5py(size: Size) -> Task:
    import h5py

    from skyloom.io.registry import read

    paths, place = frames_of(size), folder("h5py")

    def ingest() -> None:
        for path in paths:
            image = read(path)
            chunks = tuple(min(128, side) for side in image.shape)
            with h5py.File(place / f"{path.stem}.h5", "w") as file:
                for name, plane in (("flux", image.data), ("variance", image.variance)):
                    file.create_dataset(name, data=plane, chunks=chunks, compression="gzip", shuffle=True)

    def judge(_: None) -> dict[str, float]:
        with h5py.File(place / f"{paths[0].stem}.h5") as file:
            return exact(size, file["flux"][()]) | {"files": float(len(paths))}

    return Task(ingest, judge, size["n"])


# ------------------------------------------------------------------------------------------------ searching


@lru_cache(maxsize=2)
def indexed(number: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """A store of so many rows, and the places of its spectra."""
    from skyloom.store.query import open as open_store

    place = folder(f"index{number}") / "sky"
    write_index(place, number)
    store = open_store(place)
    # Spectra are points; an image is found as soon as a corner of it lies in the cone.
    places = store.table(store.search(kind="spectrum"), ("s_ra", "s_dec"))
    return store, *(places[name].to_value("deg") for name in ("s_ra", "s_dec"))


def cones_of(size: Size) -> list[tuple[float, float]]:
    _, ra, dec = indexed(size["rows"])
    rows = np.random.default_rng(SEED).choice(ra.size, size["cones"])
    return list(zip(ra[rows].tolist(), dec[rows].tolist(), strict=True))


def true_number(size: Size) -> int:
    """How many observations lie in all cones, from angles between unit vectors."""
    _, ra, dec = indexed(size["rows"])
    east, north = np.radians(ra), np.radians(dec)
    vectors = np.array([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])
    total = 0
    for one_ra, one_dec in np.radians(cones_of(size)):
        centre = np.array(
            [np.cos(one_dec) * np.cos(one_ra), np.cos(one_dec) * np.sin(one_ra), np.sin(one_dec)]
        )
        chord = np.linalg.norm(vectors - centre[:, None], axis=0)
        total += int(np.count_nonzero(chord <= 2 * np.sin(0.5 * np.radians(RADIUS))))
    return total


def cone_ours(size: Size) -> Task:
    store, *_ = indexed(size["rows"])
    cones = cones_of(size)
    store.search(cone=(cones[0], RADIUS))
    return Task(
        lambda: sum(store.search(cone=(cone, RADIUS), kind="spectrum").size for cone in cones),
        lambda found: {"found over truth": found / true_number(size)},
        len(cones),
    )


def cone_astropy(size: Size) -> Task:
    import astropy.units as u
    from astropy.coordinates import SkyCoord

    _, ra, dec = indexed(size["rows"])
    cones = cones_of(size)[: size["peers"]]
    catalogue = SkyCoord(ra * u.deg, dec * u.deg)

    def search() -> int:
        return sum(
            int(np.count_nonzero(SkyCoord(*cone, unit="deg").separation(catalogue) <= RADIUS * u.deg))
            for cone in cones
        )

    part = dict(size) | {"cones": len(cones)}

    def judge(found: int) -> dict[str, float]:
        whole = [true_number(part)] if cones_of(part) == cones else []
        return {"found over truth": found / whole[0]} if whole else {}

    return Task(search, judge, len(cones))


# ------------------------------------------------------------------------------------------------ cutting out


@lru_cache(maxsize=2)
def filled(n: int, ny: int, nx: int) -> Any:
    from skyloom.store.query import create

    store = create(folder("filled") / f"{n}-{ny}", levels=3)
    store.ingest(frames(n, ny, nx))
    return store


def corners_of(size: Size) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, np.array(size["shape"]) - SIDE, (size["cuts"], 2))


def cut_ours(size: Size) -> Task:
    store = filled(size["n"], *size["shape"])
    names = [str(name) for name in store.observations()["obs_id"]]
    corners = corners_of(size)

    def cut() -> list[Any]:
        return [
            store.cutout(names[i % len(names)], pixel=(x + (SIDE - 1) / 2, y + (SIDE - 1) / 2), size=SIDE)
            for i, (y, x) in enumerate(corners)
        ]

    def judge(found: list[Any]) -> dict[str, float]:
        whole = store.cutout(names[0]).data
        y, x = corners[0]
        return {"largest error": float(np.abs(found[0].data - whole[y : y + SIDE, x : x + SIDE]).max())}

    return Task(cut, judge, len(corners))


def cut_astropy(size: Size) -> Task:
    from astropy.io import fits
    from astropy.nddata import Cutout2D
    from astropy.wcs import WCS

    paths, corners = frames_of(size), corners_of(size)

    def cut() -> list[Any]:
        found = []
        for i, (y, x) in enumerate(corners):
            with fits.open(paths[i % len(paths)]) as hdus:
                place = (x + (SIDE - 1) / 2, y + (SIDE - 1) / 2)
                found.append(Cutout2D(hdus[0].data, place, SIDE, wcs=WCS(hdus[0].header), copy=True))
        return found

    def judge(found: list[Any]) -> dict[str, float]:
        y, x = corners[0]
        with fits.open(paths[0]) as hdus:
            whole = hdus[0].data[y : y + SIDE, x : x + SIDE]
        return {"largest error": float(np.abs(found[0].data - whole).max())}

    return Task(cut, judge, len(corners))


# ------------------------------------------------------------------------------------------------ tables


def table_ours(size: Size) -> Task:
    store = filled(size["n"], *size["shape"])
    path = folder("tables") / "ours.vot"

    def judge(_: Any) -> dict[str, float]:
        from astropy.io.votable import parse_single_table

        # Reading takes astropy 40 microseconds of CPU per row: the coarsest level of one image is enough.
        part = path.with_name("part.vot")
        names = [str(store.observations()["obs_id"][0])]
        found = store.export(part, "voxels", obs=names, level=2, overwrite=True)
        return {"rows read by astropy": float(len(parse_single_table(part).array)) / found.rows}

    rows = size["n"] * size["shape"][0] * size["shape"][1]
    return Task(lambda: store.export(path, "voxels", overwrite=True), judge, rows / 1e6)


def table_astropy(size: Size) -> Task:
    from astropy.io.votable import from_table, parse_single_table, writeto
    from astropy.table import Table

    n = size["peers"]
    numbers = np.arange(n, dtype=np.float64)
    table = Table(dict.fromkeys(LIGHT_ROW, numbers))
    table["healpix"] = np.arange(n)
    table["mean"] = table["sigma"] = numbers.astype(np.float32)
    table["obs_id"], table["unit"] = "frame-000", "nmgy"
    path = folder("tables") / "astropy.vot"
    return Task(
        lambda: writeto(from_table(table), str(path), tabledata_format="binary2"),
        lambda _: {"rows read by astropy": len(parse_single_table(path).array) / n},
        n / 1e6,
    )


JOBS = (
    Job(
        "store ingest",
        "{n} frames of {shape[1]} x {shape[0]} into a store: sigma, 5 levels, index, digests",
        {"n": 3, "shape": (1489, 2048)},
        {"n": 2, "shape": (80, 100)},
        Contender("Skyloom", ingest_ours),
        (
            Contender(
                "h5py",
                ingest_h5py,
                "h5py",
                "flux and variance as Skyloom reads them, gzip; no levels, no index",
            ),
        ),
        item="frame",
        accuracy="largest difference to the file's image over its error",
        goals=(Goal("cpu", 0, 0.30, "0.30 s per frame"),),
    ),
    Job(
        "store cone",
        "spectra in cones of 0.2 degrees among {rows} observations",
        {"rows": 200_000, "cones": 200, "peers": 10},
        {"rows": 2000, "cones": 3, "peers": 3},
        Contender("Skyloom", cone_ours),
        (Contender("astropy SkyCoord", cone_astropy, note="separations from all"),),
        item="cone",
        accuracy="spectra found over those there (Skyloom counts the fibre that reaches in)",
        goals=(Goal("cpu", 0, 1e-3, "1 ms (for 1e6)"), Goal("found over truth", 1, 1.01, "all found")),
    ),
    Job(
        "store cutout",
        "{cuts} cut-outs of 64 x 64 as images with WCS, warm",
        {"n": 4, "shape": (744, 1024), "cuts": 200},
        {"n": 2, "shape": (80, 100), "cuts": 4},
        Contender("Skyloom", cut_ours, note="with variance and mask"),
        (Contender("astropy Cutout2D", cut_astropy, note="FITS files, data alone"),),
        item="cut-out",
        accuracy="largest difference to the whole image",
        goals=(Goal("cpu", 0, 3e-3, "3 ms"),),
    ),
    Job(
        "store export",
        "VOTable of all voxels of {n} images of {shape[1]} x {shape[0]}",
        {"n": 4, "shape": (744, 1024), "peers": 20_000},
        {"n": 2, "shape": (80, 100), "peers": 100},
        Contender("Skyloom", table_ours),
        (Contender("astropy", table_astropy, note="the same columns, in memory"),),
        item="million rows",
        accuracy="rows that astropy reads back",
        goals=(Goal("cpu", 0, 1.0, "1e6 rows per CPU second"),),
    ),
)
