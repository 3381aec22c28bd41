"""The configuration of halpha: forms that values may take, messages, files, the template."""

from __future__ import annotations

import textwrap

import pytest

from skyloom.errors import ConfigError
from skyloom.recipes.config import load_config, resolved_yaml
from skyloom.recipes.halpha.config import HalphaConfig, LineFiles, PsfSettings
from skyloom.recipes.registry import RECIPES, recipe_of

BASE = """
recipe: halpha
objects: {ngc1: {redshift: 0.002}}
images: {pattern: "{object}_{band}_sci.fits", weight: "{object}_{band}_wht.fits"}
narrow: {band: f658n, filter: filters/f658n.dat}
continua: {f555w: {filter: filters/f555w.dat}, f814w: {filter: acs_wfc_f814w}}
"""
MUSE = """
muse:
  bands: "{object}_muse_{number}.fits"
  lines: {file: "{object}_MAPS.fits", Halpha: HA6562_FLUX, NII6583: NII6583_FLUX}
"""


def load(tmp_path, text, *overrides):
    path = tmp_path / "halpha.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return load_config(path, HalphaConfig, overrides)


def complaint(tmp_path, text, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value)


def test_the_template_is_a_configuration(tmp_path):
    recipe = RECIPES["halpha"]
    path = tmp_path / "halpha.yaml"
    path.write_text(recipe.template(), encoding="utf-8")
    assert recipe_of(path) is recipe
    config = recipe.load_config(path)
    again = tmp_path / "resolved.yaml"
    again.write_text(resolved_yaml(config), encoding="utf-8")
    assert recipe.load_config(again) == config


def test_the_template_shows_the_defaults(tmp_path):
    """What the template spells out is what leaving it out means, but for files and objects."""
    text = RECIPES["halpha"].template()
    path = tmp_path / "halpha.yaml"
    path.write_text(text, encoding="utf-8")
    config = load_config(path, HalphaConfig)
    plain = load(tmp_path, BASE)
    for name in (
        "noise",
        "cosmic_rays",
        "registration",
        "background",
        "continuum",
        "anchor",
        "negatives",
        "checks",
    ):
        assert getattr(config, name) == getattr(plain, name), name
    assert config.white_noise is None


def test_lines_stand_beside_their_file(tmp_path):
    config = load(tmp_path, BASE + MUSE)
    assert isinstance(config.muse.lines, LineFiles)
    assert config.muse.lines.extensions == {"Halpha": "HA6562_FLUX", "NII6583": "NII6583_FLUX"}
    assert config.muse.lines.file == str(tmp_path / "{object}_MAPS.fits")


@pytest.mark.parametrize("word", ["cosmic_rays", "registration"])
def test_a_method_stands_for_its_block(tmp_path, word):
    assert getattr(load(tmp_path, BASE + f"{word}: none\n"), word).method == "none"


@pytest.mark.parametrize("word", ["muse", "stars", "white_noise", "nebulae"])
def test_none_leaves_a_block_out(tmp_path, word):
    assert getattr(load(tmp_path, BASE + f"{word}: none\n"), word) is None


def test_files_of_an_object(tmp_path):
    text = BASE + MUSE + 'stars: {catalogue: "{object}.ecsv"}\nnebulae: {labels: "{object}_mask.fits"}\n'
    files = load(tmp_path, text).object_files("ngc1")
    assert [item.band for item in files.bands] == ["f658n", "f555w", "f814w"]
    assert files.bands[1].weight == tmp_path / "ngc1_f555w_wht.fits"
    assert files.muse_bands["f814w"] == tmp_path / "ngc1_muse_814.fits"
    assert files.lines == tmp_path / "ngc1_MAPS.fits"
    assert files.star_catalogue == tmp_path / "ngc1.ecsv"
    assert files.labels == tmp_path / "ngc1_mask.fits"
    assert files.catalogue is None
    assert len(files.hst) == 6


def test_a_curve_is_a_file_or_a_name(tmp_path):
    config = load(tmp_path, BASE)
    assert config.narrow.filter == str(tmp_path / "filters/f658n.dat")
    assert config.continua["f814w"].filter == "acs_wfc_f814w"


def test_a_declared_psf(tmp_path):
    config = load(tmp_path, BASE + MUSE, "muse.psf={fwhm: 0.8, beta: 2.8}")
    assert config.muse.psf == PsfSettings(fwhm=0.8, beta=2.8)


def test_the_redshift_may_be_common(tmp_path):
    config = load(tmp_path, BASE, "objects=[a, b]", "redshift=0.003")
    assert [config.redshift_of(name) for name in config.object_names()] == [0.003, 0.003]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["objects={a: {}}"], "redshift of a is missing"),
        (["objects=[]"], "the list is empty"),
        (["continua={f658n: {}}"], "is the narrow band"),
        (["anchor.metod=fit"], "did you mean 'method'"),
        (["anchor.method=median"], "'median' is none of"),
        (["muse={bands: x.fits}"], "give lines"),
        (["muse={lines: fit}"], "give cube, or bands"),
        (["muse={bands: x.fits, lines: fit}"], "lines: fit needs cube"),
        (["muse={bands: x.fits, lines: {file: m.fits, Halfa: HA}}"], "unknown key"),
        (["checks.anchor_slope=[2, 1]"], "are no bounds"),
        (["white_noise={sigma: -1}"], "greater than 0"),
        (["continuum.contamination=[Hgama]"], "Hgama"),
        (["workers=0"], "workers"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, changes, said):
    assert said in complaint(tmp_path, BASE, *changes)
