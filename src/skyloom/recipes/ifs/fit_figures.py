"""Figures of the fits of an object."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from skyloom.core.labels import LabelMap
from skyloom.core.spectra import Spectra
from skyloom.io.formats.atomic import atomic_path
from skyloom.recipes.ifs.fit_products import Fitted, Record, derived_tables, make_maps
from skyloom.recipes.ifs.inputs import Source
from skyloom.recipes.ifs.noise import NoiseModel
from skyloom.recipes.ifs.products import object_folder

__all__ = ["draw_fits"]

SHOWN_LINES = 8  # The ones seen in most bins; maps of all lines are in the file.
SHOWN_FITS = 4
# maps: what they show, whether zero is the middle, whether the scale is logarithmic
QUANTITIES = {
    "balmer_ebv": ("E(B-V) from the Balmer decrement", True, False),
    "density_SII_density": ("electron density from [S II]", False, True),
    "density_OII_density": ("electron density from [O II]", False, True),
    "stars_velocity": ("velocity of the stars", True, False),
    "stars_sigma": ("velocity dispersion of the stars", False, False),
    "stars_av": ("attenuation of the stars", False, False),
    "stars_log_age_light": ("log age/yr of the stars, weighted by light", False, False),
}


def draw_fits(
    source: Source, noise: NoiseModel, labels: LabelMap, spectra: Spectra, fitted: Fitted, record: Record
) -> tuple[Path, ...]:
    """Draw maps of the lines that are seen most, of derived quantities and stars, and some fits; return the files."""
    # matplotlib takes a second to import, which a run without figures need not spend.
    from skyloom.report.figures.line_fits import fit_gallery
    from skyloom.report.figures.lines import (
        bpt_diagram,
        ew_class_maps,
        fitted_line_maps,
        quantity_maps,
        with_beam,
    )

    name, folder = source.name, object_folder(source)
    maps, derived = make_maps(source, noise, labels, fitted), derived_tables(fitted.lines)
    drawn: list[Path] = []

    def save(kind: str, draw: Callable[[], bytes]) -> None:
        path = folder / f"{name}_{kind}.png"
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_bytes(draw())
        drawn.append(path)
        source.tick("fit figures", len(drawn), len(drawn) + 1)

    rows, names = shown_fits(fitted, record)
    if rows:
        save(
            "line_fits",
            lambda: fit_gallery(
                f"{name}: fits", spectra, fitted.lines, rows, names, continuum=fitted.continuum
            ),
        )
    for line in shown_lines(record):
        save(f"fit_{line}", partial(fitted_line_maps, f"{name}: {line}", maps, line))
    for key, (text, signed, logarithm) in QUANTITIES.items():
        if key in maps and np.isfinite(maps.quantities[key].values).any():
            draw = partial(
                quantity_maps,
                f"{name}: {text}",
                with_beam(maps, maps[key]),
                text,
                signed=signed,
                logarithm=logarithm,
            )
            save(key, draw)
    for diagram in ("NII", "SII", "OI"):
        table = derived.get(f"BPT_{diagram}")
        if table is not None and np.any(np.asarray(table["class"]) > 0):
            save(f"BPT_{diagram}", partial(bpt_diagram, f"{name}: BPT {diagram}", maps, table))
    if "EW" in derived and np.any(np.asarray(derived["EW"]["class"]) > 0):
        save("EW_classes", lambda: ew_class_maps(f"{name}: classes by EW(Halpha)", maps, derived["EW"]))
    return tuple(drawn)


def shown_lines(record: Record) -> list[str]:
    """Choose the lines that are seen in most bins."""
    seen = sorted((item for item in record["lines"] if item["seen"]), key=lambda item: -item["seen"])
    return [item["line"] for item in seen[:SHOWN_LINES]]


def shown_fits(fitted: Fitted, record: Record) -> tuple[list[int], list[str]]:
    """Choose spectra to show: from the faintest to the brightest in the line that is seen most."""
    lines = shown_lines(record) or [item["line"] for item in record["lines"] if item["measured"]]
    if not lines:
        return [], []
    snr = np.asarray(fitted.lines.table[f"{lines[0]}_snr"], dtype=np.float64)
    order = np.argsort(snr)[: np.count_nonzero(np.isfinite(snr))]
    places = np.linspace(0, order.size - 1, min(SHOWN_FITS, order.size)).round().astype(int)
    rows = [int(order[place]) for place in dict.fromkeys(places.tolist())]
    ids = fitted.lines.table["id"]
    return rows, [f"bin {ids[row]}: {lines[0]} S/N {snr[row]:.1f}" for row in rows]
