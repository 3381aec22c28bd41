"""Small stores with all that an export can meet: drift scans, cubes, no place, no wavelength, other coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.wcs import WCS

from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.io.fits import write
from skyloom.store import Store, create
from tests.inputs.store import SHAPE, small_wcs
from tests.inputs.store_files import good_frame, good_spectrum

ROW_TIME = [55000.25, 1e-5]
START, STOP = 55000.2, 55000.4
FIBRE = 2.0


def planes(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, variances and masks; what is masked is wild."""
    generator = np.random.default_rng(seed)
    mask = generator.random(shape) < 0.1
    data = np.where(mask, 1e9, generator.normal(5.0, 1.0, shape)).astype(np.float32)
    return data, generator.uniform(0.5, 2.0, shape).astype(np.float32), mask


def image(seed: int, wcs: WCS | None, unit: str = "nmgy", **meta: Any) -> Image:
    told = {"instrument": "camera", "band": "r", "time_start": START, "time_stop": STOP}
    return Image(*planes(seed, SHAPE), unit, wcs, meta=told | meta)


def galactic_wcs() -> WCS:
    wcs = small_wcs(0.0, 0.0)
    wcs.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
    wcs.wcs.crval = [120.0, -67.0]
    wcs.wcs.set()
    return wcs


def cube() -> Cube:
    wave = 5000.0 + 10.0 * np.arange(7)
    meta = {"instrument": "ifs", "time_start": START, "time_stop": STOP}
    return Cube(
        *planes(5, (7, 8, 6)),
        "1e-20 erg/(s cm2 AA)",
        small_wcs(10.0, -5.0, (8, 6)),
        wave=wave,
        medium="air",
        meta=meta,
    )


def spectrum(seed: int, **meta: Any) -> Spectra:
    wave = 10 ** (3.58 + 1e-4 * np.arange(120))
    data, variance, mask = (plane[None] for plane in planes(seed, (120,)))
    told = {"instrument": "spectrograph", "ra": 10.002, "dec": -5.001, "fibre_diameter": FIBRE}
    return Spectra(data, variance, mask, "1e-17 erg/(s cm2 AA)", wave, "air", meta=told | meta)


def objects() -> dict[str, Image | Cube | Spectra]:
    """What is stored, by name."""
    return {
        "plain": image(1, small_wcs(10.0, -5.0)),
        "drift": image(2, small_wcs(10.001, -5.0), row_time=ROW_TIME),
        "galactic": image(3, galactic_wcs(), wave_range=[5440.0, 6980.0]),
        "nowhere": image(4, None, "electron/s", photplam=6000.0),
        "cube": cube(),
        "fibre": spectrum(6, time_start=START, time_stop=STOP),
        "lost": spectrum(7, ra=None, dec=None),
    }


def make_odd_store(folder: Path) -> Store:
    """Return a store with all of `objects`."""
    (folder / "files").mkdir(parents=True)
    for name, one in objects().items():
        write(one, folder / "files" / f"{name}.fits")
    store = create(folder / "odd", levels=3)
    assert not store.ingest([folder / "files"]).failures
    return store


def make_sdss_store(folder: Path) -> Store:
    """Return a store of two frames and a spectrum of SDSS."""
    for band in "gr":
        good_frame(folder / "files", band=band)
    good_spectrum(folder / "files")
    store = create(folder / "sdss", levels=2)
    assert not store.ingest([folder / "files"]).failures
    return store


def gathered(stream: Any) -> np.ndarray:
    """All rows of a table in one array, text instead of its numbers."""
    blocks = [block.copy() for block in stream.blocks]
    rows = np.concatenate(blocks)
    kinds = [(f.name, f.values.dtype if f.values is not None else rows.dtype[f.name]) for f in stream.fields]
    out = np.empty(rows.size, kinds)
    for field in stream.fields:
        values = rows[field.name]
        out[field.name] = values if field.values is None else field.values[values]
    return out
