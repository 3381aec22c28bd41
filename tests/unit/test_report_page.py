"""A report in a browser and as a file: light when tables are long, sorted by the keyboard, whole without a network."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

import pytest
import yaml
from astropy.table import QTable

from skyloom.recipes.citations import PAPERS, SOFTWARE, citations
from skyloom.recipes.reporting import MOST_INSPECTED, added_steps, inspected, write_checks
from skyloom.recipes.resources import Meter, StepClock
from skyloom.report.html import (
    FIRST_ROWS,
    MOST_ROWS,
    format_bytes,
    format_seconds,
    render_report,
    write_report,
)
from skyloom.report.model import Check, DataTable, Product, ReportFigure, RunReport, Section, StepRecord
from tests.browser import open_browser
from tests.conftest import ROOT
from tests.report_pages import Page, check_page

ROWS = (("b", 2.0), ("a", -1.5), ("d", None), ("c", 10.0), ("e", math.nan))


def a_report(tmp_path, rows=ROWS, **fields):
    from skyloom.report import figures

    png = figures.correlation_maps("c", {"a": None}, dpi=40)
    checks = (
        Check("residual", "a", 0.01, None, 0.05),
        Check("residual", "b", 0.07, None, 0.05, "after matching"),
    )
    table = DataTable(
        "Fluxes", ("band", "flux"), rows, {"flux": "Jy"}, descriptions={"flux": "of the object"}
    )
    products = (*write_checks(checks, tmp_path), tmp_path / "objects" / "a b#1.fits")
    products[-1].parent.mkdir(exist_ok=True)
    products[-1].write_bytes(b"1234")
    given = {
        "sections": (Section("PSF", "", (ReportFigure("correlation", png, step="noise"),), (table,)),),
        "checks": checks,
        "products": tuple(Product(path, "product") for path in products),
        "steps": (StepRecord("noise", 1.5, 2.5, 3e8, 4, 1, "the noise is measured"),),
        "total": StepRecord("whole run", 2.0, 3.0, 4e8),
        "citations": citations([("boucaud2016", "kernels")]),
    }
    return RunReport("a run", "Done.", "recipe: homogenize\n", **{**given, **fields})


# --- the file --------------------------------------------------------------------------------------------------------


def test_checks_of_the_page_are_those_of_the_product(tmp_path):
    page = check_page(write_report(a_report(tmp_path), tmp_path / "report.html"))
    assert [table.source for table in page.tables].count("checks.ecsv") == 1
    table = QTable.read(tmp_path / "checks.ecsv")
    assert table["passed"].tolist() == [True, False]


def test_a_number_that_is_not_the_product_s_is_found(tmp_path):
    path = write_report(a_report(tmp_path), tmp_path / "report.html")
    path.write_text(path.read_text().replace('data-value="0.07"', 'data-value="0.0700001"'))
    with pytest.raises(AssertionError):
        check_page(path)


@pytest.mark.parametrize(
    "reference", ['<img src="https://example.org/a.png">', '<a href="/etc/a">', '<a href="gone.fits">']
)
def test_what_is_not_beside_the_page_is_found(tmp_path, reference):
    path = write_report(a_report(tmp_path), tmp_path / "report.html")
    path.write_text(path.read_text().replace("<main>", f"<main>{reference}"))
    with pytest.raises(AssertionError):
        check_page(path)


def test_links_hold_when_the_folder_is_moved(tmp_path):
    (tmp_path / "run").mkdir()
    write_report(a_report(tmp_path / "run"), tmp_path / "run" / "report.html")
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert 'href="objects/a%20b%231.fits"' in check_page(moved / "report.html").text


def test_a_long_table_stays_light(tmp_path):
    rows = tuple((f"n{number}", float(number)) for number in range(MOST_ROWS + 50))
    page = render_report(a_report(tmp_path, rows), tmp_path, datetime(2026, 11, 21, tzinfo=UTC))
    laid_out = re.sub(r"<template>.*?</template>", "", page, flags=re.DOTALL)
    assert len(re.findall(r"<td>n\d", laid_out)) == FIRST_ROWS
    assert len(re.findall(r"<td>n\d", page)) == MOST_ROWS
    assert f"The first {MOST_ROWS} of {MOST_ROWS + 50} rows" in page


def test_steps_tell_time_memory_and_their_figure(tmp_path):
    path = write_report(a_report(tmp_path), tmp_path / "report.html")
    (steps,) = [table for table in Page(path).tables if len(table.columns) == 8]
    texts = [text for text, _ in steps.rows[0]]
    assert texts == [
        "noise",
        "the noise is measured",
        "4",
        "1.5",
        "2.5",
        "300",
        "1 of 4 an earlier run",
        "correlation",
    ]
    assert [value for _, value in steps.rows[1]][2:6] == ["1", "2.0", "3.0", "400.0"]
    assert 'href="#figure-1">correlation' in path.read_text()


def test_sizes_and_times_are_written_to_be_read():
    assert [format_bytes(size) for size in (0, 999, 1e6, 2.5e9, 3e15)] == [
        "0 B",
        "999 B",
        "1 MB",
        "2.5 GB",
        "3e+03 TB",
    ]
    assert [format_seconds(time) for time in (0.5, 119, 125, 7500)] == [
        "0.5 s",
        "119 s",
        "2 min",
        "2 h 5 min",
    ]


# --- what goes in and what it takes ----------------------------------------------------------------------------------


def test_inputs_are_told_as_inspect_sees_them(tmp_path):
    from astropy.io import fits

    good, broken = tmp_path / "good.fits", tmp_path / "broken.fits"
    header = fits.Header({"BUNIT": "Jy", "TELESCOP": "HST"})
    fits.PrimaryHDU([[1.0, 2.0], [3.0, 4.0]], header).writeto(good)
    broken.write_text("no FITS")
    notes = tmp_path / "stars.ecsv"
    notes.write_text("")
    found = inspected([good, None, good, broken, notes], {str(good): {"band": "f435w"}})
    assert found["input_files"] == 3
    assert found["inputs_note"] == ""
    first, second, third = found["inputs"]
    assert first.facts["what it is"].startswith("image")
    assert first.facts["band"] == "f435w"
    assert "2 x 2" in first.facts["[0] PRIMARY"]
    assert "Jy" in first.facts["[0] PRIMARY"]
    assert second.problems
    assert third.facts == {"what it is": "ecsv file"}


def test_of_very_many_inputs_the_rest_is_counted(tmp_path):
    found = inspected([tmp_path / f"{number}.fits" for number in range(500)])
    assert len(found["inputs"]) == MOST_INSPECTED
    assert found["input_files"] == 500
    assert found["inputs_note"] == f"476 more files are not shown: 476 in {tmp_path}."


def test_large_files_are_told_by_their_headers(tmp_path, monkeypatch):
    from astropy.io import fits

    from skyloom.recipes import reporting

    path = tmp_path / "a.fits"
    fits.PrimaryHDU([[1.0, 2.0]]).writeto(path)
    monkeypatch.setattr(reporting, "READ_WHOLE", 1)
    (summary,) = inspected([path])["inputs"]
    assert "values" not in summary.facts["[0] PRIMARY"]
    assert summary.facts["values"] == "not looked at: the file is large"


def test_a_meter_tells_the_peak_of_its_step():
    import numpy as np

    size = 60_000_000
    with Meter() as before:
        pass
    with Meter() as meter:
        block = np.ones(size // 8)
        del block
    assert before.memory > 1e6
    # Memory that was free before is taken first, so a part of the block need not show.
    assert meter.memory >= before.memory
    assert meter.wall > 0
    with Meter() as held:
        block = np.ones(size // 8)
    with Meter() as after:
        assert block[0] == 1
    assert after.memory > 0.8 * size
    assert held.memory >= 0.8 * size


def test_steps_of_objects_are_added_up():
    one = (StepRecord("a", 1.0, 2.0, 5.0), StepRecord("b", 1.0, 1.0))
    two = (StepRecord("a", 3.0, 1.0, 4.0, kept=1),)
    first, second = added_steps([one, two], {"a": "what a does"})
    assert (first.wall, first.cpu, first.memory, first.items, first.kept) == (4.0, 3.0, 5.0, 2, 1)
    assert first.text == "what a does"
    assert first.origin == "1 of 2 an earlier run"
    assert math.isnan(second.memory)


def test_a_clock_counts_a_step_once_however_often_it_is_entered():
    clock = StepClock()
    for name in ("sky", "grid", "sky"):
        with clock.step(name):
            pass
    assert [step.name for step in clock.records()] == ["sky", "grid"]


# --- how to cite -----------------------------------------------------------------------------------------------------


def test_skyloom_is_cited_as_its_citation_file_says():
    given = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert SOFTWARE["title"] == given["title"]
    assert SOFTWARE["author"] == given["authors"][0]["name"]
    assert SOFTWARE["year"] == str(given["date-released"])[:4]
    from skyloom._version import __version__

    assert given["version"] == __version__


def test_papers_have_all_that_bibtex_needs():
    dois = [paper.doi for paper in PAPERS.values()]
    assert len(set(dois)) == len(dois)
    for key, paper in PAPERS.items():
        cited = paper.cite(key, "a method")
        assert re.fullmatch(r"10\.\d{4,9}/\S+", cited.doi)
        assert key.endswith(str(paper.year))
        assert cited.bibtex.startswith(f"@article{{{key},")
        assert cited.bibtex.count("{") == cited.bibtex.count("}")
    assert [item.used_for for item in citations([("boucaud2016", "kernels")])][:2] == ["this run", "kernels"]


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A report with a long table in Chromium, and the addresses that it asked for."""
    folder = tmp_path_factory.mktemp("page")
    rows = (*ROWS, *((f"n{number:03d}", 100.0 + number) for number in range(400)))
    path = write_report(a_report(folder, rows), folder / "report.html")
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        yield page, asked, path


def shown(page, column):
    return page.eval_on_selector_all(
        f"table:has(th[data-column=flux]) tbody tr td:nth-child({column})",
        "cells => cells.map(c => c.textContent)",
    )


def test_nothing_is_fetched(opened):
    page, asked, path = opened
    assert [address for address in asked if not address.startswith("data:")] == [path.as_uri()]
    assert page.evaluate("document.images[0].naturalWidth") > 0


def test_nothing_is_wider_than_the_screen(opened):
    page, _, _ = opened
    for width in (1280, 380):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1280, "height": 800})


def test_tables_sort_by_mouse_and_keyboard(opened):
    page, _, _ = opened
    heading = page.locator("th[data-column=flux]")
    heading.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert shown(page, 1)[:3] == ["a", "b", "c"]
    heading.focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert shown(page, 1)[:2] == ["n399", "n398"], "rows that were not in sight are sorted, too"
    words = page.locator("th[data-column=band]")
    words.focus()
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") is None
    assert shown(page, 1)[:5] == ["a", "b", "c", "d", "e"]


def test_unknown_values_come_last_both_ways_and_more_rows_are_shown_on_demand(opened):
    page, _, _ = opened
    assert len(shown(page, 1)) == FIRST_ROWS
    for _ in range(2):
        page.locator("button.more").click()
    assert len(shown(page, 1)) == 405
    assert not page.locator("button.more").is_visible()
    for _ in range(2):
        page.locator("th[data-column=flux]").click()
        assert shown(page, 2)[-2:] == ["–", "–"]


def test_bibtex_can_be_copied(opened):
    page, _, _ = opened
    page.locator("#cite summary").click()
    page.locator("#cite button.copy").click()
    assert "@article{boucaud2016" in page.evaluate("getSelection().toString()")
