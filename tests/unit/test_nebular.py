"""Spectra without the stars: values, errors, masks; and back into a cube."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.continuum import ContinuumFit
from skyloom.core.labels import LabelMap
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import weighted_sum_variance
from skyloom.errors import InputError, ShapeError
from skyloom.spectral.gas.nebular import nebular_cube, nebular_spectra
from tests.inputs.line import UNIT, six_bins, spaxels

N_WAVE = 40


def make_spectra(rng, ids):
    n = len(ids)
    mask = np.zeros((n, N_WAVE), bool)
    mask[0, 3] = True
    data = rng.normal(10.0, 1.0, (n, N_WAVE)).astype(np.float32)
    data[mask] = np.nan
    return Spectra(
        data, np.where(mask, np.nan, 1.0).astype(np.float32), mask, UNIT, 5000 + 1.25 * np.arange(N_WAVE), "air",
        lsf=np.full((n, N_WAVE), 1.1), correlation=np.array([0.2, 1.0, 0.2]),
        flags=np.full((n, N_WAVE), 4, np.uint16),
        meta={"labels": [int(i) for i in ids], "n_pixels": [1] * n, "instrument": "MUSE"},
    )  # fmt: skip


def make_continuum(spectra, rng, n_modes=2):
    n = len(spectra.data)
    modes = rng.normal(0, 0.1, (n, n_modes, N_WAVE)).astype(np.float32)
    model = np.full(spectra.shape, 9.0, np.float32)
    model[-1] = np.nan
    zeros = np.zeros(n)
    return ContinuumFit(
        model, (modes**2).sum(axis=1) + np.float32(0.01), UNIT, spectra.wave, "air", zeros, np.ones((n, 1)), zeros,
        zeros, zeros, zeros, zeros, zeros, zeros, zeros, np.zeros(n, np.int64), ("",) * n, np.ones(1), zeros[:1],
        "test", "builtin", modes=modes,
    )  # fmt: skip


@pytest.fixture
def spectra(rng):
    return make_spectra(rng, [4, 9, 2])


def test_what_is_left_without_the_stars(spectra, rng):
    continuum = make_continuum(spectra, rng)
    found = nebular_spectra(spectra, continuum)
    good = found.valid
    np.testing.assert_array_equal(found.mask[:2], spectra.mask[:2])
    assert found.mask[2].all()  # no model there: unknown, not the spectrum itself
    np.testing.assert_allclose(found.data[good], spectra.data[good] - 9.0)
    np.testing.assert_allclose(found.variance[good], (1.0 + continuum.variance)[good], rtol=1e-6)
    np.testing.assert_array_equal(found.correlation, spectra.correlation)
    assert found.history[-1].name == "nebular_spectra"
    assert found.data.dtype == np.float32


def test_shared_errors_as_modes_make_sums_right(spectra, rng):
    continuum = make_continuum(spectra, rng)
    apart, together = (nebular_spectra(spectra, continuum, shared=how) for how in ("modes", "variance"))
    weights = np.ones(N_WAVE)
    own = weighted_sum_variance(apart.variance[1:2].astype(float), weights, None)[0]
    shared = sum((weights @ mode.map[1] * mode.sigma) ** 2 for mode in apart.modes)
    expected = N_WAVE * 1.01 + ((continuum.modes[1].astype(float) @ weights) ** 2).sum()
    assert own + shared == pytest.approx(expected, rel=1e-5)
    single = apart.variance[1] + sum(mode.map[1] ** 2 for mode in apart.modes)
    np.testing.assert_allclose(single, together.variance[1], rtol=1e-5)


def test_spectra_go_back_to_their_spaxels(rng):
    labels = spaxels((4, 5))
    ids = rng.permutation(labels.ids)[:15]
    spectra = make_spectra(rng, ids)
    kernel = np.array([[0, 0.2, 0], [0.2, 1, 0.2], [0, 0.2, 0]])
    cube = nebular_cube(
        nebular_spectra(spectra, make_continuum(spectra, rng), shared="modes"), labels, correlation=kernel
    )
    nebular = nebular_spectra(spectra, make_continuum(spectra, rng))
    for row, number in enumerate(ids):
        y, x = np.argwhere(labels.labels == number)[0]
        np.testing.assert_array_equal(cube.data[:, y, x], nebular.data[row])
        np.testing.assert_array_equal(cube.mask[:, y, x], nebular.mask[row])
    assert cube.mask[:, ~np.isin(labels.labels, ids)].all()
    assert cube.wcs is labels.wcs
    assert cube.lsf.shape == cube.shape
    assert len(cube.modes) == 2
    np.testing.assert_array_equal(cube.correlation.spatial, kernel)
    np.testing.assert_array_equal(cube.correlation.spectral, spectra.correlation)
    assert cube.meta == {"instrument": "MUSE"}


def test_bins_are_no_spaxels(rng):
    labels = six_bins()
    with pytest.raises(InputError, match="6 regions on"):
        nebular_cube(make_spectra(rng, labels.ids), labels)


def test_a_spectrum_without_a_spaxel_is_refused(rng):
    with pytest.raises(InputError, match="spectrum 99"):
        nebular_cube(make_spectra(rng, [1, 99]), spaxels())
    with pytest.raises(InputError, match="spectrum 1"):
        nebular_cube(make_spectra(rng, [1]), LabelMap(np.array([[0, -1]])))


def test_a_continuum_of_other_spectra_is_refused(spectra, rng):
    continuum = make_continuum(make_spectra(rng, [1, 2]), rng)
    with pytest.raises(ShapeError):
        nebular_spectra(spectra, continuum)
    with pytest.raises(InputError, match="shared"):
        nebular_spectra(spectra, make_continuum(spectra, rng), shared="none")
