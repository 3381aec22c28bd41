"""What the report of an ``ifs`` run says of the fits of continua and lines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from skyloom.recipes.ifs.config import CheckSettings
from skyloom.report.model import Check, DataTable

__all__ = ["FIT_FILES", "fit_checks", "fit_tables", "fit_text"]

FIT_FILES: Mapping[str, str] = {
    "_line_maps.fits": "maps of the fitted lines, of what follows from them and of the stars, with errors and flags",
    "_betis.fits": "the same maps of lines in the layout of BETIS",
    "_lines.fits": "the same as a FITS table",
    "_lines.ecsv": "fitted lines, one row per bin, as text",
    "_derived.fits": "dust, ionisation, diffuse gas and density of the bins, with errors and flags",
    "_derived.ecsv": "the same as text",
    "_fits.fits": "spectra of the bins with continuum, lines and polynomials",
    "_stars.fits": "kinematics, attenuation and mean populations of the stars in the bins",
    "_stars.ecsv": "the same as text",
    "_populations.fits": "shares of the templates in light and mass",
    "_populations.ecsv": "the same as text",
    "_templates.fits": "age and metallicity of the templates",
    "_templates.ecsv": "the same as text",
    "_nebular.fits": "the cube without the light of stars",
}
Record = dict[str, Any]


def fit_checks(name: str, record: Record, settings: CheckSettings) -> Iterator[Check]:
    """Hold the fits of an object against the bounds of the configuration."""
    if record["fits"] is None:
        return
    if not math.isnan(record["line_chi2"]):
        low, high = settings.line_chi2
        yield Check(
            "chi2 of lines",
            name,
            record["line_chi2"],
            minimum=low,
            maximum=high,
            meaning="median over spectra of chi2 per degree of freedom, in the windows of the lines",
        )
    yield Check(
        "unfitted spectra",
        name,
        record["unfitted"],
        maximum=settings.unfitted,
        meaning="share of spectra in which no line at all could be fitted",
    )


def fit_text(fits: Record) -> str:
    """Say in words how the fits went."""
    seen = [item for item in fits["lines"] if item["seen"]]
    measured = [item for item in fits["lines"] if item["measured"]]
    parts = [
        f"{len(measured)} lines were fitted to {fits['n_spectra']} spectra; {len(seen)} of them are seen (S/N of at"
        " least 3) in some bin."
    ]
    if fits["chi2"] is not None:
        parts.append(f"Median chi2 per degree of freedom {fits['chi2']:.2f}.")
    stars = fits["stars"]
    if stars is None:
        parts.append("No stellar continuum was fitted: stellar absorption is not corrected for.")
    else:
        chi2 = "" if stars["chi2"] is None else f", median chi2 per degree of freedom {stars['chi2']:.2f}"
        parts.append(
            f"Continuum: {stars['backend']}, {stars['n_templates']} templates ({stars['templates']}), "
            f"{stars['usable']} spectra{chi2}."
        )
    if fits["unfitted"]:
        parts.append(f"{len(fits['unfitted'])} spectra could not be fitted.")
    if fits["unfitted_remainder"]:
        parts.append(
            f"{fits['unfitted_remainder']} bins below the target have no usable channel at any line."
        )
    return " ".join(parts)


def fit_tables(fits: Record | None) -> tuple[DataTable, ...]:
    """List the lines: in how many bins they are seen, and how they are in the middle."""
    rows = [] if fits is None else [item for item in fits["lines"] if item["measured"]]
    if not rows:
        return ()
    columns = ("line", "measured", "seen", "snr", "flux", "velocity", "sigma")
    cells = tuple(tuple(math.nan if item[key] is None else item[key] for key in columns) for item in rows)
    titles = ("line", "bins", "seen in", "median S/N", "sum of fluxes", "median velocity", "median sigma")
    units = {"sum of fluxes": rows[0]["unit"], "median velocity": "km / s", "median sigma": "km / s"}
    caption = "Velocity and dispersion are those of bins where the line is seen (S/N of at least 3)."
    return (DataTable("Lines", titles, cells, units, caption),)
