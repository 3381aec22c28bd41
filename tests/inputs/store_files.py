"""Files of SDSS, whole and broken in all ways that are known, for tests of readers and of a store."""

from __future__ import annotations

import bz2
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skyloom.mock.sdss.field import SdssField, sdss_field
from skyloom.mock.sdss.frames import EPOCHS, Epoch, FrameObservation, observe_frame
from skyloom.mock.sdss.records import frame_bytes, frame_name, spectrum_bytes, spectrum_name
from skyloom.mock.sdss.spectra import SDSS, SpectrumObservation, observe_spectrum

SHAPE = (48, 64)


class BrokenFile(NamedTuple):
    """A file that must not be stored, and words that the message about it must have."""

    path: Path
    words: tuple[str, ...]


@cache
def small_field() -> SdssField:
    """Two stars and a galaxy: painted in no time."""
    return sdss_field(5, shape=SHAPE, n_stars=2, n_galaxies=1, spiral=False)


@cache
def small_frame(epoch: int = 0, band: str = "r") -> FrameObservation:
    """Return a frame of 48 x 64 pixels."""
    return observe_frame(small_field(), EPOCHS[epoch], band, SHAPE, seed=11 + epoch)


@cache
def small_spectrum(fiber: int = 211) -> SpectrumObservation:
    """Return the spectrum of a star, 500 pixels long."""
    short = replace(SDSS, start=3.72, n_wave=500)
    return observe_spectrum(small_field(), 100, short, fiber=fiber, seed=fiber)


def good_frame(folder: Path, epoch: int = 0, band: str = "r") -> Path:
    """Write a frame that is all right."""
    return _write(folder / frame_name(EPOCHS[epoch], band), frame_bytes(small_frame(epoch, band)))


def good_spectrum(folder: Path, fiber: int = 211) -> Path:
    """Write a spectrum that is all right."""
    observation = small_spectrum(fiber)
    name = spectrum_name(observation.plate, observation.mjd, fiber)
    return _write(folder / name, spectrum_bytes(observation))


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _hdus(observation: FrameObservation) -> list[bytes]:
    """The HDUs of a frame; lengths follow from the parts that are written one after the other."""
    content = frame_bytes(observation)
    starts = [0]
    for _ in range(3):
        starts.append(content.index(b"XTENSION", starts[-1] + 1))
    return [content[start:stop] for start, stop in zip(starts, [*starts[1:], None], strict=True)]


def _frame(folder: Path, field: int, content: bytes, suffix: str = "") -> Path:
    """Write a broken frame under a name of its own."""
    name = frame_name(Epoch(2820, 3, field, 0.0), "r") + suffix
    return _write(folder / name, content)


def _replaced(old: bytes, new: bytes) -> bytes:
    """A frame with other text of the same length in its header."""
    content = frame_bytes(small_frame())
    assert len(old) == len(new)
    assert content.count(old) == 1, old
    return content.replace(old, new)


def truncated_bz2(folder: Path) -> BrokenFile:
    content = bz2.compress(frame_bytes(small_frame()))
    return BrokenFile(_frame(folder, 901, content[: len(content) // 2], ".bz2"), ("truncated",))


def truncated_frame(folder: Path) -> BrokenFile:
    return BrokenFile(_frame(folder, 902, b"".join(_hdus(small_frame()))[:9000]), ("truncated",))


def missing_calibration(folder: Path) -> BrokenFile:
    image, _, sky, astrometry = _hdus(small_frame())
    return BrokenFile(_frame(folder, 903, image + sky + astrometry), ("calibration", "missing"))


def missing_sky(folder: Path) -> BrokenFile:
    image, calibration, _, _ = _hdus(small_frame())
    return BrokenFile(_frame(folder, 904, image + calibration), ("sky", "missing"))


def nan_calibration(folder: Path) -> BrokenFile:
    return BrokenFile(_frame(folder, 905, _calibrated(np.nan)), ("calibration", "nan"))


def zero_calibration(folder: Path) -> BrokenFile:
    return BrokenFile(_frame(folder, 906, _calibrated(0.0)), ("calibration", "0.0"))


def _calibrated(value: float) -> bytes:
    """A frame with one column whose calibration is ``value``."""
    frame = small_frame()
    calibration = frame.calibration.copy()
    calibration[17] = value
    return frame_bytes(replace(frame, calibration=calibration))


def wrong_sky_shape(folder: Path) -> BrokenFile:
    frame = small_frame()
    image, calibration, _, astrometry = _hdus(frame)
    wider = observe_frame(small_field(), EPOCHS[0], "r", (48, 72), truth=np.zeros((48, 72)), seed=1)
    return BrokenFile(_frame(folder, 907, image + calibration + _hdus(wider)[2] + astrometry), ("XINTERP",))


def contradicting_date(folder: Path) -> BrokenFile:
    content = _replaced(b"DATE-OBS= '2001-12-18'", b"DATE-OBS= '2001-12-19'")
    return BrokenFile(_frame(folder, 908, content), ("DATE-OBS", "TAI"))


def impossible_date(folder: Path) -> BrokenFile:
    content = _replaced(b"DATE-OBS= '2001-12-18'", b"DATE-OBS= '2001-13-41'")
    return BrokenFile(_frame(folder, 909, content), ("DATE-OBS", "2001-13-41"))


def unknown_filter(folder: Path) -> BrokenFile:
    content = _replaced(b"FILTER  = 'r       '", b"FILTER  = 'q       '")
    return BrokenFile(_frame(folder, 910, content), ("FILTER", "'q'"))


def all_nan(folder: Path) -> BrokenFile:
    frame = small_frame()
    image, *others = _hdus(frame)
    # The header as it was, pixels that are none.
    size = -(-frame.image.data.nbytes // 2880) * 2880
    nothing = np.full(frame.image.shape, np.nan, ">f4").tobytes()
    body = image[: len(image) - size] + nothing + b"\0" * (size - len(nothing))
    return BrokenFile(_frame(folder, 911, body + b"".join(others)), ("NaN",))


def _spectrum(folder: Path, fiber: int, variance: np.ndarray | None, cut: int | None = None) -> Path:
    """Write a broken spectrum under a name of its own; ``variance`` may be what no Spectra would take."""
    observation = small_spectrum(fiber)
    content = bytearray(spectrum_bytes(observation))
    if variance is not None:
        start = content.index(b"XTENSION")
        data = start + 2880 * -(-(content.index(b"END     ", start) + 80 - start) // 2880)
        rows = np.frombuffer(content, ">f4", observation.spectrograph.n_wave * 8, data).reshape(-1, 8)
        rows[:, 2] = variance
    name = spectrum_name(observation.plate, observation.mjd, fiber)
    return _write(folder / name, bytes(content[:cut]))


def negative_ivar(folder: Path) -> BrokenFile:
    inverse = np.ones(500)
    inverse[40:43] = -1.0
    return BrokenFile(_spectrum(folder, 912, inverse), ("3 inverse variances are negative",))


def zero_ivar(folder: Path) -> BrokenFile:
    return BrokenFile(_spectrum(folder, 913, np.zeros(500)), ("ivar",))


def truncated_spectrum(folder: Path) -> BrokenFile:
    return BrokenFile(_spectrum(folder, 914, None, cut=9000), ("truncated",))


def empty_file(folder: Path) -> BrokenFile:
    return BrokenFile(_frame(folder, 915, b""), ())


def error_page(folder: Path) -> BrokenFile:
    page = b"<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"
    return BrokenFile(_frame(folder, 916, page), ())


def flipped_bz2(folder: Path) -> BrokenFile:
    content = bytearray(bz2.compress(frame_bytes(small_frame())))
    content[len(content) // 2] ^= 0x10
    return BrokenFile(_frame(folder, 917, bytes(content), ".bz2"), ())


BROKEN: dict[str, Callable[[Path], BrokenFile]] = {
    maker.__name__: maker
    for maker in (
        truncated_bz2, flipped_bz2, truncated_frame, missing_calibration, missing_sky, nan_calibration,
        zero_calibration, wrong_sky_shape, contradicting_date, impossible_date, unknown_filter, all_nan,
        negative_ivar, zero_ivar, truncated_spectrum, empty_file, error_page,
    )
}  # fmt: skip
"""Every way of being broken; each file has a name of its own, so that all fit into one folder."""


def duplicate(folder: Path) -> tuple[Path, Path]:
    """Write one spectrum under two names: only one of them can be stored."""
    path = good_spectrum(folder)
    return path, _write(folder / "copy" / "another_name.fits", path.read_bytes())


def same_name(folder: Path) -> tuple[Path, Path]:
    """Write two different spectra with one plate, night and fibre: they would have one name in a store."""
    path = good_spectrum(folder)
    again = replace(small_spectrum(), truth=small_spectrum().truth * 1.01)
    return path, _write(folder / "other" / path.name, spectrum_bytes(again))
