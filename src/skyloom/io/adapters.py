"""To and from the objects of other packages: CCDData of astropy, Spectrum of specutils, HDUList of astropy.

These are doors, not a second home: what the other object has no place for (noise correlation, shared errors, history,
analytic PSFs) stays behind, and each docstring says what.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.provenance import step
from skyloom.core.psf import SampledPSF
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError
from skyloom.io.fits import Storable, extensions_of
from skyloom.io.formats.blocks import encode

if TYPE_CHECKING:
    from astropy.io.fits import HDUList
    from astropy.nddata import CCDData
    from specutils import Spectrum

__all__ = ["from_ccddata", "from_spectrum", "to_ccddata", "to_hdulist", "to_spectrum"]

Array = NDArray[Any]
_UNCERTAINTIES = ("variance", "std")


def to_hdulist(obj: Storable) -> HDUList:
    """Return what `skyloom.write` would write, as an open HDUList; nothing is lost.

    Parameters
    ----------
    obj : Image, Cube, Spectra or LabelMap
    """
    from astropy.io import fits

    hdus = fits.open(io.BytesIO(b"".join(encode(extensions_of(obj)))), memmap=False, lazy_load_hdus=False)
    for hdu in hdus:
        hdu.data  # noqa: B018  # the bytes they come from do not outlive this function
    return hdus


def to_ccddata(image: Image, *, uncertainty: str = "variance") -> CCDData:
    """Return an image as CCDData.

    Parameters
    ----------
    image : Image
    uncertainty : {"variance", "std"}
        Which uncertainty class to use; "variance" keeps every digit.

    Returns
    -------
    CCDData
        With data, mask, unit, WCS, meta, flags, and the PSF where it is a sampled one. The correlation of the noise,
        shared errors, history and analytic PSFs have no place there: sums over pixels made from a CCDData
        understate their errors.

    Raises
    ------
    InputError
        When ``uncertainty`` is unknown.
    """
    from astropy.nddata import CCDData, StdDevUncertainty, VarianceUncertainty

    if uncertainty not in _UNCERTAINTIES:
        raise InputError(
            f"uncertainty is {uncertainty!r}",
            field="uncertainty",
            remedy=f"use one of {', '.join(_UNCERTAINTIES)}",
        )
    if uncertainty == "variance":
        errors = VarianceUncertainty(image.variance.copy())
    else:
        errors = StdDevUncertainty(_square_root(image.variance))
    return CCDData(
        image.data.copy(),
        uncertainty=errors,
        mask=image.mask.copy(),
        unit=image.unit,
        wcs=image.wcs,
        meta=dict(image.meta),
        flags=None if image.flags is None else image.flags.copy(),
        psf=image.psf.array.copy() if isinstance(image.psf, SampledPSF) else None,
    )


def _square_root(variance: Array) -> Array:
    """Square root that says nothing of what lies under the mask."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(variance))


def from_ccddata(ccd: CCDData) -> Image:
    """Return CCDData as an image.

    Parameters
    ----------
    ccd : CCDData
        Needs a unit and an uncertainty (standard deviation, variance or inverse variance).

    Returns
    -------
    Image
        Pixels without a finite value or a positive, finite variance are masked as well. A PSF array is taken over
        where it is an odd square and there is a WCS.

    Raises
    ------
    InputError
        When there is no uncertainty, or of a kind that has no variance.
    """
    data = np.asarray(ccd.data)
    variance, mask = _variance_of(ccd.uncertainty, data, ccd.mask, "CCDData")
    image = Image(
        data,
        variance,
        mask,
        ccd.unit,
        ccd.wcs,
        flags=None if ccd.flags is None else np.asarray(ccd.flags, dtype=np.uint16),
        meta={str(key): value for key, value in ccd.meta.items()},
        history=(step("from_ccddata"),),
    )
    psf = ccd.psf
    if (
        psf is not None
        and ccd.wcs is not None
        and psf.ndim == 2
        and psf.shape[0] == psf.shape[1]
        and psf.shape[0] % 2
    ):
        image = image.evolve(psf=SampledPSF(psf, image.pixel_matrix))
    return image


def _variance_of(uncertainty: Any, data: Array, mask: Any, source: str) -> tuple[Array, NDArray[np.bool_]]:
    """Return variance and mask of an NDData-like object."""
    from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty

    if not isinstance(uncertainty, (StdDevUncertainty, VarianceUncertainty, InverseVariance)):
        found = "none" if uncertainty is None else type(uncertainty).__name__
        raise InputError(
            f"the {source} has no usable uncertainty (found: {found})",
            field="uncertainty",
            remedy="give it a StdDevUncertainty, VarianceUncertainty or InverseVariance",
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        # An inverse variance of 0 means no information: it becomes infinite here and masked below.
        variance = np.asarray(uncertainty.represent_as(VarianceUncertainty).array)
        usable = np.isfinite(data) & (variance > 0) & (variance < np.inf)
    given = (
        np.zeros(data.shape, bool)
        if mask is None
        else np.broadcast_to(np.asarray(mask, dtype=bool), data.shape)
    )
    return variance, given | ~usable


def to_spectrum(spectra: Spectra) -> Spectrum:
    """Return spectra as a specutils Spectrum.

    Parameters
    ----------
    spectra : Spectra

    Returns
    -------
    specutils.Spectrum
        Flux of shape (n, n_wave) with variance, mask and meta; ``meta["medium"]`` says air or vacuum. The correlation
        of the noise, the line-spread function, shared errors and history have no place there.

    Raises
    ------
    InputError
        When specutils is not installed.
    """
    from astropy.nddata import VarianceUncertainty

    return _spectrum_class()(
        flux=u.Quantity(spectra.data, spectra.unit),
        spectral_axis=u.Quantity(spectra.wave, u.AA),
        uncertainty=VarianceUncertainty(spectra.variance.copy()),
        mask=spectra.mask.copy(),
        meta={**spectra.meta, "medium": spectra.medium},
    )


def from_spectrum(spectrum: Spectrum, *, medium: str | None = None) -> Spectra:
    """Return a specutils Spectrum as spectra.

    Parameters
    ----------
    spectrum : specutils.Spectrum
        One spectrum, or several of one spectral axis; any spectral unit.
    medium : {"air", "vacuum"}, optional
        What the wavelengths are measured in; by default ``spectrum.meta["medium"]``.

    Raises
    ------
    InputError
        When the medium is not known, or there is no uncertainty.
    """
    found = medium or spectrum.meta.get("medium")
    if found is None:
        raise InputError(
            "the Spectrum does not say air or vacuum", field="medium", remedy='pass medium="air" or "vacuum"'
        )
    wave = u.Quantity(spectrum.spectral_axis).to_value(u.AA, equivalencies=u.spectral())
    flux = np.asarray(spectrum.flux.value)
    variance, mask = _variance_of(spectrum.uncertainty, flux, spectrum.mask, "Spectrum")
    # Frequencies and energies ascend where wavelengths descend.
    order = slice(None, None, -1 if wave[0] > wave[-1] else 1)
    data, variance, mask = (np.atleast_2d(plane)[:, order] for plane in (flux, variance, mask))
    meta = {str(key): value for key, value in spectrum.meta.items() if key != "medium"}
    done = (step("from_spectrum"),)
    return Spectra(data, variance, mask, spectrum.flux.unit, wave[order], found, meta=meta, history=done)


def _spectrum_class() -> type[Spectrum]:
    try:
        from specutils import Spectrum
    except ImportError as error:
        raise InputError(
            "specutils is not installed", remedy='install it with: pip install "specutils>=2.0"'
        ) from error
    return Spectrum
