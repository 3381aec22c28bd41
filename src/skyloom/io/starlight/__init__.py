"""Files of STARLIGHT v04: spectra, grids, masks and base lists out, results in.

The formats follow the manual of the code (Cid Fernandes et al. 2005, 10.1111/j.1365-2966.2005.08752.x); STARLIGHT
itself is not part of Skyloom.
"""

from __future__ import annotations

from skyloom.io.starlight.continuum import read_starlight_continuum, starlight_continuum
from skyloom.io.starlight.grids import (
    GridFit,
    StarlightGrid,
    read_config,
    read_grid,
    write_grid,
)
from skyloom.io.starlight.inputs import (
    BaseEntry,
    MaskWindow,
    StarlightSpectrum,
    read_base,
    read_masks,
    read_spectrum,
    write_base,
    write_masks,
    write_spectrum,
)
from skyloom.io.starlight.outputs import StarlightOutput, read_output, read_outputs
from skyloom.io.starlight.sets import (
    StarlightSet,
    bin_names,
    emission_masks,
    spaxel_names,
    write_starlight_set,
)

__all__ = [
    "BaseEntry",
    "GridFit",
    "MaskWindow",
    "StarlightGrid",
    "StarlightOutput",
    "StarlightSet",
    "StarlightSpectrum",
    "bin_names",
    "emission_masks",
    "read_base",
    "read_config",
    "read_grid",
    "read_masks",
    "read_output",
    "read_outputs",
    "read_spectrum",
    "read_starlight_continuum",
    "spaxel_names",
    "starlight_continuum",
    "write_base",
    "write_grid",
    "write_masks",
    "write_spectrum",
    "write_starlight_set",
]
