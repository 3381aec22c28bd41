"""Where residuals of the night sky's lines and absorption bands spoil spectra, in the observed frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.cube import Cube
from skyloom.core.linelist import check_medium, convert_medium
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError
from skyloom.spectral.axes.rest_frame import applied_redshift

__all__ = ["SKY_RESIDUALS", "sky_residual_mask"]

Range = tuple[float, float]
# Observed wavelengths in air, A (BETIS, 10.1051/0004-6361/202348453): Hg I 5461, [O I] 5577, Na D, [O I] 6300,
# Hg I 4358, water vapour and OH at 7162-7333, and everything redder than 9900.
SKY_RESIDUALS: tuple[Range, ...] = (
    (5453.0, 5468.0),
    (5565.0, 5589.0),
    (5883.0, 5903.0),
    (6294.0, 6306.0),
    (4350.0, 4366.0),
    (7162.0, 7333.0),
    (9900.0, 11000.0),
)


def sky_residual_mask(
    subject: Cube | Spectra | ArrayLike,
    ranges: Sequence[Range] = SKY_RESIDUALS,
    *,
    medium: str = "air",
    wave_medium: str = "air",
) -> NDArray[np.bool_]:
    """Tell which channels lie in ranges of observed wavelengths.

    Parameters
    ----------
    subject : Cube, Spectra or (n_wave,) array
        Its frame and medium are known (a rest frame by ``meta["redshift_applied"]``); a plain array holds observed
        wavelengths in A, in ``wave_medium``.
    ranges : sequence of (low, high)
        Observed wavelengths in A, ends included. Edit the default like any tuple:
        ``(*SKY_RESIDUALS, (8342.0, 8350.0))``.
    medium : {"air", "vacuum"}
        What ``ranges`` are measured in.
    wave_medium : {"air", "vacuum"}
        What a plain array is measured in.

    Returns
    -------
    (n_wave,) bool array
        True for channels whose centre lies in a range.

    Raises
    ------
    InputError
        When a range is not two ascending finite numbers, or a medium is unknown.
    """
    check_medium(medium, "ranges")
    if isinstance(subject, (Cube, Spectra)):
        observed = subject.wave * (1.0 + applied_redshift(subject))
        wave_medium = subject.medium
    else:
        observed = np.asarray(subject, dtype=np.float64)
    centres = convert_medium(observed, wave_medium, medium)  # type: ignore[arg-type]  # checked when it is used
    inside = np.zeros(centres.shape, bool)
    for item in ranges:
        limits = np.asarray(item, dtype=np.float64)
        if limits.shape != (2,) or not np.all(np.isfinite(limits)) or limits[0] >= limits[1]:
            raise InputError(
                f"{item!r} is no range; expected (low, high) in A", field="ranges", remedy="give low < high"
            )
        inside |= (centres >= limits[0]) & (centres <= limits[1])
    return inside
