"""Rows of the table of a large store without any files: frames of a stripe and of the whole sky, and fibre spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import Latitude, Longitude
from astropy.time import Time
from numpy.typing import NDArray

from skyloom.errors import InputError

__all__ = ["mock_observations"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
BANDS = np.array([b"u", b"g", b"r", b"i", b"z"])
# m; shortest and longest wavelength of each band.
BAND_RANGE = 1e-10 * np.array([[3080, 4020], [3800, 5540], [5440, 6980], [6720, 8360], [7940, 10700]])
BAND_DELAY = np.array([2, 4, 0, 1, 3]) * 71.66 / 86400.0  # d
FRAME = (0.1638, 0.2253)  # deg: sides of a frame, along right ascension and declination
PIXEL = 0.396
NIGHTS = (51075.0, 54440.0)  # MJD of the survey of the stripe
STRIPE = ((-50.0, 59.0), (-1.25, 1.25))  # deg: stripe 82
POSITION_ORDER = 29
# Shares of the rows: frames of the stripe, frames anywhere, spectra in the stripe; the rest are spectra anywhere.
SHARES = {"sky": (0.55, 0.15, 0.1), "sdss": (0.23, 0.27, 0.05)}
# Boxes (deg) of the two caps of the survey, roughly, and their shares of its 12500 square degrees.
CAPS = (((110.0, 260.0), (-5.0, 60.0), 0.66), ((-40.0, 60.0), (-10.0, 35.0), 0.34))
N_NIGHTS = 20


def mock_observations(n: int, *, seed: int, first: int = 0, where: str = "sky") -> dict[str, NDArray[Any]]:
    """Return the columns of ``n`` observations.

    Parameters
    ----------
    n : int
    seed : int
        The same seed gives the same rows.
    first : int
        Number of the first row, where rows are made in pieces; it makes their names different.
    where : {"sky", "sdss"}
        Where those lie that are not in the stripe: anywhere, or in the two caps that SDSS has observed, with as many
        images as spectra, as the survey has.

    Returns
    -------
    dict of (n,) arrays
        One for each column of a store; texts are bytes. Frames of the stripe were taken in 20 nights, in five bands
        each, of the same fields; the other frames lie anywhere on the sky, poles and the meridian of 0 included. Rows
        are shuffled.
    """
    if n < 1:
        raise InputError(f"n is {n}; expected 1 or more", field="n")
    if where not in SHARES:
        raise InputError(f"where is {where!r}", field="where", remedy=f"use one of {', '.join(SHARES)}")
    generator = np.random.default_rng([seed, first])
    stripe, loose, fibres = (int(share * n) for share in SHARES[where])
    anywhere = _anywhere if where == "sky" else _in_caps
    pieces = [
        _frames(*_stripe_fields(stripe, generator), N_NIGHTS, stripe, generator),
        _frames(*anywhere(-(-loose // 5), generator), 1, loose, generator),
        _spectra(*_stripe_fields(fibres * N_NIGHTS * 5, generator, fibres), generator),
        _spectra(*anywhere(n - stripe - loose - fibres, generator), generator),
    ]
    columns = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
    columns |= _common(columns, first)
    order = generator.permutation(n)
    return {key: values[order] for key, values in columns.items()}


def _stripe_fields(
    n: int, generator: np.random.Generator, n_places: int | None = None
) -> tuple[Float, Float]:
    """Return centres of the fields of ``n`` frames of the stripe, side by side; or random places in it."""
    (west, east), (south, north) = STRIPE
    if n_places is not None:
        return generator.uniform(west, east, n_places) % 360.0, generator.uniform(south, north, n_places)
    n_fields = max(1, -(-n // (5 * N_NIGHTS)))
    n_rows = int(round((north - south) / FRAME[1]))
    index = np.arange(n_fields)
    # Filled from the west; more fields than the stripe holds go round again.
    ra = west + (FRAME[0] * 0.9 * (index // n_rows)) % (east - west)
    return np.asarray(ra % 360.0), np.asarray(south + FRAME[1] * (index % n_rows + 0.5))


def _anywhere(n: int, generator: np.random.Generator) -> tuple[Float, Float]:
    """Return places spread evenly over the sky."""
    return generator.uniform(0.0, 360.0, n), np.degrees(np.arcsin(generator.uniform(-1.0, 1.0, n)))


def _in_caps(n: int, generator: np.random.Generator) -> tuple[Float, Float]:
    """Return places spread evenly over the two caps of SDSS."""
    first = round(CAPS[0][2] * n)
    places = []
    for ((west, east), (south, north), _), size in zip(CAPS, (first, n - first), strict=True):
        low, high = (float(np.sin(np.radians(edge))) for edge in (south, north))
        heights = generator.uniform(low, high, size)
        places.append((generator.uniform(west, east, size) % 360.0, np.degrees(np.arcsin(heights))))
    ra, dec = (np.concatenate(column) for column in zip(*places, strict=True))
    return ra, dec


def _frames(
    ra: Float, dec: Float, n_nights: int, n: int, generator: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Return ``n`` rows of frames: of every field in so many nights, in five bands each."""
    index = np.arange(n)
    band, field = index % 5, index // (5 * n_nights)
    night = (index // 5) % n_nights
    start = np.sort(generator.uniform(*NIGHTS, n_nights))[night] + field * 35.83 / 86400 + BAND_DELAY[band]
    outlines, radius = _outlines(ra, dec, generator)
    runs = np.sort(generator.integers(1000, 8200, n_nights))[night]
    names = [
        f"sdss-{run:06d}-{1 + place % 6}-{place // 6:06d}-{letter}".encode()
        for run, place, letter in zip(runs, field, np.array(list("ugriz"))[band], strict=True)
    ]
    return {
        "obs_id": np.array(names, dtype="S40") if n else np.empty(0, "S40"),
        "dataproduct_type": np.full(n, b"image", dtype="S8"),
        "band": BANDS[band].astype("S8"),
        "s_ra": ra[field],
        "s_dec": dec[field],
        "radius": radius[field],
        "s_region": outlines[field],
        "s_resolution": generator.normal(1.3, 0.1, n),
        "s_xel1": np.full(n, 2048),
        "s_xel2": np.full(n, 1489),
        "pixel_scale": np.full(n, PIXEL),
        "t_start": start,
        "t_stop": start + 93.1 / 86400,
        "t_exptime": np.full(n, 53.907456),
        "em_min": BAND_RANGE[band, 0],
        "em_max": BAND_RANGE[band, 1],
        "em_xel": np.full(n, 1),
        "em_res_power": np.full(n, np.nan),
        "n_good": np.full(n, 2048 * 1489),
        "redshift": np.full(n, np.nan),
        "o_unit": np.full(n, b"nmgy", dtype="S40"),
        "access_estsize": np.full(n, 12400),
    }


def _spectra(ra: Float, dec: Float, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Return a row of a fibre spectrum for every place."""
    n = ra.size
    boss = generator.random(n) < 0.5
    start = generator.uniform(51600.0, 57000.0, n)
    radius = np.where(boss, 1.0, 1.5) / 3600.0
    regions = [
        f"CIRCLE ICRS {a:.9f} {d:.9f} {r:.9f}".encode() for a, d, r in zip(ra, dec, radius, strict=True)
    ]
    places = np.arange(n)
    names = [
        f"sdss-{266 + place // 1000:04d}-{int(day)}-{1 + place % 1000:04d}-{letter}".encode()
        for place, day, letter in zip(places, start, np.where(boss, "b", "s"), strict=True)
    ]
    return {
        "obs_id": np.array(names, dtype="S40") if n else np.empty(0, "S40"),
        "dataproduct_type": np.full(n, b"spectrum", dtype="S8"),
        "band": np.full(n, b"", dtype="S8"),
        "s_ra": ra,
        "s_dec": dec,
        "radius": radius,
        "s_region": np.array(regions, dtype="S128") if n else np.empty(0, "S128"),
        "s_resolution": np.full(n, np.nan),
        "s_xel1": np.full(n, 1),
        "s_xel2": np.full(n, 1),
        "pixel_scale": np.full(n, np.nan),
        "t_start": start,
        "t_stop": start + 1.0,
        "t_exptime": generator.uniform(2700.0, 7200.0, n),
        "em_min": np.where(boss, 3.568e-7, 3.804e-7),
        "em_max": np.where(boss, 1.034e-6, 9.18e-7),
        "em_xel": np.where(boss, 4621, 3826),
        "em_res_power": generator.normal(1900.0, 80.0, n),
        "n_good": np.where(boss, 4600, 3820),
        "redshift": generator.exponential(0.3, n),
        "o_unit": np.full(n, b"1e-17 erg / (Angstrom s cm2)", dtype="S40"),
        "access_estsize": np.full(n, 200),
    }


def _outlines(ra: Float, dec: Float, generator: np.random.Generator) -> tuple[NDArray[np.bytes_], Float]:
    """Return the regions of frames, each turned a little, and the radii of the circles around them in degrees."""
    turn = generator.uniform(-0.02, 0.02, ra.size) + np.where(np.abs(dec) > 5, generator.uniform(0, np.pi), 0)
    a0, d0 = np.radians(ra), np.radians(dec)
    middle = _vectors(a0, d0)
    to_east = np.stack([-np.sin(a0), np.cos(a0), np.zeros_like(a0)], axis=-1)
    to_north = np.cross(middle, to_east)
    corners = []
    for sign_x, sign_y in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        x, y = np.radians(0.5 * sign_x * FRAME[0]), np.radians(0.5 * sign_y * FRAME[1])
        east, north = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
        place = middle + east[:, np.newaxis] * to_east + north[:, np.newaxis] * to_north
        place /= np.linalg.norm(place, axis=1, keepdims=True)
        corners += [np.degrees(np.arctan2(place[:, 1], place[:, 0])) % 360.0]
        corners += [np.degrees(np.arcsin(np.clip(place[:, 2], -1.0, 1.0)))]
    # The corners are as far away as those of any other frame.
    radius = np.full(ra.size, np.degrees(np.arctan(np.radians(0.5 * np.hypot(*FRAME)))))
    texts = [
        ("POLYGON ICRS " + " ".join(f"{value:.9f}" for value in row)).encode()
        for row in np.stack(corners, axis=1)
    ]
    return np.array(texts, dtype="S128") if texts else np.empty(0, "S128"), radius


def _vectors(longitude: Float, latitude: Float) -> Float:
    """Return unit vectors of directions in radians, (n, 3)."""
    across = np.cos(latitude)
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)], axis=-1)


def _common(columns: dict[str, NDArray[Any]], first: int) -> dict[str, NDArray[Any]]:
    """Return the columns that follow from the others, or are the same for all."""
    from cdshealpix.nested import lonlat_to_healpix

    n = columns["s_ra"].size
    image = columns["dataproduct_type"] == b"image"
    utc = Time(np.concatenate([columns["t_start"], columns["t_stop"]]), format="mjd", scale="tai").utc.mjd
    cells = lonlat_to_healpix(
        Longitude(columns["s_ra"], u.deg), Latitude(columns["s_dec"], u.deg), POSITION_ORDER
    )
    numbers = np.arange(first, first + n)
    digests = np.array([f"{number:064x}".encode() for number in numbers], dtype="S64")
    return {
        # Names stay different when the stripe has been gone round more than once, and from piece to piece.
        "obs_id": np.char.add(columns["obs_id"], np.char.add(b"-", numbers.astype("S12"))),
        "calib_level": np.full(n, 2, dtype=np.int8),
        "obs_collection": np.full(n, b"SDSS"),
        "target_name": np.full(n, b""),
        "facility_name": np.full(n, b"SDSS 2.5-M"),
        "instrument_name": np.where(image, b"SDSS", b"SDSS spectrograph"),
        "s_fov": 2.0 * columns["radius"],
        "t_min": utc[:n],
        "t_max": utc[n:],
        "o_ucd": np.where(image, b"phot.flux.density", b"phot.flux.density;em.wl"),
        "healpix": cells.astype(np.int64),
        "n_levels": np.full(n, 5, dtype=np.int16),
        "source": np.char.add(columns["obs_id"], b".fits"),
        "source_digest": digests,
        "digest": digests,
        "version": np.full(n, b"mock"),
    }
