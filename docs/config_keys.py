"""Every key of a recipe's configuration as a table, made from the models that check it."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Iterator

from IPython.display import Markdown
from pydantic import BaseModel
from pydantic.fields import FieldInfo

CONFIGS = {
    "homogenize": ("skyloom.recipes.homogenize.config", "HomogenizeConfig"),
    "ifs": ("skyloom.recipes.ifs.config", "IfsConfig"),
    "halpha": ("skyloom.recipes.halpha.config", "HalphaConfig"),
    "store": ("skyloom.recipes.store.config", "StoreConfig"),
}


def config_of(recipe: str) -> type[BaseModel]:
    """Return the model of a recipe's configuration."""
    module, name = CONFIGS[recipe]
    return typing.cast("type[BaseModel]", getattr(importlib.import_module(module), name))


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """Find the blocks that a value may be."""
    if inspect.isclass(annotation) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for part in typing.get_args(annotation):
        yield from models_in(part)


def is_named(annotation: object) -> bool:
    """Tell whether blocks stand under names of the user's, as objects and bands do."""
    return typing.get_origin(annotation) is dict or any(
        is_named(part) for part in typing.get_args(annotation)
    )


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the path of every key, and what is known of it."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        yield path, field
        inner = "NAME." if is_named(field.annotation) else ""
        for block in models_in(field.annotation):
            yield from keys_of(block, f"{path}.{inner}")


def key_table(recipe: str) -> Markdown:
    """Show the keys of a recipe with their defaults and meanings."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for path, field in keys_of(config_of(recipe)):
        default = "needed" if field.is_required() else _text(field.get_default(call_default_factory=True))
        rows.append(f"| `{path}` | {default} | {(field.description or '').replace('|', '/')} |")
    return Markdown("\n".join(rows))


def _text(value: object) -> str:
    if isinstance(value, BaseModel) or value == {}:
        return ""
    if value is None or value is True or value is False:
        return {None: "`none`", True: "`true`", False: "`false`"}[value]
    if isinstance(value, tuple):
        value = [list(part) if isinstance(part, tuple) else part for part in value]
    return f"`{value}`"
