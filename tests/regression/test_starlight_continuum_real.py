"""Genuine results of STARLIGHT as continua of the spectra they were made from."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.spectra import Spectra
from skyloom.io.starlight import read_output, read_spectrum, read_starlight_continuum

pytestmark = pytest.mark.data


def test_spaxels_of_kug0210(data_dir):
    folder = data_dir / "starlight" / "KUG0210_PMAS"
    texts = sorted(folder.glob("KUG*.txt"))
    read = [read_spectrum(path) for path in texts]
    data, error, flag = (np.array([getattr(one, name) for one in read]) for name in ("flux", "error", "flag"))
    spectra = Spectra(
        data, error**2, (flag >= 2) | (error <= 0), "erg / (s cm2 AA)", read[0].wave, "air",
        meta={"redshift_applied": 0.0},
    )  # fmt: skip
    paths = [path.with_name(path.stem + ".C11.gm.CCM.BN") for path in texts]
    paths[3] = next(folder.glob("TRUNCATED*"))
    paths[4], paths[5] = paths[5], paths[4]  # mixed up
    fit = read_starlight_continuum(paths, spectra)
    np.testing.assert_array_equal(np.flatnonzero(~fit.usable), [3, 4, 5])
    assert "aborted" in fit.reasons[3]
    assert "another spectrum" in fit.reasons[4]
    for row in np.flatnonzero(fit.usable):
        output = read_output(paths[row])
        # The model is STARLIGHT's own wherever it has one.
        inside = (spectra.wave >= output.wave[0]) & (spectra.wave <= output.wave[-1])
        np.testing.assert_array_equal(np.isfinite(fit.model[row]), inside)
        np.testing.assert_allclose(fit.model[row, inside], output.synthetic, rtol=1e-9)
        used = output.weight > 0
        ratio = np.abs(1 - fit.model[row, inside][used] / data[row, inside][used])
        assert 100 * np.mean(ratio) == pytest.approx(output.values["adev"], rel=2e-3)
        assert fit.velocity[row] == output.values["velocity"]
        assert 6.0 < fit.mean_age[row] < 10.3
        assert fit.light_fractions[row].sum() == pytest.approx(1.0)
