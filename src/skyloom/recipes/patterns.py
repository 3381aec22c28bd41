"""What configurations of all recipes share: names, pairs, and files that are found by patterns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from skyloom.errors import ConfigError, InputError
from skyloom.recipes.config import nearest

__all__ = [
    "Name",
    "NotNegative",
    "Positive",
    "SkyPosition",
    "fill_pattern",
    "find_file",
    "find_names",
    "to_mapping",
    "to_pair",
    "to_text",
]


def to_text(value: Any) -> Any:
    """Take a number for a name."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def to_pair(value: Any) -> Any:
    """Take one value for two that are equal."""
    return (value, value) if isinstance(value, str | int | float) else value


def to_mapping(value: Any) -> Any:
    """Accept a name, or a list of names, for a mapping whose blocks are all empty."""
    value = [value] if isinstance(value, str | int) else value
    if isinstance(value, list | tuple):
        names = [to_text(item) for item in value]
        double = sorted({str(name) for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"named twice: {', '.join(double)}")
        return {name: {} for name in names}
    if isinstance(value, Mapping):
        return {to_text(key): {} if item is None else item for key, item in value.items()}
    return value


Name = Annotated[str, BeforeValidator(to_text), Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
SkyPosition = tuple[float, Annotated[float, Field(ge=-90, le=90)]]


def fill_pattern(pattern: str, fields: Mapping[str, str]) -> str:
    """Put the values of the fields into a pattern.

    Raises
    ------
    ConfigError
        If the pattern names a field that is not known, or its braces do not match.
    """
    try:
        return pattern.format_map(fields)
    except KeyError as error:
        match = nearest(str(error.args[0]), fields)
        hint = f"did you mean {{{match}}}?" if match else f"known are {', '.join(fields)}"
        raise ConfigError(f"unknown field {{{error.args[0]}}}; {hint}", field=pattern) from error
    except (ValueError, IndexError, AttributeError) as error:
        raise ConfigError(f"not a pattern: {error}", field=pattern) from error


def find_file(pattern: str, fields: Mapping[str, str]) -> Path:
    """Fill a pattern and look up its wildcards, which must find exactly one file.

    Raises
    ------
    InputError
        If the pattern names an unknown field, or its wildcards find no file or several.
    """
    filled = fill_pattern(pattern, fields)
    if not _WILDCARD.search(filled):
        return Path(filled)
    found = list(_glob(filled))
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found[:4]) + (", ..." if len(found) > 4 else "")
    raise InputError(
        f"finds {len(found)} files ({names})" if found else "finds no file",
        source=filled,
        remedy="a pattern must find exactly one",
    )


def find_names(pattern: str, fields: Mapping[str, str]) -> tuple[str, ...]:
    """Tell for which objects a file is there, in natural order: 3, 15, 912.

    Parameters
    ----------
    pattern : str
        With ``{object}`` in it.
    fields : mapping
        Of all other fields.

    Raises
    ------
    ConfigError
        If no file matches, or the pattern names an unknown field.
    """
    filled = fill_pattern(pattern, {**fields, "object": "\0"})
    expression = re.escape(filled).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    expression = expression.replace("\0", "(?P<object>[^/]+)", 1).replace("\0", "(?P=object)")
    matches = (re.fullmatch(expression, str(path)) for path in _glob(filled.replace("\0", "*")))
    names = {match["object"] for match in matches if match and "object" in match.groupdict()}
    if not names:
        raise ConfigError(f"no file matches {pattern}", field="objects: all")
    return tuple(sorted(names, key=_natural_order))


_WILDCARD = re.compile(r"[*?]")


def _glob(pattern: str) -> Iterator[Path]:
    parts = Path(pattern).parts
    fixed = next((index for index, part in enumerate(parts) if _WILDCARD.search(part)), len(parts) - 1)
    yield from sorted(Path(*parts[:fixed]).glob(str(Path(*parts[fixed:]))))


def _natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort 3, 15, 912 as numbers and words as words."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part
    ]
