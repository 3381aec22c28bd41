"""The one table of `make bench`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

HEADER = ("job", "who", "CPU", "wall", "MB", "x CPU", "accuracy", "goal")
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def seconds(value: float) -> str:
    """Three figures with a unit that suits: 1.24 s, 37.1 ms."""
    factor, unit = next(((f, u) for f, u in UNITS if value >= f), UNITS[-1])
    return f"{value / factor:.3g} {unit}"


def figure(name: str, value: float) -> str:
    """A figure of accuracy with as many digits as it can bear."""
    if math.isnan(value):
        return f"{name} -"
    if name.endswith(("mean", "pull")) or "offset" in name:
        return f"{name} {value:+.2f}"
    if name.endswith("%"):
        return f"{name.removesuffix(' %')} {value:+.2f} %"
    if abs(value) >= 10 or value == 0:
        return f"{name} {value:.0f}"
    return f"{name} {value:.3f}" if abs(value) >= 1e-3 else f"{name} {value:.1e}"


def accuracy(row: dict[str, Any]) -> str:
    """All figures of accuracy of a row."""
    return ", ".join(figure(name, value) for name, value in row["accuracy"].items())


def goals(row: dict[str, Any]) -> str:
    """What the project wants, and whether it is so."""
    return "; ".join(f"{goal['told']}: {'met' if goal['met'] else 'MISSED'}" for goal in row.get("goals", ()))


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a row, as text."""
    name = row["job"] if row["ours"] else ""
    who = row["who"] + (f" ({row['note']})" if row["note"] else "")
    if "error" in row:
        return (name, who, "failed", "", "", "", row["error"].splitlines()[-1], "")
    ratio = f"{row['ratio']:.3g}" if "ratio" in row else "1"
    each = row["cpu"] / row["items"], row["wall"] / row["items"]
    return (
        name, who, *map(seconds, each), f"{row['peak']:.0f}", ratio, accuracy(row), goals(row),
    )  # fmt: skip


def aligned(lines: Iterable[tuple[str, ...]]) -> str:
    """Set cells in columns; the last ones may be as long as they like."""
    lines = list(lines)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def text_table(rows: list[dict[str, Any]]) -> str:
    """The table for a terminal: a line for each contender, the job's title above them."""
    body = aligned([HEADER, *(cells(row) for row in rows)]).splitlines()
    lines = [body[0], "-" * len(body[0])]
    for row, line in zip(rows, body[1:], strict=True):
        if row["ours"]:
            each = f", times for each {row['item']}" if row["item"] else ""
            lines.append(f"# {row['title']}{each}")
        lines.append(line)
    return "\n".join(lines)
