"""What the objects of a ``homogenize`` run share, and how each of their files is read.

`prepare` measures the PSF of each band, settles the target PSF and measures the noise of each band on the empty sky of
several objects. Everything else here turns a part of the configuration and a file into a core type.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from astropy.wcs import WCS

from skyloom import io
from skyloom.core.execution import collected_notes
from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.core.noise import NoiseMeasurement, combine_measurements, measure_correlation
from skyloom.core.psf import PSF, GaussianPSF, MoffatPSF
from skyloom.errors import ConfigError, InputError
from skyloom.imaging.grids.reproject import reproject
from skyloom.imaging.measure.masks import ObjectMask, mask_from_labels
from skyloom.imaging.psfs.convolve import MatchingKernel, matching_kernel
from skyloom.imaging.psfs.psf import PsfMeasurement, measure_psf
from skyloom.imaging.sky.background import Background, empty_sky, measure_background
from skyloom.io.ds9_regions import is_region_file
from skyloom.recipes.config import resolved_yaml
from skyloom.recipes.homogenize.config import (
    AnalyticPsf,
    BandFiles,
    BandSettings,
    HomogenizeConfig,
    ImageSettings,
    ObjectFiles,
    TargetGrid,
)
from skyloom.recipes.label_files import read_region_labels

__all__ = [
    "BandPsf",
    "Grid",
    "Preparation",
    "Survey",
    "measure_sky",
    "object_mask",
    "prepare",
    "read_image",
    "survey_names",
    "target_grid",
]

Grid = tuple[WCS, tuple[int, int]]
SURVEY_OBJECTS = 12  # More objects sharpen the noise of a band no further than its variation over the sky.
SMALL_IMAGE = (
    1 << 22
)  # Bytes; files up to this size are kept between the survey and the treatment of an object.


@dataclass(frozen=True, slots=True)
class BandPsf:
    """The PSF of a band, and the measurement it came from, if it was measured."""

    psf: PSF
    measurement: PsfMeasurement | None = None


@dataclass(frozen=True, slots=True)
class Preparation:
    """What all objects share.

    Attributes
    ----------
    config : HomogenizeConfig
    psfs : dict
        Band -> PSF of its images.
    target_psf : PSF
        As measured or declared; see `target_on`.
    noise : dict
        Band -> noise on the empty sky of the surveyed objects; empty unless ``noise.correlation`` is ``per_band``.
    survey_failures : dict
        "object band" -> why the sky of that image could not be used for the noise.
    kernels : dict
        Band -> matching kernel for pixels like those of the first object, which most objects share.
    skies : dict
        Small image -> its sky as the survey has measured it.
    config_yaml : str
        The resolved configuration.
    notes : tuple of str
        Warnings given by the preparation.
    """

    config: HomogenizeConfig
    psfs: dict[str, BandPsf]
    target_psf: PSF
    noise: dict[str, NoiseMeasurement]
    survey_failures: dict[str, str] = field(default_factory=dict)
    kernels: dict[str, MatchingKernel] = field(default_factory=dict)
    skies: dict[Path, Background] = field(default_factory=dict)
    config_yaml: str = ""
    notes: tuple[str, ...] = ()

    def target_on(self, grid: Grid, natives: dict[str, Image]) -> PSF:
        """Return the target PSF on a grid: that of a band is broadened as its own images are by the resampling."""
        band = self.config.target.psf
        if not isinstance(band, str):
            return self.target_psf
        image = natives[band].evolve(psf=self.target_psf)
        reached = reproject(image, grid, self.config.target.method).psf
        return self.target_psf if reached is None else reached

    def kernel(self, band: str, image: Image, target: PSF) -> MatchingKernel:
        """Return the kernel that brings ``image`` to the target PSF: the shared one where it fits its pixels."""
        shared = self.kernels.get(band)
        if shared is not None and shared.fits(image.pixel_matrix):
            return shared
        return _matching_kernel(self.config, image, target)

    def noise_of(self, band: str, native: Image, sky: Background) -> NoiseMeasurement | None:
        """Return the noise to apply to an image of a band."""
        settings = self.config.noise
        if settings.correlation == "none":
            return None
        per_band = settings.correlation == "per_band"
        measured = self.noise[band] if per_band else _sky_noise(native, sky)
        return measured if settings.rescale_variance else replace(measured, scale=1.0)

    def sky_of(self, files: BandFiles, native: Image) -> Background:
        """Return the sky of an image: from the survey where it has measured it, else measured or read now."""
        known = self.skies.get(files.image)
        return measure_sky(self.config.bands[files.band], files, native) if known is None else known


def prepare(config: HomogenizeConfig) -> Preparation:
    """Measure the PSFs and the noise of all bands.

    Raises
    ------
    InputError
        When a band has no PSF, or no object from which its noise could be measured.
    """
    with collected_notes() as notes:
        psfs = {band: measure_band_psf(config, band) for band in config.bands}
        survey = survey_noise(config) if config.noise.correlation == "per_band" else Survey({}, {}, {})
        target = target_psf(config, psfs)
    preparation = Preparation(
        config,
        psfs,
        target,
        noise=survey.noise,
        survey_failures=survey.failures,
        skies=survey.skies,
        config_yaml=resolved_yaml(config),
        notes=tuple(notes),
    )
    preparation.kernels.update(_shared_kernels(preparation))
    return preparation


def _shared_kernels(preparation: Preparation) -> dict[str, MatchingKernel]:
    """Make the kernels for the pixels of the first readable object.

    They are made before any object is treated, so that a product never depends on which object came before it.
    """
    config, kernels = preparation.config, {}
    for name in config.object_names()[:SURVEY_OBJECTS]:
        try:
            files = config.object_files(name)
            natives = {item.band: read_image(config.bands[item.band], item) for item in files.bands}
            grid = target_grid(config, files, natives)
            target = preparation.target_on(grid, natives)
            for band, native in natives.items():
                on_grid = reproject(native.evolve(psf=preparation.psfs[band].psf), grid, config.target.method)
                kernels[band] = _matching_kernel(config, on_grid, target)
        except InputError:
            # What is wrong with the object, or with a match, is said when the object itself is treated.
            continue
        break
    return kernels


def _matching_kernel(config: HomogenizeConfig, image: Image, target: PSF) -> MatchingKernel:
    assert image.psf is not None  # set by whoever resampled the image
    settings = config.matching
    return matching_kernel(
        image.psf,
        target,
        image.pixel_matrix,
        method=settings.method,
        regularization=settings.regularization,
    )


# --- files ---------------------------------------------------------------------------------------------------------


def read_image(settings: BandSettings, files: BandFiles) -> Image:
    """Read the image of one object in one band, with its weights."""
    return _read(files.image, files.weight, settings.images, files.band)


def _read(path: Path, weight: Path | None, settings: ImageSettings, band: str) -> Image:
    small = path.is_file() and path.stat().st_size <= SMALL_IMAGE
    return (_read_kept if small else _read_now)(path, weight, settings, band)


def _read_now(path: Path, weight: Path | None, settings: ImageSettings, band: str) -> Image:
    image = io.read(
        path,
        instrument=settings.instrument,
        weight=weight,
        weight_kind=settings.weight_kind,
        unit=settings.unit,
    )
    if not isinstance(image, Image):
        raise InputError(f"holds a {type(image).__name__}, not an image", source=path)
    return image.evolve(meta={**image.meta, "band": band})


@lru_cache(maxsize=128)
def _read_kept(path: Path, weight: Path | None, settings: ImageSettings, band: str) -> Image:
    return _read_now(path, weight, settings, band)


@lru_cache(maxsize=32)
def _read_labels(path: Path) -> LabelMap:
    labels = io.read(path, instrument="segmentation")
    if not isinstance(labels, LabelMap):
        raise InputError(f"holds a {type(labels).__name__}, not a map of labels", source=path)
    return labels


# --- PSF -----------------------------------------------------------------------------------------------------------


def measure_band_psf(config: HomogenizeConfig, band: str) -> BandPsf:
    """Measure the PSF of a band from its stars, read it, or take it as declared."""
    settings = config.bands[band].psf
    file = config.psf_file(band)
    if file is not None:
        return BandPsf(io.read_psf(file))
    if settings.stars is None:
        return BandPsf(_declared(settings, settings.profile))
    stars = settings.stars
    image_settings = ImageSettings(
        pattern=stars.pattern, weight=stars.weight, weight_kind=stars.weight_kind, unit=stars.unit
    )
    files = config.star_files(band)
    images = [_read_now(star.image, star.weight, image_settings, band) for star in files]
    size = None if stars.size_arcsec is None else 2 * int(stars.size_arcsec / images[0].pixel_scale / 2) + 1
    measurement = measure_psf(images, names=[star.name for star in files], model=settings.profile, size=size)
    return BandPsf(measurement.psf, measurement)


def _declared(settings: AnalyticPsf, model: str) -> PSF:
    assert settings.fwhm is not None  # the configuration requires one source of the PSF
    if model == "moffat":
        assert settings.beta is not None
        return MoffatPSF(settings.fwhm, settings.beta, settings.axis_ratio, settings.position_angle)
    return GaussianPSF(settings.fwhm, settings.axis_ratio, settings.position_angle)


def target_psf(config: HomogenizeConfig, psfs: dict[str, BandPsf]) -> PSF:
    """Return the PSF that all products share."""
    wanted = config.target.psf
    if isinstance(wanted, str):
        return psfs[wanted].psf
    if wanted.file is not None:
        return io.read_psf(Path(wanted.file))
    return _declared(wanted, wanted.model)


# --- noise and sky -------------------------------------------------------------------------------------------------


def survey_names(config: HomogenizeConfig) -> tuple[str, ...]:
    """Name the objects on whose sky the noise is measured: evenly taken, each set of files once."""
    names = config.object_names()
    own = {name: config.objects[name].source or name for name in names} if config.objects != "all" else {}
    unique = tuple({own.get(name, name): name for name in reversed(names)}.values())[::-1]
    step = max(1, -(-len(unique) // SURVEY_OBJECTS))
    return unique[::step]


@dataclass(frozen=True, slots=True)
class Survey:
    """What the survey of the empty sky has found: noise per band, failures per image, skies of small images."""

    noise: dict[str, NoiseMeasurement]
    failures: dict[str, str]
    skies: dict[Path, Background]


def survey_noise(config: HomogenizeConfig) -> Survey:
    """Measure the noise of each band on the empty sky of several objects.

    Raises
    ------
    InputError
        When a band has no usable image at all.
    """
    measured: dict[str, list[NoiseMeasurement]] = {band: [] for band in config.bands}
    survey = Survey({}, {}, {})
    for name in survey_names(config):
        for files in _files_or_none(config, name, survey.failures):
            settings = config.bands[files.band]
            try:
                native = read_image(settings, files)
                sky = measure_sky(settings, files, native)
                measured[files.band].append(_sky_noise(native, sky))
            except InputError as error:
                # The object itself reports what is wrong with it; here one image of many is missing.
                survey.failures[f"{name} {files.band}"] = str(error)
                continue
            if native.data.nbytes <= SMALL_IMAGE:
                survey.skies[files.image] = sky
    for band, items in measured.items():
        if not items:
            reasons = [reason for item, reason in survey.failures.items() if item.endswith(f" {band}")]
            raise InputError(
                f"no image to measure the noise of {band} on: {reasons[0] if reasons else 'none could be read'}",
                field="noise.correlation",
                remedy="mend the files, or set noise.correlation=none",
            )
        survey.noise[band] = combine_measurements(items)
    return survey


def _sky_noise(native: Image, sky: Background) -> NoiseMeasurement:
    # The wings of sources are taken off first: what they leave on the sky would pass for correlated noise.
    return measure_correlation(*empty_sky(native, sky))


def _files_or_none(config: HomogenizeConfig, name: str, failures: dict[str, str]) -> tuple[BandFiles, ...]:
    try:
        return config.object_files(name).bands
    except ConfigError:
        raise
    except InputError as error:
        failures[name] = str(error)
        return ()


def measure_sky(settings: BandSettings, files: BandFiles, image: Image) -> Background:
    """Measure the sky of an image, or take it as given."""
    sky = settings.sky
    if sky.method == "none":
        return measure_background(image, method="value", value=0.0, value_error=0.0)
    if sky.method == "value":
        return measure_background(image, method="value", value=sky.value, value_error=sky.value_error)
    if sky.method == "file":
        assert files.sky is not None  # the configuration requires a pattern
        level, error = read_sky_file(files.sky)
        return measure_background(image, method="value", value=level, value_error=error)
    return measure_background(
        image, method=sky.method, grow_arcsec=sky.grow_arcsec, mesh_arcsec=sky.mesh_arcsec
    )


def read_sky_file(path: Path) -> tuple[float, float | None]:
    """Read a sky level, and its error where there is one, from the first numbers of a text file.

    Raises
    ------
    InputError
        When the file is missing, or does not begin with one or two numbers.
    """
    try:
        words = path.read_text(encoding="utf-8").split()
        numbers = [float(word) for word in words[:2]]
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=path, field="sky.pattern") from error
    except ValueError as error:
        raise InputError(f"is not a sky level: {error}", source=path, field="sky.pattern") from error
    if not numbers or not np.all(np.isfinite(numbers)):
        raise InputError(f"holds no sky level but {numbers}", source=path, field="sky.pattern")
    return numbers[0], numbers[1] if len(numbers) > 1 else None


# --- grid and mask -------------------------------------------------------------------------------------------------


def target_grid(config: HomogenizeConfig, files: ObjectFiles, natives: dict[str, Image]) -> Grid:
    """Return the WCS and shape of the products of an object.

    Raises
    ------
    InputError
        When the image that defines the grid has no WCS.
    """
    reference = natives[config.reference_band]
    if reference.wcs is None:
        raise InputError(
            "the image that defines the target grid has no WCS",
            source=reference.meta.get("path"),
            field="CTYPE1",
            remedy="add a WCS to the file, or name another band in target.grid",
        )
    wanted = config.target.grid
    if isinstance(wanted, str):
        return reference.wcs, reference.shape
    return north_up_grid(wanted, reference, files.centre or wanted.centre)


def north_up_grid(wanted: TargetGrid, reference: Image, centre: tuple[float, float] | None) -> Grid:
    """Return a grid of square north-up pixels around ``centre`` (ra, dec in degrees), or around the image."""
    assert reference.wcs is not None  # target_grid has checked it
    ny, nx = reference.shape
    if centre is None:
        longitude, latitude = reference.wcs.celestial.all_pix2world([(nx - 1) / 2], [(ny - 1) / 2], 0)
        centre = float(longitude[0]), float(latitude[0])
    if wanted.size_arcsec is None:
        corners = np.abs(reference.pixel_matrix) @ np.array([nx, ny], dtype=np.float64)
        width, height = corners
    else:
        height, width = wanted.size_arcsec
    shape = (max(1, round(height / wanted.pixel_scale)), max(1, round(width / wanted.pixel_scale)))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = list(centre)
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cdelt = [-wanted.pixel_scale / 3600, wanted.pixel_scale / 3600]
    wcs.wcs.set()
    return wcs, shape


def object_mask(config: HomogenizeConfig, files: ObjectFiles, grid: Grid) -> ObjectMask:
    """Return which pixels of the grid belong to the object; all of them without a segmentation map."""
    if files.segmentation is None or config.segmentation is None:
        everywhere = np.ones(grid[1], dtype=bool)
        return ObjectMask(inside=everywhere, unknown=~everywhere, ids=())
    try:
        if is_region_file(files.segmentation):
            labels = read_region_labels(files.segmentation, grid)
        else:
            labels = _read_labels(files.segmentation)
        return mask_from_labels(
            labels, grid, keep=list(files.labels), dilation_arcsec=config.segmentation.dilation_arcsec
        )
    except InputError as error:
        raise error.located(files.segmentation) from error
