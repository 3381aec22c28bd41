"""Products of every kind for the programs that must read them, and what it means that a program must be there."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import skyloom as sl
from skyloom.io import write_product, write_resampled
from skyloom.io.products.line_maps import write_fitted_spectra, write_line_maps
from skyloom.spectral.gas.maps import line_maps
from tests.inputs.io_objects import make_cube, make_image, make_spectra
from tests.inputs.line import simple_fit, six_bins

UNIT = "1e-20 erg/(s cm2 AA)"


def needs(package: str) -> None:
    """Skip where a package is absent; where the whole extra must be there, fail."""
    if importlib.util.find_spec(package) is None:
        message = f'{package} is not installed (pip install "skyloom[ecosystem]")'
        if os.environ.get("SKYLOOM_REQUIRE_ECOSYSTEM"):
            pytest.fail(message)
        pytest.skip(message)


def log_cube(cube: sl.Cube) -> sl.Cube:
    """The same cube on logarithmic wavelengths, in vacuum, as MaNGA has them."""
    wave = 10 ** (3.6 + 1e-4 * np.arange(cube.shape[0]))
    return cube.evolve(wave=wave, medium="vacuum", meta={"redshift_applied": 0.02})


def write_all(folder: Path) -> SimpleNamespace:
    """Write one product of each kind; return the objects that are in them."""
    rng = np.random.default_rng(11)
    image, cube = make_image(rng, (30, 24), full=True), make_cube(rng, (25, 12, 10), full=True)
    spectra = make_spectra(rng, (3, 80), full=True)
    bins = six_bins()
    fit = simple_fit(bins.ids)
    shape = fit.model.shape
    fitted = sl.Spectra(np.ones(shape), np.ones(shape), np.zeros(shape, bool), UNIT, fit.wave, fit.medium)
    one = spectra.evolve(
        data=spectra.data[:1],
        variance=spectra.variance[:1],
        mask=spectra.mask[:1],
        lsf=None,
        flags=None,
        modes=(),
    )
    objects = {
        "image": image, "cube": cube, "log_cube": log_cube(cube), "spectra": spectra, "one": one, "bins": bins,
    }  # fmt: skip
    for name, obj in objects.items():
        sl.write(obj, folder / f"{name}.fits")
    write_product(folder / "bands.fits", {"f814w": image, "f606w": make_image(rng, (30, 24))}, config="a: 1")
    write_resampled(cube, folder / "resam.fits")
    write_line_maps(line_maps(fit, bins), folder / "maps.fits")
    write_fitted_spectra(folder / "fits.fits", fitted, None, fit)
    return SimpleNamespace(**objects, folder=folder)
