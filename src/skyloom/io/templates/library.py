"""Template libraries on disk: one FITS file with the spectra, the wavelength axis and a table of populations.

``TEMPLATES`` holds the spectra (n, n_wave), ``AXIS`` the columns WAVE and FWHM, ``POPULATIONS`` the columns AGE and
METALLICITY; the medium is in the header of ``TEMPLATES``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

from skyloom.core.provenance import Step
from skyloom.core.templates import TemplateLibrary
from skyloom.errors import FileFormatError
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.plain_json import from_json, to_json

__all__ = ["read_templates", "write_templates"]

FORM = "SKYLOOM TEMPLATES 1"


def write_templates(library: TemplateLibrary, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a template library so that `read_templates` gives the same one back.

    Parameters
    ----------
    library : TemplateLibrary
    path : str or path
        Of the FITS file.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    InputError
        When the file exists, or ``meta`` holds something that is no plain value.
    """
    spectra = fits.ImageHDU(library.flux, name="TEMPLATES")
    spectra.header["FORM"] = FORM
    spectra.header["MEDIUM"] = library.medium
    spectra.header["LIBRARY"] = library.name
    spectra.header["BUNIT"] = str(library.meta.get("unit", ""))
    axis = fits.BinTableHDU.from_columns(
        [
            fits.Column("WAVE", "D", unit="Angstrom", array=library.wave),
            fits.Column("FWHM", "D", unit="Angstrom", array=np.asarray(library.fwhm)),
        ],
        name="AXIS",
    )
    populations = fits.BinTableHDU.from_columns(
        [
            fits.Column("AGE", "D", unit="Gyr", array=library.age),
            fits.Column("METALLICITY", "D", unit="dex", array=library.metallicity),
        ],
        name="POPULATIONS",
    )
    notes = [("meta", key, to_json(value, f"meta[{key!r}]")) for key, value in library.meta.items()]
    notes += [
        (
            "history",
            made.name,
            to_json({"version": made.version, "parameters": dict(made.parameters)}, made.name),
        )
        for made in library.history
    ]
    columns = zip(*notes, strict=True) if notes else ([], [], [])
    record = fits.BinTableHDU.from_columns(
        [
            fits.Column(name, f"{max([1, *map(len, texts)])}A", array=np.array(texts, dtype=str))
            for name, texts in zip(("KIND", "NAME", "VALUE"), map(list, columns), strict=True)
        ],
        name="RECORD",
    )
    hdus = fits.HDUList([fits.PrimaryHDU(), spectra, axis, populations, record])
    with atomic_path(path, overwrite=overwrite) as temporary:
        hdus.writeto(temporary, checksum=True)


def read_templates(path: str | Path) -> TemplateLibrary:
    """Read a template library that `write_templates` wrote.

    Raises
    ------
    FileFormatError
        When the file cannot be read or is not such a library.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            header = hdus["TEMPLATES"].header
            if header.get("FORM") != FORM:
                raise FileFormatError(f"FORM is {header.get('FORM')!r}; expected {FORM!r}", source=path)
            axis, populations, record = hdus["AXIS"].data, hdus["POPULATIONS"].data, hdus["RECORD"].data
            meta = {row["NAME"]: from_json(row["VALUE"]) for row in record if row["KIND"] == "meta"}
            history = tuple(
                Step(row["NAME"], **from_json(row["VALUE"])) for row in record if row["KIND"] == "history"
            )
            return TemplateLibrary(
                np.array(axis["WAVE"], dtype=np.float64),
                header["MEDIUM"],
                np.array(hdus["TEMPLATES"].data, dtype=np.float64),
                np.array(populations["AGE"], dtype=np.float64),
                np.array(populations["METALLICITY"], dtype=np.float64),
                np.array(axis["FWHM"], dtype=np.float64),
                header["LIBRARY"],
                meta,
                history,
            )
    except (OSError, KeyError, TypeError) as error:
        raise FileFormatError(
            f"no template library can be read ({error})",
            source=path,
            remedy="give a file written by skyloom.io.templates.library.write_templates",
        ) from error
