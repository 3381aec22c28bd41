"""Photometry of what a store holds: spectra through filters, and the light of the linked images in the fibre.

Both sides are given in nanomaggies. The spectra of SDSS are calibrated to the whole light of stars: what a star loses
beside the fibre is put back. So of a star the spectrum agrees with a wide aperture, and of a galaxy it lies above the
light in the fibre by one over `star_share`, the share of a star that the fibre takes in at the seeing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable, vstack
from astropy.wcs import WCS

from skyloom.core.bandpass import Bandpass
from skyloom.core.geometry import celestial, local_matrix
from skyloom.core.image import Image
from skyloom.core.psf import PSF
from skyloom.core.spectra import Spectra
from skyloom.core.units import sum_unit
from skyloom.errors import InputError
from skyloom.imaging.measure.fibre import fibre_flux
from skyloom.io.bandpass import sdss_bandpasses
from skyloom.spectral.bands.photometry import PhotometricSystem, synthetic_magnitudes
from skyloom.spectral.bands.transmission import transmission_weighted

if TYPE_CHECKING:
    from skyloom.store.query import Store

__all__ = ["choose_bandpasses", "fibre_photometry", "spectra_table", "weighted"]

Bandpasses = str | Mapping[str, Bandpass]
SDSS_BANDS = "ugriz"
AB_FLUX = 3631 * u.Jy  # of one maggy
ROOM = 6.0
"""Of a cut-out beyond the fibre, over the FWHM that is asked for: convolution kernels end before."""
WHOLE = 7.4
"""arcsec: diameter of the aperture that the survey takes for the whole of a star."""
_NUMBERS = (
    "image_seeing", "seeing", "covered", "flux", "flux_err", "spectrum_flux", "spectrum_flux_err", "ratio",
    "ratio_err", "star_share",
)  # fmt: skip
_UNITS = {
    "image_seeing": u.arcsec,
    "seeing": u.arcsec,
    "flux": u.nmgy,
    "flux_err": u.nmgy,
    "spectrum_flux": u.nmgy,
    "spectrum_flux_err": u.nmgy,
}


@dataclass(frozen=True, slots=True)
class _Linked:
    """An image that covers a spectrum."""

    store: Store
    obs_id: str
    band: str
    time: float

    def cutout(self, place: SkyCoord, side: float) -> Image:
        """Return a window about the spectrum, of a side in arcsec."""
        found = self.store.cutout(self.obs_id, place, side * u.arcsec)
        assert isinstance(found, Image)  # cubes have been left out
        return found

    def psf(self) -> PSF:
        return self.store.psf(self.obs_id)


def choose_bandpasses(bands: Bandpasses) -> Mapping[str, Bandpass]:
    """Return the response of SDSS in some bands, or what was given."""
    return sdss_bandpasses(bands) if isinstance(bands, str) else bands


def weighted(spectra: Spectra, transmission: bool | Bandpasses) -> Spectra:
    """Return spectra times the merged transmission of several bands (True: of ugriz); as they are if False."""
    if transmission is False:
        return spectra
    bands = SDSS_BANDS if transmission is True else transmission
    return transmission_weighted(spectra, choose_bandpasses(bands))


def spectra_table(
    spectra: Iterable[tuple[str, Spectra]], bands: Bandpasses = SDSS_BANDS, system: PhotometricSystem = "AB"
) -> QTable:
    """Measure named spectra through filters.

    Returns
    -------
    QTable
        One row per spectrum and band: ``obs_id``, ``band``, ``flux`` and ``flux_err`` in nanomaggies with the
        correlation of the pixels counted in, AB and asinh magnitudes with their errors, and how much of the band the
        spectrum covers; see `skyloom.spectral.synthetic_magnitudes`.
    """
    bandpasses = choose_bandpasses(bands)
    tables = []
    for obs_id, spectrum in spectra:
        table = synthetic_magnitudes(spectrum, bandpasses, system=system)
        table.remove_column("spectrum")
        table.add_column(np.full(len(table), obs_id), 0, "obs_id")
        tables.append(table)
    return vstack(tables, metadata_conflicts="silent") if tables else QTable()


# --- the light in the fibre -----------------------------------------------------------------------------------------


def fibre_photometry(
    store: Store,
    obs_id: str,
    *,
    seeing: float | u.Quantity | str | None = None,
    diameter: float | u.Quantity | None = None,
    band: str | Sequence[str] | None = None,
    bandpasses: Mapping[str, Bandpass] | None = None,
) -> QTable:
    """Measure what the linked images see in the fibre of a spectrum, beside the spectrum through their filters.

    Parameters
    ----------
    store : Store
    obs_id : str
        Of a spectrum.
    seeing : float, angle or "common", optional
        FWHM (arcsec) to which all images are smoothed first; "common": that of the broadest of them. None: as observed.
    diameter : float or angle, optional
        Of the fibre, arcsec; by default what the spectrum says.
    band : str or list of str, optional
        Of the images; by default all.
    bandpasses : mapping of band to Bandpass, optional
        Filters of the images; by default those of SDSS for images of SDSS.

    Returns
    -------
    QTable
        One row per image, by band and time: ``obs_id``, ``band``, ``time`` at which it saw the place (MJD, TAI),
        ``image_seeing`` and the ``seeing`` reached (FWHM), ``covered`` share of the fibre, ``flux`` and ``flux_err`` in
        the fibre's circle (correlated noise and that of the smoothing counted in), ``spectrum_flux`` and
        ``spectrum_flux_err``, their ``ratio`` spectrum over image with ``ratio_err``, ``star_share``: the share of a
        star's light that the fibre takes in at this seeing, and the ``problem`` if something is missing. Fluxes in
        nanomaggies, those of both sides with the zero points of the survey where images of SDSS are measured with its
        own filters (AB is 0.04 mag brighter in u, 0.02 mag fainter in z). ``meta["diameter"]``: that of the fibre.
        Linked cubes are left out.

    Raises
    ------
    InputError
        When it is no spectrum, or the diameter of its fibre is not known.

    Notes
    -----
    The circle is that of the true fibre, of the area pi (d / 2)^2, and its overlap with the pixels exact. Where a
    seeing is asked for, that of an image is measured from its stars at level 0, once per image and opened store, unless
    it was stored with a PSF; `image_seeing` and `star_share` are known only then.
    """
    if isinstance(seeing, str) and seeing != "common":
        raise InputError(f"seeing is {seeing!r}", field="seeing", remedy="give arcsec, or 'common'")
    spectra = store.spectrum(obs_id)
    width = _diameter(spectra, diameter)
    place, images = _linked(store, obs_id, band)
    target = _common_seeing(images) if isinstance(seeing, str) else _arcsec(seeing)
    rows = [_measured(image, place, width, target) for image in images]
    for row, flux in zip(rows, _synthetic(store, images, spectra, bandpasses), strict=True):
        row["spectrum_flux"], row["spectrum_flux_err"] = flux
        row["ratio"], row["ratio_err"] = _ratio(row)
    order = sorted(range(len(images)), key=lambda i: (_band_place(images[i].band), images[i].time))
    table = QTable()
    for name in ("obs_id", "band"):
        table[name] = np.array([getattr(images[i], name) for i in order], dtype=str)
    table["time"] = np.array([images[i].time for i in order], dtype=np.float64) * u.d
    for name in _NUMBERS:
        values = np.array([rows[i].get(name, np.nan) for i in order], dtype=np.float64)
        table[name] = values * _UNITS[name] if name in _UNITS else values
    table["problem"] = np.array([rows[i]["problem"] for i in order], dtype=str)
    table.meta["diameter"] = width * u.arcsec
    return table


def _linked(store: Store, obs_id: str, band: str | Sequence[str] | None) -> tuple[SkyCoord, list[_Linked]]:
    """Return where a spectrum is, and the images that cover it."""
    own = store.table([store.row(obs_id)], ("s_ra", "s_dec"))[0]
    links = store.links(obs_id)
    wanted = links["dataproduct_type"] == "image"
    if band is not None:
        wanted &= np.isin(links["band"], [band] if isinstance(band, str) else list(band))
    images = [
        _Linked(store, str(link["obs_id"]), str(link["band"]), float(link["time"].value))
        for link in links[wanted]
    ]
    return SkyCoord(own["s_ra"], own["s_dec"]), images


def _common_seeing(images: Sequence[_Linked]) -> float | None:
    """Return the broadest seeing of some images in arcsec, to which all can be smoothed; None if none is known."""
    found = []
    for image in images:
        try:
            found.append(image.psf().fwhm)
        except InputError:
            continue  # Its row will say why.
    return max(found, default=None)


def _diameter(spectra: Spectra, diameter: float | u.Quantity | None) -> float:
    found = spectra.meta.get("fibre_diameter") if diameter is None else _arcsec(diameter)
    if found is None:
        raise InputError(
            "the spectrum does not say how wide its fibre was",
            source=spectra.meta.get("path"),
            field="diameter",
            remedy="give diameter= in arcsec",
        )
    return float(found)


def _arcsec(value: Any) -> float | None:
    if value is None:
        return None
    return float(value.to_value(u.arcsec) if isinstance(value, u.Quantity) else value)


def _band_place(band: str) -> tuple[int, str]:
    return (SDSS_BANDS.find(band) % (len(SDSS_BANDS) + 1), "") if len(band) == 1 else (len(SDSS_BANDS), band)


def _synthetic(
    store: Store,
    images: Sequence[_Linked],
    spectra: Spectra,
    bandpasses: Mapping[str, Bandpass] | None,
) -> list[tuple[float, float]]:
    """Flux of the spectrum and its error through the filter of each image, nanomaggies; NaN where that is unknown."""
    known = sdss_bandpasses() if bandpasses is None else bandpasses
    # An r of another camera is not that of SDSS.
    rows = [store.row(image.obs_id) for image in images]
    collections = store.table(rows, ("obs_collection",))["obs_collection"]
    fits = [
        image.band in known and (bandpasses is not None or str(collection) == "SDSS")
        for image, collection in zip(images, collections, strict=True)
    ]
    wanted = {image.band for image, fit in zip(images, fits, strict=True) if fit}
    found: dict[str, tuple[float, float]] = {}
    if wanted:
        # Frames keep the zero points of the survey, which are off AB in u and z; those of others are AB.
        system: PhotometricSystem = "SDSS" if bandpasses is None else "AB"
        table = synthetic_magnitudes(spectra, {band: known[band] for band in sorted(wanted)}, system=system)
        columns = (table[name].to_value(u.nmgy).tolist() for name in ("flux", "flux_err"))
        found = dict(zip(table["band"].tolist(), zip(*columns, strict=True), strict=True))
    return [found[image.band] if fit else (np.nan, np.nan) for image, fit in zip(images, fits, strict=True)]


def _measured(image: _Linked, place: SkyCoord, diameter: float, seeing: float | None) -> dict[str, Any]:
    """Flux of one image in the fibre, and why something is missing."""
    row: dict[str, Any] = {"problem": ""}
    try:
        stamp = image.cutout(place, diameter + 2.0 * ROOM * (seeing or 0.0) + 4.0)
        if seeing is not None:
            stamp = stamp.evolve_checked(psf=image.psf())
        if stamp.psf is not None:
            row["image_seeing"] = stamp.psf.fwhm
        scale = _nanomaggies(stamp)
        found = fibre_flux(stamp, place, diameter, seeing=seeing)[0]
        if stamp.psf is not None:
            row["star_share"] = _star_share(stamp, place, diameter, seeing)
    except InputError as error:
        row["problem"] = str(error)
        return row
    row["seeing"], row["covered"] = found["seeing"].to_value(u.arcsec), found["covered"]
    row["flux"], row["flux_err"] = (scale * found[name].value for name in ("flux", "flux_err"))
    if not row["covered"] > 0:
        row["problem"] = "no usable pixel of the image lies in the fibre"
    elif row["covered"] < 0.999:
        row["problem"] = f"only {100 * row['covered']:.1f} % of the fibre have usable pixels of the image"
    return row


def _ratio(row: Mapping[str, Any]) -> tuple[float, float]:
    """Flux of the spectrum over that of the image."""
    flux, other = row.get("flux", np.nan), row["spectrum_flux"]
    if not np.isfinite(flux * other) or flux == 0:
        return np.nan, np.nan
    return other / flux, float(np.hypot(row["spectrum_flux_err"], other / flux * row["flux_err"]) / abs(flux))


def _nanomaggies(image: Image) -> float:
    """Return one unit of the light of an image in nanomaggies."""
    unit = sum_unit(image.unit)
    if unit.is_equivalent(u.nmgy):
        return float(unit.to(u.nmgy))
    if unit.is_equivalent(u.Jy):
        return float((1.0 * unit / AB_FLUX).to_value(u.one) * 1e9)
    raise InputError(
        f"the unit {image.unit} cannot be turned into nanomaggies",
        source=image.meta.get("path"),
        field="unit",
        remedy="store the image in nanomaggies or janskys",
    )


def _star_share(stamp: Image, place: SkyCoord, diameter: float, seeing: float | None) -> float:
    """Share of a star that the fibre takes in, measured on a painted one as the flux is; the whole is `WHOLE`."""
    sky = celestial(stamp.wcs, "the light in a fibre")
    x, y = (float(value) for value in sky.world_to_pixel(place))
    assert stamp.psf is not None  # where it is called
    matrix = local_matrix(sky, x, y)
    side = 2 * int(np.ceil((0.5 * WHOLE + ROOM * (seeing or 0.0)) / stamp.pixel_scale)) + 5
    offset = x - round(x), y - round(y)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [place.ra.deg, place.dec.deg]
    wcs.wcs.crpix = [side // 2 + 1 + offset[0], side // 2 + 1 + offset[1]]
    wcs.wcs.cd = matrix / 3600.0
    light = stamp.psf.render(matrix, side, offset)
    star = Image(light, np.ones_like(light), np.zeros(light.shape, bool), u.nmgy, wcs, psf=stamp.psf)
    in_fibre = fibre_flux(star, place, diameter, seeing=seeing)["flux"][0]
    return float(in_fibre / fibre_flux(star, place, WHOLE, seeing=seeing)["flux"][0])
