"""The blocks of an ``ifs`` configuration that say how continua and lines are fitted, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from skyloom.core.linelist import LineList, Medium
from skyloom.errors import SkyloomError
from skyloom.io.templates.sets import TEMPLATE_SETS
from skyloom.recipes.config import FilePattern, Settings
from skyloom.recipes.ifs.values import Range, check_line
from skyloom.recipes.patterns import NotNegative, Positive
from skyloom.spectral.lines.groups import PRESETS, lines_named

__all__ = ["ContinuumSettings", "LineFitSettings", "MapSettings"]

BACKENDS = ("builtin", "ppxf", "starlight", "none")
Degree = Annotated[int, Field(ge=-1, le=30)]


def _name_or_path(text: str, info: ValidationInfo) -> str:
    """A known set by its name; anything else is a path, relative to the configuration."""
    if text in TEMPLATE_SETS:
        return text
    path = Path(text).expanduser()
    base = (info.context or {}).get("base")
    return str(path if base is None else Path(base) / path)


def _ordered(value: Range) -> Range:
    if not value[0] <= value[1]:
        raise ValueError(f"{list(value)} is no range; give [from, to]")
    return value


Limits = Annotated[Range, AfterValidator(_ordered)]


class ContinuumSettings(Settings):
    """How the light of stars is fitted; see `skyloom.spectral.stellar.fit.fit_continuum`."""

    backend: Literal["builtin", "ppxf", "starlight", "none"] | None = Field(
        None,
        description="default: builtin where templates are given, none (local polynomials only) where not",
    )
    templates: Annotated[str, Field(min_length=1), AfterValidator(_name_or_path)] | None = Field(
        None, description="an installed set, or a file or folder"
    )
    templates_folder: FilePattern | None = Field(None, description="of the spectra of a base list")
    templates_medium: Medium | None = Field(None, description="where the files do not say it")
    templates_fwhm: NotNegative | None = Field(None, description="A, where the files do not say it")
    results: FilePattern | None = Field(None, description="starlight: folder of its results")
    attenuation: str | None = "calzetti00"
    additive_degree: Degree = -1
    multiplicative_degree: Annotated[int, Field(ge=0, le=30)] = 0
    emission: Literal["mask", "fit"] = "mask"
    half_width: NotNegative = Field(400.0, description="km/s either side of a line that are left out")
    wave_range: Limits | None = Field(None, description="rest A that are fitted; default: all")
    velocity_range: Positive = Field(500.0, description="km/s")
    sigma_start: Positive = Field(120.0, description="km/s")
    sigma_range: Limits = Field((0.0, 600.0), description="km/s; equal limits hold the dispersion")
    av_range: Limits = Field((0.0, 4.0), description="mag")
    clip: NotNegative = Field(4.0, description="standard deviations; 0: none")
    least_snr: NotNegative = Field(1.5, description="per channel; below, kinematics are held")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.chosen in ("builtin", "ppxf") and self.templates is None:
            raise ValueError(
                f"backend: {self.chosen} needs templates, a file or one of {', '.join(TEMPLATE_SETS)}"
            )
        if self.chosen == "starlight" and self.results is None:
            raise ValueError("backend: starlight needs results, the folder that STARLIGHT has written to")
        if self.chosen == "ppxf" and self.emission == "fit":
            raise ValueError("emission: fit is known to the back end builtin only")
        return self

    @property
    def chosen(self) -> str:
        """The back end that is used."""
        return self.backend or ("none" if self.templates is None else "builtin")


def _check_list(value: Any) -> Any:
    """``default``, a preset, a file beside the configuration (told later), or keys."""
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("the list of lines is empty")
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{key!r} is no key of the line list; lines of your own go into a file")
            check_line(key)
        return tuple(value)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no list of lines; give default, a preset, a file, or keys")
    return value


def _list_file(value: str | tuple[str, ...], info: ValidationInfo) -> str | tuple[str, ...]:
    if not isinstance(value, str) or value == "default" or value in PRESETS:
        return value
    base = (info.context or {}).get("base")
    path = Path(value).expanduser() if base is None else Path(base) / Path(value).expanduser()
    if path.is_file():
        try:
            read_line_list(path)
        except SkyloomError as error:
            raise ValueError(str(error)) from error
        return str(path)
    if path.suffix or "/" in value:
        raise ValueError(f"{path}: there is no such file with a list of lines")
    try:
        check_line(value)
    except ValueError as error:
        raise ValueError(f"{error}; presets are default, {', '.join(PRESETS)}") from error
    return (value,)


def read_line_list(path: Path) -> LineList:
    """Read a user's list of lines; see `skyloom.core.linelist.LineList.from_text`."""
    return LineList.from_text(path.read_text(encoding="utf-8"), str(path))


class LineFitSettings(Settings):
    """How lines are fitted; see `skyloom.spectral.lines.linefit.fit_lines`."""

    list: Annotated[str | tuple[str, ...], BeforeValidator(_check_list), AfterValidator(_list_file)] = Field(
        "default", description="default, a preset, a file, or keys"
    )
    components: Literal[1, 2, 3, "bic"] = Field(
        1, description="kinematic components, or as many as BIC asks for"
    )
    groups: Literal["default", "shared"] | dict[str, str] | None = Field(
        None,
        description="who shares kinematics: default (of the list), shared (all emission), or {key: group}",
    )
    intervals: Literal["covariance", "profile", "montecarlo"] = "covariance"
    broad: bool | tuple[Annotated[str, AfterValidator(check_line)], ...] = Field(
        False, description="a broad component where BIC asks for it: of the usual lines, or of these"
    )
    broad_sigma_range: Limits = Field((200.0, 2000.0), description="km/s")
    window: Positive = Field(1500.0, description="km/s either side of a line that are fitted")
    degree: Annotated[int, Field(ge=0, le=5)] = Field(1, description="of the local polynomials")
    velocity_range: Positive = Field(600.0, description="km/s")
    sigma_range: Limits = Field((-40.0, 500.0), description="km/s; below zero: how far noise may carry it")
    kinematics_snr: NotNegative = Field(4.0, description="groups below borrow the strongest one's kinematics")
    sky: Literal["narrow", "all", "none"] = Field(
        "narrow", description="which sky_residuals are left out: those of single lines, all, or none"
    )

    def lines(self) -> LineList:
        """Return the lines that are meant."""
        if isinstance(self.list, str) and self.list != "default" and self.list not in PRESETS:
            return read_line_list(Path(self.list))
        return lines_named(self.list)


class MapSettings(Settings):
    """What fluxes in maps of fitted lines are given per, and how the maps are laid out."""

    per: Literal["bin", "spaxel_area", "arcsec2"] = "spaxel_area"
    layout: Literal["skyloom", "betis"] = Field("skyloom", description="betis: that one too, NAME_betis.fits")
