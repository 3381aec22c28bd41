"""The view of an image as FITS and CSV: at full resolution, or the level that is on the screen."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom._version import __version__
from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.provenance import Step
from skyloom.core.units import parse_unit
from skyloom.errors import InputError, UnitError
from skyloom.io.fits import extensions_of
from skyloom.io.formats.blocks import Extension, card, text_cards, write_hdus
from skyloom.io.formats.headers import wcs_cards
from skyloom.store.files.stored_form import moved_wcs
from skyloom.store.levels.image_wcs import coarse_wcs
from skyloom.viewer.planes.blocks import frame_of
from skyloom.viewer.protocols import Box, PlaneSource, PlaneView

__all__ = ["Seen", "pixels_csv", "seen_fits", "shown_fits", "table_csv"]

Float = NDArray[np.float64]
MOST_PIXELS = 1 << 24
"""Of a cut-out; of a table a sixteenth of it."""
MOST_VOXELS = 1 << 25
_WHOLE = (1 << 30, 1 << 30)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen of an image.

    Attributes
    ----------
    source : PlaneSource
    layer : str
    plane : int
    channel : int or None
    box : (x0, x1, y0, y1)
        In pixels of the full resolution.
    pixels : (w, h)
        Of the screen.
    """

    source: PlaneSource
    layer: str
    plane: int
    channel: int | None
    box: Box
    pixels: tuple[int, int]

    @property
    def name(self) -> str:
        """Of the plane."""
        planes = self.source.planes
        return planes[self.plane] if self.plane < len(planes) else ""

    def read(self, layer: str, pixels: tuple[int, int] | None = None) -> PlaneView:
        """Return a layer of the view, at full resolution unless for a screen."""
        return self.source.view(
            layer, plane=self.plane, channel=self.channel, box=self.box, pixels=pixels or _WHOLE
        )


def seen_fits(seen: Seen) -> bytes:
    """Return the cut-out that is seen, at full resolution, as a FITS file that `skyloom.read` gives back.

    With SCI, VAR, MASK and the WCS; of an image of a store also with all else that is known of it. Without errors:
    the values alone.

    Raises
    ------
    InputError
        When it is too large to be handed to the browser.
    """
    _check_size(seen, MOST_PIXELS)
    cut = getattr(seen.source, "cut", None)
    whole: Image | Cube | None = None if cut is None else cut(seen.box, seen.plane)
    if whole is not None:
        if whole.data.size > MOST_VOXELS:
            raise _too_large(f"{whole.data.size:,} voxels")
        return _encoded(extensions_of(whole))
    values = seen.read("value")
    image = _image(seen, values)
    if image is not None:
        return _encoded(extensions_of(image))
    return _plain(seen, values, "value")


def shown_fits(seen: Seen) -> bytes:
    """Return the layer that is seen at the level that is on the screen, as a FITS image that says so."""
    return _plain(seen, seen.read(seen.layer, seen.pixels), seen.layer)


def _image(seen: Seen, values: PlaneView) -> Image | None:
    """Return a cut-out with its errors; None where none are known, or the unit is no unit."""
    if "error" not in seen.source.layers:
        return None
    try:
        unit = parse_unit(values.unit)
    except UnitError:
        return None
    error = seen.read("error").values
    variance = (error.astype(np.float64) ** 2).astype(np.float32)
    mask = ~(np.isfinite(values.values) & np.isfinite(variance) & (variance > 0))
    if mask.all() and np.isfinite(values.values).any():
        return None
    made = Step(
        "viewer.cutout", __version__, {"of": seen.source.title, "plane": seen.name, "box": list(seen.box)}
    )
    return Image(
        values.values,
        variance,
        mask,
        unit,
        _wcs_of(seen.source, values),
        meta={"band": seen.name},
        history=(made,),
    )


def _plain(seen: Seen, view: PlaneView, layer: str) -> bytes:
    cards = card("BUNIT", view.unit) if view.unit else b""
    cards += card("SKYLAYER", layer, "value, error, snr or mask")
    cards += card("SKYSTEP", view.step, "pixels of the full resolution per pixel")
    lines = [f"{seen.source.title}: {seen.name}", *([view.note] if getattr(view, "note", "") else [])]
    cards += text_cards("COMMENT", [line[:70] for line in lines])
    cards += wcs_cards(_wcs_of(seen.source, view))
    return _encoded([Extension("", np.ascontiguousarray(view.values, np.float32), cards)])


def _encoded(extensions: Sequence[Extension]) -> bytes:
    stream = io.BytesIO()
    write_hdus(stream, extensions)
    return stream.getvalue()


def _wcs_of(source: PlaneSource, view: PlaneView) -> WCS | None:
    """Return the WCS of what is in view, at its level."""
    wcs: WCS | None = getattr(getattr(source, "sky", None), "wcs", None)
    if wcs is None:
        return None
    level = int(view.step).bit_length() - 1
    first = round((view.x0 + 0.5) / view.step), round((view.y0 + 0.5) / view.step)
    ny, nx = view.values.shape
    return moved_wcs(coarse_wcs(wcs, level), first[0], first[1], (ny, nx))


def _check_size(seen: Seen, most: int) -> None:
    frame = frame_of(seen.source.shape, seen.box, _WHOLE)
    count = (frame.rows - frame.y) * (frame.columns - frame.x)
    if count > most:
        raise _too_large(f"{count:,} pixels")


def _too_large(what: str) -> InputError:
    return InputError(
        f"{what} are too many to be handed to the browser",
        field="export",
        remedy="zoom in, or export the level that is shown",
    )


# ------------------------------------------------------------------------------------------------- tables


def pixels_csv(seen: Seen, polygons: Sequence[tuple[Float, Float]] = ()) -> bytes:
    """Return the pixels that are seen as CSV: place in the image and on the sky, value, error, whether it is masked.

    Parameters
    ----------
    seen : Seen
    polygons : sequence of (x, y)
        Outlines, in pixels; only pixels whose centre lies in one of them are listed. None: all in view.

    Raises
    ------
    InputError
        When there are too many.
    """
    if polygons:
        seen = _around(seen, polygons)
    _check_size(seen, MOST_PIXELS >> 4)
    values = seen.read("value")
    layers = seen.source.layers
    error = seen.read("error").values if "error" in layers else np.full_like(values.values, np.nan)
    height, width = values.values.shape
    x, y = np.meshgrid(np.arange(width) + round(values.x0 + 0.5), np.arange(height) + round(values.y0 + 0.5))
    inside = np.ones(x.shape, bool) if not polygons else _inside(x, y, polygons)
    ra, dec = _places(seen.source, x[inside].astype(float), y[inside].astype(float))
    columns: dict[str, Any] = {"x": x[inside], "y": y[inside]}
    if ra is not None:
        columns |= {"ra_deg": ra, "dec_deg": dec}
    columns |= {
        "value": values.values[inside],
        "error": error[inside],
        "masked": (~np.isfinite(values.values[inside])).astype(int),
    }
    told = [f"{seen.source.title}: {seen.name}", f"unit of value and error: {values.unit or '1'}"]
    told.append("pixels are counted from 0; positions are ICRS")
    return table_csv(columns, told)


def table_csv(columns: dict[str, Any], told: Sequence[str] = ()) -> bytes:
    """Return columns as CSV, after comments; floats with all their digits, nothing for what is not known."""
    stream = io.StringIO()
    for line in told:
        stream.write(f"# {' '.join(line.split())}\n")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    texts = [_texts(np.asarray(values)) for values in columns.values()]
    writer.writerows(zip(*texts, strict=True))
    return stream.getvalue().encode()


def _texts(values: NDArray[Any]) -> list[str]:
    if values.dtype.kind == "f":
        single = values.dtype == np.float32
        return [
            "" if value != value else (str(np.float32(value)) if single else repr(value))
            for value in values.tolist()
        ]
    return [str(value) for value in values.tolist()]


def _around(seen: Seen, polygons: Sequence[tuple[Float, Float]]) -> Seen:
    x = np.concatenate([np.asarray(part[0], float) for part in polygons])
    y = np.concatenate([np.asarray(part[1], float) for part in polygons])
    ny, nx = seen.source.shape
    box = (
        max(float(x.min()), -0.5),
        min(float(x.max()), nx - 0.5),
        max(float(y.min()), -0.5),
        min(float(y.max()), ny - 0.5),
    )
    return Seen(seen.source, seen.layer, seen.plane, seen.channel, box, seen.pixels)


def _inside(x: NDArray[Any], y: NDArray[Any], polygons: Sequence[tuple[Float, Float]]) -> NDArray[np.bool_]:
    """Tell which points lie inside, by how often a ray to the right meets an edge.

    Of a polygon, or of all the runs of edges that go round a bin together.
    """
    odd = np.zeros(x.shape, bool)
    for polygon_x, polygon_y in polygons:
        corners_x, corners_y = np.asarray(polygon_x, float), np.asarray(polygon_y, float)
        if corners_x.size > 2:
            corners_x, corners_y = np.append(corners_x, corners_x[0]), np.append(corners_y, corners_y[0])
        for x0, y0, x1, y1 in zip(corners_x[:-1], corners_y[:-1], corners_x[1:], corners_y[1:], strict=True):
            if y0 == y1:
                continue
            crossed = (y0 > y) != (y1 > y)
            odd ^= crossed & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return odd


def _places(source: PlaneSource, x: Float, y: Float) -> tuple[Float | None, Float | None]:
    sky = getattr(source, "sky", None)
    directions = None if sky is None else sky.directions(x, y)
    if directions is None:
        return None, None
    ra = np.degrees(np.arctan2(directions[:, 1], directions[:, 0])) % 360.0
    dec = np.degrees(np.arctan2(directions[:, 2], np.hypot(directions[:, 0], directions[:, 1])))
    return ra, dec
