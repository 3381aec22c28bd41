"""Files of mock cubes: in the layout of their survey, readable, repeatable, with their truth."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

import skyloom as sl
from skyloom.core.cube import Cube
from skyloom.core.geometry import pixel_matrix
from skyloom.errors import AssumptionWarning, InputError
from skyloom.mock.cubes.cubes import CubeObservation, observe_cube
from skyloom.mock.cubes.files import CUBE_SCENES, CubeMock, write_cube_mock
from skyloom.mock.cubes.spectrographs import muse
from skyloom.mock.fits_stream import FitsStream, StreamedArray
from skyloom.mock.hubble.files import SCENES
from skyloom.recipes.registry import RECIPES

RANGE = (6560.0, 6720.0)
SHAPE = (20, 22)
CLAIMED = 0.8


@pytest.fixture(scope="module", params=["muse", "manga", "pmas"])
def mock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CubeMock:
    return write_cube_mock(
        tmp_path_factory.mktemp(request.param), request.param, seed=5, shape=SHAPE, wave_range=RANGE,
        claimed=CLAIMED, bad_share=0.002, a_v=0.2, angle=10.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def observation(mock: CubeMock) -> CubeObservation:
    model = mock.model
    return observe_cube(
        model.scene, model.spectrograph, SHAPE, seed=5, dead=3, bad_share=0.002, a_v=0.2, angle=10.0,
        field_angle=12.0 if model.spectrograph.name == "MUSE" else 0.0,
    )  # fmt: skip


def read(mock: CubeMock) -> Cube:
    with warnings.catch_warnings():
        # What the reader must assume about genuine files, it assumes here, too.
        warnings.simplefilter("ignore", AssumptionWarning)
        cube = sl.read(mock.cube)
    assert isinstance(cube, Cube)
    return cube


def test_files_are_valid_fits(mock: CubeMock) -> None:
    for path in (mock.cube, mock.lines, mock.noise_free):
        with fits.open(path) as hdus:
            hdus.verify("exception")
            assert path.stat().st_size % 2880 == 0


def test_the_extensions_are_those_of_the_survey(mock: CubeMock) -> None:
    expected = {
        "MUSE": ["PRIMARY", "DATA", "STAT", "DQ"],
        "MaNGA": [
            "PRIMARY", "FLUX", "IVAR", "MASK", "LSFPOST", "LSFPRE", "WAVE", "SPECRES", "SPECRESD", "PRESPECRES",
            "PRESPECRESD",
        ],
        "PMAS": ["PRIMARY", "ERROR", "ERRWEIGHT", "BADPIX", "FIBCOVER"],
    }[mock.model.spectrograph.name]  # fmt: skip
    with fits.open(mock.cube) as hdus:
        assert [hdu.name for hdu in hdus] == expected


def test_the_reader_finds_what_was_observed(mock: CubeMock, observation: CubeObservation) -> None:
    cube, expected = read(mock), observation.cube
    np.testing.assert_array_equal(cube.mask, expected.mask)
    good = cube.valid
    np.testing.assert_allclose(cube.data[good], expected.data[good], rtol=2e-6, atol=1e-5)
    np.testing.assert_allclose(cube.variance[good], CLAIMED * expected.variance[good], rtol=1e-5)
    np.testing.assert_allclose(cube.wave, expected.wave, rtol=1e-12)
    assert cube.medium == expected.medium
    assert cube.unit.is_equivalent(expected.unit)
    assert float((1 * cube.unit).to_value(expected.unit)) == pytest.approx(1.0)
    assert cube.meta["instrument"] == expected.meta["instrument"]
    assert cube.meta.get("milky_way_corrected", False) == expected.meta["milky_way_corrected"]
    np.testing.assert_allclose(
        pixel_matrix(cube.wcs, SHAPE), pixel_matrix(expected.wcs, SHAPE), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(cube.wcs.wcs.crpix, expected.wcs.wcs.crpix)


def test_the_survey_knows_its_line_and_point_spread(mock: CubeMock, observation: CubeObservation) -> None:
    cube = read(mock)
    if cube.lsf is not None and cube.meta["instrument"] != "PMAS":
        lsf = np.asarray(cube.lsf)
        lsf = lsf[:, SHAPE[0] // 2, SHAPE[1] // 2] if lsf.ndim == 3 else lsf
        np.testing.assert_allclose(lsf, observation.cube.lsf, rtol=1e-5)
    if cube.meta["instrument"] == "MUSE":
        assert cube.psf.at(6600.0).fwhm == pytest.approx(observation.cube.psf.at(6600.0).fwhm, rel=1e-6)


def test_bad_voxels_are_marked_as_the_survey_does(mock: CubeMock) -> None:
    model = mock.model
    outside = np.broadcast_to(~model.covered, (model.n_wave, *SHAPE))
    with fits.open(mock.cube) as hdus:
        if model.spectrograph.name == "MUSE":
            assert np.isnan(hdus["DATA"].data[outside]).all()
            assert "AWAV" in hdus["DATA"].header["CTYPE3"]
            assert hdus["STAT"].header["BUNIT"] == "(10**(-20)*erg/s/cm**2/Angstrom)**2"
            assert hdus["PRIMARY"].header["ESO INS MODE"] == "WFM-NOAO-N"
        elif model.spectrograph.name == "MaNGA":
            assert not hdus["FLUX"].data[outside].any()
            assert not hdus["IVAR"].data[outside].any()
            assert set(np.unique(hdus["MASK"].data)) == {0, 1024, 1025, 1028}
            assert hdus["PRIMARY"].header["EBVGAL"] == pytest.approx(0.2 / 3.1)
        else:
            assert (hdus["ERROR"].data[outside] == 1e10).all()
            assert (hdus["BADPIX"].data[outside] == 1).all()


def test_the_truth_beside_the_cube(mock: CubeMock, observation: CubeObservation) -> None:
    table = QTable.read(mock.table)
    assert table.meta["redshift"] == 0.01
    seen = mock.model.covered & ~mock.model.dead
    with fits.open(mock.lines) as hdus:
        np.testing.assert_allclose(hdus["Halpha_FLUX"].data, observation.lines["Halpha"].flux, rtol=1e-5)
        np.testing.assert_allclose(
            hdus["Halpha_VELOCITY"].data, observation.lines["Halpha"].velocity, atol=0.05
        )
        np.testing.assert_array_equal(hdus["DEAD"].data, observation.model.dead)
        assert hdus["CLAIMED"].data[0] == CLAIMED
        row = table[list(table["line"]).index("Halpha")]
        assert row["flux"].value == pytest.approx(hdus["Halpha_FLUX"].data[seen].sum())
        pattern, spectrum = hdus["SKY_PATTERN"].data, hdus["SKY_RESIDUAL"].data
    dimmed = row["flux_corrected"] / row["flux"]
    assert (dimmed == 1.0) if mock.model.spectrograph.corrected else (1.1 < dimmed < 1.25)
    with fits.open(mock.noise_free) as hdus:
        np.testing.assert_allclose(hdus["TRUTH"].data, observation.truth, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(hdus["CONTINUUM"].data, observation.continuum, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        np.multiply.outer(spectrum, pattern), observation.sky_residual, rtol=1e-4, atol=1e-6
    )


def test_the_configuration_is_valid(mock: CubeMock) -> None:
    config = RECIPES["ifs"].load_config(mock.config)
    assert tuple(config.object_names()) == (mock.name,)
    text = mock.config.read_text()
    assert ("av: 0.2" in text) == (not mock.model.spectrograph.corrected)


def test_correlation_matrices_of_manga(tmp_path: Path) -> None:
    mock = write_cube_mock(tmp_path, "manga", seed=1, shape=(14, 14), wave_range=(6150.0, 6200.0))
    space = mock.model.spectrograph.spatial_correlation
    half = space.shape[0] // 2
    with fits.open(mock.cube) as hdus:
        assert "GCORREL" not in [hdu.name for hdu in hdus]
        pairs = hdus["RCORREL"].data
        dx, dy = pairs["INDXJ_C1"] - pairs["INDXI_C1"], pairs["INDXJ_C2"] - pairs["INDXI_C2"]
        np.testing.assert_allclose(pairs["RHOIJ"], space[half + dy, half + dx])
        same = (dx == 0) & (dy == 0)
        assert same.sum() == mock.model.covered.sum()


def test_linear_cubes_of_manga(tmp_path: Path) -> None:
    mock = write_cube_mock(
        tmp_path, "manga", seed=1, shape=(12, 12), wave_range=(6600.0, 6650.0), sampling="linear"
    )
    assert mock.cube.name.endswith("LINCUBE.fits")
    np.testing.assert_allclose(read(mock).wave, np.arange(6600.0, 6651.0))


def test_a_cube_of_noise(tmp_path: Path) -> None:
    mock = write_cube_mock(
        tmp_path, "muse", seed=1, shape=(12, 12), wave_range=RANGE, scene=None, field_angle=0.0
    )
    cube = read(mock)
    pulls = cube.data[cube.valid] / np.sqrt(cube.variance[cube.valid])
    assert pulls.std() == pytest.approx(1.0, abs=0.05)
    assert len(QTable.read(mock.table)) == 0
    with pytest.raises(InputError, match="choose one of muse"):
        write_cube_mock(tmp_path, "kcwi", seed=1)  # type: ignore[arg-type]


def test_the_same_seed_writes_the_same_file(tmp_path: Path) -> None:
    options = {"shape": (10, 10), "wave_range": (6560.0, 6600.0)}
    paths = [
        write_cube_mock(tmp_path / name, "pmas", seed=seed, **options).cube
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    first, second, third = (path.read_bytes() for path in paths)
    assert first == second
    assert first != third


def test_scenes_of_cubes_are_among_the_scenes() -> None:
    assert set(CUBE_SCENES) == {"muse-like", "manga-like", "pmas-like"}
    assert set(CUBE_SCENES) < set(SCENES)


def test_arrays_are_streamed_into_fits(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(7, 5, 3)).astype(np.float32)
    header = fits.Header([("BUNIT", "count")])
    path = tmp_path / "stream.fits"
    arrays = [StreamedArray("", "f4", values.shape, header), StreamedArray("FLAG", "u1", (7, 5, 3))]
    with FitsStream(path, header, arrays, [fits.ImageHDU(np.arange(4.0), name="LAST")]) as stream:
        for start in (4, 0):
            stream.write(0, start, values[start : start + 4])
        stream.write(1, 6, np.ones((1, 5, 3)))
    with fits.open(path) as hdus:
        hdus.verify("exception")
        np.testing.assert_array_equal(hdus[0].data, values)
        assert hdus[0].header["BUNIT"] == "count"
        assert hdus["FLAG"].data.sum() == 15
        assert hdus["FLAG"].data[6].all()
        assert hdus["LAST"].data.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_slabs_of_any_size_are_one_cube(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = observe_cube(None, muse((6000.0, 6200.0)), (8, 9), seed=3)
    monkeypatch.setattr("skyloom.mock.cubes.cubes.SLAB_VOXELS", 1)
    monkeypatch.setattr("skyloom.mock.cubes.cubes.SLAB_CHANNELS", 7)
    pieces = observe_cube(None, muse((6000.0, 6200.0)), (8, 9), seed=3)
    np.testing.assert_array_equal(whole.cube.data, pieces.cube.data)
