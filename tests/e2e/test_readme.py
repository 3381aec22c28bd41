"""The README does what it says: its commands and its Python run as written, on mocks under the names it uses."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from skyloom.cli import app
from skyloom.mock.cubes.files import write_cube_mock
from skyloom.mock.halpha.files import write_halpha_mock
from skyloom.mock.hubble.files import write_hst_mock
from skyloom.mock.sdss.files import write_sdss_mock
from skyloom.mock.sdss.frames import EPOCHS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
LINES = [line.split("  #")[0].strip() for kind, text in BLOCKS if not kind for line in text.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("skyloom ")]
# What spares time in a test and leaves the steps as they are.
SHORTER = {
    "homogenize": {"output": {"directory": "homogenized", "contact_sheet": False}},
    "ifs": {"lines": "none", "continuum": {}, "output": {"directory": "ifs", "figures": False}},
    "halpha": {"nebulae": "none", "output": {"directory": "halpha", "figures": False}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with everything that the README speaks of, and configurations of someone who has filled them in."""
    place = tmp_path_factory.mktemp("readme")
    field = write_hst_mock(
        place, seed=5, n_objects=1, bands=("f435w", "f160w"), shape=(64, 64), fine=False, n_stars=2
    )
    stamp = field.stamp(field.objects[0].name, "f435w")
    cube = write_cube_mock(place, "muse", seed=3, shape=(14, 16), wave_range=(6400, 6900))
    write_halpha_mock(place, seed=5, size=160, n_nebulae=8, n_stars=0)
    write_sdss_mock(place, seed=6, shape=(96, 96), bands="r", epochs=EPOCHS[:1], n_spectra=1, truth=False)
    for source, names in {
        stamp.science: ("image.fits", "37_60mas_f435w_sci.fits"),
        stamp.weight: ("37_60mas_f435w_wht.fits",),
        field.objects[0].segmentation: ("37_segmentation.fits",),
        cube.cube: ("cube.fits", "NGC863.fits"),
    }.items():
        for name in names:
            shutil.copy(source, place / name)
    shutil.rmtree(place / "sky")  # levels beside the images; here the name is that of a store
    (place / "filled").mkdir()
    for recipe, less in SHORTER.items():
        values = yaml.safe_load((place / f"{recipe}.yaml").read_text(encoding="utf-8"))
        (place / "filled" / f"{recipe}.yaml").write_text(yaml.safe_dump({**values, **less}), encoding="utf-8")
    return place


def test_every_line_is_looked_at():
    others = [line for line in LINES if line and line not in COMMANDS]
    assert [line.split()[0] for line in others] == ["make", "make", "pip"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{line.split()[1]}:" in makefile for line in others if line.startswith("make"))
    assert {kind for kind, _ in BLOCKS} == {"", "python"}


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    assert not [target for target in targets if not (ROOT / target).exists()]


# The mock's map of labels is interpolated as those of the archive are; reading it says so.
@pytest.mark.filterwarnings("ignore:.*label map was interpolated:skyloom.errors.RepairWarning")
@pytest.mark.slow
def test_the_commands_and_the_python_of_the_readme_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for command in COMMANDS:
        line, _, target = command.partition(" > ")
        words = shlex.split(line)[1:]
        result = CliRunner().invoke(app, words)
        # The smallest mocks may miss a bound of a science check (3); everything else has to go through.
        assert result.exit_code in (0, 3), (command, result.output, result.exception)
        if target:
            assert yaml.safe_load(result.stdout)["recipe"] == words[1]
            shutil.copy(folder / "filled" / target, target)
    for kind, text in BLOCKS:
        if kind == "python":
            _run_python(text)
    assert (folder / "37_f435w_matched.fits").is_file()


def _run_python(text: str) -> None:
    names: dict[str, object] = {}
    exec(compile(text, "README.md", "exec"), names)
    assert len(names["table"]) == 1
    assert names["spectra"].shape[0] > 0
    assert names["stamp"].shape == (64, 64)
    names["store"].close()
