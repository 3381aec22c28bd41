"""Everything STARLIGHT needs for a set of spectra: their files, the lists beside them, and grids to start it with."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.linelist import LineList, Medium, default_lines
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError, ShapeError
from skyloom.io.formats.headers import unit_text
from skyloom.io.starlight.grids import GridFit, StarlightGrid, read_config, write_grid
from skyloom.io.starlight.inputs import (
    FLAG_GOOD,
    FLAG_MASKED,
    FLAG_REPAIRED,
    BaseEntry,
    MaskWindow,
    read_base,
    read_masks,
    spectrum_text,
    write_base,
    write_masks,
)
from skyloom.io.starlight.text import fortran_number

__all__ = ["StarlightSet", "bin_names", "emission_masks", "spaxel_names", "write_starlight_set"]

Float = NDArray[np.float64]

# STARLIGHT leaves a margin at both ends for the velocity filter (dl_cushion of its configuration).
CUSHION = 50.0
# How far the sampling may drift from uniform over the whole axis, in channels.
_DRIFT = 0.02


@dataclass(frozen=True, slots=True)
class StarlightSet:
    """What was written.

    Attributes
    ----------
    directory : path
    grids : tuple of path
        One per parallel run: ``StarlightChains_v04.exe < grid_01.in``.
    spectra, outputs : tuple of path
        Files of the spectra that are in a grid, and those that STARLIGHT will write.
    ids : tuple of int
        The row of each in the `Spectra`.
    left_out : dict of str to str
        Names of spectra that are in no grid, with the reason.
    """

    directory: Path
    grids: tuple[Path, ...]
    spectra: tuple[Path, ...]
    outputs: tuple[Path, ...]
    ids: tuple[int, ...]
    left_out: dict[str, str] = field(default_factory=dict)


def bin_names(name: str, ids: Iterable[int]) -> tuple[str, ...]:
    """Return the file names (without suffix) of bins: ``NGC863_00012``."""
    stem = _plain(name)
    return tuple(f"{stem}_{number:05d}" for number in ids)


def spaxel_names(name: str, x: Iterable[int], y: Iterable[int]) -> tuple[str, ...]:
    """Return the file names (without suffix) of spaxels, by their 0-based pixels: ``NGC863_23_37``."""
    stem = _plain(name)
    return tuple(f"{stem}_{column}_{row}" for column, row in zip(x, y, strict=True))


def _plain(name: str) -> str:
    """Return a name without what STARLIGHT or a file system would split it at."""
    stem = re.sub(r"[\s/\\]+", "_", name.strip())
    if not stem:
        raise InputError("the object has no name", field="name", remedy="file names begin with it")
    return stem


def emission_masks(
    lines: LineList | None = None, *, half_width: float = 12.0, medium: Medium = "air"
) -> tuple[MaskWindow, ...]:
    """Return windows of weight 0 around emission lines, merged where they touch.

    Parameters
    ----------
    lines : LineList, optional
        Rest wavelengths; by default the emission lines of Skyloom's list.
    half_width : float
        In A on either side.
    medium : {"air", "vacuum"}
    """
    chosen = [line for line in lines or default_lines() if lines is not None or line.kind == "emission"]
    windows: list[MaskWindow] = []
    for line in sorted(chosen, key=lambda line: line.rest_vacuum):
        centre = line.rest(medium)
        low, high = round(centre - half_width, 2), round(centre + half_width, 2)
        if windows and low <= windows[-1].high:
            last = windows.pop()
            windows.append(MaskWindow(last.low, high, 0.0, f"{last.comment} {line.key}"))
        else:
            windows.append(MaskWindow(low, high, 0.0, line.key))
    return tuple(windows)


def write_starlight_set(
    directory: str | Path,
    spectra: Spectra,
    names: Sequence[str],
    *,
    config: str | Path,
    base: str | Path | Sequence[BaseEntry],
    masks: str | Path | Sequence[MaskWindow] | None = None,
    flags: ArrayLike | None = None,
    base_dir: str = "./",
    reddening_law: str = "CCM",
    velocity: float | ArrayLike = 0.0,
    dispersion: float | ArrayLike = 150.0,
    kinematics: str = "FIT",
    fit_range: tuple[float, float] | None = None,
    signal_to_noise_window: tuple[float, float] = (4730.0, 4780.0),
    chi2_scale: float = 1.0,
    seed: int = -2007200,
    step: float = 1.0,
    medium: Medium = "air",
    n_grids: int = 1,
    output_suffix: str = ".out",
    overwrite: bool = False,
) -> StarlightSet:
    """Write the spectra, masks, base list and grid files of a STARLIGHT run into one folder.

    Parameters
    ----------
    directory : str or path
        Made where it is missing.
    spectra : Spectra
        At rest, sampled evenly by ``step``, in ``medium``.
    names : sequence of str
        One per spectrum, see `bin_names` and `spaxel_names`; the file is ``{name}.txt``.
    config : str or path
        STARLIGHT's configuration: a file, which is copied, or a name that will stand in the folder. The spectrum
        files begin with a line of titles only where it says ``Is1stLineHeader`` = 1.
    base : path or sequence of BaseEntry
        The master list: a file, which is copied, or its entries (written as ``base.list``).
    masks : path or sequence of MaskWindow, optional
        The same for the windows to leave out; by default `emission_masks`.
    flags : (n_wave,) or (n, n_wave) int array, optional
        Flags added to those of the spectra, e.g. 3 in ranges of sky residuals. The larger one counts. The spectra
        give 0, 1 where ``spectra.flags`` say that a channel was repaired, 2 where it is masked; 2 and more are
        ignored by STARLIGHT.
    base_dir : str
        Where the base spectra are, as STARLIGHT will see it.
    reddening_law : str
        ``CCM``, ``CAL``, ``HZ5`` ... of STARLIGHT.
    velocity, dispersion : float or (n,) arrays
        First guess, or with ``kinematics="FXK"`` the fixed values, km/s.
    fit_range : (float, float), optional
        By default the axis without a margin of 50 A at both ends.
    signal_to_noise_window : (float, float)
    n_grids : int
        Over how many grid files the fits are spread evenly, for runs side by side.
    overwrite : bool
        Whether files of an earlier set may be replaced.

    Returns
    -------
    StarlightSet
        A spectrum without a usable channel in the fit range is in no grid; it is named in ``left_out``.

    Raises
    ------
    InputError
        When the spectra are not at rest, not evenly sampled by ``step``, in another medium, the windows lie outside
        the axis, a name occurs twice or holds blanks, or the folder holds another set.
    ShapeError
        When names or flags do not fit the spectra.

    Notes
    -----
    Errors are 1 sigma per channel; the format has no place for their covariance. Under a mask stand numbers
    interpolated from both sides, so that nothing leaks where STARLIGHT resamples; the flag keeps them out of the fit.
    """
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    _check_spectra(spectra, step, medium)
    _check_names(names, spectra)
    low, high = float(spectra.wave[0]), float(spectra.wave[-1])
    settings = _settings(config)
    window = fit_range or (np.ceil(low + CUSHION), np.floor(high - CUSHION))
    _check_windows(low, high, window, signal_to_noise_window, settings)
    written = sorted(place.glob("grid_*.in"))
    if written and not overwrite:
        raise InputError(
            f"the folder holds a set already ({written[0].name})", source=place, remedy="pass overwrite=True"
        )
    for old in written:
        old.unlink()
    beside = (_place_config(place, config), _place_base(place, base), _place_masks(place, masks, medium))
    header = settings.get("Is1stLineHeader", "0") == "1"
    ids, left_out = _write_spectra(place, spectra, names, flags, header, window)
    kinematic = np.broadcast_to(
        np.stack(np.broadcast_arrays(velocity, dispersion), -1), (spectra.shape[0], 2)
    )
    fits = [
        GridFit(
            f"{names[i]}.txt",
            *beside,
            reddening_law,
            velocity=float(kinematic[i, 0]),
            dispersion=float(kinematic[i, 1]),
            output=f"{names[i]}{output_suffix}",
        )
        for i in ids
    ]
    common = StarlightGrid(
        (),
        signal_to_noise_window,
        window,
        base_dir=base_dir,
        step=step,
        chi2_scale=chi2_scale,
        kinematics=kinematics,
        seed=seed,
    )
    return StarlightSet(
        place,
        _write_grids(place, common, fits, n_grids),
        tuple(place / fit.spectrum for fit in fits),
        tuple(place / fit.output for fit in fits),
        tuple(ids),
        left_out,
    )


# ----------------------------------------------------------------------------------------------- checks


def _check_spectra(spectra: Spectra, step: float, medium: Medium) -> None:
    if "redshift_applied" not in spectra.meta:
        raise InputError(
            "the spectra are not known to be at rest; STARLIGHT fits rest wavelengths",
            field="spectra",
            remedy="bring them there with to_rest_frame(spectra, redshift), redshift 0 included",
        )
    if spectra.medium != medium:
        raise InputError(
            f"the wavelengths are in {spectra.medium}, those of the base in {medium}",
            field="medium",
            remedy=f"resample to a grid in {medium}, or pass medium={spectra.medium!r} if that is the base's",
        )
    ideal = spectra.wave[0] + step * np.arange(spectra.wave.size)
    worst = float(np.max(np.abs(spectra.wave - ideal)))
    if worst > _DRIFT * step:
        raise InputError(
            f"the wavelengths are not sampled evenly by {step:g} A (channels lie up to {worst:.3g} A elsewhere)",
            field="wave",
            remedy=f"resample(spectra, step={step:g}) first",
        )


def _check_names(names: Sequence[str], spectra: Spectra) -> None:
    if len(names) != spectra.shape[0]:
        raise ShapeError(f"{len(names)} names for {spectra.shape[0]} spectra", field="names")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{name!r} occurs twice", field="names", remedy="give each spectrum its own")
        if not name or re.search(r"[\s/\\]", name):
            raise InputError(
                f"{name!r} is empty or holds blanks or slashes",
                field="names",
                remedy="use bin_names or spaxel_names",
            )
        seen.add(name)


def _settings(config: str | Path) -> dict[str, str]:
    """Return the settings of a configuration file; nothing where only its name is known."""
    return read_config(config) if Path(config).is_file() else {}


def _check_windows(
    low: float,
    high: float,
    fit: tuple[float, float],
    signal_to_noise: tuple[float, float],
    settings: dict[str, str],
) -> None:
    windows = {"fit_range": fit, "signal_to_noise_window": signal_to_noise}
    if "llow_norm" in settings and "lupp_norm" in settings:
        windows["normalisation window of the configuration"] = (
            fortran_number(settings["llow_norm"]),
            fortran_number(settings["lupp_norm"]),
        )
    for name, (first, last) in windows.items():
        if not low <= first < last <= high:
            raise InputError(
                f"{name} {first:g}-{last:g} A does not lie in the spectra ({low:g}-{high:g} A)",
                field=name,
                remedy="choose rest wavelengths that are covered",
            )


# ----------------------------------------------------------------------------------------------- writing


def _place_config(place: Path, config: str | Path) -> str:
    source = Path(config)
    if source.is_file() and source.resolve() != (place / source.name).resolve():
        shutil.copyfile(source, place / source.name)
    return source.name


def _place_base(place: Path, base: str | Path | Sequence[BaseEntry]) -> str:
    if isinstance(base, (str, Path)):
        if Path(base).is_file():
            # Read first: a list that is too long, or cut off, is found now and not by STARLIGHT.
            read_base(base)
        return _place_config(place, base)
    return write_base(place / "base.list", base, overwrite=True).name


def _place_masks(place: Path, masks: str | Path | Sequence[MaskWindow] | None, medium: Medium) -> str:
    if isinstance(masks, (str, Path)):
        if Path(masks).is_file():
            read_masks(masks)
        return _place_config(place, masks)
    windows = emission_masks(medium=medium) if masks is None else masks
    return write_masks(place / "lines.masks", windows, overwrite=True).name


def _write_spectra(
    place: Path,
    spectra: Spectra,
    names: Sequence[str],
    flags: ArrayLike | None,
    header: bool,
    window: tuple[float, float],
) -> tuple[list[int], dict[str, str]]:
    """Write the spectrum files; return the rows that can be fitted, and the names of the others."""
    title = f"lambda[A] flux[{unit_text(spectra.unit)}] error flag" if header else ""
    all_flags = _all_flags(spectra, flags)
    inside = (spectra.wave >= window[0]) & (spectra.wave <= window[1])
    ids, left_out = [], {}
    for i, name in enumerate(names):
        good = all_flags[i] < FLAG_MASKED
        if not np.any(good & inside):
            left_out[name] = "no usable channel in the fit range"
            continue
        known = all_flags[i] != FLAG_MASKED
        known &= np.isfinite(spectra.data[i]) & np.isfinite(spectra.variance[i]) & ~spectra.mask[i]
        flux = _filled(spectra.data[i], known)
        error = _filled(np.sqrt(np.where(known, spectra.variance[i], 0.0)), known)
        text = spectrum_text(spectra.wave, flux, error, all_flags[i], header=title)
        _replace_text(place / f"{name}.txt", text)
        ids.append(i)
    return ids, left_out


def _all_flags(spectra: Spectra, flags: ArrayLike | None) -> NDArray[np.int64]:
    codes = np.full(spectra.shape, FLAG_GOOD, np.int64)
    if spectra.flags is not None:
        codes[spectra.flags != 0] = FLAG_REPAIRED
    if flags is not None:
        extra = np.asarray(flags)
        if extra.shape not in (spectra.shape, spectra.shape[1:]) or extra.dtype.kind not in "iu":
            raise ShapeError(
                f"flags are {extra.dtype} of shape {extra.shape}; expected whole numbers of shape"
                f" {spectra.shape[1:]} or {spectra.shape}",
                field="flags",
            )
        codes = np.maximum(codes, extra)
    codes[spectra.mask] = np.maximum(codes[spectra.mask], FLAG_MASKED)
    return codes


def _filled(values: NDArray[np.floating], known: NDArray[np.bool_]) -> Float:
    """Return the values with those that are not known interpolated between their neighbours."""
    channels = np.arange(values.size)
    return np.where(known, values, np.interp(channels, channels[known], values[known].astype(np.float64)))


def _replace_text(path: Path, text: str) -> None:
    """Write a file under another name and rename it.

    Unlike `atomic_path` it does not wait for the disk: a set has thousands of files, and is complete only when the
    grids, which are written last and do wait, are there.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}{path.suffix}")
    try:
        temporary.write_text(text, encoding="ascii")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_grids(place: Path, common: StarlightGrid, fits: list[GridFit], n_grids: int) -> tuple[Path, ...]:
    if n_grids < 1:
        raise InputError(f"n_grids is {n_grids}; expected at least 1", field="n_grids")
    parts = [part for part in (fits[start::n_grids] for start in range(n_grids)) if part]
    width = max(2, len(str(len(parts))))
    return tuple(
        write_grid(place / f"grid_{number:0{width}d}.in", replace(common, fits=tuple(part)))
        for number, part in enumerate(parts, start=1)
    )
