"""One store for everything: frames and spectra of SDSS, stamps of HST, cubes, row-stacked spectra, own products."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from tests.inputs.cube_files import cards, write_muse
from tests.inputs.io_objects import make_image
from tests.inputs.line import simple_fit, six_bins
from tests.inputs.store import small_wcs
from tests.inputs.store_files import good_frame, good_spectrum
from tests.inputs.survey_files import CALIFA_WAVE, manga_arrays, write_califa, write_manga
from typer.testing import CliRunner

import skyloom as sl
from skyloom.cli import app
from skyloom.core.labels import LabelMap
from skyloom.core.line_maps import LineMaps
from skyloom.io.fits import read_product, write_product
from skyloom.io.products.line_maps import write_line_maps
from skyloom.spectral.gas.maps import line_maps

BANDS = ("f606w", "f814w")
LEVELS = 3


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["store", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def found(*arguments: object) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("query", *arguments, "--json").splitlines()]


def stamp(path: Path, rng: np.random.Generator, weight: float) -> Path:
    """Write a drizzled stamp, its weight map beside it."""
    header = small_wcs(53.16, -27.78, (20, 20)).to_header()
    header.update({"TELESCOP": "HST", "INSTRUME": "WFC3", "FILTER": "F606W", "BUNIT": "ELECTRONS/S"})
    fits.PrimaryHDU(rng.normal(0, 0.1, (20, 20)).astype("f4"), header).writeto(path)
    inverse = np.full((20, 20), weight, "f4")
    inverse[3, 4] = 0.0
    fits.PrimaryHDU(inverse, header).writeto(path.with_name(path.name.replace("_sci", "_wht")))
    return path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(4)
    folder = tmp_path_factory.mktemp("mixed") / "in"
    good_frame(folder)
    good_spectrum(folder)
    stamp(folder / "37_60mas_f606w_sci.fits", rng, 100.0)
    write_muse(folder / "muse.fits", rng, cards())
    write_manga(folder / "manga-1-2-LOGCUBE.fits", *manga_arrays())
    stacked = rng.normal(1.0, 0.1, (3, 30)).astype("f4")
    write_manga(
        folder / "manga-1-2-LOGRSS.fits", stacked, np.full((3, 30), 100.0, "f4"), np.zeros((3, 30), "i4")
    )
    califa = rng.normal(1.0, 0.1, (CALIFA_WAVE.size, 6, 6)).astype("f4")
    unit = (("BUNIT", "1e-16 erg/(s cm2 Angstrom)"),)
    write_califa(folder / "NGC1.V500.rscube.fits", califa, np.full_like(califa, 0.1), keys=unit)
    images = {band: make_image(rng, (12, 10), full=True) for band in BANDS}
    write_product(folder / "1.fits", images, config="recipe: homogenize")
    labels = six_bins()
    write_line_maps(line_maps(simple_fit(labels.ids), labels), folder / "disc_line_maps.fits")
    sl.write(LabelMap(np.arange(20).reshape(4, 5), small_wcs(5, 5, (4, 5))), folder / "labels.fits")
    return folder


@pytest.fixture(scope="module")
def store(inputs: Path) -> Path:
    path = inputs.parent / "sky"
    run("create", path, "--levels", LEVELS)
    output = run("ingest", path, inputs, code=4)
    assert "1 failed" in output
    assert "labels.fits: holds a LabelMap; the store keeps images, cubes and spectra" in " ".join(
        output.split()
    )
    return path


def given(inputs: Path) -> dict[str, Any]:
    """What the readers make of the files, by the name that it has in the store."""
    objects: dict[str, Any] = {}
    for path in sorted(inputs.glob("*.fits")):
        if path.stem == "labels" or path.stem.endswith("_wht"):
            continue
        name = path.stem.removesuffix(".fits")
        weight = path.with_name(path.name.replace("_sci", "_wht"))
        content = read_product(path) if path.stem == "1" else None
        if content is None:
            content = sl.read(path, weight=weight) if weight != path else sl.read(path)
        if isinstance(content, dict | LineMaps):
            objects |= {f"{name}-{part}": content[part] for part in content}
        elif isinstance(content, sl.Spectra) and content.shape[0] > 1:
            objects |= {
                f"{name}-{row}": (content.data[row], content.variance[row], content.mask[row])
                for row in range(content.shape[0])
            }
        else:
            objects[name] = content
    return objects


# Readers tell what headers leave open; the ingest has kept that in its notes.
@pytest.mark.filterwarnings("ignore::skyloom.errors.AssumptionWarning")
def test_everything_is_stored_as_its_reader_gives_it(store: Path, inputs: Path) -> None:
    opened = sl.store.open(store)
    table = opened.observations()
    kinds = dict(zip(table["obs_id"].tolist(), table["dataproduct_type"].tolist(), strict=True))
    sources = dict(zip(table["obs_id"].tolist(), table["source"].tolist(), strict=True))
    # Of SDSS by their numbers, all others by the names of their files.
    by_name = {name: item for name, item in given(inputs).items() if name in kinds}
    sdss = [name for name in kinds if name.startswith("sdss-")]
    assert len(sdss) == 2
    assert kinds.keys() - by_name.keys() == set(sdss)
    for name in sdss:
        by_name[name] = sl.read(inputs / sources[name])
    for name, item in by_name.items():
        is_spectrum = kinds[name] == "spectrum"
        level = opened.spectrum(name) if is_spectrum else opened.cutout(name)
        if isinstance(item, tuple):
            data, variance, mask = (plane[None] for plane in item)
        else:
            data, variance, mask = item.data, item.variance, item.mask
            assert level.unit.is_equivalent(item.unit), name
        scale = 1.0 if isinstance(item, tuple) else item.unit.to(level.unit)
        np.testing.assert_array_equal(level.mask, mask, err_msg=name)
        np.testing.assert_allclose(level.data[~mask], data[~mask] * scale, rtol=3e-7, err_msg=name)
        np.testing.assert_allclose(level.variance[~mask], variance[~mask] * scale**2, rtol=3e-7, err_msg=name)
    assert "as it was stored" in run("verify", store)


def test_all_bands_of_a_product_are_images_of_their_own(store: Path) -> None:
    rows = {row["obs_id"]: row for row in found(store, "--kind", "image") if row["source"] == "1.fits"}
    assert rows.keys() == {f"1-{band}" for band in BANDS}
    for row in rows.values():
        assert row["band"] in BANDS
        assert row["s_resolution"] > 0
        assert row["n_levels"] == 2  # 12 x 10, 6 x 5 pixels


def test_weights_beside_a_stamp_are_its_errors(store: Path) -> None:
    image = sl.store.open(store).cutout("37_60mas_f606w_sci")
    assert image.mask[3, 4]
    np.testing.assert_allclose(image.variance[image.valid], 0.01, rtol=1e-6)


def test_maps_of_bins_are_kept_at_their_own_resolution(store: Path) -> None:
    """A velocity is no flux, and pixels of a bin share one error: no coarser level of them is true."""
    opened = sl.store.open(store)
    rows = [row for row in found(store, "--kind", "image") if row["source"] == "disc_line_maps.fits"]
    assert len(rows) > 10
    assert {row["n_levels"] for row in rows} == {1}
    assert opened.cutout("disc_line_maps-Halpha_velocity").unit == "km/s"


def test_cubes_and_row_stacked_spectra_are_found_and_taken_out(store: Path, tmp_path: Path) -> None:
    cubes = {row["obs_id"]: row for row in found(store, "--kind", "cube")}
    assert cubes.keys() == {"muse", "manga-1-2-LOGCUBE", "NGC1.V500.rscube"}
    assert all(row["em_min"] < row["em_max"] and row["n_levels"] >= 1 for row in cubes.values())
    place = cubes["manga-1-2-LOGCUBE"]
    near = found(store, "--cone", place["s_ra"], place["s_dec"], 0.001)
    assert {"manga-1-2-LOGCUBE", "NGC1.V500.rscube"} <= {row["obs_id"] for row in near}
    run("cutout", store, "muse", "--size", 3, "--out", tmp_path / "cut.fits")
    cut = sl.read(tmp_path / "cut.fits")
    assert cut.shape[1:] == (3, 3)
    spectra = {row["obs_id"] for row in found(store, "--kind", "spectrum")}
    assert {f"manga-1-2-LOGRSS-{row}" for row in range(3)} <= spectra
    run("spectrum", store, "manga-1-2-LOGRSS-1", "--level", 1, "--out", tmp_path / "s.fits")
    assert sl.read(tmp_path / "s.fits").shape[0] == 1


def test_a_packed_file_holds_the_same(store: Path, tmp_path: Path) -> None:
    run("pack", store, tmp_path / "sky.h5")
    assert found(tmp_path / "sky.h5") == found(store)
    assert "as it was stored" in run("verify", tmp_path / "sky.h5")


@pytest.mark.data
def test_real_stamps_cubes_and_spectra_share_a_store(data_dir: Path, tmp_path: Path) -> None:
    store = tmp_path / "sky"
    stamps = sorted((data_dir / "hst_udf" / "stamps").glob("37_60mas_f[468]*_sci.fits"))
    files = [
        data_dir / "manga" / "MaNGA_test_spectra.fits.gz",
        data_dir / "pmas_califa" / "NGC2691.COMB.RSS.fits",
    ]
    files.append(data_dir / "muse" / "UDF_mosaic_subcube.fits")
    run("create", store, "--levels", 2)
    run("ingest", store, *stamps, *files)
    opened = sl.store.open(store)
    assert (len(opened.images()), len(opened.cubes()), len(opened.spectra())) == (len(stamps), 1, 8 + 3)
    assert len(stamps) == 4
    for path in stamps:
        image = sl.read(path, weight=path.with_name(path.name.replace("_sci", "_wht")))
        level = opened.cutout(path.stem)
        np.testing.assert_array_equal(level.data[level.valid], image.data[image.valid])
        np.testing.assert_array_equal(level.variance[level.valid], image.variance[image.valid])
        sums = [float(opened.cutout(path.stem, level=z).data.sum()) for z in (0, 1)]
        assert sums[1] == pytest.approx(sums[0], rel=1e-5)
    cube = sl.read(files[-1])
    window = opened.cutout("UDF_mosaic_subcube", size=7, pixel=(15, 15))
    np.testing.assert_array_equal(window.data[~window.mask], cube.data[:, 12:19, 12:19][~window.mask])
    (place,) = opened.cubes()
    near = opened.observations(cone=((place["s_ra"], place["s_dec"]), 0.0001), kind="cube")
    assert near["obs_id"].tolist() == ["UDF_mosaic_subcube"]
