"""Products of ``homogenize`` and ``halpha`` beside the scene that they are images of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.labels import NO_REGION, LabelMap
from skyloom.imaging.grids.label_grids import move_labels
from skyloom.imaging.measure.regions import sum_regions
from skyloom.io import read
from skyloom.io.fits import read_product
from skyloom.mock.galaxy import galaxy_bands
from skyloom.mock.galaxy_files import BROAD_BANDS, NAME, GalaxyFiles
from skyloom.mock.scenes.render import paint
from skyloom.recipes.demo.comparison import Allowed, Comparison, MapPair, percent_bias, statistical

__all__ = ["compare_halpha", "compare_homogenize", "homogenize_truth"]

Float = NDArray[np.float64]
# Side in pixels of the squares whose sums are compared: a few widths of the PSF, so that neighbours hardly share noise.
SQUARE = 12
HALPHA_SQUARE = 25


def homogenize_truth(files: GalaxyFiles, image: Image) -> dict[str, Float]:
    """Return the galaxy without noise in all broad bands on the pixels of a product, at the PSF of the reddest band.

    Parameters
    ----------
    files : GalaxyFiles
    image : Image
        One of the product.

    Returns
    -------
    dict of str to (ny, nx) array, electron/s
    """
    scene, target = files.scene.near.scene, galaxy_bands()[-1]
    bands = {name: files.bands[name] for name in BROAD_BANDS}
    light = np.stack([scene.band_fluxes(band.bandpass) / band.photflam for band in bands.values()])
    psf = target.psf.at(target.bandpass.pivot)
    assert image.wcs is not None  # products have one
    planes = paint(scene.offsets, scene.covariance, light, scene.centre, image.wcs, image.shape, psf)
    return dict(zip(bands, planes, strict=True))


def squares(usable: NDArray[np.bool_], side: int) -> NDArray[np.int32]:
    """Return labels of the squares of ``side`` pixels that are usable as a whole; -1 elsewhere."""
    ny, nx = usable.shape
    columns = -(-nx // side)
    labels = np.arange(ny)[:, np.newaxis] // side * columns + np.arange(nx) // side
    counts = np.bincount(labels.ravel(), usable.ravel(), labels.max() + 1)
    return np.where(counts[labels] == side**2, labels, -1).astype(np.int32)


def region_pulls(image: Image, truth: Float, labels: NDArray[np.int32]) -> tuple[Float, Float, Float]:
    """Return measured and true sums over regions, in the unit of the image's sum, and the errors of the first."""
    table = sum_regions(image, labels)
    inside = labels >= 0
    true = np.bincount(labels[inside], truth[inside])[np.asarray(table["label"])]
    return np.asarray(table["flux"].value), true, np.asarray(table["flux_err"].value)


def compare_homogenize(files: GalaxyFiles, folder: Path) -> tuple[list[Comparison], MapPair]:
    """Compare the fluxes of the galaxy, those of squares of it, and the levels of the sky."""
    images = read_product(folder / "objects" / f"{NAME}.fits")
    truth = homogenize_truth(files, next(iter(images.values())))
    table = QTable.read(folder / "photometry.ecsv", format="ascii.ecsv")
    measured, error, true, square_pulls, ratios = [], [], [], [], []
    for row in table:
        image = images[str(row["band"])]
        plane = truth[str(row["band"])]
        measured.append(float(row["flux"].value))
        error.append(float(row["flux_err"].value))
        true.append(float(plane[image.valid].sum()))
        flux, exact, sigma = region_pulls(image, plane, squares(image.valid, SQUARE))
        square_pulls.append((flux - exact) / sigma)
        ratios.append((flux.sum(), exact.sum()))
    flux_pulls = (np.array(measured) - np.array(true)) / np.array(error)
    pulls = np.concatenate(square_pulls)
    sky = _sky_pulls(files, table)
    shown = images["f814w"]
    pair = MapPair(
        "f814w after homogenize",
        "The galaxy at the PSF and on the pixels of f160w; the pulls are of squares of all bands.",
        shown, with_data(shown, truth["f814w"]), pull_map(shown, truth["f814w"]), pulls, "e/s", "flux", "squares",
    )  # fmt: skip
    rows = [
        Comparison(
            "homogenize", "flux of the galaxy, 4 bands", percent_bias(measured, true), "%", flux_pulls,
            # Four values; the PSFs are measured from five stars, whose cut-outs hold all but 0.3 % of the light.
            statistical(len(measured), bias=0.3), len(measured),
            "In the mask, against the scene with the PSF of f160w summed over the same pixels.",
        ),
        Comparison(
            "homogenize", f"squares of {SQUARE} pixels", float(np.mean([100 * (a / b - 1) for a, b in ratios])), "%",
            pulls, Allowed(0.3, 0.35, 0.25), pulls.size,
            "The galaxy in pieces. All squares of a band share the error of its sky, so that the mean is that of a few"
            " values, and the brightest show what is left of a band's PSF after the match.",
        ),
        Comparison(
            "homogenize", "level of the sky, 4 bands", float(np.mean(sky[0])), "1e-3 e/s", sky[1],
            statistical(len(sky[1])), len(sky[1]), "Measured in empty pixels, against what was put into the images.",
        ),
    ]  # fmt: skip
    return rows, pair


def _sky_pulls(files: GalaxyFiles, table: QTable) -> tuple[Float, Float]:
    """Differences (1e-3 e/s) and pulls of the sky."""
    differences, pulls = [], []
    for row in table:
        name = str(row["band"])
        # The mock states the level of its other bands for pixels of 0.06 arcsec.
        level = files.model.sky.get(name)
        if level is None:
            scale = 0.06 if name == BROAD_BANDS[-1] else files.model.scale
            level = files.bands[name].sky * (scale / 0.06) ** 2
        differences.append(1e3 * (float(row["sky"].value) - level))
        pulls.append(differences[-1] / (1e3 * float(row["sky_err"].value)))
    return np.array(differences), np.array(pulls)


def compare_halpha(files: GalaxyFiles, folder: Path) -> tuple[list[Comparison], MapPair]:
    """Compare Halpha of nebulae and of squares at the resolution of Hubble."""
    image = read(folder / NAME / f"{NAME}_hst_ha.fits")
    assert isinstance(image, Image)
    with fits.open(files.directory / "truth" / f"{NAME}_halpha.fits") as hdus:
        bright = next(hdu.data for hdu in hdus if hdu.data is not None).astype(np.float64)
    truth = bright * image.pixel_area
    nebulae = _nebulae(files, image)
    flux, true, error = region_pulls(image, truth, nebulae)
    # Nebulae hold most of their light in few pixels: what counts is a share of the flux, too.
    lit = true > 0
    flux, true, error = flux[lit], true[lit], error[lit]
    covered = squares(image.valid & (bright > 0.02 * np.percentile(bright, 99)), HALPHA_SQUARE)
    parts, exact, sigma = region_pulls(image, truth, covered)
    usable = image.valid
    total = percent_bias(image.data[usable].astype(np.float64), truth[usable])
    pulls = np.concatenate([(flux - true) / error, (parts - exact) / sigma])
    pair = MapPair(
        "Halpha of Hubble tied to MUSE",
        "At the resolution of Hubble; grey: stars. The pulls are of nebulae and of squares of the galaxy.",
        image, with_data(image, truth), pull_map(image, truth), pulls, "10⁻²⁰ erg s⁻¹ cm⁻²", "flux", "regions",
    )  # fmt: skip
    rows = [
        Comparison(
            "halpha", "flux of nebulae", percent_bias(flux, true), "%", (flux - true) / error,
            # All share the errors of the anchors (slope, offset, stellar absorption): a mean of up to one error.
            Allowed(3.0, 1.0, 0.5), flux.size,
            "Halpha in the regions of the catalogue on the pixels of HST. All regions share the errors of the anchor"
            " to MUSE, so that their mean may be off by one error.",
        ),
        Comparison(
            "halpha", f"squares of {HALPHA_SQUARE} pixels", percent_bias(parts, exact), "%", (parts - exact) / sigma,
            Allowed(3.0, 1.0, 0.5), parts.size,
            "The same for the galaxy in pieces, nebulae or not.",
        ),
        Comparison(
            "halpha", "flux of the whole field", total, "%", np.zeros(0), Allowed(bias=3.0), 1,
            "All usable pixels added up; MUSE ties it to a few per cent.",
        ),
    ]  # fmt: skip
    return rows, pair


def with_data(image: Image, values: Float) -> Image:
    """Return an image with other values, as usable as it was."""
    return image.evolve(data=np.where(image.mask, np.nan, values))


def pull_map(image: Image, truth: Float) -> Image:
    """Return (image - truth) / error of every pixel."""
    with np.errstate(invalid="ignore", divide="ignore"):
        pull = (image.data.astype(np.float64) - truth) / np.sqrt(image.variance.astype(np.float64))
    return with_data(image, pull)


def _nebulae(files: GalaxyFiles, image: Image) -> NDArray[np.int32]:
    """Return the nebulae of the catalogue on Hubble's pixels, without those that are partly masked."""
    with fits.open(files.directory / "muse" / f"{NAME}_nebulae_mask.fits") as hdus:
        labels = LabelMap(hdus[0].data.astype(np.int32), files.model.muse_wcs)
    moved = move_labels(labels, image).labels
    broken = np.unique(moved[image.mask & (moved >= 0)])
    return np.where(np.isin(moved, broken), NO_REGION, moved).astype(np.int32)
