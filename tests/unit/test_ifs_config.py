"""The configuration of ifs: what is common, what is an object's own, and messages that help."""

from __future__ import annotations

import pytest

from skyloom.errors import ConfigError, InputError
from skyloom.recipes.config import load_config, parse_yaml, resolved_yaml, validate
from skyloom.recipes.ifs.config import IfsConfig
from skyloom.recipes.registry import RECIPES, recipe_of

TEXT = """\
recipe: ifs
objects:
  a: {redshift: 0.01, av: 0.1}
  b: {cube: "own/{object}_x.fits", source: bb}
  c: {cube: {instrument: {data: SCI, error: ERR, error_kind: sigma}}, fields: {version: v2}}
fields: {version: v1}
cube:
  pattern: cubes/{object}_{version}.fits
  weight: cubes/{object}_var.fits
  weight_kind: variance
  instrument: muse
snr: {line: [SII6716, SII6730], half_width: 300 km/s, continuum: [12 A, 40 px]}
"""


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "ifs.yaml"
    path.write_text(TEXT)
    return lambda *overrides: load_config(path, IfsConfig, overrides)


def test_every_object_is_complete_and_keeps_what_is_its_own(load, tmp_path):
    objects = load().objects
    assert objects["a"].cube.pattern == str(tmp_path / "cubes/{object}_{version}.fits")
    assert objects["a"].fields == {"version": "v1"}
    assert objects["b"].cube.pattern == str(tmp_path / "own/{object}_x.fits")
    assert objects["b"].cube.instrument == "muse"
    assert objects["b"].cube.weight == str(tmp_path / "cubes/{object}_var.fits")
    assert objects["c"].cube.instrument.error_kind == "sigma"
    assert objects["c"].cube.instrument.layout().data == "SCI"
    assert objects["c"].fields == {"version": "v2"}


def test_files_of_an_object(load, tmp_path):
    files = load().object_files("a")
    assert files.cube == tmp_path / "cubes/a_v1.fits"
    assert files.weight == tmp_path / "cubes/a_var.fits"
    assert files.segmentation is None
    assert files.velocity is None
    assert load().object_files("b").cube == tmp_path / "own/bb_x.fits"
    config = load("binning.method=segmentation", "binning.segmentation='seg/{object}.fits'")
    assert config.object_files("b").segmentation == tmp_path / "seg/bb.fits"
    own = load("binning.method=segmentation", "binning.segmentation='seg/{object}.fits'",
               "objects.b.segmentation=mine.fits")  # fmt: skip
    assert own.object_files("b").segmentation == tmp_path / "mine.fits"
    assert load("snr.velocity='v/{object}.fits'").object_files("a").velocity == tmp_path / "v/a.fits"


def test_all_objects_are_found_by_their_cubes(load, tmp_path):
    with pytest.raises(ConfigError, match="no file matches"):
        load("objects=all")
    (tmp_path / "cubes").mkdir()
    for name in ("10", "9", "b 1"):
        (tmp_path / "cubes" / f"{name}_v1.fits").touch()
    (tmp_path / "cubes" / "10_v2.fits").touch()
    config = load("objects=all")
    assert config.object_names() == ("9", "10", "b 1")
    assert config.object_files("10").cube == tmp_path / "cubes/10_v1.fits"


def test_wildcards_must_find_exactly_one_cube(load):
    with pytest.raises(InputError, match="finds no file; a pattern must find exactly one"):
        load("cube.pattern='cubes/*{object}*.fits'").object_files("a")


def test_short_forms(load):
    config = load("objects=[7]", "cube='x/{object}.fits'", "snr.line=Halpha", "snr.half_width=12")
    assert config.object_names() == ("7",)
    assert config.objects["7"].cube.instrument == "auto"
    assert config.snr.line == ("Halpha",)
    assert config.snr.half_width == "12 A"
    assert load("snr.line=6562.8").snr.line == (6562.8,)


def test_continuum_is_two_distances_or_windows(load):
    assert load().snr.continuum == ("12 A", "40 px")
    windows = load("snr.continuum=[[6500, 6520], [6600, 6620]]").snr.continuum
    assert windows == ((6500.0, 6520.0), (6600.0, 6620.0))


def test_velocities_come_from_a_first_pass_where_they_are_needed(load):
    assert load().snr.velocity_source == "none"
    assert load("snr.method=matched").snr.velocity_source == "first_pass"
    assert load("snr.velocity=first_pass").snr.velocity_source == "first_pass"


@pytest.mark.parametrize(("text", "number"), [("2 GB", 2e9), ("1.5GiB", 1.5 * 2**30), ("300 MB", 3e8)])
def test_memory(load, text, number):
    assert load(f"memory={text}").memory_bytes == number


def test_memory_is_half_of_the_machine_by_default(load):
    assert 1e8 < load().memory_bytes < 1e13


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cube.patern=x"], r"cube\.patern \(line \d+\): unknown key; did you mean 'pattern'\?"),
        (["objcts=[a]"], "objcts: unknown key; did you mean 'objects'"),
        (["objects.a.redshft=1"], r"objects\.a\.redshft .*did you mean 'redshift'\?"),
        (["objects.a.ebv=0.1"], r"objects\.a \(line 3\): give either av or ebv"),
        (["objects.a.redshift=50"], r"objects\.a\.redshift .*less than 20"),
        (["objects={}"], "objects: the list is empty"),
        (["objects=[3, 3]"], "objects.*named twice: 3"),
        (["cube=null"], r"cube\.pattern .*is needed and missing"),
        (["cube.instrument={datta: 1}", "objects=[a]"], r"did you mean 'data'\?"),
        (["cube.instrument={error_kind: rms}", "objects=[a]"], r"'rms' is none of 'variance', 'sigma'"),
        (["cube.instrument={wave_start: 4000}", "objects=[a]"], "wave_start and wave_step belong together"),
        (["cube.weight_kind=null", "objects=[a]"], "weight needs weight_kind: variance, rms"),
        (["snr.line=Halfa"], r"snr\.line .*'Halfa' is not in the line list; did you mean 'Halpha'\?"),
        (["snr.line=[]"], "the list of lines is empty"),
        (["snr.line=-3"], "is no wavelength"),
        (["snr.half_width=3 m"], "'3 m' is no width; give A, px or km/s"),
        (["snr.half_width=0 A"], "is no positive width"),
        (["snr.method=windo"], r"'windo' is none of .*did you mean 'window'\?"),
        (["snr.method=continuum"], "method: continuum needs continuum_window"),
        (["snr.method=matched", "snr.velocity=none"], "method: matched needs a velocity"),
        (["binning.method=radius"], "method: radius needs the block radius"),
        (["binning.radius={}"], "give either width or edges"),
        (["binning.radius={edges: [3, 1]}"], "are no edges; give two or more, ascending"),
        (["binning.method=segmentation"], r"needs binning.segmentation \(none for a, b, c\)"),
        (["binning.regions.limit=9"], "limit 9 is above threshold 5"),
        (["sky_residuals=[[5000, 4000]]"], r"\[5000, 4000\] is no range; give \[from, to\] in A"),
        (["memory=much"], "'much' is no amount of memory"),
        (["noise.spatial_correlation={sigma: -1}"], r"noise\.spatial_correlation.*greater than 0"),
        (["extinction.curve=ccm98"], "did you mean 'ccm89'"),
        (["workers=0"], "workers: 0: input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_value_gives_one_helpful_message(load, overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(*overrides)
    assert "problems" not in str(caught.value)


def test_the_resolved_configuration_gives_the_same_run(load):
    config = load()
    assert validate(parse_yaml(resolved_yaml(config))[0], IfsConfig) == config
    alone = config.only("b")
    assert alone.object_names() == ("b",)
    assert validate(parse_yaml(resolved_yaml(alone))[0], IfsConfig) == alone


def test_the_template_names_every_block_and_key(tmp_path):
    """What can be said is shown, commented out or not."""
    template = RECIPES["ifs"].template()
    for block, settings in IfsConfig.model_fields.items():
        assert f"\n{block}:" in template or f"\n# {block}:" in template, block
        for key in getattr(settings.annotation, "model_fields", ()):
            assert f"{key}:" in template, f"{block}.{key}"


def test_the_optional_products_of_the_template_are_valid(tmp_path):
    head, mark, rest = RECIPES["ifs"].template().partition("# resampled_cube:")
    optional, blank, rest = rest.partition("\n\n")
    assert "starlight:" in optional
    shown = (mark + optional).replace("\n# ", "\n")[2:]
    path = tmp_path / "ifs.yaml"
    path.write_text(head + shown + blank + rest)
    assert recipe_of(path) is RECIPES["ifs"]
    config = RECIPES["ifs"].load_config(path)
    assert config.resampled_cube.step == 1.0
    assert config.starlight.n_grids == 2


def test_the_defaults_of_the_template_are_the_defaults(tmp_path):
    path = tmp_path / "ifs.yaml"
    path.write_text(RECIPES["ifs"].template())
    shown = RECIPES["ifs"].load_config(path)
    assert shown == IfsConfig(objects=shown.objects, output=shown.output)
