"""Errors of what is stored: pulls at every resolution, flux, and places on the sky, against known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from store_table import show
from two_nights import N_LEVELS, SHAPE, SHARED, level_pulls

N_DRAWS = 36
TOLERANCE = 0.03
FLUX, OFFSET = 1e-6, 1e-3  # arcsec
WIDTHS = (1, 5, 50)
N_CHECKED = 8
"""Spectra of noise that show that levels are linear."""
SEED = 6


def show_noise(folder: Path, quick: bool) -> None:
    """Print the rows about errors."""
    n_draws = N_DRAWS // 2 if quick else N_DRAWS
    show_images(n_draws)
    show_stored(folder)
    show_spectra()


def show_images(n_draws: int) -> None:
    """Print pulls of the difference of two nights."""
    for correlation, name in ((0.0, "white noise"), (0.8, "correlated noise (0.8 px)")):
        levels = level_pulls(correlation, n_draws)
        scatter = np.array([level.std() for level in levels])
        chance = [
            1 / np.sqrt(2 * level.size / share)
            for level, share in zip(levels, SHARED[correlation], strict=True)
        ]
        show(
            f"two nights, {name}: levels 0-4",
            " ".join(f"{value:.3f}" for value in scatter)
            + " (+- "
            + " ".join(f"{value:.3f}" for value in chance)
            + ")",
            f"1.00 +- {TOLERANCE}",
            bool(np.all(np.abs(scatter - 1) < TOLERANCE)),
        )


def show_stored(folder: Path) -> None:
    """Print what becomes of flux and places of a frame that goes from a file into a store and out again."""
    from skyloom.mock.sdss.field import sdss_field
    from skyloom.mock.sdss.files import write_frame
    from skyloom.mock.sdss.frames import EPOCHS, observe_frame
    from skyloom.mock.sdss.records import frame_name
    from skyloom.store.files.part_reader import PartReader
    from skyloom.store.query import create

    field = sdss_field(4, shape=SHAPE, n_stars=6, n_galaxies=3, spiral=False)
    generator = np.random.default_rng(SEED)
    lost, offsets = 0.0, {False: 0.0, True: 0.0}
    for sip in (False, True):
        frame = observe_frame(field, EPOCHS[1], "r", SHAPE, sip=sip, n_dead=0 if sip else 500, seed=1)
        path = write_frame(folder / f"files{int(sip)}" / frame_name(EPOCHS[1], "r"), frame)
        store = create(folder / f"store{int(sip)}", levels=N_LEVELS)
        result = store.ingest([path])
        (name,) = result.stored
        total = float(np.sum(store.cutout(name).data, where=~store.cutout(name).mask, dtype=float))
        with PartReader(store.path / result.parts[0].name) as reader:
            for z in range(N_LEVELS):
                image = store.cutout(name, level=z)
                counts = reader.planes(name, z, None, ("n_good",))["n_good"]
                light = np.sum(image.data.astype(float) * counts / 4.0**z, where=~image.mask)
                lost = max(lost, abs(float(light) / total - 1))
                places = generator.uniform(0, min(image.shape) - 1, (200, 2))
                fine = (places + 0.5) * 2**z - 0.5
                sky, expected = image.wcs.all_pix2world(places, 0), frame.image.wcs.all_pix2world(fine, 0)
                offsets[sip] = max(offsets[sip], float(np.abs(sky - expected).max()) * 3600)
    show("    flux of all levels over that of level 0, less 1", f"{lost:.1e}", f"<= {FLUX:g}", lost <= FLUX)
    worst = max(offsets.values())
    show(
        "    places at every level, without / with SIP",
        f"{offsets[False]:.1e} / {offsets[True]:.1e} arcsec",
        f'< {OFFSET:g}"',
        worst < OFFSET,
    )


def show_spectra() -> None:
    """Print the errors of sums of pixels of spectra that were rebinned and halved, over those that are told.

    Levels are linear in the values: what becomes of each single pixel gives the covariance that sums truly have, with
    no draws and nothing left to chance.
    """
    from skyloom.core.spectra import Spectra
    from skyloom.core.spectral_noise import lag_bands
    from skyloom.store.levels.common_grid import rows
    from skyloom.store.levels.spectra import spectrum_levels
    from skyloom.store.schema import CommonGrid, StoreSettings

    settings = StoreSettings(common_grid=CommonGrid(5000.0, 5800.0), levels=N_LEVELS)
    wave = 10 ** (1e-4 * (36985.37 + np.arange(655)))
    variance = np.linspace(1.0, 3.0, wave.size)
    variance *= 1 + 30 * np.exp(-0.5 * ((wave - wave[wave.size // 3]) / 1.5) ** 2)
    for lags, name in (([1.0], "white"), ([1.0, 4.0, 6.0, 4.0, 1.0], "correlated")):
        rho = np.asarray(lags) / max(lags)
        drawn = np.random.default_rng(SEED).normal(0, np.sqrt(variance), (N_CHECKED, wave.size))
        values = np.vstack([np.eye(wave.size), drawn])
        spectra = Spectra(
            values, np.broadcast_to(variance, values.shape).copy(), None,
            "1e-17 erg/(s cm2 AA)", wave, "vacuum", lsf=1.2, correlation=None if rho.size == 1 else rho,
        )  # fmt: skip
        sigma = np.sqrt(variance)
        near = np.subtract.outer(np.arange(wave.size), np.arange(wave.size)) + rho.size // 2
        inside = (near >= 0) & (near < rho.size)
        true = np.where(inside, rho[np.clip(near, 0, rho.size - 1)], 0.0) * np.outer(sigma, sigma)
        levels = zip(*(spectrum_levels(row, settings)[1] for row in rows(spectra)), strict=True)
        pulls: dict[int, list[np.ndarray]] = {width: [] for width in WIDTHS}
        for level in levels:
            first = level[0].subject
            used = np.flatnonzero(~first.mask[0])
            told = np.sqrt(first.variance[0][used].astype(float))
            predicted = _dense(lag_bands(first.correlation, first.mask.shape[1]), used) * np.outer(told, told)
            made = np.vstack([item.subject.data[0][used] for item in level]).astype(float)
            weights, of_drawn = made[: wave.size], made[wave.size :]
            assert np.allclose(drawn @ weights, of_drawn, rtol=0, atol=1e-5 * np.abs(of_drawn).max())
            for width in WIDTHS:
                sums = np.zeros((used.size, max(1, used.size // width)))
                for index in range(sums.shape[1]):
                    sums[index * width : (index + 1) * width, index] = 1.0
                exact = np.einsum("is,ij,js->s", weights @ sums, true, weights @ sums, optimize=True)
                pulls[width].append(
                    np.sqrt(exact / np.einsum("is,ij,js->s", sums, predicted, sums, optimize=True))
                )
        for width, found in pulls.items():
            every = np.concatenate(found)
            show(
                f"spectra, {name}: sums of {width} px, levels 0-4",
                " ".join(f"{np.sqrt(np.mean(level**2)):.3f}" for level in found)
                + f" (exact; single sums {every.min():.3f} to {every.max():.3f})",
                f"1.00 +- {TOLERANCE}",
                bool(np.all(np.abs(every - 1) < TOLERANCE)),
            )


def _dense(bands: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return the correlation of the channels in use as a matrix."""
    n_wave, width = bands.shape
    matrix = np.zeros((n_wave, n_wave))
    for lag in range(-(width // 2), width // 2 + 1):
        channel = np.arange(max(0, -lag), min(n_wave, n_wave - lag))
        matrix[channel, channel + lag] = bands[channel, width // 2 + lag]
    return matrix[np.ix_(used, used)]
