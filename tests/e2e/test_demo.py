"""The demonstration that a new user runs first: one galaxy through all recipes, and how far from its truth they end."""

from __future__ import annotations

import re

import numpy as np
import pytest
from astropy.table import QTable
from typer.testing import CliRunner

import skyloom as sl
from skyloom.cli import app
from skyloom.errors import InputError
from skyloom.recipes.demo import demo
from skyloom.recipes.demo.comparison import Allowed, Comparison, comparison_table
from skyloom.recipes.demo.run import TABLE, DemoResult
from skyloom.recipes.result import ExitCode

RECIPES = ("homogenize", "ifs", "halpha", "store")


@pytest.fixture(scope="session")
def shown(tmp_path_factory):
    """The command, on a small scene, once for all tests: what came of it, and what it printed."""
    results = []

    def small_demo(*arguments, **options):
        results.append(demo(*arguments, size="small", **options))
        return results[0]

    with pytest.MonkeyPatch.context() as patch:
        # The command has no small scene: 'make demo', which CI begins with, runs the whole one.
        patch.setattr("skyloom.recipes.demo.demo", small_demo)
        folder = tmp_path_factory.mktemp("demonstration") / "demo"
        done = CliRunner().invoke(app, ["demo", "--out", str(folder)])
    assert results, done.output
    return results[0], done


@pytest.fixture(scope="session")
def small(shown):
    """What came of the demonstration on a small scene."""
    return shown[0]


def test_the_command_tells_where_to_begin(shown):
    result, done = shown
    assert done.exit_code == 0, done.output
    said = "".join(done.stdout.split())  # Long paths are broken anywhere.
    assert f"firstpage:{result.report}" in said
    assert f"skyloomview{result.directory}" in said
    assert f"{len(result.rows)}of{len(result.rows)}comparisons" in said
    assert "Warning" not in done.stderr


def test_every_recipe_leaves_products_and_a_report(small):
    assert tuple(small.results) == RECIPES
    for recipe, result in small.results.items():
        assert result.exit_code == ExitCode.DONE, (recipe, result.failures, result.checks)
        assert result.directory == small.directory / recipe
        assert (small.directory / recipe / "report.html").is_file()
    assert {path.name for path in small.directory.iterdir()} == {"mock", *RECIPES, TABLE, "report.html"}
    mock = {path.name for path in (small.directory / "mock").iterdir()}
    assert mock == {"hst", "muse", "sdss", "truth", *(f"{recipe}.yaml" for recipe in RECIPES)}


def test_products_agree_with_the_truth(small):
    failed = [
        f"{row.recipe}, {row.quantity}: {row.bias} {row.mean} {row.spread}"
        for row in small.rows
        if not row.passed
    ]
    assert not failed
    assert {row.recipe for row in small.rows} == set(RECIPES)
    assert small.exit_code == ExitCode.DONE


def test_the_table_is_that_of_the_comparison(small):
    table = QTable.read(small.directory / TABLE, format="ascii.ecsv")
    assert table.colnames[:4] == ["recipe", "quantity", "n", "bias"]
    assert {"pull mean", "pull std", "allowed", "verdict"} <= set(table.colnames)
    np.testing.assert_allclose(table["bias"], small.comparison["bias"])
    assert set(table["verdict"]) == {"passed"}


def test_the_first_page_holds_the_numbers_and_its_links_lead_somewhere(small):
    page = small.report.read_text(encoding="utf-8")
    for link in re.findall(r'href="([^"#][^"]*)"', page):
        assert (small.directory / link).exists(), link
    for recipe in RECIPES:
        assert f'href="{recipe}/report.html"' in page
    for row in small.rows:
        assert f'data-value="{row.bias}"' in page
        assert row.allowed.text(row.unit) in page
    assert page.count('src="data:image/png;base64,') == 1 + len(RECIPES) + 1
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    for command in ("skyloom view", "skyloom inspect", "skyloom init", "skyloom run"):
        assert f"<code>{command}" in page


def test_the_observer_has_no_truth_but_the_files_are_read(small):
    mock = small.directory / "mock"
    image, weight = (mock / "hst" / f"galaxy_f814w_{kind}.fits" for kind in ("sci", "wht"))
    assert sl.read(image, weight=weight).meta["band"].lower() == "f814w"
    assert sl.read(mock / "muse" / "galaxy_cube.fits").meta["instrument"] == "MUSE"
    assert not [path for folder in ("hst", "muse", "sdss") for path in (mock / folder).rglob("*truth*")]


def test_a_quantity_that_is_off_fails_the_demonstration(small):
    biased = Comparison(
        "ifs", "flux", 5.0, "%", np.full(100, 0.5), Allowed(bias=1.0, mean=0.3, spread=0.2), 100, ""
    )
    assert not biased.passed
    assert comparison_table([biased])["verdict"][0] == "failed"
    result = DemoResult(small.directory, small.results, (*small.rows, biased), small.comparison, small.report)
    assert result.exit_code == ExitCode.CHECK_FAILED == 3


@pytest.mark.parametrize(
    ("bias", "pulls", "passed"),
    [
        (0.5, np.array([-1.0, 1.0, -1.0, 1.0]), True),
        (1.5, np.array([-1.0, 1.0, -1.0, 1.0]), False),
        (0.5, np.array([0.0, 2.0, 0.0, 2.0]), False),
        (0.5, np.array([-3.0, 3.0, -3.0, 3.0]), False),
        (float("nan"), np.array([-1.0, 1.0]), False),
        (0.5, np.zeros(0), False),
    ],
)
def test_verdicts(bias, pulls, passed):
    row = Comparison("store", "flux", bias, "%", pulls, Allowed(1.0, 0.5, 0.5), pulls.size, "")
    assert row.passed is passed


def test_a_folder_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        demo(tmp_path)
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "thesis.tex")])
    assert done.exit_code == 2
    assert "thesis.tex" in done.output
    assert "name a folder" in " ".join(done.output.split())
