"""Install every known set of templates for real and measure what its spectra show: line positions, line widths.

    python benchmarks/bench_templates.py [--wheel sdss_mangadap-4.5.0-py3-none-any.whl]

It needs a package index (or the wheel), which the tests do not; the sets go into a temporary cache. Positions: deepest
points near seven stellar lines in an old population of solar metallicity, less where vacuum and air wavelengths would
have them. Widths: of the spectra between 4000 and 6700 A against M11-ELODIE (same package; FWHM 0.55 A), broadened and
shifted until it fits best, with a polynomial of degree 4.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.inputs.ssp_lines import line_offsets  # noqa: E402

from skyloom.core.linelist import convert_medium  # noqa: E402
from skyloom.io.templates.sets import MANGADAP, TEMPLATE_SETS, install_sets, load_templates  # noqa: E402
from skyloom.io.templates.ssp_spectra import read_template_spectrum  # noqa: E402
from skyloom.io.templates.wheels import fetch_wheel, unpack_members  # noqa: E402

WINDOWS = ((4000, 4400), (4400, 4800), (4800, 5300), (5300, 5800), (5800, 6300), (6300, 6700))
SHARP = 0.55
PER_SIGMA = 2.3548


def sharp_spectrum(wheel: Path, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Wavelengths in air and flux of 5 Gyr, solar, from M11-ELODIE."""
    files = unpack_members(wheel, "mangadap/data/spectral_templates/m11_elodie", folder)
    path = next(
        path for path in sorted(files) if "age_5.0" in path.name and path.name.endswith("z_0.02.fits")
    )
    spectrum = read_template_spectrum(path)
    return spectrum.wave, spectrum.flux


def width_and_shift(
    sharp: tuple[np.ndarray, np.ndarray], wave: np.ndarray, flux: np.ndarray, window: tuple
) -> tuple:
    """FWHM (A) and shift (A) at which the sharp spectrum fits best."""
    inside = (wave > window[0]) & (wave < window[1])
    wave, flux = wave[inside], flux[inside] / np.median(flux[inside])
    fine = np.arange(window[0] - 40, window[1] + 40, 0.2)
    source = np.interp(fine, *sharp)
    powers = np.vander((wave - wave.mean()) / (window[1] - window[0]), 5)
    best = (np.inf, 0.0, 0.0)
    for extra in np.arange(1.0, 6.0, 0.1):
        broad = gaussian_filter1d(source, extra / PER_SIGMA / 0.2)
        for shift in np.arange(-1.0, 1.05, 0.1):
            model = powers * np.interp(wave, fine + shift, broad)[:, np.newaxis]
            rest = flux - model @ np.linalg.lstsq(model, flux, rcond=None)[0]
            best = min(best, (float(rest @ rest), float(np.hypot(extra, SHARP)), float(shift)))
    return best[1:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path)
    given = parser.parse_args().wheel
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SKYLOOM_CACHE"] = name
        start = time.perf_counter()
        wheel = given or fetch_wheel(MANGADAP, folder)
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.0f} MB in {time.perf_counter() - start:.1f} s")
        start = time.process_time()
        paths = install_sets(list(TEMPLATE_SETS), wheel=wheel)
        print(f"{len(paths)} sets converted in {time.process_time() - start:.1f} s CPU")
        (folder / "sharp").mkdir()
        sharp = sharp_spectrum(wheel, folder / "sharp")
        for set_name in paths:
            start = time.process_time()
            library = load_templates(set_name)
            spent = time.process_time() - start
            solar = np.flatnonzero(np.abs(library.metallicity) < 0.01)
            old = solar[np.argmax(library.age[solar])]
            offsets = line_offsets(library, int(old))
            print(
                f"\n{set_name}: {len(library)} templates, {library.medium}, read in {1e3 * spent:.0f} ms CPU"
            )
            print("  line      less vacuum   less air (A)")
            for line, (vacuum, air) in offsets.items():
                print(f"  {line:8}{vacuum:12.2f}{air:12.2f}")
            like = solar[np.argmin(np.abs(np.log(library.age[solar] / 5.0)))]
            air_wave = convert_medium(library.wave, library.medium, "air")
            print("  window      FWHM stated  FWHM found  shift (A)")
            for window in WINDOWS:
                found, shift = width_and_shift(sharp, air_wave, library.flux[like], window)
                stated = np.interp(np.mean(window), library.wave, library.fwhm)
                print(f"  {window[0]}-{window[1]}{stated:14.2f}{found:12.2f}{shift:10.1f}")


if __name__ == "__main__":
    main()
