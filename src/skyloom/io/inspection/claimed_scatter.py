"""How the scatter of neighbouring values compares with the errors that are claimed for them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.spectra import Spectra

__all__ = ["SpectrumScatter", "image_pull", "spectrum_scatter"]

Float = NDArray[np.float64]
_CLIP = 3.0
_CLIPPED_SIGMA = 0.986578  # Standard deviation of a normal distribution of sigma 1, cut at 3.
_ROUNDS = 30
_LAG = 7  # Pixels: beyond any correlation of single exposures, within that of gradients.
_SAMPLES = 2_000_000


class SpectrumScatter(NamedTuple):
    """Scatter of a spectrum over its errors.

    Parameters
    ----------
    pull : float
        Standard deviation over the claimed one, of single pixels.
    neighbour : float
        Correlation of neighbouring pixels.
    """

    pull: float
    neighbour: float


def _clipped_scatter(values: Float) -> float:
    """Standard deviation of the normal core; NaN for fewer than ten values.

    Not from the median: where data numbers are small integers, as in a CCD frame, the median is one of them and may be
    10 % off.
    """
    kept = values[np.isfinite(values)]
    if kept.size < 10:
        return float("nan")
    sigma = 1.4826 * float(np.median(np.abs(kept)))
    for _ in range(_ROUNDS):
        inside = kept[np.abs(kept) < _CLIP * sigma]
        new = float(inside.std()) / _CLIPPED_SIGMA if inside.size else 0.0
        if abs(new - sigma) <= 1e-5 * sigma:
            break
        sigma = new
    return sigma


def image_pull(image: Image, lag: int = _LAG) -> float:
    """Return the scatter of the empty sky over the claimed errors; 1 when they are right.

    Parameters
    ----------
    image : Image
    lag : int
        Differences are taken between pixels this far apart along both axes; those beyond three standard deviations
        are left out, until sources are.
    """
    collected = []
    stride = max(1, -(-2 * image.data.size // _SAMPLES))
    for axis in (0, 1):
        planes = (np.moveaxis(plane, axis, 0) for plane in (image.data, image.variance, image.mask))
        ahead, behind = zip(*((plane[lag::stride], plane[:-lag:stride]) for plane in planes), strict=True)
        good = ~(ahead[2] | behind[2])
        difference = ahead[0][good].astype(np.float64) - behind[0][good]
        collected.append(difference / np.sqrt(ahead[1][good].astype(np.float64) + behind[1][good]))
    return _clipped_scatter(np.concatenate(collected))


def spectrum_scatter(spectrum: Spectra) -> SpectrumScatter:
    """Measure pull and correlation of neighbours of a single spectrum from its second differences.

    With correlations r1 and r2 of pixels one and two apart, second differences over one pixel have the variance
    ``(6 - 8 r1 + 2 r2) sigma^2``, those over two pixels ``(6 - 8 r2) sigma^2`` (where pixels further apart are
    independent). r2 is taken as 0. Lines and bands of the spectrum that are not smooth over five pixels raise both.

    Parameters
    ----------
    spectrum : Spectra
        The first one is measured.
    """
    value = spectrum.data[0].astype(np.float64)
    variance = np.where(spectrum.mask[0], np.nan, spectrum.variance[0].astype(np.float64))
    near, far = (_clipped_scatter(_second_differences(value, variance, lag)) ** 2 for lag in (1, 2))
    return SpectrumScatter(float(np.sqrt(far)), float(0.75 * (1.0 - near / far)) if far > 0 else float("nan"))


def _second_differences(value: Float, variance: Float, lag: int) -> Any:
    """Return them over the error that independent pixels give them; NaN where a pixel is masked."""
    difference = value[2 * lag :] - 2 * value[lag:-lag] + value[: -2 * lag]
    return difference / np.sqrt(variance[2 * lag :] + 4 * variance[lag:-lag] + variance[: -2 * lag])
