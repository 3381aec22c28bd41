"""What a store gives back beside what went in: pixels at every level, photometry, spectra, links."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import skyloom.store as stores
from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands
from skyloom.imaging.measure.regions import sum_apertures
from skyloom.mock.galaxy import GALAXY
from skyloom.mock.galaxy_files import NAME, GalaxyFiles
from skyloom.mock.sdss.frames import FrameObservation
from skyloom.mock.sdss.spectra import SpectrumObservation
from skyloom.recipes.demo.comparison import Allowed, Comparison, MapPair, percent_bias, statistical
from skyloom.recipes.demo.truth_images import pull_map, with_data
from skyloom.store.levels.images import image_levels

__all__ = ["compare_store"]

Float = NDArray[np.float64]
COARSE = 3
"""Level at which images are compared too: 8 x 8 pixels in one."""
STAR_APERTURE, GALAXY_APERTURE = 3.0, 7.0  # arcsec


def compare_store(files: GalaxyFiles, folder: Path) -> tuple[list[Comparison], MapPair]:
    """Compare images, photometry, spectra and links of the store with the mock."""
    with stores.open(folder) as content:
        names = {str(row["source"]): str(row["obs_id"]) for row in content.observations()}
        known = {Path(source).name: name for source, name in names.items()}
        mock = [name for source, name in known.items() if (files.directory / "hst" / source).exists()]
        mock += [name for source, name in known.items() if source.startswith(("frame-", f"{NAME}_cube"))]
        frames = [
            (observed, content.cutout(known[files.sdss.frames[observed.epoch.run, observed.band].name]))
            for observed in files.sdss.observed
            if isinstance(observed, FrameObservation)
        ]
        spectra = [item for item in files.sdss.observed if isinstance(item, SpectrumObservation)]
        stored = [(item, known[path.name]) for item, path in zip(spectra, files.sdss.spectra, strict=True)]
        images = [(seen, image) for seen, image in frames if isinstance(image, Image)]
        rows = [
            *_pixel_rows(images),
            *_photometry_rows(files, images),
            _spectra_row([(item, content.spectrum(name)) for item, name in stored]),
            _links_row(
                files, [(item, np.asarray(content.links(name)["obs_id"])) for item, name in stored], mock
            ),
        ]
    return rows, _frame_pair(images)


def _frame_pair(frames: list[tuple[FrameObservation, Image]]) -> MapPair:
    """The first frame in r."""
    seen, image = next((seen, image) for seen, image in frames if seen.band == "r")
    truth = np.asarray(seen.truth)
    pull = pull_map(image, truth)
    return MapPair(
        "A frame of SDSS in r from the store",
        "The galaxy, the stars beside it and the field, as the store gives them back.",
        image, with_data(image, truth), pull, pull.data[pull.valid], "nanomaggies", "flux", "pixels",
    )  # fmt: skip


def _true_image(seen: FrameObservation, image: Image) -> Image:
    return image.evolve(data=np.asarray(seen.truth, dtype=np.float32))


def _pixel_rows(frames: list[tuple[FrameObservation, Image]]) -> list[Comparison]:
    """Every pixel of all frames, as stored and at a coarse level."""
    rows = []
    for level, name in ((0, "pixels of frames"), (COARSE, f"{2**COARSE} x {2**COARSE} pixels of frames")):
        pulls, found, true = [], 0.0, 0.0
        for seen, image in frames:
            noisy, exact = (
                list(image_levels(item, COARSE + 1))[level].subject
                for item in (image, _true_image(seen, image))
            )
            good = ~noisy.mask
            difference = noisy.data[good].astype(np.float64) - exact.data[good]
            pulls.append(difference / np.sqrt(noisy.variance[good].astype(np.float64)))
            found, true = found + float(noisy.data[good].sum()), true + float(exact.data[good].sum())
        every = np.concatenate(pulls)
        strict = statistical(every.size)
        # A frame's error counts the N electrons that came, not those expected, so that a pull is -1 / (2 sqrt(N)) in
        # the mean: -0.08 in u with 35 electrons of sky, -0.02 in r and i, -0.035 in the mean of the bands.
        allowed = Allowed(None, (strict.mean or 0.0) + 0.045, (strict.spread or 0.0) + 0.01)
        rows.append(
            Comparison(
                "store", name, percent_bias(found, true), "%", every, allowed, every.size,
                f"All frames at level {level} against the scene without noise. Errors are those of the electrons that"
                " were counted, not of those expected, which moves the mean by a few hundredths.",
            )
        )  # fmt: skip
    return rows


def _photometry_rows(files: GalaxyFiles, frames: list[tuple[FrameObservation, Image]]) -> list[Comparison]:
    """Sums in apertures around the stars and the galaxy."""
    rows = []
    for name, radius, sources in (
        (
            "fluxes of stars",
            STAR_APERTURE,
            [item for item in files.scene.field.sources if item.kind == "star"],
        ),
        ("flux of the galaxy", GALAXY_APERTURE, [files.scene.field.source(GALAXY)]),
    ):
        found, true, error = [], [], []
        for seen, image in frames:
            assert image.wcs is not None
            x, y = image.wcs.all_world2pix([item.ra for item in sources], [item.dec for item in sources], 0)
            pixels = radius / image.pixel_scale
            ny, nx = image.shape
            whole = (x > pixels) & (x < nx - 1 - pixels) & (y > pixels) & (y < ny - 1 - pixels)
            noisy, exact = (
                sum_apertures(item, x[whole], y[whole], pixels) for item in (image, _true_image(seen, image))
            )
            found.append(np.asarray(noisy["flux"].value))
            true.append(np.asarray(exact["flux"].value))
            error.append(np.asarray(noisy["flux_err"].value))
        measured, expected, sigma = (np.concatenate(part) for part in (found, true, error))
        rows.append(
            Comparison(
                "store", name, percent_bias(measured, expected), "%", (measured - expected) / sigma,
                statistical(measured.size), measured.size,
                f"In circles of {radius:g} arcsec in the cut-outs of all frames, against the scene in them.",
            )
        )  # fmt: skip
    return rows


def _spectra_row(pairs: list[tuple[SpectrumObservation, Spectra]]) -> Comparison:
    """Every pixel of the spectra, as stored."""
    pulls, found, true, independent = [], 0.0, 0.0, 0.0
    for item, spectrum in pairs:
        good = ~spectrum.mask[0]
        scale = item.spectra.unit.to(spectrum.unit)
        truth = item.truth[good] * scale
        data, variance = (plane[0][good].astype(np.float64) for plane in (spectrum.data, spectrum.variance))
        pulls.append((data - truth) / np.sqrt(variance))
        found, true = found + float(data.sum()), true + float(truth.sum())
        lags = lag_bands(spectrum.correlation, spectrum.shape[1]).mean(axis=0)
        independent += good.sum() / float(lags.sum())
    every = np.concatenate(pulls)
    return Comparison(
        "store", "spectra, every pixel", percent_bias(found, true), "%", every, statistical(independent), every.size,
        "As stored, against the light in the fibre without noise; neighbouring pixels share noise, so fewer count.",
    )  # fmt: skip


def _links_row(
    files: GalaxyFiles, pairs: list[tuple[SpectrumObservation, NDArray[np.str_]]], mock: list[str]
) -> Comparison:
    """Of the mock's images and cubes those that the store links to each spectrum, and those that hold its place."""
    frames = [
        (item.image.wcs, item.image.shape)
        for item in files.sdss.observed
        if isinstance(item, FrameObservation)
    ]
    model, cube = files.model, files.cube
    expected = 0
    for item, _ in pairs:
        grids = [*frames, *[(model.wcs, model.shape)] * (len(model.bands) + 1), (cube.wcs, cube.shape)]
        grids.append(files.infrared_grid)
        for wcs, (ny, nx) in grids:
            x, y = wcs.all_world2pix(item.ra, item.dec, 0)
            expected += bool(-0.5 < x < nx - 0.5 and -0.5 < y < ny - 0.5)
    found = sum(int(np.isin(links, mock).sum()) for _, links in pairs)
    return Comparison(
        "store", "links from spectra to images", percent_bias(found, expected), "%", np.zeros(0), Allowed(bias=0.0),
        expected, "Frames, images of HST and the cube that show the place of a spectrum: found, against those that do.",
    )  # fmt: skip
