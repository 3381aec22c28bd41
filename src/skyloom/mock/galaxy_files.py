"""One galaxy as files of Hubble, MUSE and SDSS, as an observer would have them, with the truth beside them.

hst/galaxy_{band}_sci.fits, _wht.fits                  f658n, f555w, f814w, f435w (0.04 arcsec), f160w (0.06 arcsec)
hst/stars/star{n}_{band}_sci.fits, _wht.fits           stars that the PSFs are measured from
hst/galaxy_segmentation.fits, hst/galaxy_stars.ecsv, hst/filters/{band}.dat
muse/galaxy_cube.fits, muse/templates.fits             a cube around Halpha, and the stars' populations
muse/galaxy_muse_{band}.fits, muse/galaxy_MAPS.fits    images in Hubble's bands, maps of emission lines
muse/galaxy_nebulae_mask.fits, _catalogue.fits         nebulae
sdss/frames/, sdss/spectra/                            frames in five bands, fibre spectra of sources in them
truth/                                                 the same without noise, and tables: regions, lines, sources
homogenize.yaml, ifs.yaml, halpha.yaml, store.yaml     configurations that run on these files
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import QTable
from astropy.wcs import WCS

from skyloom.mock.cubes.cubes import CubeModel
from skyloom.mock.cubes.files import CubeMock, write_cube_mock
from skyloom.mock.galaxy import GALAXY, SIZES, GalaxyScene, GalaxySize, galaxy_bands, galaxy_scene
from skyloom.mock.halpha.files import HalphaFiles, write_filter, write_halpha_mock
from skyloom.mock.halpha.hubble import HalphaModel
from skyloom.mock.hubble.bands import Band
from skyloom.mock.hubble.observe import Sky, band_noise, observe
from skyloom.mock.hubble.stamp_files import write_labels, write_plane
from skyloom.mock.scenes.images import segmentation, sky_wcs
from skyloom.mock.scenes.scene import Scene
from skyloom.mock.sdss.files import SdssFiles, write_sdss_mock
from skyloom.mock.sdss.frames import EPOCHS

__all__ = ["BROAD_BANDS", "GALAXY_SCENES", "NAME", "GalaxyFiles", "write_galaxy_mock"]

NAME = "galaxy"
BROAD_BANDS = ("f435w", "f555w", "f814w", "f160w")
"""That are homogenized, from blue to red."""
# Sides of pixels and of cut-outs of stars, arcsec; how the infrared camera was turned, degrees.
FINE, COARSE, CUT_OUT, COARSE_ANGLE = 0.04, 0.06, 4.0, -4.0
EXTRA_NOISE = 41


@dataclass(frozen=True, slots=True, eq=False)
class GalaxyFiles:
    """What `write_galaxy_mock` wrote.

    Parameters
    ----------
    directory : Path
    size : GalaxySize
    scene : GalaxyScene
    model : HalphaModel
        Of Hubble's narrow and broad bands and of the images and maps of MUSE.
    cube : CubeModel
    sdss : SdssFiles
        Its ``observed`` frames and spectra are the same in memory.
    regions : QTable
        True Halpha fluxes of the nebulae, as `skyloom.mock.halpha.files.HalphaFiles.regions`.
    configs : dict of str to Path
        By recipe, in the order in which they are run.
    """

    directory: Path
    size: GalaxySize
    scene: GalaxyScene
    model: HalphaModel
    cube: CubeModel
    sdss: SdssFiles
    regions: QTable
    configs: dict[str, Path]

    @property
    def bands(self) -> dict[str, Band]:
        """All of Hubble's bands by name."""
        return {**self.model.bands, **{band.name: band for band in galaxy_bands()}}

    @property
    def infrared_grid(self) -> tuple[WCS, tuple[int, int]]:
        """WCS and (ny, nx) of the images in f160w."""
        return _infrared_grid(self.model)

    @property
    def table(self) -> Path:
        """The folder of the truth."""
        return self.directory / "truth"

    @property
    def config(self) -> Path:
        """The first of the configurations."""
        return next(iter(self.configs.values()))


def write_galaxy_mock(
    directory: str | Path, *, seed: int = 1, size: str | GalaxySize = "full"
) -> GalaxyFiles:
    """Observe one galaxy with Hubble, MUSE and SDSS.

    Parameters
    ----------
    directory : str or path
        Made when it is missing; files of the same names are replaced.
    seed : int
        The same seed gives the same files.
    size : {"full", "small"} or GalaxySize
    """
    folder = Path(directory)
    chosen = SIZES[size] if isinstance(size, str) else size
    scene = galaxy_scene(chosen, seed=seed)
    pixels = round(chosen.field / FINE)
    halpha = write_halpha_mock(
        folder, seed=seed, size=pixels, name=NAME, hst="hst", muse="muse", fwhm=0.08, saturate=False,
        source=scene.near,
    )  # fmt: skip
    model = halpha.model
    _write_more_bands(folder / "hst", scene, model, seed)
    cube = write_cube_mock(
        folder / "muse", "muse", seed=seed, shape=(chosen.cube, chosen.cube), wave_range=chosen.wave_range,
        scene=scene.near.scene, name=NAME, a_v=0.0, noise_free=True,
    )  # fmt: skip
    sdss = write_sdss_mock(
        folder / "sdss", seed=seed, shape=chosen.frame, epochs=EPOCHS[: chosen.n_epochs], n_spectra=chosen.n_spectra,
        field=scene.field,
    )  # fmt: skip
    _gather_truth(folder, halpha, cube, sdss)
    configs = _write_configs(folder, scene, cube)
    return GalaxyFiles(folder, chosen, scene, model, cube.model, sdss, halpha.regions, configs)


def _write_more_bands(folder: Path, scene: GalaxyScene, model: HalphaModel, seed: int) -> None:
    """Write the bands that the mock in Halpha has not, the stars, and the segmentation map."""
    centre, side = scene.near.scene.centre, model.scale * model.shape[0]
    blue, infrared = galaxy_bands()
    for band in (blue, infrared):
        write_filter(folder / "filters" / f"{band.name}.dat", band.bandpass)
    _observe(folder / f"{NAME}_{blue.name}", scene.near.scene, blue, model.wcs, model.shape, [seed, 0])
    turned, pixels = _infrared_grid(model)
    _observe(folder / f"{NAME}_{infrared.name}", scene.near.scene, infrared, turned, pixels, [seed, 1])
    (folder / "stars").mkdir(exist_ok=True)
    broad = [blue, *(band for name, band in model.bands.items() if name in BROAD_BANDS), infrared]
    for number, source in enumerate(scene.psf_stars, start=1):
        alone = scene.field.scene.select([source.label])
        for index, band in enumerate(broad):
            scale = COARSE if band is infrared else FINE
            angle = COARSE_ANGLE if band is infrared else 25.0
            pixels = (round(CUT_OUT / scale),) * 2
            wcs = sky_wcs((source.ra, source.dec), pixels, scale, angle=angle, reference=centre)
            _observe(
                folder / "stars" / f"star{number}_{band.name}",
                alone,
                band,
                wcs,
                pixels,
                [seed, 2 + number, index],
            )
    red = model.bands["f814w"]
    wcs = sky_wcs(centre, (round(side / 0.05),) * 2, 0.05)
    labels = segmentation(
        scene.near.scene, red.bandpass, wcs, (round(side / 0.05),) * 2, red.psf,
        threshold=1.5 * red.noise * red.photflam / FINE**2,
    )  # fmt: skip
    write_labels(folder / f"{NAME}_segmentation.fits", np.maximum(labels.labels, 0), wcs)


def _infrared_grid(model: HalphaModel) -> tuple[WCS, tuple[int, int]]:
    """As wide as the other images, on larger pixels that are turned otherwise."""
    pixels = (round(model.scale * model.shape[0] / COARSE),) * 2
    return sky_wcs(model.source.scene.centre, pixels, COARSE, angle=COARSE_ANGLE), pixels


def _observe(stem: Path, scene: Scene, band: Band, wcs: WCS, shape: tuple[int, int], seed: list[int]) -> None:
    """Observe a scene in a band, and write the image and its weights."""
    scale = float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))) * 3600.0
    seen = observe(
        scene, band, wcs, shape, noise=band_noise(band, scale), sky=Sky(band.sky * (scale / 0.06) ** 2),
        seed=np.random.default_rng([EXTRA_NOISE, *seed]),
    )  # fmt: skip
    known = {
        "EXPTIME": band.exposure, "PHOTFLAM": band.photflam, "PHOTPLAM": band.bandpass.pivot,
        "DATE-OBS": "2005-02-07", "TIME-OBS": "11:02:15", "EXPSTART": 53408.45990, "TARGNAME": NAME.upper(),
    }  # fmt: skip
    write_plane(stem.with_name(f"{stem.name}_sci.fits"), seen.image.data, band, wcs, "SCI", known=known)
    weight = np.where(seen.dead, 0.0, 1.0 / seen.background_variance)
    write_plane(stem.with_name(f"{stem.name}_wht.fits"), weight, band, wcs, "WHT", known=known)


def _gather_truth(folder: Path, halpha: HalphaFiles, cube: CubeMock, sdss: SdssFiles) -> None:
    """Bring what is known into one folder, and leave in the others what an observer has."""
    truth = folder / "truth"
    assert cube.noise_free is not None  # it was asked for
    for old, new in (
        (halpha.table, "regions.ecsv"), (cube.table, "lines.ecsv"), (cube.lines, f"{NAME}_cube_lines.fits"),
        (cube.noise_free, f"{NAME}_cube_noise_free.fits"), (sdss.table, "sources.ecsv"),
    ):  # fmt: skip
        old.replace(truth / new)
    cube.cube.replace(folder / "muse" / f"{NAME}_cube.fits")
    frames = truth / "sdss"
    shutil.rmtree(frames, ignore_errors=True)
    (folder / "sdss" / "truth").replace(frames)
    for empty in (cube.cube.parent, folder / "muse" / "truth"):
        empty.rmdir()
    for config in (cube.config, sdss.config):
        config.unlink()


def _write_configs(folder: Path, scene: GalaxyScene, cube: CubeMock) -> dict[str, Path]:
    """Write a configuration for each recipe; that of halpha is there."""
    names = [f"star{number}" for number in range(1, len(scene.psf_stars) + 1)]
    texts = {
        "homogenize": _homogenize_text(names),
        "ifs": _ifs_text(cube.model.redshift),
        "store": STORE_TEXT,
    }
    for recipe, text in texts.items():
        (folder / f"{recipe}.yaml").write_text(text, encoding="utf-8")
    return {recipe: folder / f"{recipe}.yaml" for recipe in ("homogenize", "ifs", "halpha", "store")}


def _homogenize_text(names: Sequence[str]) -> str:
    bands = "\n".join(f"  {band}:" for band in BROAD_BANDS)
    return f"""\
# One galaxy in four bands of Hubble: to the PSF and the pixels of the reddest.
recipe: homogenize
objects:
  {NAME}: {{labels: [{GALAXY}]}}
bands:
{bands}
images:
  pattern: hst/{{object}}_{{band}}_sci.fits
  weight: hst/{{object}}_{{band}}_wht.fits
  weight_kind: inverse_variance
psf:
  stars:
    pattern: hst/stars/{{star}}_{{band}}_sci.fits
    weight: hst/stars/{{star}}_{{band}}_wht.fits
    names: [{", ".join(names)}]
target:
  psf: {BROAD_BANDS[-1]}
  grid: {BROAD_BANDS[-1]}
segmentation:
  pattern: hst/{{object}}_segmentation.fits
noise:
  source_poisson: true
"""


def _ifs_text(redshift: float) -> str:
    return f"""\
# The same galaxy in a cube of MUSE: bins of S/N 40 in Halpha, stars, emission lines.
recipe: ifs
objects:
  {NAME}: {{redshift: {redshift:g}, av: 0}}
cube:
  pattern: muse/{{object}}_cube.fits
snr:
  line: Halpha
binning:
  target: 40
continuum:
  templates: muse/templates.fits
  # A disc seen nearly face-on: where its stars are too faint to tell, noise must not make them faster than this.
  velocity_range: 150
  sigma_start: 40
  sigma_range: [0, 120]
"""


STORE_TEXT = """\
# Frames and spectra of SDSS, the images of Hubble and the cube of MUSE in one store.
recipe: store
files:
  - sdss/frames/*/*/frame-*.fits
  - sdss/spectra/*/spec-*.fits
  - hst/galaxy_f*_sci.fits
  - muse/galaxy_cube.fits
layout:
  levels: 4
output:
  directory: store
"""


GALAXY_SCENES: dict[str, tuple[str, Callable[[Path, int], GalaxyFiles]]] = {
    "galaxy": (
        "one spiral as Hubble, MUSE and SDSS see it, with a configuration for each of the four recipes",
        lambda directory, seed: write_galaxy_mock(directory, seed=seed),
    ),
}
