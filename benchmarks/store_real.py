"""Frames and spectra of SDSS into one store: found, linked, and as bright in their spectra as on the frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

from measure import DATA
from store_table import show

BANDS = "gri"
STAR, GALAXY = "sdss-3126-54804-0211", "sdss-4238-55455-0037"
FIBRE, WHOLE = 3.0, 7.4  # arcsec: of SDSS, and the aperture that the survey takes for the whole of a star
SEEING = 2.0  # arcsec, to which the survey smooths for its fibre magnitudes
MAGNITUDES = 0.1
SIDE = 200  # pixels around an object


def show_real(folder: Path) -> None:
    """Print the rows about real data, where there are such."""
    frames, spectra = DATA / "sdss_frames", DATA / "sdss_spectra"
    if not frames.is_dir() or not spectra.is_dir():
        show("real frames and spectra", f"none below {DATA} (set SKYLOOM_DATA)")
        return
    print(f"      {frames}/*.bz2, {spectra}/**/*.fits")
    from skyloom.store.query import create

    store = create(folder / "store")
    files = [*sorted(frames.glob("*.bz2")), *sorted(spectra.rglob("*.fits"))]
    result = store.ingest(files)
    near = store.observations(cone=((38.3, -0.13), 0.05))
    links = {name: len(store.links(name)) for name in (STAR, GALAXY)}
    show(
        f"real: {len(files)} files of SDSS",
        f"{len(result.stored)} stored, {len(result.failures)} failed; {len(near)} found, {links[STAR]} links",
        "all; linked",
        not result.failures and set(links.values()) == {5} and len(near) >= 6,
    )
    for failure in result.failures:
        print(f"      {failure.source}: {failure.reason}")
    show_photometry(store, spectra)


def show_photometry(store, spectra: Path) -> None:  # type: ignore[no-untyped-def]  # a Store
    """Compare light in spectra with that in apertures on the stored frames."""
    import astropy.units as u

    from skyloom.imaging import fibre_flux, measure_seeing
    from skyloom.io import sdss_bandpasses
    from skyloom.spectral import synthetic_magnitudes

    found, places = {}, {}
    for name in (STAR, GALAXY):
        spectrum = store.spectrum(name)
        table = synthetic_magnitudes(spectrum, sdss_bandpasses(BANDS))
        found[name] = {
            str(row["band"]): (float(row["flux"].to_value(u.nmgy)), float(row["flux_err"].to_value(u.nmgy)))
            for row in table
        }
        places[name] = spectrum.meta["ra"], spectrum.meta["dec"]
    around = {}
    for row in store.images(band=list(BANDS)):
        psf = measure_seeing(store.cutout(str(row["obs_id"]))).psf
        for name, place in places.items():
            around[name, str(row["band"])] = store.cutout(str(row["obs_id"]), place, SIDE).evolve(psf=psf)

    def light(name: str, band: str, diameter: float, seeing: float | None = None) -> tuple[float, float]:
        (row,) = fibre_flux(around[name, band], places[name], diameter, seeing=seeing)
        return float(row["flux"].to_value(u.nmgy)), float(row["flux_err"].to_value(u.nmgy))

    off = [-2.5 * np.log10(found[STAR][band][0] / light(STAR, band, FIBRE)[0]) for band in BANDS]
    show(
        f"    star: synthetic less {FIBRE:g}-arcsec aperture, {BANDS}",
        " ".join(f"{value:+.3f}" for value in off) + " mag",
        f"within {MAGNITUDES}",
        max(map(abs, off)) < MAGNITUDES,
    )
    with fits.open(spectra / f"spec-{GALAXY.removeprefix('sdss-')}.fits") as hdus:
        header = dict(zip("ugriz", hdus[2].data["FIBER2FLUX"][0].tolist(), strict=True))
    ratios, pulls = [], []
    for band in BANDS:
        # A spectrum is calibrated to the whole light of stars; of a galaxy it tells the fibre's over a star's share.
        share = light(STAR, band, 2.0, SEEING)[0] / light(STAR, band, WHOLE, SEEING)[0]
        (value, error), (fibre, fibre_error) = found[GALAXY][band], light(GALAXY, band, 2.0, SEEING)
        ratios.append((value / header[band], fibre / header[band], share))
        pulls.append((value - fibre / share) / np.hypot(error, fibre_error / share))
    texts = (
        "galaxy of BOSS: spectrum over FIBER2FLUX",
        "    frame in 2 arcsec over FIBER2FLUX",
        "    share of a star",
    )
    for text, values in zip(texts, zip(*ratios, strict=True), strict=True):
        show(f"    {text}, {BANDS}", " ".join(f"{value:.2f}" for value in values))
    show(
        "        spectrum less frame over share",
        " ".join(f"{value:+.1f}" for value in pulls) + " sigma",
        "explained: within 3",
        max(map(abs, pulls)) < 3,
    )
