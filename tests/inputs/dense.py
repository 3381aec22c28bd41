"""Small stores for dense cubes: nights of one field with known truth, and spectra of few places."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.io.fits import write
from skyloom.mock.sdss.field import sdss_field
from skyloom.mock.sdss.frames import EPOCHS, observe_frame
from skyloom.store.query import Store, create
from tests.inputs.store import small_wcs

SHAPE = (180, 250)
NIGHTS = tuple(
    replace(EPOCHS[0], run=2820 + night, tai=EPOCHS[0].tai + 1e6 * night, shift=shift, angle=angle, sky=sky)
    for night, (shift, angle, sky) in enumerate(
        [
            ((0.0, 0.0), 0.0, 1.0),
            ((3.37, -2.61), 0.013, 1.08),
            ((-1.5, 4.25), 0.4, 0.9),
            ((2.71, 1.9), -7.0, 1.3),
            ((-3.2, -0.33), 21.0, 1.0),
        ]
    )
)
"""Five nights: shifted by fractions of a pixel, turned, with skies of their own."""


@lru_cache(maxsize=1)
def field():
    return sdss_field(4, shape=SHAPE, n_stars=5, n_galaxies=3, spiral=False)


@lru_cache(maxsize=len(NIGHTS))
def light(epoch):
    """The field without noise, in nanomaggies; painted once, in r, for all bands."""
    return observe_frame(field(), epoch, "r", SHAPE, seed=0).truth


def night(epoch, band, seed, *, correlation=0.0) -> tuple[Image, Image]:
    """One frame, and the same without its noise."""
    frame = observe_frame(
        field(),
        epoch,
        band,
        SHAPE,
        truth=light(epoch),
        correlation=correlation,
        n_dead=200,
        seed=np.random.default_rng([seed, epoch.run, ord(band)]),
    )
    truth = np.where(frame.image.mask, np.nan, frame.truth).astype(np.float32)
    return frame.image, frame.image.evolve(data=truth)


def noise_of(frame: Image, truth: Image) -> Image:
    """The noise of a frame alone, with everything else that is known of it."""
    return frame.evolve(data=frame.data - truth.data)


def flat_image(value: float, ra: float, dec: float, **meta) -> Image:
    """An image of 24 x 20 pixels of 0.4 arcsec with one value, variance 1."""
    shape = (24, 20)
    ones = np.ones(shape, np.float32)
    return Image(
        value * ones,
        ones,
        np.zeros(shape, bool),
        "nmgy / arcsec2",
        small_wcs(ra, dec),
        meta={"instrument": "camera", "band": "r", **meta},
    )


def flat_spectrum(value: float, ra: float, dec: float, **meta) -> Spectra:
    """A spectrum of one value on the pixels of the common grid, variance 1."""
    wave = 10 ** (1e-4 * (36000 + np.arange(300)))
    data = np.full((1, wave.size), value)
    unit = "1e-17 erg/(s cm2 AA)"
    meta = {"instrument": "spectrograph", "ra": ra, "dec": dec, **meta}
    return Spectra(data, np.ones_like(data), np.zeros(data.shape, bool), unit, wave, "vacuum", meta=meta)


def store_of(folder: Path, items: dict, **settings) -> Store:
    """A store of images and spectra by the name of their file."""
    (folder / "files").mkdir(parents=True)
    for name, item in items.items():
        write(item, folder / "files" / f"{name}.fits")
    store = create(folder / "sky", **({"levels": 2} | settings))
    store.ingest([folder / "files"])
    assert len(store.failures()) == 0, store.failures()
    return store
