"""`LineMaps`: values of bins as maps, painted when they are asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.linelist import LineList
from skyloom.core.provenance import Step
from skyloom.core.psf import PSF
from skyloom.errors import ShapeError

__all__ = ["NOT_BINNED", "PER", "SHARED_ERRORS", "BinValues", "LineMaps"]

Float = NDArray[np.float64]

NOT_BINNED = 1 << 15
"""Bit of the planes of flags and classes: the pixel belongs to no bin that was fitted."""

PER = ("bin", "spaxel_area", "arcsec2")
SHARED_ERRORS = "errors_shared_within"
"""Key of `Image.meta`: what the pixels have to have in common ("bins") to share one error."""


class BinValues(NamedTuple):
    """A value for every bin.

    ``variance`` is None where no error is known. ``additive`` tells fluxes, which can be summed, from velocities and
    ratios, which cannot.
    """

    values: Float
    variance: Float | None
    unit: u.UnitBase
    additive: bool = False
    wavelength: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LineMaps(Mapping[str, Image]):
    """Maps of lines: a mapping of names like ``Halpha_flux`` to Images, and planes of flags.

    An Image is painted when it is asked for, so that the maps of forty lines need no more memory than the table.

    Parameters
    ----------
    quantities : mapping of name to BinValues
        (n,) values for the n bins that were fitted.
    codes : mapping of name to (n,) int array
        Flags and classes of the bins.
    rows : (ny, nx) int32 array
        Which of the n each pixel takes; -1: none.
    bins : (ny, nx) int32 array
        Numbers of the bins, as the user knows them; negative: none.
    per : {"bin", "spaxel_area", "arcsec2"}
        What fluxes are given per.
    lines : LineList
    medium : {"air", "vacuum"}
        Of the wavelengths of the spectra.
    redshift : (n,) array
        What velocities refer to; for spectra in the rest frame 0.
    wcs : astropy.wcs.WCS or None
    correlation : (k, k) array, optional
        Noise autocorrelation between spaxels of the cube.
    psf : PSF, optional
    meanings : mapping of name to mapping of int to str
        What bits or classes in ``codes`` stand for.
    meta, history
        As for `skyloom.Image`.

    Notes
    -----
    All pixels of a bin of several pixels share one error: ``variance`` of a painted Image is that of the value in each
    pixel, and sums of pixels do not follow from it. Such an Image says so in ``meta["errors_shared_within"]``, and
    sums over regions or apertures refuse it; `skyloom.spectral.gas.maps.sum_bins` makes them with the right error.
    """

    quantities: Mapping[str, BinValues]
    codes: Mapping[str, NDArray[np.int64]]
    rows: NDArray[np.int32]
    bins: NDArray[np.int32]
    per: str
    lines: LineList
    medium: str
    redshift: Float
    wcs: WCS | None = None
    correlation: Float | None = None
    psf: PSF | None = None
    meanings: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    history: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        n = len(self)
        if self.rows.shape != self.bins.shape:
            raise ShapeError(
                f"rows have shape {self.rows.shape}; expected {self.bins.shape}, that of bins", field="rows"
            )
        for name, item in self.quantities.items():
            for plane in (item.values, item.variance):
                if plane is not None and plane.shape != (self.n_bins,):
                    raise ShapeError(f"{name} has shape {plane.shape}; expected ({self.n_bins},)", field=name)
        for name, code in self.codes.items():
            if code.shape != (self.n_bins,):
                raise ShapeError(f"{name} has shape {code.shape}; expected ({self.n_bins},)", field=name)
        if n == 0:
            raise ShapeError("there is no map", field="quantities")

    def __len__(self) -> int:
        return len(self.quantities)

    def __iter__(self) -> Iterator[str]:
        return iter(self.quantities)

    def __contains__(self, name: object) -> bool:
        return name in self.quantities

    def __getitem__(self, name: str) -> Image:
        if name not in self.quantities:
            near = difflib.get_close_matches(name, list(self.quantities), n=1, cutoff=0.4)
            raise KeyError(f"there is no map {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        item = self.quantities[name]
        return self.paint(
            item.values * item.unit,
            None if item.variance is None else item.variance * item.unit**2,
            wavelength=item.wavelength,
            name=name,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        ny, nx = self.rows.shape
        return ny, nx

    @property
    def n_bins(self) -> int:
        """How many bins were fitted."""
        return int(self.redshift.size)

    @property
    def n_pixels(self) -> NDArray[np.int64]:
        """(n,) pixels of each bin on the map."""
        return np.bincount(self.rows[self.rows >= 0], minlength=self.n_bins)

    @property
    def shares_errors(self) -> bool:
        """Whether some bin has several pixels."""
        return bool(np.any(self.n_pixels > 1))

    def paint(
        self,
        values: u.Quantity,
        variance: u.Quantity | None = None,
        *,
        wavelength: float | None = None,
        name: str = "",
    ) -> Image:
        """Paint (n,) values of the bins; pixels without a bin, a value or a positive variance are masked.

        Where no variance is known it is 1 in every pixel, and ``meta["variance_known"]`` is False.
        """
        painted = self.spread(np.asarray(values.value, dtype=np.float64))
        plane = (
            np.ones(self.shape)
            if variance is None
            else self.spread(np.asarray(variance.to_value(values.unit**2), dtype=np.float64))
        )
        with np.errstate(invalid="ignore"):  # NaN is not positive
            mask = ~(np.isfinite(painted) & np.isfinite(plane) & (plane > 0))
        shared = self.shares_errors
        meta = {**self.meta, "variance_known": variance is not None, "per": self.per, "map": name}
        if shared:
            meta[SHARED_ERRORS] = "bins"
        at_line = None if self.psf is None or shared or wavelength is None else self.psf.at(wavelength)
        return Image(
            painted, plane, mask, values.unit, self.wcs, psf=at_line,
            correlation=None if shared else self.correlation, meta=meta, history=self.history,
        )  # fmt: skip

    def spread(self, values: Float) -> Float:
        """(ny, nx) map of (n,) values, NaN where there is no bin."""
        return np.asarray(np.append(values, np.nan)[self.rows])  # -1 takes the last

    def code_plane(self, name: str) -> NDArray[np.int32]:
        """(ny, nx) flags or classes, `NOT_BINNED` where no bin was fitted."""
        table = np.append(self.codes[name], NOT_BINNED).astype(np.int32)
        return np.asarray(table[self.rows])

    def evolve(self, step: Step | None = None, **changes: Any) -> LineMaps:
        """Return new maps with ``changes`` made and ``step`` added to the history."""
        if step is not None:
            changes["history"] = (*changes.get("history", self.history), step)
        changed: LineMaps = replace(self, **changes)
        return changed
