"""The rows that the benchmarks of the store print, and processes of their own that they measure in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from measure import ChildError, in_process

HERE = Path(__file__).resolve().parent
_missed: list[str] = []


def show(check: str, figure: str, target: str = "", met: bool | None = None) -> None:
    """Print a figure beside its target, and whether it was met."""
    verdict = "" if met is None else "ok" if met else "MISSED"
    if met is False:
        _missed.append(check.strip())
    told = f"target {target}" if target else ""
    print(f"  {check:50s} {figure:48s} {told:32s} {verdict}".rstrip(), flush=True)


def missed() -> list[str]:
    """Return the checks that missed their targets so far."""
    return list(_missed)


def child(script: str, *arguments: Any) -> dict[str, Any]:
    """Run a function of a script beside this one in a fresh process and return what it reports."""
    try:
        return in_process([HERE / script, *arguments])
    except ChildError as error:
        raise SystemExit(str(error)) from error
