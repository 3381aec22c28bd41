"""Dense cubes: what is where in the file, missing bands and spectra, edges, odd places, batches and shards."""

from __future__ import annotations

import multiprocessing
import pickle

import astropy.units as u
import h5py
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from skyloom.errors import AssumptionWarning, FileFormatError, InputError, UnitError
from skyloom.store.dense import DenseCube, rebuild_dense_cube
from skyloom.store.dense.layout import read_options
from skyloom.store.dense.targets import find_targets, near
from skyloom.store.query import Store
from tests.inputs.dense import flat_image, flat_spectrum, store_of

ARCSEC = 1 / 3600


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two exposures in r and one in g about (10, -5); one in r across RA 0; spectra in both, and without a place."""
    items = {
        "r1": flat_image(4.0, 10.0, -5.0),
        "r2": flat_image(8.0, 10.0 + 0.3 * ARCSEC, -5.0),
        "g1": flat_image(1.0, 10.0, -5.0, band="g"),
        "zero": flat_image(3.0, 0.0, 0.0),
        "sa": flat_spectrum(2.0, 10.0, -5.0),
        "sb": flat_spectrum(4.0, 10.0, -5.0 + 0.5 * ARCSEC),
        "sc": flat_spectrum(7.0, 359.9999, 0.0),
        "sd": flat_spectrum(9.0, float("nan"), float("nan")),
        "se": flat_spectrum(1.0, 50.0, 20.0),
    }
    return store_of(tmp_path_factory.mktemp("dense"), items)


@pytest.fixture
def build(store, tmp_path):
    def run(*args, **options):
        store.dense_cube(tmp_path / "cube.h5", *args, overwrite=True, **({"size": 8} | options))
        return DenseCube(tmp_path / "cube.h5")

    return run


def test_targets_are_the_places_of_spectra_merged_within_the_radius(build):
    cube = build()
    assert set(cube.targets["name"]) == {"sa", "sc", "se"}
    first = cube[list(cube.targets["name"]).index("sa")]
    assert first["n_spectra"] == 2
    # Two of one variance: the mean, with half of it.
    valid = first["spectrum_0_valid"]
    assert np.count_nonzero(valid) == 300
    assert first["spectrum_0"][valid] == pytest.approx(3.0)
    assert first["spectrum_0_ivar"][valid] == pytest.approx(2.0)
    assert set(build(radius=0.2).targets["name"]) == {"sa", "sb", "sc", "se"}


def test_the_nearest_of_several_spectra(build):
    found = build(spectra="nearest")
    row = list(found.targets["name"]).index("sa")
    assert found[row]["n_spectra"] == 1
    assert found[row]["spectrum_1"][found[row]["spectrum_1_valid"]] == pytest.approx(2.0)


def test_mean_of_exposures_with_missing_bands_and_a_target_without_images(build):
    with pytest.warns(AssumptionWarning, match=r"no image in i \(there are g, r\)"):
        cube = build(bands="gri")
    names = list(cube.targets["name"])
    here, nowhere = cube[names.index("sa")], cube[names.index("se")]
    assert cube.bands == ("g", "r", "i")
    assert here["n_exposures"].tolist() == [1, 2, 0]
    assert here["image_0"].shape == (3, 8, 8)
    assert here["image_1"].shape == (3, 4, 4)
    for level in (0, 1):
        flux, ivar, valid = (here[f"image_{level}{part}"] for part in ("", "_ivar", "_valid"))
        assert valid[:2].all()
        assert flux[0] == pytest.approx(1.0, abs=1e-4)
        # One of the two is interpolated by 0.3 pixels: its pixels are less noisy, and weigh a little more.
        assert flux[1] == pytest.approx(6.0, abs=0.2)
        assert not valid[2].any()
        assert (flux[2] == 0).all()
        assert (ivar[2] == 0).all()
    assert not any(nowhere[f"image_{level}_valid"].any() for level in (0, 1))
    with h5py.File(cube.path) as file:
        assert np.isnan(file["images/0/flux"][names.index("sa"), 2]).all()
        assert file["images/0/flux"].dtype == np.float32
    assert np.isnan(DenseCube(cube.path, fill=np.nan)[0]["image_0"][2]).all()


def test_two_exposures_have_half_the_variance_of_one(build):
    cube = build([(10.0, -5.0)], bands="gr")
    one, two = (cube.image(0, band) for band in "gr")
    # r1 and r2 are interpolated, which lowers the variance of single pixels; g lies as r1 does.
    assert np.median(two.variance) < 0.6 * np.median(one.variance)
    assert one.correlation.shape == two.correlation.shape == (11, 11)


def test_a_target_at_the_edge_is_valid_where_the_image_is(build):
    # The image is 8 arcsec wide; half of the grid lies beyond it.
    cube = build([(10.0 + 4.0 * ARCSEC / np.cos(np.radians(5)), -5.0)], bands="g")
    valid = cube[0]["image_0_valid"][0]
    assert 0.2 < valid.mean() < 0.6
    # East is left: there is nothing.
    assert not valid[:, :4].any()
    assert valid[:, 7].all()
    assert (cube[0]["n_exposures"] == 1).all()


def test_right_ascension_0_is_no_edge(build):
    cube = build(SkyCoord([359.9999, 0.0001] * u.deg, [0.0, 0.0] * u.deg), size=6, radius=1 * u.arcsec)
    assert cube[0]["image_0_valid"].any()
    assert [sample["n_spectra"] for sample in (cube[0], cube[1])] == [1, 1]
    assert cube[0]["shared_spectra"] == cube[1]["shared_spectra"] == 1
    assert cube.targets["distance"][1].to_value("arcsec") == pytest.approx(0.72, abs=0.01)


def test_a_target_without_a_spectrum(build):
    sample = build([(10.0, -5.001)])[0]
    assert sample["n_spectra"] == 0
    assert not sample["spectrum_0_valid"].any()
    assert sample["image_0_valid"].any()
    assert np.isnan(sample["distance"])


def test_no_place_no_target(build):
    with pytest.raises(InputError, match=r"1 of 2 targets have no place on the sky: row 1 \(nan"):
        build([(10.0, -5.0), (np.nan, 1.0)])
    with pytest.raises(InputError, match="there are no targets"):
        build(np.empty((0, 2)))
    with pytest.raises(InputError, match="name two of them ra and dec"):
        build(QTable({"x": [1.0]}))
    with pytest.raises(InputError, match="no observation 'nobody'"):
        build(["nobody"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bands": "xy"}, "no image in the bands x, y"),
        ({"bands": "rr"}, "named twice"),
        ({"levels": (0, 7)}, "the store has 0 to 1"),
        ({"size": 0}, "expected 1 to 4096"),
        ({"radius": -1.0}, "expected above 0"),
        ({"spectra": "best"}, "use one of mean, nearest"),
        ({"compression": "zip"}, "use one of lz4, gzip"),
    ],
)
def test_what_has_no_meaning_is_refused(build, tmp_path, options, reason):
    with pytest.raises(InputError, match=reason):
        build(**options)
    assert not list(tmp_path.iterdir())


def test_units_that_do_not_fit_are_refused(tmp_path):
    items = {
        "a": flat_image(1.0, 10.0, -5.0),
        "b": flat_image(1.0, 10.0, -5.0).evolve(unit="electron / arcsec2"),
    }
    store = store_of(tmp_path, items)
    with pytest.raises(UnitError, match="images in the band r are in"):
        store.dense_cube(tmp_path / "cube.h5", [(10.0, -5.0)])


def test_an_existing_file_is_kept_unless_it_may_be_replaced(store, tmp_path):
    (tmp_path / "cube.h5").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        store.dense_cube(tmp_path / "cube.h5", size=8)
    assert (tmp_path / "cube.h5").read_text() == "mine"
    with pytest.raises(FileFormatError):
        DenseCube(tmp_path / "cube.h5")


def test_workers_and_time_change_nothing(store, tmp_path):
    store.dense_cube(tmp_path / "one.h5", size=8)
    store.dense_cube(tmp_path / "two.h5", size=8, workers=2)
    with h5py.File(tmp_path / "one.h5") as one, h5py.File(tmp_path / "two.h5") as two:
        names = []
        one.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert len(names) > 30
        for name in names:
            np.testing.assert_array_equal(one[name][()], two[name][()])


def test_a_cube_is_made_again_from_what_it_tells(store, build, tmp_path):
    cube = build([(10.0, -5.0)], bands="gr", levels=0, where={"resolution": 3 * u.arcsec})
    rebuild_dense_cube(store, cube.path, tmp_path / "again.h5")
    again = DenseCube(tmp_path / "again.h5")
    told, retold = read_options(cube.path), read_options(again.path)
    assert told | {"created": ""} == retold | {"created": ""}
    for name, values in cube[0].items():
        np.testing.assert_array_equal(values, again[0][name])


def test_sources_and_nexus(build):
    cube = build(bands="gr")
    row = list(cube.targets["name"]).index("sa")
    sources = cube.sources(row)
    assert sorted(sources["obs_id"]) == ["g1", "r1", "r2", "sa", "sb"]
    assert all(len(digest) == 64 for digest in sources["source_digest"])
    with h5py.File(cube.path) as file:
        assert file.attrs["default"] == "images"
        group = file["images/0"]
        assert group.attrs["NX_class"] == "NXdata"
        assert group[group.attrs["signal"]].attrs["units"] == "nmgy / arcsec2"
        assert group["flux"].chunks == (1, 2, 8, 8)
        assert file["spectra/0/wave"].attrs["units"] == "Angstrom"


# --- batches --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(store, tmp_path_factory):
    path = tmp_path_factory.mktemp("many") / "cube.h5"
    places = QTable(
        {"ra": 10.0 + ARCSEC * np.linspace(-2, 2, 11), "dec": np.full(11, -5.0), "name": list("abcdefghijk")}
    )
    store.dense_cube(path, places, size=4, levels=0)
    return path


def test_every_sample_is_given_once_and_shuffling_is_a_matter_of_the_seed(many):
    cube = DenseCube(many)
    plain = np.concatenate([batch["index"] for batch in cube.batches(4)])
    np.testing.assert_array_equal(plain, np.arange(11))
    shuffled = [
        np.concatenate([batch["index"] for batch in cube.batches(4, shuffle=seed)]) for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(np.sort(shuffled[0]), np.arange(11))
    np.testing.assert_array_equal(shuffled[0], shuffled[1])
    assert (shuffled[0] != shuffled[2]).any()
    for batch in cube.batches(4, shuffle=1):
        for place, number in enumerate(batch["index"]):
            for name, values in cube[int(number)].items():
                np.testing.assert_array_equal(batch[name][place], values)


def test_ranks_share_the_samples(many):
    cube = DenseCube(many)
    parts = [
        np.concatenate([b["index"] for b in cube.batches(2, shuffle=5, rank=rank, world=3)])
        for rank in range(3)
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(11))
    even = [[b["index"].size for b in cube.batches(2, drop_last=True, rank=r, world=3)] for r in range(3)]
    assert even == [[2], [2], [2]]
    with pytest.raises(InputError, match="rank 3 of 3"):
        cube.batches(2, rank=3, world=3)
    with pytest.raises(InputError, match="size 0"):
        cube.batches(0)


def test_a_chosen_part(many):
    cube = DenseCube(many, images=0, spectra=(), columns=("ra",), select=np.arange(11) % 2 == 0)
    assert len(cube) == 6
    assert set(cube[1]) == {"index", "image_0", "image_0_ivar", "image_0_valid", "ra"}
    assert cube[1]["index"] == 2
    assert [sample["index"] for sample in cube.__getitems__([5, 0])] == [10, 0]
    assert [int(sample["index"]) for sample in cube] == [0, 2, 4, 6, 8, 10]
    assert DenseCube(many, columns=("name",))[3]["name"] == "d"
    for options, reason in (
        ({"images": 4}, "no level 4"),
        ({"columns": ("sfr",)}, "no column sfr"),
        ({"select": [11]}, "there are 11 targets"),
    ):
        with pytest.raises(InputError, match=reason):
            DenseCube(many, **options)


def total(cube, number):
    return float(cube[number]["image_0"].sum())


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_worker_processes_read_with_files_of_their_own(many, method):
    cube = DenseCube(many)
    expected = [total(cube, number) for number in range(11)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap(total, [(cube, number) for number in range(11)]) == expected
    assert total(pickle.loads(pickle.dumps(cube)), 3) == expected[3]


# --- places ---------------------------------------------------------------------------------------------------------


def test_neighbours_are_those_of_all_pairs():
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(-0.01, 0.01, 60) % 360.0, rng.uniform(-0.01, 0.01, 60)
    others = rng.uniform(-0.01, 0.01, 200) % 360.0, rng.uniform(-0.01, 0.01, 200)
    others[0][7] = np.nan
    start, found, distance = near((ra, dec), others, 10.0)
    here, there = SkyCoord(ra, dec, unit="deg"), SkyCoord(np.nan_to_num(others[0]), others[1], unit="deg")
    for target in range(60):
        apart = here[target].separation(there).arcsec
        apart[7] = np.inf
        expected = np.argsort(apart)[: np.count_nonzero(apart <= 10.0)]
        np.testing.assert_array_equal(found[start[target] : start[target + 1]], expected)
        np.testing.assert_allclose(distance[start[target] : start[target + 1]], apart[expected], rtol=1e-6)


def test_chains_of_spectra_are_not_one_target(tmp_path):
    # a - b - c, an arcsec apart each: b is a's, and c stands for itself.
    items = {name: flat_spectrum(1.0, 10.0, -5.0 + place * ARCSEC) for place, name in enumerate("abc")}
    store = store_of(tmp_path, items)
    assert find_targets(store, None, 1.5).name == ("a", "c")


def test_targets_of_a_table_have_units_and_names(store):
    table = QTable({"RA": [600.0] * u.arcmin, "DEC": [-5.0] * u.deg, "Name": ["one"]})
    found = find_targets(store, table, 1.0)
    assert (found.name, found.ra.tolist(), found.dec.tolist()) == (("one",), [10.0], [-5.0])
    assert find_targets(store, ["sc"], 1.0).ra[0] == pytest.approx(359.9999)


def test_stores_of_one_kind_and_packed_ones(store, tmp_path):
    spectra = store_of(tmp_path / "spectra", {"a": flat_spectrum(2.0, 10.0, -5.0)})
    spectra.dense_cube(tmp_path / "s.h5")
    cube = DenseCube(tmp_path / "s.h5")
    assert (cube.bands, cube.image_levels, cube.spectrum_levels) == ((), (), (0, 1))
    assert cube[0]["spectrum_1_valid"].any()
    images = store_of(tmp_path / "images", {"a": flat_image(2.0, 10.0, -5.0)})
    with pytest.raises(InputError, match="no spectrum with a place"):
        images.dense_cube(tmp_path / "i.h5")
    images.dense_cube(tmp_path / "i.h5", [(10.0, -5.0)], size=8)
    assert DenseCube(tmp_path / "i.h5")[0]["image_1_valid"].all()
    packed = Store(store.pack(tmp_path / "all.h5"))
    for name, one in (("folder", store), ("packed", packed)):
        one.dense_cube(tmp_path / f"{name}.h5", size=8)
    first, second = (next(DenseCube(tmp_path / f"{name}.h5").batches(9)) for name in ("folder", "packed"))
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
