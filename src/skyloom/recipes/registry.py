"""Which recipes there are; nothing heavy is imported before one is asked for."""

from __future__ import annotations

import importlib
import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skyloom.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from skyloom.recipes.config import Settings
    from skyloom.recipes.result import RunResult


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe: its configuration model and the function that runs it."""

    name: str
    summary: str
    config: str
    function: str

    def load_config(
        self, path: str | Path, overrides: Iterable[str] = (), *, galaxies: str | Path | None = None
    ) -> Settings:
        """Read and check a configuration of this recipe; a table of galaxies names its objects."""
        from skyloom.recipes.config import load_config

        return load_config(path, _load(self.config), overrides, galaxies=galaxies)

    def load_function(self) -> Callable[..., RunResult]:
        """Import the function that runs this recipe."""
        function: Callable[..., RunResult] = _load(self.function)
        return function

    def template(self) -> str:
        """Read the commented configuration that ``skyloom init`` writes."""
        folder = importlib.resources.files("skyloom.recipes") / "templates"
        return (folder / f"{self.name}.yaml").read_text(encoding="utf-8")


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="homogenize",
            summary="images of many bands: same PSF, same pixels, masks, no sky, errors with their correlation",
            config="skyloom.recipes.homogenize.config:HomogenizeConfig",
            function="skyloom.recipes.homogenize.run:homogenize",
        ),
        Recipe(
            name="ifs",
            summary="integral-field cubes: bins of equal S/N, their spectra, stellar continua, emission lines, maps",
            config="skyloom.recipes.ifs.config:IfsConfig",
            function="skyloom.recipes.ifs.run:ifs",
        ),
        Recipe(
            name="halpha",
            summary="HST narrow band less its continuum, anchored to MUSE: Halpha maps at the resolution of HST",
            config="skyloom.recipes.halpha.config:HalphaConfig",
            function="skyloom.recipes.halpha.run:halpha",
        ),
        Recipe(
            name="store",
            summary="images, spectra and cubes in one store: every resolution with errors, found by place and time",
            config="skyloom.recipes.store.config:StoreConfig",
            function="skyloom.recipes.store.run:store",
        ),
    )
}


def _load(reference: str):  # type: ignore[no-untyped-def]  # whatever the name stands for
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)


def recipe_named(name: str) -> Recipe:
    """Find a recipe by its name.

    Raises
    ------
    ConfigError
        If there is none of that name; the nearest one is suggested.
    """
    import difflib

    if name in RECIPES:
        return RECIPES[name]
    match = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"did you mean {match[0]!r}?" if match else f"known are {', '.join(RECIPES)}"
    raise ConfigError(f"no recipe {name!r}", remedy=hint)


def recipe_of(path: str | Path) -> Recipe:
    """Tell which recipe a configuration file is for, from its key ``recipe``.

    Raises
    ------
    ConfigError
        If the file cannot be read, or names no known recipe.
    """
    from skyloom.recipes.config import read_values

    values, _ = read_values(path)
    if "recipe" not in values:
        remedy = f"begin it with 'recipe: {next(iter(RECIPES))}'"
        raise ConfigError("the key is missing", source=str(path), field="recipe", remedy=remedy)
    try:
        return recipe_named(str(values["recipe"]))
    except ConfigError as error:
        raise error.located(path) from error
