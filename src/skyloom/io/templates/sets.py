"""Named sets of templates: which there are, how they come to this machine, and how they are loaded.

``skyloom templates install NAME`` fetches a set out of a package of the Python package index and keeps it as one file
in the user's cache: ``$SKYLOOM_CACHE``, else ``$XDG_CACHE_HOME/skyloom``, else ``~/.cache/skyloom``.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.linelist import Medium
from skyloom.core.provenance import step
from skyloom.core.templates import TemplateLibrary
from skyloom.errors import FileFormatError, InputError
from skyloom.io.templates.library import read_templates, write_templates
from skyloom.io.templates.ssp_readers import (
    TABLES,
    family_of,
    read_ssp_family,
    read_starlight_base,
    read_template_folder,
)
from skyloom.io.templates.wheels import Wheel, fetch_wheel, unpack_members, verify_wheel

__all__ = [
    "TEMPLATE_SETS",
    "TemplateSet",
    "install_sets",
    "install_templates",
    "installed_path",
    "load_templates",
    "template_set",
    "templates_folder",
]

Float = NDArray[np.float64]
Progress = Callable[[int, int], None]

MANGADAP = Wheel(
    "sdss-mangadap",
    "4.5.0",
    "sdss_mangadap-4.5.0-py3-none-any.whl",
    "b8478bb24c32fe736fa6a2881805458719281862313838f8b032f3c10527ff34",
    121_502_014,
)
_INSIDE = "mangadap/data/spectral_templates"
_PACKAGE_LICENCE = "BSD-3-Clause (of the package)"


@dataclass(frozen=True, slots=True)
class TemplateSet:
    """A set that can be installed.

    Attributes
    ----------
    name : str
    summary : str
        What it is, in one line.
    wheel : Wheel
        The package it is part of.
    member : str
        Its folder in the wheel.
    family : str
        One of `skyloom.io.templates.ssp_readers.FAMILIES`.
    n_templates : int
        How many spectra it must have.
    reference : str
        What to cite.
    licence : str
    """

    name: str
    summary: str
    wheel: Wheel
    member: str
    family: str
    n_templates: int
    reference: str
    licence: str


TEMPLATE_SETS: dict[str, TemplateSet] = {
    known.name: known
    for known in (
        TemplateSet(
            "mastar-ssp",
            "MaStar v1.0: 9 ages, 6 metallicities, 3622-10351 A, vacuum, R about 1800",
            MANGADAP,
            f"{_INSIDE}/mastar_ssp_v1.0",
            "mastar",
            54,
            "Maraston et al. 2020, 10.1093/mnras/staa1489",
            _PACKAGE_LICENCE,
        ),
        TemplateSet(
            "mastar-ssp-noism",
            "MaStar v1.0 without the Milky Way's Na D and Ca II: 36 of 3 Myr to 14 Gyr, vacuum",
            MANGADAP,
            f"{_INSIDE}/mastar_ssp_noism_v1.0",
            "mastar",
            36,
            "Maraston et al. 2020, 10.1093/mnras/staa1489; interstellar lines removed by K. Rubin",
            _PACKAGE_LICENCE,
        ),
        TemplateSet(
            "bc03-mpajhu",
            "BC03/STELIB of the MPA-JHU catalogue: 10 ages, 4 metallicities, 3326-9294 A, air, 3 A",
            MANGADAP,
            f"{_INSIDE}/bc03_mpajhu",
            "bc03",
            40,
            "Bruzual & Charlot 2003, 10.1046/j.1365-8711.2003.06897.x",
            _PACKAGE_LICENCE,
        ),
        TemplateSet(
            "miuscat-thin",
            "MIUSCAT (MILES): 24 ages, 3 metallicities, 3480-9429 A, air, 2.51 A",
            MANGADAP,
            f"{_INSIDE}/miuscat_thin",
            "miuscat",
            72,
            "Vazdekis et al. 2012, 10.1111/j.1365-2966.2012.21179.x",
            "MILES: non-commercial use; acknowledge the MILES website",
        ),
    )
}


def templates_folder() -> Path:
    """Return the folder of installed sets, whether it exists or not."""
    own = os.environ.get("SKYLOOM_CACHE", "").strip()
    if own:
        return Path(own).expanduser() / "templates"
    shared = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(shared) if shared else Path("~/.cache").expanduser()) / "skyloom" / "templates"


def installed_path(name: str) -> Path:
    """Return where a set is, or would be, in the cache."""
    return templates_folder() / f"{template_set(name).name}.fits"


def template_set(name: str) -> TemplateSet:
    """Return a known set.

    Raises
    ------
    InputError
        When there is none of this name; the message has the nearest one.
    """
    if name in TEMPLATE_SETS:
        return TEMPLATE_SETS[name]
    near = difflib.get_close_matches(name, TEMPLATE_SETS, n=1)
    raise InputError(
        f"{name!r} is no known set of templates" + (f"; did you mean {near[0]!r}?" if near else ""),
        field="templates",
        remedy=f"use one of {', '.join(TEMPLATE_SETS)}, or the path of a file or folder",
    )


def install_templates(
    name: str,
    *,
    wheel: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Fetch a set of templates into the user's cache; see `install_sets`."""
    return install_sets([name], wheel=wheel, overwrite=overwrite, progress=progress)[name]


def install_sets(
    names: Sequence[str],
    *,
    wheel: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Fetch sets of templates into the user's cache, each package once.

    Parameters
    ----------
    names : sequence of str
        Of `TEMPLATE_SETS`.
    wheel : str or path, optional
        The wheel, fetched before; for machines without a network.
    overwrite : bool
        Whether a set that is there is fetched again.
    progress : callable, optional
        Called with the number of bytes that have come, and of all.

    Returns
    -------
    dict of str to path
        Of the libraries, for `load_templates`. Each is there completely, or not at all.

    Raises
    ------
    InputError
        When a set is unknown, the package index cannot be reached, or the cache cannot be written.
    FileFormatError
        When the wheel is not the one whose SHA-256 is known, or lacks spectra.
    """
    paths = {name: installed_path(name) for name in names}
    wanted = [TEMPLATE_SETS[name] for name, path in paths.items() if overwrite or not path.is_file()]
    if not wanted:
        return paths
    with _working_folder() as working:
        wheels: dict[str, Path] = {}
        for known in wanted:
            archive = wheels.get(known.wheel.sha256)
            if archive is None:
                archive = _obtain(known.wheel, wheel, working, progress)
                wheels[known.wheel.sha256] = archive
            _convert(known, archive, working, paths[known.name])
    return paths


@contextmanager
def _working_folder() -> Iterator[Path]:
    """Give a folder on the disk of the cache, which is gone afterwards."""
    folder = templates_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        working = tempfile.TemporaryDirectory(prefix=".install-", dir=folder)
    except OSError as error:
        raise InputError(
            f"the cache cannot be written ({error})",
            source=folder,
            remedy="set SKYLOOM_CACHE to a folder that can",
        ) from error
    with working as name:
        yield Path(name)


def _obtain(wheel: Wheel, given: str | Path | None, working: Path, progress: Progress | None) -> Path:
    if given is None:
        return fetch_wheel(wheel, working, progress=progress)
    verify_wheel(given, wheel)
    return Path(given)


def _convert(known: TemplateSet, archive: Path, working: Path, target: Path) -> None:
    """Write the library of a set out of its wheel."""
    spectra = working / known.name
    spectra.mkdir()
    unpack_members(archive, known.member, spectra)
    library = read_ssp_family(spectra, known.family, name=known.name)
    if len(library) != known.n_templates:
        raise FileFormatError(
            f"{known.member} has {len(library)} templates; expected {known.n_templates}", source=archive
        )
    made = step("install_templates", package=known.wheel.package, version=known.wheel.version)
    origin = {
        "package": f"{known.wheel.package} {known.wheel.version}",
        "wheel_sha256": known.wheel.sha256,
        "reference": known.reference,
        "licence": known.licence,
    }
    write_templates(library.evolve(made, meta={**library.meta, **origin}), target, overwrite=True)


def load_templates(
    name_or_path: str | Path,
    *,
    folder: str | Path | None = None,
    medium: Medium | None = None,
    fwhm: Float | float | None = None,
) -> TemplateLibrary:
    """Load templates: an installed set by its name, or any file or folder that Skyloom can read.

    Parameters
    ----------
    name_or_path : str or path
        A name of `TEMPLATE_SETS`; a FITS file of `skyloom.io.templates.library.write_templates`; a folder of MaStar,
        BC03 or MIUSCAT spectra; a base list of STARLIGHT; a folder of spectra with a table (`read_template_folder`).
    folder : str or path, optional
        Where the spectra of a base list are.
    medium : {"air", "vacuum"}, optional
    fwhm : float or (n_wave,) array, optional
        A. Both for base lists and users' folders that do not say them.

    Returns
    -------
    TemplateLibrary
        ``meta["flux_per_mass"]`` says whether the flux is that of one solar mass formed, so that weights are masses.

    Raises
    ------
    InputError
        When the name is unknown, the set is not installed, or an option does not go with it.
    FileFormatError
        When a file cannot be read.
    """
    source = str(name_or_path)
    about: dict[str, Any] = {
        name: value for name, value in (("medium", medium), ("fwhm", fwhm)) if value is not None
    }
    everything: dict[str, Any] = {**about, **({} if folder is None else {"folder": folder})}
    if isinstance(name_or_path, str) and name_or_path in TEMPLATE_SETS:
        _refuse(everything, source)
        path = installed_path(name_or_path)
        if not path.is_file():
            raise InputError(
                f"the templates {name_or_path!r} are not installed",
                field="templates",
                remedy=f"run 'skyloom templates install {name_or_path}' once (it needs a package index, or --wheel)",
            )
        return read_templates(path)
    place = Path(name_or_path).expanduser()
    if place.is_dir():
        return _load_folder(place, everything, about)
    if not place.is_file():
        if isinstance(name_or_path, Path) or place.suffix or len(place.parts) > 1:
            raise FileFormatError("there is no such file or folder of templates", source=place)
        template_set(source)
    if place.name.lower().endswith((".fits", ".fits.gz")):
        _refuse(everything, source)
        return read_templates(place)
    return read_starlight_base(place, **everything)


def _load_folder(place: Path, everything: dict[str, Any], about: dict[str, Any]) -> TemplateLibrary:
    if any((place / table).is_file() for table in TABLES):
        _refuse({name: value for name, value in everything.items() if name not in about}, str(place))
        return read_template_folder(place, **about)
    family = family_of(place)
    if family is not None:
        _refuse(everything, str(place))
        return read_ssp_family(place, family)
    lists = sorted(path for path in place.glob("Base*") if path.is_file())
    if len(lists) == 1:
        return read_starlight_base(lists[0], **everything)
    raise FileFormatError(
        "the folder holds no templates that are known: no MaStar, BC03 or MIUSCAT spectra, no table"
        f" ({', '.join(TABLES)}), and {len(lists) or 'no'} base list{'s' if len(lists) > 1 else ''} of STARLIGHT",
        source=place,
        remedy="add a table with the columns file, age (Gyr), metallicity ([M/H]), or give the base list",
    )


def _refuse(options: dict[str, Any], source: str) -> None:
    if options:
        raise InputError(
            f"{', '.join(options)} cannot be given: these templates say it themselves",
            source=source,
            remedy="leave it out, or change the library with evolve()",
        )
