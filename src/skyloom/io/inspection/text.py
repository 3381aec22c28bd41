"""What was found in a file, in words for people."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from skyloom.io.inspection.cube import cube_lines

if TYPE_CHECKING:
    from skyloom.io.inspection.inspect import HduSummary, Inspection

__all__ = ["DERIVED", "facts", "render"]

_SHOWN_COLUMNS = 6
DERIVED = {
    "sdss-frame": "derived from the sky, the calibration and the detector",
    "sdss-spec": "the column ivar",
}
"""By the name of a reader: where it has the errors from, if that is no plane of the file."""


def render(inspection: Inspection) -> str:
    """Return an inspection as plain text, a few lines per extension.

    Parameters
    ----------
    inspection : Inspection

    Returns
    -------
    str
        Lines without markup, the problems at the end.
    """
    lines = [f"{inspection.path}: {inspection.kind}, {inspection.size / 1e6:.3g} MB"]
    lines.append(f"  reader: {inspection.reader or 'none of Skyloom knows this kind'}")
    shown = {key: value for key, value in inspection.meta.items() if value not in ("", None)}
    if shown:
        lines.append("  " + ", ".join(f"{key} {_shown(value)}" for key, value in shown.items()))
    if inspection.psf:
        lines.append(f"  PSF: {inspection.psf}")
    if inspection.error is not None:
        lines.append(f"  errors: {inspection.error.describe()}")
    elif inspection.reader in DERIVED:
        command = f"skyloom inspect --errors {shlex.quote(str(inspection.path))}"
        lines.append(f"  errors: {DERIVED[inspection.reader]}; every step: {command}")
    if inspection.cube is not None:
        lines += [f"  {line}" for line in cube_lines(inspection.cube)]
    for hdu in inspection.hdus:
        lines += _hdu_lines(hdu)
    if inspection.problems:
        lines.append("  problems:")
        lines += [
            f"    {problem.severity}: {problem.where}: {problem.message}" for problem in inspection.problems
        ]
    else:
        lines.append("  no problems found")
    return "\n".join(lines)


def facts(inspection: Inspection) -> dict[str, str]:
    """Return what `render` says as facts by name, for a table.

    Parameters
    ----------
    inspection : Inspection

    Returns
    -------
    dict
        Without the problems.
    """
    found = {
        "what it is": f"{inspection.kind}, {inspection.size / 1e6:.3g} MB",
        "reader": inspection.reader or "none of Skyloom knows this kind",
    }
    found |= {key: _shown(value) for key, value in inspection.meta.items() if value not in ("", None)}
    if inspection.psf:
        found["PSF"] = inspection.psf
    if inspection.error is not None:
        found["errors"] = inspection.error.describe()
    elif inspection.reader in DERIVED:
        found["errors"] = DERIVED[inspection.reader]
    if inspection.cube is not None:
        found["cube"] = "; ".join(cube_lines(inspection.cube))
    for hdu in inspection.hdus:
        first, *more = (line.strip() for line in _hdu_lines(hdu))
        name, _, text = first.partition(": ")
        found[name] = "; ".join([text, *more])
    return found


def _shown(value: object) -> str:
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _hdu_lines(hdu: HduSummary) -> list[str]:
    size = " x ".join(str(length) for length in hdu.shape)
    line = f"  [{hdu.number}] {hdu.name}: {hdu.kind}"
    if hdu.kind == "empty":
        return [line]
    if hdu.kind == "table":
        columns = ", ".join(hdu.columns[:_SHOWN_COLUMNS]) + (
            " ..." if len(hdu.columns) > _SHOWN_COLUMNS else ""
        )
        return [f"{line}, {hdu.shape[0] if hdu.shape else 0} rows: {columns}"]
    line += f" {size} {hdu.dtype}".rstrip()
    if hdu.unit:
        line += f", {hdu.unit}"
    if hdu.values is not None:
        line += ", values {:.4g} .. {:.4g} .. {:.4g}".format(*hdu.values)
    if hdu.bad_fraction:
        line += f", {100 * hdu.bad_fraction:.3g} % NaN"
    if hdu.sampled:
        line += f" (of {hdu.sampled} channels)"
    return [line, *_place_lines(hdu)]


def _place_lines(hdu: HduSummary) -> list[str]:
    lines = []
    if hdu.wcs is not None:
        place = "" if hdu.wcs.centre is None else f"centre {hdu.wcs.centre[0]:.6f} {hdu.wcs.centre[1]:+.6f}, "
        turn = f"y axis at position angle {hdu.wcs.rotation:.2f} deg"
        sip = ", SIP distortion" if hdu.wcs.distorted else ""
        lines.append(
            f"      {'/'.join(hdu.wcs.types)}: {place}{hdu.wcs.scale:.5g} arcsec per pixel, {turn}{sip}"
        )
    if hdu.spectral is not None:
        first, last, unit, medium = hdu.spectral
        lines.append(f"      wavelength {first:.6g} .. {last:.6g} {unit}, {medium}")
    return lines
