"""Cut-outs: the part of an observation that a SODA 1.0 request asks for, with variance, mask and coordinates."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.image import Image, Mode
from skyloom.core.spectra import Spectra
from skyloom.store.files.part_reader import PartReader
from skyloom.store.query import Store
from skyloom.store.search.sphere import unit_vectors
from skyloom.store.service.documents import InputParameter, descriptor
from skyloom.store.service.obscore import BYTES_PER_VALUE, Places
from skyloom.store.service.parameters import (
    Interval,
    Parameters,
    ServiceError,
    Shape,
    circle,
    interval,
    polygon,
    region,
    whole_number,
)
from skyloom.store.service.pixels import channels_in, pixels_of
from skyloom.store.service.times import POLARISATIONS, as_tai

__all__ = ["Cutout", "Request", "cutout", "fits_bytes", "read_request", "soda_descriptor"]

Float = NDArray[np.float64]

STANDARD = "ivo://ivoa.net/std/SODA#sync-1.0"
SEVERAL = "MultiValuedParamNotSupported"
FORMATS = ("application/fits", "image/fits", "fits")
MOST_LEVELS = 64


class Request(NamedTuple):
    """What is to be cut out; None: all of it."""

    obs_id: str
    shape: Shape | None = None
    band: Interval | None = None
    time: Interval | None = None
    states: tuple[str, ...] = ()
    level: int = 0


class Cutout(NamedTuple):
    """A part of an observation."""

    subject: Image | Cube | Spectra
    name: str
    """Of a file."""


def read_request(parameters: Parameters, places: Places) -> Request:
    """Read the parameters of a request.

    Raises
    ------
    ServiceError
        When one cannot be understood, is missing or given more than once.
    """
    identifier = parameters.one("ID", several=SEVERAL)
    if identifier is None:
        raise ServiceError("ID is missing: it says which data set (obs_publisher_did of ObsCore)")
    readers = {"CIRCLE": circle, "POLYGON": polygon, "POS": region}
    shapes = [(name, text) for name in readers for text in parameters.all(name)]
    if len(shapes) > 1:
        names = " and ".join(dict.fromkeys(name for name, _ in shapes))
        raise ServiceError(f"{len(shapes)} regions are given by {names}; this service takes one", SEVERAL)
    shape = None
    for name, text in shapes:
        shape = circle(text) if name == "CIRCLE" else polygon(text) if name == "POLYGON" else region(text)
    band, time, level = (parameters.one(name, several=SEVERAL) for name in ("BAND", "TIME", "LEVEL"))
    states = parameters.all("POL")
    unknown = [state for state in states if state not in POLARISATIONS]
    if unknown:
        raise ServiceError(f"POL is {unknown[0][:20]!r}; expected some of {', '.join(POLARISATIONS)}")
    form = parameters.one("RESPONSEFORMAT", several=SEVERAL)
    if form is not None and form.partition(";")[0].strip().lower() not in FORMATS:
        raise ServiceError(f"RESPONSEFORMAT is {form[:60]!r}; cut-outs are application/fits")
    return Request(
        places.obs_id(identifier),
        shape,
        None if band is None else interval(band, "BAND"),
        None if time is None else as_tai(interval(time, "TIME")),
        tuple(states),
        0 if level is None else whole_number(level, "LEVEL", 0, MOST_LEVELS),
    )


def cutout(store: Store, request: Request, most_bytes: int) -> Cutout | None:
    """Return what a request asks for; None where none of it is in the observation.

    Parameters
    ----------
    store : Store
    request : Request
    most_bytes : int
        Of values, variance and mask.

    Raises
    ------
    ServiceError
        When there is no such observation or level, or the cut-out is too large.
    """
    row = int(store.rows_named([request.obs_id])[0])
    if row < 0:
        raise ServiceError(f"there is no data set {request.obs_id[:120]!r}", status=404)
    n_levels = int(store.column("n_levels", [row])[0])
    if request.level >= n_levels:
        raise ServiceError(f"LEVEL is {request.level}; this data set has the levels 0 to {n_levels - 1}")
    centre = unit_vectors(*(store.column(name, [row])[0] for name in ("s_ra", "s_dec")))
    if not _meets(store, row, request, centre):
        return None
    reader, number = store.part_of(row)
    subject = (
        _spectrum(reader, number, request)
        if reader.kind(number) == "spectrum"
        else _pixels(reader, number, request, centre, most_bytes)
    )
    return None if subject is None else Cutout(subject, f"{request.obs_id}_level{request.level}.fits")


def _meets(store: Store, row: int, request: Request, centre: Float) -> bool:
    """Tell whether the observation reaches into what is asked for; what is not known of it does not."""
    if request.states and "I" not in request.states:
        return False
    for wanted, names in ((request.time, ("t_start", "t_stop")), (request.band, ("em_min", "em_max"))):
        if wanted is not None:
            low, high = (float(store.column(name, [row])[0]) for name in names)
            if not (high >= wanted.low and low <= wanted.high):
                return False
    if request.shape is None:
        return True
    radius = np.nan_to_num(store.column("radius", [row]))
    if not np.isfinite(centre).all() or not request.shape.touches_circles(centre[None], radius)[0]:
        return False
    outlines = store.outlines([row])
    return not outlines.sizes[0] or bool(request.shape.touches_polygons(outlines)[0])


def _pixels(
    reader: PartReader, number: int, request: Request, centre: Float, most_bytes: int
) -> Image | Cube | None:
    """Return a window of an image or a cube."""
    size = reader.shape(number, request.level)
    window = slice(0, size[-2]), slice(0, size[-1])
    if request.shape is not None:
        found = pixels_of(request.shape, reader.wcs(number, request.level), (size[-2], size[-1]), centre)
        if found is None:
            return None
        window = found
    channels = None
    if len(size) == 3 and request.band is not None:
        channels = channels_in(*_wavelengths(reader, number, request.level), request.band)
        if channels is None:
            return None
    n_channels = 1 if len(size) == 2 else size[0] if channels is None else channels.stop - channels.start
    height, width = (part.stop - part.start for part in window)
    wanted = n_channels * height * width * BYTES_PER_VALUE
    if wanted > most_bytes:
        raise ServiceError(
            f"the cut-out would have {width} x {height} pixels"
            + (f" in {n_channels} channels" if len(size) == 3 else "")
            + f", {wanted / 1e6:.4g} MB; this service gives at most {most_bytes / 1e6:.4g} MB: ask for less"
            " (CIRCLE, POLYGON, BAND), or for a coarser LEVEL"
        )
    if len(size) == 2:
        return reader.image(number, request.level, window)
    return reader.cube(number, request.level, window, channels)


def _wavelengths(reader: PartReader, number: int, level: int) -> tuple[Float, str]:
    """Return the wavelengths of a cube in A, and their medium."""
    wave = reader.planes(number, level, names=("wave",))["wave"]
    # One voxel, for what is not in a plane.
    corner = slice(0, 1), slice(0, 1)
    return wave, reader.cube(number, level, corner, slice(0, 1)).medium


def _spectrum(reader: PartReader, number: int, request: Request) -> Spectra | None:
    spectrum = reader.spectrum(number, request.level)
    if request.band is None:
        return spectrum
    channels = channels_in(spectrum.wave, spectrum.medium, request.band)
    return None if channels is None else _some_channels(spectrum, channels)


def _some_channels(spectrum: Spectra, channels: slice) -> Spectra:
    """Return some channels of a spectrum, with the covariance among them."""
    n_wave = spectrum.wave.size
    start, stop, _ = channels.indices(n_wave)
    lags = spectrum.correlation
    if lags is not None and lags.ndim == 2:
        lags = lags[start:stop].copy()
        reach = np.arange(stop - start)[:, None] + np.arange(lags.shape[1]) - lags.shape[1] // 2
        lags[(reach < 0) | (reach >= stop - start)] = 0.0
    lsf = spectrum.lsf
    if isinstance(lsf, np.ndarray) and lsf.ndim and lsf.shape[-1] == n_wave:
        lsf = lsf[..., start:stop]
    flags: NDArray[np.uint16] | None = None if spectrum.flags is None else spectrum.flags[:, start:stop]
    return spectrum.evolve(
        data=spectrum.data[:, start:stop],
        variance=spectrum.variance[:, start:stop],
        mask=spectrum.mask[:, start:stop],
        wave=spectrum.wave[start:stop],
        lsf=lsf,
        correlation=lags,
        flags=flags,
        modes=tuple(_some_of_mode(mode, channels) for mode in spectrum.modes),
    )


def _some_of_mode(mode: Mode, channels: slice) -> Mode:
    return mode if np.ndim(mode.map) == 0 else mode._replace(map=np.asarray(mode.map)[..., channels])


def fits_bytes(subject: Image | Cube | Spectra) -> memoryview:
    """Return an object as the FITS file that `skyloom.io.fits.write` writes."""
    from skyloom.io.fits import extensions_of
    from skyloom.io.formats.blocks import write_hdus

    stream = io.BytesIO()
    write_hdus(stream, extensions_of(subject))
    return stream.getbuffer()


def soda_descriptor(
    name: str,
    address: str,
    *,
    reference: str = "",
    identifier: str = "",
    limits: dict[str, str] | None = None,
) -> str:
    """Return the resource by which clients find the cut-outs.

    Parameters
    ----------
    name, address : str
    reference : str
        Column of the results that has the identifiers.
    identifier : str
        Of the only data set it is about, instead.
    limits : dict, optional
        Of this data set: ``CIRCLE``, ``POLYGON``, ``BAND_MIN``, ``BAND_MAX``, ``LEVELS``.
    """
    limits = limits or {}
    levels = tuple(str(level) for level in range(int(limits.get("LEVELS", 0))))
    area, wave = "pos.outline;obs", "em.wl;stat.interval"
    parameters = (
        InputParameter(
            "ID", ucd="meta.ref.url;meta.curation", ref=reference, value=identifier, description="the data set"
        ),
        InputParameter("POS", ucd=area, description="CIRCLE, RANGE or POLYGON and numbers"),
        InputParameter(
            "CIRCLE", "double", "3", area, "deg", "circle", "circle to be cut out", high=limits.get("CIRCLE", "")
        ),
        InputParameter(
            "POLYGON", "double", "*", area, "deg", "polygon", "polygon to be cut out", high=limits.get("POLYGON", "")
        ),
        InputParameter(
            "BAND", "double", "2", wave, "m", "interval", "wavelengths in vacuum, of cubes and spectra",
            low=limits.get("BAND_MIN", ""), high=limits.get("BAND_MAX", ""),
        ),
        InputParameter(
            "TIME", "double", "2", "time.interval;obs.exposure", "d", "interval", "MJD, UTC: nothing outside of it"
        ),
        InputParameter(
            "LEVEL", ucd="meta.number", options=levels,
            description="resolution: pixels 2^LEVEL times as large; 0 where it is not given",
        ),
    )  # fmt: skip
    return descriptor(name, STANDARD, address, parameters)
