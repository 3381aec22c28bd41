"""A table of galaxies as the objects of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from astropy.table import MaskedColumn, Table

from skyloom.errors import ConfigError, InputError
from skyloom.recipes.galaxies import Galaxy, lay_galaxies, read_galaxies
from skyloom.recipes.registry import RECIPES

SAMPLE = "name,z,a_v,cubename,n\nNGC863,0.0264,0.1,SN1999eb,3\nIC3476,-0.00063,,SN1970A,4\nUGC5,,0.2,,5\n"


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "sample.csv"
    path.write_text(SAMPLE)
    return path


EXPECTED = (
    Galaxy("NGC863", 0.0264, 0.1, {"cubename": "SN1999eb", "n": "3"}),
    Galaxy("IC3476", -0.00063, None, {"cubename": "SN1970A", "n": "4"}),
    Galaxy("UGC5", None, 0.2, {"n": "5"}),
)


def test_a_row_becomes_a_galaxy(sample):
    assert read_galaxies(sample) == EXPECTED


@pytest.mark.parametrize("suffix", ["tsv", "ecsv", "fits", "vot", "txt"])
def test_all_kinds_of_tables_are_read(tmp_path, suffix):
    path = tmp_path / f"sample.{suffix}"
    table = Table(
        {
            "name": [galaxy.name for galaxy in EXPECTED],
            "z": MaskedColumn([0.0264, -0.00063, 0.0], mask=[False, False, True]),
            "a_v": MaskedColumn([0.1, 0.0, 0.2], mask=[False, True, False]),
        }
    )
    if suffix in ("tsv", "txt"):
        table = table.filled(float("nan"))
    known = {"tsv": "ascii.tab", "txt": "ascii", "ecsv": "ascii.ecsv", "fits": "fits", "vot": "votable"}
    table.write(path, format=known[suffix])
    read = read_galaxies(path)
    assert [galaxy.name for galaxy in read] == [galaxy.name for galaxy in EXPECTED]
    assert [galaxy.redshift for galaxy in read] == [0.0264, -0.00063, None]
    assert [galaxy.a_v for galaxy in read] == [0.1, None, 0.2]


@pytest.mark.data
def test_the_sample_of_betis_is_read(data_dir):
    """Its rows are cubes; several of one galaxy need another column as the name."""
    path = data_dir / "tables" / "TABLE_MASTER_BETIS.tsv"
    with pytest.raises(InputError, match=r"stands in rows \d+ and \d+; give each object a name of its own"):
        read_galaxies(path)


@pytest.mark.data
def test_the_sample_of_betis_with_names_is_read(data_dir, tmp_path):
    table = Table.read(data_dir / "tables" / "TABLE_MASTER_BETIS.tsv", format="ascii.tab")
    table.rename_column("cubename", "name")
    table.write(tmp_path / "sample.tsv", format="ascii.tab")
    galaxies = read_galaxies(tmp_path / "sample.tsv")
    assert len(galaxies) == len(table) == 265
    assert galaxies[0] == Galaxy("SN1970A", -0.00063, 0.0961, galaxies[0].fields)
    assert galaxies[0].fields["galaxy"] == "IC3476"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam,z\na,1\n", "has no column of names; .* is 'nam' meant"),
        ("id,z\na,1\n", "has no column of names; .* it has id, z"),
        ("name,z\na,1\na,2\n", "'a' stands in rows 1 and 2"),
        ("name,z\na,1\nb,close\n", "z: 'close' in row 2 is no number"),
        ("name,z\n,1\n", "the name in row 1 is empty"),
        ("name,z\n", "has no row"),
    ],
)
def test_a_table_that_cannot_be_used_is_told(tmp_path, text, message):
    path = tmp_path / "sample.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        read_galaxies(path)
    assert raised.value.source == str(path)


def test_a_file_that_is_no_table_is_told(tmp_path):
    (tmp_path / "a.fits").write_text("not FITS")
    with pytest.raises(InputError, match="cannot be read as fits"):
        read_galaxies(tmp_path / "a.fits")
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(InputError, match=r"\.docx is no kind of table"):
        read_galaxies(tmp_path / "a.docx")
    with pytest.raises(InputError, match=r"no such file; did you mean 'a\.docx'"):
        read_galaxies(tmp_path / "aa.docx")


def test_what_the_configuration_says_of_a_galaxy_goes_before_the_table():
    values = {
        "objects": {"NGC863": {"redshift": 0.03, "fields": {"n": "9"}}, "other": {}},
        "snr": {"line": "Hbeta"},
    }
    laid = lay_galaxies(values, EXPECTED, {"redshift": "redshift", "a_v": "av"})
    assert list(laid["objects"]) == ["NGC863", "IC3476", "UGC5"]
    assert laid["objects"]["NGC863"] == {
        "redshift": 0.03,
        "av": 0.1,
        "fields": {"cubename": "SN1999eb", "n": "9"},
    }
    assert laid["objects"]["IC3476"] == {"redshift": -0.00063, "fields": {"cubename": "SN1970A", "n": "4"}}
    assert laid["snr"] == {"line": "Hbeta"}
    assert list(values["objects"]) == ["NGC863", "other"]


@pytest.mark.parametrize("name", ["ifs", "halpha", "homogenize"])
def test_every_recipe_of_objects_takes_a_table(tmp_path, sample, name):
    path = tmp_path / f"{name}.yaml"
    path.write_text(RECIPES[name].template())
    overrides = ["redshift=0.01"] if name == "halpha" else []
    config = RECIPES[name].load_config(path, overrides, galaxies=sample)
    assert config.object_names() == ("NGC863", "IC3476", "UGC5")
    if name == "ifs":
        assert config.objects["IC3476"].redshift == -0.00063
        # The template gives E(B-V) of this one, which goes before the table.
        assert (config.objects["NGC863"].av, config.objects["NGC863"].ebv is None) == (None, False)
        assert config.objects["UGC5"].redshift is None
    if name == "halpha":
        assert (config.redshift_of("IC3476"), config.objects["NGC863"].a_v) == (-0.00063, 0.1)
        assert config.redshift_of("UGC5") == 0.01


def test_files_are_named_by_columns(tmp_path, sample):
    (tmp_path / "ifs.yaml").write_text("recipe: ifs\ncube: cubes/{cubename}.fits\n")
    config = RECIPES["ifs"].load_config(tmp_path / "ifs.yaml", galaxies=sample)
    assert config.object_files("IC3476").cube == tmp_path / "cubes" / "SN1970A.fits"
    with pytest.raises(ConfigError, match=r"unknown field \{cubename\}"):
        config.object_files("UGC5")


def test_a_store_has_no_galaxies(tmp_path, sample):
    path = tmp_path / "store.yaml"
    path.write_text(RECIPES["store"].template())
    with pytest.raises(ConfigError, match="takes files, not galaxies"):
        RECIPES["store"].load_config(path, galaxies=sample)
    assert Path(sample).exists()


def test_digits_of_names_and_fields_stay_as_they_are(tmp_path):
    path = tmp_path / "plates.csv"
    path.write_text("name,plate,mass,z\n007,0266,10.5,0.1\n012,0411,9e9,\n", encoding="utf-8")
    first, second = read_galaxies(path)
    assert (first.name, first.redshift, dict(first.fields)) == ("007", 0.1, {"plate": "0266"})
    assert (second.name, second.redshift, dict(second.fields)) == ("012", None, {"plate": "0411"})


def test_an_object_that_stands_twice_is_a_config_error():
    with pytest.raises(ConfigError, match="named twice: a"):
        lay_galaxies({"objects": ["a", "a"]}, [], {})
