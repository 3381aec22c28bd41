"""Bins of pixels that reach a signal-to-noise ratio together."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from skyloom.core.image import Image, check_correlation
from skyloom.core.labels import LabelMap
from skyloom.core.noise import truncate_correlation
from skyloom.core.provenance import Step, step
from skyloom.errors import InputError, ShapeError
from skyloom.spectral.bins.quadtree import quadtree_labels
from skyloom.spectral.bins.voronoi import BinField, Progress, voronoi_labels

__all__ = ["METHODS", "bin_to_snr"]

Array = NDArray[Any]
METHODS = ("voronoi", "quadtree")


def bin_to_snr(
    signal: ArrayLike | Image,
    variance: ArrayLike | Image | None,
    target: float,
    method: str = "voronoi",
    mask: ArrayLike | None = None,
    correlation: ArrayLike | None = None,
    *,
    minimum_snr: float | None = None,
    progress: Progress | None = None,
) -> LabelMap:
    """Bin pixels so that each bin reaches a target signal-to-noise ratio.

    Parameters
    ----------
    signal : (ny, nx) array or Image
        An Image brings its variance, mask, noise correlation and WCS; arguments given beside it win (the mask is
        added to its own).
    variance : (ny, nx) array or Image, or None
        In the square of the signal's unit. None: that of the Image.
    target : float
        Signal-to-noise ratio of a bin.
    method : {"voronoi", "quadtree"}
        "voronoi": compact bins of nearly equal S/N. "quadtree": squares with sides of 1, 2, 4, ... pixels.
    mask : (ny, nx) bool array, optional
        True where a pixel must not be used.
    correlation : (k, k) array, optional
        Noise autocorrelation of the pixels, 1 in its centre. None: that of the Image, or independent pixels.
    minimum_snr : float, optional
        Pixels with a lower S/N of their own stay without a bin. It selects pixels whose noise is positive, so that
        bins look brighter than they are; by default no pixel is left out.
    progress : callable, optional
        Called with the steps done and the steps in all ("voronoi" only).

    Returns
    -------
    LabelMap
        Labels from 0 to n - 1; -1 where masked, not finite or without a positive variance. ``meta``: ``method``,
        ``target``, ``n_bins`` and ``remainder``, the list of labels that stay below the target because the data do
        not allow more (see Notes).

    Raises
    ------
    ShapeError
        When arrays differ in shape.
    InputError
        When the target is not > 0, the method is unknown, no pixel is usable, or the variance is missing.

    Notes
    -----
    S/N = ``sum s / sqrt(Var)`` with ``Var = sum_ij sqrt(v_i v_j) rho(x_i - x_j)``, exactly so for the floor: every
    bin that is not a remainder reaches the target in the S/N it was given. Every usable pixel is in one bin and every
    bin is 4-connected. What may stay below the target: a patch without signal, whose pixels would pull their
    neighbours below it (one bin per patch), and patches cut off by masked pixels. Bins are made on noisy data, yet
    they share out the noise of all pixels, so that their S/N holds on average; the exception are single pixels that
    reach the target alone, half of which at the limit do so by luck.

    "voronoi" follows the ideas of Cappellari & Copin 2003 (10.1046/j.1365-8711.2003.06541.x) and Diehl & Statler 2006
    (10.1111/j.1365-2966.2006.10125.x); "quadtree" those of Li et al. 2023 as BETIS uses them
    (10.1051/0004-6361/202348453), with no pixel in two bins.
    """
    if method not in METHODS:
        raise InputError(
            f"there is no method {method!r}", field="method", remedy="choose one of " + ", ".join(METHODS)
        )
    goal = _number(target, "target")
    if not goal > 0:
        raise InputError(f"the target S/N is {target}; expected > 0", field="target")
    field = _field(signal, variance, goal, mask, correlation)
    if minimum_snr is not None:
        field = _bright_enough(field, _number(minimum_snr, "minimum_snr"))
    if method == "voronoi":
        labels, remainder = voronoi_labels(field, progress)
    else:
        labels, remainder = quadtree_labels(field)
    meta = {
        "method": method,
        "target": goal,
        "n_bins": int(labels.max()) + 1,
        "remainder": [int(label) for label in remainder],
    }
    return LabelMap(labels, _wcs(signal), meta, (*_history(signal), _step(meta, field, minimum_snr)))


def _number(value: object, name: str) -> float:
    """Return ``value`` as a finite float."""
    try:
        number = float(value)  # type: ignore[arg-type]  # Anything may come from a user.
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {value!r}; expected a number", field=name) from error
    if not np.isfinite(number):
        raise InputError(f"{name} is {number}; expected a finite number", field=name)
    return number


def _field(
    signal: ArrayLike | Image,
    variance: ArrayLike | Image | None,
    target: float,
    mask: ArrayLike | None,
    correlation: ArrayLike | None,
) -> BinField:
    """Bring the input into one form: float64 planes with zeros where a pixel is unusable."""
    values = _plane(signal, "signal")
    if variance is None:
        if not isinstance(signal, Image):
            raise InputError(
                "there is no variance", field="variance", remedy="give an array, or the signal as an Image"
            )
        noise = np.asarray(signal.variance, dtype=np.float64)
    else:
        noise = _plane(variance, "variance")
    excluded = np.zeros(values.shape, dtype=bool)
    for name, plane in (("variance", noise), *_masks(signal, variance, mask)):
        if plane.shape != values.shape:
            raise ShapeError(
                f"{name} has shape {plane.shape}; expected {values.shape}, the shape of signal", field=name
            )
        if name != "variance":
            excluded |= plane
    good = ~excluded & np.isfinite(values) & np.isfinite(noise)
    good &= np.where(good, noise, 0.0) > 0
    if not good.any():
        raise InputError(
            f"none of the {good.size} pixels is usable",
            field="signal",
            remedy="look at the mask, at NaN in the signal, and for a variance > 0",
        )
    return BinField(
        np.where(good, values, 0.0),
        np.where(good, noise, 0.0),
        good,
        _correlation(signal, correlation),
        target,
    )


def _plane(values: ArrayLike | Image, name: str) -> Array:
    """Return a two-dimensional float64 array."""
    if isinstance(values, Image):
        return np.asarray(values.data, dtype=np.float64)
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} has type {array.dtype}; expected numbers", field=name)
    if array.ndim != 2:
        raise ShapeError(f"{name} has {array.ndim} dimensions; expected 2 (y, x)", field=name)
    return array.astype(np.float64)


def _masks(
    signal: ArrayLike | Image, variance: ArrayLike | Image | None, mask: ArrayLike | None
) -> list[tuple[str, Array]]:
    """All masks that apply."""
    masks = [
        (f"the mask of {name}", image.mask)
        for name, image in (("signal", signal), ("variance", variance))
        if isinstance(image, Image)
    ]
    if mask is not None:
        masks.append(("mask", np.asarray(mask, dtype=bool)))
    return masks


def _correlation(signal: ArrayLike | Image, correlation: ArrayLike | None) -> Array:
    """The noise autocorrelation as a square array; (1, 1) for independent pixels."""
    if correlation is None and isinstance(signal, Image):
        correlation = signal.correlation
    if correlation is None:
        return np.ones((1, 1))
    # A copy: loops are compiled anew for arrays that may not be written to.
    rho = check_correlation(correlation, ndim=2).copy()
    if rho.shape[0] == rho.shape[1]:
        return rho
    return truncate_correlation(rho, lost=0.0)


def _bright_enough(field: BinField, minimum_snr: float) -> BinField:
    """Leave out pixels below a signal-to-noise ratio of their own."""
    good = field.good & (field.signal >= minimum_snr * np.sqrt(field.variance))
    if not good.any():
        raise InputError(
            f"no pixel has an S/N of {minimum_snr:g} or more", field="minimum_snr", remedy="lower it"
        )
    return field._replace(
        signal=np.where(good, field.signal, 0.0), variance=np.where(good, field.variance, 0.0), good=good
    )


def _wcs(signal: ArrayLike | Image) -> WCS | None:
    return signal.wcs if isinstance(signal, Image) else None


def _history(signal: ArrayLike | Image) -> tuple[Step, ...]:
    return signal.history if isinstance(signal, Image) else ()


def _step(meta: dict[str, Any], field: BinField, minimum_snr: float | None) -> Step:
    return step(
        "bin_to_snr",
        method=meta["method"],
        target=meta["target"],
        minimum_snr=minimum_snr,
        correlation_sum=float(field.correlation.sum()),
        n_bins=meta["n_bins"],
        n_remainder=len(meta["remainder"]),
        n_pixels=int(np.count_nonzero(field.good)),
    )
