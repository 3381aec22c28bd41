"""Time, memory and accuracy of `ifs` on a MUSE field with known truth: read, bin, extract, fit stars and lines, write.

    python benchmarks/bench_ifs.py [--size 300] [--directory FOLDER] [--workers 2] [--target 10] [--templates 54]

The mock (300x300 spaxels, 3681 channels, 3.0 GB with errors) is made once and kept in the folder. The recipe then runs
from the command line, without pictures, with a warm numba cache: to the spectra of the bins, and on to continua (54
templates), the lines of the default list, and maps; a run killed at random moments and resumed must end with the same
products.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import QTable

import skyloom as sl
from measure import command_line, run_command
from skyloom.io.templates.library import write_templates
from skyloom.mock.cubes.cubes import CubeModel, cube_model
from skyloom.mock.cubes.files import default_scene, write_cube_mock
from skyloom.mock.cubes.spectrographs import muse
from skyloom.mock.scenes.templates import populations
from skyloom.spectral.signal.snr import spectra_line_snr

TARGET_SECONDS = 30.0  # to the spectra
WHOLE_SECONDS = 120.0  # with fits and maps
WHOLE_MEMORY = 1.5  # of data + variance
FULL_SIZE = 300
SEED = 1


def make_mock(folder: Path, size: int, channels: tuple[float, float] | None) -> CubeModel:
    """Write the mock unless it is there already; return how it was made, which gives the truth again."""
    start = time.perf_counter()
    finished = folder / "finished"
    if not finished.exists():
        write_cube_mock(
            folder, "muse", seed=SEED, shape=(size, size), wave_range=channels, name="field", noise_free=False
        )
        finished.touch()
    written = (folder / "cubes" / "field.fits").stat().st_size / 1e9
    print(f"mock of {written:.2f} GB ready after {time.perf_counter() - start:.0f} s")
    tool = muse().select(channels)
    shape = (size, size)
    return cube_model(default_scene(shape, tool, SEED), tool, shape, seed=SEED, a_v=0.15)


def arguments_of(config: Path, out: Path, workers: int, settings: list[str]) -> list[str]:
    """Return the command line of a run without pictures."""
    command = ["run", str(config), "--out", str(out), "--workers", str(workers)]
    for item in ("output.figures=false", "output.report=false", *settings):
        command += ["--set", item]
    return command


def run(config: Path, out: Path, workers: int, settings: list[str]) -> tuple[float, float, float, str]:
    """Run the command line; return wall and CPU seconds, peak memory (GB) and what it printed."""
    usage, said = run_command(arguments_of(config, out, workers, settings), accepted=(0, 3))
    return usage.wall, usage.cpu, usage.peak / 1024, said


def write_library(path: Path, model: CubeModel, count: int) -> None:
    """Write templates: the populations of the mock, and others between and beside them, none a sum of the rest."""
    known = populations()
    wave = model.spectrograph.wave
    axis = np.arange(0.97 * wave[0] / (1 + model.redshift), 1.03 * wave[-1] / (1 + model.redshift), 0.6)
    plain = known.library(axis, fwhm=1.6)
    rng = np.random.default_rng(SEED)
    more = max(0, count - len(known))
    shares = rng.dirichlet(np.full(len(known), 0.5), more)
    depths = (shares @ known.line_depth) * rng.uniform(0.6, 1.4, (more, known.line_depth.shape[1]))
    others = dataclasses.replace(
        known,
        age=np.exp(shares @ np.log(known.age)),
        metallicity=shares @ known.metallicity,
        continuum=np.einsum("ij,jkl->ikl", shares, known.continuum),
        line_depth=depths,
    ).library(axis, fwhm=1.6)
    whole = plain.evolve(
        flux=np.concatenate([plain.flux, others.flux])[:count],
        age=np.concatenate([plain.age, others.age])[:count],
        metallicity=np.concatenate([plain.metallicity, others.metallicity])[:count],
    )
    write_templates(whole, path, overwrite=True)


def print_stages(folder: Path) -> None:
    """Print what each stage took."""
    records = [json.loads(path.read_text()) for path in (folder / "stages").glob("*.json")]
    records = [item for item in records if "cpu_seconds" in item]
    for name in ("noise", "maps", "bins", "spectra", "table", "continuum", "lines", "fits"):
        record = next((item for item in records if item["stage"] == name), None)
        if record is None:
            continue
        size = sum(item[0] for item in record["files"].values()) / 1e6
        print(
            f"    {name:9s} CPU {record['cpu_seconds']:7.2f} s   wall {record['wall_seconds']:7.2f} s   "
            f"files {size:7.1f} MB"
        )


def print_accuracy(model: CubeModel, mock: Path, folder: Path) -> None:
    """Print how the bins compare with their claims and with the truth."""
    table = QTable.read(folder / "field_table.ecsv")
    labels = sl.read(folder / "field_bins.fits")
    spectra = sl.read(folder / "field_spectra.fits")
    with fits.open(mock / "truth" / "field_lines.fits") as hdus:
        flux, dimming = hdus["HALPHA_FLUX"].data, hdus["EXTINCTION"].data
    at = int(np.argmin(np.abs(spectra.wave - 6562.8 * (1 + model.redshift))))
    inside = labels.labels >= 0
    ratio = (table["noise_measured"] / table["spectrum_noise"]).to_value("")
    several = np.asarray(table["n_pixels"]) > 1
    over = np.asarray(table["snr"])[several] / float(labels.meta["target"])
    print(f"    {len(table)} bins of {int(inside.sum())} spaxels, {int(several.sum())} of several spaxels")
    print(f"    measured over claimed noise of the bins' spectra: median {np.nanmedian(ratio):.3f}")
    print(
        f"    S/N over target, bins of several spaxels: median {np.median(over):.3f}, rms {np.std(over):.3f}"
    )
    below = np.asarray(table["snr"]) < float(labels.meta["target"])
    print(
        f"    below target: {int(below.sum())}, of them said to be remainders: {len(labels.meta['remainder'])}"
    )
    # The truth goes through the same window: stellar absorption and the ends of the line are no errors of the recipe.
    step = slice(max(0, at - 150), at + 150)
    light = (model.truth(step)[:, inside].sum(axis=1, dtype=float) / dimming[step])[None]
    lsf = spectra.lsf if spectra.lsf is None or np.ndim(spectra.lsf) == 0 else spectra.lsf[step]
    clean = sl.Spectra(
        light, np.ones_like(light), None, spectra.unit, spectra.wave[step], spectra.medium, lsf=lsf
    )
    window = spectra_line_snr(clean, "Halpha", model.redshift)["signal"][0].to_value("erg / (s cm2)")
    emitted = flux[inside].sum() / dimming[at]
    found = table["spectrum_signal"].sum().to_value("erg / (s cm2)")
    error = np.sqrt((table["spectrum_noise"] ** 2).sum()).to_value("erg / (s cm2)")
    print(
        f"    Halpha of all bins over that of the noise-free cube in the same window: {found / window:.4f} "
        f"+- {error / window:.4f}; over all that is emitted: {found / emitted:.3f}"
    )


def print_fits(folder: Path) -> None:
    """Print what came of the fits."""
    record = json.loads((folder / "stages" / "fits.record.json").read_text())
    measured = [item for item in record["lines"] if item["measured"]]
    seen = [item for item in measured if item["seen"]]
    print(
        f"    {record['n_spectra']} spectra, {len(measured)} transitions fitted, {len(seen)} seen in some bin; median "
        f"chi2/dof of lines {record['chi2']:.3f}, of continua {record['stars']['chi2']:.3f}; "
        f"{len(record['unfitted'])} spectra not fitted"
    )


def killed_and_resumed(config: Path, out: Path, reference: Path, workers: int, settings: list[str]) -> None:
    """Do the fits again, killed at five random moments; print whether the products are the same."""
    stages = out / "field" / "stages"
    for path in (
        *stages.glob("*.npz"),
        *(stages / f"{name}.json" for name in ("continuum", "lines", "fits")),
    ):
        path.unlink(missing_ok=True)
    rng = np.random.default_rng(SEED)
    for _ in range(5):
        with subprocess.Popen(command_line(*arguments_of(config, out, workers, settings)), stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as process:  # fmt: skip
            target = len(list(stages.glob("*.npz"))) + int(rng.integers(1, 4))
            while process.poll() is None and len(list(stages.glob("*.npz"))) < target:
                time.sleep(0.01)
            time.sleep(float(rng.uniform(0, 0.3)))
            process.kill()
    left = len(list(stages.glob("*.npz")))
    wall, *_ = run(config, out, workers, settings)
    same = True
    for name in ("fits", "line_maps", "lines"):
        path = f"field_{name}.fits"
        with fits.open(out / "field" / path) as mine, fits.open(reference / "field" / path) as other:
            for left_hdu, right_hdu in zip(mine, other, strict=True):
                if left_hdu.data is None or left_hdu.name in ("META", "HISTORY"):
                    continue
                pairs = [(left_hdu.data, right_hdu.data)]
                if not left_hdu.is_image:
                    pairs = [(left_hdu.data[key], right_hdu.data[key]) for key in left_hdu.columns.names]
                same &= all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)
    print(
        f"killed five times ({left} chunks were done by then) and resumed in {wall:.1f} s: products "
        f"{'the same' if same else 'DIFFER'}"
    )


def copy_seconds(path: Path) -> float:
    """Seconds that reading the file takes alone."""
    start = time.perf_counter()
    with open(path, "rb", buffering=0) as stream:
        buffer = bytearray(1 << 24)
        while stream.readinto(buffer):
            pass
    return time.perf_counter() - start


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", type=int, default=100, help=f"spaxels on a side; {FULL_SIZE} is the whole field"
    )
    parser.add_argument("--channels", type=float, nargs=2, help="A; default: all 3681")
    parser.add_argument("--directory", type=Path, help="keeps the mock for the next time")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--target", type=float, default=10.0)
    parser.add_argument("--templates", type=int, default=54)
    parser.add_argument("--kill", action="store_true", help="kill a run five times and resume it, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.directory or Path(temporary)
        channels = tuple(arguments.channels) if arguments.channels else None
        mock = folder / f"mock_{arguments.size}"
        model = make_mock(mock, arguments.size, channels)
        cube, config = mock / "cubes" / "field.fits", mock / "ifs.yaml"
        settings = [f"binning.target={arguments.target}"]
        warm = write_cube_mock(
            Path(temporary) / "warm", "muse", seed=2, shape=(24, 24), wave_range=(6300, 6900)
        )
        run(warm.config, Path(temporary) / "warm_out", 1, settings)
        library = Path(temporary) / "library.fits"
        write_library(library, model, arguments.templates)
        print(
            f"load of the machine {os.getloadavg()[0]:.1f}; the file alone reads in {copy_seconds(cube):.1f} s"
        )
        out = Path(temporary) / "out"
        wall, cpu, peak, _ = run(config, out, arguments.workers, [*settings, "lines=none"])
        goal = f" (target {TARGET_SECONDS:g} s)" if arguments.size >= FULL_SIZE and not channels else ""
        print(
            f"to the spectra, {model.n_wave} x {arguments.size} x {arguments.size}, {arguments.workers} workers: "
            f"wall {wall:.1f} s{goal}, CPU {cpu:.1f} s, peak memory {peak:.2f} GB "
            f"({peak * 2**30 / cube.stat().st_size:.2f} of the file)"
        )
        print_stages(out / "field")
        print_accuracy(model, mock, out / "field")
        settings.append(f"continuum.templates={library}")
        whole = Path(temporary) / "whole"
        wall, cpu, peak, printed = run(config, whole, arguments.workers, settings)
        goal = f" (target {WHOLE_SECONDS:g} s)" if arguments.size >= FULL_SIZE and not channels else ""
        share = peak * 2**30 / (8.0 * model.n_wave * arguments.size**2)
        print(
            f"from the cube to the maps, {arguments.templates} templates: wall {wall:.1f} s{goal}, CPU {cpu:.1f} s, "
            f"peak memory {peak:.2f} GB, {share:.2f} of data + variance (target {WHOLE_MEMORY:g})"
        )
        print_stages(whole / "field")
        print_fits(whole / "field")
        wall, cpu, _, _ = run(config, whole, arguments.workers, settings)
        print(f"run again: wall {wall:.1f} s, CPU {cpu:.1f} s")
        print(printed.strip())
        if arguments.kill:
            other = Path(temporary) / "killed"
            shutil.copytree(whole, other)
            killed_and_resumed(config, other, whole, arguments.workers, settings)


if __name__ == "__main__":
    main()
