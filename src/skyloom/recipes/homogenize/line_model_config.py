"""The block ``line_model`` of the recipe ``homogenize``: line maps to be predicted from the matched bands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from skyloom.recipes.config import FilePattern, Settings, nearest
from skyloom.recipes.patterns import Name, Positive, find_file

__all__ = ["LineMapFiles", "LineModelSettings", "LinePsf", "line_map_files"]

LineMapFiles = tuple[tuple[Path, Path], ...]
"""Pairs of a line map and its errors."""


def _to_list(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


Patterns = Annotated[tuple[FilePattern, ...], BeforeValidator(_to_list), Field(min_length=1)]


class LinePsf(Settings):
    """The PSF of the line maps, where it is known."""

    fwhm: Positive = Field(description="arcsec")


class LineModelSettings(Settings):
    """Line maps of another instrument, and how they are predicted from the bands."""

    maps: Patterns = Field(description="one, or several to be added up, such as the lines of a doublet")
    errors: Patterns = Field(description="standard deviations, one for each of the maps")
    unit: str | None = Field(None, description="instead of that of the header")
    bands: Annotated[tuple[Name, ...], BeforeValidator(_to_list), Field(min_length=1)] | None = Field(
        None, description="to choose from; default: all"
    )
    oversample: Annotated[int, Field(ge=1, le=20)] = 4
    psf: Annotated[
        Annotated[Literal["fit"], Tag("[word]")] | Annotated[LinePsf, Tag("[block]")],
        Discriminator(lambda value: "[block]" if isinstance(value, Mapping | Settings) else "[word]"),
    ] = "fit"
    shift: Literal["fit", "none"] = "fit"
    offset: Literal["none", "fit"] = "none"
    max_bands: Annotated[int, Field(ge=1)] = 3

    @model_validator(mode="after")
    def _one_error_each(self) -> Self:
        if len(self.maps) != len(self.errors):
            raise ValueError(f"{len(self.maps)} maps but {len(self.errors)} errors; give one for each")
        return self

    def check_bands(self, known: Iterable[str]) -> None:
        """Raise ValueError unless all bands of the model are among ``known``."""
        names = list(known)
        for name in self.bands or ():
            if name not in names:
                match = nearest(name, names)
                hint = f"; did you mean {match!r}?" if match else f" ({', '.join(names)})"
                raise ValueError(f"line_model.bands: {name!r} is none of the bands{hint}")


def line_map_files(settings: LineModelSettings | None, fields: Mapping[str, str]) -> LineMapFiles:
    """Find the line maps of one object and their errors.

    Raises
    ------
    InputError
        If a pattern names an unknown field, or its wildcards do not find exactly one file.
    """
    if settings is None:
        return ()
    pairs = zip(settings.maps, settings.errors, strict=True)
    return tuple((find_file(plane, fields), find_file(error, fields)) for plane, error in pairs)
