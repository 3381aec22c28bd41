"""Results of STARLIGHT v04, found by their tags.

A fixed line number finds another quantity as soon as the base has another size, and a field of asterisks (a number
too wide for its field) taken as zero looks like an absorption line. Here every value is found by the tag behind it,
every table by its heading, and what is no number is NaN, masked and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.errors import FileFormatError
from skyloom.io.starlight.text import (
    cut_fields,
    field_ends,
    fortran_number,
    number_rows,
    read_text,
    tagged,
)

__all__ = ["CLIPPED", "FLAGGED", "MASKED", "StarlightOutput", "read_output", "read_outputs"]

Float = NDArray[np.float64]

# Weights that are no weights: a window of the mask file (or a flux below f_cut), sigma clipping, a flag >= 2.
MASKED, CLIPPED, FLAGGED = 0.0, -1.0, -2.0
VALUES = {
    "chi2": "chi2/Nl_eff",
    "adev": "adev (%)",
    "signal_to_noise": "S/N in S/N window",
    "signal_to_noise_norm": "S/N in norm. window",
    "velocity": "v0_min (km/s)",
    "dispersion": "vd_min (km/s)",
    "av": "AV_min (mag)",
    "yav": "YAV_min (mag)",
    "flux_norm": "fobs_norm (in input units)",
    "flux_total": "Flux_tot (units of input spectrum!)",
    "mass_initial": "Mini_tot (???)",
    "mass_current": "Mcor_tot (???)",
    "light_sum": "sum-of-x (%)",
}
_UNITS = {
    "adev": u.percent,
    "velocity": u.km / u.s,
    "dispersion": u.km / u.s,
    "av": u.mag,
    "yav": u.mag,
    "light_sum": u.percent,
}
_COLUMNS = {
    "j": ("index", None),
    "x_j(%)": ("light", u.percent),
    "Mini_j(%)": ("mass_initial", u.percent),
    "Mcor_j(%)": ("mass_current", u.percent),
    "age_j(yr)": ("age", u.yr),
    "Z_j": ("metallicity", None),
    "(L/M)_j": ("light_to_mass", None),
    "YAV?": ("extra_extinction", None),
    "Mstars": ("star_fraction", None),
    "component_j": ("component", None),
    "a/Fe...": ("alpha_to_iron", None),
    "SSP_chi2r": ("ssp_chi2", None),
    "SSP_adev(%)": ("ssp_adev", u.percent),
    "SSP_AV": ("ssp_av", u.mag),
    "SSP_x(%)": ("ssp_light", u.percent),
}


def _empty() -> Float:
    return np.zeros(0)


@dataclass(frozen=True, slots=True, eq=False)
class StarlightOutput:
    """One result of STARLIGHT, or the reason why there is none.

    Attributes
    ----------
    path : path
    status : {"ok", "aborted", "missing", "unreadable"}
        "aborted": STARLIGHT did not finish (its placeholder, or a file that ends early).
    reason : str
        Empty where the status is "ok".
    values : dict
        ``chi2`` (per point), ``adev`` (%), ``signal_to_noise`` (in its window), ``signal_to_noise_norm``,
        ``velocity`` and ``dispersion`` (km/s), ``av``, ``yav`` (mag), ``flux_norm``, ``flux_total`` (units of the
        input), ``mass_initial``, ``mass_current`` (STARLIGHT's units), ``light_sum`` (%); NaN where not known.
    tags : dict
        All that stands before a tag, as text.
    population : QTable or None
        The population vector: light, mass_initial, mass_current (%), age, metallicity, light_to_mass, component ...
    wave, observed, synthetic : (n,) float64 arrays
        A and units of the input spectrum (the file has them divided by ``flux_norm``); NaN where not known.
    weight : (n,) float64 array
        > 0 where a channel was fitted, 0 where it was masked, -1 clipped, -2 flagged in the input.
    mask : (n,) bool array
        True where the synthetic spectrum is not known.
    n_invalid : int
        How many numbers of the file are none (``***``, NaN), tables included.
    """

    path: Path
    status: str
    reason: str = ""
    values: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    population: QTable | None = None
    wave: Float = field(default_factory=_empty)
    observed: Float = field(default_factory=_empty)
    synthetic: Float = field(default_factory=_empty)
    weight: Float = field(default_factory=_empty)
    mask: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    n_invalid: int = 0

    @property
    def ok(self) -> bool:
        """Whether STARLIGHT finished; single numbers may still be missing, see ``n_invalid``."""
        return self.status == "ok"


def read_output(path: str | Path) -> StarlightOutput:
    """Read a result; never fails: what cannot be read has a status and a reason.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    StarlightOutput
    """
    place = Path(path)
    if not place.is_file():
        return StarlightOutput(place, "missing", "there is no such file")
    try:
        lines = read_text(place).splitlines()
    except (OSError, FileFormatError) as error:
        reason = error.message if isinstance(error, FileFormatError) else str(error)
        return StarlightOutput(place, "unreadable", reason)
    tags: dict[str, str] = {}
    places: dict[str, int] = {}
    for number, line in enumerate(lines):
        found = tagged(line) if "[" in line else None
        if found is not None and found[0] not in tags:
            tags[found[0]], places[found[0]] = found[1], number
    if not tags:
        shown = " ".join(" ".join(lines).split())[:60]
        said = f"STARLIGHT has written only {shown!r}" if shown else "the file is empty"
        return StarlightOutput(place, "aborted", said)
    return _complete(place, lines, tags, places)


def _complete(path: Path, lines: list[str], tags: dict[str, str], places: dict[str, int]) -> StarlightOutput:
    """Read what the sections hold; a missing one makes the result aborted, with all that is there."""
    problems = []
    missing = [tag for tag in VALUES.values() if tag not in tags]
    if missing:
        problems.append(f"no [{missing[0]}]" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
    values = {name: fortran_number(tags.get(tag, "")) for name, tag in VALUES.items()}
    bad = sum(tag in tags and not np.isfinite(values[name]) for name, tag in VALUES.items())
    population, bad_rows, complaint = _population(lines, tags)
    problems += [complaint] if complaint else []
    rows, promised = _synthetic(lines, tags, places)
    if promised is None:
        problems.append("no synthetic spectrum")
    elif len(rows) < promised:
        problems.append(f"the synthetic spectrum ends after {len(rows)} of {promised} channels")
    observed, synthetic = rows[:, 1] * values["flux_norm"], rows[:, 2] * values["flux_norm"]
    usable = np.isfinite(rows[:, 0])
    return StarlightOutput(
        path,
        "aborted" if problems else "ok",
        "; ".join(problems),
        values,
        tags,
        population,
        wave=rows[usable, 0],
        observed=observed[usable],
        synthetic=synthetic[usable],
        weight=rows[usable, 3],
        mask=~np.isfinite(synthetic[usable]),
        n_invalid=bad + bad_rows + int(np.count_nonzero(~np.isfinite(rows))),
    )


def _population(lines: list[str], tags: dict[str, str]) -> tuple[QTable | None, int, str]:
    """Return the population vector, the number of its fields that are no numbers, and what is wrong with it."""
    start = next(
        (number for number, line in enumerate(lines) if line.startswith("# j") and "x_j(%)" in line), None
    )
    if start is None:
        return None, 0, "no population vector"
    names = lines[start].lstrip("# ").split()
    rows = _population_rows(lines[start + 1 :], len(names))
    expected = tags.get("N_base", "")
    complaint = ""
    if not rows or (expected.isdigit() and len(rows) < int(expected)):
        complaint = f"the population vector has {len(rows)} of {expected or 'an unknown number of'} rows"
    if not rows:
        return None, 0, complaint
    table, bad = QTable(), 0
    for name, column in zip(names, zip(*rows, strict=True), strict=True):
        label, unit = _COLUMNS.get(name, (name, None))
        if label == "component":
            table[label] = list(column)
            continue
        numbers = np.array([fortran_number(word) for word in column])
        bad += int(np.count_nonzero(~np.isfinite(numbers)))
        if label in ("index", "extra_extinction") and np.all(np.isfinite(numbers)):
            numbers = numbers.astype(np.int64)
        table[label] = numbers if unit is None else numbers * unit
    return table, bad, complaint


def _population_rows(lines: list[str], n_columns: int) -> list[list[str]]:
    """Return the fields of the rows of a table whose first column counts 1, 2, 3 ..."""
    rows: list[list[str]] = []
    whole = ""
    for line in lines:
        words = line.split()
        if not words or words[0].partition("*")[0] != str(len(rows) + 1):
            break
        if len(words) == n_columns:
            whole = line
        elif "*" in line and whole:
            words = cut_fields(line, field_ends(whole))
        if len(words) != n_columns:
            break
        rows.append(words)
    return rows


def _synthetic(lines: list[str], tags: dict[str, str], places: dict[str, int]) -> tuple[Float, int | None]:
    """Return the rows ``l_obs f_obs f_syn wei``, and how many there should be."""
    if "Nl_obs" not in tags or not tags["Nl_obs"].isdigit():
        return np.zeros((0, 4)), None
    promised, start = int(tags["Nl_obs"]), places["Nl_obs"] + 1
    rows = [line for line in lines[start : start + promised] if line.strip()]
    # A last line that was cut off in the middle of a number looks whole: only those before it are certain.
    if rows and len(rows) < promised:
        rows.pop()
    return number_rows(rows, 4).reshape(-1, 4), promised


def read_outputs(paths: Iterable[str | Path]) -> QTable:
    """Read many results into one report, a row each, in the order given.

    Parameters
    ----------
    paths : iterable of str or path
        What should be there, for instance `StarlightSet.outputs`.

    Returns
    -------
    QTable
        ``file``, ``status``, ``reason``, the values of `StarlightOutput`, ``n_channels``, ``n_fitted``,
        ``n_clipped``, ``n_invalid``. Numbers that are not known are NaN. ``meta["n_failed"]`` counts the rows whose
        status is not "ok".
    """
    outputs = [read_output(path) for path in paths]
    report = QTable()
    report["file"] = np.array([output.path.name for output in outputs], dtype=np.str_)
    report["status"] = np.array([output.status for output in outputs], dtype=np.str_)
    report["reason"] = np.array([output.reason for output in outputs], dtype=np.str_)
    for name in VALUES:
        column = np.array([output.values.get(name, np.nan) for output in outputs], dtype=np.float64)
        report[name] = column * _UNITS[name] if name in _UNITS else column
    counts = {
        "n_channels": [output.wave.size for output in outputs],
        "n_fitted": [int(np.count_nonzero(output.weight > 0)) for output in outputs],
        "n_clipped": [int(np.count_nonzero(output.weight == CLIPPED)) for output in outputs],
        "n_invalid": [output.n_invalid for output in outputs],
    }
    for name, numbers in counts.items():
        report[name] = np.array(numbers, dtype=np.int64)
    report.meta["n_failed"] = int(np.count_nonzero(report["status"] != "ok"))
    return report
