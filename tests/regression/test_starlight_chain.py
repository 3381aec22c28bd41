"""From a real cube to what STARLIGHT reads: rest frame, 1 A, flags, and the same fluxes behind it."""

from __future__ import annotations

import numpy as np
import pytest

import skyloom as sl
from skyloom.core.spectra import Spectra
from skyloom.io.starlight import BaseEntry, bin_names, read_grid, read_spectrum, write_starlight_set
from skyloom.spectral.axes.resample import resample
from skyloom.spectral.axes.rest_frame import to_rest_frame
from skyloom.spectral.noise.sky_residuals import sky_residual_mask

pytestmark = pytest.mark.data


def test_spaxels_of_a478(data_dir, tmp_path):
    cube = sl.read(data_dir / "muse" / "A478_cut_core_20x20.fits")
    y, x = (index.ravel() for index in np.mgrid[8:10, 8:11])
    observed = Spectra(
        cube.data[:, y, x].T,
        cube.variance[:, y, x].T,
        cube.mask[:, y, x].T,
        cube.unit,
        cube.wave,
        cube.medium,
        meta={"object": "A478"},
    )
    at_rest = resample(to_rest_frame(observed, 0.0885), step=1.0)
    sky = sky_residual_mask(at_rest)
    done = write_starlight_set(
        tmp_path,
        at_rest,
        bin_names("A478", range(6)),
        config="StCv04.C11.config",
        base=[BaseEntry("ssp.spec", 1e9, 0.02, "age_m62")],
        flags=np.where(sky, 3, 0),
        n_grids=2,
    )
    assert [len(read_grid(path).fits) for path in done.grids] == [3, 3]
    low, high = read_grid(done.grids[0]).fit_range
    assert 4750 / 1.0885 < low < 4430 < 8530 < high < 9350 / 1.0885
    for row, path in enumerate(done.spectra):
        found = read_spectrum(path)
        np.testing.assert_array_equal(np.diff(found.wave), 1.0)
        np.testing.assert_array_equal(found.flag >= 2, at_rest.mask[row] | sky)
        used = found.flag == 0
        np.testing.assert_allclose(found.flux[used], at_rest.data[row, used], rtol=1e-6)
        np.testing.assert_allclose(found.error[used] ** 2, at_rest.variance[row, used], rtol=1e-6)
        assert np.all(found.error > 0)
    # The sky line at 5577 A lies at 5123.6 A at rest.
    assert found.flag[np.argmin(np.abs(found.wave - 5577.3 / 1.0885))] == 3
