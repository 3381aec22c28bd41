"""Two instruments that look at one sky, with known truth: sharp small turned pixels, and large blurred ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS
from scipy import ndimage

from skyloom import io
from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.core.psf import GaussianPSF
from skyloom.imaging.measure.comparison import compare_regions
from skyloom.imaging.psfs.psf_fit import match_to
from skyloom.io.formats.tables import write_ecsv
from skyloom.recipes.config import load_config
from skyloom.recipes.folder import write_config
from skyloom.recipes.halpha.config import HalphaConfig

UNIT = "1e-20 erg / (s cm2 arcsec2)"
SHARP, BLURRED = GaussianPSF(0.1), GaussianPSF(0.8)


def turned_wcs(shape, scale, angle):
    """A tangential WCS about one point of the sky, turned by an angle in degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [24.17, 15.78]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * scale / 3600
    return wcs


@dataclass
class Scene:
    """Halpha with the sharp PSF, what MUSE sees of it, its nebulae."""

    sharp: Image
    blurred: Image
    labels: LabelMap


def quality_scene(*, n_nebulae=40, size=400, seed=1, angle=25.0, muse_angle=-8.0, noise=True):
    """Nebulae on faint diffuse light, well apart, and both images with noise that is known."""
    generator = np.random.default_rng(seed)
    shape, coarse = (size, size), (size // 5, size // 5)
    wcs, coarse_wcs = turned_wcs(shape, 0.04, angle), turned_wcs(coarse, 0.2, muse_angle)
    per_side = int(np.ceil(np.sqrt(n_nebulae)))
    step = 0.68 * size / per_side
    places = [
        (0.16 * size + (i + 0.5) * step, 0.16 * size + (k + 0.5) * step)
        for i in range(per_side)
        for k in range(per_side)
    ][:n_nebulae]
    rows, columns = np.mgrid[:size, :size].astype(float)
    light = np.full(shape, 20.0)
    for y, x in places:
        peak = 10 ** generator.uniform(3.0, 4.0)
        light += peak * np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / 4.0**2)
    plane = np.ones(shape)
    clean = Image(light, plane, np.zeros(shape, bool), UNIT, wcs, psf=SHARP)
    seen = match_to(clean, (coarse_wcs, coarse), BLURRED)
    labels = LabelMap(labels_around(places, wcs, coarse_wcs, coarse), coarse_wcs)
    blurred = Image(
        np.where(seen.mask, 0, seen.data), np.full(coarse, 30.0**2), seen.mask, UNIT, coarse_wcs, psf=BLURRED
    )
    if noise:
        kernel = np.array([0.25, 0.5, 0.25])
        grain = ndimage.convolve1d(generator.normal(size=shape), kernel, axis=0, mode="wrap")
        grain = ndimage.convolve1d(grain, kernel, axis=1, mode="wrap") / (kernel**2).sum()
        rho = np.convolve(kernel, kernel[::-1]) / (kernel**2).sum()
        clean = clean.evolve(
            data=light + 200.0 * grain, variance=np.full(shape, 200.0**2), correlation=np.outer(rho, rho)
        )
        blurred = blurred.evolve(data=blurred.data + 30.0 * generator.normal(size=coarse))
    return Scene(clean, blurred, labels)


def labels_around(places, wcs, coarse_wcs, coarse, radius=4.0):
    """Number the coarse pixels within a radius (in coarse pixels) of each place on the fine grid, from 1."""
    labels = np.full(coarse, -1, np.int32)
    rows, columns = np.mgrid[: coarse[0], : coarse[1]]
    for number, (y, x) in enumerate(places, start=1):
        ra, dec = wcs.wcs_pix2world(x, y, 0)
        column, row = coarse_wcs.wcs_world2pix(ra, dec, 0)
        labels[np.hypot(rows - row, columns - column) < radius] = number
    return labels


def write_products(folder, scene, *, name="spiral", catalogue=True, muse=True, labels=True):
    """Write what a run leaves behind, as far as the quality analysis needs it; return the configuration."""
    own = folder / "halpha" / name
    own.mkdir(parents=True)
    io.write(scene.sharp, own / f"{name}_hst_ha_as2.fits")
    if muse:
        io.write(scene.blurred, own / f"{name}_musehalpha.fits")
        nan = np.nan
        row = {"band": "f658n", "fwhm": BLURRED.fwhm, "fwhm_err": nan, "beta": nan, "beta_err": nan}
        row |= {
            "east": 0.0,
            "east_err": nan,
            "north": 0.0,
            "north_err": nan,
            "applied": False,
            "measured": False,
        }
        row |= {"slope": nan, "correlation": nan, "agreement": nan, "chi_square": nan}
        table = QTable(rows=[row])
        for column in ("fwhm", "fwhm_err", "east", "east_err", "north", "north_err"):
            table[column].unit = "arcsec"
        write_ecsv(table, own / f"{name}_alignment.ecsv")
    if labels:
        fits.PrimaryHDU(scene.labels.labels, scene.labels.wcs.to_header()).writeto(
            folder / f"{name}_mask.fits"
        )
    if catalogue:
        table = compare_regions(scene.sharp, scene.blurred, scene.labels)
        known = QTable({"region_ID": table["label"], "HA6562_FLUX": table["reference_flux"].value})
        known.write(folder / f"{name}_catalogue.fits")
    nebulae = {"labels": '"{object}_mask.fits"', "catalogue": '"{object}_catalogue.fits"'}
    lines = [
        "recipe: halpha",
        f"objects: {{{name}: {{redshift: 0.002}}}}",
        "images: {pattern: '{object}_{band}.fits'}",
    ]
    lines += [
        "narrow: {band: f658n}",
        "continua: {f814w: {}}",
        "muse: {bands: a.fits, lines: {file: b.fits}}",
    ]
    if labels:
        given = {key: value for key, value in nebulae.items() if key == "labels" or catalogue}
        lines.append("nebulae: {" + ", ".join(f"{key}: {value}" for key, value in given.items()) + "}")
    lines.append("output: {directory: halpha}")
    (folder / "halpha.yaml").write_text("\n".join(lines), encoding="utf-8")
    config = load_config(folder / "halpha.yaml", HalphaConfig)
    write_config(config, folder / "halpha")
    return config, own
