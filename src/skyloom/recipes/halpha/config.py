"""The configuration of the recipe ``halpha``: HST narrow-band images less their continuum, anchored to MUSE."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    model_validator,
)

from skyloom.core.linelist import default_lines
from skyloom.recipes.config import FilePath, FilePattern, Settings
from skyloom.recipes.ifs.fit_config import ContinuumSettings
from skyloom.recipes.ifs.values import Redshift, check_line, name_or_block
from skyloom.recipes.patterns import Name, NotNegative, Positive, find_file, to_mapping

__all__ = ["HalphaConfig", "MuseSettings", "ObjectFiles"]

WeightKind = Literal["inverse_variance", "variance", "rms", "exposure"]
LineKey = Annotated[str, AfterValidator(check_line)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Bounds = tuple[float, float]


def _ordered(value: Bounds) -> Bounds:
    if not value[0] < value[1]:
        raise ValueError(f"{list(value)} are no bounds; give [least, largest]")
    return value


Range = Annotated[Bounds, AfterValidator(_ordered)]


def _curve(text: str, info: ValidationInfo) -> str:
    """A file beside the configuration by its whole path; the name of a curve in a package stays a name."""
    path = Path(text).expanduser()
    base = (info.context or {}).get("base")
    if base is None or not (path.suffix or "/" in text):
        return text
    return str(Path(base) / path)


def _none_to_null(value: Any) -> Any:
    """The word none means the same as an empty value."""
    return None if value == "none" else value


def _method_or_block(value: Any) -> Any:
    """A method alone stands for a block that holds nothing else."""
    return {"method": value} if isinstance(value, str) else value


# --- HST ------------------------------------------------------------------------------------------------------------


class ImageSettings(Settings):
    """Where the HST images are, and what their headers do not say."""

    pattern: FilePattern
    weight: FilePattern | None = Field(None, description="default: an extension of the same file")
    weight_kind: WeightKind = "inverse_variance"
    unit: str | None = Field(None, description="instead of BUNIT")
    instrument: str | None = None
    exposure: Positive | None = Field(None, description="seconds, instead of EXPTIME")
    gain: Positive | None = Field(None, description="electrons per count")
    psf_fwhm: Positive = Field(0.08, description="arcsec; tells stars from cosmic rays")


class ErrorSettings(Settings):
    """What is known of the noise of the HST images."""

    correlation: Literal["measured", "none"] = Field(
        "measured", description="between pixels, measured where the image is faintest; or none"
    )
    rescale_variance: bool = Field(True, description="scale the variance to the scatter measured there")
    source_poisson: bool = Field(True, description="add the photon noise of sources (exposure)")


class BandSettings(Settings):
    """One band: its throughput, and what the header does not say of its calibration."""

    filter: Annotated[str, Field(min_length=1), AfterValidator(_curve)] | None = Field(
        None, description="file of the curve, or its name in a package"
    )
    photflam: Positive | None = Field(None, description="erg/s/cm2/A of one e/s, instead of PHOTFLAM")
    pivot: Positive | None = Field(None, description="A, instead of PHOTPLAM")
    pattern: FilePattern | None = Field(None, description="instead of images.pattern")
    weight: FilePattern | None = Field(None, description="instead of images.weight")


class NarrowSettings(BandSettings):
    """The narrow band, which holds the line."""

    band: Name


# --- MUSE -----------------------------------------------------------------------------------------------------------


class LineFiles(Settings):
    """Maps of fitted lines, in extensions of one file."""

    file: FilePattern
    extensions: dict[LineKey, Name] = Field(
        default_factory=dict,
        description="line: extension; default: the names of PHANGS-MUSE or of this program",
    )
    unit: str | None = Field(None, description="of the fluxes per pixel, instead of BUNIT")

    @model_validator(mode="before")
    @classmethod
    def _lines_beside_the_file(cls, values: Any) -> Any:
        """Take ``{file: ..., Halpha: HA6562_FLUX}``, where lines stand among the keys."""
        if not isinstance(values, Mapping):
            return values
        known = {key: value for key, value in values.items() if key in cls.model_fields}
        lines = {key: value for key, value in values.items() if key in default_lines().keys}
        other = {key: value for key, value in values.items() if key not in known and key not in lines}
        if lines:
            known["extensions"] = {**(known.get("extensions") or {}), **lines}
        return known | other


class PsfSettings(Settings):
    """A PSF of MUSE that is known."""

    fwhm: Positive = Field(description="arcsec")
    beta: Positive | None = Field(None, description="of a moffat; without it the PSF is a Gaussian")


class MuseSettings(Settings):
    """What MUSE saw: band images and line maps, or a cube that they are made from."""

    cube: FilePattern | None = None
    bands: FilePattern | None = Field(None, description="images of the bands; {band} is filled in")
    lines: (
        Annotated[
            Annotated[Literal["fit"], Tag("[name]")] | Annotated[LineFiles, Tag("[block]")],
            Discriminator(name_or_block),
        ]
        | None
    ) = Field(None, description="file of line maps; or fit: fitted to the spaxels of the cube")
    continuum: ContinuumSettings = Field(
        ContinuumSettings(), description="lines: fit; templates and how they are fitted, as in ifs"
    )
    psf: Annotated[
        Annotated[Literal["fit"], Tag("[name]")] | Annotated[PsfSettings, Tag("[block]")],
        Discriminator(name_or_block),
    ] = Field("fit", description="kernel fitted that makes HST look like MUSE; or {fwhm, beta}")
    model: Literal["gaussian", "moffat"] = Field("moffat", description="of the kernel that is fitted")
    milky_way_corrected: bool = Field(
        False, description="bands and lines come without the dust of the Milky Way: a_v concerns HST only"
    )
    minimum_coverage: Fraction = Field(0.5, description="least share of a band that the cube must cover")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.cube is None and self.bands is None:
            raise ValueError("give cube, or bands (images of MUSE in the bands of HST)")
        if self.lines is None:
            raise ValueError("give lines: the file of line maps, or fit (which needs cube)")
        if self.lines == "fit" and self.cube is None:
            raise ValueError("lines: fit needs cube")
        return self


# --- steps ----------------------------------------------------------------------------------------------------------


class CosmicRaySettings(Settings):
    """How cosmic rays are found; see `skyloom.imaging.repair.cosmic_rays.remove_cosmic_rays`."""

    method: Literal["astroscrappy", "none"] = "astroscrappy"
    threshold: Positive = Field(4.0, description="significance of the edges of a ray")


class StarSettings(Settings):
    """Stars, which are left out of all fits and masked in the products."""

    catalogue: FilePattern | None = Field(None, description="table with ra, dec and radius")
    mask: FilePattern | None = Field(None, description="image whose pixels above 0 are stars, or .reg")
    detect: bool = Field(False, description="find point sources and what is saturated")
    saturation: Literal["auto"] | Positive | None = Field(
        None, description="level in the unit of the narrow image; auto: that of its plateau"
    )


class RegistrationSettings(Settings):
    """Where HST lies relative to MUSE."""

    method: Literal["measure", "none"] = "measure"
    model: Literal["shift", "shift+rotation"] = "shift"
    apply: bool = Field(True, description="shift HST onto MUSE; else only say how far off it is")
    max_shift_arcsec: Positive = 2.0


class BackgroundSettings(Settings):
    """How the sky of HST is found where MUSE does not set it."""

    method: Literal["auto", "constant", "mesh", "none"] = Field(
        "auto", description="auto: by MUSE where bands are anchored, else constant"
    )
    mesh_arcsec: Positive | None = None


class SubtractionSettings(Settings):
    """How the continuum below the line is made of the broad bands."""

    interpolation: Literal["linear", "log"] = "linear"
    contamination: tuple[LineKey, ...] | Literal["auto", "none"] = Field(
        "auto", description="lines taken out of the broad bands: auto, none, or keys"
    )
    extrapolate: bool = Field(False, description="allow a narrow band outside of the two continua")
    nii_ratio: NotNegative = Field(0.3, description="[NII]6583 over Halpha, where MUSE does not tell")


class AnchorSettings(Settings):
    """How HST is tied to MUSE."""

    method: Literal["fit", "ratio", "difference", "none"] = Field(
        "fit", description="what _anchored is made by: of fits, or pixel by pixel"
    )
    bands: bool = Field(True, description="offset and slope of each band")
    band_method: Literal["errors_in_both", "binned"] = "errors_in_both"
    line: bool = Field(True, description="offset and slope of the line, and stellar absorption")
    absorption: Literal["auto", "constant", "none"] | Annotated[int, Field(ge=0, le=6)] = Field(
        "auto", description="how it varies in the field: auto, constant, none, or degree of a polynomial"
    )
    nii: Literal["muse"] | NotNegative = Field("muse", description="[NII]6583 over Halpha, map or number")
    max_modes: Annotated[int, Field(ge=1, le=20)] = Field(6, description="shared errors kept as maps")


class NegativeSettings(Settings):
    """Which negative pixels of `_anchored_intnegs` are replaced by what lies around them."""

    thresholds: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=2)] = Field(
        (3.0, 5.0), description="of the scatter: beyond the second, and beyond the first where these touch"
    )
    kernel_arcsec: Positive | None = Field(None, description="sigma; default: 1.5 pixels")


class NoiseSettings(Settings):
    """White noise that is added to `_anchored_wnoise`."""

    sigma: Positive = Field(description="in the unit of _anchored")
    seed: Annotated[int, Field(ge=0)] = 0


class NebulaSettings(Settings):
    """Nebulae that are compared one by one."""

    labels: FilePattern
    catalogue: FilePattern | None = None


class CheckSettings(Settings):
    """Science checks; a product outside one of them makes the run end with exit code 3."""

    anchor_slope: Range = Field((0.8, 1.25), description="of each band and of the line, HST over MUSE")
    kernel_correlation: Fraction = Field(0.9, description="least correlation of matched HST with MUSE")
    kernel_fwhm: Range = Field((0.2, 3.0), description="arcsec")
    shift_error: Positive = Field(0.1, description="arcsec; largest error of the registration")
    shift: Positive = Field(1.5, description="arcsec; largest shift")
    sky_offset: Positive = Field(2.0, description="largest offset of a band, share of its median light")
    nebula_ratio: Range = Field((0.9, 1.1), description="median of HST over MUSE, nebulae")
    faint_ratio: Range = Field((0.8, 1.2), description="the same of the faintest third of the nebulae")
    nebula_pulls: Range = Field((0.4, 2.0), description="scatter of (HST - MUSE) / error of nebulae")
    empty_scatter: Range = Field((0.7, 1.4), description="scatter over claimed error in empty regions")
    final_slope: Range = Field((0.9, 1.1), description="Halpha of HST, as it came out, against MUSE")
    large_scale_power: Range = Field((0.8, 1.25), description="HST over MUSE beyond 3 FWHM of MUSE")
    negative_fraction: Positive = Field(0.05, description="largest share of replaced negative pixels")


class OutputSettings(Settings):
    """What is written, and where."""

    directory: FilePath = "halpha"
    modes: bool = Field(True, description="maps of the shared errors; a plane each")
    figures: bool = True
    report: bool = True


class ObjectSettings(Settings):
    """One object: what files do not say."""

    redshift: Redshift | None = None
    distance_mpc: Positive | None = Field(None, description="for luminosity and star-formation rate")
    a_v: NotNegative = Field(0.0, description="extinction of the Milky Way in V, mag")
    source: Name | None = Field(None, description="the {object} of its files, where that is not its name")
    fields: dict[str, Name] = Field(default_factory=dict, description="more {fields} for the patterns")


class HalphaConfig(Settings):
    """The whole configuration of a run of ``halpha``."""

    recipe: Literal["halpha"] = "halpha"
    objects: Annotated[dict[Name, ObjectSettings], BeforeValidator(to_mapping)]
    redshift: Redshift | None = Field(None, description="of objects that have none of their own")
    images: ImageSettings
    noise: ErrorSettings = ErrorSettings()
    narrow: NarrowSettings
    continua: Annotated[
        dict[Name, BandSettings], BeforeValidator(to_mapping), Field(min_length=1, max_length=2)
    ]
    muse: Annotated[MuseSettings | None, BeforeValidator(_none_to_null)] = None
    cosmic_rays: Annotated[CosmicRaySettings, BeforeValidator(_method_or_block)] = CosmicRaySettings()
    stars: Annotated[StarSettings | None, BeforeValidator(_none_to_null)] = None
    registration: Annotated[RegistrationSettings, BeforeValidator(_method_or_block)] = RegistrationSettings()
    background: Annotated[BackgroundSettings, BeforeValidator(_method_or_block)] = BackgroundSettings()
    continuum: SubtractionSettings = SubtractionSettings()
    anchor: Annotated[AnchorSettings, BeforeValidator(_method_or_block)] = AnchorSettings()
    negatives: NegativeSettings = NegativeSettings()
    white_noise: Annotated[NoiseSettings | None, BeforeValidator(_none_to_null)] = None
    nebulae: Annotated[NebulaSettings | None, BeforeValidator(_none_to_null)] = None
    checks: CheckSettings = CheckSettings()
    output: OutputSettings = OutputSettings()
    workers: Annotated[int, Field(ge=1)] = 1

    galaxy_keys: ClassVar[Mapping[str, str] | None] = {"redshift": "redshift", "a_v": "a_v"}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.objects:
            raise ValueError("objects: the list is empty")
        if self.narrow.band in self.continua:
            raise ValueError(f"continua: {self.narrow.band!r} is the narrow band")
        without = [name for name in self.objects if self.redshift_of(name) is None]
        if without:
            raise ValueError(
                f"objects: the redshift of {', '.join(without[:4])} is missing; give objects.{without[0]}.redshift"
            )
        return self

    @property
    def bands(self) -> dict[str, BandSettings]:
        """All bands, the narrow one first."""
        return {self.narrow.band: self.narrow, **self.continua}

    def redshift_of(self, name: str) -> float | None:
        """Return the redshift of an object: its own, or the common one."""
        own = self.objects[name].redshift
        return self.redshift if own is None else own

    def object_names(self) -> tuple[str, ...]:
        """Name the objects of the run."""
        return tuple(self.objects)

    def only(self, name: str) -> HalphaConfig:
        """Return the configuration of a run of one object, as its products carry it."""
        return self.model_copy(update={"objects": {name: self.objects[name]}})

    def object_files(self, name: str) -> ObjectFiles:
        """Find the files of one object.

        Raises
        ------
        InputError
            If a pattern names an unknown field, or its wildcards do not find exactly one file.
        """
        own = self.objects[name]
        fields = {"object": own.source or name, "galaxy": own.source or name, **own.fields}
        muse, stars, nebulae = self.muse, self.stars, self.nebulae
        lines = None if muse is None or not isinstance(muse.lines, LineFiles) else muse.lines.file
        return ObjectFiles(
            name=name,
            bands=tuple(self._band_files(band, fields) for band in self.bands),
            cube=_found(muse.cube if muse else None, fields),
            muse_bands={band: find_file(muse.bands, _band_fields(band, fields)) for band in self.bands}
            if muse is not None and muse.bands is not None
            else {},
            lines=_found(lines, fields),
            star_catalogue=_found(stars.catalogue if stars else None, fields),
            star_mask=_found(stars.mask if stars else None, fields),
            labels=_found(nebulae.labels if nebulae else None, fields),
            catalogue=_found(nebulae.catalogue if nebulae else None, fields),
        )

    def _band_files(self, band: str, fields: Mapping[str, str]) -> BandFiles:
        own, fields = self.bands[band], _band_fields(band, fields)
        pattern, weight = own.pattern or self.images.pattern, own.weight or self.images.weight
        return BandFiles(band, find_file(pattern, fields), _found(weight, fields))


def _band_fields(band: str, fields: Mapping[str, str]) -> dict[str, str]:
    return {"band": band, "number": "".join(re.findall(r"\d", band)), **fields}


def _found(pattern: str | None, fields: Mapping[str, str]) -> Path | None:
    return None if pattern is None else find_file(pattern, fields)


@dataclass(frozen=True, slots=True)
class BandFiles:
    """The files of one object in one band."""

    band: str
    image: Path
    weight: Path | None


@dataclass(frozen=True, slots=True)
class ObjectFiles:
    """The files of one object; None for what the configuration does not name."""

    name: str
    bands: tuple[BandFiles, ...]
    cube: Path | None
    muse_bands: dict[str, Path]
    lines: Path | None
    star_catalogue: Path | None
    star_mask: Path | None
    labels: Path | None
    catalogue: Path | None

    @property
    def hst(self) -> tuple[Path, ...]:
        """The files of HST."""
        return tuple(path for item in self.bands for path in (item.image, item.weight) if path is not None)

    @property
    def muse(self) -> tuple[Path, ...]:
        """The files of MUSE."""
        return tuple(path for path in (self.cube, self.lines, *self.muse_bands.values()) if path is not None)
