"""Exports of a store: rows per CPU second, memory at the peak against the size of the table, validation."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from store_table import child, show

RATE = 1e6
"""Rows per CPU second."""
GROWTH = 1.1
"""Of the memory at the peak, from the small table to one ten times as large."""
SIDE = 1000
FORMS = {"vot": "VOTable", "fits": "FITS", "parquet": "Parquet", "hats": "HATS"}


def write_frames(folder: Path, number: int) -> None:
    """Write images of 1e6 pixels, one of a thousand masked, side by side on the sky."""
    from astropy.wcs import WCS

    from skyloom.core.image import Image
    from skyloom.io.fits import write

    folder.mkdir(parents=True)
    for one in range(number):
        generator = np.random.default_rng(one)
        data = generator.normal(0.0, 0.02, (SIDE, SIDE)).astype(np.float32)
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = [38.0 + 0.11 * one, -0.1]
        wcs.wcs.crpix = [SIDE / 2, SIDE / 2]
        wcs.wcs.cd = np.array([[-0.396, 0.01], [0.01, 0.396]]) / 3600
        meta = {"instrument": "SDSS", "band": "r", "row_time": [52261.2, 4.1e-6], "time_start": 52261.2}
        mask = generator.random((SIDE, SIDE)) < 1e-3
        write(
            Image(data, np.full_like(data, 4e-4), mask, "nmgy", wcs, meta=meta),
            folder / f"frame-{one:03d}.fits",
        )


def write_spectra(folder: Path, number: int) -> None:
    """Write spectra of 4000 pixels."""
    from skyloom.core.spectra import Spectra
    from skyloom.io.fits import write

    folder.mkdir(parents=True)
    wave = 10 ** (3.58 + 1e-4 * np.arange(4000))
    for one in range(number):
        data = np.random.default_rng(one).normal(3.0, 1.0, (1, wave.size)).astype(np.float32)
        meta = {"ra": 38.0 + 0.001 * one, "dec": 0.1, "fibre_diameter": 3.0}
        mask = np.zeros(data.shape, bool)
        unit = "1e-17 erg/(s cm2 AA)"
        write(
            Spectra(data, np.ones_like(data), mask, unit, wave, "vacuum", meta=meta),
            folder / f"spectrum-{one:04d}.fits",
        )


def exported(store: str, out: str, what: str, kind: str, limit: str) -> dict[str, Any]:
    """Export in this process; report rows, CPU, wall clock and memory at the peak in MB."""
    import skyloom as sl

    opened = sl.store.open(store)
    names = [str(name) for name in opened.observations(kind=kind)["obs_id"]][: int(limit)]
    if out.endswith(".vot"):
        # Kernels are compiled, or read from their cache, once per machine.
        opened.export(f"{out}.warm.vot", what, obs=names[:1], level=1)
    wall, cpu = time.perf_counter(), time.process_time()
    result = opened.export(out, what, obs=names)
    figures = {"rows": result.rows, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return figures | {"peak": peak}


def validated(path: str) -> dict[str, Any]:
    """Let astropy look for violations of the standard."""
    from astropy.io import votable

    start = time.process_time()
    report = votable.validate(path, output=None, xmllint=False)
    table = votable.parse_single_table(path)
    return {
        "clean": "found no violations" in report,
        "rows": int(table.nrows),
        "cpu": time.process_time() - start,
    }


def by_astropy(path: str, rows: str) -> dict[str, Any]:
    """Write a table of the same columns with astropy's writer of VOTable."""
    from astropy.io.votable import from_table, writeto
    from astropy.table import Table

    n = int(rows)
    numbers = np.arange(n, dtype=np.float64)
    table = Table(dict.fromkeys(("ra", "dec", "time", "wavelength"), numbers))
    table["healpix"] = np.arange(n)
    table["mean"] = table["sigma"] = numbers.astype(np.float32)
    table["obs_id"], table["unit"] = "frame-000", "nmgy"
    start = time.process_time()
    writeto(from_table(table), path, tabledata_format="binary2")
    return {"cpu": time.process_time() - start}


def show_exports(folder: Path, quick: bool) -> None:
    """Print the rows of exports."""
    import skyloom as sl

    n_large = 3 if quick else 10
    write_frames(folder / "frames", n_large)
    write_spectra(folder / "spectra", 60 if quick else 250)
    sl.store.create(folder / "sky", levels=2).ingest([folder / "frames", folder / "spectra"])
    measure = Measure(folder)
    small, large = measure("voxels", "vot", "image", 1), measure("voxels", "vot", "image", n_large)
    for name, figures in (("small", small), ("large", large)):
        show(
            f"VOTable of {figures['rows']:.3g} voxels ({name})",
            rate_text(figures),
            ">= 1e6 rows per CPU s",
            figures["rows"] / figures["cpu"] >= RATE,
        )
    told = (
        f"{small['peak']:.0f} MB at {small['rows']:.2g} rows, {large['peak']:.0f} MB at {large['rows']:.2g}"
    )
    show("  memory at the peak", told, "constant (< 1.1x)", large["peak"] < GROWTH * small["peak"])
    spectra = measure("voxels", "vot", "spectrum", 10**6)
    show(
        "VOTable of voxels of spectra",
        rate_text(spectra),
        ">= 1e6 rows per CPU s",
        spectra["rows"] / spectra["cpu"] >= RATE,
    )
    for form in ("fits", "parquet", "hats"):
        first, second = measure("voxels", form, "image", 1), measure("voxels", form, "image", n_large)
        show(f"{FORMS[form]} of voxels", rate_text(second))
        show(
            "  memory at the peak",
            f"{first['peak']:.0f} MB, {second['peak']:.0f} MB for {n_large} times the rows",
        )
    # The validator takes 40 microseconds of CPU per row, twice.
    measure("voxels", "vot", "spectrum", 60)
    checked = child(__file__, "validated", measure.path("voxels", "vot", "spectrum", 60))
    show(
        "astropy's validation",
        f"{checked['rows']} rows, {checked['cpu']:.0f} CPU s",
        "no violation",
        checked["clean"],
    )
    n = 20_000
    other = child(__file__, "by_astropy", folder / "astropy.vot", n)
    show("the same columns by astropy's writer", rate_text({"rows": n, **other}))


def rate_text(figures: dict[str, Any]) -> str:
    """Return how fast it was."""
    wall = f", {figures['wall']:.1f} s" if "wall" in figures else ""
    return f"{figures['rows'] / figures['cpu'] / 1e6:.3g}e6 rows per CPU s{wall}"


class Measure:
    """Exports of a store in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, what: str, form: str, kind: str, limit: int) -> Path:
        """Return where an export is."""
        return self.folder / f"{what}_{kind}_{limit}.{form}"

    def __call__(self, what: str, form: str, kind: str, limit: int) -> dict[str, Any]:
        """Export and return the figures."""
        out = self.path(what, form, kind, limit)
        return child(__file__, "exported", self.folder / "sky", out, what, kind, limit)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])) + "\n")
