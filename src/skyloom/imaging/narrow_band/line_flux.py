"""From the excess of a narrow band to the flux of its line."""

from __future__ import annotations

import warnings
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.image import Image, Mode
from skyloom.core.linelist import default_lines
from skyloom.core.provenance import step
from skyloom.core.threads import blocks, run_blocks
from skyloom.errors import AssumptionWarning, InputError, ShapeError
from skyloom.imaging.narrow_band.lines import dimensionless, line_response, outside_band, ratio_plane

__all__ = ["line_flux"]

Array = NDArray[Any]
TILE = 1 << 16  # Pixels whose intermediate results stay in the cache.
NEGLIGIBLE = 0.01  # Response to [N II], relative to that to Halpha, that nobody has to be told about.


def line_flux(
    excess: Image,
    narrow_band: Bandpass,
    redshift: float,
    nii_ratio: float | ArrayLike | Image | None = None,
    *,
    nii_ratio_err: float | ArrayLike | None = None,
    line: str = "Halpha",
) -> Image:
    """Turn the excess flux density of a narrow band into the flux of its line.

    Parameters
    ----------
    excess : Image
        Mean flux density of the lines over the band (`skyloom.imaging.narrow_band.continuum.subtract_continuum`).
    narrow_band : Bandpass
        Throughput.
    redshift : float
    nii_ratio : float, (ny, nx) array or Image, optional
        [N II] 6583 over Halpha. None: all of the excess is taken for Halpha.
    nii_ratio_err : float or (ny, nx) array, optional
        Standard error of the ratio, shared by all pixels; by default that of the `Image`, if it is one. It may be
        unknown where the ratio is.
    line : str
        Key of the line; [N II] goes with Halpha only.

    Returns
    -------
    Image
        In the unit of ``excess`` times A: the flux of the line. Variance and shared errors are multiplied along; the
        error of the ratio is a shared error, ``NII6583/Halpha``. Masked where a map of ratios is not finite.

    Raises
    ------
    InputError, ShapeError, UnitError
        When the line falls outside the band at this redshift, a ratio is not a number >= 0 or belongs to another
        line, or a map has another shape or a unit.

    Warns
    -----
    AssumptionWarning
        When no ratio is given and the band lets [N II] through.

    Notes
    -----
    ``F(Halpha) = E / (1 / W(Halpha) + q (1 / W(6583) + t / W(6548)))`` with W = int T l dl / (T(l) l) at the observed
    wavelength of the line, q the ratio, and t = [N II] 6548 / 6583 from the line list (Storey & Zeippen 2000,
    10.1046/j.1365-8711.2000.03184.x: 1 / 3.05). An error s of q adds F (1 / W(6583) + t / W(6548)) s / (1 / W(Halpha)
    + ...) with one sign everywhere, since ratios come from smooth maps or from one number.
    """
    lines = default_lines()
    own, nitrogen = _responses(narrow_band, redshift, line)
    if nii_ratio is None and line == "Halpha" and nitrogen > NEGLIGIBLE * own:
        warnings.warn(
            f"no [N II]/Halpha ratio is given, and {narrow_band.name or 'the band'} sees [N II] with "
            f"{nitrogen / own:.2f} of its response to Halpha: the result is Halpha and [N II] together",
            AssumptionWarning,
            stacklevel=2,
        )
    if nii_ratio is not None and line != "Halpha":
        raise InputError(
            f"an [N II]/Halpha ratio is given for {line}", field="nii_ratio", remedy="leave it out"
        )
    if isinstance(nii_ratio, Image):
        nii_ratio = dimensionless(nii_ratio, "NII6583")
    ratio = ratio_plane(0.0 if nii_ratio is None else nii_ratio, excess.shape, "NII6583")
    scaled = _scaled(excess, ratio, own, nitrogen)
    modes = tuple(
        mode._replace(map=_plain(np.asarray(mode.map) * scaled.factor, excess.data.dtype))
        for mode in excess.modes
    )
    error = _ratio_error(nii_ratio, nii_ratio_err, scaled.mask)
    if np.any(np.asarray(error) > 0):
        slope = -scaled.data * scaled.factor * nitrogen
        slope = np.where(scaled.mask, 0.0, slope).astype(excess.data.dtype)
        modes += _ratio_modes(slope, nii_ratio, error, scaled.mask)
    record = step(
        "line_flux",
        line=line,
        redshift=float(redshift),
        wavelength=lines[line].rest_vacuum * (1.0 + redshift),
        width=1.0 / own,
        nii_ratio=None if nii_ratio is None else float(np.nanmedian(ratio)),
        nii_width=1.0 / nitrogen if nitrogen > 0 else None,
        n_without_ratio=int(np.count_nonzero(scaled.mask & ~excess.mask)),
    )
    return excess.evolve(
        record,
        data=scaled.data,
        variance=scaled.variance,
        mask=scaled.mask,
        unit=excess.unit * u.AA,
        modes=modes,
        meta={**excess.meta, "line": line},
    )


class _Scaled:
    """Planes multiplied by one over the response of the band; ``factor`` is a number or a plane."""

    __slots__ = ("data", "factor", "mask", "variance")

    def __init__(self, data: Array, variance: Array, mask: Array, factor: Array | float) -> None:
        self.data, self.variance, self.mask, self.factor = data, variance, mask, factor


def _scaled(excess: Image, ratio: float | Array, own: float, nitrogen: float) -> _Scaled:
    """Multiply data and variance, some rows at a time."""
    kind, spread = excess.data.dtype.type, excess.variance.dtype.type
    if not isinstance(ratio, np.ndarray):
        factor = 1.0 / (own + ratio * nitrogen)
        return _Scaled(
            excess.data * kind(factor), excess.variance * spread(factor**2), excess.mask.copy(), factor
        )
    data, variance, mask = np.empty_like(excess.data), np.empty_like(excess.variance), excess.mask.copy()
    factors = np.empty(excess.shape, kind)

    def work(rows: slice) -> None:
        with np.errstate(
            invalid="ignore", divide="ignore", over="ignore"
        ):  # What is no number is masked below.
            local = 1.0 / (own + ratio[rows].astype(np.float64) * nitrogen)
            usable = (local > 0) & (local < np.inf)
            mask[rows] |= ~usable
            local[~usable] = 0.0
            data[rows] = excess.data[rows] * local
            variance[rows] = excess.variance[rows] * local**2
            factors[rows] = local
        data[rows][mask[rows]] = np.nan
        variance[rows][mask[rows]] = np.nan

    run_blocks(work, blocks(excess.shape[0], max(1, TILE // max(1, excess.shape[1]))))
    return _Scaled(data, variance, mask, factors)


def _responses(band: Bandpass, redshift: float, line: str) -> tuple[float, float]:
    """Return the response to the line, and to both [N II] lines per flux of 6583, in 1/A."""
    lines = default_lines()
    if not np.isfinite(redshift) or redshift <= -1:
        raise InputError(f"redshift is {redshift}; expected a number > -1", field="redshift")
    wave = lines[line].rest_vacuum * (1.0 + redshift)
    own = line_response(band, wave)
    if own <= 0:
        raise outside_band(band, line, wave, redshift)
    if line != "Halpha":
        return own, 0.0
    weaker = lines["NII6548"]
    share = 0.0 if weaker.tied is None else weaker.tied[1]
    nitrogen = line_response(band, lines["NII6583"].rest_vacuum * (1.0 + redshift))
    return own, nitrogen + share * line_response(band, weaker.rest_vacuum * (1.0 + redshift))


def _ratio_error(
    ratio: float | ArrayLike | Image | None, error: float | ArrayLike | None, mask: NDArray[np.bool_]
) -> float | Array:
    """Return the standard error of the ratio: as given, or that of the image; 0 under the mask."""
    if error is not None:
        values: Array = np.asarray(error, dtype=np.float64)
        if values.ndim and values.shape != mask.shape:
            raise ShapeError(
                f"the error of the ratio has shape {values.shape}; expected {mask.shape}",
                field="nii_ratio_err",
            )
        if values.ndim:
            values = np.where(mask, 0.0, values)
        if not np.all(values >= 0):
            raise InputError(
                f"the error of the ratio is {values.min()}; expected >= 0", field="nii_ratio_err"
            )
        return values
    if isinstance(ratio, Image):
        return np.sqrt(np.where(mask, 0.0, ratio.variance))
    return 0.0


def _ratio_modes(
    slope: Array, ratio: float | ArrayLike | Image | None, error: float | Array, mask: NDArray[np.bool_]
) -> tuple[Mode, ...]:
    """Return the shared errors that come from the ratio, 0 under the mask: its own, and those its map shares."""
    own = Mode("NII6583/Halpha", slope * np.asarray(error, dtype=slope.dtype), 1.0)
    if not isinstance(ratio, Image):
        return (own,)
    shared = (
        Mode(
            f"{mode.name} (NII6583/Halpha)",
            slope * np.where(mask, 0, mode.map).astype(slope.dtype),
            mode.sigma,
        )
        for mode in ratio.modes
    )
    return (own, *shared)


def _plain(values: Array, dtype: np.dtype[Any]) -> Any:
    """Return a number for no dimensions, otherwise the array in the type of the image."""
    return float(values) if values.ndim == 0 else values.astype(dtype, copy=False)
