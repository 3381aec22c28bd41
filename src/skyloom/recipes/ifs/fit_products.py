"""What is made of the fits of an object: maps, tables, derived quantities, spectra with their models."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable

from skyloom.core.continuum import ContinuumFit, ContinuumFlag
from skyloom.core.labels import LabelMap
from skyloom.core.line_fit import LineFit, LineFlag
from skyloom.core.line_maps import LineMaps
from skyloom.core.spectra import Spectra
from skyloom.io.fits import write
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.headers import unit_text
from skyloom.io.products.line_maps import write_fitted_spectra, write_line_maps, write_line_table
from skyloom.recipes.ifs.inputs import Source
from skyloom.recipes.ifs.lines import unfitted
from skyloom.recipes.ifs.noise import NoiseModel
from skyloom.spectral.gas.bpt import bpt_classes
from skyloom.spectral.gas.density import electron_density
from skyloom.spectral.gas.derived import balmer_extinction, ew_classes
from skyloom.spectral.gas.maps import add_table, line_maps
from skyloom.spectral.gas.nebular import nebular_cube, nebular_spectra

__all__ = ["Fitted", "derived_tables", "make_maps", "read_record", "write_products"]

Record = dict[str, Any]
SEEN = 3.0  # Standard deviations from which a line counts as seen.
NEEDED: dict[str, tuple[str, ...]] = {
    "balmer": ("Halpha", "Hbeta"),
    "BPT_NII": ("Halpha", "Hbeta", "OIII5007", "NII6583"),
    "BPT_SII": ("Halpha", "Hbeta", "OIII5007", "SII6716", "SII6730"),
    "BPT_OI": ("Halpha", "Hbeta", "OIII5007", "OI6300"),
    "EW": ("Halpha",),
    "density_SII": ("SII6716", "SII6730"),
    "density_OII": ("OII3726", "OII3729"),
}


@dataclass(slots=True)
class Fitted:
    """The fits of an object as a whole, put together when they are asked for, and once."""

    merge_lines: Callable[[], LineFit]
    merge_continuum: Callable[[], ContinuumFit] | None
    _lines: list[LineFit] = field(default_factory=list)
    _continuum: list[ContinuumFit] = field(default_factory=list)

    @property
    def lines(self) -> LineFit:
        """The lines of all spectra."""
        if not self._lines:
            self._lines.append(self.merge_lines())
        return self._lines[0]

    @property
    def continuum(self) -> ContinuumFit | None:
        """The continua of all spectra, without modes."""
        if self.merge_continuum is None:
            return None
        if not self._continuum:
            self._continuum.append(self.merge_continuum())
        return self._continuum[0]


# --- derived quantities ---------------------------------------------------------------------------------------------


def derived_tables(fit: LineFit) -> dict[str, QTable]:
    """Return tables of what follows from the lines that were fitted, by the prefix of their maps."""
    make: dict[str, Callable[[], QTable]] = {
        "balmer": lambda: balmer_extinction(fit),
        "BPT_NII": lambda: bpt_classes(fit, "NII"),
        "BPT_SII": lambda: bpt_classes(fit, "SII"),
        "BPT_OI": lambda: bpt_classes(fit, "OI"),
        "EW": lambda: ew_classes(fit),
        "density_SII": lambda: electron_density(fit, "SII"),
        "density_OII": lambda: electron_density(fit, "OII"),
    }
    there = {name for name in fit.table.colnames if name.endswith("_flux")}
    return {
        name: table() for name, table in make.items() if all(f"{key}_flux" in there for key in NEEDED[name])
    }


def joined(tables: dict[str, QTable], ids: Any) -> QTable:
    """Put tables of the same bins side by side, each column with the prefix of its table."""
    whole = QTable({"id": ids})
    for prefix, table in tables.items():
        for name in table.colnames:
            if name != "id":
                whole[f"{prefix}_{name}"] = table[name]
    return whole


def stars_table(continuum: ContinuumFit) -> QTable:
    """Return kinematics, attenuation and populations, logarithms in a form that text files give back."""
    table = continuum.table
    for name in table.colnames:
        if hasattr(table[name], "physical"):
            table[name] = u.Quantity(np.asarray(table[name].value), u.dex)
    table.meta["meanings"] = {"flag": {int(flag): str(flag.name) for flag in ContinuumFlag}}
    return table


def populations_table(continuum: ContinuumFit) -> QTable:
    """Return the shares of the templates in light and mass."""
    table = QTable({"id": continuum.table["id"]})
    for kind, shares in (("light", continuum.light_fractions), ("mass", continuum.mass_fractions)):
        if shares is None or not np.isfinite(shares).any():
            continue
        for number, (age, metallicity) in enumerate(zip(continuum.age, continuum.metallicity, strict=True)):
            name = f"{kind}_{number:03d}"
            table[name] = shares[:, number] * u.one
            table[name].info.description = f"share of {kind}, {age:.4g} Gyr, [M/H] {metallicity:.2f}"
    return table


def templates_table(continuum: ContinuumFit) -> QTable:
    """Return which templates the shares are of."""
    return QTable(
        {
            "template": np.arange(continuum.age.size),
            "age": continuum.age * u.Gyr,
            "metallicity": u.Quantity(continuum.metallicity, u.dex),
        }
    )


def make_maps(source: Source, noise: NoiseModel, labels: LabelMap, fitted: Fitted) -> LineMaps:
    """Paint lines, stars and derived quantities."""
    maps = line_maps(
        fitted.lines,
        labels,
        per=source.config.maps.per,
        correlation=noise.correlation.spatial,
        psf=source.cube.psf,
    )
    for prefix, table in derived_tables(fitted.lines).items():
        maps = add_table(maps, table, prefix=f"{prefix}_")
    if fitted.continuum is not None:
        table = stars_table(fitted.continuum)
        table.remove_columns(["redshift", "reason"])
        maps = add_table(maps, table, prefix="stars_")
    return maps


# --- files ----------------------------------------------------------------------------------------------------------


def write_products(
    source: Source,
    folder: Path,
    noise: NoiseModel,
    labels: LabelMap,
    spectra: Spectra,
    fitted: Fitted,
) -> tuple[Record, tuple[Path, ...]]:
    """Write all products of the fits; return the figures that judge them, and the files."""
    stem, lines, continuum = folder / source.name, fitted.lines, fitted.continuum
    steps = 5 if continuum is None else 7
    files: list[Path] = []

    def done(paths: Path | Sequence[Path]) -> None:
        files.extend([paths] if isinstance(paths, Path) else paths)
        source.tick("fit products", min(len(files), steps), steps)

    maps = make_maps(source, noise, labels, fitted)
    done(write_line_maps(maps, _named(stem, "line_maps"), overwrite=True))
    if source.config.maps.layout == "betis":
        done(write_line_maps(maps, _named(stem, "betis"), layout="betis", overwrite=True))
    done(write_line_table(lines.table, _named(stem, "lines"), "LINES"))
    derived = derived_tables(lines)
    if derived:
        done(write_line_table(joined(derived, lines.table["id"]), _named(stem, "derived"), "DERIVED"))
    done(write_fitted_spectra(_named(stem, "fits"), spectra, continuum, lines, overwrite=True))
    if continuum is not None:
        done(write_line_table(stars_table(continuum), _named(stem, "stars"), "STARS"))
        if continuum.age.size:
            done(write_line_table(populations_table(continuum), _named(stem, "populations"), "POPULATIONS"))
            done(write_line_table(templates_table(continuum), _named(stem, "templates"), "TEMPLATES"))
        if labels.meta.get("method") == "none":
            done(write_nebular(source, _named(stem, "nebular"), noise, labels, spectra, continuum))
    return make_record(lines, spectra, continuum, labels), tuple(files)


def _named(stem: Path, kind: str) -> Path:
    return stem.with_name(f"{stem.name}_{kind}.fits")


def write_nebular(
    source: Source, path: Path, noise: NoiseModel, labels: LabelMap, spectra: Spectra, continuum: ContinuumFit
) -> Path:
    """Write the cube without the light of stars."""
    gas = nebular_spectra(spectra, continuum)
    cube = nebular_cube(gas, labels, correlation=noise.correlation.spatial, psf=source.cube.psf)
    write(cube, path, overwrite=True)
    return path


def write_record(record: Record, path: Path) -> Path:
    """Write figures for a run that finds the products done."""
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(record), encoding="utf-8")
    return path


def read_record(path: Path) -> Record:
    """Read what `write_record` wrote."""
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


# --- figures that judge the fits ------------------------------------------------------------------------------------


def make_record(lines: LineFit, spectra: Spectra, continuum: ContinuumFit | None, labels: LabelMap) -> Record:
    """Return the figures that judge the fits of an object, as plain values."""
    table = lines.table
    freedom = np.asarray(table["n_channels"], np.float64) - np.asarray(table["n_unknown"], np.float64)
    chi2 = np.asarray(table["chi2"], dtype=np.float64)
    ratio = np.divide(chi2, freedom, out=np.full(chi2.size, np.nan), where=freedom > 0)
    failed = unfitted(lines, spectra)
    # That a remainder, or a bin of nothing but unusable spaxels, has no spectrum is no failure of the fit.
    remainder = set(labels.meta.get("remainder", []))
    return {
        "n_spectra": len(lines),
        "chi2": _median(ratio),
        "unfitted": [[number, reason] for number, reason in failed if number not in remainder],
        "unfitted_remainder": sum(number in remainder for number, _ in failed),
        "lines": [_line_record(lines, key) for key in lines.lines.keys if f"{key}_flux" in table.colnames],
        "stars": None if continuum is None else _stars_record(continuum),
    }


def _median(values: Any) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None


def _line_record(lines: LineFit, key: str) -> Record:
    table = lines.table
    flux, snr = u.Quantity(table[f"{key}_flux"]), np.asarray(table[f"{key}_snr"], dtype=np.float64)
    covered = (lines.flags(key) & int(LineFlag.NOT_COVERED)) == 0
    seen = covered & (snr >= SEEN)
    return {
        "line": key,
        "measured": int(covered.sum()),
        "seen": int(seen.sum()),
        "snr": _median(snr[covered]),
        "flux": float(np.nansum(flux.value)) if covered.any() else None,
        "unit": unit_text(flux.unit),
        "velocity": _median(np.asarray(table[f"{key}_velocity"], dtype=np.float64)[seen]),
        "sigma": _median(np.asarray(table[f"{key}_sigma"], dtype=np.float64)[seen]),
    }


def _stars_record(continuum: ContinuumFit) -> Record:
    return {
        "backend": continuum.backend,
        "templates": continuum.templates,
        "n_templates": int(continuum.age.size),
        "usable": int(continuum.usable.sum()),
        "chi2": _median(continuum.chi2_dof),
        "sigma": _median(continuum.sigma),
        "av": _median(continuum.av),
        "age": _median(continuum.mean_age),
    }
