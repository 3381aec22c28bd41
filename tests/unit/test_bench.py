"""The benchmarks: what they measure, the table, the page; and each job at its smallest size, so that none decays."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time

import numpy as np
import pytest
from benchmarks import run
from benchmarks.jobs import Contender, Goal, Job, Task, all_jobs, job_named
from benchmarks.measure import ChildError, best_cpu, in_process, machine, run_code, used
from benchmarks.proof import page_text, write_page
from benchmarks.pulls import box_labels, image_pulls, plain_pulls, pull_figures, whole_boxes
from benchmarks.runner import perform, run_job
from benchmarks.table import figure, seconds, text_table
from benchmarks.truth import all_checks, recovered

from skyloom.core.image import Image
from skyloom.mock.scenes.images import sky_wcs

SCRIPTS = sorted(path.stem for path in (run.ROOT / "benchmarks").glob("bench_*.py"))
WHOLE = {"homogenize", "ifs", "halpha"}
"""Recipes from end to end, mocks included."""
PAIRS = [
    pytest.param(
        job.name,
        one.name,
        id=f"{job.name} - {one.name}",
        marks=[pytest.mark.slow, pytest.mark.long] if job.name in WHOLE else [],
    )
    for job in all_jobs()
    for one in job.contenders
]


def spin(size):
    """A contender that takes as long as its size says."""
    return Task(
        lambda: sum(range(size["steps"])),
        lambda found: {"pull sd": 1.02, "bias %": found * 0.0},
        size["steps"],
    )


JOB = Job(
    "spin",
    "add up {steps} numbers",
    {"steps": 20_000},
    {"steps": 10},
    Contender("Skyloom", spin, note="all of them"),
    (Contender("peer | other", spin), Contender("absent", spin, module="no_such_module_here")),
    item="number",
    accuracy="nothing",
    goals=(
        Goal("cpu", 0, 10.0, "10 s"),
        Goal("pull sd", 0.99, 1.01, "sd within 1 %"),
        Goal("height", 0, 1, "none"),
    ),
)


def told(cpu, items=2.0):
    return {"cpu": cpu, "wall": 2 * cpu, "peak": 3.0, "items": items, "accuracy": {"pull sd": 1.02}}


def results(rows=None):
    recovery = [
        recovered("Group", "good", np.random.default_rng(1).normal(size=400)).row(),
        recovered("Group", "bad", np.full(100, 2.0), note="why").row(),
        {"group": "broken", "what": "broken", "error": "ended with 1"},
    ]
    rows = rows or run_job(
        JOB, rounds=1, do=lambda _job, one, _size: told(1.0 if one.name == "Skyloom" else 0.5)
    )
    about = {"version": "1.2.3", "date": "2026-01-01", "seconds": 600.0, "machine": machine()}
    return {**about, "rows": rows, "recovery": recovery}


@pytest.mark.parametrize(("job", "contender"), PAIRS)
def test_every_job_runs_at_its_smallest_size(job, contender):
    found = job_named(job)
    row = perform(found.contender(contender), found.tiny, None, seconds=0.0)
    assert row["cpu"] >= 0
    assert row["wall"] > 0
    assert row["items"] > 0
    json.dumps(row)
    assert found.title.format(**found.quick) != found.title.format(**found.tiny) or "{" not in found.title


def test_names_are_told_apart():
    names = [job.name for job in all_jobs()]
    assert len(names) == len(set(names))
    for job in all_jobs():
        assert len({one.name for one in (job.ours, *job.peers)}) == 1 + len(job.peers)
    assert not set(names) & set(all_checks())


def test_medians_ratios_and_goals():
    taken = iter([1.0, 4.0, 3.0, 2.0, 2.0, 9.0])
    ours, peer = run_job(JOB, rounds=3, do=lambda *_: told(next(taken)))
    assert ours["cpu"] == 2.0
    assert peer["cpu"] == 4.0
    assert peer["ratio"] == pytest.approx(2.0)
    assert ours["least ratio"] == pytest.approx(2.0)
    assert ours["title"] == "add up 20000 numbers"
    met = {goal["told"]: goal["met"] for goal in ours["goals"]}
    assert met == {"10 s": True, "sd within 1 %": False}


def test_a_contender_that_fails_is_told_and_does_not_stop_the_others():
    def do(_job, one, _size):
        if one.name != "Skyloom":
            raise ChildError("Traceback\nValueError: no")
        return told(1.0)

    ours, peer = run_job(JOB, rounds=2, do=do)
    assert ours["rounds"] == 2
    assert peer["error"].endswith("ValueError: no")
    assert "failed" in text_table([ours, peer])
    assert "could not be measured" in page_text(results([ours, peer]))


def test_work_is_timed_and_its_memory_is_found():
    usage, made = used(lambda: np.ones(300_000_000, np.uint8))
    assert made.size == 300_000_000
    assert 0 < usage.wall < 10
    assert usage.peak > 15
    usage, _ = used(lambda: time.sleep(0.05))
    assert usage.cpu < usage.wall
    assert best_cpu(lambda: sum(range(1000)), 2) >= 0


def test_processes_of_their_own():
    assert run_code("import json, sys; print('noise'); print(json.dumps({'x': sys.argv[1]}))", 7) == {
        "x": "7"
    }
    with pytest.raises(ChildError, match="gone"):
        in_process(["-c", "raise SystemExit('gone')"])
    with pytest.raises(ChildError, match="not finished"):
        in_process(["-c", "import time; time.sleep(30)"], timeout=0.2)


def test_the_table_is_one_and_complete():
    lines = text_table(results()["rows"]).splitlines()
    assert lines[0].split()[:5] == ["job", "who", "CPU", "wall", "MB"]
    assert any(line.startswith("# add up 20000 numbers, times for each number") for line in lines)
    assert any("sd within 1 %: MISSED" in line for line in lines)
    assert seconds(0.00123) == "1.23 ms"
    assert seconds(0.0) == "0 us"
    assert figure("bias %", -1.2345) == "bias -1.23 %"
    assert figure("bins", 2057.0) == "bins 2057"
    assert figure("largest error", 3.1e-7) == "largest error 3.1e-07"


def test_the_page_tells_what_is_not_reached(tmp_path):
    write_page(results(), tmp_path / "proof.md")
    page = (tmp_path / "proof.md").read_text(encoding="utf-8")
    assert page.startswith("# Proof\n")
    missing = page.split("## What is not reached")[1]
    assert "- Group, bad: mean +2.000, sd 0.000; why" in missing
    assert 'the goal "sd within 1 %" was missed, pull sd is 1.02' in missing
    assert "takes 0.5 of the CPU of Skyloom" in missing
    assert "broken: could not be checked" in missing
    assert "1 of 2 rows" in page
    assert "Skyloom** 1.2.3" in page
    assert "peer \\| other" in page
    # Every table has as many cells in each line as in its header.
    blocks = [block for block in page.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 2
    for block in blocks:
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1


def test_pulls_allow_what_chance_does():
    good = recovered("g", "w", np.random.default_rng(3).normal(size=10_000))
    assert good.row()["met"]
    assert good.allowed_mean == pytest.approx(0.03)
    assert not recovered("g", "w", 1.1 * np.random.default_rng(3).normal(size=10_000)).row()["met"]
    assert recovered("g", "w", np.ones(10_000), each=100.0).n == 100
    assert pull_figures([np.nan, 1.0]) == {}


def test_boxes_and_their_pulls():
    labels = box_labels((20, 30), 4, gap=1, margin=2)
    assert labels.max() + 1 == 3 * 5
    assert np.bincount(labels[labels >= 0]).tolist() == [16] * 15
    bad = np.zeros(labels.shape, bool)
    bad[3, 3] = True
    assert whole_boxes(labels, bad).max() + 1 == 14
    noise = np.random.default_rng(4).normal(size=(200, 200)).astype(np.float32)
    image = Image(noise + 3, np.ones_like(noise), None, "electron/s", sky_wcs((10, 0), noise.shape, 0.1))
    pulls = image_pulls(image, 3, 3.0)
    np.testing.assert_allclose(
        pulls, plain_pulls(noise + 3, np.ones_like(noise), 3, 3.0), rtol=1e-4, atol=1e-4
    )
    assert pulls.std() == pytest.approx(1, abs=3 / np.sqrt(2 * pulls.size))


def test_the_command_line_reads_what_it_is_asked(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "all_jobs", lambda: iter([JOB]))
    monkeypatch.setattr(run, "run_job", lambda job, **_: run_job(job, rounds=1, do=lambda *_: told(1.0)))
    monkeypatch.setattr(run, "run_checks", lambda *_, **__: results()["recovery"][:2])
    page, kept = tmp_path / "proof.md", tmp_path / "results.json"
    assert run.main(["--page", str(page), "--results", str(kept)]) == 0
    assert "add up 20000 numbers" in capsys.readouterr().out
    assert json.loads(kept.read_text(encoding="utf-8"))["rows"][0]["job"] == "spin"
    assert "## Recovered" in page.read_text(encoding="utf-8")
    before = page.stat().st_mtime_ns
    assert run.main(["--only", "spin", "--results", str(kept)]) == 0
    assert page.stat().st_mtime_ns == before, "a part of it does not overwrite the page"


def test_the_detailed_scripts_still_find_what_they_import(monkeypatch):
    """They are run by hand; a function that was renamed must not wait for that."""
    monkeypatch.setattr(sys, "path", [str(run.ROOT / "benchmarks"), *sys.path])
    assert len(SCRIPTS) > 20
    for name in SCRIPTS:
        if name == "bench_sky" and importlib.util.find_spec("sep") is None:
            continue  # comes with the extra "bench"
        assert callable(importlib.import_module(name).main), name
