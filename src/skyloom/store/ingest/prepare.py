"""From a file to observations: read, described by the columns of the store, at every resolution."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from skyloom._version import __version__
from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.linelist import air_to_vacuum
from skyloom.core.spectra import Spectra
from skyloom.errors import FileFormatError, InputError
from skyloom.io.fits import read_product
from skyloom.io.formats.cards import Header
from skyloom.io.formats.files import kept_open
from skyloom.io.registry import read
from skyloom.store.ingest.footprint import Footprint, circle_of, footprint_of
from skyloom.store.ingest.locate import Source, header_text, locate
from skyloom.store.ingest.sources import weight_of
from skyloom.store.ingest.times import Span, times_of
from skyloom.store.levels.quantise import quantise_observation
from skyloom.store.observation import Observation
from skyloom.store.schema import COLUMNS, StoreSettings
from skyloom.store.search.cells import healpix_of

__all__ = ["columns_of", "prepare"]

FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
METRES = 1e-10  # of an angstrom
_OTHER_LETTERS = re.compile(r"[^A-Za-z0-9+\-._]+")
# The headers of SDSS write the names of its surveys small.
_SURVEYS = {"sdss": "SDSS", "boss": "BOSS", "eboss": "eBOSS", "segue1": "SEGUE-1", "segue2": "SEGUE-2"}
_UCD = {
    "image": "phot.flux.density;em",
    "cube": "phot.flux.density;em",
    "spectrum": "phot.flux.density;em.wl",
}


def prepare(
    source: Source | str | Path,
    settings: StoreSettings | None = None,
    *,
    options: Mapping[str, Any] | None = None,
) -> list[Observation]:
    """Read a file and make of it what the store keeps.

    Parameters
    ----------
    source : Source or path
        See `skyloom.store.ingest.locate.locate`.
    settings : StoreSettings, optional
        Of the store: its common grid and its resolutions.
    options : mapping, optional
        For `skyloom.io.registry.read`, e.g. ``{"unit": "electron/s"}``.

    Returns
    -------
    list of Observation
        One of an image or a cube, one per band of a product with several, one per row of spectra.

    Raises
    ------
    InputError
        When the file cannot be read, or holds nothing that the store keeps.
    """
    place = source if isinstance(source, Source) else locate(source)
    chosen = settings or StoreSettings()
    path = Path(place.path)
    with kept_open(path, sha256=_known_digest(place)) as file:
        if file.sha256 != place.digest:
            raise FileFormatError("has been changed meanwhile", source=path, remedy="ingest it again")
        content = _read(path, file[0].header, options or {})
        text = header_text(file)
        headers = tuple(hdu.header for hdu in file.hdus[:2])
    made = []
    try:
        for suffix, kind, subject in _subjects(content, path):
            name = place.base + suffix
            columns = columns_of(name, kind, subject, place, headers)
            observation = _observation(name, kind, subject, columns, text, chosen)
            if chosen.compression == "quantised":
                observation = quantise_observation(observation, chosen.quantum)
            made.append(observation)
    except InputError as error:
        raise error.located(path) from error
    if not made:
        raise FileFormatError("holds no image and no spectrum", source=path)
    return made


def _known_digest(place: Source) -> str | None:
    """Return the digest of a file that has not been touched since it was located; None where that is not certain."""
    try:
        state = Path(place.path).stat()
    except OSError:
        # The reader says what is the matter.
        return None
    return place.digest if (state.st_size, state.st_mtime_ns) == (place.size, place.modified) else None


def _read(path: Path, header: Header, options: Mapping[str, Any]) -> Any:
    """Read a file; of a product of Skyloom with several bands, all of them."""
    if header.get("SKYTYPE") == "Product" and not options:
        return read_product(path)
    return read(path, **_with_weight(path, options))


def _with_weight(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the reader, with the weight map beside an image that holds none."""
    weight = weight_of(path)
    return {"weight": weight, **options} if weight is not None else dict(options)


def _subjects(content: Any, path: Path) -> Iterator[tuple[str, str, Image | Cube | Spectra]]:
    """Yield what a reader has returned one by one: the end of its name, its kind, and itself."""
    if isinstance(content, Image):
        yield "", "image", content
    elif isinstance(content, Cube):
        yield "", "cube", content
    elif isinstance(content, Spectra):
        from skyloom.store.levels.common_grid import rows

        n = content.shape[0]
        for number, spectrum in enumerate(rows(content)):
            yield (f"-{number}" if n > 1 else ""), "spectrum", spectrum
    elif isinstance(content, Mapping) and content:
        for name, item in content.items():
            for suffix, kind, subject in _subjects(item, path):
                yield f"-{_OTHER_LETTERS.sub('_', str(name))}{suffix}", kind, subject
    else:
        raise FileFormatError(
            f"holds a {type(content).__name__}; the store keeps images, cubes and spectra", source=path
        )


def _observation(
    name: str,
    kind: str,
    subject: Image | Cube | Spectra,
    columns: dict[str, Any],
    header: str,
    settings: StoreSettings,
) -> Observation:
    if isinstance(subject, Spectra):
        from skyloom.store.levels.spectra import spectrum_levels

        native, levels = spectrum_levels(subject, settings)
        columns["n_levels"] = max(1, len(levels))
        columns["o_unit"] = native.subject.unit.to_string()
        return Observation(name, kind, columns, header, levels, native)
    made: Any
    if isinstance(subject, Cube):
        from skyloom.store.levels.cubes import cube_levels

        made = cube_levels(subject, settings.levels)
    else:
        from skyloom.store.levels.images import image_levels

        made = image_levels(subject, settings.levels)
    columns["n_levels"] = len(made)
    # Single precision may have moved a power of ten into it.
    columns["o_unit"] = made[0].subject.unit.to_string()
    return Observation(name, kind, columns, header, made)


# --- columns --------------------------------------------------------------------------------------------------------


def columns_of(
    name: str, kind: str, subject: Image | Cube | Spectra, place: Source, headers: tuple[Header, ...]
) -> dict[str, Any]:
    """Return a value for each column; the digest is computed where the observation is written."""
    meta = subject.meta
    footprint = _where(subject)
    span = times_of(meta, headers)
    columns: dict[str, Any] = dict.fromkeys(COLUMNS)
    columns.update(
        obs_id=name,
        dataproduct_type=kind,
        # What has been worked on after it was read is a product of its own.
        calib_level=3 if len(subject.history) > 1 else 2,
        target_name=_text(meta, headers, "object", "OBJECT"),
        facility_name=_text(meta, headers, "telescope", "TELESCOP"),
        instrument_name=_text(meta, headers, "instrument", "INSTRUME"),
        band=str(meta.get("band") or "") if kind == "image" else "",
        n_good=int(np.count_nonzero(~subject.mask)),
        o_ucd=_UCD[kind],
        access_estsize=-(-place.size // 1024),
        healpix=_cell(footprint, place),
        redshift=_number(meta.get("redshift", meta.get("z"))),
        source=place.name,
        source_digest=place.digest,
        digest="",
        version=__version__,
        **_times(span),
        **_sky(footprint, subject),
        **_wavelengths(subject, headers),
    )
    columns["obs_collection"] = _collection(meta, columns)
    return columns


def _collection(meta: Mapping[str, Any], columns: Mapping[str, Any]) -> str:
    told = str(meta.get("survey") or meta.get("collection") or "").strip()
    if told:
        return _SURVEYS.get(told.lower(), told)
    return "SDSS" if str(columns["obs_id"]).startswith("sdss-") else str(columns["instrument_name"])


def _text(meta: Mapping[str, Any], headers: tuple[Header, ...], key: str, keyword: str) -> str:
    told = (meta.get(key), *(header.get(keyword) for header in headers))
    return next((text for value in told if (text := str(value or "").strip())), "")


def _cell(footprint: Footprint, place: Source) -> int:
    # Those of all files have been found at once; one alone takes a third of a millisecond.
    if place.cell >= 0 and (footprint.ra, footprint.dec) == (place.ra, place.dec):
        return place.cell
    return int(healpix_of(footprint.ra, footprint.dec)[0])


def _number(value: Any) -> float:
    """Return a number, NaN for what is none (or several)."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _times(span: Span) -> dict[str, float]:
    t_min, t_max = span.utc()
    return {
        "t_start": span.start,
        "t_stop": span.stop,
        "t_min": t_min,
        "t_max": t_max,
        "t_exptime": span.exposure,
    }


def _where(subject: Image | Cube | Spectra) -> Footprint:
    if not isinstance(subject, Spectra):
        return footprint_of(subject.wcs, subject.shape[-2:])
    meta = subject.meta
    ra, dec = _number(meta.get("ra")), _number(meta.get("dec"))
    if abs(dec) > 90:
        raise InputError(
            f"the declination is {dec} deg; expected -90 to 90", field="dec", remedy="correct the header"
        )
    diameter = _number(meta.get("fibre_diameter"))
    return circle_of(ra, dec, diameter / 7200.0 if diameter > 0 else 0.0)


def _sky(footprint: Footprint, subject: Image | Cube | Spectra) -> dict[str, Any]:
    values: dict[str, Any] = {
        "s_ra": footprint.ra,
        "s_dec": footprint.dec,
        "s_fov": 2.0 * footprint.radius,
        "s_region": footprint.region,
        "radius": footprint.radius,
        "pixel_scale": footprint.pixel_scale,
        "s_xel1": 1,
        "s_xel2": 1,
        "s_resolution": float("nan"),
    }
    if not isinstance(subject, Spectra):
        values["s_xel2"], values["s_xel1"] = subject.shape[-2:]
        if subject.psf is not None:
            values["s_resolution"] = float(subject.psf.fwhm)
    return values


def _wavelengths(subject: Image | Cube | Spectra, headers: tuple[Header, ...]) -> dict[str, Any]:
    if isinstance(subject, Image):
        low, high = _band_edges(subject.meta, headers)
        return {"em_min": low * METRES, "em_max": high * METRES, "em_xel": 1, "em_res_power": float("nan")}
    wave = subject.wave
    if not wave[0] > 0:
        raise InputError(
            f"the wavelengths begin at {wave[0]:g} A", field="wave", remedy="give them in A, more than 0"
        )
    ends = np.array([wave[0], wave[len(wave) // 2], wave[-1]])
    if subject.medium == "air":
        ends = air_to_vacuum(ends)
    return {
        "em_min": ends[0] * METRES,
        "em_max": ends[2] * METRES,
        "em_xel": len(wave),
        "em_res_power": float(ends[1] / (FWHM * _middle_lsf(subject))),
    }


def _middle_lsf(subject: Cube | Spectra) -> float:
    if subject.lsf is None:
        return float("nan")
    widths = np.asarray(subject.lsf, dtype=np.float64)
    if widths.ndim == 0:
        return float(widths)
    # Of a spectrum per row the wavelength runs last, of a cube first.
    along = widths.T if isinstance(subject, Spectra) and widths.ndim == 2 else widths
    middle = along[len(along) // 2]
    if middle.ndim == 0:
        return float(middle) if np.isfinite(middle) and middle > 0 else float("nan")
    known = middle[np.isfinite(middle) & (middle > 0)]
    return float(np.median(known)) if known.size else float("nan")


def _band_edges(meta: Mapping[str, Any], headers: tuple[Header, ...]) -> tuple[float, float]:
    """Return the wavelengths of an image in A, as its reader or its header tells them; NaN where nobody does."""
    told = meta.get("wave_range")
    if isinstance(told, (list, tuple)) and len(told) == 2:
        low, high = map(_number, told)
        if high > low > 0:
            return low, high
    pivot = _number(meta.get("photplam", _keyword(headers, "PHOTPLAM")))
    # PHOTBW is the root mean square width; a box of that width is sqrt(12) times as wide.
    width = _number(meta.get("photbw", _keyword(headers, "PHOTBW"))) * np.sqrt(12.0)
    if pivot > 0 and width > 0:
        return max(pivot - 0.5 * width, 0.0), pivot + 0.5 * width
    return float("nan"), float("nan")


def _keyword(headers: tuple[Header, ...], keyword: str) -> Any:
    return next((header[keyword] for header in headers if keyword in header), None)
