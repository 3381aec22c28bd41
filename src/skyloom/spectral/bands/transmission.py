"""Several transmission curves merged into one, and spectra weighted by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.image import Mode
from skyloom.core.linelist import Medium, convert_medium
from skyloom.core.provenance import step
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError

__all__ = ["MergedTransmission", "merged_transmission", "transmission_weighted"]

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MergedTransmission:
    """The largest transmission among several bands.

    Parameters
    ----------
    bandpass : Bandpass
        The merged curve: exact, with the crossings of the curves among its samples.
    bands : mapping of name to Bandpass
        What it was made of, in one medium.
    """

    bandpass: Bandpass
    bands: Mapping[str, Bandpass]

    def transmission_at(self, wave: ArrayLike, medium: Medium = "vacuum") -> Float:
        """Return the merged transmission at wavelengths in A."""
        return np.max(self._all(wave, medium), axis=0)

    def band_at(self, wave: ArrayLike, medium: Medium = "vacuum") -> NDArray[np.str_]:
        """Return the name of the band with the largest transmission at wavelengths in A; empty where all are 0."""
        curves = self._all(wave, medium)
        names = np.array(["", *self.bands])
        return np.asarray(names[np.where(curves.max(axis=0) > 0, curves.argmax(axis=0) + 1, 0)])

    def _all(self, wave: ArrayLike, medium: Medium) -> Float:
        points = convert_medium(np.asarray(wave, dtype=np.float64), medium, self.bandpass.medium)
        return np.stack([band.throughput_at(points) for band in self.bands.values()])


def merged_transmission(bandpasses: Mapping[str, Bandpass]) -> MergedTransmission:
    """Merge transmission curves: at each wavelength the largest counts.

    Parameters
    ----------
    bandpasses : mapping of name to Bandpass
        Converted to the medium of the first.

    Raises
    ------
    InputError
        When there is none.
    """
    if not bandpasses:
        raise InputError("there is no transmission curve to merge", field="bandpasses")
    medium = next(iter(bandpasses.values())).medium
    bands = {name: band.to_medium(medium) for name, band in bandpasses.items()}
    nodes = np.unique(np.concatenate([_nodes(band) for band in bands.values()]))
    curves = np.stack([band.throughput_at(nodes) for band in bands.values()])
    crossings = [nodes]
    for one, other in combinations(range(len(curves)), 2):
        difference = curves[one] - curves[other]
        at = np.flatnonzero(difference[:-1] * difference[1:] < 0)
        share = difference[at] / (difference[at] - difference[at + 1])
        crossings.append(nodes[at] + share * (nodes[at + 1] - nodes[at]))
    wave = np.unique(np.concatenate(crossings))
    highest = np.max([band.throughput_at(wave) for band in bands.values()], axis=0)
    return MergedTransmission(Bandpass(wave, highest, "+".join(bands), medium), bands)


def _nodes(band: Bandpass) -> Float:
    """Samples of a curve; where it ends with a step, a zero right beyond."""
    outer = np.nextafter(band.wave[[0, -1]], [0.0, np.inf])
    return np.concatenate([outer[:1], band.wave, outer[1:]])


def transmission_weighted(
    spectra: Spectra, transmission: MergedTransmission | Mapping[str, Bandpass]
) -> Spectra:
    """Multiply spectra with the merged transmission of several bands.

    Parameters
    ----------
    spectra : Spectra
    transmission : MergedTransmission or mapping of name to Bandpass

    Returns
    -------
    Spectra
        Data times T and variance times T^2, T being the largest transmission of the bands at each channel, so that
        signal to noise, correlation, mask and resolution are those of before. Channels that no band lets through are
        masked: they hold nothing.

    Raises
    ------
    InputError
        When there is no band, or none lets a channel through.
    """
    merged = (
        transmission if isinstance(transmission, MergedTransmission) else merged_transmission(transmission)
    )
    medium: Medium = "air" if spectra.medium == "air" else "vacuum"
    factor = merged.transmission_at(spectra.wave, medium)
    through = factor > 0
    if not through.any():
        raise InputError(
            f"no band lets anything of {spectra.wave[0]:.0f}-{spectra.wave[-1]:.0f} A through",
            source=merged.bandpass.name or None,
            field="transmission",
        )
    kind = spectra.data.dtype
    squared = (factor**2).astype(spectra.variance.dtype)
    # Where the square of a transmission has no digits left in the type of the variance, nothing comes through.
    through &= squared >= np.finfo(spectra.variance.dtype).tiny * 1e6
    modes = tuple(
        Mode(mode.name, np.asarray(mode.map) * factor * np.ones(spectra.shape), mode.sigma)
        for mode in spectra.modes
    )
    return spectra.evolve(
        step("transmission_weighted", bands=list(merged.bands)),
        data=spectra.data * factor.astype(kind),
        variance=np.where(through, spectra.variance * squared, 1.0).astype(spectra.variance.dtype),
        mask=spectra.mask | ~through,
        modes=modes,
        meta={**spectra.meta, "transmission": list(merged.bands)},
    )
