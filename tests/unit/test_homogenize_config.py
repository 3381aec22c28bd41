"""The configuration of homogenize: common blocks, what differs per band, files of objects and stars."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from skyloom.errors import ConfigError, InputError
from skyloom.recipes.config import load_config, parse_yaml, resolved_yaml, validate
from skyloom.recipes.homogenize.config import HomogenizeConfig
from skyloom.recipes.registry import RECIPES, recipe_named, recipe_of

TEXT = """\
recipe: homogenize
objects:
  3:
  15:
  m3: {source: 3, labels: [centre, 24350]}
bands:
  f435w:
  f606w: {fields: {scale: 30mas}}
  f850lp: {images: {weight: null}}
  f160w: {psf: {fwhm: 0.2}, sky: {method: none}}
fields: {scale: 60mas}
images:
  pattern: stamps/{object}_{scale}_{band}_sci.fits
  weight: stamps/{object}_{scale}_{band}_wht.fits
segmentation: {pattern: "maps/{object}.fits", keep: 7}
psf:
  stars: {pattern: "stars/{star}_{scale}_{band}.fits", names: [1, 2]}
  model: sampled
target: {psf: f160w, grid: f160w}
sky: {method: file, pattern: "sky/sky_{object}_{number}.txt"}
"""


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "homogenize.yaml"
    path.write_text(TEXT)
    return lambda *overrides: load_config(path, HomogenizeConfig, overrides)


def test_every_band_is_complete_and_keeps_what_is_its_own(load, tmp_path):
    bands = load().bands
    assert bands["f435w"].images.weight == str(tmp_path / "stamps/{object}_{scale}_{band}_wht.fits")
    assert bands["f435w"].fields == {"scale": "60mas"}
    assert bands["f606w"].fields == {"scale": "30mas"}
    assert bands["f850lp"].images.weight is None
    assert bands["f850lp"].psf.stars is not None
    assert bands["f850lp"].sky.method == "file"


def test_a_band_with_its_own_source_of_the_psf_inherits_nothing_of_the_common_one(load):
    psf = load().bands["f160w"].psf
    assert psf.stars is None
    assert psf.fwhm == 0.2
    assert psf.profile == "gaussian"


def test_files_of_an_object(load, tmp_path):
    files = load().object_files("m3")
    assert files.labels == ("centre", 24350)
    assert files.segmentation == tmp_path / "maps/3.fits"
    named = {band.band: band for band in files.bands}
    assert named["f435w"].image == tmp_path / "stamps/3_60mas_f435w_sci.fits"
    assert named["f606w"].weight == tmp_path / "stamps/3_30mas_f606w_wht.fits"
    assert named["f850lp"].weight is None
    assert named["f850lp"].sky == tmp_path / "sky/sky_3_850.txt"
    assert named["f160w"].sky is None
    assert load().object_files("15").labels == (7,)


def test_files_of_stars(load, tmp_path):
    assert [star.image for star in load().star_files("f606w")] == [
        tmp_path / "stars/1_30mas_f606w.fits",
        tmp_path / "stars/2_30mas_f606w.fits",
    ]
    assert load().star_files("f160w") == ()


def test_wildcards_must_find_exactly_one_file(load, tmp_path):
    config = load("images.pattern='stamps/*_{object}_{band}.fits'", "images.weight=null")
    with pytest.raises(InputError, match="finds no file; a pattern must find exactly one"):
        config.object_files("3")
    (tmp_path / "stamps").mkdir()
    for band in config.bands:
        (tmp_path / "stamps" / f"a_3_{band}.fits").touch()
    assert config.object_files("3").bands[0].image == tmp_path / "stamps/a_3_f435w.fits"
    (tmp_path / "stamps" / "b_3_f435w.fits").touch()
    with pytest.raises(InputError, match=r"finds 2 files \(a_3_f435w\.fits, b_3_f435w\.fits\)"):
        config.object_files("3")


def test_all_objects_are_found_by_the_files_of_the_reference_band(load, tmp_path):
    config = load("objects=all")
    with pytest.raises(ConfigError, match="objects: all: no file matches"):
        config.object_names()
    (tmp_path / "stamps").mkdir()
    for name in ("15", "3", "912", "m 3", "b[1]"):
        (tmp_path / "stamps" / f"{name}_60mas_f160w_sci.fits").touch()
    (tmp_path / "stamps" / "77_30mas_f160w_sci.fits").touch()
    assert config.object_names() == ("3", "15", "912", "b[1]", "m 3")
    assert config.object_files("b[1]").bands[0].image.name == "b[1]_60mas_f435w_sci.fits"


def test_an_object_in_folder_and_name_is_one_object(load, tmp_path):
    config = load("objects=all", "images.pattern='{object}/{object}_{band}.fits'")
    for name in ("a/a_f160w.fits", "b/c_f160w.fits"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert config.object_names() == ("a",)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["images.patern=x"], r"images\.patern \(line \d+\): unknown key; did you mean 'pattern'\?"),
        (["bands.f606w.psf.fwmh=1"], r"bands\.f606w\.psf\.fwmh .*did you mean 'fwhm'\?"),
        (["bnads=[a]"], "bnads: unknown key; did you mean 'bands'"),
        (["skyy=1"], "skyy: unknown key; did you mean 'sky'"),
        (["target.psf=f16w"], "target.psf: 'f16w' is none of the bands; did you mean 'f160w'"),
        (["target.grid=x"], r"target.grid: 'x' is none of the bands \(f435w, f606w, f850lp, f160w\)"),
        (["target.psf={}"], "give either fwhm or file"),
        (["target.psf={fwhm: 1, model: moffat}"], "a declared moffat needs its beta"),
        (["sky.method=cnstant"], "sky.method .*'cnstant' is none of .*did you mean 'constant'"),
        (["sky.pattern=null"], "sky .*method: file needs pattern"),
        (["sky.method=value"], "method: value needs value"),
        (["segmentation.keep=center"], "'center' is no label; give whole numbers from 0, or the word centre"),
        (["segmentation.keep=-1"], "-1 is no label"),
        (["objects=[3, 3]"], "objects .*named twice: 3"),
        (["objects={}"], "objects: the list is empty"),
        (["objects.3=4"], r"objects\.3 .*4 stands where a block of keys is expected"),
        (["workers=0"], "workers: 0: input should be greater than or equal to 1"),
        (["psf={}"], "psf .*: give one of stars, fwhm or file"),
        (
            ["psf.fwhm=0.1", "bands=[f160w]"],
            r"psf .*: give one of stars, fwhm or file \(got stars and fwhm\)",
        ),
        (["psf={fwhm: 0.1, model: sampled}", "bands=[f160w]"], "needs model: gaussian or model: moffat"),
        (["psf.stars.names=[]"], r"psf\.stars\.names .*at least 1"),
        (["images=null"], r"images\.pattern .*is needed and missing"),
        (["checks.lost_flux=.inf"], r"checks\.lost_flux: inf: input should be a finite number"),
    ],
)
def test_a_wrong_value_gives_one_helpful_message(load, overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(*overrides)
    assert "problems" not in str(caught.value)


def test_an_unknown_field_of_a_pattern_is_told(load):
    with pytest.raises(ConfigError, match=r"unknown field \{objct\}; did you mean \{object\}\?"):
        load("images.pattern='{objct}.fits'").object_files("3")
    with pytest.raises(ConfigError, match="not a pattern"):
        load("images.pattern='{object.fits'").object_files("3")


def test_short_forms(load):
    config = load("bands=[f160w, f606w]", "objects=37", "target.grid={pixel_scale: 0.1, size_arcsec: 6}")
    assert list(config.bands) == ["f160w", "f606w"]
    assert config.object_names() == ("37",)
    assert config.target.grid.size_arcsec == (6.0, 6.0)
    assert config.reference_band == "f160w"


def test_the_resolved_configuration_gives_the_same_run(load):
    config = load()
    assert validate(parse_yaml(resolved_yaml(config))[0], HomogenizeConfig) == config


@pytest.mark.parametrize("name", RECIPES)
def test_the_template_of_each_recipe_is_valid(name, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(RECIPES[name].template())
    assert recipe_of(path) is RECIPES[name]
    RECIPES[name].load_config(path)
    RECIPES[name].load_function()


def test_the_template_names_every_block_and_key():
    """What can be said is shown, commented out or not."""
    template = RECIPES["homogenize"].template()
    for block, settings in HomogenizeConfig.model_fields.items():
        if block in {"recipe", "bands", "objects"}:
            continue
        assert f"\n{block}:" in template or f"\n# {block}:" in template
        known = (settings.annotation, *get_args(settings.annotation))
        for key in (key for kind in known for key in getattr(kind, "model_fields", ())):
            assert f"{key}:" in template, f"{block}.{key}"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{maps: [a.fits, b.fits], errors: e.fits}", "2 maps but 1 errors"),
        ("{maps: a.fits, errors: e.fits, bands: f606x}", "did you mean 'f606w'"),
        ("{maps: a.fits, errors: e.fits, psf: narrow}", r"line_model\.psf"),
        ("{maps: a.fits, errors: e.fits, max_bands: 0}", r"line_model\.max_bands"),
        ("{maps: a.fits}", r"line_model\.errors"),
    ],
)
def test_a_line_model_that_cannot_be_is_refused(load, block, message):
    with pytest.raises(ConfigError, match=message):
        load(f"line_model={block}")


def test_line_maps_are_found_with_their_errors(load, tmp_path):
    config = load("line_model={maps: ['{object}_a.fits', '{object}_b.fits'], errors: [ea.fits, eb.fits]}")
    files = config.object_files("m3").line_maps
    assert files == tuple((tmp_path / f"3_{key}.fits", tmp_path / f"e{key}.fits") for key in "ab")
    assert load().object_files("m3").line_maps == ()


def test_an_unknown_recipe_is_told_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="no recipe 'homogenise'; did you mean 'homogenize'"):
        recipe_named("homogenise")
    path = Path(tmp_path / "a.yaml")
    path.write_text("objects: 3\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: recipe: the key is missing"):
        recipe_of(path)
