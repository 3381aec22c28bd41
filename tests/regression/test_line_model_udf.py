"""[OII] maps of five galaxies of the Hubble Ultra Deep Field, predicted from their nine bands of HST.

Fitted on every other block of pixels, as on a chess board, and judged on the rest, beside the best single band.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from skyloom.imaging.line_models.halves import judge_line_model
from skyloom.recipes.config import load_config
from skyloom.recipes.homogenize.config import HomogenizeConfig
from skyloom.recipes.homogenize.inputs import object_mask, prepare, read_image, target_grid
from skyloom.recipes.homogenize.line_model import read_line_map
from skyloom.recipes.homogenize.run import homogenize_band

GALAXIES = ("3", "15", "37", "912", "919")
CONFIG = """\
recipe: homogenize
objects: [{galaxies}]
bands: [f435w, f606w, f775w, f814w, f850lp, f105w, f125w, f140w, f160w]
images:
  pattern: {hst}/stamps/{{object}}_60mas_{{band}}_sci.fits
  weight: {hst}/stamps/{{object}}_60mas_{{band}}_wht.fits
psf:
  stars:
    pattern: {hst}/psf_stars/{{star}}_60mas_{{band}}_sci.fits
    weight: {hst}/psf_stars/{{star}}_60mas_{{band}}_wht.fits
    names: [1, 2, 3, 4, 5]
target: {{psf: f160w, grid: f160w}}
line_model:
  maps: ["{muse}_flux_common_OII3726.fits", "{muse}_flux_common_OII3729.fits"]
  errors: ["{muse}_eflux_common_OII3726.fits", "{muse}_eflux_common_OII3729.fits"]
  # These headers say "per Angstrom" of what is the flux of a line.
  unit: 1e-20 erg / (s cm2)
  offset: fit
"""


def udf_config(data_dir: Path, folder: Path) -> HomogenizeConfig:
    """The configuration of these galaxies."""
    hst = data_dir / "hst_udf"
    path = folder / "homogenize.yaml"
    text = CONFIG.format(
        galaxies=", ".join(GALAXIES), hst=hst, muse=hst / "muse_oii/*_{object}_o2_*/*_ssmooth"
    )
    path.write_text(text, encoding="utf-8")
    return load_config(path, HomogenizeConfig, [])


def matched_bands(config: HomogenizeConfig):
    """Yield the name of each galaxy, its matched bands and its line map."""
    preparation = prepare(config)
    for name in config.object_names():
        files = config.object_files(name)
        native = {item.band: read_image(config.bands[item.band], item) for item in files.bands}
        grid = target_grid(config, files, native)
        mask, target = object_mask(config, files, grid), preparation.target_on(grid, native)
        bands = {
            item.band: homogenize_band(preparation, item, native[item.band], grid, target, mask).matched
            for item in files.bands
        }
        yield name, bands, read_line_map(config.line_model, files)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*BUNIT says.*:skyloom.errors.AssumptionWarning"
)  # as the file says, see CONFIG
@pytest.mark.filterwarnings(
    "ignore:.*left out of the line model.*:skyloom.errors.AssumptionWarning"
)  # F105W is patchy
def test_a_combination_predicts_what_was_left_out_no_worse_than_its_best_band(data_dir, tmp_path, capsys):
    judged = {
        name: judge_line_model(bands, line_map, offset="fit")
        for name, bands, line_map in matched_bands(udf_config(data_dir, tmp_path))
    }
    rows = [
        f"{name:>6}  {' '.join(item.bands):24} {item.rms:9.3f} {item.single_rms:9.3f} {item.single} {item.ratio:.2f}\n"
        for name, item in judged.items()
    ]
    with capsys.disabled():
        sys.stdout.writelines(
            ["\ngalaxy  combination: residual left out   of the best band    ratio\n", *rows]
        )
    assert set(judged) == set(GALAXIES)
    assert max(item.ratio for item in judged.values()) < 1.05
    # Where colours change over the galaxy, a combination is much better than any band.
    assert judged["919"].ratio < 0.5
    assert judged["15"].ratio < 0.95
    assert judged["37"].ratio < 0.95
