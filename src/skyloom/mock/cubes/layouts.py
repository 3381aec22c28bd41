"""How MUSE, MaNGA and CALIFA lay out the files of their cubes: headers, units, errors and masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from skyloom.core.psf import FWHM_PER_SIGMA, MoffatPSF
from skyloom.mock.cubes.cubes import CubeModel, CubeSlab
from skyloom.mock.fits_stream import StreamedArray
from skyloom.mock.scenes.milky_way import R_V

__all__ = ["FileLayout", "califa_layout", "manga_layout", "muse_layout"]

Float = NDArray[np.float64]
# MANGA_DRP3PIXMASK: no coverage, low coverage, dead fibre, do not use.
NO_COVERAGE, DEAD_FIBRE, DO_NOT_USE = 1 << 0, 1 << 2, 1 << 10
CALIFA_BAD = 1e10
# Effective wavelengths of the bands whose spatial correlation MaNGA publishes, A.
MANGA_BANDS = {"G": 4703.0, "R": 6177.0, "I": 7496.0, "Z": 8947.0}


@dataclass(frozen=True, slots=True, eq=False)
class FileLayout:
    """A file of one survey.

    Parameters
    ----------
    primary : Header
    arrays : tuple of StreamedArray
    encode : function
        Slab and claimed variance to one array for each of ``arrays``.
    last : tuple of HDUs
        Small ones at the end of the file.
    """

    primary: fits.Header
    arrays: tuple[StreamedArray, ...]
    encode: Callable[[CubeSlab, NDArray[np.float32]], tuple[NDArray[Any], ...]]
    last: tuple[fits.ImageHDU | fits.BinTableHDU, ...] = ()


def _matrix(header: fits.Header, model: CubeModel) -> fits.Header:
    """Add the celestial WCS as a CD matrix."""
    wcs = model.wcs.wcs
    for axis in (1, 2):
        header[f"CRPIX{axis}"] = wcs.crpix[axis - 1]
        header[f"CRVAL{axis}"] = wcs.crval[axis - 1]
        header[f"CTYPE{axis}"] = wcs.ctype[axis - 1]
        header[f"CUNIT{axis}"] = "deg"
        for column in (1, 2):
            header[f"CD{axis}_{column}"] = wcs.cd[axis - 1, column - 1]
    return header


def _cards(**values: object) -> fits.Header:
    return fits.Header(list(values.items()))


def muse_layout(model: CubeModel, name: str, a_v: float) -> FileLayout:  # noqa: ARG001  not in MUSE headers
    """Return the layout of the MUSE pipeline: DATA, STAT (variance), DQ; NaN where there are no values."""
    instrument = model.spectrograph
    centre = model.wcs.wcs.crval
    primary = _cards(
        ORIGIN="ESO-PARANAL", TELESCOP="ESO-VLT-U4", INSTRUME="MUSE", RA=centre[0], DEC=centre[1], EQUINOX=2000.0,
        RADECSYS="FK5", EXPTIME=instrument.exposure, OBJECT=name, PIPEFILE="DATACUBE_FINAL.fits",
    )  # fmt: skip
    primary["HIERARCH ESO INS MODE"] = ("WFM-NOAO-N", "imitated")
    primary["HIERARCH ESO OBS TARG NAME"] = name
    primary["HIERARCH ESO PRO CATG"] = "DATACUBE_FINAL"
    # The keywords of MPDAF for a Moffat whose width is linear in wavelength.
    ends = [instrument.psf.at(wave) for wave in (5000.0, 9000.0)]
    if all(isinstance(psf, MoffatPSF) for psf in ends):
        slope = (ends[1].fwhm - ends[0].fwhm) / 4000.0
        primary["FSFMODE"], primary["NFIELDS"] = "MOFFAT1", 1
        primary["FSF00BET"] = ends[0].describe()["beta"]
        primary["FSF00FWA"], primary["FSF00FWB"] = ends[0].fwhm - 5000.0 * slope, slope
    spectral = {
        "WCSAXES": 3, "CRVAL3": instrument.wave[0], "CRPIX3": 1.0, "CUNIT3": "Angstrom", "CTYPE3": "AWAV",
        "CD3_3": instrument.edges[1] - instrument.edges[0], "CD1_3": 0.0, "CD2_3": 0.0, "CD3_1": 0.0, "CD3_2": 0.0,
    }  # fmt: skip
    wave_unit = "10**(-20)*erg/s/cm**2/Angstrom"

    def extension(kind: str, **extra: object) -> fits.Header:
        header = _matrix(_cards(**spectral), model)
        header.update({"HDUCLASS": "ESO", "HDUDOC": "DICD", "HDUCLAS1": "IMAGE", "HDUCLAS2": kind, **extra})
        return header

    shape = (model.n_wave, *model.shape)
    arrays = (
        StreamedArray(
            "DATA", "f4", shape, extension("DATA", ERRDATA="STAT", OBJECT=f"{name} (DATA)", BUNIT=wave_unit)
        ),
        StreamedArray(
            "STAT",
            "f4",
            shape,
            extension(
                "ERROR", HDUCLAS3="MSE", SCIDATA="DATA", OBJECT=f"{name} (STAT)", BUNIT=f"({wave_unit})**2"
            ),
        ),
        StreamedArray("DQ", "u1", shape, extension("QUALITY", HDUCLAS3="FLAG32BIT", SCIDATA="DATA")),
    )
    return FileLayout(primary, arrays, lambda slab, claimed: (slab.data, claimed, slab.mask))


def manga_layout(model: CubeModel, name: str, a_v: float) -> FileLayout:
    """Return the layout of MaNGA's LOGCUBE and LINCUBE: FLUX, IVAR, MASK bits, LSF per voxel, WAVE, correlation."""
    instrument = model.spectrograph
    centre, wave = model.wcs.wcs.crval, instrument.wave
    logarithmic = not np.isclose(np.diff(instrument.edges[:2]), np.diff(instrument.edges[-2:])).all()
    plate_ifu = name.removeprefix("manga-")
    common = _cards(
        BSCALE=1.0, BZERO=0.0, BUNIT="1E-17 erg/s/cm^2/Ang/spaxel", MASKNAME="MANGA_DRP3PIXMASK",
        TELESCOP="SDSS 2.5-M", INSTRUME="MaNGA", SRVYMODE="MaNGA dither", PLATETYP="MaNGA", OBJSYS="ICRS",
        EQUINOX=2000.0, RADESYSA="FK5", EXPTIME=instrument.exposure, OBJRA=centre[0], OBJDEC=centre[1],
        IFURA=centre[0], IFUDEC=centre[1], PLATEIFU=plate_ifu, MANGAID="0-000000", DRP3QUAL=0, EBVGAL=a_v / R_V,
        UFWHM=instrument.psf.at(3557.0).fwhm,
    )  # fmt: skip
    for band, place in MANGA_BANDS.items():
        common[f"{band}FWHM"] = (instrument.psf.at(place).fwhm, f"Reconstructed FWHM in {band.lower()}-band")
    primary = common.copy()
    primary.remove("BSCALE")
    primary.remove("BZERO")
    primary.update({"FLUXEXT": "FLUX", "ERREXT": "IVAR", "MASKEXT": "MASK"})
    flux = _matrix(common.copy(), model)
    flux.update(
        {
            "CTYPE3": "WAVE-LOG" if logarithmic else "WAVE",
            "CRPIX3": 1,
            "CRVAL3": wave[0],
            "CD3_3": wave[1] - wave[0],
            "CUNIT3": "Angstrom",
            "HDUCLASS": "SDSS",
            "HDUCLAS1": "CUBE",
            "ERRDATA": "IVAR",
            "QUALDATA": "MASK",
        }
    )
    if logarithmic:
        # WAVE-LOG: wave = CRVAL3 exp(CD3_3 (pixel - CRPIX3) / CRVAL3).
        flux["CD3_3"] = wave[0] * np.log(wave[1] / wave[0])
    shape = (model.n_wave, *model.shape)
    arrays = (
        StreamedArray("FLUX", "f4", shape, flux),
        StreamedArray("IVAR", "f4", shape, _cards(ERRTYPE="IVAR", SCIDATA="FLUX", QUALDATA="MASK")),
        StreamedArray("MASK", "i4", shape, _cards(SCIDATA="FLUX", ERRDATA="IVAR")),
        StreamedArray("LSFPOST", "f4", shape, _cards(BUNIT="Angstrom")),
        StreamedArray("LSFPRE", "f4", shape, _cards(BUNIT="Angstrom")),
    )
    bits = np.where(model.covered, 0, NO_COVERAGE | DO_NOT_USE) | np.where(
        model.dead, DEAD_FIBRE | DO_NOT_USE, 0
    )
    before = instrument.lsf
    after = np.sqrt(before**2 + np.diff(instrument.edges) ** 2 / 12)

    def encode(slab: CubeSlab, claimed: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
        good = ~slab.mask
        flux = np.where(good, slab.data, 0)
        inverse = np.divide(1, claimed, out=np.zeros_like(claimed), where=good)
        mask = np.where(slab.mask & model.covered & ~model.dead, DO_NOT_USE, 0) | bits
        widths = (np.where(model.covered, lsf[slab.channels, None, None], 0) for lsf in (after, before))
        return (flux, inverse, mask, *widths)

    return FileLayout(primary, arrays, encode, _manga_tables(model, before, after))


def _manga_tables(
    model: CubeModel, before: Float, after: Float
) -> tuple[fits.ImageHDU | fits.BinTableHDU, ...]:
    """Wavelengths, spectral resolution, and the correlation between spaxels in four bands."""
    wave = model.spectrograph.wave
    vectors = {
        "WAVE": wave,
        "SPECRES": wave / (FWHM_PER_SIGMA * after),
        "SPECRESD": np.full(wave.size, 30.0),
        "PRESPECRES": wave / (FWHM_PER_SIGMA * before),
        "PRESPECRESD": np.full(wave.size, 30.0),
    }
    hdus: list[fits.ImageHDU | fits.BinTableHDU] = [
        fits.ImageHDU(vector, name=name) for name, vector in vectors.items()
    ]
    indices, rho = _sparse_correlation(model)
    ny, nx = model.shape
    for band, place in MANGA_BANDS.items():
        if wave[0] < place < wave[-1]:
            columns = [
                fits.Column(name, "J", array=index)
                for name, index in zip(("INDXI_C1", "INDXI_C2", "INDXJ_C1", "INDXJ_C2"), indices, strict=True)
            ]
            columns.append(fits.Column("RHOIJ", "D", array=rho))
            header = _cards(
                COVTYPE="Correlation", COVSHAPE=f"({nx * ny},{nx * ny})", BBWAVE=place,
                BBINDEX=int(np.argmin(np.abs(wave - place))),
            )  # fmt: skip
            hdus.append(fits.BinTableHDU.from_columns(columns, header, name=f"{band}CORREL"))
    return tuple(hdus)


def _sparse_correlation(model: CubeModel) -> tuple[list[NDArray[np.int32]], Float]:
    """Pairs of covered spaxels (x and y of both) whose correlation exceeds 0.02, each pair once."""
    kernel = model.spectrograph.spatial_correlation
    half = kernel.shape[0] // 2
    y, x = (axis.astype(np.int32) for axis in np.nonzero(model.covered))
    pairs: list[list[NDArray[np.int32]]] = [[], [], [], []]
    values = []
    for dy, dx in np.argwhere(kernel > 0.02) - half:
        if (dy, dx) < (0, 0):
            continue
        inside = (y + dy < model.shape[0]) & (x + dx >= 0) & (x + dx < model.shape[1])
        near_y, near_x = y[inside], x[inside]
        both = model.covered[near_y + dy, near_x + dx]
        for column, index in zip(
            pairs, (near_x, near_y, near_x + np.int32(dx), near_y + np.int32(dy)), strict=True
        ):
            column.append(index[both])
        values.append(np.full(int(both.sum()), kernel[half + dy, half + dx]))
    return [np.concatenate(column) for column in pairs], np.concatenate(values)


def califa_layout(model: CubeModel, name: str, a_v: float) -> FileLayout:  # noqa: ARG001  corrected already
    """Return the layout of CALIFA: fluxes in the primary HDU, ERROR (standard deviation, 1e10 where bad), BADPIX."""
    instrument = model.spectrograph
    primary = _matrix(_cards(OBJECT=name, TELESCOP="CAHA 3.5", INSTRUME="PMAS"), model)
    primary.update(
        {
            "CTYPE3": "AWAV",
            "CUNIT3": "Angstrom",
            "CRPIX3": 1.0,
            "CRVAL3": instrument.wave[0],
            "CD3_3": instrument.edges[1] - instrument.edges[0],
            "CDELT3": instrument.edges[1] - instrument.edges[0],
            "DISPAXIS": 3,
            "BUNIT": "10**-16 erg/s/cm**2/Angstrom",
            "EXPTIME": instrument.exposure,
        }
    )
    shape = (model.n_wave, *model.shape)
    arrays = (
        StreamedArray("", "f4", shape, primary),
        StreamedArray("ERROR", "f4", shape),
        StreamedArray("ERRWEIGHT", "f4", shape),
        StreamedArray("BADPIX", "u1", shape),
    )

    def encode(slab: CubeSlab, claimed: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
        error = np.where(slab.mask, np.float32(CALIFA_BAD), np.sqrt(claimed))
        return (np.where(slab.mask, 0, slab.data), error, np.ones_like(slab.data), slab.mask)

    coverage = fits.ImageHDU(np.where(model.covered & ~model.dead, 3, 0).astype(np.uint8), name="FIBCOVER")
    return FileLayout(primary, arrays, encode, (coverage,))
