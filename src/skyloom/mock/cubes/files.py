"""Mock cubes as files in the layout of each survey, with their truth beside them.

cubes/{name}.fits (MUSE), cubes/{name}-LOGCUBE.fits (MaNGA), cubes/{name}.V500.rscube.fits (CALIFA)
truth/{name}_lines.fits         flux, velocity and dispersion of every line; field of view, left-over sky, noise
truth/{name}_noise_free.fits    the cube without noise and sky, and its continuum
truth.ecsv                      one row per line
templates.fits                  the stellar populations that the mock is made of, as templates
ifs.yaml                        a configuration of the recipe ifs that runs on these files
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import QTable
from numpy.typing import ArrayLike, NDArray

from skyloom.core.linelist import convert_medium, default_lines
from skyloom.errors import InputError
from skyloom.io.templates.library import write_templates
from skyloom.mock.cubes.cubes import CubeModel, cube_model
from skyloom.mock.cubes.layouts import FileLayout, califa_layout, manga_layout, muse_layout
from skyloom.mock.cubes.noise import SkyResiduals
from skyloom.mock.cubes.spectrographs import Field, Range, Spectrograph, spectrograph
from skyloom.mock.fits_stream import FitsStream, StreamedArray
from skyloom.mock.scenes.galaxies import rotating_disc
from skyloom.mock.scenes.images import LineTruth
from skyloom.mock.scenes.milky_way import milky_way_factor
from skyloom.mock.scenes.scene import Scene
from skyloom.mock.scenes.templates import populations

__all__ = ["CUBE_SCENES", "CubeMock", "write_cube_mock"]

Instrument = Literal["muse", "manga", "pmas"]
TEMPLATE_MARGIN, TEMPLATE_STEP, TEMPLATE_FWHM = 0.03, 0.6, 1.6  # share of the wavelength, A, A
LINE_FLUX = u.erg / u.s / u.cm**2


@dataclass(frozen=True, slots=True)
class _Style:
    """Names and layout of the files of one survey."""

    layout: Callable[[CubeModel, str, float], FileLayout]
    name: str
    pattern: str
    shape: tuple[int, int]
    field_angle: float


STYLES: dict[str, _Style] = {
    "muse": _Style(muse_layout, "disc", "{object}.fits", (60, 60), 12.0),
    "manga": _Style(manga_layout, "manga-9999-12701", "{object}-LOGCUBE.fits", (44, 44), 0.0),
    "pmas": _Style(califa_layout, "disc", "{object}.V500.rscube.fits", (60, 64), 0.0),
}


@dataclass(frozen=True, slots=True, eq=False)
class CubeMock:
    """What `write_cube_mock` wrote.

    Parameters
    ----------
    directory : Path
    name : str
        Of the object.
    cube : Path
        The file in the layout of the survey.
    model : CubeModel
        How it was made; gives truth, continuum and lines again.
    lines : Path
        Maps of the lines, field of view, left-over sky, noise.
    noise_free : Path or None
        Cube without noise and its continuum, where they were asked for.
    table, config : Path
        The lines' truth, and a configuration of the recipe ifs.
    templates : Path
        The populations that the stars are made of.
    """

    directory: Path
    name: str
    cube: Path
    model: CubeModel
    lines: Path
    noise_free: Path | None
    table: Path
    config: Path
    templates: Path


def write_cube_mock(
    directory: str | Path,
    instrument: Instrument = "muse",
    *,
    seed: int,
    shape: tuple[int, int] | None = None,
    wave_range: Range | None = None,
    scene: Scene | Literal["disc"] | None = "disc",
    name: str | None = None,
    sampling: Literal["log", "linear"] = "log",
    angle: float = 0.0,
    field: Field | None = None,
    field_angle: float | None = None,
    noise: float = 1.0,
    claimed: ArrayLike = 1.0,
    sky_residuals: bool | SkyResiduals = True,
    dead: int = 3,
    bad_share: float = 1e-4,
    a_v: float = 0.15,
    noise_free: bool | None = None,
    device: Spectrograph | None = None,
) -> CubeMock:
    """Write a mock cube in the layout of its survey, its truth, and a configuration.

    Parameters
    ----------
    directory : str or path
        Made when it is missing; files of the same names are replaced.
    instrument : {"muse", "manga", "pmas"}
    seed : int
        The same seed gives the same files.
    shape : (int, int), optional
        (ny, nx) spaxels.
    wave_range : (float, float), optional
        Keep the channels between these wavelengths (A) only.
    scene : Scene or None, optional
        By default a disc that fills the field, rotating by +-200 km/s; None: nothing but noise.
    name : str, optional
        Of the object.
    sampling : {"log", "linear"}
        MaNGA: LOGCUBE or LINCUBE.
    angle, field, field_angle, noise, sky_residuals, dead, bad_share, a_v
        As for `skyloom.mock.cubes.cubes.observe_cube`; by default the field of MUSE is turned so that corners are NaN.
    claimed : float or (n_wave,) array
        Variance that the file claims, in units of the true one.
    noise_free : bool, optional
        Whether the cube without noise and its continuum are written; by default up to 2e7 voxels.
    device : Spectrograph, optional
        Instead of the instrument's own, e.g. with other noise.

    Notes
    -----
    Cubes are made and written in slabs of channels: the memory needed is that of the painted Gaussians, about 0.4 GB
    for 300x300 spaxels.
    """
    if instrument not in STYLES:
        raise InputError(
            f"{instrument!r} is no instrument",
            field="instrument",
            remedy=f"choose one of {', '.join(STYLES)}",
        )
    style = STYLES[instrument]
    spaxels = shape or style.shape
    chosen = name or style.name
    options: dict[str, Any] = {"sampling": sampling} if instrument == "manga" else {}
    tool = (device or spectrograph(instrument, **options)).select(wave_range)
    sky = default_scene(spaxels, tool, seed) if scene == "disc" else scene
    model = cube_model(
        sky, tool, spaxels, seed=seed, angle=angle, noise=noise, sky_residuals=sky_residuals, dead=dead,
        bad_share=bad_share, field=field, field_angle=style.field_angle if field_angle is None else field_angle,
        a_v=a_v,
    )  # fmt: skip
    folder = Path(directory)
    for part in ("cubes", "truth"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    pattern = style.pattern.replace("LOG", "LIN") if sampling == "linear" else style.pattern
    cube = folder / "cubes" / pattern.replace("{object}", chosen)
    with_truth = model.n_wave * spaxels[0] * spaxels[1] <= 2e7 if noise_free is None else noise_free
    truth = folder / "truth" / f"{chosen}_noise_free.fits" if with_truth else None
    _write_cube(cube, truth, model, style.layout(model, chosen, a_v), np.asarray(claimed, dtype=np.float64))
    found = {key: model.line(key) for key in model.line_keys}
    lines, table = folder / "truth" / f"{chosen}_lines.fits", folder / "truth.ecsv"
    _write_lines(lines, model, found, a_v, claimed)
    _line_table(model, found, chosen, a_v).write(table, format="ascii.ecsv", overwrite=True)
    templates = folder / "templates.fits"
    _write_templates(templates, model)
    config = folder / "ifs.yaml"
    config.write_text(_config_text(model, chosen, pattern, a_v), encoding="utf-8")
    return CubeMock(folder, chosen, cube, model, lines, truth, table, config, templates)


def default_scene(shape: tuple[int, int], instrument: Spectrograph, seed: int) -> Scene:
    """Return a rotating disc that fills the field of a cube and leaves its corners dark."""
    side = min(shape) * instrument.pixel_scale
    n_nebulae = int(np.clip(shape[0] * shape[1] / 250, 20, 200))
    return rotating_disc(200.0, scale_length=0.1 * side, n_nebulae=n_nebulae, seed=seed)


def _write_cube(
    path: Path, truth: Path | None, model: CubeModel, layout: FileLayout, claimed: NDArray[np.float64]
) -> None:
    """Write a cube slab by slab, and its noise-free twin."""
    scale = np.broadcast_to(claimed, (model.n_wave,)).astype(np.float32)[:, np.newaxis, np.newaxis]
    with FitsStream(path, layout.primary, layout.arrays, layout.last) as stream:
        for slab in model.slabs():
            planes = layout.encode(slab, scale[slab.channels] * slab.variance)
            for number, plane in enumerate(planes):
                stream.write(number, slab.channels.start, plane)
    if truth is None:
        return
    header = model.wcs.to_header()
    header["BUNIT"] = model.spectrograph.unit.to_string("fits")
    arrays = [
        StreamedArray(name, "f4", (model.n_wave, *model.shape), header.copy())
        for name in ("TRUTH", "CONTINUUM")
    ]
    wave = fits.ImageHDU(model.spectrograph.wave, name="WAVE")
    with FitsStream(truth, fits.Header(), arrays, [wave]) as stream:
        for channels in model.channel_slabs():
            stream.write(0, channels.start, model.truth(channels))
            stream.write(1, channels.start, model.truth(channels, light=("stars",)))


def _write_lines(
    path: Path, model: CubeModel, lines: Mapping[str, LineTruth], a_v: float, claimed: ArrayLike
) -> None:
    """Write maps of the lines, and all that was added to the light."""
    instrument, header = model.spectrograph, model.wcs.to_header()
    primary = fits.PrimaryHDU()
    values: dict[str, Any] = {
        "REDSHIFT": model.redshift, "SEED": model.seed, "A_V": a_v, "A_VDATA": model.a_v, "INSTRUME": instrument.name,
        "BUNIT": instrument.unit.to_string("fits"), "MEDIUM": instrument.medium,
    }  # fmt: skip
    primary.header.update(values)
    hdus: list[fits.ImageHDU | fits.PrimaryHDU] = [primary]
    for key, line in lines.items():
        for kind, plane, unit in (
            ("FLUX", line.flux, LINE_FLUX),
            ("VELOCITY", line.velocity, u.km / u.s),
            ("DISPERSION", line.dispersion, u.km / u.s),
        ):
            hdus.append(fits.ImageHDU(plane, header, f"{key}_{kind}"))
            hdus[-1].header["BUNIT"] = unit.to_string("fits")
    maps = {
        "COVERED": model.covered.astype(np.uint8),
        "DEAD": model.dead.astype(np.uint8),
        "SKY_PATTERN": model.residual_pattern,
    }
    hdus += [fits.ImageHDU(plane, header, name) for name, plane in maps.items()]
    vectors = {
        "WAVE": instrument.wave,
        "LSF": instrument.lsf,
        "SKY_RESIDUAL": model.residual_spectrum,
        "BACKGROUND_VARIANCE": model.background_variance,
        "CLAIMED": np.broadcast_to(np.asarray(claimed, dtype=np.float64), instrument.wave.shape).copy(),
        "EXTINCTION": model.extinction,
        "SPATIAL_CORRELATION": instrument.spatial_correlation,
        "SPECTRAL_CORRELATION": instrument.spectral_correlation,
    }
    hdus += [fits.ImageHDU(vector, name=name) for name, vector in vectors.items()]
    fits.HDUList(hdus).writeto(path, overwrite=True)


def _line_table(model: CubeModel, lines: Mapping[str, LineTruth], name: str, a_v: float) -> QTable:
    """One row per line: wavelengths, and fluxes in the field as they are in the data and before the Milky Way."""
    table = QTable()
    keys = list(lines)
    rest = np.array([default_lines()[key].rest_vacuum for key in keys])
    observed = rest * (1 + model.redshift)
    seen = model.covered & ~model.dead
    flux = np.array([line.flux[seen].sum() for line in lines.values()])
    table["line"] = np.array(keys, dtype=str)
    table["rest_vacuum"] = rest * u.AA
    table["observed"] = convert_medium(observed, "vacuum", model.spectrograph.medium) * u.AA
    table["flux"] = flux * LINE_FLUX
    table["flux_corrected"] = flux / milky_way_factor(observed, model.a_v) * LINE_FLUX
    table.meta = {
        "object": name,
        "instrument": model.spectrograph.name,
        "medium": model.spectrograph.medium,
        "redshift": float(model.redshift),
        "a_v": float(a_v),
        "milky_way_corrected": model.spectrograph.corrected,
        "seed": model.seed,
    }
    return table


def _write_templates(path: Path, model: CubeModel) -> None:
    """Write the populations as templates that cover the cube at rest, sharper than its spectrograph."""
    wave = model.spectrograph.wave / (1.0 + model.redshift)
    axis = np.arange(wave[0] * (1.0 - TEMPLATE_MARGIN), wave[-1] * (1.0 + TEMPLATE_MARGIN), TEMPLATE_STEP)
    write_templates(populations().library(axis, fwhm=TEMPLATE_FWHM), path, overwrite=True)


def _config_text(model: CubeModel, name: str, pattern: str, a_v: float) -> str:
    """Return a configuration of the recipe ifs for these files."""
    # A cube that its survey has corrected says so by itself.
    extinction = "" if model.spectrograph.corrected else f", av: {a_v:g}"
    return (
        "# A mock cube with known truth: truth.ecsv and truth/.\n"
        "recipe: ifs\n"
        "objects:\n"
        f"  {name}: {{redshift: {model.redshift:g}{extinction}}}\n"
        "cube:\n"
        f"  pattern: cubes/{pattern}\n"
        "snr:\n"
        "  line: Halpha\n"
        "binning:\n"
        "  target: 10\n"
        "continuum:\n"
        "  templates: templates.fits\n"
    )


CUBE_SCENES: dict[str, tuple[str, Callable[[Path, int], CubeMock]]] = {
    "muse-like": (
        "a rotating disc with HII regions in a small MUSE cube, 4750 to 7000 A",
        lambda directory, seed: write_cube_mock(directory, "muse", seed=seed, wave_range=(4750.0, 7000.0)),
    ),
    "manga-like": (
        "a rotating disc with HII regions in a MaNGA cube, logarithmic in wavelength",
        lambda directory, seed: write_cube_mock(directory, "manga", seed=seed),
    ),
    "pmas-like": (
        "a rotating disc with HII regions in a PMAS/CALIFA cube",
        lambda directory, seed: write_cube_mock(directory, "pmas", seed=seed),
    ),
}
