"""FITS files whose large arrays are written a few planes at a time, so that they need not fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

__all__ = ["FitsStream", "StreamedArray"]

BLOCK = 2880
BITPIX = {"u1": 8, "i2": 16, "i4": 32, "f4": -32, "f8": -64}


@dataclass(frozen=True, slots=True)
class StreamedArray:
    """An array of a FITS file that is written plane by plane.

    Parameters
    ----------
    name : str
        EXTNAME; empty for the array of the primary HDU, which must come first.
    kind : str
        Key of `BITPIX`.
    shape : tuple of int
        Slowest axis first.
    header : astropy.io.fits.Header
        Further keywords.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    header: fits.Header = field(default_factory=fits.Header)

    def complete_header(self, *, primary: bool) -> fits.Header:
        """Return the header with the keywords that the standard asks for."""
        header = fits.Header()
        if primary:
            header["SIMPLE"] = (True, "conforms to FITS standard")
        else:
            header["XTENSION"] = ("IMAGE", "Image extension")
        header["BITPIX"] = BITPIX[self.kind]
        header["NAXIS"] = len(self.shape)
        for number, size in enumerate(reversed(self.shape), start=1):
            header[f"NAXIS{number}"] = size
        if primary:
            header["EXTEND"] = True
        else:
            header["PCOUNT"], header["GCOUNT"] = 0, 1
        header.extend(self.header.cards, unique=True)
        if self.name:
            header["EXTNAME"] = self.name
        return header

    @property
    def n_bytes(self) -> int:
        """Bytes of the data, without padding."""
        return int(np.prod(self.shape, dtype=np.int64)) * int(self.kind[1:]) if self.shape else 0


class FitsStream:
    """A new FITS file that takes planes in any order; a context manager.

    Parameters
    ----------
    path : Path
        Replaced when it exists.
    primary : astropy.io.fits.Header
        Of the primary HDU, unless the first array is its.
    arrays : sequence of StreamedArray
    last : sequence of HDUs
        Small ones, appended when the file is closed.
    """

    def __init__(
        self,
        path: Path,
        primary: fits.Header,
        arrays: Sequence[StreamedArray],
        last: Sequence[fits.ImageHDU | fits.BinTableHDU] = (),
    ) -> None:
        self.path, self.primary, self.arrays, self.last = path, primary, tuple(arrays), tuple(last)
        self._offsets: list[int] = []
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._file = self.path.open("wb")
        parts = list(self.arrays)
        if not parts or parts[0].name:
            self._start(StreamedArray("", "u1", (), self.primary), primary=True)
        for part in parts:
            self._offsets.append(self._start(part, primary=not part.name))
        return self

    def _start(self, part: StreamedArray, *, primary: bool) -> int:
        """Write a header, and leave room for its data; return where they begin."""
        assert self._file is not None
        self._file.seek(0, 2)
        self._file.write(part.complete_header(primary=primary).tostring().encode("ascii"))
        offset = self._file.tell()
        self._file.truncate(offset + -(-part.n_bytes // BLOCK) * BLOCK)
        return offset

    def write(self, number: int, start: int, planes: NDArray[Any]) -> None:
        """Write planes of array ``number``, the first of them with index ``start``."""
        assert self._file is not None
        part = self.arrays[number]
        plane_bytes = part.n_bytes // part.shape[0]
        self._file.seek(self._offsets[number] + start * plane_bytes)
        self._file.write(np.ascontiguousarray(planes, dtype=f">{part.kind}").data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()
        if kind is None and self.last:
            with fits.open(self.path, mode="append") as hdus:
                for hdu in self.last:
                    hdus.append(hdu)
