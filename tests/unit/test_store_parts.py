"""Files of a store: what is written is read back the same, and damage is never taken for data."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import skyloom as sl
from skyloom.errors import FileFormatError, InputError
from skyloom.store.files.part_reader import PartReader
from skyloom.store.files.parts import write_part
from skyloom.store.observation import Level, Observation
from skyloom.store.schema import COLUMNS, StoreSettings
from tests.inputs.io_objects import assert_same, assert_same_wcs, make_image
from tests.inputs.part_observations import (
    columns,
    cube_observation,
    image_observation,
    plain_spectrum,
    spectrum_observation,
)

SETTINGS = StoreSettings()


def assert_same_observation(first, second):
    assert (first.obs_id, first.kind, first.header) == (second.obs_id, second.kind, second.header)
    for name in COLUMNS.keys() - {"digest"}:
        assert first.columns[name] == second.columns[name], name
    assert len(first.levels) == len(second.levels)
    pairs = [*zip(first.levels, second.levels, strict=True)]
    if second.native is not None:
        pairs.append((first.native, second.native))
    for one, other in pairs:
        assert_same(one.subject, other.subject)
        np.testing.assert_array_equal(one.n_good, other.n_good)


@pytest.fixture
def observations():
    rng = np.random.default_rng(61)
    return [
        image_observation(rng),
        spectrum_observation(rng, "a+b.c_d-1"),
        cube_observation(rng),
        spectrum_observation(rng, "beyond", n_native=7, reaches=False),
        spectrum_observation(rng, "more-lags", lags=0),
        image_observation(rng, "second", (5, 3), 1, sip=False, dtype=np.float64),
    ]


@pytest.fixture
def part(tmp_path, observations):
    path = tmp_path / "5-1" / "part.h5"
    write_part(path, observations, SETTINGS)
    return path


def test_whole_observations_return_the_same(part, observations):
    with PartReader(part) as reader:
        assert reader.obs_ids == [one.obs_id for one in observations]
        for number, given in enumerate(observations):
            assert_same_observation(reader.observation(number), given)
            assert_same_observation(reader.observation(given.obs_id), given)
            assert reader.header(number) == given.header


def test_the_table_has_every_column_with_unit_and_meaning(part, observations):
    with PartReader(part) as reader:
        table = reader.columns()
        assert table["row"].tolist() == [-1, 0, -1, 1, 2, -1]
        assert table["s_ra"].dtype == np.float64
        assert table["t_start"][0] == observations[0].columns["t_start"]
        assert table["target_name"][0] == observations[0].columns["target_name"]
    with h5py.File(part) as file:
        for name, column in COLUMNS.items():
            attributes = file["observations"][name].attrs
            assert attributes["description"] == column.description
            assert attributes.get("units", "") == column.unit


def test_many_spectra_are_written_in_batches(tmp_path):
    rng = np.random.default_rng(5)
    given = [
        plain_spectrum(rng, f"s{i}")
        if i % 3
        else spectrum_observation(rng, f"s{i}", n_native=20 + i, n_levels=1)
        for i in range(150)
    ]
    write_part(tmp_path / "p.h5", given, SETTINGS)
    with PartReader(tmp_path / "p.h5") as reader:
        for number in (0, 1, 2, 62, 63, 64, 65, 127, 128, 149):
            assert_same_observation(reader.observation(number), given[number])
    with h5py.File(tmp_path / "p.h5") as file:
        group = file["semi_sparse_cube/0/spectra"]
        assert group["flux"].shape == (150, 40)
        assert group["lags"].shape == (150, 40, 2)
        assert group["wave"].dtype == np.float64
        assert group["native/start"].shape == (151,)


def test_spectra_that_do_not_reach_the_common_grid_are_masked_there(part):
    with h5py.File(part) as file:
        group = file["semi_sparse_cube/0/spectra"]
        assert group["mask"][1].all()
        assert np.isnan(group["flux"][1]).all()
        assert not group["n_good"][1].any()
    with PartReader(part) as reader, pytest.raises(InputError, match="no level 0"):
        reader.spectrum("beyond", 0, "common")


@pytest.mark.parametrize(
    "window",
    [
        (slice(3, 20), slice(10, 40)),
        (slice(-4, 9), slice(-3, 12)),
        (slice(60, 90), slice(45, 99)),
        (slice(-10, 100), slice(-10, 100)),
        (slice(80, 90), slice(0, 5)),
        (slice(-9, -2), slice(-9, -2)),
        (slice(None), slice(5, None)),
    ],
)
def test_windows_are_those_of_the_whole_image(part, observations, window):
    whole = observations[0].levels[0].subject
    rows, places = (
        np.arange(part.start or 0, side if part.stop is None else part.stop)
        for part, side in zip(window, whole.shape, strict=True)
    )
    inside = ((rows >= 0) & (rows < whole.shape[0]))[:, None] & ((places >= 0) & (places < whole.shape[1]))
    pick = np.ix_(np.clip(rows, 0, whole.shape[0] - 1), np.clip(places, 0, whole.shape[1] - 1))
    with PartReader(part) as reader:
        cut = reader.image("image-1", 0, window)
        again = reader.image("image-1", 0, window)
    assert_same(cut, again)
    np.testing.assert_array_equal(cut.data, np.where(inside, whole.data[pick], np.nan))
    np.testing.assert_array_equal(cut.variance, np.where(inside, whole.variance[pick], np.nan))
    np.testing.assert_array_equal(cut.mask, np.where(inside, whole.mask[pick], True))
    np.testing.assert_array_equal(cut.flags, np.where(inside, whole.flags[pick], 0))
    np.testing.assert_array_equal(cut.modes[1].map, np.where(inside, whole.modes[1].map[pick], 0.0))
    np.testing.assert_array_equal(cut.correlation, whole.correlation)
    assert cut.wcs.pixel_shape == cut.shape[::-1]
    sky = whole.wcs.all_pix2world(places[0] + 2.0, rows[0] + 1.0, 0)
    np.testing.assert_allclose(cut.wcs.all_pix2world(2.0, 1.0, 0), sky, rtol=0, atol=1e-12)


def test_windows_of_cubes_in_space_and_wavelength(part, observations):
    whole = observations[2].levels[0].subject
    with PartReader(part) as reader:
        cut = reader.cube("cube-1", 0, (slice(-2, 5), slice(3, 7)), slice(4, 9))
    np.testing.assert_array_equal(cut.data[:, 2:], whole.data[4:9, :5, 3:7])
    assert cut.mask[:, :2].all()
    np.testing.assert_array_equal(cut.wave, whole.wave[4:9])
    np.testing.assert_array_equal(cut.lsf, whole.lsf[4:9])


def test_windows_that_are_none_are_refused(part):
    with PartReader(part) as reader:
        for bad in (slice(5, 5), slice(7, 3), slice(0, 8, 2)):
            with pytest.raises(InputError, match="window"):
                reader.planes("image-1", 0, (bad, slice(0, 4)))
        with pytest.raises(InputError, match="no level 7"):
            reader.image("image-1", 7)
        with pytest.raises(InputError, match="is a cube"):
            reader.image("cube-1")
        with pytest.raises(InputError, match="is no spectrum"):
            reader.spectrum("cube-1")
        with pytest.raises(InputError, match="no pixels"):
            reader.image("beyond")
        with pytest.raises(InputError, match="no observation"):
            reader.image("nobody")
        with pytest.raises(InputError, match="no plane"):
            reader.planes("image-1", 0, None, ("weight",))


def test_the_shared_wcs_is_not_handed_out(part):
    with PartReader(part) as reader:
        first = reader.image("image-1")
        first.wcs.wcs.crpix = [0.0, 0.0]
        second = reader.image("image-1")
        assert second.wcs.wcs.crpix[0] != 0
        assert_same_wcs(reader.wcs("image-1"), second.wcs)


def test_the_digest_is_of_the_content(tmp_path, observations):
    """Not of order, compression, place of the source, version; but of every pixel, column and card."""
    first = write_part(tmp_path / "a.h5", observations, SETTINGS)
    second = write_part(tmp_path / "b.h5", reversed(observations), SETTINGS, filters="gzip")
    assert (first.n, first.digest) == (second.n, second.digest)
    given = observations[0]

    def digest(columns=given.columns, header=given.header, levels=given.levels, kind="image"):
        changed = Observation(given.obs_id, kind, columns, header, levels)
        return write_part(
            tmp_path / f"{np.random.default_rng().integers(1 << 60)}.h5", [changed], SETTINGS
        ).digest

    original = digest()
    assert (
        digest(columns=given.columns | {"source": "elsewhere.fits", "version": "9", "digest": "?"})
        == original
    )
    assert digest(columns=given.columns | {"s_ra": np.nextafter(given.columns["s_ra"], 99)}) != original
    assert digest(header=given.header + " ") != original
    image = given.levels[1].subject
    data = image.data.copy()
    good = tuple(np.argwhere(image.valid)[7])
    data[good] = np.nextafter(data[good], np.float32(9))
    for change in ({"data": data}, {"unit": "nmgy"}, {"psf": None}, {"meta": {"band": "x"}}):
        levels = (given.levels[0], Level(image.evolve(**change), given.levels[1].n_good), given.levels[2])
        assert digest(levels=levels) != original, change
    moved = image.evolve(meta=image.meta | {"path": "/somewhere/else"})
    levels = (given.levels[0], Level(moved, given.levels[1].n_good), given.levels[2])
    assert digest(levels=levels) == original


def test_what_cannot_be_stored_leaves_nothing_behind(tmp_path, observations):
    image = observations[0]
    path = tmp_path / "part.h5"

    def refused(match, *given):
        with pytest.raises(InputError, match=match):
            write_part(path, given, SETTINGS)
        assert not list(tmp_path.iterdir())

    refused("no observation to write")
    refused("in this part already", image, image)
    refused("cannot name", Observation("a/b", "image", columns("a/b"), "", image.levels))
    refused(
        "has no value for band",
        Observation("x", "image", {k: v for k, v in columns("x").items() if k != "band"}, "", image.levels),
    )
    refused("kind is 'map'", Observation("x", "map", columns("x"), "", image.levels))
    refused("no value of kind f8", Observation("x", "image", columns("x", s_ra="east"), "", image.levels))
    spectrum = observations[1]
    refused("no native level", Observation("x", "spectrum", columns("x"), "", spectrum.levels))
    other = spectrum.levels[0].subject.evolve(wave=spectrum.levels[0].subject.wave + 1e-9)
    shifted = Observation(
        "x", "spectrum", columns("x"), "", (Level(other, spectrum.levels[0].n_good),), spectrum.native
    )
    refused("wavelengths of a level differ", spectrum, shifted)
    faint = spectrum.native.subject.evolve(
        data=np.zeros((1, 31)), variance=np.full((1, 31), 1e-40), mask=np.zeros((1, 31), bool)
    )
    refused(
        "no place in single precision",
        Observation("x", "spectrum", columns("x"), "", (), Level(faint, spectrum.native.n_good)),
    )


def test_an_error_of_the_iterable_leaves_nothing_behind(tmp_path, observations):
    def broken():
        yield observations[0]
        raise FileFormatError("the file is truncated")

    with pytest.raises(FileFormatError, match="truncated"):
        write_part(tmp_path / "part.h5", broken(), SETTINGS)
    assert not list(tmp_path.iterdir())


def test_nothing_is_a_value_in_columns(tmp_path, observations):
    given = observations[0]
    empty = given.columns | {"band": None, "s_resolution": None, "em_xel": None}
    write_part(tmp_path / "p.h5", [Observation(given.obs_id, "image", empty, "", given.levels)], SETTINGS)
    with PartReader(tmp_path / "p.h5") as reader:
        assert reader.column("band")[0] == ""
        assert np.isnan(reader.column("s_resolution")[0])
        assert reader.column("em_xel")[0] == -1


def test_truncated_files_are_named(part, tmp_path):
    content = part.read_bytes()
    for size in (0, 10, 600, len(content) // 2, len(content) - 1):
        cut = tmp_path / f"cut{size}.h5"
        cut.write_bytes(content[:size])
        with pytest.raises(FileFormatError, match=f"cut{size}.h5"):
            PartReader(cut)
    with pytest.raises(FileFormatError, match=r"none\.h5"):
        PartReader(tmp_path / "none.h5")


def test_unfinished_files_and_other_schemas_are_refused(part):
    with h5py.File(part, "a") as file:
        file.attrs["schema"] = 99
    with pytest.raises(FileFormatError, match="schema 99"):
        PartReader(part)
    with h5py.File(part, "a") as file:
        file.attrs["schema"] = 1
        del file.attrs["complete"]
    with pytest.raises(FileFormatError, match="never finished"):
        PartReader(part)


def test_compression_is_lossless_and_small(tmp_path):
    rng = np.random.default_rng(3)
    image = make_image(rng, (256, 200))
    level = Level(image, np.where(image.mask, 0, 1))
    for filters in ("lz4", "gzip"):
        write_part(
            tmp_path / f"{filters}.h5",
            [Observation("x", "image", columns("x"), "", (level,))],
            SETTINGS,
            filters=filters,
        )
        with PartReader(tmp_path / f"{filters}.h5") as reader:
            assert_same(reader.image("x"), image)
    with h5py.File(tmp_path / "lz4.h5") as file:
        group = file["semi_sparse_cube/0/images/x"]
        assert group["flux"].chunks == (128, 128)
        assert group["mask"].id.get_storage_size() < 0.5 * image.mask.size
    with pytest.raises(InputError, match="compression is 'zip'"):
        write_part(
            tmp_path / "z.h5",
            [Observation("x", "image", columns("x"), "", (level,))],
            SETTINGS,
            filters="zip",
        )


def test_spectra_of_one_lag_and_scalar_lsf(tmp_path):
    rng = np.random.default_rng(8)
    given = plain_spectrum(rng, "s")
    native = given.native.subject.evolve(lsf=1.25, correlation=np.array([0.1, 0.3, 1.0, 0.3, 0.1]))
    rows = given.levels[0].subject.evolve(lsf=np.ones((1, 40)), correlation=np.ones(1))
    changed = Observation(
        "s",
        "spectrum",
        columns("s"),
        "",
        (Level(rows, given.levels[0].n_good),),
        Level(native, given.native.n_good),
    )
    write_part(tmp_path / "p.h5", [changed], SETTINGS)
    with PartReader(tmp_path / "p.h5") as reader:
        assert_same_observation(reader.observation("s"), changed)
        assert isinstance(reader.spectrum("s"), sl.Spectra)
