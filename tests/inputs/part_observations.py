"""Small observations with everything an object can carry, for the tests of the files of a store."""

from __future__ import annotations

import numpy as np

import skyloom as sl
from skyloom.core.provenance import step
from skyloom.core.spectral_noise import lag_bands
from skyloom.store.observation import Level, Observation
from skyloom.store.schema import COLUMNS
from tests.inputs.io_objects import make_cube, make_image, make_spectra, sip_wcs, tan_wcs

FILLS = {"str": "some text \N{ANGSTROM SIGN}", "f": 1 / 3, "i": 3}


def columns(obs_id, **values):
    filled = {
        name: FILLS[column.kind] if column.kind == "str" else FILLS[column.kind[0]]
        for name, column in COLUMNS.items()
    }
    return filled | {"obs_id": obs_id, "s_ra": 53.1 + 1 / 3, "t_start": 55000.123456789012} | values


def counts(rng, subject, level=0):
    return np.where(subject.mask, 0, rng.integers(1, 4**level + 1, subject.shape)).astype(np.int64)


def image_observation(rng, obs_id="image-1", shape=(70, 53), n_levels=3, sip=True, **more):
    levels = []
    for z in range(n_levels):
        size = tuple(-(-side // 2**z) for side in shape)
        image = make_image(rng, size, full=True, wcs=sip_wcs() if sip else tan_wcs(30.0), **more)
        if z:
            image = image.evolve(step("halve", level=z))
        levels.append(Level(image, counts(rng, image, z)))
    return Observation(obs_id, "image", columns(obs_id), f"SIMPLE  = T\nOBJECT  = '{obs_id}'", tuple(levels))


def cube_observation(rng, obs_id="cube-1", shape=(12, 9, 8), n_levels=2):
    levels = []
    for z in range(n_levels):
        cube = make_cube(rng, tuple(-(-side // 2**z) for side in shape), full=True)
        levels.append(Level(cube, counts(rng, cube, z)))
    return Observation(obs_id, "cube", columns(obs_id), "SIMPLE  = T", tuple(levels))


def common_spectrum(rng, n_wave, lags=2, start=3500.0):
    """One spectrum on a grid that all share, single precision in all but its wavelengths."""
    spectrum = make_spectra(rng, (1, n_wave), full=True)
    wave = start * 10 ** (1e-4 * np.arange(n_wave))
    correlation = None
    if lags:
        rho = np.concatenate([[0.25, 0.5, 1.0, 0.5, 0.25]])[2 - lags : 3 + lags]
        correlation = lag_bands(rho, n_wave)
    lsf = rng.uniform(1.0, 1.3, n_wave).astype(np.float32).astype(np.float64)
    planes = {name: getattr(spectrum, name).astype(np.float32) for name in ("data", "variance")}
    return spectrum.evolve(wave=wave, correlation=correlation, lsf=lsf, **planes)


def spectrum_observation(rng, obs_id="spectrum-1", n_wave=40, n_native=31, n_levels=3, lags=2, reaches=True):
    native = make_spectra(rng, (1, n_native), full=True)
    planes = {name: getattr(native, name).astype(np.float32) for name in ("data", "variance")}
    native = native.evolve(correlation=lag_bands(np.array([0.1 / 3, 1.0, 0.1 / 3]), n_native), **planes)
    levels = [common_spectrum(rng, n_wave // 2**z, lags) for z in range(n_levels if reaches else 0)]
    return Observation(
        obs_id,
        "spectrum",
        columns(obs_id, band=""),
        "SIMPLE  = T",
        tuple(Level(level, counts(rng, level, z)) for z, level in enumerate(levels)),
        Level(native, counts(rng, native)),
    )


def plain_spectrum(rng, obs_id, n_wave=40, n_native=25):
    """A spectrum of independent pixels without LSF and flags."""
    levels = [
        sl.Spectra(
            rng.normal(size=(1, size)).astype(np.float32),
            np.ones((1, size), np.float32),
            np.zeros((1, size), bool),
            "nmgy",
            3500.0 * 10 ** (1e-4 * np.arange(size)),
            "vacuum",
        )
        for size in (n_wave, n_native)
    ]
    common, native = (Level(level, np.ones(level.shape, np.int64)) for level in levels)
    return Observation(obs_id, "spectrum", columns(obs_id), "", (common,), native)
