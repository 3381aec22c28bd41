"""Mock frames and spectra as the bytes of files of SDSS: same extensions, columns and notation as the survey's own."""

from __future__ import annotations

import datetime as dt

import numpy as np
from astropy.wcs import WCS

from skyloom.core.bandpass import Bandpass
from skyloom.io.sdss.ccd import BANDS
from skyloom.mock.fits_records import hdu_bytes, image_cards, number_card, table_hdu, text_card
from skyloom.mock.sdss.field import NANOMAGGY, sdss_bandpass
from skyloom.mock.sdss.frames import EXPOSURE, ROW_CLOCK, Epoch, FrameObservation, camera_of
from skyloom.mock.sdss.spectra import SpectrumObservation

__all__ = ["frame_bytes", "frame_name", "spectrum_bytes", "spectrum_name"]

_ZERO = dt.datetime(1858, 11, 17)
_SPECTRUM_TYPE = np.dtype(
    [
        ("flux", "f4"), ("loglam", "f4"), ("ivar", "f4"), ("and_mask", "i4"), ("or_mask", "i4"), ("wdisp", "f4"),
        ("sky", "f4"), ("model", "f4"),
    ]
)  # fmt: skip
_LINES = (("[O_II] 3727", 3727.4), ("H_beta", 4862.7), ("[O_III] 5007", 5008.2), ("H_alpha", 6564.6))
NO_DATA_BIT = 1 << 24  # NODATA of the survey's SPPIXMASK


def frame_name(epoch: Epoch, band: str) -> str:
    """Return the name that the survey gives a frame, without the suffix of its compression."""
    return f"frame-{band}-{epoch.run:06d}-{epoch.camcol}-{epoch.field:04d}.fits"


def spectrum_name(plate: int, mjd: int, fiber: int) -> str:
    """Return the name that the survey gives a spectrum."""
    return f"spec-{plate:04d}-{mjd}-{fiber:04d}.fits"


def frame_bytes(observation: FrameObservation) -> bytes:
    """Return a frame as a file of the survey: image, calibration, sky, and the table of its astrometry."""
    image, epoch, band = observation.image, observation.epoch, observation.band
    assert image.wcs is not None  # mock frames have one
    cards = _frame_cards(epoch, band, image.shape, image.wcs)
    calibration = observation.calibration
    ny, nx = image.shape
    kinds = [("ALLSKY", "f4", observation.sky_grid.shape), ("XINTERP", "f4", (nx,)), ("YINTERP", "f4", (ny,))]
    sky = np.zeros(1, dtype=kinds)
    sky["ALLSKY"], sky["XINTERP"], sky["YINTERP"] = (
        observation.sky_grid, observation.sky_x, observation.sky_y,
    )  # fmt: skip
    return b"".join(
        (
            hdu_bytes(cards, np.asarray(image.data, np.float32)),
            hdu_bytes(image_cards(calibration.shape, -32, extension=True), calibration),
            table_hdu(sky),
            table_hdu(_astrometry(epoch, band, image.shape, image.wcs)),
        )
    )


def _frame_cards(epoch: Epoch, band: str, shape: tuple[int, int], wcs: WCS) -> list[str]:
    """Return the header of a frame in the order and the notation of the survey."""
    camera, tai = camera_of(band), epoch.band_tai(band)
    moment = _ZERO + dt.timedelta(seconds=round(tai, 2))
    clock = f"{moment:%H:%M:%S}.{moment.microsecond // 10000:02d}"
    cards = image_cards(shape, -32, extension=False)
    cards += [
        "EXTEND  =                    T /Extensions may be present",
        "BZERO   =              0.00000 /Set by MRD_SCALE",
        "BSCALE  =              1.00000 /Set by MRD_SCALE",
        f"TAI     = {tai:20.2f} / 1st row - Number of seconds since Nov 17 1858",
        f"RA      = {wcs.wcs.crval[0] - 0.5:20.6f} / 1st row - Right ascension of telescope boresigh",
        f"DEC     = {0.0:20.6f} / 1st row - Declination of telescope boresight (d",
        f"DATE-OBS= '{moment:%Y-%m-%d}'         / 1st row - TAI date",
        f"TAIHMS  = '{clock}'        / 1st row - TAI time (HH:MM:SS.SS) (TAI-UT = appr",
        "COMMENT  TAI,RA,DEC,SPA,IPA,IPARATE,AZ,ALT,FOCUS at reading of col 0, row 0",
        text_card("ORIGIN", "SDSS"),
        text_card("TELESCOP", "2.5m"),
        text_card("TIMESYS", "TAI"),
        number_card("RUN", epoch.run, "Run number"),
        number_card("FRAME", epoch.field + 2 * camera.order, "Frame sequence number within the run"),
        number_card("STRIPE", 82, "Stripe index number (23 <--> eta=0)"),
        text_card("STRIP", "N", "Strip in the stripe being tracked."),
        text_card("FLAVOR", "science", "Flavor of this run"),
        text_card("OBJECT", "82 N", "e.g., 'stripe 50.6 degrees, north strip'"),
        f"EXPTIME = '{EXPOSURE:.6f}'          / Exposure time (seconds)",
        text_card("SYSTEM", "FK5", "System of the TCC coordinates (e.g., mean)"),
        text_card("CCDMODE", "DRIFT", "'STARING' or 'DRIFT'"),
        number_card("C_OBS", ROW_CLOCK, "CCD row clock rate (usec/row)"),
        number_card("COLBIN", 1, "Binning factor perpendicular to the columns"),
        number_card("ROWBIN", 1, "Binning factor perpendicular to the rows"),
        "COMMENT  CCD-specific parameters",
        number_card("CAMROW", camera.order + 1, "Row in the imaging camera"),
        "EQUINOX =              2000.00 /",
        number_card("SOFTBIAS", 1000, 'software "bias" added to all DN'),
        "BUNIT   = 'nanomaggy'          / 1 nanomaggy = 3.631e-6 Jy",
        text_card("FILTER", band, "filter used"),
        number_card("CAMCOL", epoch.camcol, "column in the imaging camera"),
        text_card("VERSION", "mock"),
        *_wcs_cards(wcs),
        "COMMENT  Calibration parameters",
        f"NMGY    = {camera.calibration:20.8f} / Calibration factor [nMgy per count]",
        f"NMGYIVAR= {camera.calibration_ivar:20.6g} / Calibration factor inverse variance",
        text_card("RERUN", epoch.rerun, "rerun"),
    ]
    return cards


def _wcs_cards(wcs: WCS) -> list[str]:
    """Return the astrometry as the survey writes it: a CD matrix, and RADECSYS of old."""
    suffix = "-SIP" if wcs.sip is not None else ""
    cards = [
        "RADECSYS= 'ICRS    '           / International Celestial Ref. System",
        text_card("CTYPE1", f"RA---TAN{suffix}"),
        text_card("CTYPE2", f"DEC--TAN{suffix}"),
        text_card("CUNIT1", "deg"),
        text_card("CUNIT2", "deg"),
    ]
    for axis in (0, 1):
        cards.append(number_card(f"CRPIX{axis + 1}", float(wcs.wcs.crpix[axis])))
        cards.append(number_card(f"CRVAL{axis + 1}", float(wcs.wcs.crval[axis])))
    for row in (0, 1):
        cards += [
            number_card(f"CD{row + 1}_{column + 1}", float(wcs.wcs.cd[row, column])) for column in (0, 1)
        ]
    if wcs.sip is not None:
        for name in ("a", "b", "ap", "bp"):
            terms = getattr(wcs.sip, name)
            cards.append(number_card(f"{name.upper()}_ORDER", terms.shape[0] - 1))
            for p, q in np.argwhere(terms):
                cards.append(number_card(f"{name.upper()}_{p}_{q}", float(terms[p, q])))
    return cards


def _astrometry(epoch: Epoch, band: str, shape: tuple[int, int], wcs: WCS) -> np.ndarray:
    """Return the table of the astrometric solution; its affine terms are those of the WCS at the first pixel."""
    kinds = [
        ("RUN", "i4"), ("RERUN", "S3"), ("CAMCOL", "i4"), ("FILTER", "S1"), ("NODE", "f8"), ("INCL", "f8"),
        ("NAXIS", "i4", (2,)), ("FIELD", "i4"), *((name, "f8") for name in "ABCDEF"), ("MJD", "f8"),
        ("AIRMASS", "f8"), ("MUERR", "f4"), ("NUERR", "f4"),
    ]  # fmt: skip
    row = np.zeros(1, dtype=kinds)
    ra, dec = wcs.all_pix2world([0.0, 0.0, 1.0], [0.0, 1.0, 0.0], 0)
    row["RUN"], row["CAMCOL"], row["FIELD"] = epoch.run, epoch.camcol, epoch.field
    row["RERUN"], row["FILTER"], row["NAXIS"] = epoch.rerun.encode(), band.encode(), (shape[1], shape[0])
    row["A"], row["B"], row["C"] = ra[0], ra[1] - ra[0], ra[2] - ra[0]
    row["D"], row["E"], row["F"] = dec[0], dec[1] - dec[0], dec[2] - dec[0]
    row["NODE"], row["MJD"] = 95.0, epoch.band_tai(band) / 86400.0
    row["AIRMASS"], row["MUERR"], row["NUERR"] = 1.2, 0.05, 0.04
    return row


def spectrum_bytes(observation: SpectrumObservation) -> bytes:
    """Return a spectrum as a file of the survey: header, spectrum, object, and lines."""
    spectra, spectrograph = observation.spectra, observation.spectrograph
    rows = np.zeros(spectrograph.n_wave, dtype=_SPECTRUM_TYPE)
    bad = spectra.mask[0]
    rows["flux"] = spectra.data[0]
    rows["loglam"] = spectrograph.start + spectrograph.step * np.arange(spectrograph.n_wave)
    rows["ivar"] = np.where(bad, 0.0, 1.0 / spectra.variance[0])
    rows["and_mask"] = rows["or_mask"] = np.where(bad, NO_DATA_BIT, 0)
    rows["wdisp"], rows["sky"] = spectrograph.dispersion_pixels, observation.sky
    rows["model"] = observation.truth
    boss = spectrograph.name == "BOSS"
    return b"".join(
        (
            hdu_bytes(_spectrum_cards(observation)),
            table_hdu(rows, name="COADD"),
            table_hdu(_object_row(observation), name="SPALL" if boss else "SPECOBJ"),
            table_hdu(_line_rows(observation), name="SPZLINE"),
        )
    )


def _spectrum_cards(observation: SpectrumObservation) -> list[str]:
    """Return the header of a spectrum; times are those of one night's exposures."""
    mid = (observation.mjd + 0.25) * 86400.0
    boss = observation.spectrograph.name == "BOSS"
    moment = _ZERO + dt.timedelta(seconds=mid)
    return [
        number_card("SIMPLE", True),
        number_card("BITPIX", 8),
        number_card("NAXIS", 0),
        number_card("EXTEND", True),
        *([] if boss else [f"TAI     = {mid:20.2f} / 1st row Number of seconds since Nov 17 1858"]),
        *([] if boss else [f"TAIHMS  = '{moment:%H:%M:%S}.00'        / 1st row TAI time HH:MM:SS.SS"]),
        *([] if boss else [text_card("TIMESYS", "tai", "TAI, not UTC")]),
        text_card("TELESCOP", "SDSS 2.5-M", "Sloan Digital Sky Survey"),
        text_card("FLAVOR", "science", "exposure type, SDSS spectro style"),
        number_card("MJD", observation.mjd, "MJD of observation"),
        text_card("MJDLIST", str(observation.mjd)),
        text_card("NAME", f"{observation.plate:04d}-{observation.mjd}-01"),
        number_card("PLATEID", observation.plate, "The currently loaded plate"),
        number_card("RA", round(observation.ra + 0.7, 4), "RA of telescope boresight (deg)"),
        number_card("DEC", round(observation.dec - 0.4, 4), "Dec of telescope boresight (deg)"),
        number_card("EQUINOX", 2000.0),
        text_card("RADECSYS", "FK5"),
        number_card("EXPTIME", 5404.97 if boss else 3600.0, "Minimum of exposure times for all cameras"),
        text_card("VERS2D", "v5_10_0" if boss else "NOCVS:v5_3_23"),
        text_card("RUN2D", "v5_10_0" if boss else "26"),
        number_card("VACUUM", True, "Wavelengths are in vacuum"),
        number_card("NWORDER", 2, "Linear-log10 coefficients"),
        text_card("WFITTYPE", "LOG-LINEAR", "Linear-log10 dispersion"),
        number_card("COEFF0", observation.spectrograph.start, "Central wavelength (log10) of first pixel"),
        number_card("COEFF1", observation.spectrograph.step, "Log10 dispersion per pixel"),
        number_card("DC-FLAG", 1, "Log-linear flag"),
        "BUNIT   = '1E-17 erg/cm^2/s/Ang' /",
        number_card("PLUG_RA", observation.ra, "RA of object [deg]"),
        number_card("PLUG_DEC", observation.dec, "dec of object [deg]"),
        number_card("FIBERID", observation.fiber),
        number_card("NEXP", 4),
    ]


def _object_row(observation: SpectrumObservation) -> np.ndarray:
    """Return the row of the survey's table of objects, with the flux in the fibre in the five bands."""
    kinds = [
        ("SURVEY", "S6"), ("INSTRUMENT", "S4"), ("RUN2D", "S7"), ("PLATE", "i4"), ("MJD", "i4"), ("FIBERID", "i4"),
        ("PLUG_RA", "f8"), ("PLUG_DEC", "f8"), ("CLASS", "S6"), ("SUBCLASS", "S21"), ("Z", "f4"), ("Z_ERR", "f4"),
        ("ZWARNING", "i4"), ("SPECTROFLUX", "f4", (5,)), ("SPECTROFLUX_IVAR", "f4", (5,)),
    ]  # fmt: skip
    row = np.zeros(1, dtype=kinds)
    boss, star = observation.spectrograph.name == "BOSS", observation.source.kind == "star"
    row["SURVEY"], row["INSTRUMENT"] = (b"boss", b"BOSS") if boss else (b"sdss", b"SDSS")
    row["RUN2D"] = b"v5_10_0" if boss else b"26"
    row["PLATE"], row["MJD"], row["FIBERID"] = observation.plate, observation.mjd, observation.fiber
    row["PLUG_RA"], row["PLUG_DEC"] = observation.ra, observation.dec
    row["CLASS"], row["Z"], row["Z_ERR"] = (
        b"STAR" if star else b"GALAXY", observation.source.redshift, 1e-5,
    )  # fmt: skip
    wave = observation.spectra.wave
    for index, curve in enumerate(sdss_bandpass(band) for band in BANDS):
        row["SPECTROFLUX"][0, index], row["SPECTROFLUX_IVAR"][0, index] = _band_flux(curve, wave, observation)
    return row


def _band_flux(curve: Bandpass, wave: np.ndarray, observation: SpectrumObservation) -> tuple[float, float]:
    """Return the noise-free flux of a spectrum in a band (nanomaggies), and what inverse variance it would have."""
    if curve.covered_fraction(wave[0], wave[-1]) < 0.05:
        return 0.0, 0.0
    weights = 1e-17 * curve.mean_weights(wave, minimum_coverage=0.05) / curve.photflam(NANOMAGGY)
    return float(weights @ observation.truth), float(1.0 / (weights**2 @ observation.spectra.variance[0]))


def _line_rows(observation: SpectrumObservation) -> np.ndarray:
    kinds = [
        ("PLATE", "i4"),
        ("MJD", "i4"),
        ("FIBERID", "i4"),
        ("LINENAME", "S13"),
        ("LINEWAVE", "f8"),
        ("LINEZ", "f4"),
    ]
    rows = np.zeros(len(_LINES), dtype=kinds)
    rows["PLATE"], rows["MJD"], rows["FIBERID"] = observation.plate, observation.mjd, observation.fiber
    rows["LINENAME"] = [name.encode() for name, _ in _LINES]
    rows["LINEWAVE"] = [wave for _, wave in _LINES]
    rows["LINEZ"] = observation.source.redshift
    return rows
