"""Links: which images and cubes cover which spectra.

A spectrum is linked with every image whose outline holds its position. Both sides are found through HEALPix cells: a
cell with its eight neighbours holds everything within its own width, so that each image asks for nine ranges of the
sorted cells of the spectra (or the other way round, if there are fewer spectra). Nothing is compared with everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.core.threads import blocks
from skyloom.store.schema import POSITION_ORDER
from skyloom.store.search.cells import order_around
from skyloom.store.search.index import KINDS, SkyIndex
from skyloom.store.search.polygons import spans
from skyloom.store.search.regions import Cone
from skyloom.store.search.sphere import unit_vectors

__all__ = ["Links", "find_links", "images_of", "order_links"]

Int = NDArray[np.int64]
Float = NDArray[np.float64]

PAIRS = 1 << 20
"""Candidates that are tested at a time."""
ASKED = 1 << 14
"""Observations that ask for their neighbours at a time."""


class Links(NamedTuple):
    """Pairs of a spectrum and an image that covers it, in the order of (spectrum, image).

    Parameters
    ----------
    spectrum, image : (n,) int64 arrays
        Rows of the index.
    """

    spectrum: Int
    image: Int

    def of(self, spectrum: int) -> Int:
        """Return the images of one spectrum, ascending."""
        first, last = np.searchsorted(self.spectrum, [spectrum, spectrum + 1])
        return self.image[first:last]


def order_links(spectrum: Int, image: Int) -> Links:
    """Put pairs in order."""
    order = np.lexsort((image, spectrum))
    return Links(spectrum[order], image[order])


def images_of(index: SkyIndex, spectrum: int) -> Int:
    """Return the rows of the images and cubes that cover one spectrum, found in the index alone."""
    if index.columns["healpix"][spectrum] < 0:
        return np.empty(0, np.int64)
    place = Cone(float(index.columns["s_ra"][spectrum]), float(index.columns["s_dec"][spectrum]), 0.0)
    rows = index.touching(place, KINDS[:2])
    return rows[index.kind.take(rows).equals(KINDS[:2])]


def find_links(index: SkyIndex, spectra: Int | None = None, images: Int | None = None) -> Links:
    """Return all pairs of a spectrum and an image (or cube) whose outline holds the spectrum's position.

    Parameters
    ----------
    index : SkyIndex
    spectra, images : int arrays, optional
        Rows to link, ascending; None: all there are of this kind.

    Returns
    -------
    Links
        An image without an outline covers the circle of its column ``radius``.
    """
    pairs = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    is_spectrum, is_image = index.kind.equals(["spectrum"]), index.kind.equals(KINDS[:2])
    for first, last, largest, _ in index.classes:
        covering = _members(is_image, images, first, last)
        if not covering.size:
            continue
        order = order_around(largest)
        for begin, end, _, _ in index.classes:
            covered = _members(is_spectrum, spectra, begin, end)
            if not covered.size:
                continue
            swap = covered.size < covering.size
            asking, asked = (covered, covering) if swap else (covering, covered)
            for one, other in _neighbours(index, asking, asked, order):
                spectrum, image = (one, other) if swap else (other, one)
                pairs.append(_covered(index, spectrum, image))
    return order_links(*(np.concatenate(column) for column in zip(*pairs, strict=True)))


def _members(of_kind: NDArray[np.bool_], rows: Int | None, first: int, last: int) -> Int:
    """Return the rows of one kind within a class of size, ascending: in the order of their cells."""
    if rows is None:
        return first + np.flatnonzero(of_kind[first:last])
    wanted = rows[np.searchsorted(rows, first) : np.searchsorted(rows, last)]
    return wanted[of_kind[wanted]]


def _neighbours(index: SkyIndex, asking: Int, asked: Int, order: int) -> Iterator[tuple[Int, Int]]:
    """Give pairs of rows (asking, asked) in the same or neighbouring cells of an order."""
    from cdshealpix.nested import neighbours

    shift = 2 * (POSITION_ORDER - order)
    sorted_cells = index.columns["healpix"][asked]
    cells = index.columns["healpix"][asking] >> shift
    for part in blocks(asking.size, ASKED):
        near = neighbours(cells[part], order)
        around = np.where(near < 0, -1, near << shift)
        starts = np.searchsorted(sorted_cells, around)
        stops = np.searchsorted(sorted_cells, np.where(near < 0, -1, (near + 1) << shift))
        # At order 0 a cell can be its own neighbour's neighbour twice; each cell counts once.
        for column in range(1, near.shape[1]):
            repeated = (near[:, :column] == near[:, column : column + 1]).any(axis=1)
            stops[repeated, column] = starts[repeated, column]
        sizes = (stops - starts).sum(axis=1)
        for rows in _portions(sizes):
            members = spans(starts[rows].ravel(), stops[rows].ravel())
            yield np.repeat(asking[part][rows], sizes[rows]), asked[members]


def _portions(sizes: Int) -> Iterator[slice]:
    """Cut rows into pieces of about `PAIRS` candidates."""
    ends = np.cumsum(sizes)
    start = 0
    while start < sizes.size:
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + PAIRS, side="right")))
        yield slice(start, stop)
        start = stop


def _covered(index: SkyIndex, spectrum: Int, image: Int) -> tuple[Int, Int]:
    """Keep the pairs of which the image holds the spectrum."""
    columns = index.columns
    reach = np.radians(np.nan_to_num(columns["radius"][image]))
    # Cheap first: the difference of declinations alone leaves out most.
    near = np.abs(columns["s_dec"][spectrum] - columns["s_dec"][image]) <= np.degrees(reach) + 1e-9
    spectrum, image, reach = spectrum[near], image[near], reach[near]
    points = unit_vectors(columns["s_ra"][spectrum], columns["s_dec"][spectrum])
    centres = unit_vectors(columns["s_ra"][image], columns["s_dec"][image])
    chord = np.sum((points - centres) ** 2, axis=-1)
    # Rounding must not lose what lies exactly in a corner; the outline decides about that.
    near = chord <= (2.0 * np.sin(0.5 * np.minimum(reach + 1e-12, np.pi))) ** 2
    spectrum, image, points = spectrum[near], image[near], points[near]
    outlined = np.flatnonzero(index.polygons.sizes_of(image) > 0)
    held = np.ones(image.size, bool)
    if outlined.size:
        held[outlined] = index.polygons.take(image[outlined]).hold(points[outlined])
    return spectrum[held], image[held]
