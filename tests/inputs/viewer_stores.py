"""A small store for the tests of the viewer: two epochs of a field in two bands, turned, and spectra of its objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.wcs import WCS

from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.io.fits import write
from skyloom.store import Store, create

SHAPE = (96, 128)
SCALE = 0.4
FIELD = (38.33, -0.1)
OBJECTS = {"galaxy": (38.3315, -0.0985, 0.05), "star": (38.3265, -0.1030, 0.0)}
"""Right ascension, declination (deg), redshift."""
EPOCHS = {"first": (52261.2, 0.0), "second": (53671.3, 25.0)}
"""MJD, and by how much the camera was turned, in deg."""
FIBRE = 3.0


def epoch_wcs(turn: float) -> WCS:
    """A field with pixels of 0.4 arcsec, turned about its centre."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = list(FIELD)
    wcs.wcs.crpix = [(SHAPE[1] + 1) / 2, (SHAPE[0] + 1) / 2]
    angle = np.radians(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.cd = rotation @ np.diag([-SCALE, SCALE]) / 3600
    return wcs


def epoch_image(epoch: str, band: str) -> Image:
    """An image of the objects, with noise and some pixels masked."""
    time, turn = EPOCHS[epoch]
    wcs = epoch_wcs(turn)
    generator = np.random.default_rng([len(epoch), ord(band)])
    data = generator.normal(0.0, 0.02, SHAPE)
    y, x = np.indices(SHAPE)
    for ra, dec, _ in OBJECTS.values():
        x0, y0 = wcs.all_world2pix(ra, dec, 0)
        data += 2.0 * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 8.0)
    mask = generator.random(SHAPE) < 0.01
    meta = {"instrument": "camera", "band": band, "time_start": time, "time_stop": time + 0.001}
    return Image(
        data.astype(np.float32),
        np.full(SHAPE, 4e-4, np.float32),
        mask,
        "nmgy",
        wcs,
        meta=meta | {"exposure": 53.9},
    )


def fibre_spectrum(name: str) -> Spectra:
    """A spectrum with Halpha at the redshift of the object."""
    ra, dec, redshift = OBJECTS[name]
    wave = 10 ** (3.58 + 1e-4 * np.arange(3800))
    generator = np.random.default_rng(len(name))
    line = 20.0 * np.exp(-0.5 * ((wave - 6564.6 * (1 + redshift)) / 3.0) ** 2)
    data = (5.0 + line + generator.normal(0.0, 0.5, wave.size))[None]
    mask = generator.random(data.shape) < 0.01
    meta = {
        "instrument": "spectrograph", "object": name, "ra": ra, "dec": dec, "fibre_diameter": FIBRE,
        "redshift": redshift, "time_start": 51817.1, "time_stop": 51817.2,
    }  # fmt: skip
    unit = "1e-17 erg/(s cm2 AA)"
    return Spectra(data, np.full_like(data, 0.25), mask, unit, wave, "vacuum", meta=meta)


def make_epoch_store(folder: Path) -> Store:
    """Return a store of four images and two spectra."""
    files = folder / "files"
    files.mkdir(parents=True)
    for epoch in EPOCHS:
        for band in "gr":
            write(epoch_image(epoch, band), files / f"{epoch}-{band}.fits")
    for name in OBJECTS:
        write(fibre_spectrum(name), files / f"{name}.fits")
    store = create(folder / "sky", levels=3)
    assert not store.ingest([files]).failures
    return store
