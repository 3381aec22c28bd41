"""The fit of a line model: which bands, their weights, the blur between them and the line map, and all the errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from skyloom.core.image import Image
from skyloom.errors import InputError
from skyloom.imaging.band_predictor import BandPredictor, Blur

__all__ = ["FEWEST_PER_PARAMETER", "Allowed", "LineMapData", "choose_bands", "weight_covariance"]

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
FWHM_RANGE = (0.15, 2.0)  # arcsec
LARGEST_SHIFT = 0.4  # arcsec
FEWEST_PER_PARAMETER = 8
FOLDS = 5
PROMISING = 3
GAIN = 0.02
"""Least relative fall of the residual on blocks left out that a further band must bring."""


@dataclass(frozen=True, slots=True, eq=False)
class Allowed:
    """Pixels that may be used, and the width in arcsec at which the search for the blur begins."""

    where: Mask
    fwhm: float


@dataclass(frozen=True, slots=True, eq=False)
class LineMapData:
    """The line map, and what the bands predict for it."""

    line_map: Image
    predictor: BandPredictor
    settings: Allowed
    blocks: NDArray[np.int64]
    with_offset: bool

    def settled(self, blur: Blur) -> Mask:
        """Pixels of the fit.

        Raises
        ------
        InputError
            When there are too few.
        """
        used = self.settings.where & self.predictor.covered(blur)
        if np.count_nonzero(used) < 2 * FEWEST_PER_PARAMETER:
            raise InputError(
                f"{np.count_nonzero(used)} pixels of the line map can be predicted; expected at least "
                f"{2 * FEWEST_PER_PARAMETER}",
                source=self.line_map.meta.get("path"),
                field="bands",
                remedy="check that the images overlap, and their masks",
            )
        return used

    def design(self, blur: Blur, bands: Sequence[int], used: Mask) -> Float:
        """(n_pixels, n_parameters) matrix over the standard errors of the line map."""
        columns = list(self.predictor.predict(blur, bands)[:, used])
        if self.with_offset:
            columns.append(np.ones(columns[0].size))
        return np.asarray(np.stack(columns, axis=1) / self._errors(used)[:, np.newaxis])

    def values(self, used: Mask) -> Float:
        """(n_pixels,) line map over its standard errors."""
        return np.asarray(self.line_map.data[used] / self._errors(used))

    def _errors(self, used: Mask) -> Float:
        return np.asarray(np.sqrt(self.line_map.variance[used].astype(np.float64)))

    @property
    def n_bands(self) -> int:
        """Number of bands there are to choose from."""
        return int(self.predictor.transforms.shape[0])

    def left_out(self, blur: Blur, sets: Sequence[Sequence[int]]) -> list[float]:
        """For each set of bands, the rms residual, in errors, on blocks that did not take part in the fit."""
        used = self.settled(blur)
        design, values = self.design(blur, range(self.n_bands), used), self.values(used)
        folds = _folds(self.blocks[used])
        offset = [self.n_bands] if self.with_offset else []
        return [_left_out(design[:, [*bands, *offset]], values, folds) for bands in sets]

    def solve(self, blur: Blur, bands: Sequence[int], used: Mask) -> Float:
        """Weights of the bands, and the offset if it is fitted."""
        return _least_squares(self.design(blur, bands, used), self.values(used))

    def chi_square(self, blur: Blur, bands: Sequence[int], used: Mask) -> float:
        """Chi-square per degree of freedom."""
        design, values = self.design(blur, bands, used), self.values(used)
        residual = values - design @ _least_squares(design, values)
        return float(residual @ residual / max(1, values.size - design.shape[1]))

    def refine(self, blur: Blur, bands: Sequence[int], with_psf: bool, with_shift: bool) -> Blur:
        """Fit the width of the blur and the shift, as far as they are free."""
        free = _free(with_psf, with_shift)
        if not free:
            return blur
        # The same pixels throughout, or the sum of squares would jump where pixels come and go.
        used = self.settled(replace(blur, fwhm=1.3 * blur.fwhm))
        scale = self.line_map.pixel_scale
        low = np.array([FWHM_RANGE[0], -LARGEST_SHIFT, -LARGEST_SHIFT]) / scale
        high = np.array([FWHM_RANGE[1], LARGEST_SHIFT, LARGEST_SHIFT]) / scale
        start = np.clip(_vector(blur), low + 1e-3, high - 1e-3)
        found = optimize.least_squares(
            lambda part: self._residual(_changed(start, free, part), bands, used),
            start[free],
            bounds=(low[free], high[free]),
            diff_step=1e-3,
            x_scale=np.full(len(free), 0.1),
        )
        return Blur(*_changed(start, free, found.x))

    def blur_errors(
        self, blur: Blur, bands: Sequence[int], with_psf: bool, with_shift: bool
    ) -> tuple[float, float, float]:
        """Standard errors of width and shift: curvature of chi-square, times chi-square where that is above 1."""
        free = _free(with_psf, with_shift)
        errors = np.array([np.nan, 0.0, 0.0])
        if free:
            used = self.settled(replace(blur, fwhm=1.3 * blur.fwhm))
            centre = _vector(blur)
            jacobian = np.stack(
                [
                    (self._residual(_nudged(centre, k, 0.01), bands, used)
                     - self._residual(_nudged(centre, k, -0.01), bands, used)) / 0.02
                    for k in free
                ],
                axis=1,
            )  # fmt: skip
            scale = max(1.0, self.chi_square(blur, bands, used))
            errors[free] = np.sqrt(scale * np.diag(np.linalg.pinv(jacobian.T @ jacobian)))
        return float(errors[0]), float(errors[1]), float(errors[2])

    def _residual(self, parameters: Float, bands: Sequence[int], used: Mask) -> Float:
        blur = Blur(*parameters)
        design, values = self.design(blur, bands, used), self.values(used)
        return np.asarray(values - design @ _least_squares(design, values))


def _free(with_psf: bool, with_shift: bool) -> list[int]:
    return [0] * with_psf + [1, 2] * with_shift


def _vector(blur: Blur) -> Float:
    return np.array([blur.fwhm, blur.shift_x, blur.shift_y])


def _changed(start: Float, free: list[int], part: Float) -> Float:
    parameters = start.copy()
    parameters[free] = part
    return parameters


def _nudged(centre: Float, index: int, by: float) -> Float:
    return _changed(centre, [index], centre[[index]] + by)


def _least_squares(design: Float, values: Float) -> Float:
    return np.asarray(np.linalg.lstsq(design, values, rcond=1e-10)[0])


def choose_bands(
    data: LineMapData, blur: Blur, most: int, with_psf: bool, with_shift: bool
) -> tuple[list[int], list[float], Blur]:
    """Add bands one by one while they help to predict blocks that are left out.

    Returns
    -------
    chosen : list of int
    residuals : list of float
        On blocks left out, in errors of the line map, after each band.
    blur : Blur
        Fitted together with the chosen bands.
    """
    chosen: list[int] = []
    residuals: list[float] = []
    while len(chosen) < min(most, data.n_bands):
        rest = [index for index in range(data.n_bands) if index not in chosen]
        rough = data.left_out(blur, [[*chosen, index] for index in rest])
        # The blur that suits one band need not suit a pair: the most promising ones get a blur of their own.
        promising = [rest[place] for place in np.argsort(rough)[:PROMISING]]
        fits = [data.refine(blur, [*chosen, index], with_psf, with_shift) for index in promising]
        scores = [
            data.left_out(fit, [[*chosen, index]])[0] for index, fit in zip(promising, fits, strict=True)
        ]
        best = int(np.argmin(scores))
        if residuals and scores[best] > (1.0 - GAIN) * residuals[-1]:
            break
        chosen.append(promising[best])
        residuals.append(scores[best])
        blur = fits[best]
    return chosen, residuals, blur


def _folds(blocks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fold of each pixel: blocks are dealt out in turn, in an order that scatters neighbours."""
    ids, place = np.unique(blocks, return_inverse=True)
    order = np.random.default_rng(0).permutation(ids.size)
    return np.asarray(order[place] % min(FOLDS, ids.size))


def _left_out(design: Float, values: Float, folds: NDArray[np.int64]) -> float:
    """Root mean square of the residual, in errors, of pixels that did not take part in the fit."""
    total = 0.0
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        weights = _least_squares(design[~out], values[~out])
        total += float(np.sum((values[out] - design[out] @ weights) ** 2))
    return float(np.sqrt(total / values.size))


def weight_covariance(
    data: LineMapData, blur: Blur, bands: Sequence[int], used: Mask, solution: Float
) -> Float:
    """Covariance of the weights from leaving out one block at a time; at least that of the noise."""
    design, values = data.design(blur, bands, used), data.values(used)
    noise = np.linalg.pinv(design.T @ design)
    ids = np.unique(data.blocks[used])
    if ids.size <= 2 * solution.size:
        return np.asarray(noise * max(1.0, data.chi_square(blur, bands, used)))
    member = data.blocks[used]
    normal, right = design.T @ design, design.T @ values
    changes = []
    for block in ids:
        part = design[member == block]
        without = np.linalg.lstsq(
            normal - part.T @ part, right - part.T @ values[member == block], rcond=1e-12
        )[0]
        changes.append(without - solution)
    spread = np.array(changes)
    covariance = (ids.size - 1) / ids.size * spread.T @ spread
    smallest = float(np.min(np.diag(covariance) / np.diag(noise)))
    return np.asarray(covariance if smallest >= 1.0 else covariance / max(smallest, 1e-12))
