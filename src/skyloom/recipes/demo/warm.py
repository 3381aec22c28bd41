"""What a new installation waits for longest, begun at once: the fit of lines, compiled while the mock is made.

Numba compiles a kernel when it is first called, and keeps it for every later process. The fit of lines is the largest;
compiled beside everything else, the first demonstration is shorter by more than a minute.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["compile_line_fit", "compiling"]


@contextmanager
def compiling() -> Iterator[None]:
    """Compile the fit of lines in a process of its own as long as the context is open."""
    process = multiprocessing.get_context("spawn").Process(target=compile_line_fit, daemon=True)
    process.start()
    try:
        yield
    finally:
        # What is not finished by now has been compiled by those who needed it.
        process.terminate()
        process.join()


def compile_line_fit() -> None:
    """Fit a line to two short spectra."""
    import astropy.units as u
    import numpy as np

    from skyloom.core.spectra import Spectra
    from skyloom.spectral.lines.linefit import fit_lines

    wave = np.arange(6500.0, 6640.0, 1.25)
    line = 100.0 * np.exp(-0.5 * ((wave - 6562.8) / 2.0) ** 2)
    spectra = Spectra(
        np.array([line, 2.0 * line]),
        np.ones((2, wave.size)),
        np.zeros((2, wave.size), bool),
        u.Unit("1e-20 erg / (s cm2 AA)"),
        wave,
        "air",
        lsf=1.1,
        correlation=np.array([0.1, 1.0, 0.1]),
    )
    fit_lines(spectra, ["Halpha"], threads=1)
