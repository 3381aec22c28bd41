"""The page of the documentation about proof, written from the results of `run.py`.

python benchmarks/proof.py [benchmarks/results.json] [docs/proof.md]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.table import accuracy, seconds  # noqa: E402

Row = dict[str, Any]

INTRODUCTION = """\
# Proof

Whether numbers can be trusted is a matter of measurement. This page is written by `make bench`, which makes input whose
truth is known, measures it, and sets the result beside the truth; and which does the same work with the packages that
others use, in the same run, on the same machine. No figure on it is typed in by hand.
"""

READING = """\
## How to read it

A **pull** is what was measured less the truth, over the error that was claimed. When values are unbiased the pulls
have a mean of 0; when errors are right they have a standard deviation (*sd*) of 1. An sd of 2 means that errors are
too small by a factor of 2: a "3 sigma" detection is then one of 1.5 sigma. An sd of 0.5 means that errors are twice
too large, and real signals are thrown away.

From N independent pulls the mean is known to 1/√N and the sd to 1/√(2N). The columns *allowed* are three times that, so
that chance alone steps over them once in a few hundred rows; where an error is an approximation that
[is documented](numbers.md), or the project has a goal of its own, that is added. *N* counts independent pulls: pixels
that share noise count as fewer.
"""

SPEED = """\
## Beside the peers, in one run

Skyloom and its peers took turns, so that a busy moment of the machine met all alike, and compiled code was loaded
before. *CPU* adds up all threads. *MB* is memory at the peak beyond what the input takes. *CPU of the peer* is the
peer's time over that of Skyloom: above 1 Skyloom is the faster one. Peers do less where a note says so; in particular
most of them carry no covariance, which is why their pulls are far from 1 as soon as pixels are correlated. Times
compare within this page: another machine has others.
"""


def number(value: float, digits: int = 3) -> str:
    """A signed figure."""
    return f"{value:+.{digits}f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: int) -> str:
    """A table of Markdown; the last ``numbers`` columns stand on the right."""
    rule = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def machine_text(results: Row) -> str:
    """Name the machine, the versions and the date."""
    about = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    absent = [name for name in ("ppxf", "vorbin", "powerbin") if name not in about["packages"]]
    told = f"{about['cpu']}, {about['cores']} cores, {about['memory']:.0f} GB of memory, {about['system']}"
    told += f"; load {about['load']:.1f} meanwhile"
    # The run itself is a load of 1.
    busy = about["load"] > about["cores"] + 1
    told += ", too busy for times that count: trust ratios only" if busy else ""
    lines = [
        f"- **Skyloom** {results['version']}, measured on {results['date']} in {results['seconds'] / 60:.0f} minutes",
        f"- **Machine:** {told}",
        f"- **Software:** Python {about['python']}, {packages}",
    ]
    if absent:
        lines.append(f"- **Not installed here,** and therefore not compared: {', '.join(absent)}")
    return "\n".join(lines)


def recovery_text(rows: list[Row]) -> str:
    """The tables of pulls, one for each group."""
    parts = ["## Recovered", summary_of(rows)]
    good = [row for row in rows if "error" not in row]
    for group in dict.fromkeys(row["group"] for row in good):
        own = [row for row in good if row["group"] == group]
        noted = any(row["note"] for row in own)
        header = ["what", *(["note"] if noted else []), "N", "mean", "allowed", "sd", "allowed", "within"]
        lines = [
            (
                row["what"], *([row["note"]] if noted else []), f"{row['n']:.0f}", number(row["mean"]),
                f"±{row['allowed_mean']:.3f}", f"{row['sd']:.3f}", f"1 ±{row['allowed_sd']:.3f}",
                "yes" if row["met"] else "**no**",
            )
            for row in own
        ]  # fmt: skip
        parts += [f"### {group}", table(header, lines, 6)]
    return "\n\n".join(parts)


def summary_of(rows: list[Row]) -> str:
    """Say how many rows there are, and how many are within what is allowed."""
    good = [row for row in rows if "error" not in row]
    met = sum(row["met"] for row in good)
    return f"{met} of {len(good)} rows are within what is allowed; the others are named [below](#proof-not-reached)."


def speed_text(rows: list[Row]) -> str:
    """The table of jobs, each with its peers."""
    rounds = max((row["rounds"] for row in rows if "rounds" in row), default=1)
    often = (
        f"Each row is a median of {rounds} fresh processes." if rounds > 1 else "Each row was measured once."
    )
    parts = [f"{SPEED.strip()} {often}"]
    header = ("who", "accuracy", "CPU", "wall", "MB", "CPU of the peer")
    for job in dict.fromkeys(row["job"] for row in rows):
        own = [row for row in rows if row["job"] == job]
        first = own[0]
        each = f" Times are for one {first['item']}." if first["item"] else ""
        told = f" Accuracy: {first['told']}." if first["told"] else ""
        parts += [
            f"### {job}",
            f"{first['title']}.{each}{told}",
            table(header, [speed_cells(row) for row in own], 4),
        ]
        if first.get("goals"):
            parts.append("; ".join(goal_text(goal) for goal in first["goals"]) + ".")
    return "\n\n".join(parts)


def speed_cells(row: Row) -> tuple[str, ...]:
    """The cells of one contender."""
    who = f"**{row['who']}**" if row["ours"] else row["who"]
    who += f" ({row['note']})" if row["note"] else ""
    if "error" in row:
        return (who, "could not be measured", "", "", "", "")
    each = (seconds(row[name] / row["items"]) for name in ("cpu", "wall"))
    ratio = "" if row["ours"] else f"{row['ratio']:.3g} x" if "ratio" in row else ""
    return (who, accuracy(row), *each, f"{row['peak']:.0f}", ratio)


def goal_text(goal: Row) -> str:
    """A goal of the project and what became of it."""
    return f"Goal {goal['told']}: {'met' if goal['met'] else '**missed**'}"


def missing_text(results: Row) -> str:
    """Everything that is not as it should be, in one list."""
    lines = []
    for row in results["recovery"]:
        if "error" in row:
            lines.append(f"- {row['what']}: could not be checked")
        elif not row["met"]:
            told = f": mean {number(row['mean'])}, sd {row['sd']:.3f}"
            lines.append(f"- {row['group']}, {row['what']}{told}{'; ' + row['note'] if row['note'] else ''}")
    for row in results["rows"]:
        if "error" in row:
            lines.append(f"- {row['job']}, {row['who']}: could not be measured")
        lines += [
            f'- {row["job"]}: the goal "{goal["told"]}" was missed, {found_text(goal, row)}'
            for goal in row.get("goals", ())
            if not goal["met"]
        ]
    slow = [row for row in results["rows"] if row.get("ratio", 1.0) < 1]
    for row in slow:
        note = f" ({row['note']})" if row["note"] else ""
        lines.append(f"- {row['job']}: {row['who']}{note} takes {row['ratio']:.2g} of the CPU of Skyloom")
    body = "\n".join(lines) or "Nothing in this run."
    told = "Rows outside what is allowed, goals that were missed, and peers that are faster."
    return f"(proof-not-reached)=\n\n## What is not reached\n\n{told}\n\n{body}"


def found_text(goal: Row, row: Row) -> str:
    """What was found instead of a goal."""
    if goal["figure"] in ("cpu", "wall"):
        return f"it took {seconds(goal['found'])} of {goal['figure']}" + (
            f" for one {row['item']}" if row["item"] else ""
        )
    return f"{goal['figure'].removesuffix(' %')} is {goal['found']:.3g}"


AGAIN = """\
## Do it again

    make bench

writes this page anew. `python benchmarks/run.py --only fit_lines` measures
one job, and the scripts `benchmarks/bench_*.py` look at single parts more closely, at full size.
"""


def page_text(results: Row) -> str:
    """The whole page."""
    parts = (
        INTRODUCTION, machine_text(results), READING, recovery_text(results["recovery"]), speed_text(results["rows"]),
        missing_text(results), AGAIN,
    )  # fmt: skip
    return "\n\n".join(part.strip() for part in parts) + "\n"


def write_page(results: Row, path: Path) -> None:
    """Write the page."""
    path.write_text(page_text(results), encoding="utf-8")


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:3]]
    source = given[0] if given else ROOT / "benchmarks" / "results.json"
    page = given[1] if len(given) > 1 else ROOT / "docs" / "proof.md"
    write_page(json.loads(source.read_text(encoding="utf-8")), page)
