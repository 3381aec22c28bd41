"""The dust of the Milky Way in what MUSE saw, treated as that in the images of HST is.

Bands of HST stay as they were observed until the continuum is subtracted, where the dust is taken off all of them.
Bands of MUSE are compared with them before that, and must be as observed, too; lines of MUSE are compared with, and
written as, light without that dust.
"""

from __future__ import annotations

import warnings

from skyloom.core.extinction import extinction_curve
from skyloom.core.image import Image
from skyloom.errors import AssumptionWarning, InputError
from skyloom.recipes.halpha.inputs import Source, muse_side
from skyloom.recipes.halpha.muse import MuseSide
from skyloom.recipes.halpha.products import scaled

__all__ = ["transmission", "what_muse_saw"]

CURVE = "fitzpatrick99"
"""The curve with which `skyloom.imaging.narrow_band.continuum.subtract_continuum` corrects HST."""


def transmission(wave: float, a_v: float) -> float:
    """Return the share of light that the dust of the Milky Way lets through: 10**(-0.4 A_V A(wave)/A_V).

    Parameters
    ----------
    wave : float
        Vacuum wavelength, A.
    a_v : float
        Extinction in V, mag.
    """
    return float(10.0 ** (-0.4 * a_v * float(extinction_curve(wave, CURVE))))


def what_muse_saw(source: Source) -> MuseSide | None:
    """Read what MUSE saw: bands as they were observed, lines without the dust of the Milky Way.

    Lines are corrected at their observed wavelengths by ``a_v`` of the object, with the curve that HST is corrected
    with. With ``muse.milky_way_corrected`` lines are left alone, and bands are dimmed again at their pivots, so that
    they can be compared with those of HST. The history of each image says it.

    Raises
    ------
    InputError
        As for `skyloom.recipes.halpha.muse.read_muse_side`, and when a header says that an image was corrected before.
    """
    side = muse_side(source)
    if side is None:
        return None
    assert source.config.muse is not None
    corrected, a_v = source.config.muse.milky_way_corrected, source.settings.a_v
    if not corrected:
        for image in (*side.bands.values(), *side.lines.values()):
            _refuse_corrected(image)
    if a_v == 0:
        if corrected:
            warnings.warn(
                f"{source.name}: MUSE is corrected for the dust of the Milky Way, but HST is not: a_v is 0;"
                f" give objects.{source.name}.a_v",
                AssumptionWarning,
                stacklevel=2,
            )
        return side
    bands, lines = dict(side.bands), dict(side.lines)
    if corrected:
        for band, image in bands.items():
            wave = source.curves[band].pivot
            factor = transmission(wave, a_v)
            bands[band] = scaled(image, factor, image.unit, "redden", wave=wave, a_v=a_v, curve=CURVE)
    else:
        for line, image in lines.items():
            wave = source.observed(line)
            factor = 1.0 / transmission(wave, a_v)
            lines[line] = scaled(image, factor, image.unit, "deredden", wave=wave, a_v=a_v, curve=CURVE)
    lines = {
        line: image.evolve(meta={**image.meta, "milky_way_corrected": True}) for line, image in lines.items()
    }
    return MuseSide(bands, lines, side.psf, {**side.meta, "a_v": a_v})


def _refuse_corrected(image: Image) -> None:
    """Refuse to correct what says that it is corrected."""
    if image.meta.get("milky_way_corrected"):
        raise InputError(
            "its header says that the dust of the Milky Way was taken off",
            source=image.meta.get("path"),
            field="muse.milky_way_corrected",
            remedy="set it to true",
        )
