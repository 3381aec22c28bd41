"""One header of a FITS file and its data: the structure, the array or parts of it, columns of a table."""

from __future__ import annotations

import io
import math
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from skyloom.errors import FileFormatError
from skyloom.io.formats.blocks import BLOCK
from skyloom.io.formats.cards import Header, header_number, parse_header
from skyloom.io.formats.table_columns import read_columns

if TYPE_CHECKING:
    from skyloom.io.formats.files import FitsFile

__all__ = ["Hdu", "parsed_once"]

_PIXEL_TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_UNSIGNED = {16: (2.0**15, np.uint16), 32: (2.0**31, np.uint32), 64: (2.0**63, np.uint64)}
_DAMAGED = (OSError, EOFError, ValueError, TypeError, KeyError, zlib.error, fits.VerifyError)


@lru_cache(maxsize=32)
def parsed_once(cards: bytes) -> Header:
    """Return a header, not to be changed: one file is opened by whoever looks what it is and by whoever reads it."""
    return parse_header(cards)


@dataclass(frozen=True, slots=True)
class Hdu:
    """One header and the place of its data.

    Attributes
    ----------
    name : str
        EXTNAME in upper case, empty where there is none.
    cards : bytes
        The header as it is in the file.
    structure : dict
        What the header says of the type and size of the data: the whole of it, or of a plain table its first cards.
    header_start, start : int
        Where the header and the data begin, in bytes.
    """

    file: FitsFile
    name: str
    cards: bytes
    structure: Header
    header_start: int
    start: int

    @property
    def header(self) -> Header:
        """See `parse_header`; that of a table is parsed when it is asked for, for it may have thousand cards."""
        known = self.file.headers.get(self.header_start)
        if known is None:
            known = self.file.headers[self.header_start] = dict(parsed_once(self.cards))
        return known

    @property
    def is_image(self) -> bool:
        """Whether the data are an array (perhaps of no size), compressed ones included."""
        return str(self.structure.get("XTENSION", "IMAGE")).strip() == "IMAGE" or self._is_compressed

    @property
    def _is_compressed(self) -> bool:
        return bool(self.structure.get("ZIMAGE", False))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, slowest axis first; () where there is none."""
        prefix = "Z" if self._is_compressed else ""
        axes = self.integer(f"{prefix}NAXIS", 0)
        return tuple(self.integer(f"{prefix}NAXIS{axis}") for axis in range(axes, 0, -1))

    def integer(self, keyword: str, default: int | None = None) -> int:
        """Return a keyword that the structure of the file depends on.

        Raises
        ------
        FileFormatError
            When it is absent without a default, or no whole number.
        """
        value = self.structure.get(keyword, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int):
            raise FileFormatError(f"{value!r} is no whole number", source=self.file.path, field=keyword)
        return value

    @property
    def is_float(self) -> bool:
        """Whether the array is stored as floating-point numbers."""
        return self.integer("ZBITPIX" if self._is_compressed else "BITPIX", 8) < 0

    @property
    def size(self) -> int:
        """Number of bytes of the data, without padding."""
        axes = [self.integer(f"NAXIS{axis}") for axis in range(1, self.integer("NAXIS", 0) + 1)]
        if not axes:
            return 0
        if axes[0] == 0 and self.structure.get("GROUPS", False):
            axes = axes[1:]
        elements = math.prod(axes) + self.integer("PCOUNT", 0)
        return abs(self.integer("BITPIX")) // 8 * self.integer("GCOUNT", 1) * elements

    def array(self) -> NDArray[Any]:
        """Return the array in native byte order, BSCALE, BZERO and BLANK applied.

        Raises
        ------
        FileFormatError
            When there is none, or the file ends before it does.
        """
        label = self.name or "PRIMARY"
        if not self.is_image or not self.shape:
            raise FileFormatError(f"extension {label} holds no array", source=self.file.path)
        if self.start + self.size > len(self.file.content):
            raise self.file.truncation()
        try:
            return self._astropy().data if self._is_compressed else self._pixels()
        except _DAMAGED as error:
            raise FileFormatError(
                f"extension {label} cannot be read ({error})", source=self.file.path
            ) from error

    def section(self, *slices: slice, buffer: NDArray[np.uint8] | None = None) -> NDArray[Any]:
        """Return a part of the array as `array` gives it, reading only its bytes from a plain file.

        It works after the file has been closed too. Compressed files are in memory anyway; compressed images are
        decompressed whole.

        Parameters
        ----------
        *slices : slice
            Of the slowest axes first, at most two; contiguous (no step).
        buffer : (n,) uint8 array, optional
            Memory to read the stored bytes into, at least as many; the result may be a view of it.

        Raises
        ------
        FileFormatError
            As `array`.
        """
        if self._is_compressed:
            return np.ascontiguousarray(self._unpacked()[slices])
        values = self.stored_section(*slices, buffer=buffer)
        kind = values.dtype
        native = values if kind.isnative else values.byteswap(inplace=True).view(kind.newbyteorder("="))
        return self._scaled(native)

    @property
    def is_plain_float32(self) -> bool:
        """Whether the stored numbers are the values themselves, big-endian float32."""
        scale, zero = (header_number(self.header, key) for key in ("BSCALE", "BZERO"))
        plain = not self._is_compressed and scale in (None, 1.0) and zero in (None, 0.0)
        return plain and self.integer("BITPIX") == -32

    def stored_section(self, *slices: slice, buffer: NDArray[np.uint8] | None = None) -> NDArray[Any]:
        """Return a part of the array as it is stored, big-endian and without scale; see `section`.

        Parameters
        ----------
        *slices : slice
            As for `section`; of an image that is not compressed.
        buffer : (n,) uint8 array, optional
            Memory to read into; the result is a view of it.
        """
        whole = self.shape
        ranges = [part.indices(size)[:2] for part, size in zip(slices, whole, strict=False)]
        shape = (*(max(0, stop - start) for start, stop in ranges), *whole[len(ranges) :])
        kind = np.dtype(_PIXEL_TYPES[self.integer("BITPIX")])
        if buffer is None:
            values = np.empty(shape, kind)
        else:
            values = buffer[: kind.itemsize * math.prod(shape)].view(kind).reshape(shape)
        if values.size:
            self._fill(values, ranges, whole)
        return values

    def _fill(self, values: NDArray[Any], ranges: list[tuple[int, int]], shape: tuple[int, ...]) -> None:
        """Read the stored bytes of a range of the two slowest axes: one stretch where the second one is whole."""
        row = values.itemsize * math.prod(shape[2:])
        plane = row * shape[1] if len(shape) > 1 else values.itemsize
        first = ranges[0][0] if ranges else 0
        complete = len(ranges) < 2 or ranges[1] == (0, shape[1])
        stretches = [values] if complete else list(values)
        start = self.start + first * plane + (0 if complete else ranges[1][0] * row)
        targets = [stretch.reshape(-1).view(np.uint8) for stretch in stretches]
        if self.file.content is not self.file.raw:
            for number, target in enumerate(targets):
                offset = start + number * plane
                target[:] = np.frombuffer(self.file.content, np.uint8, count=target.size, offset=offset)
            return
        with open(self.file.path, "rb", buffering=0) as stream:
            for number, target in enumerate(targets):
                stream.seek(start + number * plane)
                self._read_exactly(stream, target)

    def _unpacked(self) -> NDArray[Any]:
        """Return the whole of a compressed image, decompressed once."""
        return self.file.unpacked_array(self.header_start)

    def _read_exactly(self, stream: io.FileIO, target: NDArray[np.uint8]) -> None:
        view, done = target.data, 0
        while done < len(view):
            count = stream.readinto(view[done:])
            if not count:
                raise FileFormatError(
                    f"the file ends within {self.name or 'PRIMARY'}: {len(view) - done} bytes are missing",
                    source=self.file.path,
                    remedy="fetch or write it again",
                )
            done += count

    def _pixels(self) -> NDArray[Any]:
        return self._scaled(self._stored(np.dtype(_PIXEL_TYPES[self.integer("BITPIX")])).reshape(self.shape))

    def _scaled(self, native: NDArray[Any]) -> NDArray[Any]:
        """Return stored numbers with BSCALE, BZERO and BLANK applied."""
        bits = self.integer("BITPIX")
        scale, zero = (header_number(self.header, key) for key in ("BSCALE", "BZERO"))
        scale, zero = 1.0 if scale is None else scale, zero or 0.0
        if scale == 1.0 and zero == 0.0 and (bits < 0 or "BLANK" not in self.header):
            return native
        if bits in _UNSIGNED and scale == 1.0 and zero == _UNSIGNED[bits][0] and "BLANK" not in self.header:
            kind = _UNSIGNED[bits][1]
            return native.view(kind) ^ kind(_UNSIGNED[bits][0])
        values: NDArray[Any] = native.astype(np.float32 if bits in (-32, 8, 16) else np.float64)
        if bits > 0 and "BLANK" in self.header:
            values[native == self.integer("BLANK")] = np.nan
        values *= scale
        values += zero
        return values

    def _stored(self, kind: np.dtype[Any]) -> NDArray[Any]:
        """Return the numbers of the file in native byte order, from a plain file read into their own memory."""
        count = int(np.prod(self.shape))
        if self.file.content is not self.file.raw:
            packed = np.frombuffer(self.file.content, kind, count=count, offset=self.start)
            return packed.astype(kind.newbyteorder("="))
        values = np.fromfile(self.file.path, kind, count=count, offset=self.start)
        return values if kind.isnative else values.byteswap(inplace=True).view(kind.newbyteorder("="))

    def columns(self, *names: str) -> dict[str, NDArray[Any]]:
        """Return some columns of a binary table in native byte order, without reading the others.

        Parameters
        ----------
        *names : str
            In any case; columns that the table does not have are left out.

        Returns
        -------
        dict
            By the names as they were asked for. Arrays of (n_rows, ...); text as bytes.

        Raises
        ------
        FileFormatError
            When it is no binary table, or the file ends before it does.
        """
        if str(self.structure.get("XTENSION", "")).strip() != "BINTABLE" or self._is_compressed:
            raise FileFormatError(
                f"extension {self.name or 'PRIMARY'} is no binary table", source=self.file.path
            )
        if self.start + self.size > len(self.file.content):
            raise self.file.truncation()
        try:
            return read_columns(self, names)
        except _DAMAGED as error:
            raise FileFormatError(
                f"extension {self.name} cannot be read ({error})", source=self.file.path
            ) from error

    def table(self) -> Any:
        """Return the rows of a table as astropy reads them.

        Raises
        ------
        FileFormatError
            When it is none, or the file ends before it does.
        """
        if self.start + self.size > len(self.file.content):
            raise self.file.truncation()
        try:
            return self._astropy().data
        except _DAMAGED as error:
            raise FileFormatError(
                f"extension {self.name} cannot be read ({error})", source=self.file.path
            ) from error

    def _astropy(self) -> Any:
        """Return astropy's own form of this HDU, for what is more than a plain array."""
        end = self.start + self.size + (-self.size % BLOCK)
        primary = b"".join(
            line.ljust(80) for line in (b"SIMPLE  =                    T", b"BITPIX  =                    8")
        )
        primary += b"NAXIS   =                    0".ljust(80) + b"END"
        content = primary.ljust(BLOCK) + bytes(self.file.content[self.header_start : end])
        return fits.open(io.BytesIO(content), memmap=False)[1]
