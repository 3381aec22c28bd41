"""Small files in the layouts of MaNGA and CALIFA, made with astropy."""

from __future__ import annotations

import numpy as np
from astropy.io import fits

MANGA_WAVE = 10 ** (3.56 + 1e-4 * np.arange(30))
CALIFA_WAVE = 3701.0 + 2.0 * np.arange(40)


def sky_header(scale, size):
    header = fits.Header()
    for axis, kind, value in ((1, "RA---TAN", 205.4384), (2, "DEC--TAN", 27.004754)):
        header[f"CTYPE{axis}"] = kind
        header[f"CUNIT{axis}"] = "deg"
        header[f"CRPIX{axis}"] = size / 2
        header[f"CRVAL{axis}"] = value
    header["CD1_1"], header["CD2_2"] = -scale / 3600, scale / 3600
    return header


def correlation_table(name, kernel, covered):
    """A DRP table: the upper triangle of the matrix in which spaxels at each offset have the kernel's value."""
    ny, nx = covered.shape
    radius = kernel.shape[0] // 2
    rows = []
    for y in range(ny):
        for x in range(nx):
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    other = (y + dy, x + dx)
                    if (dy, dx) < (0, 0) or not (0 <= other[0] < ny and 0 <= other[1] < nx):
                        continue
                    rho = kernel[radius + dy, radius + dx]
                    if covered[y, x] and covered[other] and rho:
                        rows.append((x, y, x + dx, y + dy, rho))
    columns = zip(
        ("INDXI_C1", "INDXI_C2", "INDXJ_C1", "INDXJ_C2", "RHOIJ"), zip(*rows, strict=True), strict=True
    )
    made = [
        fits.Column(key, "D" if key == "RHOIJ" else "J", array=np.array(values)) for key, values in columns
    ]
    hdu = fits.BinTableHDU.from_columns(made, name=name)
    hdu.header["COVSHAPE"] = f"({ny * nx}, {ny * nx})"
    return hdu


def manga_arrays(n_wave=30, size=8, seed=3):
    rng = np.random.default_rng(seed)
    flux = rng.normal(1.0, 0.1, (n_wave, size, size)).astype(np.float32)
    ivar = np.full(flux.shape, 100.0, np.float32)
    mask = np.zeros(flux.shape, np.int32)
    return flux, ivar, mask


def write_manga(path, flux, ivar, mask, *, wave=None, extra=(), primary=(), drop=(), linear=False):
    wave = MANGA_WAVE if wave is None else wave
    main = fits.PrimaryHDU()
    main.header["INSTRUME"], main.header["MASKNAME"] = "MaNGA", "MANGA_DRP3PIXMASK"
    main.header["PLATEIFU"], main.header["MANGAID"], main.header["EBVGAL"] = (
        "7495-12704",
        "12-129618",
        0.0122922,
    )
    main.header["GFWHM"], main.header["RFWHM"] = 2.5, 2.4
    main.header["DRP3QUAL"] = 1
    for key, value in primary:
        main.header[key] = value
    header = sky_header(0.5, flux.shape[-1])
    header["BUNIT"] = "1E-17 erg/s/cm^2/Ang/spaxel"
    if flux.ndim == 3:
        header["CTYPE3"], header["CUNIT3"] = "WAVE" if linear else "WAVE-LOG", "Angstrom"
        header["CRPIX3"], header["CRVAL3"], header["CD3_3"] = 1, wave[0], wave[0] * 1e-4 * np.log(10)
        if linear:
            header["CD3_3"] = wave[1] - wave[0]
    hdus = [
        fits.ImageHDU(flux, header, name="FLUX"),
        fits.ImageHDU(ivar, name="IVAR"),
        fits.ImageHDU(mask, name="MASK"),
        fits.ImageHDU(wave, name="WAVE"),
        *extra,
    ]
    fits.HDUList([main, *[hdu for hdu in hdus if hdu.name not in drop]]).writeto(path)
    return path


def write_califa(path, flux, error, badpix=None, *, keys=(), error_name="ERROR"):
    """A cube (n_wave, y, x) or row-stacked spectra (n, n_wave), as the survey writes them."""
    header = fits.Header() if flux.ndim == 2 else sky_header(1.0, flux.shape[-1])
    axis = 1 if flux.ndim == 2 else 3
    header[f"CRVAL{axis}"], header[f"CDELT{axis}"], header[f"CRPIX{axis}"] = CALIFA_WAVE[0], 2.0, 1.0
    header[f"CTYPE{axis}"], header[f"CUNIT{axis}"] = "WAVELENGTH", "Angstrom"
    if axis == 3:
        header["CD3_3"] = 2.0
    for key, value in keys:
        if value is None:
            header.remove(key)
        else:
            header[key] = value
    hdus = [fits.PrimaryHDU(flux, header), fits.ImageHDU(error, name=error_name)]
    if flux.ndim == 3:
        hdus.append(fits.ImageHDU(np.ones_like(flux), name="ERRWEIGHT"))
    if badpix is not None:
        hdus.append(fits.ImageHDU(badpix, name="BADPIX"))
    if flux.ndim == 3:
        hdus.append(fits.ImageHDU(np.full(flux.shape, 3, np.int16), name="FIBCOVER"))
    fits.HDUList(hdus).writeto(path)
    return path
