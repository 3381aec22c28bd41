"""Which reader understands a file: `read` looks into it, and never at its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from skyloom.errors import FileFormatError, InputError

if TYPE_CHECKING:
    from skyloom.io.formats.files import FitsFile

__all__ = [
    "check_options",
    "known_instruments",
    "layout_function",
    "read",
    "reader_of",
    "register_reader",
    "sniff_instrument",
]

DEFAULT_WEIGHT_KIND = "inverse_variance"


class _Reader(NamedTuple):
    sniff: Callable[[Any], bool]
    read: Callable[..., Any]


# Module and function of each reader that comes with Skyloom, in the order in which they are asked. Names only, so that
# nothing heavy is imported before a file is read.
_BUILT_IN: dict[str, tuple[str, str, str]] = {
    "line-maps": ("skyloom.io.products.line_maps", "sniff", "read_line_maps"),
    "skyloom": ("skyloom.io.fits", "sniff", "read_skyloom"),
    "resampled": ("skyloom.io.products.resampled", "sniff", "read_resampled"),
    "muse": ("skyloom.io.cubes.muse", "sniff", "read_muse"),
    "muse-maps": ("skyloom.io.cubes.muse_maps", "sniff", "read_muse_maps"),
    "muse-image": ("skyloom.io.cubes.muse_maps", "sniff_image", "read_muse_image"),
    "manga": ("skyloom.io.cubes.manga", "sniff", "read_manga"),
    "pmas": ("skyloom.io.cubes.pmas", "sniff", "read_pmas"),
    "sdss-frame": ("skyloom.io.sdss.frame", "sniff", "read_frame"),
    "sdss-spec": ("skyloom.io.sdss.spec", "sniff", "read_sdss_spectrum"),
    "cube": ("skyloom.io.cubes.generic", "sniff", "read_cube"),
    "hst": ("skyloom.io.hst", "sniff", "read_hst"),
    "segmentation": ("skyloom.io.segmentation", "sniff", "read_segmentation"),
    "image": ("skyloom.io.images", "sniff", "read_image"),
}
_REGISTERED: dict[str, _Reader] = {}


def register_reader(name: str, sniff: Callable[[Any], bool], read: Callable[..., Any]) -> None:
    """Teach `read` another kind of file.

    Parameters
    ----------
    name : str
        What ``instrument`` says to choose this reader.
    sniff : callable
        Given the open `skyloom.io.formats.files.FitsFile`, tells whether the file is of this kind; it should look at
        headers only. Registered readers are asked before the built-in ones, the latest first.
    read : callable
        ``read(path, **options)``; takes ``weight`` and ``weight_kind`` when the errors may stand in another file.

    Raises
    ------
    InputError
        When the name is taken.
    """
    if name in known_instruments():
        raise InputError(
            f"there is a reader named {name!r} already", field="name", remedy="choose another name"
        )
    _REGISTERED[name] = _Reader(sniff, read)


def known_instruments() -> tuple[str, ...]:
    """Return the names of all readers."""
    return (*_BUILT_IN, *_REGISTERED)


def read(
    path: str | Path,
    *,
    instrument: str | None = None,
    weight: str | Path | None = None,
    weight_kind: str = DEFAULT_WEIGHT_KIND,
    **options: Any,
) -> Any:
    """Read a file into an `Image`, `Cube`, `Spectra` or `LabelMap` (or several images, by name).

    Parameters
    ----------
    path : str or path
        FITS file, also compressed.
    instrument : str, optional
        Name of the reader; by default it is found from the headers.
    weight : str or path, optional
        File that holds the errors, where they are not in the same file.
    weight_kind : {"inverse_variance", "rms", "exposure", "variance"}
        What that file (or the WHT extension) holds; images know the first three, cubes all but ``exposure``.
    **options
        Further options of the reader, e.g. ``unit="electron/s"`` for images whose header has none.

    Raises
    ------
    InputError
        When the instrument or an option is unknown; the message lists the known ones.
    FileFormatError
        When the file is missing, no FITS file, truncated, or of a kind that no reader knows.
    """
    name = instrument if instrument is not None else sniff_instrument(path)
    function = _reader(name, path).read
    arguments = dict(options)
    if weight is not None or weight_kind != DEFAULT_WEIGHT_KIND:
        arguments |= {"weight": weight, "weight_kind": weight_kind}
    check_options(function, arguments, name, path)
    return function(path, **arguments)


def check_options(
    function: Callable[..., Any], options: Mapping[str, Any], name: str, path: str | Path
) -> None:
    """Raise unless a reader's function takes every option; its first parameter is the file.

    Raises
    ------
    InputError
        When an option is unknown; the message lists the known ones.
    """
    accepted = _accepted(function)
    for key in options:
        if key not in accepted:
            raise InputError(
                f"files of kind {name!r} take no {key}",
                source=path,
                field=key,
                remedy=f"known: {', '.join(accepted) or 'no options'}",
            )


@lru_cache(maxsize=64)
def _accepted(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)[1:]


def sniff_instrument(path: str | Path) -> str:
    """Return the name of the reader that understands a file.

    Raises
    ------
    FileFormatError
        When none does.
    """
    from skyloom.io.formats.files import open_fits

    with open_fits(path) as file:
        name = reader_of(file)
        if name is not None:
            return name
        found = ", ".join(f"{hdu.name or 'PRIMARY'} {len(hdu.shape)}-d" for hdu in file)
    raise FileFormatError(
        f"no reader knows this kind of file (extensions: {found})",
        source=path,
        remedy=f"say instrument=...; known: {', '.join(known_instruments())}",
    )


def reader_of(file: FitsFile) -> str | None:
    """Return the name of the reader that understands an open file, None when none does."""
    for name in (*reversed(_REGISTERED), *_BUILT_IN):
        if _reader(name, file.path).sniff(file):
            return name
    return None


def layout_function(name: str, path: str | Path) -> Callable[..., Any] | None:
    """Return the function of a reader that finds the layout of a cube, None where it reads files whole.

    Raises
    ------
    InputError
        When no reader has that name.
    """
    _reader(name, path)
    if name in _REGISTERED:
        return None
    function: Callable[..., Any] | None = getattr(import_module(_BUILT_IN[name][0]), "layout", None)
    return function


def _reader(name: str, path: str | Path) -> _Reader:
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name in _BUILT_IN:
        return _built_in(name)
    raise InputError(
        f"{name!r} is no known instrument",
        source=path,
        field="instrument",
        remedy=f"known: {', '.join(known_instruments())}",
    )


@lru_cache(maxsize=64)
def _built_in(name: str) -> _Reader:
    module_name, sniff, function = _BUILT_IN[name]
    module = import_module(module_name)
    return _Reader(getattr(module, sniff), getattr(module, function))
