"""The grid file that STARLIGHT is started with, and the settings of its configuration."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skyloom.errors import FileFormatError, InputError, RepairWarning
from skyloom.io.starlight.text import fortran_number, is_number, read_text, tagged, write_text

__all__ = ["GridFit", "StarlightGrid", "read_config", "read_grid", "write_grid"]

# In the order in which STARLIGHT reads them: by line, the tags are for people.
_HEADER_TAGS = (
    "Number of fits to run",
    "base_dir",
    "obs_dir",
    "mask_dir",
    "out_dir",
    "your phone number",
    "llow_SN",
    "lupp_SN",
    "Olsyn_ini",
    "Olsyn_fin",
    "Odlsyn",
    "fscale_chi2",
    "FIT/FXK",
    "IsErrSpecAvailable",
    "IsFlagSpecAvailable",
)
KINEMATICS = ("FIT", "FXK")


class GridFit(NamedTuple):
    """One fit: the names of its files, the reddening law, and the first (or fixed) velocity and dispersion in km/s."""

    spectrum: str
    config: str
    base: str
    masks: str
    reddening_law: str = "CCM"
    velocity: float = 0.0
    dispersion: float = 150.0
    output: str = ""


@dataclass(frozen=True, slots=True)
class StarlightGrid:
    """What STARLIGHT is to do.

    Parameters
    ----------
    fits : tuple of GridFit
    base_dir, obs_dir, mask_dir, out_dir : str
        Folders of the base spectra, the spectra, the mask files and the outputs, ending in ``/``.
    signal_to_noise_window : (float, float)
        Rest wavelengths in A between which STARLIGHT measures the S/N.
    fit_range : (float, float)
        Rest wavelengths in A.
    step : float
        Sampling of the fit in A.
    chi2_scale : float
        ``fscale_chi2``.
    kinematics : {"FIT", "FXK"}
        Whether velocity and dispersion are fitted or fixed.
    has_error, has_flag : bool
        Whether the spectrum files have these columns.
    seed : int
        Of the random numbers (``your phone number``); negative.
    """

    fits: tuple[GridFit, ...]
    signal_to_noise_window: tuple[float, float]
    fit_range: tuple[float, float]
    base_dir: str = "./"
    obs_dir: str = "./"
    mask_dir: str = "./"
    out_dir: str = "./"
    step: float = 1.0
    chi2_scale: float = 1.0
    kinematics: str = "FIT"
    has_error: bool = True
    has_flag: bool = True
    seed: int = -2007200

    def __post_init__(self) -> None:
        if self.kinematics not in KINEMATICS:
            raise InputError(
                f"kinematics is {self.kinematics!r}", field="kinematics", remedy="use 'FIT' or 'FXK'"
            )
        for name, (low, high) in (
            ("signal_to_noise_window", self.signal_to_noise_window),
            ("fit_range", self.fit_range),
        ):
            if not low < high:
                raise InputError(f"{name} is {low:g}-{high:g} A; expected low < high", field=name)
        if not 0 < self.step < np.inf:
            raise InputError(f"step is {self.step:g} A; expected > 0", field="step")


def read_grid(path: str | Path) -> StarlightGrid:
    """Read a grid file: 15 lines of settings, then one line per fit; text behind the last fit is left out.

    Warns
    -----
    RepairWarning
        When there are fewer fits than the first line says.

    Raises
    ------
    FileFormatError
        When a setting is missing, or a line cannot be read.
    """
    lines = read_text(path).splitlines()
    values: dict[str, str] = {}
    for number, (tag, line) in enumerate(zip(_HEADER_TAGS, lines, strict=False), start=1):
        # STARLIGHT itself goes by the line; a tag, where there is one, must agree.
        name, value = tagged(line) or (tag, line.strip())
        if name != tag:
            raise FileFormatError(f"line {number} is {line.strip()!r}; expected [{tag}]", source=path)
        values[tag] = value
    if len(values) < len(_HEADER_TAGS):
        raise FileFormatError(f"the setting [{_HEADER_TAGS[len(values)]}] is missing", source=path)

    def number_of(tag: str) -> float:
        value = fortran_number(values[tag])
        if not np.isfinite(value):
            raise FileFormatError(f"{values[tag]!r} is no number", source=path, field=tag)
        return value

    rows = [line for line in lines[len(_HEADER_TAGS) :] if line.strip()]
    promised = int(number_of("Number of fits to run"))
    if len(rows) < promised:
        warnings.warn(
            f"{path}: {promised} fits are promised, {len(rows)} are there; STARLIGHT stops behind the last",
            RepairWarning,
            stacklevel=2,
        )
    try:
        return StarlightGrid(
            fits=tuple(_read_fit(row, path) for row in rows[:promised]),
            signal_to_noise_window=(number_of("llow_SN"), number_of("lupp_SN")),
            fit_range=(number_of("Olsyn_ini"), number_of("Olsyn_fin")),
            base_dir=values["base_dir"],
            obs_dir=values["obs_dir"],
            mask_dir=values["mask_dir"],
            out_dir=values["out_dir"],
            step=number_of("Odlsyn"),
            chi2_scale=number_of("fscale_chi2"),
            kinematics=values["FIT/FXK"],
            has_error=number_of("IsErrSpecAvailable") == 1,
            has_flag=number_of("IsFlagSpecAvailable") == 1,
            seed=int(number_of("your phone number")),
        )
    except InputError as error:
        raise error.located(path) from None


def _read_fit(row: str, path: str | Path) -> GridFit:
    words = row.split()
    if len(words) < 8 or not (is_number(words[5]) and is_number(words[6])):
        raise FileFormatError(
            f"the fit {row.strip()!r} cannot be read; expected: spectrum config base masks law v0 vd output",
            source=path,
        )
    names = (words[0], words[1], words[2], words[3], words[4])
    return GridFit(*names, fortran_number(words[5]), fortran_number(words[6]), words[7])


def write_grid(path: str | Path, grid: StarlightGrid, *, overwrite: bool = False) -> Path:
    """Write a grid file.

    Raises
    ------
    InputError
        When there are no fits, two fits share an output, or a name holds blanks, at which STARLIGHT splits.
    """
    if not grid.fits:
        raise InputError("there are no fits in this grid", source=path, field="fits")
    outputs = [fit.output for fit in grid.fits]
    if len(set(outputs)) < len(outputs):
        twice = next(name for name in outputs if outputs.count(name) > 1)
        raise InputError(f"two fits write {twice!r}", source=path, field="output")
    values = (
        len(grid.fits),
        grid.base_dir,
        grid.obs_dir,
        grid.mask_dir,
        grid.out_dir,
        grid.seed,
        f"{grid.signal_to_noise_window[0]:.1f}",
        f"{grid.signal_to_noise_window[1]:.1f}",
        f"{grid.fit_range[0]:.1f}",
        f"{grid.fit_range[1]:.1f}",
        f"{grid.step:g}" if grid.step % 1 else f"{grid.step:.1f}",
        f"{grid.chi2_scale:g}" if grid.chi2_scale % 1 else f"{grid.chi2_scale:.1f}",
        grid.kinematics,
        int(grid.has_error),
        int(grid.has_flag),
    )
    lines = [f"{value!s:<38} [{tag}]" for value, tag in zip(values, _HEADER_TAGS, strict=True)]
    for fit in grid.fits:
        words = [*fit[:5], f"{fit.velocity:g}", f"{fit.dispersion:g}", fit.output]
        bad = next((word for word in words if len(word.split()) != 1), None)
        if bad is not None:
            raise InputError(f"the name {bad!r} is empty or holds blanks", source=path, field="fits")
        lines.append(" ".join(words))
    return write_text(path, "\n".join(lines) + "\n", overwrite=overwrite)


def read_config(path: str | Path) -> dict[str, str]:
    """Return the settings of a configuration file by the first word of their tags.

    Raises
    ------
    FileFormatError
        When there are none.
    """
    settings: dict[str, str] = {}
    for line in read_text(path).splitlines():
        found = tagged(line)
        # Remarks behind the settings repeat tags in tables of advice, with more than one value before them.
        if found is not None and len(found[1].split()) == 1:
            settings.setdefault(found[0].split()[0], found[1])
    if not settings:
        raise FileFormatError("this is no STARLIGHT configuration: no setting has a tag", source=path)
    return settings
