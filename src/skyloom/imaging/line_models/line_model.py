"""A line map of an integral-field spectrograph, predicted at the resolution of HST from a combination of its bands.

``line = sum of weight times band``: the bands, matched to one PSF and free of sky, are resampled to the grid of the
line map with finer pixels, blurred to its PSF, brought to its pixels, and their weights fitted there. The same weights
on the unblurred bands are the model of the line at high resolution.

Bands of one galaxy resemble each other, and weights of too many of them follow the noise. Bands are therefore added one
by one, each the one that predicts best those blocks of pixels that were left out of the fit, and only while that helps.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.geometry import celestial
from skyloom.core.image import Image, Mode
from skyloom.core.noise import combine_correlation
from skyloom.core.provenance import step
from skyloom.core.psf import PSF, GaussianPSF
from skyloom.core.units import is_per_area
from skyloom.errors import AssumptionWarning, InputError, ShapeError
from skyloom.imaging.grids.derived import derived_grid
from skyloom.imaging.grids.reproject import reproject
from skyloom.imaging.line_models.band_predictor import BandPredictor, Blur
from skyloom.imaging.line_models.fit import (
    Allowed,
    LineMapData,
    choose_bands,
    free_parameters,
    parameter_covariance,
)
from skyloom.imaging.psfs.convolve import convolve

__all__ = ["LineModel", "checkerboard", "fit_line_model"]

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
LEAST_KNOWN = 0.75
FIRST_FWHM = 0.65  # arcsec, of MUSE's wide field in good seeing: where the search begins


@dataclass(frozen=True, slots=True, eq=False)
class LineModel:
    """A line map predicted from bands.

    Attributes
    ----------
    bands : tuple of str
        Those with a weight, in the order in which they were chosen.
    weights : (n,) array
        In unit of the line map over unit of the bands.
    covariance : (n, n) array
        Of the weights, with the noise of line map and bands and with what the bands do not describe; errors of
        offset, blur and shift are included.
    offset, offset_err : float
        Level of the line map, in its unit; 0 unless it was fitted.
    blur : GaussianPSF
        What leads from the PSF of the bands to that of the line map.
    fwhm_err : float
        Of the blur, arcsec; NaN when the PSF was given.
    shift : (2,) array
        By how much the line map lies off the bands, pixels of the line map (x, y).
    shift_err : (2,) array
    high_resolution : Image
        The model at the PSF of the bands, on the fine grid.
    smoothed : Image
        The same at the PSF of the line map.
    rebinned : Image
        The same on the pixels of the line map.
    residual : Image
        Line map minus ``rebinned``.
    used : (ny, nx) bool array
        Pixels of the fit.
    chi_square : float
        Of these, per degree of freedom, with the errors of the line map.
    table : QTable
        band, weight, weight_err, and ``left_out_residual``: rms on blocks left out, in errors, up to this band.
    """

    bands: tuple[str, ...]
    weights: Float
    covariance: Float
    offset: float
    offset_err: float
    blur: GaussianPSF
    fwhm_err: float
    shift: Float
    shift_err: Float
    high_resolution: Image
    smoothed: Image
    rebinned: Image
    residual: Image
    used: Mask
    chi_square: float
    table: QTable

    def residual_rms(self, where: Mask | None = None) -> float:
        """Root mean square of the residual over usable pixels, in the unit of the line map."""
        chosen = self.residual.valid if where is None else self.residual.valid & where
        if not chosen.any():
            raise InputError("no usable pixel is chosen", field="where")
        return float(np.sqrt(np.mean(np.square(self.residual.data[chosen], dtype=np.float64))))


def checkerboard(shape: tuple[int, int], side: int) -> Mask:
    """Return True on every other block of ``side`` by ``side`` pixels, as on a chess board."""
    y, x = np.indices(shape) // side
    return np.asarray((y + x) % 2 == 0)


def fit_line_model(
    bands: Mapping[str, Image],
    line_map: Image,
    *,
    oversample: int = 4,
    psf: PSF | str = "fit",
    shift: str = "fit",
    offset: str = "none",
    max_bands: int = 3,
    where: Mask | None = None,
    block_arcsec: float = 1.0,
) -> LineModel:
    """Predict a line map from a combination of bands, and give the combination at the resolution of the bands.

    Parameters
    ----------
    bands : mapping of name to Image
        Matched to one PSF and sky-subtracted; all in one unit, flux per pixel or surface brightness as the line map is.
    line_map : Image
    oversample : int
        Fine pixels along the side of a pixel of the line map.
    psf : PSF or "fit"
        PSF of the line map, if it is known. The blur is then the round Gaussian between its FWHM and that of the
        bands (or of this FWHM, when the bands do not know their own).
    shift : {"fit", "none"}
        Whether a displacement between the two is fitted.
    offset : {"none", "fit"}
        Whether the line map has a level of its own, as maps of fits do whose fluxes cannot be negative.
    max_bands : int
        Largest number of bands in the combination.
    where : (ny, nx) bool array, optional
        Pixels of the line map that may be used in the fit.
    block_arcsec : float
        Side of the blocks that are left out together; broader than the PSF, because neighbours share their noise.

    Returns
    -------
    LineModel

    Raises
    ------
    ShapeError
        When ``where`` is not of the shape of the line map.
    InputError
        When the units do not fit together, nothing overlaps, or too few pixels are left.

    Notes
    -----
    Weighted least squares in the weights, with PSF and shift by variable projection (Golub & Pereyra 1973,
    10.1137/0710036). For the errors see `line_model_fit.parameter_covariance`. Variance of the model:
    ``sum w_i^2 v_i``, and the covariance of the weights as shared modes ``sum_i e_i band_i``, e its eigenvectors.
    The residual has the error of the offset as one more mode. Fine pixels that no band knows count as empty where the
    blur is predicted; a pixel of the line map is used when at least 0.9 of its blur lies on known ones, and the
    predicted maps are masked elsewhere.
    """
    _check(bands, line_map, oversample, max_bands, {"shift": shift, "offset": offset})
    images, predictor = _on_fine_grid(bands, line_map, oversample)
    settings = Allowed(_allowed(line_map, where), _first_fwhm(psf, next(iter(images.values())).psf))
    data = LineMapData(line_map, predictor, settings, _blocks(line_map, block_arcsec), offset == "fit")
    with_psf, with_shift = psf == "fit", shift == "fit"
    first = Blur(settings.fwhm / line_map.pixel_scale)
    chosen, left_out, blur = choose_bands(data, first, max_bands, with_psf, with_shift)
    _warn_at_limit(data, blur, with_psf, with_shift)
    used = data.settled(blur)
    solution, n = data.solve(blur, chosen, used), len(chosen)
    names = tuple(list(images)[index] for index in chosen)
    parts, level = [images[name] for name in names], float(solution[n:].sum())
    plain = _combined(parts, _Model(names, solution[:n], np.zeros((n, n))), line_map)
    expected = _observed(plain, line_map, blur, oversample, (level, 0.0))[2]
    free = free_parameters(with_psf, with_shift)
    covariance = parameter_covariance(data, blur, chosen, free, used & expected.valid, expected)
    errors = np.sqrt(np.diag(covariance))
    blur_errors = np.array([np.nan, 0.0, 0.0])
    blur_errors[free] = errors[len(errors) - len(free) :]
    level_err = float(errors[n]) if offset == "fit" else 0.0
    model = _Model(names, solution[:n], covariance[:n, :n])
    high = _combined(parts, model, line_map)
    smoothed, rebinned, residual = _observed(high, line_map, blur, oversample, (level, level_err))
    table = _table(model, left_out, line_map.unit / parts[0].unit, line_map.unit)
    return LineModel(
        names, model.weights, model.covariance, level, level_err,
        GaussianPSF(blur.fwhm * line_map.pixel_scale), float(blur_errors[0]) * line_map.pixel_scale,
        np.array([blur.shift_x, blur.shift_y]), blur_errors[1:],
        high, smoothed, rebinned, residual, used, data.chi_square(blur, chosen, used), table,
    )  # fmt: skip


# --- input ----------------------------------------------------------------------------------------------------------


def _check(
    bands: Mapping[str, Image],
    line_map: Image,
    oversample: int,
    max_bands: int,
    choices: Mapping[str, str],
) -> None:
    if not bands:
        raise InputError("there is no band", field="bands")
    for name, value in choices.items():
        if value not in ("fit", "none"):
            raise InputError(f"{name} is {value!r}", field=name, remedy="use fit or none")
    for name, number in (("oversample", oversample), ("max_bands", max_bands)):
        if number < 1:
            raise InputError(f"{name} is {number}; expected at least 1", field=name)
    celestial(line_map.wcs, "a line model")
    first, *others = bands.items()
    for name, image in others:
        if image.unit != first[1].unit:
            raise InputError(
                f"band {name} is in {image.unit}, band {first[0]} in {first[1].unit}",
                field="bands",
                remedy="convert them to one unit",
            )
    if is_per_area(first[1].unit) != is_per_area(line_map.unit):
        raise InputError(
            f"the bands are in {first[1].unit}, the line map in {line_map.unit}",
            field="bands",
            remedy="give both per pixel, or both per area",
        )


def _allowed(line_map: Image, where: Mask | None) -> Mask:
    usable = line_map.valid if where is None else np.asarray(where, dtype=bool)
    if usable.shape != line_map.shape:
        raise ShapeError(f"where has shape {usable.shape}; expected {line_map.shape}", field="where")
    return np.asarray(usable & line_map.valid)


def _first_fwhm(psf: PSF | str, of_bands: PSF | None) -> float:
    """FWHM of the blur, or where its fit begins, arcsec."""
    if isinstance(psf, str):
        if psf != "fit":
            raise InputError(f"psf is {psf!r}", field="psf", remedy="give a PSF, or fit")
        return FIRST_FWHM
    sharper = 0.0 if of_bands is None else of_bands.fwhm
    if psf.fwhm <= sharper:
        raise InputError(
            f"the PSF of the line map (FWHM {psf.fwhm:.3g} arcsec) is not broader than that of the bands "
            f"({sharper:.3g} arcsec)",
            field="psf",
            remedy="match the bands to a sharper PSF, or have the blur fitted",
        )
    return float(np.sqrt(psf.fwhm**2 - sharper**2))


def _warn_at_limit(data: LineMapData, blur: Blur, with_psf: bool, with_shift: bool) -> None:
    free = {"the width of the blur": with_psf, "the shift": with_shift}
    names = [name for name in data.at_limit(blur) if free[name]]
    if names:
        warnings.warn(
            f"line model: {' and '.join(names)} reached the limit of the fit; check WCS and PSF, or give them",
            AssumptionWarning,
            stacklevel=3,
        )


def _on_fine_grid(
    bands: Mapping[str, Image], line_map: Image, oversample: int
) -> tuple[dict[str, Image], BandPredictor]:
    assert line_map.wcs is not None  # checked by the caller
    grid = derived_grid(line_map.wcs, line_map.shape, factor=oversample)
    images = _complete({name: reproject(image, grid) for name, image in bands.items()})
    predictor = BandPredictor.prepare(
        list(images.values()), line_map.shape, oversample, per_area=is_per_area(line_map.unit)
    )
    return images, predictor


def _complete(images: dict[str, Image]) -> dict[str, Image]:
    """Leave out bands that know much less of the field than the others: only what all know can be used."""
    known = {name: int(np.count_nonzero(image.mask == 0)) for name, image in images.items()}
    most = max(known.values())
    poor = [name for name, number in known.items() if number < LEAST_KNOWN * most]
    if poor:
        warnings.warn(
            f"{', '.join(poor)}: left out of the line model, more than {1 - LEAST_KNOWN:.0%} of the pixels that"
            " other bands know are masked",
            AssumptionWarning,
            stacklevel=4,
        )
    return {name: image for name, image in images.items() if name not in poor}


def _blocks(line_map: Image, side_arcsec: float) -> NDArray[np.int64]:
    """(ny, nx) number of the block that each pixel is in."""
    side = max(1, round(side_arcsec / line_map.pixel_scale))
    y, x = np.indices(line_map.shape) // side
    return np.asarray(y * (x.max() + 1) + x)


# --- products -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    bands: tuple[str, ...]
    weights: Float
    covariance: Float


def _combined(images: Sequence[Image], model: _Model, line_map: Image) -> Image:
    """The weighted sum of bands, in the unit of the line map per fine pixel."""
    first = images[0]
    known = np.logical_and.reduce([image.valid for image in images])
    data, variance = np.zeros(first.shape), np.zeros(first.shape)
    for weight, image in zip(model.weights, images, strict=True):
        data += np.where(known, weight * image.data, 0.0)
        variance += np.where(known, weight**2 * image.variance, 0.0)
    modes = [
        Mode(f"{mode.name}, {name}", weight * np.asarray(mode.map), mode.sigma)
        for name, weight, image in zip(model.bands, model.weights, images, strict=True)
        for mode in image.modes
    ]
    values, vectors = np.linalg.eigh(model.covariance)
    for number, (value, vector) in enumerate(zip(values, vectors.T, strict=True), start=1):
        pattern = sum(
            share * np.where(known, image.data, 0.0) for share, image in zip(vector, images, strict=True)
        )
        if value > 0.0:
            plane = np.asarray(pattern, dtype=np.float32)
            modes.append(Mode(f"weights of the bands {number}", plane, float(np.sqrt(value))))
    typical = [
        weight**2 * float(np.median(image.variance[known]))
        for weight, image in zip(model.weights, images, strict=True)
    ]
    recipe = {name: float(weight) for name, weight in zip(model.bands, model.weights, strict=True)}
    return Image(
        np.where(known, data, np.nan), variance, ~known, line_map.unit, first.wcs, psf=first.psf,
        correlation=combine_correlation(typical, [image.correlation for image in images]),
        modes=tuple(modes), meta={"line_model": recipe},
        history=(*first.history, step("fit_line_model", **recipe)),
    )  # fmt: skip


def _observed(
    high: Image, line_map: Image, blur: Blur, oversample: int, offset: tuple[float, float]
) -> tuple[Image, Image, Image]:
    """The model as the instrument of the line map sees it: blurred, in its pixels; and what the map has beyond it.

    ``offset``: level of the line map, and its error.
    """
    scale = line_map.pixel_scale
    kernel = GaussianPSF(blur.fwhm * scale)
    width = max(blur.sigma * oversample, 0.3)
    radius = int(np.ceil(4.0 * width)) + 1
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
    line /= line.sum()
    psf = None
    if isinstance(high.psf, GaussianPSF):
        psf = GaussianPSF.from_covariance(high.psf.covariance + kernel.covariance)
    elif high.psf is not None:
        # The blur is Gaussian and much the broader of the two, so the shape of the bands' PSF hardly shows.
        psf = GaussianPSF(float(np.hypot(high.psf.fwhm, kernel.fwhm)))
    smoothed = convolve(high, np.outer(line, line), psf=psf)
    # The line map lies off by the shift: its pixels are looked up where the bands have them.
    assert line_map.wcs is not None  # checked by the caller
    grid = line_map.wcs.deepcopy()
    grid.wcs.crpix = np.add(grid.wcs.crpix, (blur.shift_x, blur.shift_y))
    grid.wcs.set()
    rebinned = reproject(smoothed, (grid, line_map.shape), "area").evolve(wcs=line_map.wcs)
    usable = rebinned.valid & line_map.valid
    difference = np.where(usable, line_map.data - rebinned.data - offset[0], np.nan)
    variance = np.where(usable, line_map.variance + rebinned.variance, 1.0)
    level = (Mode("level of the line map", -1.0, offset[1]),) if offset[1] > 0 else ()
    weights = [float(np.median(plane[usable])) for plane in (line_map.variance, rebinned.variance)]
    residual = Image(
        difference, variance, ~usable, line_map.unit, line_map.wcs, psf=line_map.psf,
        correlation=combine_correlation(weights, [line_map.correlation, rebinned.correlation]),
        modes=(*line_map.modes, *rebinned.modes, *level), meta=dict(line_map.meta),
        history=(*line_map.history, step("subtract_line_model", offset=offset[0])),
    )  # fmt: skip
    return smoothed, rebinned, residual


def _table(model: _Model, left_out: Sequence[float], unit: u.UnitBase, line_unit: u.UnitBase) -> QTable:
    table = QTable({"band": list(model.bands)})
    table["weight"] = model.weights * unit
    table["weight_err"] = np.sqrt(np.diag(model.covariance)) * unit
    table["left_out_residual"] = np.asarray(left_out) * u.dimensionless_unscaled
    table[
        "left_out_residual"
    ].info.description = "rms on blocks left out, in errors of the line map, up to this band"
    table.meta["line_unit"] = line_unit.to_string()
    return table
