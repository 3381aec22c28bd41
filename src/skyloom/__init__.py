"""Skyloom weaves images and spectra of galaxies into maps with errors you can trust.

``import skyloom as sl`` is cheap: everything is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from skyloom._version import __version__
from skyloom.core.display import provide_displays

if TYPE_CHECKING:
    from skyloom import imaging, spectral, store
    from skyloom.core.cube import Cube
    from skyloom.core.image import Image
    from skyloom.core.labels import LabelMap
    from skyloom.core.psf import ChromaticPSF, GaussianPSF, MoffatPSF, SampledPSF
    from skyloom.core.spectra import Spectra
    from skyloom.io import read, write

_HOMES = {
    "Image": "skyloom.core.image",
    "Mode": "skyloom.core.image",
    "Flag": "skyloom.core.image",
    "Cube": "skyloom.core.cube",
    "Spectra": "skyloom.core.spectra",
    "LabelMap": "skyloom.core.labels",
    "GaussianPSF": "skyloom.core.psf",
    "MoffatPSF": "skyloom.core.psf",
    "SampledPSF": "skyloom.core.psf",
    "ChromaticPSF": "skyloom.core.psf",
    "read": "skyloom.io",
    "write": "skyloom.io",
}
_MODULES = ("imaging", "spectral", "store")

__all__ = [
    "ChromaticPSF",
    "Cube",
    "GaussianPSF",
    "Image",
    "LabelMap",
    "MoffatPSF",
    "SampledPSF",
    "Spectra",
    "__version__",
    "imaging",
    "read",
    "spectral",
    "store",
    "write",
]


# Drawing is imported when a notebook shows the first object.
provide_displays(lambda: importlib.import_module("skyloom.report.notebook"))  # type: ignore[arg-type]  # a module


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"skyloom.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'skyloom' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
