"""``skyloom inspect --errors``: where the errors of a frame or a spectrum come from, in numbers and as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import typer

from skyloom.errors import InputError

if TYPE_CHECKING:
    from skyloom.core.spectra import Spectra

_WIDTH = 34


def show_errors(path: Path, out: Path | None) -> None:
    """Print the steps to the errors of a file and write the figure of them.

    Raises
    ------
    InputError
        When the file is neither a frame of SDSS nor a spectrum, or the figure is to have another ending than ``.png``.
    """
    from skyloom.io.formats.atomic import atomic_path
    from skyloom.io.registry import sniff_instrument

    picture = out if out is not None else Path(f"{path.name.split('.fits')[0]}-errors.png")
    if picture.suffix.lower() != ".png":
        raise InputError("the figure is a PNG", source=picture, field="--out", remedy="name it *.png")
    drawn = _frame(path) if sniff_instrument(path) == "sdss-frame" else _spectrum(path)
    with atomic_path(picture, overwrite=True) as temporary:
        temporary.write_bytes(drawn)
    typer.echo(f"  figure: {picture}")


def _line(name: str, text: str) -> None:
    typer.echo(f"  {name:{_WIDTH}}{text}")


def _frame(path: Path) -> bytes:
    from skyloom.io.inspection.claimed_scatter import image_pull
    from skyloom.io.sdss.frame import frame_errors, frame_flux_density, read_frame
    from skyloom.report.figures import frame_error_steps

    steps, image = frame_errors(path), read_frame(path)
    meta = image.meta
    pull = image_pull(image)
    density = float(np.sqrt(np.median(frame_flux_density(image).variance)))
    name = f"SDSS frame {meta['run']}-{meta['camcol']}-{meta.get('field', '?')}, {meta['band']}"
    typer.secho(f"{path}: {name}", bold=True)
    _line("gain", f"{steps.gain:g} electrons per count")
    _line("dark variance", f"{steps.dark_variance:g} counts^2")
    rows = (
        ("1 calibrated image", steps.data, "nmgy"),
        ("2 calibration", steps.calibration, "nmgy per count"),
        ("3 sky", steps.sky, "counts"),
        ("4 counts = image/calibration + sky", steps.counts, "counts"),
        ("5 electrons = gain * counts", steps.electrons, "electrons"),
        ("6 sigma of the counts", steps.sigma_counts, "counts"),
        ("7 sigma * calibration", steps.sigma, "nmgy"),
        ("8 sigma / image, where > 0", steps.error_to_signal, ""),
    )
    _line("", f"{'1 %':>12}{'median':>12}{'99 %':>12}")
    for label, values, unit in rows:
        low, middle, high = np.nanpercentile(values, (1, 50, 99))
        _line(label, f"{low:12.5g}{middle:12.5g}{high:12.5g}  {unit}")
    _line("sigma as flux density, median", f"{density:.4g}  {frame_flux_density(image).unit}")
    _line("scatter of the empty sky / sigma", f"{pull:.3f}")
    return frame_error_steps(f"{name}: from counts to errors", steps, pull=pull)


def _spectrum(path: Path) -> bytes:
    from skyloom.core.spectra import Spectra
    from skyloom.io.inspection.claimed_scatter import spectrum_scatter
    from skyloom.io.registry import read
    from skyloom.report.figures import spectrum_error_levels
    from skyloom.store.levels.spectra import spectrum_levels

    spectra = read(path)
    if not isinstance(spectra, Spectra):
        raise InputError(
            f"it holds no SDSS frame and no spectrum ({type(spectra).__name__})",
            source=path,
            remedy="'skyloom inspect' without --errors describes any file",
        )
    row = spectra if spectra.shape[0] == 1 else _first_row(spectra)
    native, common = spectrum_levels(row)
    shown = {"as observed": native.subject}
    shown |= {f"common grid, level {level}": item.subject for level, item in enumerate(common)}
    name = str(spectra.meta.get("object") or path.name.split(".fits")[0])
    typer.secho(f"{path}: spectrum {name}", bold=True)
    _line("", f"{'pixels':>8}{'good':>8}{'sigma':>12}{'S/N':>10}  per pixel, medians")
    for label, spectrum in shown.items():
        good = ~spectrum.mask[0]
        value, sigma = spectrum.data[0][good], np.sqrt(spectrum.variance[0][good])
        numbers = f"{np.median(sigma):12.4g}{np.median(value / sigma):10.2f}" if good.any() else ""
        _line(label, f"{good.size:8d}{int(good.sum()):8d}{numbers}")
    scatter = spectrum_scatter(row)
    _line("scatter / sigma, as observed", f"{scatter.pull:.3f}")
    _line("correlation of neighbours", f"{scatter.neighbour:+.2f}")
    note = f"scatter / σ = {scatter.pull:.2f}   correlation of neighbouring pixels {scatter.neighbour:+.2f}"
    return spectrum_error_levels(f"{name}: flux and errors at every resolution", shown, note=note)


def _first_row(spectra: Spectra) -> Spectra:
    from skyloom.store.levels.common_grid import rows

    return next(iter(rows(spectra)))
