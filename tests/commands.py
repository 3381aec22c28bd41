"""The command line, in this process or in one of its own: what the tests of whole runs share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from typer.testing import CliRunner

from skyloom.cli import app

__all__ = ["command", "half_written", "run_here", "run_process"]


def run_here(*arguments: object) -> SimpleNamespace:
    """Call ``skyloom`` in this process, which has imported and loaded everything once."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return SimpleNamespace(returncode=done.exit_code, stdout=done.stdout, stderr=done.stderr)


def command(*arguments: object) -> list[str]:
    """The words that start ``skyloom`` in a process of its own."""
    return [sys.executable, "-m", "skyloom.cli", *map(str, arguments)]


def run_process(*arguments: object, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Call ``skyloom`` in a process of its own, as a user does."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout)


def half_written(folder: Path) -> list[str]:
    """Files of a run that are rubbish: temporary names are hidden."""
    return [path.name for path in folder.rglob(".*") if path.is_file()]
