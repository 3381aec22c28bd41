"""The ``.map`` file of BETIS: which pixels make up each bin, as text that people and other programs read.

After comment lines there is one line per pixel, ``bin x y``, sorted by bin, then y, then x (Gonzalez-Diaz et al. 2024,
10.1051/0004-6361/202348453). Pixels count from 0: x along the first axis of the FITS image, y along the second; add 1
for the pixels of FITS and DS9.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from skyloom.core.labels import NO_REGION, LabelMap, as_labels
from skyloom.core.provenance import step
from skyloom.errors import AssumptionWarning, FileFormatError, InputError, ShapeError
from skyloom.io.formats.atomic import atomic_path

__all__ = ["read_map_file", "write_map_file"]

_SHAPE = re.compile(r"#\s*shape:\s*(\d+)\s+(\d+)")


def write_map_file(
    path: str | Path, labels: LabelMap | ArrayLike, *, name: str = "", overwrite: bool = False
) -> Path:
    """Write the pixels of each bin.

    Parameters
    ----------
    path : str or path
    labels : LabelMap or (ny, nx) int array
        Negative: no bin; such pixels are not listed.
    name : str
        Of the object, for the first line.
    overwrite : bool

    Returns
    -------
    path

    Raises
    ------
    InputError
        When the file exists.
    """
    values = as_labels(labels)
    y, x = np.nonzero(values >= 0)
    bins = values[y, x]
    order = np.argsort(bins, kind="stable")
    ny, nx = values.shape
    title = f"# Pixels of the bins of {' '.join(name.split())}" if name.strip() else "# Pixels of each bin"
    lines = [
        title,
        f"# shape: {ny} {nx}",
        f"# bins: {np.unique(bins).size}",
        "# x and y count from 0; add 1 for FITS and DS9",
        "# bin x y",
    ]
    rows = np.stack([bins, x, y], axis=1)[order]
    lines += [f"{number} {column} {row}" for number, column, row in rows.tolist()]
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(path)


def read_map_file(
    path: str | Path, *, shape: tuple[int, int] | None = None, wcs: WCS | None = None, origin: int = 0
) -> LabelMap:
    """Read the pixels of each bin.

    Parameters
    ----------
    path : str or path
    shape : (ny, nx), optional
        Of the map, where the file does not say.
    wcs : WCS, optional
        Of the map; the file has none.
    origin : {0, 1}
        What the first pixel is called; files of Skyloom count from 0.

    Returns
    -------
    LabelMap
        -1 where no bin is.

    Warns
    -----
    AssumptionWarning
        When the shape is not known: the map then ends with the last pixel listed.

    Raises
    ------
    FileFormatError
        When a line is not three whole numbers, or nothing is listed.
    InputError
        When a pixel is in two bins, or lies beyond the shape.
    """
    if not Path(path).is_file():
        raise FileFormatError.missing(path)
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    found = next((match for line in lines if (match := _SHAPE.match(line))), None)
    rows = _rows(lines, path)
    bins, x, y = rows[:, 0], rows[:, 1] - origin, rows[:, 2] - origin
    if shape is None and found is not None:
        shape = (int(found[1]), int(found[2]))
    if shape is None:
        shape = (int(y.max()) + 1, int(x.max()) + 1)
        warnings.warn(
            f"{path}: the shape of the map is not said; taken as {shape}, up to the last pixel listed",
            AssumptionWarning,
            stacklevel=2,
        )
    _check_pixels(x, y, shape, path)
    if bins.min() < 0 or bins.max() > np.iinfo(np.int32).max:
        raise FileFormatError(f"bins run from {bins.min()} to {bins.max()}", source=path, field="bin")
    labels = np.full(shape, NO_REGION, np.int32)
    labels[y, x] = bins
    done = step("read_map_file", path=str(path), n_bins=int(np.unique(bins).size))
    return LabelMap(labels, wcs=wcs, meta={"path": str(path)}, history=(done,))


def _rows(lines: list[str], path: str | Path) -> NDArray[np.int64]:
    rows = []
    for number, line in enumerate(lines, start=1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        try:
            bin_number, x, y = (int(word) for word in words)
        except ValueError:
            raise FileFormatError(
                f"line {number} is {line.strip()!r}; expected: bin x y", source=path
            ) from None
        rows.append((bin_number, x, y))
    if not rows:
        raise FileFormatError("no pixel is listed", source=path)
    return np.array(rows, dtype=np.int64)


def _check_pixels(
    x: NDArray[np.int64], y: NDArray[np.int64], shape: tuple[int, int], path: str | Path
) -> None:
    ny, nx = shape
    beyond = (x < 0) | (x >= nx) | (y < 0) | (y >= ny)
    if np.any(beyond):
        first = int(np.argmax(beyond))
        raise ShapeError(
            f"the pixel x={x[first]} y={y[first]} (from 0) lies beyond a map of shape {shape}",
            source=path,
            remedy="give the shape of the map, and origin=1 if the file counts from 1",
        )
    flat, counts = np.unique(y * nx + x, return_counts=True)
    if np.any(counts > 1):
        pixel = int(flat[np.argmax(counts > 1)])
        raise InputError(
            f"the pixel x={pixel % nx} y={pixel // nx} is listed {int(counts.max())} times",
            source=path,
            remedy="a pixel belongs to one bin",
        )
