"""A cube of any size like those of MUSE, written in a moment: most of its channels are holes in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skyloom.io.formats.blocks import BLOCK, card

SIDE = 300
FILLED = 64
"""Evenly spaced channels that have values: those of the white light."""


def header(name: str, shape: tuple[int, int, int], unit: str, first: bytes) -> bytes:
    """The header of a plane of a cube like those of MUSE."""
    cards = first + card("BITPIX", -32) + card("NAXIS", 3)
    cards += b"".join(card(f"NAXIS{axis}", size) for axis, size in enumerate(reversed(shape), start=1))
    cards += card("PCOUNT", 0) + card("GCOUNT", 1) + card("EXTNAME", name) + card("BUNIT", unit)
    for axis, (kind, value, pixel) in enumerate(
        (("RA---TAN", 150.0, SIDE / 2), ("DEC--TAN", 2.0, SIDE / 2), ("AWAV", 4750.0, 1.0)), start=1
    ):
        cards += card(f"CTYPE{axis}", kind) + card(f"CRVAL{axis}", value) + card(f"CRPIX{axis}", pixel)
        cards += card(f"CUNIT{axis}", "deg" if axis < 3 else "Angstrom")
    for key, value in (("CD1_1", -5.5e-5), ("CD2_2", 5.5e-5), ("CD3_3", 1.25)):
        cards += card(key, value)
    cards += b"END".ljust(80)
    return cards.ljust(-(-len(cards) // BLOCK) * BLOCK)


def write_cube(path: Path, size: float) -> tuple[int, int, int]:
    """Write a sparse cube of about ``size`` bytes; few channels have values."""
    shape = (int(size / 8 / SIDE**2), SIDE, SIDE)
    unit = "10**(-20)*erg/s/cm**2/Angstrom"
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:SIDE, :SIDE]
    galaxy = 100.0 * np.exp(-np.hypot(x - SIDE / 2, y - SIDE / 2) / 40.0)
    plane = 4 * SIDE**2
    with open(path, "wb") as stream:
        primary = (
            card("SIMPLE", True)
            + card("BITPIX", 8)
            + card("NAXIS", 0)
            + card("EXTEND", True)
            + b"END".ljust(80)
        )
        stream.write(primary.ljust(BLOCK))
        for name, text in (("DATA", unit), ("STAT", f"({unit})**2")):
            stream.write(header(name, shape, text, card("XTENSION", "IMAGE")))
            start = stream.tell()
            for channel in range(0, shape[0], -(-shape[0] // FILLED)):
                stream.seek(start + channel * plane)
                values = (
                    galaxy + rng.normal(0, 10, galaxy.shape)
                    if name == "DATA"
                    else np.full(galaxy.shape, 100.0)
                )
                stream.write(values.astype(">f4").tobytes())
            end = start + shape[0] * plane
            stream.truncate(end + (-end % BLOCK))
            stream.seek(end + (-end % BLOCK))
    return shape
