"""The command line: `commands` holds those for files and recipes, `store` those of a store."""

from skyloom.cli.commands import app, main

__all__ = ["app", "main"]
