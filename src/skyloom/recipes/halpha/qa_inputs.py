"""What the quality analysis of a ``halpha`` run reads: products, nebulae, and HST as MUSE would see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import QTable, Row
from numpy.typing import NDArray

from skyloom import io
from skyloom.core.image import Image, Mode
from skyloom.core.labels import LabelMap
from skyloom.core.psf import GaussianPSF, MoffatPSF
from skyloom.errors import InputError
from skyloom.imaging.psfs.psf_fit import KernelFit, match_to
from skyloom.io.fits import read_product
from skyloom.io.products.nebulae import read_nebula_catalogue, read_nebula_map
from skyloom.recipes.halpha.config import HalphaConfig
from skyloom.recipes.patterns import find_file

__all__ = ["Products", "block_means", "bring_to_muse", "read_nebulae"]

BLOCK = 0.8
"""Side of the blocks over which maps of shared errors are averaged, in pixels of MUSE."""


@dataclass(frozen=True, slots=True)
class Products:
    """The products in the folder of an object."""

    folder: Path
    name: str

    def path(self, kind: str) -> Path:
        """Return where a product is."""
        return self.folder / f"{self.name}_{kind}.fits"

    def image(self, kind: str) -> Image | None:
        """Read an image, None when it was not made."""
        path = self.path(kind)
        if not path.is_file():
            return None
        found = io.read(path)
        if not isinstance(found, Image):
            raise InputError("this is no image of skyloom", source=path, remedy="skyloom run --overwrite")
        return found

    def images(self, kind: str) -> dict[str, Image]:
        """Read a product of several images; empty when it was not made."""
        path = self.path(kind)
        return dict(read_product(path)) if path.is_file() else {}

    def table(self, kind: str) -> QTable | None:
        """Read a table, None when it was not made."""
        path = self.path(kind).with_suffix(".ecsv")
        return QTable.read(path, format="ascii.ecsv") if path.is_file() else None


def read_nebulae(config: HalphaConfig, name: str) -> tuple[LabelMap | None, QTable | None]:
    """Read the label map and the catalogue that the configuration names; None for what it does not.

    Raises
    ------
    InputError
        When one of them is named and not there.
    """
    nebulae = config.nebulae
    if nebulae is None:
        return None, None
    own = config.objects[name]
    fields = {"object": own.source or name, "galaxy": own.source or name, **own.fields}
    paths: list[Path | None] = []
    for key, pattern in (("labels", nebulae.labels), ("catalogue", nebulae.catalogue)):
        path = None if pattern is None else find_file(pattern, fields)
        if path is not None and not path.is_file():
            raise InputError(
                "there is no such file",
                source=path,
                field=f"nebulae.{key}",
                remedy="correct it, or leave it out",
            )
        paths.append(path)
    labels = None if paths[0] is None else read_nebula_map(paths[0])
    catalogue = None if paths[1] is None else read_nebula_catalogue(paths[1], fields["galaxy"])
    return labels, catalogue


def bring_to_muse(final: Image, muse: Image, products: Products, band: str) -> Image:
    """Give HST the PSF and the grid of MUSE, with the kernel that the run has fitted for the narrow band."""
    table = products.table("alignment")
    if table is None:
        raise InputError("there is no such product", source=products.path("alignment").with_suffix(".ecsv"))
    row = table[[str(item) for item in table["band"]].index(band)]
    kernel = _kernel(row, muse)
    matched = match_to(final.evolve(modes=()), muse, kernel)
    if not final.modes:
        return matched
    # Maps of shared errors take as long as the image, each: block means serve, well below the pixels of MUSE.
    side = max(1, int(BLOCK * muse.pixel_scale / final.pixel_scale))
    return matched.evolve(modes=match_to(block_means(final, side), muse, kernel).modes)


def _kernel(row: Row, muse: Image) -> KernelFit | GaussianPSF | MoffatPSF:
    """Return the kernel of a row of the table of alignment, or the PSF that the configuration gave."""
    fwhm, beta = float(row["fwhm"].value), float(row["beta"])
    psf = GaussianPSF(fwhm) if np.isnan(beta) else MoffatPSF(fwhm, beta)
    error = float(row["fwhm_err"].value)
    if np.isnan(error):
        return psf
    unknown, nothing = float("nan"), np.zeros((0, 0))
    return KernelFit(
        psf, fwhm, error, beta, float(row["beta_err"]), float(row["slope"]), unknown, unknown, unknown,
        np.zeros(2), np.zeros(2), (), nothing, float(row["chi_square"]), float(row["correlation"]),
        float(row["agreement"]), 0, nothing, muse.pixel_matrix,
    )  # fmt: skip


def block_means(image: Image, side: int) -> Image:
    """Average an image and the maps of its shared errors over blocks of pixels; what is left over is masked."""
    if side == 1 or image.wcs is None or image.wcs.sip is not None:
        return image  # Distortions are polynomials of the pixels as they are.
    ny, nx = (-(-size // side) for size in image.shape)
    pad = ((0, ny * side - image.shape[0]), (0, nx * side - image.shape[1]))
    used = np.pad(image.valid, pad)
    unused = ~used
    number = used.reshape(ny, side, nx * side).sum(axis=1).reshape(ny, nx, side).sum(axis=2)

    def mean(plane: NDArray[Any]) -> NDArray[Any]:
        padded = np.pad(plane, pad)
        padded[unused] = 0
        # Rows are added first: over both axes at once numpy is several times slower.
        rows = padded.reshape(ny, side, nx * side).sum(axis=1)
        return np.asarray(rows.reshape(ny, nx, side).sum(axis=2) / np.maximum(number, 1))

    # Slices of a WCS with a step leave its CD matrix as it was.
    wcs = image.wcs.deepcopy()
    wcs.wcs.crpix = (wcs.wcs.crpix - 0.5) / side + 0.5
    if wcs.wcs.has_cd():
        wcs.wcs.cd = wcs.wcs.cd * side
    else:
        wcs.wcs.cdelt = wcs.wcs.cdelt * side
    modes = tuple(
        mode if np.ndim(mode.map) == 0 else Mode(mode.name, mean(np.asarray(mode.map)), mode.sigma)
        for mode in image.modes
    )
    variance = np.where(number > 0, mean(image.variance), 1.0)
    return Image(
        mean(image.data),
        variance,
        number == 0,
        image.unit,
        wcs,
        psf=image.psf,
        modes=modes,
    )
