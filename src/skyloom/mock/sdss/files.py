"""Mock frames and spectra of SDSS as files, laid out like those of the survey, with their truth beside them.

frames/{run}/{camcol}/frame-{band}-{run}-{camcol}-{field}.fits[.bz2]   image, calibration, sky, astrometry
spectra/{plate}/spec-{plate}-{mjd}-{fiber}.fits                        spectrum, object, lines
truth/frame-..._truth.fits, truth/spec-..._truth.fits                  without noise
truth.ecsv, frames.csv, spectra.csv                                    sources, and lists of the files
store.yaml                                                             a configuration that stores these files
"""

from __future__ import annotations

import bz2
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from skyloom.io.sdss.ccd import BANDS
from skyloom.mock.fits_records import hdu_bytes, number_card, table_hdu
from skyloom.mock.scenes.scene import Scene
from skyloom.mock.sdss.field import PIXEL, SdssField, sdss_field
from skyloom.mock.sdss.frames import EPOCHS, Epoch, FrameObservation, observe_frame
from skyloom.mock.sdss.records import frame_bytes, frame_name, spectrum_bytes, spectrum_name
from skyloom.mock.sdss.spectra import BOSS, SDSS, SpectrumObservation, observe_spectrum

__all__ = [
    "SDSS_SCENES",
    "SdssFiles",
    "write_frame",
    "write_quick_frames",
    "write_sdss_mock",
    "write_spectrum",
]


@dataclass(frozen=True, slots=True, eq=False)
class SdssFiles:
    """What `write_sdss_mock` wrote.

    Parameters
    ----------
    directory : Path
    field : SdssField
    frames : dict of (epoch's run, band) to Path
    spectra : tuple of Path
    observed : tuple of FrameObservation or SpectrumObservation
        The same in memory, frames first.
    table, config : Path
    """

    directory: Path
    field: SdssField
    frames: dict[tuple[int, str], Path]
    spectra: tuple[Path, ...]
    observed: tuple[FrameObservation | SpectrumObservation, ...]
    table: Path
    config: Path


def write_frame(path: str | Path, observation: FrameObservation) -> Path:
    """Write a frame; a name that ends in ``.bz2`` is compressed."""
    return _write(Path(path), frame_bytes(observation))


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bz2.compress(content) if path.suffix == ".bz2" else content)
    return path


def write_spectrum(path: str | Path, observation: SpectrumObservation) -> Path:
    """Write a spectrum; a name that ends in ``.bz2`` is compressed."""
    return _write(Path(path), spectrum_bytes(observation))


def write_sdss_mock(
    directory: str | Path,
    *,
    seed: int,
    shape: tuple[int, int] = (372, 512),
    bands: Sequence[str] = BANDS,
    epochs: Sequence[Epoch] = EPOCHS,
    n_spectra: int = 6,
    compress: bool = False,
    field: SdssField | None = None,
    truth: bool = True,
) -> SdssFiles:
    """Write frames of one field in several nights, spectra of sources in it, and the truth.

    Parameters
    ----------
    directory : str or path
        Made when it is missing; files of the same names are replaced.
    seed : int
        The same seed gives the same files.
    shape : (int, int)
        (ny, nx) of the frames.
    bands : sequence of str
    epochs : sequence of Epoch
    n_spectra : int
        Of the spiral's centre, stars and galaxies in turn, with the SDSS and the BOSS spectrograph in turn.
    compress : bool
        Whether frames are compressed (``.bz2``), as the survey distributes them.
    field : SdssField, optional
        By default `sdss_field` of the seed and the shape.
    truth : bool
        Whether noise-free twins are written.
    """
    folder = Path(directory)
    scene = sdss_field(seed, shape=shape) if field is None else field
    frames: dict[tuple[int, str], Path] = {}
    observed: list[FrameObservation | SpectrumObservation] = []
    for number, epoch in enumerate(epochs):
        for band in bands:
            frame = observe_frame(
                scene, epoch, band, shape, seed=np.random.default_rng([seed, number, ord(band)])
            )
            name = frame_name(epoch, band)
            path = (
                folder / "frames" / str(epoch.run) / str(epoch.camcol) / (name + (".bz2" if compress else ""))
            )
            frames[epoch.run, band] = write_frame(path, frame)
            observed.append(frame)
            if truth:
                _write_frame_truth(folder / "truth" / name.replace(".fits", "_truth.fits"), frame)
    spectra = []
    for number, label in enumerate(_targets(scene, n_spectra)):
        spectrum = _observe_target(scene, label, number, seed)
        name = spectrum_name(spectrum.plate, spectrum.mjd, spectrum.fiber)
        spectra.append(write_spectrum(folder / "spectra" / f"{spectrum.plate:04d}" / name, spectrum))
        observed.append(spectrum)
        if truth:
            _write_spectrum_truth(folder / "truth" / name.replace(".fits", "_truth.fits"), spectrum)
    table = folder / "truth.ecsv"
    scene.table().write(table, format="ascii.ecsv", overwrite=True)
    _write_lists(folder, epochs, bands, [item for item in observed if isinstance(item, SpectrumObservation)])
    config = folder / "store.yaml"
    config.write_text(_config_text(compress), encoding="utf-8")
    return SdssFiles(folder, scene, frames, tuple(spectra), tuple(observed), table, config)


def _targets(field: SdssField, number: int) -> list[int]:
    """Return labels: the spiral first, then the stars and the galaxies in turn."""
    kinds = [[source.label for source in field.sources if source.kind == kind] for kind in ("star", "galaxy")]
    pairs = [label for pair in zip(*kinds, strict=False) for label in pair]
    spirals = [source.label for source in field.sources if source.kind == "spiral"]
    return [*spirals, *pairs][:number]


def _observe_target(field: SdssField, label: int, number: int, seed: int) -> SpectrumObservation:
    generator = np.random.default_rng([seed, 7, number])
    if number % 2:
        return observe_spectrum(field, label, BOSS, plate=4238, mjd=55455, fiber=30 + number, seed=generator)
    return observe_spectrum(field, label, SDSS, plate=411, mjd=51817, fiber=110 + number, seed=generator)


def _write_frame_truth(path: Path, frame: FrameObservation) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    planes = {"TRUTH": frame.truth, "VARIANCE": frame.image.variance, "COUNTS": frame.counts}
    assert frame.image.wcs is not None  # mock frames have one
    header = frame.image.wcs.to_header(relax=True)
    hdus = [
        fits.PrimaryHDU(),
        *(fits.ImageHDU(plane.astype("f4"), header, name) for name, plane in planes.items()),
    ]
    fits.HDUList(hdus).writeto(path, overwrite=True)


def _write_spectrum_truth(path: Path, spectrum: SpectrumObservation) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = [("WAVE", "f8"), ("TRUTH", "f8"), ("VARIANCE", "f8"), ("LSF", "f8")]
    rows = np.zeros(spectrum.spectrograph.n_wave, dtype=kinds)
    rows["WAVE"], rows["TRUTH"], rows["VARIANCE"], rows["LSF"] = (
        spectrum.spectra.wave, spectrum.truth, spectrum.spectra.variance[0], spectrum.spectrograph.lsf,
    )  # fmt: skip
    cards = [number_card("SIMPLE", True), number_card("BITPIX", 8), number_card("NAXIS", 0)]
    cards += [number_card("EXTEND", True), number_card("LABEL", spectrum.source.label)]
    path.write_bytes(hdu_bytes(cards) + table_hdu(rows, name="TRUTH"))


def _write_lists(
    folder: Path, epochs: Sequence[Epoch], bands: Sequence[str], spectra: Sequence[SpectrumObservation]
) -> None:
    """Write lists of frames and of spectra, by which files are found in the folders of the survey."""
    lines = [f"{e.run},{e.camcol},{e.field},{e.rerun},{band}\n" for e in epochs for band in bands]
    (folder / "frames.csv").write_text("run,camcol,field,rerun,band\n" + "".join(lines), encoding="utf-8")
    lines = [f"{item.plate},{item.mjd},{item.fiber}\n" for item in spectra]
    (folder / "spectra.csv").write_text("plate,mjd,fiberid\n" + "".join(lines), encoding="utf-8")


def _config_text(compress: bool) -> str:
    suffix = ".fits.bz2" if compress else ".fits"
    return "\n".join(
        (
            "# A mock of SDSS with known truth: truth.ecsv and truth/.",
            "recipe: store",
            "files:",
            f"  - frames/*/*/frame-*{suffix}",
            "  - spectra/*/spec-*.fits",
            "# lists:                                       # instead of files",
            "#   - {table: frames.csv, folder: frames}",
            "#   - {table: spectra.csv, folder: spectra}",
            "layout:",
            "  levels: 5",
            "  compression: lossless",
            "output:",
            "  directory: store",
            "",
        )
    )


def write_quick_frames(
    directory: str | Path,
    n: int,
    *,
    shape: tuple[int, int] = (64, 64),
    seed: int,
    first: int = 1,
    stripe: bool = True,
) -> list[Path]:
    """Write many small frames without sources, fast: for tests of how a store grows.

    Parameters
    ----------
    directory : str or path
    n : int
    shape : (int, int)
    seed : int
    first : int
        Number of the first field; more frames can be added later under other names.
    stripe : bool
        Whether the fields lie in a strip along the equator; otherwise all over the sky.

    Returns
    -------
    list of Path
        Frames of one run in r, a field each.
    """
    empty = sdss_field(0, shape=shape, n_stars=1, n_galaxies=0, spiral=False)
    generator = np.random.default_rng([seed, first])
    paths = []
    for number in range(first, first + n):
        epoch = Epoch(2820, 3, number, EPOCHS[0].tai + 35.83 * (number - 122))
        if stripe:
            ra, dec = (310.0 + number * shape[0] * PIXEL / 3600.0) % 360.0, generator.uniform(-1.25, 1.25)
        else:
            ra, dec = (
                generator.uniform(0.0, 360.0),
                float(np.degrees(np.arcsin(generator.uniform(-1.0, 1.0)))),
            )
        place = SdssField(Scene("empty", (float(ra), float(dec)), empty.scene.components), ())
        frame = observe_frame(place, epoch, "r", shape, truth=np.zeros(shape), seed=generator)
        paths.append(write_frame(Path(directory) / frame_name(epoch, "r"), frame))
    return paths


SDSS_SCENES: dict[str, tuple[str, Callable[[Path, int], SdssFiles]]] = {
    "sdss-like": (
        "a field of SDSS in five bands and two nights, and spectra of six sources in it",
        lambda directory, seed: write_sdss_mock(directory, seed=seed),
    ),
}
