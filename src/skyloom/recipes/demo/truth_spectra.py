"""Spectra and lines of the bins of ``ifs`` beside the cube without noise, binned in the same way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands
from skyloom.io import read
from skyloom.mock.galaxy_files import NAME, GalaxyFiles
from skyloom.recipes.demo.comparison import Allowed, Comparison, MapPair, percent_bias, statistical
from skyloom.spectral.lines.linefit import fit_lines

__all__ = ["compare_ifs"]

Float = NDArray[np.float64]
# Lines whose fluxes are compared; S/N from which kinematics are: a width of 20 km/s below an instrument of 50 km/s is a
# root of a small difference, whose noise is not Gaussian below.
LINES = ("Hbeta", "OIII5007", "Halpha", "NII6583", "SII6716", "SII6730")
KINEMATICS_SNR = 25.0


def compare_ifs(files: GalaxyFiles, folder: Path) -> tuple[list[Comparison], MapPair]:
    """Compare the spectra of the bins, and the fluxes, velocities and widths of their lines."""
    place = folder / NAME
    spectra, labels = read(place / f"{NAME}_spectra.fits"), read(place / f"{NAME}_bins.fits")
    assert isinstance(spectra, Spectra)
    assert isinstance(labels, LabelMap)
    table = QTable.read(place / f"{NAME}_lines.fits")
    ids = np.asarray(table["id"])
    redshift = files.cube.redshift
    gas = _binned(files.cube.truth(light=("lines",)), labels, ids)
    stars = _binned(files.cube.truth(light=("stars",)), labels, ids)
    keys = [key for key in LINES if f"{key}_flux" in table.colnames]
    # A disc that rotates within a bin has no Gaussian lines: the same fit, to the light without noise, is the truth.
    # Of all lines that there are, or those left out would be taken for continuum.
    emitted = [key for key in files.cube.line_keys if f"{key}_flux" in table.colnames]
    true = fit_lines(spectra.evolve(data=gas), emitted, redshift).table
    rows = [
        _spectra_row(spectra, gas + stars),
        *(_flux_row(table, true, key) for key in keys),
        _emitted_row(files, labels, table),
        *_kinematics_rows(table, true),
    ]
    return rows, _velocity_pair(table, true, labels)


def _velocity_pair(table: QTable, true: QTable, labels: LabelMap) -> MapPair:
    """The velocity of the gas in the bins."""
    measured, exact, error = (
        part[f"Halpha_velocity{suffix}"].to_value("km / s")
        for part, suffix in ((table, ""), (true, ""), (table, "_err"))
    )
    pulls = (measured - exact) / error
    ids = np.asarray(table["id"])

    def painted(values: Float) -> Image:
        whole = np.full(int(ids.max()) + 2, np.nan)
        whole[ids] = values
        plane = whole[np.where(labels.labels >= 0, labels.labels, -1)]
        return Image(plane, np.ones_like(plane), ~np.isfinite(plane), "km / s", labels.wcs)

    return MapPair(
        "Velocity of the gas from the cube of MUSE",
        "Bins of equal S/N in Halpha; the truth is the same fit to the cube's lines without noise.",
        painted(measured), painted(exact), painted(pulls), pulls[np.isfinite(pulls)], "km/s", "signed", "bins",
    )  # fmt: skip


def _binned(cube: NDArray[np.float32], labels: LabelMap, ids: NDArray[np.int64]) -> Float:
    """Sum the spaxels of every bin: (n_bins, n_wave)."""
    inside = labels.labels >= 0
    members = ids[:, np.newaxis] == labels.labels[inside]
    return np.asarray(members.astype(np.float64) @ cube[:, inside].T.astype(np.float64))


def _spectra_row(spectra: Spectra, true: Float) -> Comparison:
    """Every channel of every bin."""
    good = ~spectra.mask
    data, variance = spectra.data.astype(np.float64), spectra.variance.astype(np.float64)
    pulls = ((data - true) / np.sqrt(variance))[good]
    lags = lag_bands(spectra.correlation, spectra.shape[1]).mean(axis=0)
    allowed = statistical(pulls.size / float(np.sum(lags)))
    # Noise is measured in the cube to about 2 %; left-over sky moves all bins together.
    allowed = Allowed(None, max(allowed.mean or 0.0, 0.05), 0.06)
    return Comparison(
        "ifs", "spectra of bins, every channel", percent_bias(data[good], true[good]), "%", pulls, allowed,
        pulls.size, "Data less the binned truth over the error that the extraction gives. The noise is measured in the"
        " cube itself to 2 %, and what is left of the sky is the same in all bins.",
    )  # fmt: skip


def _flux_row(table: QTable, true: QTable, key: str) -> Comparison:
    measured, exact = (part[f"{key}_flux"].to_value("1e-20 erg / (s cm2)") for part in (table, true))
    error = table[f"{key}_flux_err"].to_value("1e-20 erg / (s cm2)")
    good = np.isfinite(measured) & np.isfinite(exact) & (error > 0)
    pulls = ((measured - exact) / error)[good]
    # The stars' absorption lies below the lines of hydrogen, in channels that their fit leaves out. Ages around its
    # maximum can only be mistaken for weaker absorption: where stars are faint it is a tenth too weak in all bins.
    strict = statistical(pulls.size)
    allowed = Allowed(None, (strict.mean or 0.0) + 0.25, (strict.spread or 0.0) + 0.1)
    return Comparison(
        "ifs", f"flux of {key}", percent_bias(measured[good], exact[good]), "%", pulls, allowed, pulls.size,
        "Of the bins, against the same fit to the cube's emission lines without noise; a quarter of an error is left"
        " to what all bins share, the templates and the left-over sky.",
    )  # fmt: skip


def _emitted_row(files: GalaxyFiles, labels: LabelMap, table: QTable) -> Comparison:
    """Halpha that the fits find against what the scene emits into the same spaxels."""
    emitted = files.cube.line("Halpha").flux
    binned = _binned(emitted[np.newaxis].astype(np.float32), labels, np.asarray(table["id"]))[:, 0]
    measured = table["Halpha_flux"].to_value("erg / (s cm2)")
    return Comparison(
        "ifs", "Halpha of all bins, emitted", percent_bias(measured, binned), "%", np.zeros(0), Allowed(bias=2.0),
        len(table), "Sum of the fits against what the scene emits into the same spaxels: lines are no perfect"
        " Gaussians, and the continuum below them is fitted.",
    )  # fmt: skip


def _kinematics_rows(table: QTable, true: QTable) -> list[Comparison]:
    rows = []
    bright = np.asarray(table["Halpha_snr"]) > KINEMATICS_SNR
    for kind, name in (("velocity", "velocity"), ("sigma", "dispersion")):
        measured, exact, error = (
            part[f"Halpha_{kind}{suffix}"].to_value("km / s")[bright]
            for part, suffix in ((table, ""), (true, ""), (table, "_err"))
        )
        good = np.isfinite(measured) & np.isfinite(exact) & (error > 0)
        pulls = ((measured - exact) / error)[good]
        strict = statistical(pulls.size)
        allowed = Allowed(None, (strict.mean or 0.0) + 0.15, (strict.spread or 0.0) + 0.1)
        rows.append(
            Comparison(
                "ifs", f"{name} of the gas", float(np.mean((measured - exact)[good])), "km/s", pulls, allowed,
                pulls.size, f"Of bins with S/N above {KINEMATICS_SNR:g} in Halpha, the instrument's width taken off;"
                " against the same fit without noise.",
            )
        )  # fmt: skip
    return rows
