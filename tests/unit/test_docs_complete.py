"""The documentation names everything there is, and nothing that there is not."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main

from skyloom.cli import app
from skyloom.recipes.registry import RECIPES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PUBLIC = ("skyloom", "skyloom.imaging", "skyloom.spectral", "skyloom.store", "skyloom.io")
SHOWN = re.compile(r"^\.\. auto(?:module|class|function|data):: ([\w.]+)", re.MULTILINE)
FILE_NAMES = {"lines.masks"}


def _config_keys() -> ModuleType:
    """The module with which the documentation lists the keys of the recipes."""
    spec = importlib.util.spec_from_file_location("config_keys", DOCS / "config_keys.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KEYS = _config_keys()


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------- interface


def documented() -> set[str]:
    """Modules (and objects) that the pages of the interface show."""
    pages = (DOCS / "api").glob("*.md")
    return {name for page in pages for name in SHOWN.findall(page.read_text(encoding="utf-8"))}


def public_names() -> list[tuple[str, str, Any]]:
    found = []
    for package in PUBLIC:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if not inspect.ismodule(value) and not name.startswith("__"):
                found.append((package, name, value))
    return found


def test_every_public_name_is_in_the_interface():
    """A module shows what is defined in it, and what its ``__all__`` names."""
    shown = documented()
    listed = {
        name
        for path in shown
        if path not in PUBLIC
        for name in getattr(importlib.import_module(path), "__all__", ())
    }
    missing = [
        f"{package}.{name}"
        for package, name, value in public_names()
        if getattr(value, "__module__", "") not in shown and name not in listed
    ]
    assert not missing


def test_everything_public_has_a_docstring():
    assert not [name for _, name, value in public_names() if callable(value) and not inspect.getdoc(value)]


def test_references_lead_somewhere():
    """What a page names as ``{py:func}`` exists and is shown in the interface."""
    shown, lost = documented(), []
    for page in DOCS.rglob("*.md"):
        for kind, path in re.findall(r"\{py:(\w+)\}`([\w.]+)`", page.read_text(encoding="utf-8")):
            module, _, name = path.rpartition(".")
            if kind == "mod":
                found = path in shown
            else:
                home = importlib.import_module(module) if module in shown else None
                found = hasattr(home, name)
            if not found:
                lost.append(f"{page.name}: {path}")
    assert not lost


# ---------------------------------------------------------------------------------------------- command line


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    for name, command in group.commands.items():
        if getattr(command, "hidden", False):
            continue
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name))


def test_every_command_is_shown():
    shown = re.findall(r"^skyloom (.*?) --help", text_of("cli.md"), re.MULTILINE)
    assert sorted(commands(typer.main.get_command(app))) == sorted(set(shown) - {"", "store", "templates"})


# --------------------------------------------------------------------------------------------- configuration


def keys_of(recipe: str) -> set[str]:
    return {path.replace("NAME.", "") for path, _ in KEYS.keys_of(KEYS.config_of(recipe))}


def test_every_recipe_is_looked_at():
    assert set(KEYS.CONFIGS) == set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_key_is_explained(recipe):
    """By a description, in a commented configuration, or in the text of the page that shows these."""
    explained = "".join(known.template() for known in RECIPES.values()) + text_of("configuration.md")
    words = set(re.findall(r"\w+", explained))
    fields = KEYS.keys_of(KEYS.config_of(recipe))
    assert not [
        path for path, field in fields if not field.description and path.rpartition(".")[2] not in words
    ]


def test_keys_that_pages_speak_of_are_real():
    """`block.key` in the text of a page is a key of a recipe."""
    known = {path for recipe in RECIPES for path in keys_of(recipe)}
    known |= {path.removeprefix(f"{block}.") for block in ("objects", "bands") for path in known}
    tops = {path for path in known if "." not in path}
    wrong = set()
    for page in DOCS.glob("*.md"):
        for path in re.findall(r"`([a-z_]+\.[a-z_.]+)(?::[^`]*)?`", page.read_text(encoding="utf-8")):
            if path.partition(".")[0] in tops and path not in known | FILE_NAMES:
                wrong.add((page.name, path))
    assert not wrong


# ------------------------------------------------------------------------------------------------------ pages


def test_every_page_is_in_a_table_of_contents():
    listed = re.findall(r"^([a-z_/]+)$", text_of("index.md"), re.MULTILINE)
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    assert pages == {name for name in listed if "/" not in name}
    assert len(listed) == len(set(listed))
