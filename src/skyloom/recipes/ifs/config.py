"""The configuration of the recipe ``ifs``: integral-field cubes to maps, bins and spectra."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from skyloom.errors import InputError
from skyloom.io.cubes.layout import GenericLayout
from skyloom.recipes.config import FilePath, FilePattern, Settings, merge
from skyloom.recipes.ifs.fit_config import ContinuumSettings, LineFitSettings, MapSettings
from skyloom.recipes.ifs.values import (
    BYTES,
    ErrorKind,
    FileOrName,
    Line,
    Lines,
    Range,
    Ranges,
    Redshift,
    WeightKind,
    Width,
    check_line,
    check_memory,
    name_or_block,
    pair_or_windows,
)
from skyloom.recipes.patterns import (
    Name,
    NotNegative,
    Positive,
    SkyPosition,
    find_file,
    find_names,
    to_mapping,
)
from skyloom.spectral.noise.sky_residuals import SKY_RESIDUALS


class LayoutSettings(Settings):
    """Where things are in a cube of an instrument that Skyloom does not know; what is left out is looked for."""

    name: str = "generic"
    data: str | int | None = Field(None, description="extension of the fluxes, name or number")
    error: str | int | None = Field(None, description="extension of the errors")
    error_kind: ErrorKind | None = None
    error_floor: Positive | None = Field(None, description="standard deviations from here on mean bad voxels")
    mask: str | int | None = Field(None, description="extension of the mask")
    bad_bits: int | None = Field(None, description="bits of the mask that make a voxel unusable, or")
    good_value: float | None = Field(None, description="the value that makes it usable; default: 0")
    unit: str | None = Field(None, description="of the fluxes, instead of BUNIT")
    medium: Literal["air", "vacuum"] | None = None
    wave: str | int | None = Field(None, description="extension of the wavelengths")
    wave_start: Positive | None = Field(None, description="first wavelength, with")
    wave_step: Positive | None = None
    wave_sampling: Literal["linear", "log", "log10"] = "linear"
    wave_unit: str | None = None
    lsf: Positive | str | None = Field(None, description="line-spread function, number or extension")
    lsf_kind: Literal["sigma", "fwhm", "resolution"] = "sigma"
    psf_fwhm: Positive | None = Field(None, description="arcsec")

    def layout(self) -> GenericLayout:
        """Return the same for the reader."""
        return GenericLayout.from_mapping(self.model_dump(exclude_none=True))

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.layout()
        return self


class CubeSettings(Settings):
    """Where the cubes are, and what their headers do not say."""

    pattern: FilePattern
    weight: FilePattern | None = Field(None, description="file of the errors, where they are not in the same")
    weight_kind: WeightKind | None = Field(None, description="what it holds")
    instrument: Annotated[
        Annotated[Name, Tag("[name]")] | Annotated[LayoutSettings, Tag("[block]")],
        Discriminator(name_or_block),
    ] = "auto"
    milky_way_corrected: bool | None = Field(
        None, description="whether extinction has been taken off already"
    )

    @model_validator(mode="after")
    def _kind_is_said(self) -> Self:
        if self.weight is not None and self.weight_kind is None:
            raise ValueError("weight needs weight_kind: variance, rms or inverse_variance")
        return self


class NoiseBlur(Settings):
    """A Gaussian that white noise has been smoothed with."""

    sigma: Positive = Field(description="in spaxels")


class NoiseSettings(Settings):
    """What is known of the noise of the cubes."""

    errors: Literal["measured", "file"] = Field(
        "measured", description="scale the errors of the file to the scatter in line-free channels, or not"
    )
    spatial_correlation: Annotated[
        Annotated[Literal["measured", "file", "none"], Tag("[name]")] | Annotated[NoiseBlur, Tag("[block]")],
        Discriminator(name_or_block),
    ] = "measured"
    spectral_correlation: Literal["measured", "file", "none"] = "measured"
    line_free: Ranges | None = Field(None, description="observed A; default: off lines and sky residuals")
    line_margin: Positive = Field(500.0, description="km/s either side of a line that is not line-free")


class SnrSettings(Settings):
    """Which light the bins are made for, and how its signal and noise are measured."""

    line: Lines = Field(("Halpha",), description="key or rest wavelength; several are added")
    also: Lines | None = Field(None, description="lines that get maps too")
    method: Literal["window", "matched", "peak", "continuum"] = "window"
    half_width: Width | None = None
    continuum: (
        Annotated[
            Annotated[tuple[Width, Width], Tag("[pair]")] | Annotated[Ranges, Tag("[windows]")],
            Discriminator(pair_or_windows),
        ]
        | None
    ) = Field(None, description="from and to, either side of the line, or windows in rest A")
    continuum_window: Range | None = Field(None, description="rest A; a map of the S/N per channel in it")
    velocity: Literal["first_pass", "none"] | FilePattern | None = Field(
        None, description="first_pass, or a map in km/s; default: first_pass for matched"
    )
    velocity_line: Annotated[Line, BeforeValidator(check_line)] | None = Field(
        None, description="the line of the first pass; default: the first of 'line'"
    )
    max_velocity: Positive = Field(400.0, description="km/s that the first pass looks at")
    sigma: Positive | None = Field(None, description="km/s, of the line (matched)")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.method == "continuum" and self.continuum_window is None:
            raise ValueError("method: continuum needs continuum_window")
        if self.method == "matched" and self.velocity == "none":
            raise ValueError("method: matched needs a velocity: first_pass, or the file of a map")
        return self

    @property
    def velocity_source(self) -> str:
        """Where the velocities come from: ``first_pass``, ``none``, or the pattern of a file."""
        if self.velocity is not None:
            return self.velocity
        return "first_pass" if self.method == "matched" else "none"


class RadiusSettings(Settings):
    """Rings along the ellipse of a galaxy."""

    width: Positive | None = Field(None, description="arcsec along the major axis")
    edges: tuple[NotNegative, ...] | None = Field(None, description="arcsec, instead of width")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.width is None) == (self.edges is None):
            raise ValueError("give either width or edges")
        if self.edges is not None and (len(self.edges) < 2 or list(self.edges) != sorted(set(self.edges))):
            raise ValueError(f"{list(self.edges)} are no edges; give two or more, ascending")
        return self


class RegionSettings(Settings):
    """How HII regions are found in the map of the line; see `skyloom.spectral.find_regions`."""

    threshold: Positive = Field(5.0, description="significance of the peak of a region")
    growth: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="down to this share of its peak")
    limit: NotNegative = Field(2.0, description="and not below this significance")
    prominence: NotNegative = Field(4.0, description="of a peak above the saddle to the next, in its noise")
    contrast: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="the same, as a share of the peak")
    minimum_area: Positive | None = Field(None, description="arcsec2; default: that of the PSF")
    smoothing: NotNegative | None = Field(None, description="sigma in spaxels; default: that of the PSF")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.limit > self.threshold:
            raise ValueError(f"limit {self.limit:g} is above threshold {self.threshold:g}")
        return self


class BinningSettings(Settings):
    """How spaxels are put together."""

    method: Literal["voronoi", "quadtree", "radius", "segmentation", "regions", "none"] = "voronoi"
    target: Positive = Field(10.0, description="S/N of a bin")
    minimum_snr: float | None = Field(None, description="spaxels below are left out; default: none")
    segmentation: FilePattern | None = Field(None, description="a map of labels on the cube's grid, or .reg")
    radius: RadiusSettings | None = None
    regions: RegionSettings = RegionSettings()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.method == "radius" and self.radius is None:
            raise ValueError("method: radius needs the block radius")
        return self


class ExtinctionSettings(Settings):
    """The extinction of the Milky Way; its amount is a matter of each object."""

    curve: Literal["fitzpatrick99", "ccm89", "odonnell94", "none"] = "fitzpatrick99"
    r_v: Annotated[float, Field(ge=2.0, le=6.0)] = 3.1


class ExtractionSettings(Settings):
    """How the spaxels of a bin become one spectrum."""

    mode: Literal["sum", "mean"] = "sum"


class ResampledSettings(Settings):
    """A resampled cube, ``NAME.resam.fits``, for programs that need equal steps."""

    step: Positive = Field(1.0, description="A")
    frame: Literal["rest", "observed"] = "rest"


class StarlightSettings(Settings):
    """A folder with all that STARLIGHT needs to fit the bins; see `skyloom.io.starlight.write_starlight_set`."""

    step: Positive = Field(1.0, description="A, in the rest frame")
    config: FileOrName = Field(
        "StCv04.C11.config", description="STARLIGHT's own configuration, a file or its name"
    )
    base: FileOrName = Field("Base.BC03.N", description="master list of the base, a file or its name")
    base_dir: str = Field("./", description="where the base spectra are, as STARLIGHT will see it")
    masks: FilePath | None = Field(None, description="mask file; default: the emission lines of the list")
    reddening_law: str = "CCM"
    dispersion: Positive = Field(150.0, description="first guess, km/s")
    fit_range: Range | None = Field(None, description="rest A; default: all but 50 A at both ends")
    signal_to_noise_window: Range = Field((4730.0, 4780.0), description="rest A")
    n_grids: Annotated[int, Field(ge=1)] = Field(1, description="files that the fits are spread over")


class CheckSettings(Settings):
    """Science checks; a product outside one of them makes the run end with exit code 3."""

    noise_scale: tuple[Positive, Positive] = Field(
        (0.3, 3.0), description="measured over claimed standard deviation in line-free channels"
    )
    bin_noise: tuple[Positive, Positive] = Field(
        (0.8, 1.25), description="median over bins of measured over claimed noise"
    )
    below_target: NotNegative = Field(0.0, description="share of bins below target that are no remainder")
    remainder: NotNegative = Field(0.25, description="share of the light that is in bins below target")
    line_chi2: tuple[Positive, Positive] = Field(
        (0.8, 1.3), description="median chi2 per degree of freedom of the fits of lines"
    )
    unfitted: NotNegative = Field(0.02, description="share of spectra in which no line could be fitted")


class OutputSettings(Settings):
    """What is written, and where."""

    directory: FilePath = "ifs"
    figures: bool = True
    report: bool = True


class ObjectSettings(Settings):
    """One object. In the file only what differs from the common blocks is written; here all of it stands."""

    cube: CubeSettings
    source: Name | None = Field(None, description="the {object} of its files, where that is not its name")
    fields: dict[str, Name] = Field(default_factory=dict, description="more {fields} for the patterns")
    redshift: Redshift | None = Field(None, description="default: that of the header")
    av: NotNegative | None = Field(None, description="extinction of the Milky Way in V, mag; or")
    ebv: NotNegative | None = Field(None, description="E(B-V), mag; default: that of the header")
    segmentation: FilePattern | None = Field(None, description="instead of binning.segmentation")
    centre: SkyPosition | None = Field(None, description="[ra, dec] in degrees, of the ellipses")
    position_angle: float | None = Field(None, description="degrees east of north, of the major axis")
    axis_ratio: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="minor over major")

    @model_validator(mode="after")
    def _one_extinction(self) -> Self:
        if self.av is not None and self.ebv is not None:
            raise ValueError("give either av or ebv")
        return self


COMMON_BLOCKS = ("cube", "fields")


class IfsConfig(Settings):
    """The whole configuration of a run of ``ifs``.

    In the file the blocks ``cube`` and ``fields`` hold what is common to all objects and ``objects`` holds what
    differs; here they have been laid over each other and ``objects`` is complete.
    """

    recipe: Literal["ifs"] = "ifs"
    objects: dict[Name, ObjectSettings]
    noise: NoiseSettings = NoiseSettings()
    snr: SnrSettings = SnrSettings()
    binning: BinningSettings = BinningSettings()
    extraction: ExtractionSettings = ExtractionSettings()
    extinction: ExtinctionSettings = ExtinctionSettings()
    sky_residuals: Ranges = Field(SKY_RESIDUALS, description="observed A")
    resampled_cube: ResampledSettings | None = None
    starlight: StarlightSettings | None = None
    continuum: ContinuumSettings = ContinuumSettings()
    lines: Annotated[
        Annotated[Literal["none"], Tag("[name]")] | Annotated[LineFitSettings, Tag("[block]")],
        Discriminator(name_or_block),
    ] = LineFitSettings()
    maps: MapSettings = MapSettings()
    checks: CheckSettings = CheckSettings()
    output: OutputSettings = OutputSettings()
    memory: Annotated[str, BeforeValidator(check_memory)] = "auto"
    chunk: Annotated[int, Field(ge=1)] = Field(256, description="spectra fitted between two savings")
    workers: Annotated[int, Field(ge=1)] = 1

    extra_keys: ClassVar[tuple[str, ...]] = COMMON_BLOCKS
    galaxy_keys: ClassVar[Mapping[str, str] | None] = {"redshift": "redshift", "a_v": "av"}

    @model_validator(mode="before")
    @classmethod
    def _spread_common_blocks(cls, values: Any, info: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        common = {name: _block(name, values[name]) for name in COMMON_BLOCKS if name in values}
        rest = {key: value for key, value in values.items() if key not in COMMON_BLOCKS}
        objects = rest.get("objects")
        if objects == "all":
            base = (info.context or {}).get("base")
            objects = {name: {} for name in _all_names(common, base)}
        try:
            objects = to_mapping(objects)
        except ValueError as error:
            raise ValueError(f"objects: {error}") from error
        if isinstance(objects, Mapping):
            rest["objects"] = {name: _object_values(common, own) for name, own in objects.items()}
        return rest

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.objects:
            raise ValueError("objects: the list is empty")
        if self.binning.method == "segmentation" and self.binning.segmentation is None:
            without = [name for name, item in self.objects.items() if item.segmentation is None]
            if without:
                raise ValueError(
                    f"method: segmentation needs binning.segmentation (none for {', '.join(without[:4])})"
                )
        return self

    @classmethod
    def locate(cls, location: list[int | str], values: Mapping[str, Any]) -> list[int | str]:
        """Point to the common block when an object does not say itself what is wrong."""
        if len(location) < 3 or location[0] != "objects" or location[2] not in COMMON_BLOCKS:
            return location
        objects = to_mapping(values["objects"])
        objects = objects if isinstance(objects, Mapping) else {}
        own = next((block for name, block in objects.items() if str(name) == location[1]), None)
        for part in location[2:]:
            own = own.get(part) if isinstance(own, Mapping) else None
        return location[2:] if own is None else location

    @property
    def memory_bytes(self) -> float:
        """What the working arrays of a run may take; by default half of the machine's memory."""
        if self.memory == "auto":
            return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        number, unit = self.memory.split()
        return float(number) * BYTES[unit]

    def object_names(self) -> tuple[str, ...]:
        """Name the objects of the run."""
        return tuple(self.objects)

    def object_files(self, name: str) -> ObjectFiles:
        """Find the files of one object.

        Raises
        ------
        InputError
            If a pattern names an unknown field, or its wildcards do not find exactly one file.
        """
        own = self.objects[name]
        fields = {"object": own.source or name, **own.fields}
        labels = own.segmentation or self.binning.segmentation
        velocity = self.snr.velocity_source
        return ObjectFiles(
            name=name,
            cube=find_file(own.cube.pattern, fields),
            weight=None if own.cube.weight is None else find_file(own.cube.weight, fields),
            segmentation=None
            if labels is None or self.binning.method != "segmentation"
            else find_file(labels, fields),
            velocity=None if velocity in ("first_pass", "none") else find_file(velocity, fields),
        )

    def only(self, name: str) -> IfsConfig:
        """Return the configuration of a run of one object, as its products carry it."""
        return self.model_copy(update={"objects": {name: self.objects[name]}})


@dataclass(frozen=True, slots=True)
class ObjectFiles:
    """The files of one object."""

    name: str
    cube: Path
    weight: Path | None
    segmentation: Path | None
    velocity: Path | None

    @property
    def given(self) -> tuple[Path, ...]:
        """The files that are there to be read."""
        return tuple(
            path for path in (self.cube, self.weight, self.segmentation, self.velocity) if path is not None
        )


def _block(name: str, value: Any) -> Any:
    """A cube may be named by its pattern alone."""
    if value is None:
        return {}
    return {"pattern": value} if name == "cube" and isinstance(value, str) else value


def _object_values(common: Mapping[str, Any], own: Any) -> Any:
    if not isinstance(own, Mapping):
        return own
    own = {key: _block(key, value) if key in COMMON_BLOCKS else value for key, value in own.items()}
    cube, shared = own.get("cube"), common.get("cube")
    if isinstance(cube, Mapping) and isinstance(shared, Mapping) and "instrument" in cube:
        # An instrument of one's own is no mixture of two.
        common = {**common, "cube": {key: value for key, value in shared.items() if key != "instrument"}}
    return merge({"cube": {}, "fields": {}} | dict(common), own)


def _all_names(common: Mapping[str, Any], base: Path | None) -> tuple[str, ...]:
    cube = common.get("cube")
    pattern = cube.get("pattern") if isinstance(cube, Mapping) else None
    if not isinstance(pattern, str):
        raise ValueError("objects: all needs cube.pattern")
    if base is not None:
        # Braces in the folder's own name are no fields.
        pattern = str(Path(str(base).replace("{", "{{").replace("}", "}}")) / Path(pattern).expanduser())
    fields = common.get("fields")
    try:
        return find_names(pattern, fields if isinstance(fields, Mapping) else {})
    except InputError as error:
        raise ValueError(str(error)) from error
