"""Mock observations as files, laid out like the archive of Hubble deep fields, with their truth beside them.

stamps/{id}_60mas_f606w_sci.fits   counts per second     stamps/{id}_60mas_f606w_wht.fits   inverse variance
psf_stars/{star}_60mas_f606w_sci.fits, _wht.fits          sky/sky_{id}_606.txt               level per pixel
segment_maps/udf_mosaic_{id}_HST_SEGMAP.fits              labels as floats, in another orientation
truth/{id}_60mas_f606w_truth.fits, truth/{id}_segmentation.fits, truth.ecsv
homogenize.yaml                                           a configuration that runs on these files
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.ndimage import shift

from skyloom.core.labels import LabelMap
from skyloom.errors import InputError
from skyloom.mock.cubes.files import CUBE_SCENES, CubeMock
from skyloom.mock.galaxy_files import GALAXY_SCENES, GalaxyFiles
from skyloom.mock.halpha.files import HALPHA_SCENES, HalphaFiles
from skyloom.mock.hubble.bands import UDF_BANDS, Band, udf_band
from skyloom.mock.hubble.observe import Observation, Sky, band_noise, observe
from skyloom.mock.hubble.stamp_files import write_labels, write_plane
from skyloom.mock.scenes.field import FIELD_CENTRE, Target, field_star, field_target
from skyloom.mock.scenes.images import segmentation, sky_wcs
from skyloom.mock.sdss.files import SDSS_SCENES, SdssFiles

__all__ = ["SCENES", "MockField", "MockObject", "MockStamp", "write_hst_mock", "write_scene"]

Float = NDArray[np.float64]
# Bands that the archive also has on pixels of half the size.
FINE_BANDS = ("f606w", "f775w", "f814w", "f850lp")
DETECTION_BAND = "f775w"
ALL_BANDS = tuple(known.name for known in UDF_BANDS)


@dataclass(frozen=True, slots=True, eq=False)
class MockStamp:
    """One stamp and what is known about it.

    Parameters
    ----------
    name, band : str
        Object (or star), and band like ``f606w``.
    scale : float
        Side of a pixel, arcsec.
    science, weight : Path
    truth : Path or None
        Planes TRUTH, OBJECT, SKY, VARIANCE, CORRELATION, COSMIC, DEAD; stars have none.
    observation : Observation
        The same in memory.
    flux, object_flux : float
        Of the scene on the stamp, and of the object alone on the whole sky, e/s.
    weight_scale : float
        Claimed over true variance of the background.
    """

    name: str
    band: str
    scale: float
    science: Path
    weight: Path
    truth: Path | None
    observation: Observation
    flux: float
    object_flux: float
    weight_scale: float


@dataclass(frozen=True, slots=True, eq=False)
class MockObject:
    """An object, its segmentation map in the files' orientation, and its stamps."""

    name: str
    target: Target
    segmentation: Path
    labels: LabelMap
    stamps: tuple[MockStamp, ...]


@dataclass(frozen=True, slots=True, eq=False)
class MockField:
    """What `write_hst_mock` wrote.

    Parameters
    ----------
    directory : Path
    seed : int
    bands : tuple of Band
    objects : tuple of MockObject
    stars : tuple of MockStamp
        Of all stars in all bands.
    outlier_star : str
        The star that a PSF must not be measured from.
    table, config : Path
        The truth of all stamps, and a configuration of the recipe homogenize.
    """

    directory: Path
    seed: int
    bands: tuple[Band, ...]
    objects: tuple[MockObject, ...]
    stars: tuple[MockStamp, ...]
    outlier_star: str
    table: Path
    config: Path

    def stamp(self, name: str, band: str, scale: float = 0.06) -> MockStamp:
        """Return the stamp of an object in a band."""
        for stamp in (stamp for item in self.objects for stamp in item.stamps):
            if (stamp.name, stamp.band) == (name, band) and abs(stamp.scale - scale) < 1e-6:
                return stamp
        raise InputError(f"there is no stamp of object {name!r} in {band!r} at {scale} arcsec", field="stamp")


def write_hst_mock(
    directory: str | Path,
    *,
    seed: int,
    n_objects: int = 3,
    bands: Sequence[str] = ALL_BANDS,
    shape: tuple[int, int] = (100, 100),
    n_stars: int = 5,
    fine: bool = True,
    weight_scale: float | Mapping[str, float] | None = None,
    noise_gradient: float = 0.2,
    n_cosmic_rays: int = 0,
    n_dead: int = 3,
    angle: float = 0.0,
) -> MockField:
    """Write a mock deep field.

    Parameters
    ----------
    directory : str or path
        Made when it is missing; files of the same names are replaced.
    seed : int
        The same seed gives the same files.
    n_objects, n_stars : int
    bands : sequence of str
        Of `UDF_BANDS`.
    shape : (int, int)
        Of the stamps on pixels of 0.06 arcsec.
    fine : bool
        Whether the four ACS bands that the archive has at 0.03 arcsec are written at that scale too.
    weight_scale : float or mapping of band to float, optional
        Variance that the weight maps claim, in units of the background's true one; by default that of each band,
        which imitates the archive's.
    noise_gradient : float
        Relative change of the background's variance across a stamp.
    n_cosmic_rays, n_dead : int
        Per stamp.
    angle : float
        Position angle of the stamps' y axis, degrees; the archive's are north up.
    """
    folder = Path(directory)
    for name in ("stamps", "psf_stars", "segment_maps", "sky", "truth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    chosen = tuple(udf_band(name) for name in bands)
    claimed = {band.name: _claimed(band, weight_scale) for band in chosen}
    writer = _Writer(folder, seed, claimed, noise_gradient, n_cosmic_rays, n_dead, angle)
    size = 0.06 * max(shape)
    targets = [field_target(number, seed, size=size) for number in range(1, n_objects + 1)]
    objects = tuple(writer.object(target, chosen, shape, fine=fine) for target in targets)
    stars = tuple(
        writer.stamp(
            field_star(number, seed), band, (66, 66) if scale > 0.05 else (134, 134), scale, star=True
        )
        for number in range(1, n_stars + 1)
        for band in chosen
        for scale in _scales(band, fine)
    )
    table = folder / "truth.ecsv"
    _truth_table(objects, chosen, seed).write(table, format="ascii.ecsv", overwrite=True)
    config = folder / "homogenize.yaml"
    config.write_text(_config_text(objects, chosen, n_stars), encoding="utf-8")
    return MockField(folder, seed, chosen, objects, stars, "1", table, config)


def _claimed(band: Band, weight_scale: float | Mapping[str, float] | None) -> float:
    if isinstance(weight_scale, Mapping):
        return float(weight_scale.get(band.name, 1.0))
    return band.weight_scale if weight_scale is None else float(weight_scale)


def _scales(band: Band, fine: bool) -> tuple[float, ...]:
    return (0.06, 0.03) if fine and band.name in FINE_BANDS else (0.06,)


@dataclass(frozen=True, slots=True)
class _Writer:
    """What all files of one field have in common."""

    folder: Path
    seed: int
    claimed: Mapping[str, float]
    noise_gradient: float
    n_cosmic_rays: int
    n_dead: int
    angle: float

    def object(
        self, target: Target, bands: Sequence[Band], shape: tuple[int, int], *, fine: bool
    ) -> MockObject:
        """Write the stamps, sky levels and segmentation map of one object."""
        stamps = []
        for band in bands:
            for scale in _scales(band, fine):
                factor = round(0.06 / scale)
                stamps.append(self.stamp(target, band, (shape[0] * factor, shape[1] * factor), scale))
            digits = "".join(character for character in band.name if character.isdigit())
            sky = self.folder / "sky" / f"sky_{target.name}_{digits}.txt"
            sky.write_text(f"{band.sky:.18e}\n", encoding="utf-8")
        path, labels = self._segmentation(target, shape)
        return MockObject(target.name, target, path, labels, tuple(stamps))

    def stamp(
        self, target: Target, band: Band, shape: tuple[int, int], scale: float, *, star: bool = False
    ) -> MockStamp:
        """Observe a target in a band, and write the science, weight and truth files."""
        number = int(target.name) + (100_000 if star else 0)
        generator = np.random.default_rng([self.seed, number, _band_index(band), round(1000 * scale)])
        wcs = sky_wcs(target.scene.centre, shape, scale, angle=self.angle, reference=FIELD_CENTRE)
        area = (scale / 0.06) ** 2
        sky = Sky(band.sky * area)
        noise = band_noise(band, scale, gradient=0.0 if star else self.noise_gradient)
        observation = observe(
            target.scene, band, wcs, shape, noise=noise, sky=sky, seed=generator,
            labels=target.members,
            n_cosmic_rays=0 if star else self.n_cosmic_rays, n_dead=0 if star else self.n_dead,
        )  # fmt: skip
        stem = f"{target.name}_{round(1000 * scale)}mas_{band.name}"
        place = self.folder / ("psf_stars" if star else "stamps")
        science, weight = place / f"{stem}_sci.fits", place / f"{stem}_wht.fits"
        claimed = observation.background_variance * self.claimed[band.name]
        data = observation.image.data
        write_plane(science, data, band, wcs, "SCI")
        write_plane(weight, np.where(observation.dead, 0.0, 1.0 / claimed), band, wcs, "WHT")
        truth = None
        if not star:
            truth = self.folder / "truth" / f"{stem}_truth.fits"
            _write_truth(truth, band, observation, wcs)
        own = target.scene.select(target.members).band_fluxes(band.bandpass).sum() / band.photflam
        return MockStamp(
            target.name, band.name, scale, science, weight, truth, observation,
            float(observation.truth.data.sum()), float(own), self.claimed[band.name],
        )  # fmt: skip

    def _segmentation(self, target: Target, shape: tuple[int, int]) -> tuple[Path, LabelMap]:
        """Write the labels on smaller, turned pixels, as floats whose edges an interpolation has mixed."""
        # The map covers the middle of the stamp only, as the archive's do.
        side = round(0.835 * max(shape) * 2) // 2 * 2 + 1
        wcs = sky_wcs(
            target.scene.centre, (side, side), 0.03, angle=42.0 + self.angle, reference=FIELD_CENTRE
        )
        band = udf_band(DETECTION_BAND)
        threshold = 2.0 * band.noise * band.photflam / 0.06**2
        labels = segmentation(target.scene, band.bandpass, wcs, (side, side), band.psf, threshold=threshold)
        write_labels(self.folder / "truth" / f"{target.name}_segmentation.fits", labels.labels, wcs)
        ids = np.maximum(labels.labels, 0).astype(np.float64)
        mixed = shift(ids, (0.31, -0.27), order=1, mode="nearest").astype(np.float32)
        path = self.folder / "segment_maps" / f"udf_mosaic_{target.name}_HST_SEGMAP.fits"
        write_labels(path, mixed, wcs)
        return path, labels


def _band_index(band: Band) -> int:
    return ALL_BANDS.index(band.name)


def _write_truth(path: Path, band: Band, observation: Observation, wcs: WCS) -> None:
    planes: dict[str, NDArray[Any]] = {
        "TRUTH": observation.truth.data,
        "OBJECT": observation.target,
        "SKY": observation.sky,
        "VARIANCE": observation.image.variance,
        "COSMIC": observation.cosmic_rays,
        "DEAD": observation.dead.astype(np.uint8),
    }
    header = wcs.to_header()
    hdus = [fits.PrimaryHDU()]
    hdus += [fits.ImageHDU(plane, header, name) for name, plane in planes.items()]
    if observation.image.correlation is not None:
        hdus.append(fits.ImageHDU(observation.image.correlation, name="CORRELATION"))
    for key, value in band.psf.describe().items():
        hdus[0].header[f"HIERARCH PSF {key}"] = value
    hdus[0].header["PHOTFLAM"] = band.photflam
    fits.HDUList(hdus).writeto(path, overwrite=True)


def _truth_table(objects: Sequence[MockObject], bands: Sequence[Band], seed: int) -> Table:
    """One row per stamp: fluxes, sky, noise and PSF."""
    by_name = {band.name: band for band in bands}
    rows = []
    for item in objects:
        for stamp in item.stamps:
            band = by_name[stamp.band]
            psf = band.psf.describe()
            rows.append(
                {
                    "object": item.name,
                    "band": stamp.band,
                    "scale": stamp.scale,
                    "redshift": item.target.redshift,
                    "label": item.target.label,
                    "members": " ".join(str(label) for label in item.target.members),
                    "object_flux": stamp.object_flux,
                    "stamp_flux": stamp.flux,
                    "sky": float(stamp.observation.sky.mean()),
                    "noise": float(np.sqrt(np.median(stamp.observation.background_variance))),
                    "weight_scale": stamp.weight_scale,
                    "photflam": band.photflam,
                    "psf_fwhm": psf["fwhm"],
                    "psf_beta": psf["beta"],
                }
            )
    table = Table(rows)
    units = {"scale": "arcsec", "psf_fwhm": "arcsec", "photflam": "erg / (s cm2 AA)"}
    units |= dict.fromkeys(("object_flux", "stamp_flux", "sky", "noise"), "electron / s")
    for name, unit in units.items():
        table[name].unit = unit
    table.meta["seed"] = seed
    return table


def _config_text(objects: Sequence[MockObject], bands: Sequence[Band], n_stars: int) -> str:
    """Return a configuration of the recipe homogenize for these files."""
    lines = ["# Mock observations with known truth: truth.ecsv and truth/.", "recipe: homogenize", "objects:"]
    for item in objects:
        labels = (
            f" {{labels: [{', '.join(map(str, item.target.members))}]}}"
            if len(item.target.members) > 1
            else ""
        )
        lines.append(f"  {item.name}:{labels}")
    lines += ["bands:", *(f"  {band.name}:" for band in bands)]
    lines += [
        "fields:",
        "  scale: 60mas",
        "images:",
        "  pattern: stamps/{object}_{scale}_{band}_sci.fits",
        "  weight: stamps/{object}_{scale}_{band}_wht.fits",
        "  weight_kind: inverse_variance",
        "psf:",
    ]
    if n_stars > 0:
        names = ", ".join(str(number) for number in range(1, n_stars + 1))
        lines += [
            "  stars:",
            "    pattern: psf_stars/{star}_{scale}_{band}_sci.fits",
            "    weight: psf_stars/{star}_{scale}_{band}_wht.fits",
            f"    names: [{names}]",
        ]
    else:
        lines += [f"  fwhm: {max(band.psf.fwhm for band in bands):.3f}"]
    lines += [
        "target:",
        f"  psf: {bands[-1].name}",
        f"  grid: {bands[-1].name}",
        "segmentation:",
        "  pattern: segment_maps/udf_mosaic_{object}_HST_SEGMAP.fits",
    ]
    return "\n".join(lines) + "\n"


def _small(directory: Path, seed: int) -> MockField:
    return write_hst_mock(
        directory, seed=seed, n_objects=1, bands=("f606w", "f814w", "f160w"), shape=(64, 64), fine=False
    )


Written = MockField | CubeMock | HalphaFiles | SdssFiles | GalaxyFiles
SCENES: dict[str, tuple[str, Callable[[Path, int], Written]]] = {
    "udf-like": (
        "three galaxies, one of them a merger, in nine bands like the Hubble Ultra Deep Field",
        lambda directory, seed: write_hst_mock(directory, seed=seed),
    ),
    "spiral": (
        "one large spiral galaxy in nine bands",
        lambda directory, seed: write_hst_mock(directory, seed=seed, n_objects=1, shape=(160, 160)),
    ),
    "small": ("one galaxy in three bands on small stamps", _small),
    **CUBE_SCENES,
    **HALPHA_SCENES,
    **SDSS_SCENES,
    **GALAXY_SCENES,
}


def write_scene(name: str, directory: str | Path, seed: int = 1) -> Written:
    """Write the files of a named scene; the names and what they hold are in `SCENES`.

    Raises
    ------
    InputError
        When the name is unknown.
    """
    if name not in SCENES:
        known = ", ".join(f"{key} ({text})" for key, (text, _) in SCENES.items())
        raise InputError(f"{name!r} is no mock scene", field="scene", remedy=f"choose one of: {known}")
    return SCENES[name][1](Path(directory), seed)
