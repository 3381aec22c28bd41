"""A cube made ready for measurements: rest frame and dereddening in one pass through memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from skyloom.core.cube import Cube
from skyloom.core.provenance import step
from skyloom.spectral.axes.extinction import dereddening_factor
from skyloom.spectral.axes.rest_frame import rest_frame_changes
from skyloom.spectral.axes.scaling import scale_subject

__all__ = ["prepare_cube"]


def prepare_cube(
    cube: Cube,
    *,
    redshift: float | None = None,
    av: float | None = None,
    ebv: float | None = None,
    r_v: float = 3.1,
    curve: str = "fitzpatrick99",
    if_corrected: str = "refuse",
    storage: str = "new",
) -> Cube:
    """Bring a cube to the rest frame and take out the Milky Way's extinction, in one pass.

    Parameters
    ----------
    cube : Cube
    redshift : float, optional
        As for `skyloom.spectral.axes.rest_frame.to_rest_frame`; None: the cube stays in its frame.
    av, ebv : float, optional
        As for `skyloom.spectral.axes.extinction.deredden`; at most one of them; neither: the extinction stays.
    r_v, curve, if_corrected
        As for `skyloom.spectral.axes.extinction.deredden`.
    storage : {"new", "reuse"}
        "new": the result has its own data and variance. "reuse": they are written over those of ``cube``, which must
        not be used any more; memory then holds one cube instead of two.

    Returns
    -------
    Cube
        Data times ``f = (1 + z) 10^(0.4 A)``, variance times f^2 (float32 stays float32); wavelengths, LSF and a
        chromatic PSF as in the rest frame. The mask and the correlations are those of the input. The extinction is
        that at the observed wavelengths, as if it had been taken out first.

    Raises
    ------
    InputError
        As the two steps; also when ``storage="reuse"`` and the arrays cannot be written over.
    """
    factor = np.ones(cube.wave.size)
    changes: dict[str, Any] = {"meta": dict(cube.meta)}
    figures: dict[str, Any] = {"redshift": None, "av": None}
    if av is not None or ebv is not None:
        factor, dust = dereddening_factor(
            cube, av=av, ebv=ebv, r_v=r_v, curve=curve, if_corrected=if_corrected
        )
        figures.update(dust)
    if redshift is not None:
        stretch, changes = rest_frame_changes(cube, redshift)
        factor = factor * stretch
        figures["redshift"] = float(redshift)
        figures["redshift_applied"] = changes["meta"]["redshift_applied"]
    if figures["av"] is not None:
        changes["meta"]["milky_way_corrected"] = True
    return scale_subject(cube, factor, step("prepare_cube", **figures), storage=storage, **changes)
