"""Values that a configuration of ``ifs`` may hold: lines, widths, ranges, memory; and what is said of others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from skyloom.core.linelist import default_lines
from skyloom.recipes.config import Settings, nearest


def check_line(value: Any) -> Any:
    """A key of the line list, or a rest wavelength."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is no line; give a key such as Halpha, or a rest wavelength in A")
    if isinstance(value, int | float):
        if not value > 0:
            raise ValueError(f"{value!r} is no wavelength")
        return float(value)
    keys = default_lines().keys
    if value not in keys:
        match = nearest(value, [key.lower() for key in keys])
        known = {key.lower(): key for key in keys}
        hint = f"did you mean {known[match]!r}?" if match else f"known are {', '.join(keys)}"
        raise ValueError(f"{value!r} is not in the line list; {hint}")
    return value


def to_lines(value: Any) -> Any:
    """One line, or several that are added."""
    lines = value if isinstance(value, list | tuple) else [value]
    if not lines:
        raise ValueError("the list of lines is empty")
    return tuple(check_line(line) for line in lines)


_WIDTH = re.compile(r"\s*(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?)\s*(?:A|AA|Angstrom|px|km/s)\s*")


def _check_width(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:g} A"
    match = _WIDTH.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is no width; give A, px or km/s, such as 300 km/s")
    if not float(match["number"]) > 0:
        raise ValueError(f"{value!r} is no positive width")
    return value


def _check_ranges(value: Any) -> Any:
    if isinstance(value, list | tuple):
        for item in value:
            pair = isinstance(item, list | tuple) and len(item) == 2
            if not pair or not all(isinstance(end, int | float) for end in item) or not item[0] < item[1]:
                raise ValueError(f"{item!r} is no range; give [from, to] in A")
    return value


BYTES = {"MB": 1e6, "GB": 1e9, "TB": 1e12, "MiB": 2.0**20, "GiB": 2.0**30}


def check_memory(value: Any) -> Any:
    """An amount of memory with its unit, or auto."""
    if value == "auto":
        return value
    match = re.fullmatch(r"\s*([0-9.]+)\s*(\w+)\s*", str(value))
    if match is None or match[2] not in BYTES or match[1].count(".") > 1 or not float(match[1]) > 0:
        raise ValueError(f"{value!r} is no amount of memory; give auto, or such as 2 GB")
    return f"{match[1]} {match[2]}"


def name_or_block(value: Any) -> str:
    """Tell which form of a value was meant, so that only its problems are told."""
    return "[block]" if isinstance(value, Mapping | Settings) else "[name]"


def pair_or_windows(value: Any) -> str:
    """Tell two distances from a list of windows."""
    inner = value[0] if isinstance(value, list | tuple) and value else None
    return "[windows]" if isinstance(inner, list | tuple) else "[pair]"


def _file_or_name(text: str, info: ValidationInfo) -> str:
    """A file beside the configuration by its whole path; anything else stays a name."""
    base = (info.context or {}).get("base")
    path = Path(text).expanduser() if base is None else Path(base) / Path(text).expanduser()
    return str(path) if path.is_file() else text


Line = str | float
FileOrName = Annotated[str, Field(min_length=1), AfterValidator(_file_or_name)]
Lines = Annotated[tuple[Line, ...], BeforeValidator(to_lines)]
Width = Annotated[str, BeforeValidator(_check_width)]
Range = tuple[float, float]
Ranges = Annotated[tuple[Range, ...], BeforeValidator(_check_ranges)]
Redshift = Annotated[float, Field(gt=-0.1, lt=20.0)]
ErrorKind = Literal["variance", "sigma", "inverse_variance"]
WeightKind = Literal["variance", "rms", "inverse_variance"]
