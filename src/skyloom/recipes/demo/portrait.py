"""The galaxy as all four recipes show it, from their products alone."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

import skyloom.store as stores
from skyloom.core.image import Image
from skyloom.imaging.grids.reproject import reproject
from skyloom.io import read
from skyloom.io.fits import read_product
from skyloom.io.products.line_maps import read_line_maps
from skyloom.mock.galaxy_files import NAME
from skyloom.mock.scenes.images import sky_wcs
from skyloom.mock.sdss.field import FIELD_CENTRE
from skyloom.report.figures.demo import PortraitPanel, portrait

__all__ = ["galaxy_portrait"]

Float = NDArray[np.float64]
SDSS_SIDE = 48.0  # arcsec
# Light of the galaxy's middle in each band, so that it looks white there and its arms blue.
RED_GREEN_BLUE = ("f160w", "f814w", "f435w")
RECIPES = ("homogenize", "halpha", "ifs", "store")


def galaxy_portrait(folder: Path, *, recipes: Collection[str] = RECIPES, dpi: float = 130.0) -> bytes:
    """Draw the galaxy as it came out of every recipe of a demonstration.

    Parameters
    ----------
    folder : Path
        Of a demonstration that is done.
    recipes : collection of str
        Those whose products are whole; others are left out.
    dpi : float

    Returns
    -------
    bytes
        A PNG.
    """
    makers = dict(zip(RECIPES, (_colours, _halpha, _velocity, _sdss), strict=True))
    panels = [maker(folder / recipe) for recipe, maker in makers.items() if recipe in recipes]
    return portrait(panels, dpi=dpi)


def _balanced(planes: list[Float]) -> tuple[Float, Float, Float]:
    """Scale three bands so that they are alike in the pixels that are bright in all."""
    order = np.median([plane / max(float(np.percentile(plane, 99.5)), 1e-30) for plane in planes], axis=0)
    bright = order >= np.percentile(order, 98.0)
    red, green, blue = (plane / max(float(plane[bright].mean()), 1e-30) for plane in planes)
    return red, green, blue


def _colours(folder: Path) -> PortraitPanel:
    images = read_product(folder / "objects" / f"{NAME}.fits")
    planes = [
        np.where(images[band].mask, 0.0, images[band].data).astype(np.float64) for band in RED_GREEN_BLUE
    ]
    return PortraitPanel(
        "Hubble, homogenized", f"{', '.join(RED_GREEN_BLUE)} at one PSF", images[RED_GREEN_BLUE[0]], "colours",
        _balanced(planes),
    )  # fmt: skip


def _halpha(folder: Path) -> PortraitPanel:
    image = read(folder / NAME / f"{NAME}_hst_ha.fits")
    assert isinstance(image, Image)
    return PortraitPanel(
        "Halpha, tied to MUSE", "narrow band less continuum, at Hubble's resolution", image, "flux"
    )


def _velocity(folder: Path) -> PortraitPanel:
    maps = read_line_maps(folder / NAME / f"{NAME}_line_maps.fits")
    return PortraitPanel(
        "MUSE, velocity of the gas", "from fits to bins of equal S/N", maps["Halpha_velocity"], "signed"
    )


def _sdss(folder: Path) -> PortraitPanel:
    """Red, green and blue from i, r and g of the first night, around the galaxy, north up."""
    with stores.open(folder) as content:
        table = content.images()
        wanted = {
            band: next(
                str(row["obs_id"])
                for row in table
                if str(row["band"]) == band and str(row["instrument_name"]) == "SDSS"
            )
            for band in "irg"
        }
        centre = SkyCoord(*FIELD_CENTRE, unit="deg")
        images = [content.cutout(name, centre, 1.5 * SDSS_SIDE * u.arcsec) for name in wanted.values()]
    side = round(SDSS_SIDE / 0.3)
    grid = sky_wcs(FIELD_CENTRE, (side, side), 0.3), (side, side)
    moved = [reproject(image, grid, "bilinear") for image in images if isinstance(image, Image)]
    planes = [np.where(image.mask, 0.0, image.data).astype(np.float64) for image in moved]
    return PortraitPanel(
        "SDSS, from the store",
        "i, r, g: the galaxy and the field around it",
        moved[0],
        "colours",
        _balanced(planes),
    )
