"""A cube of MUSE with the noise that it really has, and the lines near Halpha fitted to its spaxels."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.core.linelist import convert_medium, default_lines
from skyloom.core.provenance import step
from skyloom.core.spectra import Spectra
from skyloom.errors import AssumptionWarning, InputError
from skyloom.imaging.measure.units import LINE_BRIGHTNESS, convert_unit
from skyloom.io.cubes.files import CubeFile
from skyloom.io.templates.sets import TEMPLATE_SETS
from skyloom.recipes.ifs.continuum import open_templates
from skyloom.recipes.ifs.fit_config import ContinuumSettings
from skyloom.recipes.ifs.noise import NoiseModel, sample_slabs
from skyloom.spectral.axes.slabs import merge_slabs
from skyloom.spectral.bins.binning import bin_to_snr
from skyloom.spectral.bins.extract import extract_spectra
from skyloom.spectral.gas.maps import line_maps
from skyloom.spectral.lines.linefit import fit_lines
from skyloom.spectral.noise.measure import combine_cube_noise, measure_cube_noise
from skyloom.spectral.noise.sky_residuals import sky_residual_mask
from skyloom.spectral.signal.continuum_snr import continuum_snr
from skyloom.spectral.stellar.fit import fit_continuum

__all__ = ["FITTED", "MuseCube", "check_fit", "fit_line_maps"]

Float = NDArray[np.float64]
LIGHT = 299792.458  # km/s
FITTED = ("NII6548", "Halpha", "NII6583")
LINE_MARGIN = 1000.0  # km/s on either side of a line that no noise is measured in
NEAR = (6420.0, 6700.0)  # Rest A (vacuum) around Halpha that is read for the spaxels.
CONTINUUM = (6600.0, 6700.0)  # Rest A (vacuum) with few lines, for the S/N of the stars.
BIN_SNR = 40.0  # per channel: absorption lines of the stars become known to 1 %.
KINEMATIC_SNR = 8.0  # Bins with a fainter Halpha take the velocity of all.
VELOCITY_RANGE = 150.0  # km/s that a spaxel may differ from its bin.
SLAB_BYTES = 1 << 28


class MuseCube:
    """A cube in a file that is read with its measured noise: variance scaled, correlations known.

    Parameters
    ----------
    file : CubeFile
    redshift : float
        Of the object; lines are left out where the noise is measured.
    threads : int, optional

    Notes
    -----
    It has what `skyloom.spectral.bands.synthetic.CubeSource` asks for.
    """

    def __init__(self, file: CubeFile, redshift: float, *, threads: int | None = None) -> None:
        self.file, self.redshift, self.threads = file, redshift, threads
        self.shape, self.wave, self.medium, self.unit = file.shape, file.wave, file.medium, file.unit
        self.wcs, self.psf, self.lsf, self.meta = file.wcs, file.psf, file.lsf, file.meta
        self.noise = _measured(file, redshift)
        spatial, spectral = self.noise.correlation
        self.correlation: CubeCorrelation | None = (
            None if spatial is None and spectral is None else CubeCorrelation(spatial, spectral)
        )

    def read(self, channels: slice) -> Cube:
        """Read a range of channels."""
        return self.noise.apply(self.file.read(channels), channels)

    def channels(self, low: float, high: float) -> slice:
        """Return the channels between two rest wavelengths in vacuum (A)."""
        edges = _observed(np.array([low, high]), self.redshift, self.medium)
        first, last = np.searchsorted(self.wave, edges)
        return slice(int(first), int(last))


def _observed(rest: Float, redshift: float, medium: str) -> Float:
    """Wavelengths on the axis of a cube of rest wavelengths in vacuum."""
    return convert_medium(rest * (1.0 + redshift), "vacuum", "air" if medium == "air" else "vacuum")


def _measured(file: CubeFile, redshift: float) -> NoiseModel:
    """Measure the noise of a cube where it is free of lines; what the file claims where that is not possible."""
    free = ~sky_residual_mask(file.wave, wave_medium=file.medium)
    for centre in _observed(default_lines().wavelengths("vacuum"), redshift, file.medium):
        free &= np.abs(file.wave - centre) > centre * LINE_MARGIN / LIGHT
    found, reason = [], "no channel is free of lines"
    for channels in sample_slabs(file.shape, free):
        try:
            found.append(measure_cube_noise(file.read(channels), line_free=free[channels]))
        except InputError as error:
            reason = error.message
    claimed = CubeCorrelation(None, None) if file.correlation is None else file.correlation
    if not found:
        file.require_usable()
        warnings.warn(
            f"{file.path}: the noise could not be measured ({reason}); errors are those of the file",
            AssumptionWarning,
            stacklevel=3,
        )
        return NoiseModel(np.ones(file.shape[0]), claimed)
    noise = combine_cube_noise(found)
    return NoiseModel(noise.scale_at(file.wave), CubeCorrelation(noise.spatial, noise.spectral))


# --- lines fitted to the spaxels ------------------------------------------------------------------------------------


def check_fit(file: CubeFile, redshift: float, settings: ContinuumSettings) -> None:
    """Raise what is wrong with fitting lines before any voxel is read.

    Raises
    ------
    InputError
        When there are no templates, no line-spread function is known, or the lines do not fall on the axis.
    """
    if settings.templates is None:
        raise InputError(
            "lines cannot be fitted without templates of the stars: the absorption below Halpha would be taken for"
            " missing emission",
            field="muse.continuum.templates",
            remedy=f"give a file, a folder, or one of {', '.join(TEMPLATE_SETS)}; or maps of lines, muse.lines",
        )
    if file.lsf is None:
        raise InputError(
            "the file does not tell the line-spread function, without which no width can be fitted",
            source=file.path,
            field="muse.cube",
        )
    near = _observed(np.array(NEAR), redshift, file.medium)
    if near[0] < file.wave[0] or near[1] > file.wave[-1]:
        raise InputError(
            f"the axis ({file.wave[0]:.0f}-{file.wave[-1]:.0f} A) does not hold Halpha at redshift {redshift}",
            source=file.path,
            field="redshift",
        )


def fit_line_maps(cube: MuseCube, settings: ContinuumSettings) -> dict[str, Image]:
    """Fit Halpha and [N II] in every spaxel, on the continuum of stars.

    Parameters
    ----------
    cube : MuseCube
    settings : ContinuumSettings
        Templates of the stars, and how they are fitted.

    Returns
    -------
    dict of str to Image
        Halpha, NII6583 and NII6548 in 1e-20 erg / (s cm2 arcsec2).

    Raises
    ------
    InputError
        As `check_fit`, and when nothing can be fitted.

    Notes
    -----
    The stars are fitted in bins of S/N 40 per channel, over the whole axis. The model of a bin is scaled to each of
    its spaxels beside the lines, and taken off; what is left has the three lines and a straight line. The velocity of
    a spaxel is free within 150 km/s of that of its bin.
    """
    near = cube.channels(*NEAR)
    slab = cube.read(near)
    bins = _bins(cube, slab)
    spectra = _spectra_of_bins(cube, bins)
    templates = open_templates(settings)
    assert templates is not None  # check_fit requires them
    stars = fit_continuum(spectra, templates, redshift=cube.redshift, **_options(settings, cube))
    velocity = _velocities(cube, spectra, stars.model)
    return _fit_spaxels(cube, slab, near, bins, stars.model, velocity)


def _options(settings: ContinuumSettings, cube: MuseCube) -> dict[str, Any]:
    names = (
        "attenuation", "additive_degree", "multiplicative_degree", "emission", "half_width", "wave_range",
        "velocity_range", "sigma_start", "sigma_range", "av_range", "clip", "least_snr",
    )  # fmt: skip
    return {name: getattr(settings, name) for name in names} | {"threads": cube.threads}


def _bins(cube: MuseCube, slab: Cube) -> LabelMap:
    """Bins in which the stars are bright enough."""
    low, high = _observed(np.array(CONTINUUM), cube.redshift, cube.medium)
    measured = continuum_snr(slab, (max(low, slab.wave[0]), min(high, slab.wave[-1])), workers=cube.threads)
    return bin_to_snr(measured.signal, None, BIN_SNR)


def _spectra_of_bins(cube: MuseCube, bins: LabelMap) -> Spectra:
    parts = [
        extract_spectra(cube.read(channels), bins, workers=cube.threads or 1)
        for channels in cube.file.slabs(SLAB_BYTES)
    ]
    return merge_slabs(parts)


def _velocities(cube: MuseCube, spectra: Spectra, stars: NDArray[Any]) -> Float:
    """Velocity of the gas in each bin, km/s; where a bin is too faint, the median of the others."""
    near = cube.channels(*NEAR)
    fit = fit_lines(
        _cut(spectra, near), FITTED, cube.redshift, np.nan_to_num(stars[:, near]), threads=cube.threads
    )
    found = np.asarray(fit.table["Halpha_velocity"].to_value("km/s"), dtype=np.float64)
    bright = np.isfinite(found) & (np.nan_to_num(np.asarray(fit.table["Halpha_snr"])) > KINEMATIC_SNR)
    usual = float(np.median(found[bright])) if bright.any() else 0.0
    return np.where(bright, found, usual)


def _cut(spectra: Spectra, channels: slice) -> Spectra:
    """Return some channels of spectra."""

    def along(value: Any) -> Any:
        return value[..., channels] if isinstance(value, np.ndarray) and value.ndim else value

    correlation = spectra.correlation
    if correlation is not None and correlation.ndim == 2:
        correlation = correlation[channels]
    return spectra.evolve(
        data=spectra.data[:, channels], variance=spectra.variance[:, channels], mask=spectra.mask[:, channels],
        wave=spectra.wave[channels], lsf=along(spectra.lsf), correlation=correlation, flags=along(spectra.flags),
        modes=(),
    )  # fmt: skip


def _fit_spaxels(
    cube: MuseCube, slab: Cube, near: slice, bins: LabelMap, stars: NDArray[Any], velocity: Float
) -> dict[str, Image]:
    """Fit the lines in every spaxel of a bin; the model of the stars is scaled to it."""
    inside = bins.labels >= 0
    numbers = np.full(inside.shape, -1, dtype=np.int32)
    numbers[inside] = np.arange(np.count_nonzero(inside))
    places = LabelMap(numbers, wcs=bins.wcs)
    spectra = extract_spectra(slab, places, coverage=1.0, workers=cube.threads or 1)
    rows = np.searchsorted(bins.ids, bins.labels[inside])
    model = np.nan_to_num(stars[:, near])[rows]
    model *= _scales(cube, spectra, model)[:, np.newaxis]
    redshift = (1.0 + cube.redshift) * (1.0 + velocity[rows] / LIGHT) - 1.0
    fit = fit_lines(spectra, FITTED, redshift, model, velocity_range=VELOCITY_RANGE, threads=cube.threads)
    spatial = None if cube.correlation is None else cube.correlation.spatial
    maps = line_maps(fit, places, correlation=spatial, psf=cube.psf)
    record = step("fit_line_maps", n_bins=int(bins.ids.size), bin_snr=BIN_SNR, templates_scaled="per spaxel")
    images = {}
    for key in FITTED:
        image = maps[f"{key}_flux"]
        images[key] = convert_unit(image, LINE_BRIGHTNESS).evolve(record, meta={**image.meta, "line": key})
    return images


def _scales(cube: MuseCube, spectra: Spectra, model: NDArray[Any]) -> Float:
    """Factor of the stars' model in each spaxel: least squares on the channels beside the lines."""
    beside = np.ones(spectra.wave.size, dtype=bool)
    for centre in _observed(default_lines().wavelengths("vacuum"), cube.redshift, cube.medium):
        beside &= np.abs(spectra.wave - centre) > centre * 0.5 * LINE_MARGIN / LIGHT
    used = beside & ~spectra.mask
    weight = np.divide(1.0, spectra.variance, out=np.zeros(spectra.shape), where=used)
    top = np.sum(np.where(used, weight * spectra.data * model, 0.0), axis=1, dtype=np.float64)
    bottom = np.sum(weight * model.astype(np.float64) ** 2, axis=1)
    return np.divide(top, bottom, out=np.zeros(top.size), where=bottom > 0)
