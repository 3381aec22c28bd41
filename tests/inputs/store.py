"""Small files to store, ingests in processes that can be killed, and what a store holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.wcs import WCS

from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.io.fits import write
from skyloom.store.files.folder import make_folder
from skyloom.store.files.manifest import Manifest
from skyloom.store.files.part_reader import PartReader
from skyloom.store.ingest.run import ingest
from skyloom.store.schema import StoreSettings

SHAPE = (24, 20)
SETTINGS = StoreSettings(levels=3, part_bytes=40_000)
"""A part holds few of the small images, so that many parts are written."""


def small_wcs(ra: float, dec: float, shape: tuple[int, int] = SHAPE) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cd = np.array([[-0.4, 0.0], [0.0, 0.4]]) / 3600
    return wcs


def small_image(seed: int, ra: float = 10.0, dec: float = -5.0) -> Image:
    generator = np.random.default_rng(seed)
    data = generator.normal(5.0, 1.0, SHAPE).astype(np.float32)
    mask = generator.random(SHAPE) < 0.05
    meta = {"instrument": "camera", "band": "gr"[seed % 2], "exposure": 30.0}
    return Image(data, np.ones(SHAPE, np.float32), mask, "nmgy", small_wcs(ra, dec), meta=meta)


def small_spectrum(seed: int, ra: float = 10.0, dec: float = -5.0) -> Spectra:
    wave = 10 ** (3.58 + 1e-4 * np.arange(300))
    data = np.random.default_rng(seed).normal(3.0, 1.0, (1, wave.size))
    unit = "1e-17 erg/(s cm2 AA)"
    meta = {"instrument": "spectrograph", "ra": ra, "dec": dec}
    return Spectra(data, np.ones_like(data), np.zeros(data.shape, bool), unit, wave, "vacuum", meta=meta)


def write_files(folder: Path, n: int, first: int = 0) -> list[Path]:
    """Write ``n`` images in three partitions, every fifth file a spectrum."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(first, first + n):
        ra, dec = 10.0 + 20.0 * (number % 3) + 0.001 * number, -5.0
        path = folder / f"field{number:03d}.fits"
        write(small_spectrum(number, ra, dec) if number % 5 == 4 else small_image(number, ra, dec), path)
        paths.append(path)
    return paths


def make_store(path: Path) -> Path:
    make_folder(path, SETTINGS)
    return path


def digests(store: Path) -> dict[str, str]:
    """Return the digest of every visible observation, after seeing that each can be read."""
    manifest = Manifest.read(store)
    found: dict[str, str] = {}
    for part in manifest.visible_parts:
        hidden = manifest.dropped.get(part.name, frozenset())
        with PartReader(store / part.name) as reader:
            assert len(reader) == part.n
            assert reader.digest == part.digest
            names, sums = reader.column("obs_id").tolist(), reader.column("digest").tolist()
            for row, (name, digest) in enumerate(zip(names, sums, strict=True)):
                if row not in hidden:
                    assert name not in found
                    found[name] = digest
    return found


def ingest_alone(store: str, folder: str) -> None:
    """Ingest a folder; run in a process of its own."""
    ingest(store, [folder])
