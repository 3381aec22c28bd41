"""The fit behind `skyloom.imaging.psfs.psf_fit.fit_kernel`: spectra made once, a few transforms per step.

The sharp image is averaged onto pixels that divide those of the reference. Its spectrum is cut to the frequencies
that the reference can hold, which is all that the kernel leaves; with the transfer function of the blocks it becomes,
times the kernel's transform, the model on the grid of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from skyloom.core.image import Image
from skyloom.core.noise import wrapped_correlation
from skyloom.errors import InputError
from skyloom.imaging.psfs.kernel_profiles import RadialTransform

__all__ = ["NARROWEST", "KernelProblem", "Solution", "State", "not_broader"]

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
FEWEST_PIXELS = 100
COVERAGE = 0.98
"""Share of the kernel that must lie on usable pixels of the sharp image."""
WIDTHS = 1.3 * 1.45 ** np.arange(8)
"""Widths tried first, in pixels of the reference."""
BETAS = (1.15, 25.0)
ALIKE = 0.3
"""Least correlation of the images at the start, before their noise is allowed for."""
NARROWEST = 1.0
"""Width in pixels of the reference below which a kernel is none: the reference is as sharp as the image."""
STEPS = 40
RENEWALS = 6
"""Of the weights, and of the share of the noise that is taken off."""
SETTLED = 0.03
ROUGHLY = 0.5
"""Steps, in units of the error, at which the fit has settled, and at which weights are worth renewing."""
LONGEST = np.array([0.3, 0.15, 0.7, 0.7])
"""Longest step: of the width relative to it, of 1 / beta, and of the shifts in pixels."""


@dataclass(frozen=True, slots=True)
class State:
    """Nonlinear parameters: the width in arcsec, 1 / beta, and the shift in pixels of the reference."""

    fwhm: float
    inverse_beta: float
    shift_x: float = 0.0
    shift_y: float = 0.0


def not_broader(fwhm: float, scale: float) -> InputError:
    """Return the error for a kernel too narrow to be one."""
    return InputError(
        f'the reference is not broader than the image: kernel of FWHM {fwhm:.3f}", pixels of {scale:.3f}"',
        field="reference",
        remedy="exchange the two images, or use them as they are",
    )


class Solution(NamedTuple):
    """A settled fit; parameters are (fwhm, [1 / beta,] shift x, shift y, slope, offset)."""

    state: State
    slope: float
    offset: float
    covariance: Float
    chi_square: float
    correlation: float
    agreement: float
    n_pixels: int


class KernelProblem:
    """One fit: the spectrum of the sharp image and the pixels of the reference.

    Parameters
    ----------
    fine : Image
        The sharp image, averaged onto the reference's grid with a margin, divided into ``factor`` by ``factor``.
    reference : Image
    used : (ny, nx) bool array
        Pixels of the reference that may count.
    margin, factor : int
    model : {"gaussian", "moffat"}
    start : State
        Fills gaps of the sharp image and tells how far the kernel reaches.
    """

    def __init__(
        self, fine: Image, reference: Image, used: Mask, margin: int, factor: int, model: str, start: State
    ) -> None:
        self.start, self.model, self.factor = start, model, factor
        ny, nx = reference.shape
        self._window = (slice(margin, margin + ny), slice(margin, margin + nx))
        sides = tuple(2 * fft.next_fast_len((side + 2 * margin + 1) // 2) for side in (ny, nx))
        self._shape = (sides[0], sides[1])
        self._pixels = int(np.prod(self._shape))
        fy, fx = fft.fftfreq(self._shape[0])[:, np.newaxis], fft.rfftfreq(self._shape[1])[np.newaxis, :]
        # What stands at x in the reference stands at x + shift in the sharp image.
        self._phase_x, self._phase_y = 2j * np.pi * fx, 2j * np.pi * fy
        to_sky = np.linalg.inv(reference.pixel_matrix)
        self._transform = RadialTransform(
            model,
            np.hypot(fx * to_sky[0, 0] + fy * to_sky[1, 0], fx * to_sky[0, 1] + fy * to_sky[1, 1]),
        )
        self._scale = reference.pixel_scale
        self._share = np.where((fx == 0.0) | (fx == 0.5), 1.0, 2.0) / self._pixels
        self._blocks = _block_transfer(fy, factor) * _block_transfer(fx, factor) / factor**2
        self._blocks = np.where((np.abs(fy) == 0.5) | (fx == 0.5), 0.0, self._blocks)
        data, variance, present = self._embedded(fine)
        kernel = self._transform(start.fwhm, start.inverse_beta)
        coverage = self._smooth(present, kernel)
        inside = present[: ny + 2 * margin, : nx + 2 * margin]
        self.complete = bool(inside.min() == 1.0)
        if present.min() < 1.0:
            fill = self._smooth(_blocks(data, factor), kernel) / np.maximum(coverage, 1e-3)
            usual = _blocks(variance, factor).sum() / max(1.0, present.sum())
            holes = self._holes
            data = data + np.where(holes, _spread(fill, factor), 0.0)
            variance = variance + np.where(holes, usual, 0.0)
        self.spectrum = self._cut(fft.rfft2(data)) * self._blocks
        plane = self._smooth(_blocks(variance, factor), kernel)
        self.noise = np.maximum(plane, 1e-3 * float(np.median(plane)))[self._window]
        self.used = used & (coverage[self._window] >= COVERAGE)
        fine_power = self._cut(_power(fine.correlation, tuple(factor * side for side in self._shape)))
        self.power: Float = fine_power.real * np.abs(self._blocks * factor) ** 2
        self._reference_power = _power(reference.correlation, self._shape).real
        n_used = int(np.count_nonzero(self.used))
        if n_used < FEWEST_PIXELS:
            raise InputError(
                f"only {n_used} pixels are usable in both images, with all of the kernel on the sharp one; "
                f"{FEWEST_PIXELS} are needed",
                field="mask",
                remedy="check that the images overlap, and their masks",
            )
        self._data = reference.data[self.used].astype(np.float64)
        self._variance = reference.variance[self.used].astype(np.float64)

    def _embedded(self, fine: Image) -> tuple[Float, Float, Float]:
        """Return data and variance on the periodic frame, 0 where unusable, and the usable share of each pixel."""
        frame = tuple(self.factor * side for side in self._shape)
        ny, nx = fine.shape
        planes = np.zeros((2, *frame))
        self._holes = np.ones(frame, bool)
        self._holes[:ny, :nx] = fine.mask
        for plane, values in zip(planes, (fine.data, fine.variance), strict=True):
            np.copyto(plane[:ny, :nx], values, where=~fine.mask)
        present = _blocks((~self._holes).astype(np.float64), self.factor)
        return planes[0], planes[1], present

    def _cut(self, spectrum: NDArray[np.complexfloating]) -> NDArray[np.complexfloating]:
        """Keep the frequencies that pixels of the reference can hold."""
        rows, columns = self._shape[0] // 2, self._shape[1] // 2 + 1
        return np.concatenate([spectrum[:rows, :columns], spectrum[-rows:, :columns]])

    def _smooth(self, plane: Float, kernel: Float) -> Float:
        return np.asarray(fft.irfft2(fft.rfft2(plane) * kernel, self._shape))

    def _model(self, spectrum: NDArray[np.complexfloating]) -> Float:
        return np.asarray(fft.irfft2(spectrum, self._shape)[self._window][self.used])

    def _kernel(self, state: State) -> tuple[Float, NDArray[np.complexfloating]]:
        """Return the kernel's transform, and the model's spectrum with it."""
        kernel = self._transform(state.fwhm, state.inverse_beta)
        phase = np.exp(state.shift_x * self._phase_x) * np.exp(state.shift_y * self._phase_y)
        return kernel, self.spectrum * phase * kernel

    def matched(self, state: State) -> Float:
        """Return the (ny, nx) sharp image with the kernel on the reference's grid."""
        return np.asarray(fft.irfft2(self._kernel(state)[1], self._shape)[self._window])

    def gain(self, kernel: Float) -> float:
        """Variance of the convolved noise in units of that on the fine pixels."""
        return float(np.sum(self._share * self.power * kernel**2))

    def scan(self, inverse_beta: float, scale: float) -> State:
        """Return the best of a few widths, from narrow to wide."""
        weight = 1.0 / self._variance
        trials = []
        for width in WIDTHS * scale:
            state = State(float(width), inverse_beta)
            slope, _, cost = self._linear(self._model(self._kernel(state)[1]), weight, 0.0)
            trials.append((cost if slope > 0 else np.inf, state))
        return min(trials, key=lambda trial: trial[0])[1]

    def _linear(self, light: Float, weight: Float, excess: float) -> tuple[float, float, float]:
        """Return slope, offset and cost of a model plane; ``excess`` is what its noise adds to its square."""
        total, first, level = float(weight.sum()), _dot(weight, light), _dot(weight, self._data)
        second, mixed = _dot(weight, light, light) - excess, _dot(weight, light, self._data)
        determinant = second * total - first**2
        slope = (mixed * total - first * level) / determinant if determinant > 0 else 0.0
        offset = (level - slope * first) / total
        residual = self._data - slope * light - offset
        return slope, offset, 0.5 * (_dot(weight, residual, residual) - slope**2 * excess)

    def solve(self, start: State, share: float | None = None) -> Solution:
        """Fit kernel, shift, slope and offset.

        Levenberg-Marquardt on the kernel and the shift, slope and offset solved for at every trial. Weights are
        renewed until they hold still; what the noise of the sharp image adds to the squares is taken off, or the
        ``share`` of it that residuals show to be there.
        """
        state, noise = start, self.noise[self.used]
        slope = self._linear(self._model(self._kernel(state)[1]), 1.0 / self._variance, 0.0)[0]
        self._check_start(state, slope)
        # Noise that is claimed but not there must not be taken off: residuals below it show how much there is.
        settled = ROUGHLY if share is None else SETTLED
        share = 0.0 if share is None else share
        for _ in range(RENEWALS):
            before = slope, share
            weight = 1.0 / (self._variance + slope**2 * self.gain(self._kernel(state)[0]) * noise)
            excess = share * _dot(weight, noise)
            state, slope, offset, normal, jacobian = self._descend(state, weight, excess, settled)
            share = min(1.0, self._chi_square(state, slope, offset))
            if settled == SETTLED and abs(slope / before[0] - 1.0) < 0.02 and abs(share - before[1]) < 0.05:
                break
            settled = SETTLED
        return self._judged(state, slope, offset, normal, jacobian, weight)

    def _check_start(self, state: State, slope: float) -> None:
        """Raise where there is nothing to fit a kernel to."""
        light = self._model(self._kernel(state)[1])
        flat = [
            name for name, values in (("image", light), ("reference", self._data)) if not np.ptp(values) > 0
        ]
        if flat:
            raise InputError(
                f"the {flat[0]} is the same everywhere: nothing tells how broad a kernel is", field=flat[0]
            )
        correlation = float(np.corrcoef(light, self._data)[0, 1])
        if not (slope > 0.0 and correlation > ALIKE):
            raise InputError(
                f"image and reference do not show the same structures: their correlation is {correlation:.2f}",
                remedy="choose images of one band and sky, registered to a pixel or two, the blurred one as reference",
            )

    def _chi_square(self, state: State, slope: float, offset: float) -> float:
        kernel, spectrum = self._kernel(state)
        residual = self._data - slope * self._model(spectrum) - offset
        noise = self._variance + slope**2 * self.gain(kernel) * self.noise[self.used]
        return float(np.mean(residual**2 / noise))

    def _descend(
        self, state: State, weight: Float, noise: float, settled: float
    ) -> tuple[State, float, float, Float, Float]:
        """Settle with given weights; return the state, slope, offset, normal matrix and derivatives.

        ``noise``: weighed sum of the variances of the sharp image, to be taken off times the kernel's gain.
        """
        kernel, spectrum = self._kernel(state)
        slope, offset, cost = self._linear(self._model(spectrum), weight, self.gain(kernel) * noise)
        damping = 1e-3
        for _ in range(STEPS):
            jacobian, excess = self._derivatives(state, slope, noise)
            residual = self._data - slope * jacobian[-2] - offset
            weighed = jacobian * weight
            gradient = np.einsum("ai,i->a", weighed, residual) + slope * excess[:, -2]
            normal = np.einsum("ai,bi->ab", weighed, jacobian) - excess
            # Where the profile does not fit, the misfit sets the errors.
            misfit = max(1.0, 2.0 * cost / self._data.size)
            scatter = np.sqrt(misfit * np.abs(np.diag(np.linalg.pinv(normal))))
            while damping < 1e9:
                move = np.linalg.solve(normal + damping * np.diag(np.abs(np.diag(normal))), gradient)[:-2]
                trial = self._moved(state, move)
                kernel, spectrum = self._kernel(trial)
                found = self._linear(self._model(spectrum), weight, self.gain(kernel) * noise)
                if found[2] <= cost + 1e-9 * abs(cost) and found[0] > 0:
                    break
                damping *= 10.0
            else:
                return state, slope, offset, normal, jacobian
            state, (slope, offset, cost) = trial, found
            if state.fwhm < NARROWEST * self._scale:
                raise not_broader(state.fwhm, self._scale)
            if damping < 1e-2 and np.all(np.abs(move) < settled * scatter[:-2]):
                return state, slope, offset, normal, jacobian
            damping = max(1e-9, damping / 10.0)
        raise InputError(
            "the fit of the kernel does not settle",
            remedy="register the images first, mask saturated stars, or give a start",
        )

    def _moved(self, state: State, move: Float) -> State:
        longest = LONGEST.copy()
        longest[0] *= state.fwhm
        if self.model == "gaussian":
            longest = np.delete(longest, 1)
        move = move * min(1.0, float(np.min(longest / np.maximum(np.abs(move), 1e-30))))
        beta = state.inverse_beta
        if self.model == "moffat":
            beta = float(np.clip(beta + move[1], 1.0 / BETAS[1], 1.0 / BETAS[0]))
        return State(
            max(0.3 * state.fwhm, state.fwhm + float(move[0])),
            beta,
            state.shift_x + float(move[-2]),
            state.shift_y + float(move[-1]),
        )

    def _derivatives(self, state: State, slope: float, noise: float) -> tuple[Float, Float]:
        """Return the derivatives of the model (rows), and what the sharp image's noise adds to their products."""
        kernel, spectrum = self._kernel(state)
        bare = self.spectrum * np.exp(state.shift_x * self._phase_x) * np.exp(state.shift_y * self._phase_y)
        changes = self._transform.derivatives(state.fwhm, state.inverse_beta)
        transforms: list[NDArray[np.number]] = [slope * change for change in changes]
        rows = [self._model(bare * change) for change in transforms]
        for phase in (self._phase_x, self._phase_y):
            rows.append(slope * self._model(spectrum * phase))
            transforms.append(slope * phase * kernel)
        transforms.append(kernel.astype(complex))
        rows += [self._model(spectrum), np.ones(self._data.size)]
        n = len(rows)
        excess = np.zeros((n, n))
        density = self._share * self.power
        for i, first in enumerate(transforms):
            for j, second in enumerate(transforms[: i + 1]):
                excess[i, j] = excess[j, i] = noise * float(np.sum(density * (np.conj(first) * second).real))
        return np.stack(rows), excess

    def _judged(
        self, state: State, slope: float, offset: float, normal: Float, jacobian: Float, weight: Float
    ) -> Solution:
        """Attach the covariance, chi square and correlation."""
        kernel, spectrum = self._kernel(state)
        light = self._model(spectrum)
        gain = self.gain(kernel)
        noise = self.noise[self.used]
        weighed = jacobian * weight
        inner = self._noise_form(weighed * np.sqrt(self._variance), self._reference_power)
        power: Float = self.power * kernel**2
        inner += slope**2 * self._noise_form(weighed * np.sqrt(noise), power)
        inverse = np.linalg.inv(normal)
        chi_square = self._chi_square(state, slope, offset)
        covariance = inverse @ inner @ inverse.T * max(1.0, chi_square)
        correlation = float(np.corrcoef(light, self._data)[0, 1])
        shares = [
            max(1e-3, 1.0 - float(part.mean()) / float(values.var()))
            for part, values in ((gain * noise, light), (self._variance, self._data))
        ]
        agreement = min(1.0, correlation / float(np.sqrt(shares[0] * shares[1])))
        return Solution(
            state, slope, offset, covariance, chi_square, correlation, agreement, int(self._data.size)
        )

    def _noise_form(self, weighed: Float, power: NDArray[np.floating]) -> Float:
        """Covariance of the sums ``weighed @ e`` for stationary noise e of a power spectrum."""
        spectra = []
        for row in weighed:
            plane = np.zeros(self._shape)
            plane[self._window][self.used] = row
            spectra.append(fft.rfft2(plane))
        n = len(spectra)
        form = np.empty((n, n))
        density = self._share * power
        for i in range(n):
            scaled = density * np.conj(spectra[i])
            for j in range(i + 1):
                form[i, j] = form[j, i] = float(np.sum((scaled * spectra[j]).real))
        return form


def _dot(*factors: Float) -> float:
    """Sum of a product of vectors; a threaded library would spend more on waking its threads."""
    return float(np.einsum(",".join("i" * len(factors)), *factors))


def _block_transfer(frequency: Float, factor: int) -> NDArray[np.complexfloating]:
    """Transfer function of the mean over ``factor`` pixels, read at the first of them; in cycles per block."""
    steps = np.arange(factor).reshape(-1, 1, 1)
    return np.asarray(np.exp(2j * np.pi * frequency / factor * steps).mean(axis=0))


def _blocks(plane: Float, factor: int) -> Float:
    """Mean over blocks, added up place by place: over several axes at once numpy is ten times slower."""
    total = plane[::factor, ::factor].copy()
    for place in range(1, factor**2):
        total += plane[place // factor :: factor, place % factor :: factor]
    total /= factor**2
    return np.asarray(total)


def _spread(plane: Float, factor: int) -> Float:
    return np.asarray(np.repeat(np.repeat(plane, factor, axis=0), factor, axis=1))


def _power(rho: Float | None, shape: tuple[int, ...]) -> NDArray[np.complexfloating]:
    """Power spectrum of noise of unit variance with autocorrelation ``rho``, on the half plane."""
    if rho is None:
        return np.ones((shape[0], shape[1] // 2 + 1), complex)
    return np.asarray(fft.rfft2(wrapped_correlation(rho, shape)))
