"""The configuration of the recipe ``homogenize``: many objects in many bands, brought to one PSF and one grid."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from skyloom.recipes.config import FilePath, FilePattern, Settings, merge, nearest
from skyloom.recipes.homogenize.line_model_config import LineMapFiles, LineModelSettings, line_map_files
from skyloom.recipes.patterns import (
    Name,
    NotNegative,
    Positive,
    SkyPosition,
    find_file,
    find_names,
    to_mapping,
    to_pair,
)


def _to_labels(value: Any) -> Any:
    labels = [value] if isinstance(value, str | int) else value
    if not isinstance(labels, list | tuple) or not labels:
        raise ValueError(f"{value!r} is no list of labels")
    for label in labels:
        whole = isinstance(label, int) and not isinstance(label, bool) and label >= 0
        if not whole and label != "centre":
            raise ValueError(f"{label!r} is no label; give whole numbers from 0, or the word centre")
    return labels


Labels = Annotated[tuple[int | str, ...], BeforeValidator(_to_labels)]
WeightKind = Literal["inverse_variance", "variance", "rms", "exposure"]
PsfModel = Literal["sampled", "gaussian", "moffat"]


class ImageSettings(Settings):
    """Where the images of a band are, and what their headers do not say."""

    pattern: FilePattern
    weight: FilePattern | None = None
    weight_kind: WeightKind = "inverse_variance"
    unit: str | None = None
    instrument: str | None = None
    exposure: Positive | None = Field(None, description="seconds")
    gain: Positive | None = Field(None, description="electrons per count")


class StarSettings(Settings):
    """Cut-outs of stars, one file each, from which the PSF of a band is measured."""

    pattern: FilePattern
    names: Annotated[tuple[Name, ...], Field(min_length=1)]
    weight: FilePattern | None = None
    weight_kind: WeightKind = "inverse_variance"
    unit: str | None = None
    size_arcsec: Positive | None = Field(None, description="side of the PSF; default: that of the cut-outs")


class AnalyticPsf(Settings):
    """The profile of a PSF before its integration over pixels."""

    fwhm: Positive | None = Field(None, description="arcsec")
    beta: Positive | None = Field(None, description="of a moffat")
    axis_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    position_angle: float = Field(0.0, description="degrees east of north")

    def _check_profile(self, model: PsfModel) -> None:
        if self.fwhm is None:
            return
        if model == "sampled":
            raise ValueError("a PSF declared by its fwhm needs model: gaussian or model: moffat")
        if model == "moffat" and self.beta is None:
            raise ValueError("a declared moffat needs its beta")


class PsfSettings(AnalyticPsf):
    """The PSF of the input images: measured from stars, declared by a width, or read from a file."""

    stars: StarSettings | None = None
    file: FilePattern | None = Field(None, description="image of the PSF")
    model: PsfModel | None = Field(None, description="default: sampled; gaussian for a declared width")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in _PSF_SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of stars, fwhm or file (got {' and '.join(given) or 'none'})")
        self._check_profile(self.profile)
        return self

    @property
    def profile(self) -> PsfModel:
        """The model to use: as given, or the natural one of the source."""
        return self.model or ("sampled" if self.fwhm is None else "gaussian")


class TargetPsf(AnalyticPsf):
    """A target PSF that is no band's: a width, or the image of a PSF."""

    file: FilePath | None = None
    model: Literal["gaussian", "moffat"] = "gaussian"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.fwhm is None) == (self.file is None):
            raise ValueError("give either fwhm or file")
        self._check_profile(self.model)
        return self


class TargetGrid(Settings):
    """A target grid of square pixels, north up."""

    pixel_scale: Positive = Field(description="arcsec per pixel")
    size_arcsec: Annotated[tuple[Positive, Positive], BeforeValidator(to_pair)] | None = Field(
        None, description="side, or [height, width]; default: what the reference image covers"
    )
    centre: SkyPosition | None = Field(
        None, description="[ra, dec] in degrees; default: of the reference image"
    )


def _block_or_name(value: Any) -> str:
    return "[block]" if isinstance(value, Mapping | Settings) else "[name]"


class TargetSettings(Settings):
    """What all products share."""

    psf: Annotated[
        Annotated[Name, Tag("[name]")] | Annotated[TargetPsf, Tag("[block]")], Discriminator(_block_or_name)
    ] = Field(description="a band, a width, or the image of a PSF")
    grid: Annotated[
        Annotated[Name, Tag("[name]")] | Annotated[TargetGrid, Tag("[block]")], Discriminator(_block_or_name)
    ] = Field(description="a band, or a pixel scale and a centre")
    method: Literal["auto", "bilinear", "lanczos3", "area"] = "auto"


class SegmentationSettings(Settings):
    """The map of labels that tells which pixels belong to an object."""

    pattern: FilePattern
    keep: Labels = Field(
        ("centre",), description="the labels of the object; centre: that of the central pixel"
    )
    dilation_arcsec: NotNegative = 0.2


class MatchingSettings(Settings):
    """How the kernels between PSFs are made."""

    method: Literal["auto", "gaussian", "wiener"] = "auto"
    regularization: Positive | None = None
    coverage: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="least share of a kernel's weight that must fall on usable pixels"
    )


class SkySettings(Settings):
    """How the sky level is found and taken off."""

    method: Literal["constant", "mesh", "value", "file", "none"] = "constant"
    pattern: FilePattern | None = Field(None, description="text file: the level, and its error where known")
    compare: FilePattern | None = Field(None, description="the same, only shown beside the measured level")
    value: float | None = Field(None, description="in the unit of the image")
    value_error: NotNegative | None = None
    grow_arcsec: NotNegative | None = Field(
        None, description="how far sources are grown; default: by the PSF"
    )
    mesh_arcsec: Positive | None = Field(None, description="side of a mesh cell")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.method == "file" and self.pattern is None:
            raise ValueError("method: file needs pattern")
        if self.method == "value" and self.value is None:
            raise ValueError("method: value needs value")
        return self


class NoiseSettings(Settings):
    """What is known of the noise of the input images."""

    correlation: Literal["per_band", "per_image", "none"] = Field(
        "per_band", description="measured on the empty sky of all objects, of each image, or not at all"
    )
    rescale_variance: bool = Field(True, description="scale the variance to the scatter of the empty sky")
    source_poisson: bool = Field(False, description="add the photon noise of sources (gain and exposure)")


class CheckSettings(Settings):
    """Science checks; a product outside one of them makes the run end with exit code 3."""

    kernel_residual: Positive = Field(0.05, description="largest encircled-energy residual of a match")
    lost_flux: Positive = Field(0.05, description="largest estimated share of the flux outside the mask")
    noise_scale: tuple[Positive, Positive] = Field(
        (0.3, 3.0), description="bounds of measured over claimed standard deviation of the empty sky"
    )
    masked_fraction: NotNegative = Field(0.2, description="largest share of unusable pixels in the object")
    line_model: Positive = Field(
        1.1, description="largest residual of a line model left out, over that of its best band alone"
    )


class OutputSettings(Settings):
    """What is written, and where."""

    directory: FilePath = "homogenized"
    contact_sheet: bool = True
    report: bool = True


class BandSettings(Settings):
    """One band. In the file only what differs from the common blocks is written; here all of it stands."""

    images: ImageSettings
    psf: PsfSettings
    sky: SkySettings
    fields: dict[str, Name] = Field(default_factory=dict, description="more {fields} for the patterns")


class ObjectSettings(Settings):
    """One object: what cannot be told from its name."""

    source: Name | None = Field(None, description="the {object} of its files, where that is not its name")
    fields: dict[str, Name] = Field(default_factory=dict)
    labels: Labels | None = Field(None, description="instead of segmentation.keep")
    centre: SkyPosition | None = Field(None, description="[ra, dec] in degrees of its target grid")


_PSF_SOURCES = ("stars", "fwhm", "file")
COMMON_BLOCKS = ("images", "psf", "sky", "fields")


class HomogenizeConfig(Settings):
    """The whole configuration of a run of ``homogenize``.

    In the file the blocks ``images``, ``psf``, ``sky`` and ``fields`` hold what is common to all bands and
    ``bands`` holds what differs; here they have been laid over each other and ``bands`` is complete.
    """

    recipe: Literal["homogenize"] = "homogenize"
    objects: Annotated[
        Annotated[Literal["all"], Tag("[all]")]
        | Annotated[dict[Name, ObjectSettings], BeforeValidator(to_mapping), Tag("[objects]")],
        Discriminator(lambda value: "[all]" if value == "all" else "[objects]"),
    ]
    bands: Annotated[dict[Name, BandSettings], Field(min_length=1)]
    segmentation: SegmentationSettings | None = None
    target: TargetSettings
    matching: MatchingSettings = MatchingSettings()
    line_model: LineModelSettings | None = None
    noise: NoiseSettings = NoiseSettings()
    checks: CheckSettings = CheckSettings()
    output: OutputSettings = OutputSettings()
    workers: Annotated[int, Field(ge=1)] = 1

    extra_keys: ClassVar[tuple[str, ...]] = COMMON_BLOCKS
    galaxy_keys: ClassVar[Mapping[str, str] | None] = {}

    @model_validator(mode="before")
    @classmethod
    def _spread_common_blocks(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        common = {name: values[name] or {} for name in COMMON_BLOCKS if name in values}
        rest = {key: value for key, value in values.items() if key not in COMMON_BLOCKS}
        bands = to_mapping(rest.get("bands"))
        if isinstance(bands, Mapping):
            rest["bands"] = {name: _band_values(common, own) for name, own in bands.items()}
        return rest

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key, value in (("psf", self.target.psf), ("grid", self.target.grid)):
            if isinstance(value, str) and value not in self.bands:
                match = nearest(value, self.bands)
                hint = f"; did you mean {match!r}?" if match else f" ({', '.join(self.bands)})"
                raise ValueError(f"target.{key}: {value!r} is none of the bands{hint}")
        if not self.objects:
            raise ValueError("objects: the list is empty")
        if self.line_model is not None:
            self.line_model.check_bands(self.bands)
        return self

    @classmethod
    def locate(cls, location: list[int | str], values: Mapping[str, Any]) -> list[int | str]:
        """Point to the common block when a band does not say itself what is wrong."""
        if len(location) < 3 or location[0] != "bands" or location[2] not in COMMON_BLOCKS:
            return location
        bands = to_mapping(values["bands"])
        own = next((block for name, block in bands.items() if str(name) == location[1]), None)
        for part in location[2:]:
            own = own.get(part) if isinstance(own, Mapping) else None
        return location[2:] if own is None else location

    @property
    def reference_band(self) -> str:
        """The band whose image defines each object's field: that of the grid, of the PSF, or the first."""
        for value in (self.target.grid, self.target.psf):
            if isinstance(value, str):
                return value
        return next(iter(self.bands))

    def object_names(self) -> tuple[str, ...]:
        """Name the objects of the run; for ``objects: all`` by the files of the reference band.

        Raises
        ------
        ConfigError
            If ``objects: all`` finds no file.
        """
        if self.objects != "all":
            return tuple(self.objects)
        band = self.bands[self.reference_band]
        return find_names(band.images.pattern, _band_fields(self.reference_band, band))

    def object_files(self, name: str) -> ObjectFiles:
        """Find the files of one object.

        Parameters
        ----------
        name : str
            One of :meth:`object_names`.

        Returns
        -------
        ObjectFiles
            With one entry per band, in the order of the configuration. A pattern without wildcards is
            returned whether or not its file is there: the reader says so with more knowledge.

        Raises
        ------
        InputError
            If a pattern names an unknown field, or its wildcards do not find exactly one file.
        """
        own = ObjectSettings() if self.objects == "all" else self.objects[name]
        fields = {"object": own.source or name, **own.fields}
        return ObjectFiles(
            name=name,
            labels=own.labels or (self.segmentation.keep if self.segmentation else ()),
            segmentation=find_file(self.segmentation.pattern, fields) if self.segmentation else None,
            centre=own.centre,
            bands=tuple(_band_files(band, settings, fields) for band, settings in self.bands.items()),
            line_maps=line_map_files(self.line_model, fields),
        )

    def star_files(self, band: str) -> tuple[StarFile, ...]:
        """Find the files of the stars of one band, in the order of their names; none if its PSF is declared.

        Raises
        ------
        InputError
            If a pattern names an unknown field, or its wildcards do not find exactly one file.
        """
        stars = self.bands[band].psf.stars
        if stars is None:
            return ()
        common = _band_fields(band, self.bands[band])
        found = []
        for name in stars.names:
            fields = common | {"star": name}
            weight = None if stars.weight is None else find_file(stars.weight, fields)
            found.append(StarFile(name, find_file(stars.pattern, fields), weight))
        return tuple(found)

    def psf_file(self, band: str) -> Path | None:
        """Find the image of the PSF of one band; None where the PSF is measured or declared.

        Raises
        ------
        InputError
            If the pattern names an unknown field, or its wildcards do not find exactly one file.
        """
        file = self.bands[band].psf.file
        return None if file is None else find_file(file, _band_fields(band, self.bands[band]))


def _band_values(common: Mapping[str, Any], own: Any) -> Any:
    if not isinstance(own, Mapping):
        return own
    own_psf, common_psf = own.get("psf"), common.get("psf")
    if isinstance(own_psf, Mapping) and isinstance(common_psf, Mapping):
        chosen = [name for name in _PSF_SOURCES if own_psf.get(name) is not None]
        if chosen and common_psf.get(chosen[0]) is None:
            # A band that takes its PSF from elsewhere inherits nothing of the common way.
            common = {**common, "psf": {}}
    return merge({"images": {}, "psf": {}, "sky": {}, "fields": {}} | dict(common), own)


@dataclass(frozen=True, slots=True)
class StarFile:
    """The files of one star in one band."""

    name: str
    image: Path
    weight: Path | None


@dataclass(frozen=True, slots=True)
class BandFiles:
    """The files of one object in one band."""

    band: str
    image: Path
    weight: Path | None
    sky: Path | None
    compared_sky: Path | None = None


@dataclass(frozen=True, slots=True)
class ObjectFiles:
    """The files of one object and what its mask is made of."""

    name: str
    labels: tuple[int | str, ...]
    segmentation: Path | None
    centre: tuple[float, float] | None
    bands: tuple[BandFiles, ...]
    line_maps: LineMapFiles = ()


def _band_fields(name: str, band: BandSettings) -> dict[str, str]:
    return {"band": name, "number": "".join(re.findall(r"\d", name)), **band.fields}


def _band_files(name: str, band: BandSettings, fields: Mapping[str, str]) -> BandFiles:
    fields = _band_fields(name, band) | dict(fields)
    images, sky = band.images, band.sky
    use_sky = sky.method == "file" and sky.pattern is not None
    return BandFiles(
        band=name,
        image=find_file(images.pattern, fields),
        weight=None if images.weight is None else find_file(images.weight, fields),
        sky=find_file(str(sky.pattern), fields) if use_sky else None,
        compared_sky=None if sky.compare is None else find_file(sky.compare, fields),
    )
