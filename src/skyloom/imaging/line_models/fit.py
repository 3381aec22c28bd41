"""The fit of a line model: which bands, their weights, the blur between them and the line map, and all the errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.errors import InputError
from skyloom.imaging.line_models.band_predictor import BandPredictor, Blur

__all__ = [
    "FEWEST_PER_PARAMETER",
    "Allowed",
    "LineMapData",
    "choose_bands",
    "free_parameters",
    "parameter_covariance",
]

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
FWHM_RANGE = (0.15, 2.0)  # arcsec
LARGEST_SHIFT = 0.4  # arcsec
FEWEST_PER_PARAMETER = 8
FOLDS = 5
NUDGE = 0.01  # Pixels; of width and shift, for derivatives.
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
        free = free_parameters(with_psf, with_shift)
        if not free:
            return blur
        # The same pixels throughout, or the sum of squares would jump where pixels come and go.
        used = self.settled(replace(blur, fwhm=1.3 * blur.fwhm))
        scale = self.line_map.pixel_scale
        low = np.array([FWHM_RANGE[0], -LARGEST_SHIFT, -LARGEST_SHIFT]) / scale
        high = np.array([FWHM_RANGE[1], LARGEST_SHIFT, LARGEST_SHIFT]) / scale
        start = np.clip(_vector(blur), low + 1e-3, high - 1e-3)
        from scipy import optimize  # It takes long to load.

        found = optimize.least_squares(
            lambda part: self._residual(_changed(start, free, part), bands, used),
            start[free],
            jac=lambda part: self._slopes(_changed(start, free, part), free, bands, used),
            bounds=(low[free], high[free]),
            x_scale=np.full(len(free), 0.1),
        )
        return Blur(*_changed(start, free, found.x))

    def at_limit(self, blur: Blur) -> list[str]:
        """Name what the fit could not take further: the width, or the shift."""
        scale = self.line_map.pixel_scale
        fwhm, shift = blur.fwhm * scale, max(abs(blur.shift_x), abs(blur.shift_y)) * scale
        close = 0.01 * scale
        low, high = FWHM_RANGE
        names = ["the width of the blur"] if not low + close < fwhm < high - close else []
        return names + (["the shift"] if shift > LARGEST_SHIFT - close else [])

    def blur_slopes(
        self, blur: Blur, bands: Sequence[int], weights: Float, free: list[int], used: Mask
    ) -> Float:
        """(n_pixels, n_free) derivative of the model, over the errors, by width and shift in pixels."""

        def model(by: float, index: int) -> Float:
            moved = Blur(*_nudged(_vector(blur), index, by))
            return np.asarray(self.design(moved, bands, used)[:, : len(bands)] @ weights)

        return np.stack([(model(NUDGE, k) - model(-NUDGE, k)) / (2 * NUDGE) for k in free], axis=1)

    def _slopes(self, parameters: Float, free: list[int], bands: Sequence[int], used: Mask) -> Float:
        """Derivative of the residual by what is free, the weights following."""
        return np.stack(
            [
                (
                    self._residual(_nudged(parameters, k, NUDGE), bands, used)
                    - self._residual(_nudged(parameters, k, -NUDGE), bands, used)
                )
                / (2 * NUDGE)
                for k in free
            ],
            axis=1,
        )

    def _residual(self, parameters: Float, bands: Sequence[int], used: Mask) -> Float:
        blur = Blur(*parameters)
        design, values = self.design(blur, bands, used), self.values(used)
        return np.asarray(values - design @ _least_squares(design, values))


def free_parameters(with_psf: bool, with_shift: bool) -> list[int]:
    """Places in (width, shift along x, along y) of what is fitted."""
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


def parameter_covariance(
    data: LineMapData, blur: Blur, bands: Sequence[int], free: list[int], used: Mask, expected: Image
) -> Float:
    """Covariance of weights, offset, width and shift together.

    Parameters
    ----------
    data : LineMapData
    blur : Blur
    bands, free : list of int
        What was fitted.
    used : (ny, nx) bool array
    expected : Image
        The residual, whose variance and correlation hold the noise of the line map and of the bands.

    Returns
    -------
    (n, n) array
        Weights first, then the offset if there is one, then what is free of width and shift (pixels).

    Notes
    -----
    Two estimates, of which the larger variance of each parameter counts. ``B M B'`` with ``B = (X'X)^-1``, X the
    derivatives of the model over the errors and M that of the expected noise, correlation included, times chi-square
    where that is above 1. And ``(n-1)/n sum d d'`` with d the change when one block of pixels is left out: it holds
    what the bands do not describe, which is correlated over the PSF and no noise. Where few blocks hold the light the
    second is itself uncertain, and rather too small.
    """
    linear, values = data.design(blur, bands, used), data.values(used)
    solution = _least_squares(linear, values)
    slopes = data.blur_slopes(blur, bands, solution[: len(bands)], free, used) if free else linear[:, :0]
    design = np.concatenate([linear, slopes], axis=1)
    size = np.linalg.norm(design, axis=0)
    design = design / np.where(size > 0, size, 1.0)
    bread = np.linalg.pinv(design.T @ design, rcond=1e-12, hermitian=True)
    residual = values - linear @ solution
    ratio = np.sqrt(expected.variance[used] / data.line_map.variance[used])
    excess = max(1.0, float(np.sum((residual / ratio) ** 2)) / max(1, values.size - design.shape[1]))
    noise = _between(design * ratio[:, np.newaxis], used, lambda plane: _correlated(plane, expected)) * excess
    low = bread @ noise @ bread
    high = _without_blocks(design, residual, data.blocks[used])
    larger = np.sqrt(np.maximum(1.0, _ratio(np.diag(high), np.diag(low))))
    covariance = low * np.outer(larger, larger)
    scale = 1.0 / np.where(size > 0, size, 1.0)
    return np.asarray(covariance * np.outer(scale, scale))


def _ratio(above: Float, below: Float) -> Float:
    return np.divide(above, below, out=np.ones_like(above), where=below > 0)


def _between(columns: Float, used: Mask, neighbours: Callable[[Float], Float]) -> Float:
    """``columns' K columns``, where K, applied to a map by ``neighbours``, says how much pixels belong together."""
    gathered = []
    for column in columns.T:
        plane = np.zeros(used.shape)
        plane[used] = column
        gathered.append(neighbours(plane)[used])
    product = columns.T @ np.stack(gathered, axis=1)
    return np.asarray((product + product.T) / 2)


def _correlated(plane: Float, image: Image) -> Float:
    if image.correlation is None:
        return plane
    from scipy import signal  # It takes longer to load than all else here.

    return np.asarray(signal.fftconvolve(plane, image.correlation, mode="same"))


def _without_blocks(design: Float, residual: Float, blocks: NDArray[np.int64]) -> Float:
    """Covariance from leaving out one block of pixels at a time, the model linear in all its parameters."""
    normal, changes = design.T @ design, []
    for block in np.unique(blocks):
        part = design[blocks == block]
        rest = normal - part.T @ part
        changes.append(np.linalg.pinv(rest, rcond=1e-9, hermitian=True) @ part.T @ residual[blocks == block])
    spread = np.array(changes)
    return np.asarray((1.0 - 1.0 / len(changes)) * spread.T @ spread)
