"""The configuration machinery: YAML without surprises, overrides, messages that help."""

from __future__ import annotations

import pytest
import yaml
from pydantic import Field

from skyloom.errors import ConfigError
from skyloom.recipes.config import (
    FilePath,
    FilePattern,
    Settings,
    apply_overrides,
    load_config,
    merge,
    parse_yaml,
    resolved_yaml,
    validate,
)


class Inner(Settings):
    width: float = 1.0
    kind: str = "plain"


class Outer(Settings):
    name: str
    inner: Inner = Inner()
    many: dict[str, Inner] = Field(default_factory=dict)
    either: Inner | None = None
    file: FilePath = "here.txt"
    pattern: FilePattern | None = None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("NO", "NO"),
        ("12:30:00", "12:30:00"),
        ("007", "007"),
        ("1e-3", 0.001),
        ("-2.5E+3", -2500.0),
        (".5", 0.5),
        ("-3", -3),
        ("0", 0),
        ("true", True),
        ("~", None),
        ("", None),
        ("'3'", "3"),
        ("2026-11-21", "2026-11-21"),
    ],
)
def test_scalars_are_what_they_look_like(text, value):
    parsed, _ = parse_yaml(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_key_that_stands_twice_is_refused_with_its_line():
    with pytest.raises(ConfigError, match=r"file\.yaml: line 3, column 1: .*'a' stands twice"):
        parse_yaml("a: 1\nb: 2\na: 3\n", "file.yaml")


def test_anchors_and_merges_work():
    parsed, _ = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, z: 3}\n")
    assert parsed["b"] == {"x": 1, "y": 2, "z": 3}


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "'", "a: 1\n\tb: 2", "!!python/object:os.system {}"])
def test_broken_yaml_is_a_config_error(text):
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml(text, "file.yaml")


def test_overrides_reach_blocks_lists_and_new_keys():
    values = {"a": {"b": 1}, "list": [1, {"c": 2}], 3: None, "none": None}
    changed = apply_overrides(
        values,
        ["a.b=[1, 2]", "list.1.c=x", "3.d=true", "none.deep.er={e: 1e2}", "new=2", "list.0=text=with="],
    )
    assert changed == {
        "a": {"b": [1, 2]},
        "list": ["text=with=", {"c": "x"}],
        3: {"d": True},
        "none": {"deep": {"er": {"e": 100.0}}},
        "new": 2,
    }
    assert values == {"a": {"b": 1}, "list": [1, {"c": 2}], 3: None, "none": None}


def test_a_list_of_keys_picks_from_a_block():
    values = {"objects": {37: {"z": 0.1}, "b": None, "c": {"z": 0.3}}, "bands": {"f606w": {"a": 1}}}
    picked = apply_overrides(values, ["objects=[c, 37]", "bands=[f606w]"])
    assert picked == {"objects": {"c": {"z": 0.3}, 37: {"z": 0.1}}, "bands": {"f606w": {"a": 1}}}
    assert apply_overrides(values, ["objects=[d, c]"])["objects"] == {"d": None, "c": {"z": 0.3}}
    # What the block knows nothing of, or a name that stands twice, is told when the configuration is checked.
    for other in ("[d, e]", "[c, c]", "[]", "c"):
        assert apply_overrides(values, [f"objects={other}"])["objects"] == yaml.safe_load(other)


@pytest.mark.parametrize("override", ["a", "=1", "a..b=1", ".a=1"])
def test_an_override_that_is_no_setting_is_refused(override):
    with pytest.raises(ConfigError, match=r"--set: .* write it as key\.key=value"):
        apply_overrides({}, [override])


def test_an_override_through_a_value_is_refused():
    with pytest.raises(ConfigError, match="a is 1, not a block that could hold 'b'"):
        apply_overrides({"a": 1}, ["a.b=2"])


def test_merge_goes_into_blocks_and_changes_nothing():
    base, override = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}, "d": [2], "e": None}
    assert merge(base, override) == {"a": {"b": 1, "c": 3}, "d": [2], "e": None}
    assert base == {"a": {"b": 1, "c": 2}, "d": [1]}


def write(folder, text):
    path = folder / "run.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\ninner:\n  widht: 2\n", r"inner\.widht \(line 3\): unknown key; did you mean 'width'\?"),
        ("name: a\nmany: {x: {kin: b}}\n", r"many\.x\.kin \(line 2\): unknown key; did you mean 'kind'\?"),
        ("name: a\neither: {knd: b}\n", r"either\.knd \(line 2\): unknown key; did you mean 'kind'\?"),
        ("name: a\nzzz: 1\n", r"zzz \(line 2\): unknown key; known are name, inner"),
        ("inner: {width: 1}\n", "name: is needed and missing"),
        (
            "name: a\ninner: {width: wide}\n",
            r"inner\.width \(line 2\): 'wide': input should be a valid number",
        ),
        ("name: a\ninner: 3\n", r"inner \(line 2\): 3 stands where a block of keys is expected"),
        ("name: [1]\nzz: 1\n", r"2 problems\n  name \(line 1\): .*\n  zz \(line 2\)"),
        ("- 1\n", "is no configuration"),
        ("", "is no configuration"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path, Outer)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_told_with_the_remedy(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: there is no such file.*skyloom init"):
        load_config(tmp_path / "none.yaml", Outer)


def test_a_file_that_is_not_text_is_told(tmp_path):
    path = tmp_path / "image.fits"
    path.write_bytes(b"SIMPLE\xff\xfe\x80")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_config(path, Outer)


def test_paths_start_at_the_folder_of_the_configuration(tmp_path):
    folder = tmp_path / "a {odd} folder"
    folder.mkdir()
    config = load_config(write(folder, "name: a\npattern: '{object}/*.fits'\n"), Outer)
    assert config.file == str(folder / "here.txt")
    assert config.pattern.format(object="3") == str(folder / "3" / "*.fits")
    assert load_config(write(folder, "name: a\nfile: /elsewhere/b\n"), Outer).file == "/elsewhere/b"


def test_the_resolved_configuration_gives_the_same_run_from_anywhere(tmp_path):
    config = load_config(write(tmp_path, "name: a\nmany: {x: }\n"), Outer, ["many.x={width: 3}"])
    again = validate(parse_yaml(resolved_yaml(config))[0], Outer)
    assert again == config


def test_a_configuration_does_not_change():
    config = Outer(name="a")
    with pytest.raises(ValueError, match="frozen"):
        config.name = "b"
