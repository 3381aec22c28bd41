"""`Observation`: one image, cube or spectrum on its way into the store, at every resolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.spectra import Spectra

__all__ = ["Level", "Observation"]

Subject = TypeVar("Subject", Image, Cube, Spectra)


class Level(NamedTuple, Generic[Subject]):
    """One resolution of an observation.

    Parameters
    ----------
    subject : Image, Cube or Spectra
        Values, variance, mask, WCS or wavelengths, correlation, PSF or LSF, flags and modes at this resolution. Data
        and variance are float32. Spectra hold one spectrum.
    n_good : integer array of the shape of the data
        How many pixels of level 0 are behind each value; 0 where it is masked.
    """

    subject: Subject
    n_good: NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What one file (or one of the spectra in it) becomes.

    Parameters
    ----------
    obs_id : str
        Its name in the store; letters, digits and ``+-._`` only.
    kind : {"image", "cube", "spectrum"}
    columns : mapping
        One value for each name in `skyloom.store.schema.COLUMNS`.
    header : str
        The original header of the file, one card per line.
    levels : tuple of Level
        Level z is 2^z times coarser than level 0. Of a spectrum: on the common grid of the store, empty where the
        spectrum does not reach it.
    native : Level, optional
        Of a spectrum: as it was observed, on its own wavelengths.
    """

    obs_id: str
    kind: str
    columns: Mapping[str, Any]
    header: str
    levels: tuple[Level[Any], ...]
    native: Level[Spectra] | None = None
