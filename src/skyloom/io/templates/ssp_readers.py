"""Published sets of simple stellar populations, STARLIGHT bases and users' folders as a `TemplateLibrary`.

Where a file does not say what its wavelengths are measured in, or says a width that the spectra do not have, the
family of the set does, with the source; see `FAMILIES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from skyloom.core.linelist import Medium, check_medium
from skyloom.core.provenance import step
from skyloom.core.templates import TemplateLibrary
from skyloom.errors import FileFormatError, InputError
from skyloom.io.starlight.inputs import read_base
from skyloom.io.templates.ssp_spectra import TemplateSpectrum, stack_spectra

__all__ = [
    "FAMILIES",
    "SspFamily",
    "family_of",
    "read_ssp_family",
    "read_starlight_base",
    "read_template_folder",
]

Float = NDArray[np.float64]
LUMINOSITY_PER_MASS = "Lsun / (AA Msun)"
TABLES = ("templates.ecsv", "templates.csv", "templates.txt")
# Z of the Sun in the tracks of Bruzual & Charlot 2003 and Maraston et al. 2020.
SOLAR_Z = 0.02
_SPECTRA_OF_BC03 = (
    "Bruzual & Charlot 2003, 10.1046/j.1365-8711.2003.06897.x (sect. 2: STELIB, 3 A from 3200 to 9500 A)"
)
BC03_RANGE = (3200.0, 9500.0)
BC03_FWHM = 3.0


@dataclass(frozen=True, slots=True)
class SspFamily:
    """What the file names of a published set mean, and what its files do not say.

    Attributes
    ----------
    name : str
    pattern : regular expression
        Matches the names of the spectra; groups ``age`` (Gyr) and ``metals`` (see ``metals_are``), ``sign``.
    metals_are : {"[M/H]", "Z"}
    medium : {"air", "vacuum"}
    fwhm : float or None
        A; None: the files have the resolving power (extension SRES).
    meta : dict
        ``source``, ``fwhm_source``, ``imf``, ``unit``, ``flux_per_mass`` (True: the flux is that of one solar mass
        formed, so that weights are masses).
    wave_range : (float, float), optional
        Where the spectra can be used.
    exact_ages : dict
        Ages that the names round.
    """

    name: str
    pattern: re.Pattern[str]
    metals_are: str
    medium: Medium
    fwhm: float | None
    meta: dict[str, Any]
    wave_range: tuple[float, float] | None = None
    exact_ages: dict[str, float] = field(default_factory=dict)

    def population(self, name: str) -> tuple[float, float] | None:
        """Return age (Gyr) and [M/H] of a file by its name, None where it is none of this family."""
        found = self.pattern.fullmatch(name)
        if found is None:
            return None
        age = self.exact_ages.get(found["age"], float(found["age"]))
        if self.metals_are == "Z":
            return age, float(np.log10(float(found["metals"]) / SOLAR_Z))
        sign = -1.0 if found["sign"] in ("-", "m") else 1.0
        return age, sign * float(found["metals"])


FAMILIES: dict[str, SspFamily] = {
    family.name: family
    for family in (
        SspFamily(
            "mastar",
            re.compile(r"MaStar-SSP-A(?P<age>\d+\.\d+)-Z(?P<sign>[+-])(?P<metals>\d+\.\d+)\.fits(\.gz)?"),
            "[M/H]",
            "vacuum",
            None,
            {
                "source": "Maraston et al. 2020, 10.1093/mnras/staa1489",
                "fwhm_source": "resolving power per wavelength in the extension SRES of the files",
                "imf": "Salpeter (slope 2.35)",
                "unit": "",
                "flux_per_mass": False,
                "note": "each spectrum is divided by its median: mass fractions are not known",
            },
            exact_ages={"00.003": 10.0**-2.5, "00.032": 10.0**-1.5},
        ),
        SspFamily(
            "bc03",
            re.compile(r"BC03_z(?P<metals>\d+\.\d+)_a(?P<age>\d+\.\d+)\.fits(\.gz)?"),
            "Z",
            "air",
            BC03_FWHM,
            {
                "source": _SPECTRA_OF_BC03,
                "fwhm_source": "Bruzual & Charlot 2003; the 2.3 A of the headers is narrower than the lines are",
                "imf": "Chabrier",
                "unit": LUMINOSITY_PER_MASS,
                "flux_per_mass": True,
                "solar_metallicity": SOLAR_Z,
                "note": "wavelengths of STELIB are off by up to 0.5 A (25 km/s), differently along the spectrum",
            },
            wave_range=BC03_RANGE,
        ),
        SspFamily(
            "miuscat",
            re.compile(r"Iun1\.30Z(?P<sign>[mp])(?P<metals>\d+\.\d+)T(?P<age>\d+\.\d+)\.fits"),
            "[M/H]",
            "air",
            2.51,
            {
                "source": "Vazdekis et al. 2012, 10.1111/j.1365-2966.2012.21179.x",
                "fwhm_source": "Falcon-Barroso et al. 2011, 10.1051/0004-6361/201116842: 2.51 A at all wavelengths",
                "imf": "unimodal, slope 1.3 (Salpeter)",
                "unit": LUMINOSITY_PER_MASS,
                "flux_per_mass": True,
            },
            wave_range=(3480.0, 9430.0),
        ),
    )
}


def family_of(folder: str | Path) -> SspFamily | None:
    """Return the family whose spectra a folder holds, None where it holds none."""
    names = [path.name for path in sorted(Path(folder).iterdir()) if path.is_file()]
    for family in FAMILIES.values():
        if any(family.pattern.fullmatch(name) for name in names):
            return family
    return None


def read_ssp_family(
    folder: str | Path, family: SspFamily | str, *, name: str | None = None
) -> TemplateLibrary:
    """Read a folder of MaStar, BC03 or MIUSCAT spectra as they are published.

    Parameters
    ----------
    folder : str or path
    family : SspFamily or str
        One of `FAMILIES`.
    name : str, optional
        Of the library; that of the folder by default.

    Returns
    -------
    TemplateLibrary
        Ordered by metallicity, then age.

    Raises
    ------
    FileFormatError
        When the folder holds no such spectra, or one cannot be read.
    """
    place = Path(folder)
    kind = _family(family)
    found = []
    for path in place.iterdir():
        population = kind.population(path.name)
        if population is not None:
            found.append((population[1], population[0], path))
    if not found:
        raise FileFormatError(f"there are no {kind.name} spectra in this folder", source=place)
    found.sort()
    metallicity, age, paths = map(list, zip(*found, strict=True))
    first, flux = stack_spectra(paths, wave_range=kind.wave_range)
    fwhm = kind.fwhm if kind.fwhm is not None else first.fwhm
    if fwhm is None:
        raise FileFormatError("no extension SRES says the resolution", source=paths[0], field="SRES")
    meta = {**kind.meta, "family": kind.name, "files": [path.name for path in paths]}
    return _library(first, flux, age, metallicity, kind.medium, fwhm, name or place.name, meta)


def _family(family: SspFamily | str) -> SspFamily:
    if isinstance(family, SspFamily):
        return family
    if family not in FAMILIES:
        raise InputError(
            f"{family!r} is no family of templates",
            field="family",
            remedy=f"use one of {', '.join(FAMILIES)}",
        )
    return FAMILIES[family]


def _library(
    first: TemplateSpectrum,
    flux: Float,
    age: list[float],
    metallicity: list[float],
    medium: Medium,
    fwhm: Float | float,
    name: str,
    meta: dict[str, Any],
) -> TemplateLibrary:
    made = step("read_templates", library=name, n_templates=len(age), sampling=first.sampling)
    axes = np.asarray(age, dtype=np.float64), np.asarray(metallicity, dtype=np.float64)
    return TemplateLibrary(
        first.wave, medium, flux, *axes, fwhm, name, {**meta, "sampling": first.sampling}, (made,)
    )


def read_starlight_base(
    base: str | Path,
    folder: str | Path | None = None,
    *,
    medium: Medium | None = None,
    fwhm: Float | float | None = None,
    wave_range: tuple[float, float] | None = None,
    solar_metallicity: float = SOLAR_Z,
    name: str | None = None,
) -> TemplateLibrary:
    """Read the text spectra that a base list of STARLIGHT names.

    Parameters
    ----------
    base : str or path
        The master list, e.g. ``Base.BC03.N``.
    folder : str or path, optional
        Where the spectra are; that of the list by default.
    medium, fwhm, wave_range
        Of the spectra, which do not say it themselves. Known for BC03 (files ``bc2003_hr_*``): air, 3 A from 3200 to
        9500 A, where the empirical spectra begin and end.
    solar_metallicity : float
        Z of the Sun: [M/H] = log10(Z / Z_sun).
    name : str, optional

    Returns
    -------
    TemplateLibrary
        In the order of the list, so that row j is component j of a population vector; ``meta["star_fraction"]`` is
        the mass still in stars per mass formed, ``meta["codes"]`` STARLIGHT's names.

    Raises
    ------
    FileFormatError
        When the list or a spectrum cannot be read.
    InputError
        When medium or width are not given, and the spectra are not those of BC03.
    """
    entries = read_base(base)
    family = FAMILIES["bc03"] if all(entry.file.startswith("bc2003_hr") for entry in entries) else None
    if family is not None:
        medium, fwhm = medium or family.medium, family.fwhm if fwhm is None else fwhm
        wave_range = wave_range or family.wave_range
    if medium is None or fwhm is None:
        raise InputError(
            "the spectra of this base do not say their medium and the width of their lines",
            source=base,
            field="medium" if medium is None else "fwhm",
            remedy='give both, e.g. medium="air", fwhm=2.5 (--medium air --fwhm 2.5)',
        )
    check_medium(medium, str(base))
    place = Path(base).parent if folder is None else Path(folder)
    missing = [entry.file for entry in entries if not (place / entry.file).is_file()]
    if missing:
        raise FileFormatError(
            f"{len(missing)} of {len(entries)} spectra are not in {place}, such as {missing[0]}",
            source=base,
            remedy="give their folder",
        )
    first, flux = stack_spectra([place / entry.file for entry in entries], wave_range=wave_range)
    meta = {
        **(family.meta if family is not None else {}),
        "family": "starlight",
        "unit": LUMINOSITY_PER_MASS,
        "flux_per_mass": True,
        "solar_metallicity": float(solar_metallicity),
        "star_fraction": [entry.star_fraction for entry in entries],
        "codes": [entry.code for entry in entries],
        "files": [entry.file for entry in entries],
    }
    ages = [entry.age / 1e9 for entry in entries]
    metals = [float(np.log10(entry.metallicity / solar_metallicity)) for entry in entries]
    return _library(first, flux, ages, metals, medium, fwhm, name or Path(base).name, meta)


# ------------------------------------------------------------------------------------------ users' folders


def read_template_folder(
    folder: str | Path,
    *,
    medium: Medium | None = None,
    fwhm: Float | float | None = None,
    name: str | None = None,
) -> TemplateLibrary:
    """Read a folder of spectra described by a table.

    Parameters
    ----------
    folder : str or path
        Spectra in any form of `read_template_spectrum`, and ``templates.ecsv``, ``templates.csv`` or
        ``templates.txt`` with the columns ``file``, ``age`` (Gyr), ``metallicity`` ([M/H]) and, if known,
        ``star_fraction``. Lines ``# key: value`` before it (or the meta of an ECSV table) may say ``medium``,
        ``fwhm`` (A), ``wave_unit``, ``unit``, ``flux_per_mass``, ``name``, ``imf``, ``source``.
    medium : {"air", "vacuum"}, optional
        Overrules the table; needed where neither the table nor the files say it.
    fwhm : float or (n_wave,) array, optional
        The same for the width of the line-spread function.
    name : str, optional

    Raises
    ------
    FileFormatError
        When the table or a spectrum cannot be read.
    InputError
        When the medium or the width is not known.
    """
    place = Path(folder)
    table_path = next((place / table for table in TABLES if (place / table).is_file()), None)
    if table_path is None:
        raise FileFormatError(
            f"there is no table of the templates ({', '.join(TABLES)})",
            source=place,
            remedy="write one with the columns file, age (Gyr), metallicity ([M/H])",
        )
    table, notes = _population_table(table_path)
    paths = [place / str(entry) for entry in table["file"]]
    first, flux = stack_spectra(paths, wave_unit=str(notes.pop("wave_unit", "Angstrom")))
    chosen: Any = medium or notes.pop("medium", None) or first.medium
    if chosen is None:
        raise InputError(
            "nothing says whether the wavelengths are in air or in vacuum",
            source=table_path,
            field="medium",
            remedy='add the line "# medium: air" (or vacuum) to the table, or pass medium=',
        )
    check_medium(chosen, str(table_path))
    said = notes.pop("fwhm", None)
    width = fwhm if fwhm is not None else said if said is not None else first.fwhm
    if width is None:
        raise InputError(
            "nothing says how wide the lines of the templates are",
            source=table_path,
            field="fwhm",
            remedy='add the line "# fwhm: 2.5" (in A) to the table, or pass fwhm=',
        )
    if "star_fraction" in table.colnames:
        notes["star_fraction"] = [float(value) for value in table["star_fraction"]]
    notes = {"unit": "", "flux_per_mass": False, **notes, "family": "folder"}
    notes["files"] = [path.name for path in paths]
    own = str(notes.pop("name", place.name))
    ages, metals = ([float(value) for value in table[column]] for column in ("age", "metallicity"))
    return _library(first, flux, ages, metals, chosen, _number(width), name or own, notes)


def _number(width: Any) -> Float | float:
    if isinstance(width, str):
        raise InputError(f"fwhm is {width!r}; expected a number of A", field="fwhm")
    return np.asarray(width, dtype=np.float64)


def _population_table(path: Path) -> tuple[Table, dict[str, Any]]:
    """Return the table of a user's folder, and the notes before it."""
    form = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv"}.get(path.suffix, "ascii.basic")
    options = {} if path.suffix != ".csv" else {"comment": "#"}
    try:
        table = Table.read(path, format=form, **options)
        notes = dict(table.meta) if path.suffix == ".ecsv" else _comments(path)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise FileFormatError(f"the table cannot be read ({error})", source=path) from error
    missing = [name for name in ("file", "age", "metallicity") if name not in table.colnames]
    if missing or not len(table):
        raise FileFormatError(
            f"the table has {len(table)} rows and no column {' or '.join(missing)}"
            if missing
            else "the table has no rows",
            source=path,
            remedy="give the columns file, age (Gyr), metallicity ([M/H])",
        )
    for name in ("age", "metallicity"):
        if table[name].dtype.kind not in "iuf" or np.ma.is_masked(table[name]):
            raise FileFormatError(
                f"the column {name} holds something else than numbers", source=path, field=name
            )
    if table["age"].unit is not None:
        table["age"] = table["age"].quantity.to_value("Gyr")
    return table, notes


def _comments(path: Path) -> dict[str, Any]:
    """Return the values of lines ``# key: value``."""
    notes: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"#\s*(\w+)\s*:\s*(.+?)\s*", line)
        if found is None:
            continue
        text = found[2]
        if text.lower() in ("true", "false"):
            notes[found[1]] = text.lower() == "true"
        elif re.fullmatch(r"[+-]?\d*\.?\d+([eE][+-]?\d+)?", text):
            notes[found[1]] = float(text)
        else:
            notes[found[1]] = text
    return notes
