"""Small files in the forms of published template sets, with populations known by construction."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
from astropy.io import fits

from skyloom.io.templates.wheels import Wheel

N_WAVE = 300
# What a median of 1 or a mass means does not matter here: each template has its own level, so order can be told.
LEVEL = 10.0


def level(age: float, metallicity: float) -> float:
    """The constant flux of the template of this age and metallicity."""
    return LEVEL + age + 100.0 * metallicity


def write_mastar(folder: Path, ages: tuple[str, ...], metals: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for age in ages:
        for metal in metals:
            flux = np.full(N_WAVE, level(float(age), float(metal)))
            hdu = fits.PrimaryHDU(flux)
            hdu.header["CTYPE1"] = "WAVE-LOG"
            hdu.header["CRPIX1"], hdu.header["CRVAL1"] = 1, 3.6
            hdu.header["CDELT1"] = hdu.header["CD1_1"] = 1e-4
            power = fits.ImageHDU(np.linspace(1400.0, 2200.0, N_WAVE), name="SRES")
            fits.HDUList([hdu, power]).writeto(folder / f"MaStar-SSP-A{age}-Z{metal}.fits.gz")


def write_bc03(folder: Path, ages: tuple[str, ...], metals: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for age in ages:
        for metal in metals:
            hdu = fits.PrimaryHDU(np.full(N_WAVE, level(float(age), float(metal))))
            hdu.header["CRPIX1"], hdu.header["CRVAL1"] = 1, 3326.0
            hdu.header["CDELT1"] = hdu.header["CD1_1"] = 1.0
            hdu.header["FWHM"] = 2.3
            hdu.writeto(folder / f"BC03_z{metal}_a{age}.fits")


def make_wheel(folder: Path, content: Path, package: str = "mock-templates") -> Wheel:
    """Put a folder of spectra into a wheel ``folder/NAME.whl``; only a name, metadata and a record besides."""
    name = package.replace("-", "_")
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(content.rglob("*")):
            if file.is_file():
                archive.write(file, f"pack/data/{file.relative_to(content)}")
        archive.writestr("pack/data/README", "not a spectrum")
        archive.writestr("pack/__init__.py", "raise RuntimeError('never imported')")
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(package, "1.0", path.name, digest, path.stat().st_size)


def make_index(folder: Path, wheel: Wheel, source: Path) -> str:
    """Lay out a simple index that holds the wheel; return its address."""
    page = folder / "simple" / wheel.package
    page.mkdir(parents=True)
    (page / wheel.file).write_bytes((source / wheel.file).read_bytes())
    (page / "index.html").write_text(
        f'<!DOCTYPE html><html><body><a href="{wheel.file}#sha256={wheel.sha256}">{wheel.file}</a></body></html>'
    )
    return (folder / "simple").as_uri()
