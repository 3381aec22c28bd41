"""A line model judged on pixels that had no part in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from skyloom.core.image import Image
from skyloom.errors import InputError
from skyloom.imaging.line_models.line_model import checkerboard, fit_line_model

__all__ = ["LineModelJudgement", "judge_line_model"]


@dataclass(frozen=True, slots=True)
class LineModelJudgement:
    """Residuals on blocks that were left out, of the combination and of its best single band.

    Attributes
    ----------
    rms, single_rms : float
        In the unit of the line map.
    bands : tuple of str
        Of the combination, as chosen on the other blocks.
    single : str
        The band that does best there alone.
    n_pixels : int
        Judged.
    """

    rms: float
    single_rms: float
    bands: tuple[str, ...]
    single: str
    n_pixels: int

    @property
    def ratio(self) -> float:
        """Residual of the combination over that of the best band."""
        return self.rms / self.single_rms


def judge_line_model(
    bands: Mapping[str, Image],
    line_map: Image,
    *,
    block_arcsec: float = 1.0,
    max_bands: int = 3,
    **settings: Any,
) -> LineModelJudgement:
    """Fit a line model on every other block of pixels, as on a chess board, and judge it on the rest.

    Parameters
    ----------
    bands, line_map, max_bands
        As for `fit_line_model`.
    block_arcsec : float
        Side of the blocks, broader than the PSF.
    **settings
        Of `fit_line_model`.

    Raises
    ------
    InputError
        As `fit_line_model`; or when no pixel is left to be judged.
    """
    fitted = checkerboard(line_map.shape, max(1, round(block_arcsec / line_map.pixel_scale)))
    common = {"where": fitted, "block_arcsec": block_arcsec, **settings}
    alone = fit_line_model(bands, line_map, max_bands=1, **common)
    best = alone if max_bands == 1 else fit_line_model(bands, line_map, max_bands=max_bands, **common)
    judged = ~fitted & alone.residual.valid & best.residual.valid
    if not judged.any():
        raise InputError("no pixel of the line map is left to judge the line model", field="line_map")
    return LineModelJudgement(
        best.residual_rms(judged),
        alone.residual_rms(judged),
        best.bands,
        alone.bands[0],
        int(np.count_nonzero(judged)),
    )
