"""Images, cubes and spectra as what lies in a file: named planes and a note; taken apart and put together, no loss.

The planes are arrays under the names they have in the HDF5 groups. The note holds all the rest as plain values: the
unit, the WCS as FITS cards with every digit, the PSF, shared errors, meta data and history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from astropy.wcs import WCS, Sip
from numpy.typing import NDArray

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.image import Image, Mode
from skyloom.core.provenance import Step
from skyloom.core.psf import PSF, SampledPSF, psf_from_dict
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError
from skyloom.io.formats.cards import parse_header
from skyloom.io.formats.headers import exact_wcs, parse_bunit, unit_text, wcs_cards
from skyloom.io.formats.plain_json import to_json
from skyloom.store.observation import Level

__all__ = [
    "StoredLevel",
    "apart",
    "cube_from",
    "image_from",
    "join_notes",
    "moved_wcs",
    "spectra_from",
    "split_notes",
    "wcs_from_cards",
]

Array = NDArray[Any]
WHOLE = frozenset({"correlation", "correlation_spectral", "psf", "wave"})
"""Planes that have no pixels of the sky: a window leaves them as they are."""


class StoredLevel(NamedTuple):
    """One level as it lies in a file.

    Parameters
    ----------
    planes : dict
        Name -> array: ``flux``, ``variance``, ``mask`` (1 where unusable), ``n_good``, and where there are such
        ``flags``, ``correlation``, ``correlation_spectral``, ``psf``, ``mode_1`` ..., ``wave``, ``lsf``, ``lags``.
    note : dict
        What is no array, for `skyloom.io.formats.plain_json`.
    """

    planes: dict[str, Array]
    note: dict[str, Any]


# ----------------------------------------------------------------------------------------------- taking apart


def apart(level: Level[Any], *, common: bool = False) -> StoredLevel:
    """Return the planes and the note of a level.

    Parameters
    ----------
    level : Level
        Its spectra, if it has such, hold one.
    common : bool
        Whether it is a spectrum on the grid that all share: LSF and lags are then single precision.

    Raises
    ------
    InputError
        When the WCS has distortion tables, spectra are several, or single precision does not hold the variance.
    """
    subject = level.subject
    planes = {
        "flux": subject.data,
        "variance": subject.variance,
        "mask": subject.mask.view(np.uint8),
        "n_good": level.n_good,
    }
    if subject.flags is not None:
        planes["flags"] = subject.flags
    note: dict[str, Any] = {
        "unit": unit_text(subject.unit),
        "meta": subject.meta,
        "history": [[step.name, step.version, dict(step.parameters)] for step in subject.history],
    }
    if isinstance(subject, Spectra):
        planes = _spectrum_apart(subject, planes, note, common)
    else:
        planes["n_good"] = _small_counts(level.n_good)
        _place_apart(subject, planes, note)
    note["planes"] = sorted(planes)
    return StoredLevel(planes, note)


def _place_apart(subject: Image | Cube, planes: dict[str, Array], note: dict[str, Any]) -> None:
    note["wcs"] = None if subject.wcs is None else wcs_cards(subject.wcs).decode("ascii")
    note["psf"] = _psf_apart(subject.psf, planes)
    note["modes"] = [_mode_apart(mode, number, planes) for number, mode in enumerate(subject.modes, 1)]
    if isinstance(subject, Cube):
        _axis_apart(subject, planes, note)
    elif subject.correlation is not None:
        planes["correlation"] = subject.correlation


def _small_counts(n_good: Array) -> Array:
    """Return counts in the smallest type that holds them."""
    largest = int(n_good.max(initial=0))
    return np.asarray(n_good, dtype=np.min_scalar_type(largest))


def _psf_apart(psf: PSF | None, planes: dict[str, Array]) -> dict[str, Any] | None:
    if isinstance(psf, SampledPSF):
        planes["psf"] = psf.array
        return {"type": "sampled", "matrix": psf.matrix.tolist()}
    return None if psf is None else psf.describe()


def _mode_apart(mode: Mode, number: int, planes: dict[str, Array]) -> list[Any]:
    if np.ndim(mode.map) == 0:
        return [mode.name, float(mode.map), float(mode.sigma)]
    planes[f"mode_{number}"] = np.asarray(mode.map)
    return [mode.name, None, float(mode.sigma)]


def _axis_apart(cube: Cube, planes: dict[str, Array], note: dict[str, Any]) -> None:
    planes["wave"] = cube.wave
    note["medium"] = cube.medium
    note["lsf"] = None
    if cube.lsf is not None and np.ndim(cube.lsf) == 0:
        note["lsf"] = float(cube.lsf)
    elif cube.lsf is not None:
        planes["lsf"] = np.asarray(cube.lsf)
    note["separable"] = cube.correlation is not None
    names = ("correlation", "correlation_spectral")
    kernels = zip(names, cube.correlation or (None, None), strict=True)
    planes.update({name: rho for name, rho in kernels if rho is not None})


def _spectrum_apart(
    spectrum: Spectra, planes: dict[str, Array], note: dict[str, Any], common: bool
) -> dict[str, Array]:
    n, n_wave = spectrum.shape
    if n != 1:
        raise InputError(f"the level holds {n} spectra; expected 1", field="levels")
    planes = {name: plane.reshape(n_wave) for name, plane in planes.items()}
    planes["flux"], planes["variance"] = _single(spectrum)
    if planes["n_good"].dtype != np.uint16:
        if planes["n_good"].max() > np.iinfo(np.uint16).max:
            raise InputError(
                f"n_good is {planes['n_good'].max()}; a spectrum may count to 65535", field="n_good"
            )
        planes["n_good"] = planes["n_good"].astype(np.uint16)
    planes["wave"] = spectrum.wave
    note["medium"] = spectrum.medium
    note["modes"] = [
        [mode.name, mode.map if np.ndim(mode.map) else float(mode.map), float(mode.sigma)]
        for mode in spectrum.modes
    ]
    note["lsf"] = None
    if spectrum.lsf is not None:
        planes["lsf"] = np.empty(n_wave, dtype=np.float32 if common else np.float64)
        planes["lsf"][:] = np.reshape(spectrum.lsf, -1)
        # The shape it had: one number, one for each wavelength, or rows.
        note["lsf"] = float(spectrum.lsf) if np.ndim(spectrum.lsf) == 0 else np.ndim(spectrum.lsf)
    note["lags"] = None
    if spectrum.correlation is not None:
        upper = spectrum.correlation.shape[-1] // 2
        planes["lags"] = np.empty((n_wave, upper), dtype=np.float32 if common else np.float64)
        planes["lags"][:] = spectrum.correlation[..., upper + 1 :]
        note["lags"] = spectrum.correlation if spectrum.correlation.ndim == 1 else upper
    return planes


def _single(spectrum: Spectra) -> tuple[Array, Array]:
    flux, variance = (plane[0].astype(np.float32, copy=False) for plane in (spectrum.data, spectrum.variance))
    if spectrum.variance.dtype != np.float32:
        used = ~spectrum.mask[0]
        smallest, largest = np.finfo(np.float32).tiny, np.finfo(np.float32).max
        bad = used & ~((variance >= smallest) & (variance <= largest) & (np.abs(flux) <= largest))
        if bad.any():
            raise InputError(
                f"a variance of {spectrum.variance[0, bad.argmax()]} has no place in single precision",
                field="variance",
                remedy="multiply the spectrum by a power of ten and put it into the unit",
            )
    return flux, variance


# -------------------------------------------------------------------------------------- notes of several levels


def join_notes(notes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the notes with what each shares with the first one left out, and only the end of its history."""
    joined = list(notes[:1])
    for note in notes[1:]:
        first = notes[0]
        shared = {
            key for key in first.keys() & note.keys() if key != "history" and _is_same(note[key], first[key])
        }
        shorter = {key: value for key, value in note.items() if key not in shared}
        shorter["without"] = sorted(first.keys() - note.keys())
        past, own = first["history"], note["history"]
        same = 0
        while same < min(len(past), len(own)) and past[same] == own[same]:
            same += 1
        shorter["history"] = {"same": same, "then": own[same:]}
        joined.append(shorter)
    return joined


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        # As text, because == of arrays is no single answer, and does not tell a tuple from a list.
        return one.keys() == other.keys() and to_json(one, "note") == to_json(other, "note")
    if isinstance(one, list):
        return type(other) is list and len(one) == len(other) and all(map(_is_same, one, other))
    return type(one) is type(other) and isinstance(one, (str, int, float)) and one == other


def split_notes(joined: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the notes that `join_notes` was given."""
    notes = list(joined[:1])
    for shorter in joined[1:]:
        first, own, past = notes[0], dict(shorter), shorter["history"]
        missing = {*own.pop("without"), "history"}
        note = {key: value for key, value in first.items() if key not in missing} | own
        note["history"] = [*first["history"][: past["same"]], *past["then"]]
        notes.append(note)
    return notes


# -------------------------------------------------------------------------------------------- putting together


def image_from(planes: Mapping[str, Array], note: Mapping[str, Any], wcs: WCS | None) -> Image:
    """Return the image of planes (perhaps of a window) and a note; ``wcs`` is that of the window."""
    return Image(
        data=planes["flux"],
        variance=planes["variance"],
        mask=planes["mask"],
        wcs=wcs,
        psf=_psf_from(planes, note["psf"]),
        correlation=planes.get("correlation"),
        **_common(planes, note),
    )


def cube_from(planes: Mapping[str, Array], note: Mapping[str, Any], wcs: WCS | None) -> Cube:
    """Return the cube of planes (perhaps of a window) and a note; ``wcs`` is that of the window."""
    separable = CubeCorrelation(planes.get("correlation"), planes.get("correlation_spectral"))
    return Cube(
        data=planes["flux"],
        variance=planes["variance"],
        mask=planes["mask"],
        wcs=wcs,
        psf=_psf_from(planes, note["psf"]),
        wave=planes["wave"],
        medium=note["medium"],
        lsf=planes.get("lsf", note["lsf"]),
        correlation=separable if note["separable"] else None,
        **_common(planes, note),
    )


def spectra_from(planes: Mapping[str, Array], note: Mapping[str, Any]) -> Spectra:
    """Return the spectrum of one-dimensional planes and a note."""
    rows = {name: planes[name][None] for name in ("flux", "variance", "mask")}
    common = _common(planes, note)
    if common["flags"] is not None:
        common["flags"] = common["flags"][None]
    return Spectra(
        data=rows["flux"],
        variance=rows["variance"],
        mask=rows["mask"],
        wave=planes["wave"],
        medium=note["medium"],
        lsf=_lsf_from(planes, note["lsf"]),
        correlation=_lags_from(planes, note["lags"]),
        **common,
    )


def _common(planes: Mapping[str, Array], note: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "unit": parse_bunit(note["unit"]),
        "flags": planes.get("flags"),
        "modes": tuple(
            Mode(name, planes[f"mode_{number}"] if value is None else value, sigma)
            for number, (name, value, sigma) in enumerate(note["modes"], 1)
        ),
        "meta": dict(note["meta"]),
        "history": tuple(Step(*step) for step in note["history"]),
    }


def _psf_from(planes: Mapping[str, Array], note: dict[str, Any] | None) -> PSF | None:
    if note is None:
        return None
    if note["type"] == "sampled":
        return SampledPSF(planes["psf"], np.array(note["matrix"]))
    return psf_from_dict(note)


def _lsf_from(planes: Mapping[str, Array], note: float | int | None) -> Any:
    if note is None or isinstance(note, float):
        return note
    row = planes["lsf"].astype(np.float64)
    return row if note == 1 else row[None]


def _lags_from(planes: Mapping[str, Array], note: Array | int | None) -> Array | None:
    """Make the band of lags whole again: that of channel i with i - d is that of i - d with i."""
    if note is None or isinstance(note, np.ndarray):
        return note
    n_wave = planes["flux"].size
    band = np.zeros((n_wave, 2 * note + 1))
    band[:, note] = 1.0
    if note:
        upper = planes["lags"][:, :note]
        band[:, note + 1 :] = upper
        for lag in range(1, min(note, n_wave - 1) + 1):
            band[lag:, note - lag] = upper[:-lag, lag - 1]
    return band


# ------------------------------------------------------------------------------------------- world coordinates


@lru_cache(maxsize=512)
def _parsed(cards: str, shape: tuple[int, ...]) -> WCS:
    return exact_wcs(parse_header(cards.encode("ascii")), shape)


def wcs_from_cards(cards: str | None, shape: tuple[int, ...]) -> WCS | None:
    """Return the WCS of the cards in a note; it is parsed once and shared, so copy it before changing it."""
    return None if cards is None else _parsed(cards, shape)


def moved_wcs(wcs: WCS | None, x: int, y: int, shape: tuple[int, ...], channel: int = 0) -> WCS | None:
    """Return the WCS of a window of ``shape`` whose first pixel is (x, y), and whose first channel is ``channel``."""
    if wcs is None:
        return None
    moved = wcs.deepcopy()
    shift = np.array([x, y, channel][: wcs.naxis])
    if shift.any():
        moved.wcs.crpix = np.array(wcs.wcs.crpix) - shift
        if wcs.sip is not None:
            sip = wcs.sip
            moved.sip = Sip(sip.a, sip.b, sip.ap, sip.bp, np.array(sip.crpix) - shift[:2])
        moved.wcs.set()
    moved.pixel_shape = shape[::-1] if moved.naxis == len(shape) else None
    return moved
