"""Where the spectra come from that belong to what is picked: bins of a run, cubes, lists of spectra."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skyloom.viewer.protocols import SpectrumSource

__all__ = ["open_spectra"]


def open_spectra(
    path: Path, kind: str, may_read: Callable[[Path], bool] = Path.is_file
) -> SpectrumSource | None:
    """Return where the spectra of an entry of the shelf come from.

    Parameters
    ----------
    path : path
        Of the entry. A file beside the spectra of bins of a run of the recipe ifs gives those.
    kind : str
        Of the entry: "image", "cube", "spectra" or "table".
    may_read : callable
        Tells of a file beside the entry whether it is there and may be read.

    Returns
    -------
    SpectrumSource or None
        None where no spectra belong to it: then a click says where it was, and no more. Sources whose spectra are
        chosen from a list have ``names``.

    Raises
    ------
    SkyloomError
        When the file cannot be read as what it is said to be.
    """
    from skyloom.viewer.spectra.bin_files import bins_prefix
    from skyloom.viewer.spectra.bins import BinSpectra
    from skyloom.viewer.spectra.cubes import CubeSpectra
    from skyloom.viewer.spectra.lists import ListedSpectra

    if kind == "cube":
        return CubeSpectra(path)
    prefix = bins_prefix(path, may_read)
    if prefix is not None:
        return BinSpectra(prefix, may_read)
    return ListedSpectra(path) if kind == "spectra" else None
