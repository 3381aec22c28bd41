"""What existing pipelines get wrong when they paint lines and derive quantities, one test each."""

from __future__ import annotations

import numpy as np
from astropy.io import fits

from skyloom.core.labels import LabelMap
from skyloom.core.line_fit import LineFlag
from skyloom.io.products.line_maps import write_line_maps
from skyloom.spectral.gas.bpt import bpt_classes
from skyloom.spectral.gas.derived import balmer_extinction
from skyloom.spectral.gas.maps import line_maps, sum_bins
from tests.inputs.line import KEYS, simple_fit, six_bins, sky_wcs


def unfitted(fit, row, key):
    for kind in ("flux", "flux_err", "velocity", "velocity_err", "sigma", "sigma_err", "snr", "flux_direct"):
        fit.table[f"{key}_{kind}"][row] = np.nan
    fit.table[f"{key}_flag"][row] = int(LineFlag.NOT_COVERED)


def test_a_line_that_was_not_fitted_is_never_zero(tmp_path):
    labels = six_bins()
    fit = simple_fit(labels.ids)
    unfitted(fit, 2, "OI6300")
    maps = line_maps(fit, labels)
    for layout in ("skyloom", "betis"):
        path = write_line_maps(maps, tmp_path / f"{layout}.fits", layout=layout)
        with fits.open(path) as hdus:
            if layout == "betis":
                planes = [hdus[number].data[KEYS.index("OI6300")] for number in (0, 1, 2, 3, 6)]
            else:
                planes = [
                    hdus[f"OI6300_{kind}"].data for kind in ("FLUX", "FLUX_ERR", "VELOCITY", "SIGMA", "SNR")
                ]
        for plane in planes:
            assert np.isnan(plane[maps.rows == 2]).all()
    flags = maps.code_plane("OI6300_flag")
    assert set(flags[maps.rows == 2]) == {int(LineFlag.NOT_COVERED)}


def test_an_unknown_flux_does_not_become_a_class_or_an_extinction():
    fit = simple_fit(np.arange(4))
    unfitted(fit, 1, "Hbeta")
    assert bpt_classes(fit)["name"][1] == "unknown"
    assert np.isnan(balmer_extinction(fit)["ebv"][1])


def test_the_last_bin_is_painted():
    labels = six_bins()
    image = line_maps(simple_fit(labels.ids), labels)["Halpha_flux"]
    assert image.valid[labels.labels == labels.ids[-1]].all()


def test_bins_with_the_same_flux_stay_apart():
    labels = LabelMap(np.array([[0, 0, 1, 1], [2, 2, 3, 3]]), sky_wcs())
    fit = simple_fit(labels.ids)
    for column in ("Halpha_flux", "Halpha_flux_err"):
        fit.table[column][:] = fit.table[column][0]
    fit.table["Halpha_velocity"][3] *= -1
    maps = line_maps(fit, labels)
    np.testing.assert_array_equal(maps["Halpha_velocity"].data, [[10, 10, 11, 11], [12, 12, -13, -13]])
    whole = sum_bins(maps, "Halpha_flux", np.zeros((2, 4), int))[0]
    np.testing.assert_allclose(whole["flux_err"], 2 * fit.table["Halpha_flux_err"][0])


def test_negative_fluxes_keep_their_sign_on_the_map():
    labels = six_bins()
    fit = simple_fit(labels.ids)
    fit.table["Hbeta_flux"][3] *= -1
    image = line_maps(fit, labels)["Hbeta_flux"]
    inside = labels.labels == labels.ids[3]
    assert image.valid[inside].all()
    assert (image.data[inside] < 0).all()
