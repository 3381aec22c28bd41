"""The recipe ifs from the command line on real cubes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS
from typer.testing import CliRunner

import skyloom as sl
from skyloom import cli
from skyloom.io.fits import read_product

pytestmark = pytest.mark.data


def run(folder, values):
    path = folder / "ifs.yaml"
    path.write_text(
        yaml.safe_dump(
            {"recipe": "ifs", "output": {"figures": False}, "lines": "none", **values}, sort_keys=False
        )
    )
    done = CliRunner().invoke(cli.app, ["run", str(path)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.stdout + done.stderr
    (name,) = values["objects"]
    out = folder / "ifs" / name
    return SimpleNamespace(
        labels=sl.read(out / f"{name}_bins.fits"),
        spectra=sl.read(out / f"{name}_spectra.fits"),
        maps=read_product(out / f"{name}_maps.fits"),
        table=QTable.read(out / f"{name}_table.ecsv"),
        summary=QTable.read(folder / "ifs" / "summary.ecsv")[0],
    )


def check_place(product, header):
    """The WCS of maps, bins and table is that of the file."""
    given = WCS(header).celestial
    for wcs in (product.labels.wcs, *(image.wcs for image in product.maps.values())):
        for x, y in ((0.0, 0.0), (13.0, 2.0), (4.0, 17.0)):
            assert wcs.pixel_to_world(x, y).separation(given.pixel_to_world(x, y)).arcsec < 1e-3
    sky = given.pixel_to_world(product.table["x"].value, product.table["y"].value)
    np.testing.assert_allclose(product.table["ra"].to_value("deg"), sky.ra.deg, atol=1e-6)
    np.testing.assert_allclose(product.table["dec"].to_value("deg"), sky.dec.deg, atol=1e-6)


def check_light(product, data):
    """No light is lost or counted twice: the bins' spectra add up to the spaxels of the file."""
    inside = product.labels.labels >= 0
    complete = np.isfinite(data[:, inside]).all(axis=1)
    assert complete.mean() > 0.5
    whole = data[:, inside].sum(axis=1, dtype=float)[complete]
    binned = product.spectra.data.sum(axis=0, dtype=float)[complete]
    np.testing.assert_allclose(binned, whole, rtol=1e-4, atol=1e-4 * np.abs(whole).max())


def test_the_core_of_a478(data_dir, tmp_path):
    """Broad, blended Halpha and [N II] of a brightest cluster galaxy: measured together, continuum well outside."""
    cube = data_dir / "muse" / "A478_cut_core_20x20.fits"
    product = run(
        tmp_path,
        {
            "objects": {"a478": {"redshift": 0.0885}},
            "cube": str(cube),
            "extinction": {"curve": "none"},
            "snr": {
                "line": ["NII6548", "Halpha", "NII6583"],
                "half_width": "1000 km/s",
                "continuum": [[6460, 6500], [6620, 6660]],
            },
            "binning": {"target": 30},
        },
    )
    with fits.open(cube) as hdus:
        check_place(product, hdus["DATA"].header)
        check_light(product, hdus["DATA"].data)
        near = np.abs(product.spectra.wave / 1.0885 - 6568) < 45
        # The sum over the line of the whole field, less a continuum, by hand.
        light = np.nansum(hdus["DATA"].data[near], axis=(1, 2), dtype=float)
    assert product.spectra.meta["instrument"] == "MUSE"
    assert 0.95 < product.summary["noise_scale"] < 1.05
    assert 0.9 < product.summary["bin_noise"] < 1.15
    several = product.table["n_pixels"] > 1
    assert several.sum() > 30
    assert 1.0 <= np.median(product.table["snr"][several]) / 30 < 1.25
    wave = product.spectra.wave[near]
    line = np.abs(wave / 1.0885 - 6566) < 40
    level = np.interp(wave, wave[~line], light[~line])
    by_hand = ((light - level) * 1.25)[line].sum()
    assert product.table["signal"].sum().value == pytest.approx(by_hand, rel=0.1)


def test_a_rotated_cube_of_the_ultra_deep_field(data_dir, tmp_path):
    """No line is known here: the bins are made for the continuum."""
    cube = data_dir / "muse" / "UDF_mosaic_subcube.fits"
    product = run(
        tmp_path,
        {
            "objects": {"udf": {"redshift": 0.0, "ebv": 0.0}},
            "cube": str(cube),
            "snr": {"line": 5007.0, "method": "continuum", "continuum_window": [4900.0, 5300.0]},
            "binning": {"target": 3},
            # Most of the field is blank sky, which no bin brings to the target.
            "checks": {"remainder": 1.0},
        },
    )
    with fits.open(cube) as hdus:
        header = hdus["DATA"].header
        check_place(product, header)
        check_light(product, hdus["DATA"].data)
    angle = np.degrees(np.arctan2(header["CD1_2"], header["CD2_2"]))
    assert abs(angle) == pytest.approx(42, abs=0.1)
    assert product.table["snr"].max() > 3


def test_an_oii_cube_with_its_variance_in_another_file(data_dir, tmp_path):
    folder = data_dir / "hst_udf" / "muse_oii" / "udf_mos_c042_e030_912_o2_Z_0.618915"
    stem = folder / folder.name
    product = run(
        tmp_path,
        {
            "objects": {"912": {"redshift": 0.618915, "ebv": 0.0}},
            "cube": {
                "pattern": f"{stem}_cube_cut.fits",
                "weight": f"{stem}_var_cut.fits",
                "weight_kind": "variance",
            },
            "snr": {"line": ["OII3726", "OII3729"]},
            "binning": {"target": 10},
            "checks": {"remainder": 1.0},
        },
    )
    with fits.open(f"{stem}_cube_cut.fits") as hdus:
        (hdu,) = [hdu for hdu in hdus if hdu.data is not None]
        check_place(product, hdu.header)
        check_light(product, hdu.data)
    # An independent fit of the doublet, where it is sure of itself.
    shipped = [
        fits.getdata(f"{stem}_ssmooth_flux_common_{line}_mclean5.0.fits") for line in ("OII3726", "OII3729")
    ]
    both = np.sum(shipped, axis=0)
    known = np.isfinite(both) & (both > 0)
    mine = product.maps["OII3726+OII3729-signal"]
    used = known & mine.valid
    ratio = mine.data[used].sum() / both[used].sum()
    assert 0.8 < ratio < 1.2
