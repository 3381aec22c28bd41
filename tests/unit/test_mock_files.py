"""Files of the mock: laid out like the archive's, readable, repeatable, with their truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from skyloom.core.geometry import pixel_matrix, pixel_scale
from skyloom.errors import InputError
from skyloom.mock.hubble.files import SCENES, MockField, write_hst_mock, write_scene

OPTIONS = {"n_objects": 1, "bands": ("f606w", "f160w"), "shape": (48, 48), "n_stars": 2, "n_cosmic_rays": 2}


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> MockField:
    return write_hst_mock(tmp_path_factory.mktemp("mock"), seed=11, **OPTIONS)


def test_names_are_those_of_the_archive(field: MockField) -> None:
    names = {path.relative_to(field.directory).as_posix() for path in field.directory.rglob("*.*")}
    for name in (
        "stamps/1_60mas_f606w_sci.fits",
        "stamps/1_60mas_f160w_wht.fits",
        "stamps/1_30mas_f606w_sci.fits",
        "psf_stars/2_60mas_f160w_sci.fits",
        "psf_stars/1_30mas_f606w_wht.fits",
        "segment_maps/udf_mosaic_1_HST_SEGMAP.fits",
        "sky/sky_1_606.txt",
        "truth/1_60mas_f606w_truth.fits",
        "truth/1_segmentation.fits",
        "truth.ecsv",
        "homogenize.yaml",
    ):
        assert name in names
    assert "stamps/1_30mas_f160w_sci.fits" not in names


def test_stamps_hold_what_was_observed(field: MockField) -> None:
    for stamp in field.objects[0].stamps:
        with fits.open(stamp.science) as hdus:
            data, header = hdus[0].data, hdus[0].header
            assert header["BUNIT"] == "ELECTRONS/S"
            assert header["FILTER"] == stamp.band
            assert "PHOTFLAM" not in header
            wcs = WCS(header)
        weight = fits.getdata(stamp.weight)
        observation = stamp.observation
        np.testing.assert_array_equal(data, observation.image.data.astype(np.float32))
        assert np.all(weight[observation.dead] == 0)
        claimed = 1 / weight[~observation.dead] / observation.background_variance[~observation.dead]
        np.testing.assert_allclose(claimed, stamp.weight_scale, rtol=1e-6)
        assert pixel_scale(wcs, data.shape) == pytest.approx(stamp.scale, rel=1e-4)
        assert data.shape == ((48, 48) if stamp.scale > 0.05 else (96, 96))
        x, y = wcs.all_world2pix(*field.objects[0].target.scene.centre, 0)
        middle = (data.shape[0] - 1) / 2
        assert (float(x), float(y)) == (pytest.approx(middle, abs=1e-5), pytest.approx(middle, abs=1e-5))


def test_fluxes_agree_between_the_scales(field: MockField) -> None:
    coarse, fine = field.stamp("1", "f606w"), field.stamp("1", "f606w", 0.03)
    assert coarse.flux == pytest.approx(fine.flux, rel=1e-6)
    assert coarse.object_flux == fine.object_flux
    assert coarse.observation.target.sum() < coarse.object_flux < 1.1 * coarse.observation.target.sum()
    with pytest.raises(InputError, match="no stamp"):
        field.stamp("1", "f105w")


def test_truth_files(field: MockField) -> None:
    stamp = field.stamp("1", "f160w")
    assert stamp.truth is not None
    with fits.open(stamp.truth) as hdus:
        planes = {hdu.name: hdu.data for hdu in hdus[1:]}
        assert hdus[0].header["PSF type"] == "moffat"
    good = planes["DEAD"] == 0
    noise = fits.getdata(stamp.science) - planes["TRUTH"] - planes["SKY"] - planes["COSMIC"]
    pulls = noise[good] / np.sqrt(planes["VARIANCE"][good])
    # Infra-red pixels are correlated over about 4 of them.
    assert pulls.std() == pytest.approx(1.0, abs=4 * np.sqrt(4 / (2 * good.sum())))
    assert np.all(planes["OBJECT"] <= planes["TRUTH"] * (1 + 1e-9) + 1e-12)
    assert (
        planes["CORRELATION"][planes["CORRELATION"].shape[0] // 2, planes["CORRELATION"].shape[1] // 2] == 1
    )


def test_truth_table_and_sky_files(field: MockField) -> None:
    table = Table.read(field.table, format="ascii.ecsv")
    assert len(table) == len(field.objects[0].stamps)
    assert table.meta["seed"] == 11
    row = table[(table["band"] == "f606w") & (table["scale"] > 0.05)][0]
    assert float((field.directory / "sky" / "sky_1_606.txt").read_text()) == pytest.approx(row["sky"])
    assert row["object_flux"] == pytest.approx(field.stamp("1", "f606w").object_flux)


def test_segmentation_maps_are_turned_and_corrupted(field: MockField) -> None:
    item = field.objects[0]
    with fits.open(item.segmentation) as hdus:
        labels, wcs = hdus[1].data, WCS(hdus[1].header)
    truth = item.labels.labels
    assert labels.dtype == np.dtype(">f4")
    assert labels.shape == truth.shape
    centre = labels.shape[0] // 2
    assert labels[centre, centre] == item.target.label
    matrix = pixel_matrix(wcs, labels.shape)
    assert np.degrees(np.arctan2(matrix[0, 1], matrix[1, 1])) == pytest.approx(42.0, abs=0.1)
    whole = labels == np.rint(labels)
    known = np.isin(labels, [0, *item.labels.ids])
    assert 0.9 < known.mean() < 1.0
    assert whole.mean() < 1.0
    # Away from the edges the labels are the true ones.
    expected = np.maximum(truth, 0)
    assert (labels == expected).mean() > 0.9
    side = labels.shape[0] * 0.03
    assert side < 48 * 0.06


def test_stars_lie_in_the_middle_and_one_is_double(field: MockField) -> None:
    widths = {}
    for stamp in field.stars:
        if stamp.band != "f606w" or stamp.scale < 0.05:
            continue
        data = stamp.observation.truth.data
        y, x = np.mgrid[: data.shape[0], : data.shape[1]]
        near = np.hypot(x - 32.5, y - 32.5) < 6
        assert data[near].sum() > 0.8 * data.sum()
        x0 = np.average(x[near], weights=data[near])
        widths[stamp.name] = np.average((x[near] - x0) ** 2, weights=data[near])
    assert field.outlier_star == "1"
    assert widths["1"] > 1.15 * widths["2"]


def test_the_configuration_names_existing_files(field: MockField) -> None:
    config = yaml.safe_load(field.config.read_text())
    assert config["recipe"] == "homogenize"
    assert list(config["bands"]) == ["f606w", "f160w"]
    for band in config["bands"]:
        path = config["images"]["pattern"].format(object=1, scale="60mas", band=band)
        assert (field.directory / path).exists()


def test_the_same_seed_writes_the_same_files(field: MockField, tmp_path: Path) -> None:
    again = write_hst_mock(tmp_path, seed=11, **OPTIONS)
    for first, second in zip(field.objects[0].stamps, again.objects[0].stamps, strict=True):
        assert first.science.read_bytes() == second.science.read_bytes()
        assert first.weight.read_bytes() == second.weight.read_bytes()
    assert field.objects[0].segmentation.read_bytes() == again.objects[0].segmentation.read_bytes()
    one_band = write_hst_mock(tmp_path, seed=11, **(OPTIONS | {"bands": ("f160w",)}))
    np.testing.assert_array_equal(
        one_band.stamp("1", "f160w").observation.image.data, field.stamp("1", "f160w").observation.image.data
    )


def test_named_scenes(tmp_path: Path) -> None:
    assert {"udf-like", "spiral", "small"} <= set(SCENES)
    made = write_scene("small", tmp_path / "new" / "folder", 3)
    assert len(made.objects) == 1
    assert made.config.exists()
    with pytest.raises(InputError, match=r"'cube' is no mock scene; choose one of: udf-like"):
        write_scene("cube", tmp_path)
