"""The mock in Halpha as files, laid out like those of surveys of nearby galaxies, with their truth beside them.

{name}_{band}_sci.fits, {name}_{band}_wht.fits    Hubble: e/s, and the inverse variance of the background
{name}_muse_{band}.fits, {name}_MAPS.fits         MUSE: images in Jy with errors, maps of emission lines
{name}_cube.fits, templates.fits                  its cube, where it is asked for, and the stars' populations
{name}_nebulae_mask.fits, {name}_nebulae_catalogue.fits, {name}_stars.ecsv
filters/{band}.dat                                throughputs, in A and vacuum
truth.ecsv                                        the true flux of every region
truth/{name}_halpha.fits                          Halpha on Hubble's pixels with Hubble's PSF
truth/{name}_muse.fits                            noise-free images and maps of MUSE, absorption, [N II]/Halpha
truth/{name}_{band}.fits                          noise-free image, cosmic rays, saturated pixels
halpha.yaml                                       a configuration of the recipe halpha that runs on these files
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.bandpass import SPEED_OF_LIGHT, Bandpass
from skyloom.io.templates.library import write_templates
from skyloom.mock.cubes.cubes import cube_model
from skyloom.mock.cubes.layouts import muse_layout
from skyloom.mock.fits_stream import FitsStream, StreamedArray
from skyloom.mock.halpha.hubble import HalphaModel, halpha_model
from skyloom.mock.halpha.muse import CGS, LINE_BRIGHTNESS, MuseImages, find_regions_of, muse_side
from skyloom.mock.halpha.observe import VISIBLE
from skyloom.mock.halpha.regions import HalphaRegions, region_catalogue, star_table
from skyloom.mock.halpha.scene import NARROW, frames_of
from skyloom.mock.scenes.templates import populations

__all__ = ["HALPHA_SCENES", "HalphaFiles", "write_halpha_mock"]

Single = NDArray[np.float32]
# Names of the maps of lines in surveys with MUSE.
MAP_NAMES = {"Halpha": "HA6562", "NII6583": "NII6583", "Hbeta": "HB4861", "OIII5007": "OIII5006"}
LINE_UNIT, CUBE_UNIT = "10**(-20)*erg/s/cm**2", "10**(-20)*erg/s/cm**2/Angstrom"
JANSKY = 1e23  # per erg s-1 cm-2 Hz-1
# Images with at most this many pixels have their noise-free twins written, unless said otherwise.
TWINS = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class HalphaFiles:
    """What `write_halpha_mock` wrote.

    Parameters
    ----------
    directory : Path
    name : str
        Of the object.
    model : HalphaModel
        How it was made; `skyloom.mock.halpha.observe.observe_halpha` with the same parameters gives the same in memory.
    science, weight, muse_bands, filters, truth : dict of str to Path
        By band; ``truth`` also has ``halpha`` and ``muse``.
    lines, labels, catalogue, stars : Path
    cube : Path or None
    regions : QTable
        As in `skyloom.mock.halpha.observe.HalphaTruth`, and in ``table``.
    table, config : Path
    """

    directory: Path
    name: str
    model: HalphaModel
    science: dict[str, Path]
    weight: dict[str, Path]
    muse_bands: dict[str, Path]
    filters: dict[str, Path]
    truth: dict[str, Path]
    lines: Path
    labels: Path
    catalogue: Path
    stars: Path
    cube: Path | None
    regions: QTable
    table: Path
    config: Path


def write_halpha_mock(
    directory: str | Path,
    *,
    seed: int = 1,
    size: int = 1600,
    name: str = "spiral",
    cube: bool = False,
    noise_free: bool | None = None,
    hst: str = ".",
    muse: str = ".",
    **options: Any,
) -> HalphaFiles:
    """Write a nearby spiral as Hubble and MUSE see it.

    Parameters
    ----------
    directory : str or path
        Made when it is missing; files of the same names are replaced.
    seed : int
        The same seed gives the same files.
    size : int
        Pixels along a side of Hubble's images; ``shape=(ny, nx)`` among the options goes before it. The galaxy fills
        the field.
    name : str
        Of the object.
    cube : bool
        Whether a cube of MUSE is written, 4750 to 9350 A, with noise of its own: 36 MB per 1000 spaxels.
    noise_free : bool, optional
        Whether Hubble's images without noise are written, by default up to 4 million pixels; the truth of Halpha is
        in any case.
    hst, muse : str
        Folders below ``directory`` of what each telescope gives.
    **options
        As for `skyloom.mock.halpha.observe.observe_halpha`.

    Notes
    -----
    Hubble's images are made and written in stripes of rows: 8000x8000 pixels take less than 2 GB.
    """
    folder = Path(directory)
    for part in (hst, muse, f"{hst}/filters", "truth"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    options.setdefault("shape", (size, size))
    model = halpha_model(seed=seed, **options)
    side = muse_side(model)
    regions = find_regions_of(model, side)
    twins = model.shape[0] * model.shape[1] <= TWINS if noise_free is None else noise_free
    writer = _Writer(folder, name, model, hst, muse)
    truth = {"halpha": writer.path("halpha", "truth"), "muse": writer.path("muse", "truth")}
    if twins:
        truth |= {band: writer.path(band, "truth") for band in model.bands}
    flux, n_pixels = writer.hst(regions, truth)
    writer.muse(side, truth["muse"])
    stars = star_table(
        model.source, model.bands, model.scale, model.muse.psf.at(6580.0), saturate=model.saturate
    )
    star_path = folder / hst / f"{name}_stars.ecsv"
    stars.write(star_path, format="ascii.ecsv", overwrite=True)
    for band in model.bands.values():
        write_filter(folder / hst / "filters" / f"{band.name}.dat", band.bandpass)
    table = regions.table(flux * CGS, n_pixels)
    table.meta = _table_meta(model, name)
    table.write(folder / "truth.ecsv", format="ascii.ecsv", overwrite=True)
    catalogue = region_catalogue(regions, side.lines["Halpha"])
    cube_path = writer.cube() if cube else None
    config = folder / "halpha.yaml"
    config.write_text(_config_text(model, name, hst, muse, cube=cube), encoding="utf-8")
    return HalphaFiles(
        folder, name, model, {band: writer.path(f"{band}_sci") for band in model.bands},
        {band: writer.path(f"{band}_wht") for band in model.bands},
        {band: writer.path(f"muse_{band}") for band in model.bands},
        {band: folder / hst / "filters" / f"{band}.dat" for band in model.bands}, truth, writer.path("MAPS"),
        writer.labels(regions), writer.catalogue(catalogue), star_path, cube_path, table, folder / "truth.ecsv", config,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the files of one object."""

    folder: Path
    name: str
    model: HalphaModel
    hst_folder: str
    muse_folder: str

    def path(self, kind: str, part: str | None = None) -> Path:
        of_muse = kind.startswith(("muse", "MAPS", "cube", "nebulae"))
        own = self.muse_folder if of_muse else self.hst_folder
        return self.folder / (own if part is None else part) / f"{self.name}_{kind}.fits"

    def hst(
        self, regions: HalphaRegions, truth: Mapping[str, Path]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Write Hubble's images stripe by stripe; return the true Halpha in the regions and their sizes in pixels."""
        model = self.model
        flux, number = np.zeros(regions.flux.size), np.zeros(regions.flux.size, dtype=np.int64)
        with ExitStack() as open_files:
            streams = self._streams(truth, open_files)
            for rows in model.stripes():
                light = model.paint_rows(rows)
                sums, pixels = regions.sum_rows(model.wcs, light[-1].astype(np.float32), rows.start)
                flux, number = flux + sums, number + pixels
                brightness = (light[-1] * (CGS / model.scale**2)).astype(np.float32)
                streams["halpha"].write(0, rows.start, brightness)
                for band, plane in zip(model.bands, light, strict=False):
                    made = model.stripe(band, rows, plane)
                    weight = np.where(made.dead, 0, 1 / made.background_variance)
                    streams[f"{band}_sci"].write(0, rows.start, made.data)
                    streams[f"{band}_wht"].write(0, rows.start, weight)
                    if band in truth:
                        visible = made.rays > VISIBLE * np.sqrt(made.variance)
                        for index, twin in enumerate((made.truth, visible, made.saturated)):
                            streams[band].write(index, rows.start, twin)
        return flux, number

    def _streams(self, truth: Mapping[str, Path], open_files: ExitStack) -> dict[str, FitsStream]:
        """Open all files of Hubble's side."""
        shape, plain = self.model.shape, celestial_cards(self.model.wcs)
        layout: dict[str, tuple[Path, list[StreamedArray]]] = {}
        for band in self.model.bands:
            for kind in ("sci", "wht"):
                header = _hst_header(self.model, band, self.name, kind)
                layout[f"{band}_{kind}"] = (
                    self.path(f"{band}_{kind}"),
                    [StreamedArray("", "f4", shape, header)],
                )
            if band in truth:
                kinds = (("TRUTH", "f4"), ("COSMIC", "u1"), ("SATURATED", "u1"))
                layout[band] = (truth[band], [StreamedArray(key, kind, shape, plain) for key, kind in kinds])
        header = plain.copy()
        header["BUNIT"] = LINE_BRIGHTNESS.to_string("fits")
        layout["halpha"] = (truth["halpha"], [StreamedArray("", "f4", shape, header)])
        return {
            key: open_files.enter_context(FitsStream(path, fits.Header(), arrays))
            for key, (path, arrays) in layout.items()
        }

    def muse(self, side: MuseImages, truth: Path) -> None:
        """Write the images, maps and truth of MUSE."""
        model = self.model
        primary = fits.Header(
            [
                ("TELESCOP", "ESO-VLT-U4"),
                ("INSTRUME", "MUSE"),
                ("OBJECT", self.name),
                ("EXPTIME", model.muse.exposure),
            ]
        )
        for band, image in side.bands.items():
            header = primary.copy()
            header["FILTER"] = band
            curve = model.bands[band].bandpass
            to_jansky = model.muse.pixel_scale**2 / CGS * JANSKY * curve.pivot**2 / SPEED_OF_LIGHT
            planes = {"DATA": image.data * to_jansky, "STAT": image.variance * to_jansky**2}
            units = {"DATA": "Jy", "STAT": "Jy2"}
            _write_images(self.path(f"muse_{band}"), header, planes, units, model.muse_wcs)
        maps, area = {}, model.muse.pixel_scale**2
        for key, image in side.lines.items():
            maps[f"{MAP_NAMES[key]}_FLUX"] = image.data * area
            maps[f"{MAP_NAMES[key]}_FLUX_ERR"] = np.sqrt(image.variance) * area
        _write_images(self.path("MAPS"), primary, maps, dict.fromkeys(maps, LINE_UNIT), model.muse_wcs)
        true: dict[str, NDArray[Any]] = {
            f"{band.upper()}_BAND": plane for band, plane in side.true_bands.items()
        }
        true |= {key.upper(): plane for key, plane in side.true_lines.items()}
        images = (*side.bands.values(), *side.lines.values())
        units = {key: image.unit.to_string("fits") for key, image in zip(true, images, strict=True)}
        true["ABSORPTION"] = side.absorption
        true["NII_RATIO"] = side.true_lines["NII6583"] / side.true_lines["Halpha"]
        _write_images(truth, fits.Header(), true, units | {"ABSORPTION": "Angstrom"}, model.muse_wcs)

    def labels(self, regions: HalphaRegions) -> Path:
        """Write the labels of the regions."""
        path, header = self.path("nebulae_mask"), celestial_cards(self.model.muse_wcs)
        fits.PrimaryHDU(regions.labels.labels, header).writeto(path, overwrite=True)
        return path

    def catalogue(self, catalogue: QTable) -> Path:
        """Write the catalogue of the regions."""
        path = self.path("nebulae_catalogue")
        columns = [fits.Column("gal_name", "20A", array=np.full(len(catalogue), self.name))]
        for key in catalogue.colnames:
            values = catalogue[key]
            if key == "region_ID":
                columns.append(fits.Column(key, "J", array=np.asarray(values)))
            else:
                unit = LINE_UNIT if key.startswith("HA6562") else "deg"
                columns.append(fits.Column(key, "D", unit=unit, array=values.value))
        table = fits.BinTableHDU.from_columns(columns, name="NEBULAE")
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)
        return path

    def cube(self) -> Path:
        """Write a cube of MUSE on the grid of its images, and the populations that its stars are made of."""
        model = self.model
        turn = np.degrees(np.arctan2(model.muse_wcs.wcs.cd[0, 1], model.muse_wcs.wcs.cd[1, 1]))
        made = cube_model(
            model.source.scene, model.muse, model.muse_shape, seed=model.seed, angle=float(turn), noise=model.noise,
            redshift=model.source.redshift,
        )  # fmt: skip
        path, layout = self.path("cube"), muse_layout(made, self.name, 0.0)
        with FitsStream(path, layout.primary, layout.arrays, layout.last) as stream:
            for slab in made.slabs():
                for number, planes in enumerate(layout.encode(slab, slab.variance)):
                    stream.write(number, slab.channels.start, planes)
        wave = np.arange(4600.0, 9450.0, 0.6)
        write_templates(populations().library(wave, fwhm=1.6), self.folder / "templates.fits", overwrite=True)
        return path


def celestial_cards(wcs: WCS) -> fits.Header:
    """Return a celestial WCS as a CD matrix, as pipelines write it."""
    header = fits.Header()
    for axis in (1, 2):
        header[f"CTYPE{axis}"] = wcs.wcs.ctype[axis - 1]
        header[f"CUNIT{axis}"] = "deg"
        header[f"CRVAL{axis}"] = wcs.wcs.crval[axis - 1]
        header[f"CRPIX{axis}"] = wcs.wcs.crpix[axis - 1]
        for column in (1, 2):
            header[f"CD{axis}_{column}"] = wcs.wcs.cd[axis - 1, column - 1]
    header["RADESYS"] = "ICRS"
    return header


def _hst_header(model: HalphaModel, name: str, target: str, kind: str) -> fits.Header:
    """Return the keywords of a drizzled image of ACS."""
    band, frames = model.bands[name], frames_of(name)
    wheels = ("CLEAR1L", name.upper()) if name == "f814w" else (name.upper(), "CLEAR2L")
    header = fits.Header()
    cards: dict[str, Any] = {
        "TELESCOP": ("HST", "imitated"), "INSTRUME": "ACS", "DETECTOR": "WFC", "APERTURE": "WFC",
        "TARGNAME": target.upper(), "FILTER1": wheels[0], "FILTER2": wheels[1], "IMAGETYP": "EXT",
        "OBSTYPE": "IMAGING", "OBSMODE": "ACCUM", "CCDGAIN": 1, "EXPTIME": band.exposure, "TEXPTIME": band.exposure,
        "EXPSTART": 53408.40262, "DATE-OBS": "2005-02-07", "TIME-OBS": "09:39:46", "NDRIZIM": frames,
        "D001KERN": "square", "D001PIXF": 1.0, "D001WTSC": 1, "D001DEXP": band.exposure / frames, "D001OUUN": "cps",
        "D001SCAL": (model.scale, "pixel size (arcsec) of output image"), "D001ISCL": 0.05,
        "FILETYPE": kind.upper(), "BUNIT": "ELECTRONS/S", "PHOTMODE": f"ACS WFC1 {name.upper()} MJD#53408.4026",
        "PHOTFLAM": (band.photflam, "inverse sensitivity, ergs/cm2/Ang/electron"), "PHOTZPT": -21.1,
        "PHOTPLAM": (band.bandpass.pivot, "Pivot wavelength (Angstroms)"),
        "PHOTBW": (band.bandpass.rms_width, "RMS bandwidth of filter plus detector"),
    }  # fmt: skip
    if kind == "wht":
        cards["BUNIT"] = "UNITLESS"
    header.update(cards)
    header.extend(celestial_cards(model.wcs).cards)
    cd = model.wcs.wcs.cd
    header["ORIENTAT"] = (float(np.degrees(np.arctan2(cd[0, 1], cd[1, 1]))), "position angle of image y axis")
    header["VAFACTOR"] = 1.0
    return header


def _write_images(
    path: Path, primary: fits.Header, planes: Mapping[str, NDArray[Any]], units: Mapping[str, str], wcs: WCS
) -> None:
    hdus: list[fits.PrimaryHDU | fits.ImageHDU] = [fits.PrimaryHDU(header=primary)]
    for key, plane in planes.items():
        header = celestial_cards(wcs)
        if key in units:
            header["BUNIT"] = units[key]
        hdus.append(fits.ImageHDU(np.asarray(plane, dtype=np.float32), header, key))
    fits.HDUList(hdus).writeto(path, overwrite=True)


def write_filter(path: Path, band: Bandpass) -> None:
    """Write a throughput as two columns, as the SVO Filter Profile Service does."""
    rows = zip(band.wave, band.throughput, strict=True)
    path.write_text("".join(f"{wave:.10g} {value:.10g}\n" for wave, value in rows), encoding="utf-8")


def _table_meta(model: HalphaModel, name: str) -> dict[str, Any]:
    return {
        "object": name,
        "seed": model.seed,
        "redshift": model.source.redshift,
        "sky": {band: float(level) for band, level in model.sky.items()},
        "hst_psf_fwhm": float(model.bands[NARROW].psf.fwhm),
        "muse_psf_fwhm": float(model.muse.psf.at(6580.0).fwhm),
    }


def _config_text(model: HalphaModel, name: str, hst: str, muse: str, *, cube: bool) -> str:
    """Return a configuration of the recipe halpha for these files."""
    narrow, *broad = model.bands
    at_hst, at_muse = ("" if place == "." else f"{place}/" for place in (hst, muse))
    maps = f'"{at_muse}{{object}}_MAPS.fits"'
    lines = [
        "# A mock of Hubble and MUSE with known truth: truth.ecsv and truth/.",
        "recipe: halpha",
        "objects:",
        f"  {name}: {{redshift: {model.source.redshift:g}, distance_mpc: 9.84}}",
        "images:",
        f'  pattern: "{at_hst}{{object}}_{{band}}_sci.fits"',
        f'  weight: "{at_hst}{{object}}_{{band}}_wht.fits"',
        "  weight_kind: inverse_variance",
        f"  psf_fwhm: {model.bands[narrow].psf.fwhm:g}",
        f"narrow: {{band: {narrow}, filter: {at_hst}filters/{narrow}.dat}}",
        "continua:",
        *(f"  {band}: {{filter: {at_hst}filters/{band}.dat}}" for band in broad),
        "muse:",
        f'  bands: "{at_muse}{{object}}_muse_{{band}}.fits"',
        *([f'  # cube: "{at_muse}{{object}}_cube.fits"                  # instead of bands'] if cube else []),
        f"  lines: {{file: {maps}, Halpha: HA6562_FLUX, NII6583: NII6583_FLUX, Hbeta: HB4861_FLUX,",
        "          OIII5007: OIII5006_FLUX}",
        *(["  # lines: fit                                 # to the cube, less its stars"] if cube else []),
        *(["  # continuum: {templates: templates.fits}"] if cube else []),
        "  psf: fit",
        "  model: moffat",
        "stars:",
        f'  catalogue: "{at_hst}{{object}}_stars.ecsv"',
        "nebulae:",
        f'  labels: "{at_muse}{{object}}_nebulae_mask.fits"',
        f'  catalogue: "{at_muse}{{object}}_nebulae_catalogue.fits"',
    ]
    return "\n".join(lines) + "\n"


HALPHA_SCENES: dict[str, tuple[str, Callable[[Path, int], HalphaFiles]]] = {
    "halpha-like": (
        "a spiral in Halpha and two broad bands like Hubble's, 320 pixels wide, and in a small MUSE cube",
        lambda directory, seed: write_halpha_mock(directory, seed=seed, size=320, cube=True),
    ),
    "halpha-field": (
        "the same 1600 pixels wide with a thousand nebulae, MUSE as images and maps",
        lambda directory, seed: write_halpha_mock(directory, seed=seed),
    ),
}
