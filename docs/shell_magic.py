"""A ``%%bash`` for the examples: its output comes in one piece, and a command that fails fails the build."""

from __future__ import annotations

import os
import subprocess

from IPython.core.interactiveshell import InteractiveShell


def bash(_: str, cell: str) -> None:
    """Run the cell; show what it printed."""
    environment = {
        key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "CLICOLOR_FORCE"}
    }
    done = subprocess.run(
        ["bash", "-e", "-c", cell],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=environment | {"NO_COLOR": "1"},
    )
    print(done.stdout, end="")
    done.check_returncode()


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Take the place of IPython's own ``%%bash``."""
    shell.register_magic_function(bash, "cell")
