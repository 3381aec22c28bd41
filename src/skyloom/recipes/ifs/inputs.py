"""One object of an ``ifs`` run as its steps see it: an open cube, its redshift, the extinction before it, its maps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.labels import NO_REGION, LabelMap
from skyloom.core.linelist import Medium, default_lines
from skyloom.core.spectra import Spectra
from skyloom.errors import AssumptionWarning, InputError, ShapeError
from skyloom.io.cubes.files import CubeFile, open_cube
from skyloom.io.formats.files import open_fits
from skyloom.recipes.folder import file_stamp
from skyloom.recipes.ifs.config import IfsConfig, LayoutSettings, ObjectFiles, ObjectSettings
from skyloom.recipes.label_files import read_label_file
from skyloom.spectral.axes.extinction import deredden
from skyloom.spectral.axes.widths import LIGHT
from skyloom.spectral.noise.sky_residuals import sky_residual_mask

__all__ = [
    "Source",
    "Tick",
    "line_free_channels",
    "open_source",
    "read_labels",
    "read_velocity",
    "rest_marks",
]

Tick = Callable[[str, int, int], None]
"""Told the name of a stage, and how many of its parts are done."""


@dataclass(frozen=True, slots=True)
class Source:
    """One object: where its voxels come from, and what is known about it.

    Attributes
    ----------
    name : str
    config : IfsConfig
    settings : ObjectSettings
    files : ObjectFiles
    cube : CubeFile
        Its headers have been read; its voxels are read where a step needs them.
    redshift : float
    a_v : float or None
        Extinction by the Milky Way that is to be taken off, mag; None: none.
    extinction : str
        What was decided about it, for the report.
    threads : int
    memory : float
        Bytes that the voxels in work may take.
    tick : callable
        Told how far a step is.
    """

    name: str
    config: IfsConfig
    settings: ObjectSettings
    files: ObjectFiles
    cube: CubeFile
    redshift: float
    a_v: float | None
    extinction: str
    threads: int = 1
    memory: float = 1e9
    tick: Tick = lambda *_: None

    def read(self, channels: slice = slice(None), rows: slice = slice(None)) -> Cube:
        """Read voxels, with what the configuration knows better than the headers."""
        cube = self.cube.read(channels, rows)
        known = {"redshift": self.redshift, "object": self.name}
        if self.settings.cube.milky_way_corrected is not None:
            known["milky_way_corrected"] = self.settings.cube.milky_way_corrected
        return cube.evolve(meta={**cube.meta, **known})

    def deredden(self, data: Any) -> Any:
        """Take the extinction by the Milky Way off a cube or spectra, unless there is none to take off."""
        if self.a_v is None:
            return data
        extinction = self.config.extinction
        return deredden(data, av=self.a_v, r_v=extinction.r_v, curve=extinction.curve)

    @property
    def medium(self) -> Medium:
        """What the wavelengths of the cube are measured in."""
        return as_medium(self.cube.medium)

    @property
    def stamps(self) -> list[Any]:
        """What tells whether the input files are still the same."""
        return [file_stamp(path) for path in (self.files.cube, self.files.weight) if path is not None]


def as_medium(text: str) -> Medium:
    """Return the medium of a cube, which its type has checked, as one of the two there are."""
    return "vacuum" if text == "vacuum" else "air"


def open_source(
    config: IfsConfig, name: str, *, threads: int = 1, memory: float = 1e9, tick: Tick = lambda *_: None
) -> Source:
    """Open the cube of an object and settle its redshift and the extinction before it.

    Raises
    ------
    InputError
        When the cube cannot be opened or has no usable voxel, or nothing tells the redshift.
    """
    files, settings = config.object_files(name), config.objects[name]
    cube = open_object_cube(files, settings)
    cube.require_usable()
    a_v, extinction = _extinction(config, settings, cube)
    redshift = _redshift(name, settings, cube)
    return Source(name, config, settings, files, cube, redshift, a_v, extinction, threads, memory, tick)


def open_object_cube(files: ObjectFiles, settings: ObjectSettings) -> CubeFile:
    """Open the cube of an object with the reader, or the layout, of the configuration."""
    options: dict[str, Any] = {}
    if files.weight is not None:
        options |= {"weight": files.weight, "weight_kind": settings.cube.weight_kind}
    instrument = settings.cube.instrument
    if isinstance(instrument, LayoutSettings):
        return open_cube(files.cube, layout=instrument.layout(), **options)
    return open_cube(files.cube, instrument=None if instrument == "auto" else instrument, **options)


def _redshift(name: str, settings: ObjectSettings, cube: CubeFile) -> float:
    if settings.redshift is not None:
        return settings.redshift
    known = cube.meta.get("redshift")
    if known is None or not np.isfinite(known):
        raise InputError(
            "the redshift is neither in the configuration nor in the header",
            source=cube.path,
            field="redshift",
            remedy=f"give objects.{name}.redshift",
        )
    return float(known)


def _extinction(config: IfsConfig, own: ObjectSettings, cube: CubeFile) -> tuple[float | None, str]:
    """Decide how much extinction is taken off, and say why."""
    r_v = config.extinction.r_v
    said = own.cube.milky_way_corrected
    corrected = cube.meta.get("milky_way_corrected") if said is None else said
    given = own.av if own.av is not None else None if own.ebv is None else own.ebv * r_v
    if config.extinction.curve == "none":
        return None, "left as it is, as the configuration asks"
    if corrected:
        if given:
            warnings.warn(
                f"{cube.path}: corrected for the extinction of the Milky Way already; A_V = {given:.3f} is not"
                " taken off again (cube.milky_way_corrected: false overrides this)",
                AssumptionWarning,
                stacklevel=3,
            )
        return None, "the file is corrected already"
    if given is not None:
        return given, f"A_V = {given:.3f} of the configuration was taken off"
    known = cube.meta.get("ebv")
    if known is not None and np.isfinite(known):
        return float(known) * r_v, f"E(B-V) = {float(known):.4f} of the header was taken off"
    warnings.warn(
        f"{cube.path}: the extinction of the Milky Way is not known and was not taken off (give av or ebv)",
        AssumptionWarning,
        stacklevel=3,
    )
    return None, "not known, and not taken off"


def line_free_channels(source: Source) -> NDArray[np.bool_]:
    """Tell which channels hold neither lines of the object nor residuals of the sky: (n_wave,) bool."""
    settings, wave, medium = source.config.noise, source.cube.wave, source.medium
    if settings.line_free is not None:
        return sky_residual_mask(wave, settings.line_free, medium=medium, wave_medium=medium)
    free = ~sky_residual_mask(wave, source.config.sky_residuals, wave_medium=medium)
    own = [
        line for line in (*source.config.snr.line, *(source.config.snr.also or ())) if isinstance(line, float)
    ]
    for rest in (*default_lines().wavelengths(medium), *own):
        centre = float(rest) * (1.0 + source.redshift)
        free &= np.abs(wave - centre) > centre * settings.line_margin / LIGHT
    return free


# --- maps from files ------------------------------------------------------------------------------------------------


def read_labels(path: Path, like: Image) -> LabelMap:
    """Read a map of labels on the grid of the cube; what lies on unusable spaxels becomes no region.

    Raises
    ------
    ShapeError
        When it has another shape than the cube's spaxels.
    InputError
        When it is no map of labels, or holds no usable spaxel.
    """
    labels = read_label_file(path, like)
    if labels.shape != like.shape:
        raise ShapeError(
            f"the map of labels has shape {labels.shape}; expected {like.shape}, that of the cube's spaxels",
            source=path,
            field="binning.segmentation",
            remedy="give labels on the grid of the cube",
        )
    # Zero is the background of a segmentation map.
    inside = (labels.labels > 0) & like.valid
    if not inside.any():
        raise InputError(
            "no label above 0 lies on a usable spaxel", source=path, field="binning.segmentation"
        )
    return labels.evolve(
        labels=np.where(inside, labels.labels, NO_REGION).astype(np.int32),
        wcs=like.wcs,
        meta={**labels.meta, "method": "segmentation"},
    )


def read_velocity(path: Path, like: CubeFile) -> Image:
    """Read a velocity map, km/s: the first two-dimensional array of a file, or ``velocity`` of maps of this recipe.

    Raises
    ------
    ShapeError
        When it has another shape than the cube's spaxels.
    InputError
        When there is none.
    """
    with open_fits(path) as file:
        if "VELOCITY_SCI" in {hdu.name for hdu in file}:
            hdus = [file["VELOCITY_SCI"]]
        else:
            hdus = [hdu for hdu in file if hdu.is_image and len(hdu.shape) == 2 and 0 not in hdu.shape]
        if not hdus:
            raise InputError("holds no two-dimensional array", source=path, field="snr.velocity")
        values = hdus[0].array().astype(np.float64)
    if values.shape != like.shape[1:]:
        raise ShapeError(
            f"the velocity map has shape {values.shape}; expected {like.shape[1:]}, that of the cube's spaxels",
            source=path,
            field="snr.velocity",
            remedy="give velocities on the grid of the cube",
        )
    unknown = ~np.isfinite(values)
    return Image(
        values,
        np.ones(values.shape),
        unknown,
        u.km / u.s,
        like.wcs,
        meta={"path": str(path), "map": "velocity"},
    )


def rest_marks(spectra: Spectra, redshift: float) -> dict[str, float]:
    """Where the emission lines of the list lie on the axis of observed spectra, A; those that need a name first."""
    lines = [line for line in default_lines() if line.kind == "emission"]
    # Where names would overlap, the first is shown: Halpha, not [N II] 6548 beside it.
    lines.sort(key=lambda line: (line.group != "hydrogen", line.tied is not None))
    marks = {line.key: line.rest(as_medium(spectra.medium)) * (1.0 + redshift) for line in lines}
    return {key: wave for key, wave in marks.items() if spectra.wave[0] < wave < spectra.wave[-1]}
