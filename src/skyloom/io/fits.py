"""The FITS form of Skyloom's own objects: written completely, read back the same.

A file has, after an empty primary HDU with a history for people, the planes of each object (``SCI``, ``VAR``, ``MASK``,
and where present ``FLAGS``, ``CORR``, ``CORRSPEC``, ``WAVE``, ``LSF``, ``PSF``, ``MODE1`` ...), then two tables:
``META`` (item, field, value) and ``HISTORY`` (item, name, version, parameters), whose last columns are JSON. A product
of several bands has the same planes behind a prefix, ``F814W_SCI``, and the band in the column ``ITEM``.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom._version import __version__
from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.image import Image, Mode
from skyloom.core.labels import LabelMap
from skyloom.core.provenance import Step
from skyloom.core.psf import PSF, SampledPSF, psf_from_dict
from skyloom.core.spectra import Spectra
from skyloom.errors import FileFormatError, InputError, ShapeError
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.blocks import Extension, card, text_cards, write_hdus
from skyloom.io.formats.files import FitsFile, Hdu, open_fits
from skyloom.io.formats.headers import exact_wcs, parse_bunit, unit_text, wcs_cards
from skyloom.io.formats.plain_json import from_json, to_json
from skyloom.io.formats.spectral_axis import adds_axis, axes_of, dispersion_axis, without_third_axis

__all__ = [
    "extensions_of",
    "product_extensions",
    "read_product",
    "read_skyloom",
    "sniff",
    "write",
    "write_product",
]

Storable = Image | Cube | Spectra | LabelMap
Array = NDArray[Any]

_META_KEYWORDS = {
    "telescope": "TELESCOP",
    "instrument": "INSTRUME",
    "detector": "DETECTOR",
    "band": "FILTER",
    "exposure": "EXPTIME",
    "photflam": "PHOTFLAM",
    "photplam": "PHOTPLAM",
}
SKY_ONLY = "sky"
"""In META, of a WCS to whose cards a wavelength axis was added for other programs."""
# What astropy and specutils need to be told to take the planes for what they are.
_AS_VARIANCE = card("UTYPE", "VarianceUncertainty", "class of astropy.nddata")
_AS_MASK = text_cards("COMMENT", ["1 = unusable, 0 = good"]) + card("BFORM", "L", "was logical")
OBJECT_CODES = {"outside": 0, "inside": 1, "unknown": 2}


# ------------------------------------------------------------------------------------------------- writing


@dataclass
class Contents:
    """What goes into one file, collected object by object."""

    extensions: list[Extension] = field(default_factory=list)
    meta: list[tuple[str, str, str]] = field(default_factory=list)
    history: list[tuple[str, Step]] = field(default_factory=list)
    grids: dict[int, bytes] = field(default_factory=dict)

    def grid(self, wcs: Any) -> bytes:
        """Header cards of a WCS, made once for all the planes that share it."""
        if id(wcs) not in self.grids:
            self.grids[id(wcs)] = wcs_cards(wcs)
        return self.grids[id(wcs)]

    def add(self, name: str, data: Array, header: bytes = b"") -> None:
        self.extensions.append(Extension(name, data, header))

    def note(self, item: str, name: str, value: object) -> None:
        self.meta.append((item, name, to_json(value, name)))


def write(obj: Storable, path: str | Path, *, overwrite: bool = False) -> None:
    """Write an object so that `skyloom.read` gives the same one back, every field of it.

    Parameters
    ----------
    obj : Image, Cube, Spectra or LabelMap
    path : str or path
        Of the FITS file. It appears when it is complete: a killed run leaves nothing behind.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    UnitError
        When the unit has a scale that is no power of ten.
    InputError
        When the file exists, or the object holds something that FITS cannot carry; it names the field.
    """
    _write_file(extensions_of(obj), path, overwrite)


def _write_file(extensions: Iterable[Extension], path: str | Path, overwrite: bool) -> None:
    with atomic_path(path, overwrite=overwrite) as temporary, open(temporary, "wb") as stream:
        write_hdus(stream, extensions)


def extensions_of(obj: Storable) -> list[Extension]:
    """Return the extensions of one object, the primary HDU first; see `write`."""
    contents = Contents()
    _add_object(contents, obj, item="", prefix="")
    return finished(contents, type(obj).__name__)


def _add_object(contents: Contents, obj: Storable, item: str, prefix: str) -> None:
    if isinstance(obj, LabelMap):
        contents.add(f"{prefix}SCI", obj.labels, contents.grid(obj.wcs))
        contents.note(item, "wcs", obj.wcs is not None)
    elif isinstance(obj, (Image, Cube, Spectra)):
        _add_planes(contents, obj, item, prefix)
    else:
        raise InputError(
            f"{type(obj).__name__} cannot be written", remedy="give an Image, a Cube, Spectra or a LabelMap"
        )
    contents.note(item, "type", type(obj).__name__)
    contents.note(item, "meta", obj.meta)
    contents.history += [(item, step) for step in obj.history]


def _add_planes(contents: Contents, obj: Image | Cube | Spectra, item: str, prefix: str) -> None:
    grid = axes_of(obj, b"" if isinstance(obj, Spectra) else contents.grid(obj.wcs))
    contents.add(
        f"{prefix}SCI", obj.data, card("BUNIT", unit_text(obj.unit)) + grid + _observation_cards(obj.meta)
    )
    contents.add(f"{prefix}VAR", obj.variance, card("BUNIT", unit_text(obj.unit**2)) + _AS_VARIANCE + grid)
    contents.add(f"{prefix}MASK", obj.mask, _AS_MASK + grid)
    if obj.flags is not None:
        contents.add(f"{prefix}FLAGS", obj.flags, grid)
    if not isinstance(obj, Spectra):
        contents.note(item, "wcs", SKY_ONLY if adds_axis(obj) else obj.wcs is not None)
        contents.note(item, "psf", _psf_note(contents, obj.psf, prefix))
    if not isinstance(obj, Image):
        contents.add(f"{prefix}WAVE", obj.wave, card("BUNIT", "Angstrom") + card("MEDIUM", obj.medium))
        contents.note(item, "medium", obj.medium)
        contents.note(item, "lsf", _array_note(contents, obj.lsf, f"{prefix}LSF", card("BUNIT", "Angstrom")))
    contents.note(item, "correlation", _correlation_note(contents, obj.correlation, prefix))
    contents.note(
        item, "modes", [_mode_note(contents, mode, n, prefix) for n, mode in enumerate(obj.modes, 1)]
    )


def _observation_cards(meta: Mapping[str, Any]) -> bytes:
    """Cards that other programs look for; the complete `meta` is in the META table."""
    cards = b""
    for name, keyword in _META_KEYWORDS.items():
        value = meta.get(name)
        if isinstance(value, (str, int, float)) and value == value and abs(_size(value)) < np.inf:
            cards += card(keyword, value)
    return cards


def _size(value: str | float) -> float:
    return 0.0 if isinstance(value, str) else float(value)


def _psf_note(contents: Contents, psf: PSF | None, prefix: str) -> dict[str, Any] | None:
    if psf is None:
        return None
    if isinstance(psf, SampledPSF):
        contents.add(f"{prefix}PSF", psf.array, _matrix_cards(psf.matrix))
        return {"type": "sampled", "extension": f"{prefix}PSF", "matrix": psf.matrix.tolist()}
    return psf.describe()


def _matrix_cards(matrix: Array) -> bytes:
    return b"".join(
        card(f"MATRIX{i + 1}{j + 1}", float(matrix[i, j]), "arcsec per pixel, (east, north) by (x, y)")
        for i in range(2)
        for j in range(2)
    )


def _array_note(contents: Contents, value: Any, name: str, header: bytes = b"") -> Any:
    """Put an array into an extension of its own and return its name; scalars and None stay in the table."""
    if value is None or np.ndim(value) == 0:
        return value if value is None else float(value)
    array = np.asarray(value)
    contents.add(name, array.astype(np.float64) if array.dtype == bool else array, header)
    return {"extension": name}


def _correlation_note(contents: Contents, correlation: Any, prefix: str) -> Any:
    if isinstance(correlation, CubeCorrelation):
        return {
            "spatial": _array_note(contents, correlation.spatial, f"{prefix}CORR"),
            "spectral": _array_note(contents, correlation.spectral, f"{prefix}CORRSPEC"),
        }
    return _array_note(contents, correlation, f"{prefix}CORR")


def _mode_note(contents: Contents, mode: Mode, number: int, prefix: str) -> dict[str, Any]:
    note = _array_note(contents, mode.map, f"{prefix}MODE{number}")
    return {"name": mode.name, "sigma": float(mode.sigma), "map": note}


def finished(contents: Contents, kind: str, extra: Iterable[Extension] = ()) -> list[Extension]:
    """Return all extensions of a file: the primary HDU with its history, the planes, META and HISTORY."""
    header = (
        card("ORIGIN", "Skyloom", "software that wrote this file")
        + card("SKYVERS", __version__, "its version")
        + card("SKYTYPE", kind, "what skyloom.read makes of it")
        + dispersion_axis(contents.extensions[0].header if contents.extensions else b"")
        + text_cards("HISTORY", _history_lines(contents.history))
    )
    tables = [
        Extension("META", _text_table(("ITEM", "FIELD", "VALUE"), contents.meta)),
        Extension(
            "HISTORY", _text_table(("ITEM", "NAME", "VERSION", "PARAMETERS"), _step_rows(contents.history))
        ),
    ]
    return [Extension("", None, header), *contents.extensions, *extra, *tables]


def _history_lines(history: Iterable[tuple[str, Step]]) -> list[str]:
    """One paragraph per step, for people; the HISTORY table has all of it for programs."""
    lines: list[str] = []
    for item, step in history:
        text = f"{item}: {step.describe()}" if item else step.describe()
        lines += textwrap.wrap(
            text[:600], 72, subsequent_indent="    ", max_lines=8, placeholder=" ... (see table HISTORY)"
        )
    return lines


def _step_rows(history: Iterable[tuple[str, Step]]) -> list[tuple[str, ...]]:
    return [
        (
            item,
            to_json(step.name, "name"),
            to_json(step.version, "version"),
            to_json(dict(step.parameters), step.name),
        )
        for item, step in history
    ]


def _text_table(names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Array:
    encoded = [tuple(value.encode("ascii", "backslashreplace") for value in row) for row in rows]
    widths = [max([len(row[column]) for row in encoded] or [1]) for column in range(len(names))]
    dtype = [(name, f"S{max(1, width)}") for name, width in zip(names, widths, strict=True)]
    return np.array(encoded, dtype=dtype)


# -------------------------------------------------------------------------------- products of several bands


def write_product(
    path: str | Path,
    images: Mapping[str, Image],
    *,
    inside: ArrayLike | None = None,
    unknown: ArrayLike | None = None,
    config: str = "",
    one_grid: bool = True,
    overwrite: bool = False,
) -> None:
    """Write the images of one object in several bands into one file; see `product_extensions`.

    Raises
    ------
    ShapeError
        When the bands or the object mask differ in shape.
    InputError
        As for `write`.
    """
    extensions = product_extensions(images, inside=inside, unknown=unknown, config=config, one_grid=one_grid)
    _write_file(extensions, path, overwrite)


def product_extensions(
    images: Mapping[str, Image],
    *,
    inside: ArrayLike | None = None,
    unknown: ArrayLike | None = None,
    config: str = "",
    one_grid: bool = True,
) -> list[Extension]:
    """Return the extensions of a product of several bands.

    Parameters
    ----------
    images : mapping of band to Image
        All on one grid, unless ``one_grid`` is False.
    inside : (ny, nx) bool array, optional
        Pixels of the object, written as ``OBJECT_MASK`` (1 inside, 0 outside, 2 unknown).
    unknown : (ny, nx) bool array, optional
        Pixels of which is not known whether they belong to the object.
    config : str
        The resolved configuration, written as lines of the table ``CONFIG``.
    one_grid : bool
        Whether images of several shapes are refused.

    Returns
    -------
    list of Extension
        ``{BAND}_SCI``, ``_VAR``, ``_WHT`` (inverse variance, 0 where masked), ``_MASK``, ``_CORR`` (a single 1 for
        independent pixels) and whatever else an image carries, then ``OBJECT_MASK``, ``CONFIG``, ``META``, ``HISTORY``.
    """
    contents = Contents()
    shape = next(iter(images.values())).shape if images else None
    for band, image in images.items():
        if one_grid and image.shape != shape:
            raise ShapeError(f"{band} has shape {image.shape}; expected {shape}, that of the first band")
        _add_band(contents, band, image)
    names = [extension.name for extension in contents.extensions]
    if len(set(names)) < len(names):
        raise InputError(f"the bands {sorted(images)} differ in case only", field="images")
    extra = []
    if inside is not None and images:
        grid = contents.grid(next(iter(images.values())).wcs)
        extra.append(Extension("OBJECT_MASK", _object_codes(inside, unknown, shape), _code_cards() + grid))
    if config:
        lines = [(to_json(line, "config"),) for line in config.splitlines()]
        extra.append(Extension("CONFIG", _text_table(("LINE",), lines)))
    return finished(contents, "Product", extra)


def _add_band(contents: Contents, band: str, image: Image) -> None:
    if not re.fullmatch(r"[A-Za-z0-9+.-]+", band):
        raise InputError(
            f"{band!r} cannot name extensions", field="band", remedy="use letters, digits, + . -"
        )
    prefix = f"{band.upper()}_"
    _add_object(contents, image, band, prefix)
    weight_unit = card("BUNIT", unit_text(image.unit**-2))
    contents.add(f"{prefix}WHT", image.weight, weight_unit + contents.grid(image.wcs))
    if image.correlation is None:
        contents.add(f"{prefix}CORR", np.ones((1, 1)))


def _object_codes(inside: ArrayLike, unknown: ArrayLike | None, shape: tuple[int, ...] | None) -> Array:
    codes = np.asarray(inside, dtype=bool).astype(np.uint8) * np.uint8(OBJECT_CODES["inside"])
    if codes.shape != shape:
        raise ShapeError(f"the object mask has shape {codes.shape}; expected {shape}, that of the bands")
    if unknown is not None:
        codes[np.asarray(unknown, dtype=bool)] = OBJECT_CODES["unknown"]
    return codes


def _code_cards() -> bytes:
    return b"".join(card(f"CODE{code}", meaning) for meaning, code in OBJECT_CODES.items())


# ------------------------------------------------------------------------------------------------- reading


def sniff(file: FitsFile) -> bool:
    """Tell whether a file was written by `write` or `write_product`."""
    return "SKYTYPE" in file[0].header


def read_skyloom(path: str | Path, *, band: str | None = None) -> Storable:
    """Read what `write` wrote; of a product of several bands, one of them.

    Parameters
    ----------
    path : str or path
    band : str, optional
        Which band of a product.

    Raises
    ------
    FileFormatError
        When the file is truncated, or was not written by Skyloom.
    InputError
        When it is a product and ``band`` is not one of its bands.
    """
    with open_fits(path) as file:
        contents = OwnFile(file)
        if band is None and contents.kind != "Product":
            return contents.build("")
        if band in contents.items and band is not None:
            return contents.build(band)
        known = ", ".join(item for item in contents.items if item) or "none"
    what = "the file holds several bands" if band is None else f"band {band!r} is not in the file"
    raise InputError(
        f"{what} (it has: {known})",
        source=path,
        field="band",
        remedy=f"choose one: band={next((item for item in contents.items if item), '')!r}",
    )


def read_product(path: str | Path) -> dict[str, Image]:
    """Read all bands of a product; see `write_product`."""
    with open_fits(path) as file:
        contents = OwnFile(file)
        objects = {item: contents.build(item) for item in contents.items}
        return {item: obj for item, obj in objects.items() if isinstance(obj, Image)}


class OwnFile:
    """An open file of ours: its tables parsed, its planes read on demand."""

    def __init__(self, file: FitsFile) -> None:
        self.path = file.path
        self.kind = str(file[0].header.get("SKYTYPE"))
        self.planes = {hdu.name: hdu for hdu in file}
        self.fields: dict[str, dict[str, Any]] = {}
        for row in self.hdu("META").table():
            self.fields.setdefault(str(row["ITEM"]), {})[str(row["FIELD"])] = from_json(str(row["VALUE"]))
        self.steps: dict[str, list[Step]] = {}
        for row in self.hdu("HISTORY").table():
            name, version, parameters = (
                from_json(str(row[key])) for key in ("NAME", "VERSION", "PARAMETERS")
            )
            self.steps.setdefault(str(row["ITEM"]), []).append(Step(name, version, parameters))
        self.items = tuple(self.fields)

    def build(self, item: str) -> Storable:
        prefix = f"{item.upper()}_" if item else ""
        notes = self.fields[item]
        common = {"meta": notes["meta"], "history": tuple(self.steps.get(item, ()))}
        if notes["type"] == "LabelMap":
            return LabelMap(self.plane(f"{prefix}SCI"), wcs=self.wcs(prefix, notes), **common)
        common |= {
            "data": self.plane(f"{prefix}SCI"),
            "variance": self.plane(f"{prefix}VAR"),
            "mask": self.plane(f"{prefix}MASK").astype(bool),
            "unit": parse_bunit(str(self.hdu(f"{prefix}SCI").header["BUNIT"])),
            "flags": self.plane(f"{prefix}FLAGS") if f"{prefix}FLAGS" in self.planes else None,
            "modes": tuple(
                Mode(note["name"], self.value(note["map"]), note["sigma"]) for note in notes["modes"]
            ),
        }
        if notes["type"] != "Spectra":
            common |= {"wcs": self.wcs(prefix, notes), "psf": self.psf(notes["psf"])}
        if notes["type"] != "Image":
            wave = self.plane(f"{prefix}WAVE")
            common |= {"wave": wave, "medium": notes["medium"], "lsf": self.value(notes["lsf"])}
        correlation = notes["correlation"]
        if notes["type"] == "Cube" and correlation is not None:
            parts = (self.value(correlation[axis]) for axis in ("spatial", "spectral"))
            return Cube(correlation=CubeCorrelation(*parts), **common)
        kinds: dict[str, Callable[..., Storable]] = {"Image": Image, "Cube": Cube, "Spectra": Spectra}
        return kinds[notes["type"]](correlation=self.value(correlation), **common)

    def hdu(self, name: str) -> Hdu:
        if name not in self.planes:
            raise FileFormatError(
                f"the extension {name} is missing: the file is truncated, or another program has changed it",
                source=self.path,
                remedy="write it again",
            )
        return self.planes[name]

    def plane(self, name: str) -> Array:
        return self.hdu(name).array()

    def value(self, note: Any) -> Any:
        """What `_array_note` stood for."""
        return self.plane(note["extension"]) if isinstance(note, dict) else note

    def psf(self, note: dict[str, Any] | None) -> PSF | None:
        if note is None:
            return None
        if note["type"] == "sampled":
            return SampledPSF(self.plane(note["extension"]), np.array(note["matrix"]))
        return psf_from_dict(note)

    def wcs(self, prefix: str, notes: Mapping[str, Any]) -> Any:
        if not notes["wcs"]:
            return None
        hdu = self.hdu(f"{prefix}SCI")
        if notes["wcs"] == SKY_ONLY:
            return exact_wcs(without_third_axis(hdu.header), hdu.shape)
        return exact_wcs(hdu.header, hdu.shape)
