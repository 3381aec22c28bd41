"""Runs the jobs: every contender in fresh processes, in turn, so that a busy moment of the machine hits all alike."""

from __future__ import annotations

import statistics
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.jobs import Contender, Goal, Job
from benchmarks.measure import ROOT, ChildError, in_process, repeated

TIMEOUT = 300.0
Row = dict[str, Any]


def perform(
    contender: Contender, size: Mapping[str, Any], tiny: Mapping[str, Any] | None, *, seconds: float = 0.6
) -> Row:
    """Do the job in this process, for so many seconds when it is short.

    With ``tiny`` it is done a first time in small, which loads what is compiled.
    """
    with warnings.catch_warnings():
        # What is assumed about mock input is the tests' business; a warning for each call would be timed, too.
        warnings.simplefilter("ignore")
        if tiny is not None:
            contender.prepare(tiny).call()
        task = contender.prepare(size)
        usage, result = repeated(task.call, seconds=seconds)
        accuracy = {name: float(value) for name, value in task.judge(result).items()}
    return {**usage._asdict(), "items": float(task.items), "accuracy": accuracy}


def measured(job: Job, contender: Contender, size: str) -> Row:
    """Do it in a fresh process."""
    return in_process(
        [ROOT / "benchmarks" / "child.py", job.module, job.name, contender.name, size], timeout=TIMEOUT
    )


def summary(found: list[Row]) -> Row:
    """Medians of several processes; what came out is the same in all of them."""
    middle = {key: statistics.median(row[key] for row in found) for key in ("cpu", "wall", "peak")}
    return middle | {"items": found[0]["items"], "accuracy": found[0]["accuracy"], "rounds": len(found)}


def judged(goal: Goal, row: Row) -> Row | None:
    """Set a figure beside its goal; None where there is no such figure."""
    figures = {key: row[key] / row["items"] for key in ("cpu", "wall")}
    figures |= {"ratio": row.get("least ratio"), **row["accuracy"]}
    value = figures.get(goal.figure)
    if value is None:
        return None
    found = {"figure": goal.figure, "told": goal.told, "found": value}
    return found | {"met": bool(goal.low <= value <= goal.high)}


def run_job(
    job: Job, *, size: str = "quick", rounds: int | None = None, do: Callable[..., Row] = measured
) -> list[Row]:
    """Measure a job; one row for each contender, Skyloom first."""
    contenders = job.contenders
    found: dict[str, list[Row]] = {one.name: [] for one in contenders}
    errors: dict[str, str] = {}
    for _ in range(rounds or job.rounds):
        for one in contenders:
            if one.name in errors:
                continue
            try:
                found[one.name].append(do(job, one, size))
            except ChildError as error:
                errors[one.name] = str(error)
    rows = []
    for one in contenders:
        row: Row = {"job": job.name, "who": one.name, "note": one.note, "ours": one is job.ours}
        row |= {"title": job.title.format(**getattr(job, size)), "item": job.item, "told": job.accuracy}
        row |= {"error": errors[one.name]} if one.name in errors else summary(found[one.name])
        rows.append(row)
    compare(rows, job.goals)
    return rows


def compare(rows: list[Row], goals: tuple[Goal, ...]) -> None:
    """Write into each row how many times the time and memory of Skyloom it takes, and what became of the goals."""
    ours = rows[0]
    ours["goals"] = []
    if "error" in ours:
        return
    for row in rows[1:]:
        if "error" in row:
            continue
        row["ratio"] = (row["cpu"] / row["items"]) / max(ours["cpu"] / ours["items"], 1e-12)
        row["wall ratio"] = (row["wall"] / row["items"]) / max(ours["wall"] / ours["items"], 1e-12)
    ratios = [row["ratio"] for row in rows[1:] if "ratio" in row]
    if ratios:
        ours["least ratio"] = min(ratios)
    ours["goals"] = [item for item in (judged(goal, ours) for goal in goals) if item]


def say(text: str) -> None:
    """Tell how far it is, beside the table."""
    print(text, file=sys.stderr, flush=True)
