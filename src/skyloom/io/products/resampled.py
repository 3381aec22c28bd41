"""The resampled cube that other programs ask for: ``{name}.resam.fits``, linear in wavelength.

Extensions ``DATA`` and ``ERROR`` (1 sigma), both float32 with NaN where nothing is known, under a linear wavelength
axis; behind them what the resampling left in the noise and the resolution: ``LAGS`` (autocorrelation along wavelength),
``CORR`` (between spaxels) and ``LSF`` (standard deviation in A). Programs that know the first two only find an ordinary
cube.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom._version import __version__
from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.geometry import celestial
from skyloom.core.psf import PSF, psf_from_dict
from skyloom.core.units import parse_unit
from skyloom.errors import FileFormatError, InputError
from skyloom.io.cubes.files import read_whole
from skyloom.io.cubes.layout import CubeLayout
from skyloom.io.cubes.observation import celestial_wcs
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.blocks import Extension, card, encode, text_cards, write_array
from skyloom.io.formats.files import FitsFile
from skyloom.io.formats.headers import unit_text, wcs_cards
from skyloom.io.formats.plain_json import from_json, to_json
from skyloom.io.formats.spectral_axis import (
    DISPERSION_AXIS,
    DRIFT,
    axis_cards,
    frame_cards,
    with_third_axis,
)
from skyloom.io.formats.wavelengths import header_wave

__all__ = ["layout", "read_resampled", "sniff", "write_resampled"]

Float = NDArray[np.float64]

PRODUCT = "RESAMPLED"
_PART_BYTES = 2**24


def write_resampled(cube: Cube, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a cube with a linear wavelength axis as data and errors.

    Parameters
    ----------
    cube : Cube
        As made by ``resample(cube, step=1)``; at rest or not, which is written down (``ZSOURCE``, ``SPECSYS``).
    path : str or path
        It appears when it is complete.
    overwrite : bool

    Returns
    -------
    path

    Raises
    ------
    InputError
        When the wavelengths are not evenly spaced, or the file exists.
    UnitError
        When the unit has a scale that is no power of ten.

    Notes
    -----
    The errors are the square roots of the variance, channel by channel. Neighbouring channels of a resampled cube are
    not independent: `read_resampled` takes their correlation from ``LAGS``; programs that do not know it will take the
    errors of sums for smaller than they are.
    """
    _check_linear(cube.wave)
    flat = None if cube.wcs is None else celestial(cube.wcs)
    third = axis_cards(cube.wave, cube.medium, 3, matrix=flat is not None and flat.wcs.has_cd())
    shared = with_third_axis(wcs_cards(flat), third) + DISPERSION_AXIS[3]
    shared += frame_cards(cube.meta)
    unit = card("BUNIT", unit_text(cube.unit))
    with atomic_path(path, overwrite=overwrite) as temporary, open(temporary, "wb") as stream:
        stream.writelines(encode([Extension("", None, _primary_cards(cube))]))
        write_array(stream, "DATA", cube.shape, _parts(cube, error=False), unit + shared)
        write_array(stream, "ERROR", cube.shape, _parts(cube, error=True), unit + shared)
        # The first of these stands for a primary HDU, which there is already.
        stream.writelines(encode([Extension("", None), *_side_extensions(cube)])[3:])
    return Path(path)


def _check_linear(wave: Float) -> None:
    """Refuse axes that are not linear."""
    if wave.size < 2:
        raise InputError(
            "a cube of one channel has no step", field="wave", remedy="write it with skyloom.write"
        )
    increment = float(wave[-1] - wave[0]) / (wave.size - 1)
    worst = float(np.max(np.abs(wave - (wave[0] + increment * np.arange(wave.size)))))
    if worst > DRIFT * increment:
        raise InputError(
            f"the wavelengths are not evenly spaced: channels lie up to {worst:.3g} A off a step of {increment:.6g} A",
            field="wave",
            remedy="resample(cube, step=1) first; skyloom.write keeps any axis",
        )


def _primary_cards(cube: Cube) -> bytes:
    lines: list[str] = []
    for step in cube.history:
        lines += textwrap.wrap(
            step.describe()[:600], 72, subsequent_indent="    ", max_lines=8, placeholder=" ..."
        )
    cards = (
        card("ORIGIN", "Skyloom", "software that wrote this file")
        + card("SKYVERS", __version__, "its version")
        + card("SKYPROD", PRODUCT, "cube resampled in wavelength: DATA, ERROR (1 sigma)")
        + DISPERSION_AXIS[3]
    )
    for name, keyword in (("object", "OBJECT"), ("instrument", "INSTRUME")):
        if isinstance(cube.meta.get(name), str):
            cards += card(keyword, cube.meta[name])
    return cards + text_cards("HISTORY", lines)


def _parts(cube: Cube, *, error: bool) -> Iterator[NDArray[np.float32]]:
    """Yield consecutive channels of the data or the errors, NaN where masked."""
    n_wave, ny, nx = cube.shape
    count = max(1, _PART_BYTES // (4 * ny * nx))
    for start in range(0, n_wave, count):
        part = slice(start, start + count)
        source = cube.variance[part] if error else cube.data[part]
        values = np.where(cube.mask[part], np.float32(np.nan), source).astype(np.float32, copy=False)
        yield np.sqrt(values) if error else values


def _side_extensions(cube: Cube) -> list[Extension]:
    """Return what other programs do not ask for: correlations, line spread, and the rest of what is known."""
    extensions = []
    if cube.correlation is not None:
        for name, kernel in (("LAGS", cube.correlation.spectral), ("CORR", cube.correlation.spatial)):
            if kernel is not None:
                extensions.append(Extension(name, np.asarray(kernel, dtype=np.float64)))
    if cube.lsf is not None:
        widths = np.asarray(cube.lsf, dtype=np.float64)
        per_channel = np.full(cube.wave.size, float(widths)) if widths.ndim == 0 else widths
        kind = np.float32 if per_channel.ndim == 3 else np.float64
        extensions.append(Extension("LSF", per_channel.astype(kind), card("BUNIT", "Angstrom")))
    known = {"meta": cube.meta, "psf": None if cube.psf is None else _psf_note(cube.psf)}
    text = to_json(known, "meta").encode("ascii")
    extensions.append(Extension("META", np.array([(text,)], dtype=[("VALUE", f"S{len(text)}")])))
    return extensions


def _psf_note(psf: PSF) -> dict[str, Any] | None:
    """Return a PSF as plain values; None for a sampled one, which has no place in this file."""
    note = psf.describe()
    return None if note.get("type") == "sampled" else note


# ------------------------------------------------------------------------------------------------- reading


def sniff(file: FitsFile) -> bool:
    """Tell whether a file was written by `write_resampled`."""
    return file[0].header.get("SKYPROD") == PRODUCT


def layout(file: FitsFile) -> CubeLayout:
    """Find out from headers where everything of a resampled cube stands.

    Raises
    ------
    FileFormatError
        When an extension is missing.
    """
    numbers = {hdu.name: number for number, hdu in enumerate(file)}
    missing = [name for name in ("DATA", "ERROR", "META") if name not in numbers]
    if missing:
        raise FileFormatError(f"the extension {missing[0]} is missing", source=file.path)
    data = file["DATA"]
    axis = header_wave(data, 3, data.shape[0])
    known = from_json(str(file["META"].table()["VALUE"][0]))
    wcs, wcs_notes = celestial_wcs(data)
    lags, corr = (
        np.asarray(file[name].array(), dtype=np.float64) if name in numbers else None
        for name in ("LAGS", "CORR")
    )
    lsf: Float | int | None = None
    if "LSF" in numbers:
        flat = len(file["LSF"].shape) == 1
        lsf = np.asarray(file["LSF"].array(), dtype=np.float64) if flat else numbers["LSF"]
    note = known["psf"]
    return CubeLayout(
        data=numbers["DATA"],
        error=numbers["ERROR"],
        error_kind="sigma",
        wave=axis.wave,
        medium=axis.medium,
        unit=parse_unit(str(data.header["BUNIT"])),
        wcs=wcs,
        lsf=lsf,
        psf=None if note is None else psf_from_dict(note),
        correlation=None if lags is None and corr is None else CubeCorrelation(corr, lags),
        meta=known["meta"],
        notes=() if wcs is None else wcs_notes,
    )


def read_resampled(path: str | Path) -> Cube:
    """Read what `write_resampled` wrote, with the correlation and the line spread that belong to it."""
    return read_whole(path, instrument="resampled")
