"""Labels from catalogues: keys of other names, cases and types; places; what is missing, doubled or ambiguous."""

from __future__ import annotations

import warnings

import astropy.units as u
import h5py
import numpy as np
import pytest
from astropy.table import MaskedColumn, QTable, Table

from skyloom.errors import AssumptionWarning, InputError
from skyloom.store.dense import DenseCube, Join, join_labels, rebuild_dense_cube
from skyloom.store.dense.join import label_columns, match_by_key, match_by_sky, read_table
from tests.inputs.dense import flat_spectrum, store_of

KEY = ("plate", "mjd", "fiberid")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four spectra, two of which are of one place."""
    places = {"a": (266, 51602, 1, 10.0), "b": (266, 51602, 2, 11.0), "c": (270, 51909, 1, 12.0)}
    places["c2"] = (999, 52000, 7, 12.0 + 0.3 / 3600)
    items = {
        name: flat_spectrum(1.0, ra, 1.0, plate=plate, mjd=mjd, fiberid=fiber)
        for name, (plate, mjd, fiber, ra) in places.items()
    }
    return store_of(tmp_path_factory.mktemp("join"), items)


def rates() -> Table:
    """As the catalogues of star-formation rates of SDSS: other names, other types, other order, -9999."""
    table = Table()
    table["PLATEID"] = np.array([270, 266, 266, 5], np.int16)
    table["MJD"] = np.array(["51909", " 51602", "051602 ", "1"])
    table["FIBER"] = np.array([1.0, 1.0, 2.0, 3.0])
    table["SFR"] = np.array([0.5, -1.25, -9999.0, 3.0], np.float32)
    table["SFR"].unit = "solMass / yr"
    table["BPT"] = np.array([1, 2, 3, 4], np.int32)
    table["CLASS"] = np.array([b"SF ", b"AGN", b"SF", b"-"])
    return table


def write(table: Table, path):
    if path.suffix == ".csv":
        table.write(path, format="ascii.csv")
    elif path.suffix == ".vot":
        table.write(path, format="votable")
    elif path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        columns = {
            name: table[name].astype(str) if name == "CLASS" else table[name] for name in table.colnames
        }
        plain = pa.table({name: np.asarray(column) for name, column in columns.items()})
        place = plain.schema.get_field_index("SFR")
        unit = plain.schema.field(place).with_metadata({"unit": str(table["SFR"].unit)})
        parquet.write_table(plain.cast(plain.schema.set(place, unit)), path)
    else:
        table.write(path)
    return path


@pytest.mark.parametrize("suffix", [".fits", ".vot", ".ecsv", ".csv", ".parquet"])
def test_rates_by_plate_night_and_fibre_from_any_file(store, tmp_path, suffix):
    path = write(rates(), tmp_path / f"rates{suffix}")
    join = Join(path, KEY, columns=("sfr", "bpt", "CLASS"), invalid=(-9999,))
    summary = store.dense_cube(tmp_path / "cube.h5", levels=0, joins=[join])
    assert summary.joins == (
        {"targets": 3, "matched": 3, "missing": 0, "ambiguous": 0, "duplicates": 0, "reused": 0},
    )
    targets = DenseCube(tmp_path / "cube.h5").targets
    row = {name: number for number, name in enumerate(targets["name"])}
    found = [targets["SFR"][row[name]] for name in "abc"]
    np.testing.assert_array_equal([getattr(value, "value", value) for value in found], [-1.25, np.nan, 0.5])
    assert [targets["BPT"][row[name]] for name in "abc"] == [2, 3, 1]
    assert [targets["CLASS"][row[name]] for name in "abc"] == ["AGN", "SF", "SF"]
    assert (targets["joined"] == 1).all()
    if suffix != ".csv":
        assert targets["SFR"].unit is not None


def test_what_is_missing_is_flagged_and_unknown(store, tmp_path):
    table = rates()[:1]
    store.dense_cube(tmp_path / "cube.h5", levels=0, joins=[Join(table, KEY, prefix="mpa_")])
    cube = DenseCube(tmp_path / "cube.h5")
    row = list(cube.targets["name"]).index("a")
    assert cube.targets["mpa_joined"][row] == 0
    assert np.isnan(cube[row]["mpa_SFR"])
    # A whole number cannot be unknown: the column becomes floating.
    assert np.isnan(cube[row]["mpa_BPT"])
    assert cube.targets["mpa_CLASS"][row] == ""
    with h5py.File(cube.path) as file:
        assert file["targets/mpa_SFR"].attrs["units"] == "solMass / yr"


def test_a_key_that_occurs_twice_takes_the_first_and_is_flagged(store, tmp_path):
    table = Table(
        {"plate": [266, 266, 270], "mjd": [51602, 51602, 51909], "fiberid": [1, 1, 1], "x": [1.0, 2.0, 3.0]}
    )
    (counts,) = store.dense_cube(tmp_path / "cube.h5", levels=0, joins=[Join(table, KEY)]).joins
    assert (counts["duplicates"], counts["ambiguous"], counts["missing"]) == (1, 1, 1)
    targets = DenseCube(tmp_path / "cube.h5").targets
    row = list(targets["name"]).index("a")
    assert (targets["x"][row], targets["joined"][row]) == (1.0, 2)


def test_any_spectrum_of_a_target_may_have_the_key(store, tmp_path):
    # Only the farther spectrum of the third target is in the table; then both are, with different rows.
    for keys, status in (([999], 1), ([999, 270], 2)):
        rows = {270: (270, 51909, 1, 5.0), 999: (999, 52000, 7, 6.0)}
        table = Table(rows=[rows[key] for key in keys], names=("plate", "mjd", "fiberid", "x"))
        store.dense_cube(tmp_path / "cube.h5", levels=0, joins=[Join(table, KEY)], overwrite=True)
        targets = DenseCube(tmp_path / "cube.h5").targets
        row = list(targets["name"]).index("c")
        # The nearest comes first.
        assert (targets["x"][row], targets["joined"][row]) == (6.0 if status == 1 else 5.0, status)


def test_by_place_with_ambiguous_and_shared_rows(store, tmp_path):
    ra = np.array([10.0 + 0.4 / 3600, 10.0 - 0.2 / 3600, 12.0, np.nan])
    table = QTable(
        {"RAJ2000": ra * u.deg, "DEJ2000": np.ones(4) * u.deg, "mass": [1.0, 2.0, 3.0, 4.0] * u.solMass}
    )
    (counts,) = store.dense_cube(tmp_path / "cube.h5", levels=0, joins=[Join(table, radius=1.0)]).joins
    assert counts == {"targets": 3, "matched": 2, "missing": 1, "ambiguous": 1, "duplicates": 1, "reused": 0}
    targets = DenseCube(tmp_path / "cube.h5").targets
    row = {name: number for number, name in enumerate(targets["name"])}
    np.testing.assert_array_equal([targets["mass"][row[name]].value for name in "abc"], [2.0, np.nan, 3.0])
    assert targets["mass"].unit == u.solMass
    assert [targets["joined"][row[name]] for name in "abc"] == [2, 0, 1]
    assert targets["joined_distance"][row["a"]].to_value("arcsec") == pytest.approx(0.2, rel=1e-3)
    one = match_by_sky(np.array([12.0, 12.0]), np.array([1.0, 1.0]), table, 1.0)
    assert one.describe()["reused"] == 2


def test_labels_are_added_to_a_cube_that_is_there_and_survive_being_made_again(store, tmp_path):
    store.dense_cube(tmp_path / "cube.h5", levels=0)
    before = DenseCube(tmp_path / "cube.h5")[0]
    path = write(rates(), tmp_path / "rates.ecsv")
    join = Join(str(path), KEY, columns=("BPT",))
    (counts,) = join_labels(tmp_path / "cube.h5", [join])
    assert counts["matched"] == 3
    after = DenseCube(tmp_path / "cube.h5")
    assert after[0]["BPT"] in (1, 2, 3)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[0][name])
    with pytest.raises(InputError, match="have columns joined, BPT already"):
        join_labels(tmp_path / "cube.h5", [join])
    rebuild_dense_cube(store, tmp_path / "cube.h5", tmp_path / "again.h5")
    np.testing.assert_array_equal(DenseCube(tmp_path / "again.h5").columns["BPT"], after.columns["BPT"])
    path.unlink()
    with pytest.raises(InputError, match="which is not there"):
        rebuild_dense_cube(store, tmp_path / "cube.h5")


def test_keywords_of_headers_are_keys_too(store, tmp_path):
    table = Table({"INSTRUME": ["spectrograph"], "x": [1.0]})
    with pytest.raises(InputError, match="name it in keys="):
        store.dense_cube(tmp_path / "cube.h5", levels=0, joins=[Join(table, ("nothing",))])
    by_name = Table({"OBS_ID": ["b", "a "], "x": [1.0, 2.0]})
    store.dense_cube(tmp_path / "cube.h5", levels=0, joins=[Join(by_name, ("obs_id",))])
    targets = DenseCube(tmp_path / "cube.h5").targets
    assert targets["x"][list(targets["name"]).index("a")] == 2.0


def test_a_spectrum_that_does_not_tell_its_key_matches_nothing(tmp_path):
    items = {"a": flat_spectrum(1.0, 10.0, 1.0, plate=5), "b": flat_spectrum(1.0, 11.0, 1.0)}
    store = store_of(tmp_path, items)
    table = Table({"plate": [-1, 5], "x": [1.0, 2.0]})
    store.dense_cube(tmp_path / "cube.h5", joins=[Join(table, ("plate",))])
    join_labels(tmp_path / "cube.h5", [Join(table, ("plate",), prefix="again_")])
    cube = DenseCube(tmp_path / "cube.h5")
    for prefix in ("", "again_"):
        assert cube.columns[f"{prefix}joined"].tolist() == [1, 0]
        np.testing.assert_array_equal(cube.columns[f"{prefix}x"], [2.0, np.nan])


def test_numbers_that_mean_nothing_are_pointed_out():
    table = rates()
    match = match_by_key({"plate": np.array([270])}, np.array([0]), 1, table, ["plateid"])
    with pytest.warns(AssumptionWarning, match="SFR is -9999 in 1 of 4 rows and is taken as a value"):
        label_columns(table, match, ["SFR"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        label_columns(table, match, ["SFR"], invalid=(-9999,))


def test_masked_entries_are_unknown():
    table = Table(
        {"plate": MaskedColumn([1, 2], mask=[True, False]), "x": MaskedColumn([1.0, 2.0], mask=[False, True])}
    )
    # 1 is masked: it matches nothing, not even 1.
    match = match_by_key({"plate": np.array([1, 2])}, np.array([0, 1]), 2, table, ["plate"])
    assert match.status.tolist() == [0, 1]
    assert np.isnan(label_columns(table, match)["x"]).all()


def test_many_columns_of_large_numbers_do_not_collide():
    rng = np.random.default_rng(2)
    keys = rng.integers(0, 2**62, (300, 4))
    table = Table({f"k{i}": keys[:, i] for i in range(4)} | {"x": np.arange(300.0)})
    order = rng.permutation(300)
    wanted = {f"k{i}": keys[order, i] for i in range(4)}
    match = match_by_key(wanted, np.arange(300), 300, table, [f"K{i}" for i in range(4)])
    np.testing.assert_array_equal(match.row, order)
    assert match.duplicates == 0


def test_what_cannot_be_read_or_found_is_told(tmp_path):
    with pytest.raises(InputError, match="no such table"):
        read_table(tmp_path / "nothing.fits")
    (tmp_path / "page.fits").write_text("<html>")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_table(tmp_path / "page.fits")
    table = rates()
    match = match_by_key({"plate": np.array([270])}, np.array([0]), 1, table, ["plate"])
    with pytest.raises(InputError, match="no column 'mass'"):
        label_columns(table, match, ["mass"])
    with pytest.raises(InputError, match="two of them ra and dec"):
        match_by_sky(np.zeros(1), np.zeros(1), table, 1.0)
