"""One template spectrum out of a FITS or text file, and many stacked on their common axis."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import FileFormatError
from skyloom.io.formats.files import FitsFile, Hdu, header_number, open_fits
from skyloom.io.formats.wavelengths import angstrom_per, header_wave, is_spectral, sampled_wave

__all__ = ["TemplateSpectrum", "read_template_spectrum", "stack_spectra"]

Float = NDArray[np.float64]

# No template begins below 10 A: a smaller CRVAL is the logarithm to base 10 of a wavelength in A, whatever CTYPE says
# (MaStar's "WAVE-LOG" is not the axis that FITS paper III means by this name).
_SMALLEST_WAVE = 10.0
_FITS_SUFFIXES = (".fits", ".fit", ".fits.gz", ".fits.bz2", ".fit.gz")
_WAVE_COLUMNS = ("wave", "wavelength", "lambda", "lam")
_FLUX_COLUMNS = ("flux", "flam", "spectrum")
# Axes of one set differ by the rounding of their numbers at most, in steps.
_SAME_AXIS = 1e-3


class TemplateSpectrum(NamedTuple):
    """A spectrum as its file has it.

    Attributes
    ----------
    wave, flux : (n,) arrays
        A, and the unit of the file.
    sampling : {"linear", "log10", "table"}
        What the axis was made from.
    medium : {"air", "vacuum"} or None
        None where the file does not say.
    fwhm : float, (n,) array or None
        A; None where the file does not say.
    """

    wave: Float
    flux: Float
    sampling: str
    medium: str | None = None
    fwhm: Float | float | None = None


def read_template_spectrum(path: str | Path, *, wave_unit: str = "Angstrom") -> TemplateSpectrum:
    """Read one spectrum.

    Parameters
    ----------
    path : str or path
        FITS (also compressed): a one-dimensional array with the axis in its header, or a table with the columns
        ``wave`` and ``flux``. The resolving power may stand in an extension ``SRES``, the width in A in the keyword
        ``FWHM``. Any other suffix: text with the columns wavelength and flux; lines that begin with # are left out.
    wave_unit : str
        Of the wavelengths, where the file does not say.

    Raises
    ------
    FileFormatError
        When the file has neither form, or values that are no finite numbers.
    """
    place = Path(path)
    if place.name.lower().endswith(_FITS_SUFFIXES):
        with open_fits(place) as file:
            spectrum = _from_fits(file, wave_unit)
    else:
        spectrum = _from_text(place, wave_unit)
    if not np.all(np.isfinite(spectrum.flux)):
        bad = int(np.count_nonzero(~np.isfinite(spectrum.flux)))
        raise FileFormatError(f"{bad} values of the template are not finite", source=place, field="flux")
    return spectrum


def _from_fits(file: FitsFile, wave_unit: str) -> TemplateSpectrum:
    image = next((hdu for hdu in file if hdu.is_image and len(hdu.shape) == 1 and hdu.name != "SRES"), None)
    if image is None:
        return _from_table(file, wave_unit)
    flux = np.array(image.array(), dtype=np.float64)
    wave, sampling, medium = _image_axis(image, flux.size, wave_unit)
    fwhm: Float | float | None = header_number(image.header, "FWHM")
    resolution = next((hdu for hdu in file if hdu.name == "SRES"), None)
    if resolution is not None:
        power = np.array(resolution.array(), dtype=np.float64)
        if power.shape != wave.shape or not np.all(power > 0):
            raise FileFormatError(
                f"SRES has {power.size} values, not all of them resolving powers; expected {wave.size} above 0",
                source=file.path,
                field="SRES",
            )
        fwhm = wave / power
    return TemplateSpectrum(wave, flux, sampling, medium, fwhm)


def _image_axis(hdu: Hdu, size: int, wave_unit: str) -> tuple[Float, str, str | None]:
    """Return wavelengths by the formula of the header, the sampling, and the medium if the header says it."""
    header = hdu.header
    start, reference = header_number(header, "CRVAL1"), header_number(header, "CRPIX1")
    step = header_number(header, "CD1_1")
    step = header_number(header, "CDELT1") if step is None else step
    if start is None or step is None:
        raise FileFormatError(
            "the header lacks CRVAL1, or both CD1_1 and CDELT1: the wavelengths are not known",
            source=hdu.file.path,
            field="CRVAL1",
        )
    kind = str(header.get("CTYPE1") or "").strip().upper()
    medium = "air" if kind.startswith("AWAV") else "vacuum" if kind.startswith("WAVE") else None
    unit = str(header.get("CUNIT1") or "").strip()
    first = start + (1.0 - (1.0 if reference is None else reference)) * step
    logarithmic = (start < _SMALLEST_WAVE and not unit) or header.get("DC-FLAG") == 1
    if not logarithmic and is_spectral(header, 1):
        return header_wave(hdu, 1, size, unit=unit or wave_unit).wave, "header", medium
    sampling = "log10" if logarithmic else "linear"
    return (
        sampled_wave(first, step, size, sampling=sampling, unit=unit or wave_unit),
        sampling,
        medium,
    )


def _from_table(file: FitsFile, wave_unit: str) -> TemplateSpectrum:
    for hdu in file:
        if hdu.is_image:
            continue
        table = hdu.table()
        names = {str(name).lower(): str(name) for name in table.names}
        wave = next((names[name] for name in _WAVE_COLUMNS if name in names), None)
        flux = next((names[name] for name in _FLUX_COLUMNS if name in names), None)
        if wave is None or flux is None:
            continue
        number = list(names.values()).index(wave) + 1
        unit = str(hdu.header.get(f"TUNIT{number}") or "").strip() or wave_unit
        axis = np.array(table[wave], dtype=np.float64).ravel() * angstrom_per(unit, f"TUNIT{number}")
        return TemplateSpectrum(axis, np.array(table[flux], dtype=np.float64).ravel(), "table")
    raise FileFormatError(
        "there is neither a one-dimensional array nor a table with the columns wave and flux",
        source=file.path,
    )


def _from_text(path: Path, wave_unit: str) -> TemplateSpectrum:
    try:
        rows = np.loadtxt(path, dtype=np.float64, comments="#", ndmin=2)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise FileFormatError(
            f"cannot be read as columns of wavelength and flux ({error})", source=path
        ) from error
    if rows.shape[0] < 2 or rows.shape[1] < 2:
        raise FileFormatError(
            f"the file has {rows.shape[0]} rows of {rows.shape[1]} columns; expected wavelength and flux",
            source=path,
        )
    return TemplateSpectrum(rows[:, 0] * angstrom_per(wave_unit, "wave_unit"), rows[:, 1], "table")


def stack_spectra(
    paths: Iterable[str | Path], *, wave_unit: str = "Angstrom", wave_range: tuple[float, float] | None = None
) -> tuple[TemplateSpectrum, Float]:
    """Read spectra that share an axis.

    Parameters
    ----------
    paths : iterable of str or path
    wave_unit : str
        See `read_template_spectrum`.
    wave_range : (float, float), optional
        A; what lies beyond is left out.

    Returns
    -------
    first : TemplateSpectrum
        With the common axis and what the files say about medium and width.
    flux : (n, n_wave) array

    Raises
    ------
    FileFormatError
        When an axis or a width differs from that of the first file, or the wavelengths do not ascend.
    """
    places = [Path(path) for path in paths]
    spectra = [read_template_spectrum(place, wave_unit=wave_unit) for place in places]
    first = spectra[0]
    if not np.all(np.diff(first.wave) > 0):
        raise FileFormatError("the wavelengths do not ascend", source=places[0], field="wave")
    for place, spectrum in zip(places, spectra, strict=True):
        if not _same(spectrum.wave, first.wave, float(np.min(np.diff(first.wave)))):
            raise FileFormatError(
                f"the wavelengths ({spectrum.wave.size} from {spectrum.wave[0]:.6g} to {spectrum.wave[-1]:.6g} A)"
                f" are not those of {places[0].name} ({first.wave.size} from {first.wave[0]:.6g} to"
                f" {first.wave[-1]:.6g} A)",
                source=place,
                field="wave",
                remedy="templates of one set share an axis: resample them first",
            )
        if (spectrum.fwhm is None) != (first.fwhm is None) or (
            spectrum.fwhm is not None and not np.allclose(spectrum.fwhm, first.fwhm, rtol=1e-6)  # type: ignore[arg-type]
        ):
            raise FileFormatError(
                f"the width of the line-spread function is not that of {places[0].name}",
                source=place,
                field="FWHM",
                remedy="bring all templates to one resolution first",
            )
    low, high = wave_range or (0.0, np.inf)
    kept = (first.wave >= low) & (first.wave <= high)
    if np.count_nonzero(kept) < 2:
        raise FileFormatError(f"no wavelengths in {low:g}-{high:g} A", source=places[0], field="wave")
    fwhm = first.fwhm[kept] if isinstance(first.fwhm, np.ndarray) else first.fwhm
    flux = np.stack([spectrum.flux[kept] for spectrum in spectra])
    return first._replace(wave=first.wave[kept], flux=flux[0], fwhm=fwhm), flux


def _same(wave: Float, other: Float, step: float) -> bool:
    return wave.shape == other.shape and bool(np.max(np.abs(wave - other)) <= _SAME_AXIS * step)
