"""What every operation on an image keeps, whatever it does."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from skyloom.core import geometry
from skyloom.core.image import Image, Mode, check_correlation

GARBAGE = (np.nan, np.inf, -np.inf, 1e30, -1e30)


def check_invariants(
    operation: Callable[[Image], Image],
    image: Image,
    *,
    changes: Collection[str] = (),
    equivariant: bool = True,
    tolerance: float = 2e-5,
) -> Image:
    """Run ``operation`` on ``image`` and check all that must hold.

    Parameters
    ----------
    operation : callable
        From Image to Image.
    image : Image
        With a WCS, a PSF, a correlation, flags, modes, metadata, history and some masked pixels.
    changes : collection of str
        Fields that the operation is there to change: "wcs", "psf", "correlation", "unit". All others must come
        out as they went in (data, variance and mask may always change). "flags" and "modes" may be dropped only by
        an operation that says so here.
    equivariant : bool
        Whether ``operation(a image) = a operation(image)``.
    tolerance : float
        Relative to the largest value, for the test of equivariance.

    Returns
    -------
    Image
        The result.
    """
    before = _snapshot(image)
    result = operation(image)
    _assert_same(before, _snapshot(image), "the input was changed")
    assert isinstance(result, Image)
    assert result is not image, "an operation returns a new image"
    _check_planes(image, result)
    _check_fields(image, result, changes)
    _check_garbage(operation, image, result)
    if equivariant:
        _check_scaling(operation, image, result, tolerance)
    return result


def _snapshot(image: Image) -> dict[str, Any]:
    fields = {name: getattr(image, name) for name in Image.__dataclass_fields__ if name not in {"wcs", "psf"}}
    kept = copy.deepcopy(fields)
    kept["wcs"] = None if image.wcs is None else image.wcs.to_header_string(relax=True)
    kept["psf"] = None if image.psf is None else image.psf.describe()
    return kept


def _assert_same(first: Any, second: Any, message: str) -> None:
    np.testing.assert_equal(first, second, err_msg=message)


def _check_planes(image: Image, result: Image) -> None:
    for name in ("data", "variance", "mask"):
        assert getattr(result, name).shape == result.shape, name
        assert getattr(result, name).dtype == getattr(image, name).dtype, f"{name} changed its type"
    valid = result.valid
    assert valid.any(), "nothing is left"
    assert np.isfinite(result.data[valid]).all()
    assert (result.variance[valid] > 0).all()
    assert np.isfinite(result.variance[valid]).all()
    for mode in result.modes:
        shared = np.broadcast_to(mode.map, result.shape)
        assert np.isfinite(shared[valid]).all(), mode.name
        assert mode.sigma >= 0


def _check_fields(image: Image, result: Image, changes: Collection[str]) -> None:
    if "unit" not in changes:
        assert result.unit == image.unit, "the unit changed"
    if "wcs" not in changes:
        assert geometry.same_grid(image.wcs, image.shape, result.wcs, result.shape)
    assert result.wcs is not None
    if "psf" in changes:
        assert result.psf is not None, "the PSF was lost"
    else:
        _assert_same(image.psf.describe(), result.psf.describe(), "the PSF changed")
    assert result.correlation is not None, "the noise correlation was lost"
    if "correlation" in changes:
        check_correlation(result.correlation, ndim=2)
    else:
        _assert_same(image.correlation, result.correlation, "the noise correlation changed")
    if "flags" not in changes:
        assert result.flags is not None, "the flags were lost"
    if not {"flags", "wcs"} & set(changes):
        kept = result.valid & image.valid
        assert (result.flags[kept] & image.flags[kept] == image.flags[kept]).all(), "flags were lost"
    missing = {mode.name for mode in image.modes} - {mode.name for mode in result.modes}
    assert "modes" in changes or not missing, f"shared errors were lost: {missing}"
    assert image.meta.items() <= result.meta.items(), "metadata were lost"
    assert result.history[: len(image.history)] == image.history, "the history was changed"
    assert len(result.history) == len(image.history) + 1, "one operation is one step of the history"
    assert result.history[-1].parameters, "the step says nothing"


def _check_garbage(operation: Callable[[Image], Image], image: Image, result: Image) -> None:
    """What lies under the mask must not leak into anything."""
    for garbage in GARBAGE:
        data, variance = image.data.copy(), image.variance.copy()
        data[image.mask] = garbage
        variance[image.mask] = -1.0 if garbage == 1e30 else garbage
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            other = operation(image.evolve(data=data, variance=variance))
        message = f"{garbage} under the mask leaked"
        _assert_same(result.mask, other.mask, message)
        valid = result.valid
        _assert_same(result.data[valid], other.data[valid], message)
        _assert_same(result.variance[valid], other.variance[valid], message)
        _assert_same(result.correlation, other.correlation, message)
        for mine, its in zip(result.modes, other.modes, strict=True):
            assert mine.sigma == its.sigma, message
            maps = (np.broadcast_to(mode.map, result.shape)[valid] for mode in (mine, its))
            _assert_same(*maps, message)


def _check_scaling(
    operation: Callable[[Image], Image], image: Image, result: Image, tolerance: float
) -> None:
    """Twice the light, twice the result; a power of two, so that rounding is the same."""
    factor = image.data.dtype.type(2.0)
    scaled = image.evolve(
        data=image.data * factor,
        variance=image.variance * factor**2,
        modes=tuple(Mode(mode.name, mode.map, mode.sigma * float(factor)) for mode in image.modes),
    )
    other = operation(scaled)
    valid = result.valid
    _assert_same(result.mask, other.mask, "the mask depends on the scale of the data")
    for name, power in (("data", 1), ("variance", 2)):
        mine, its = (getattr(each, name)[valid].astype(float) for each in (result, other))
        np.testing.assert_allclose(
            its / float(factor) ** power,
            mine,
            rtol=tolerance,
            atol=tolerance * np.abs(mine).max(),
            err_msg=name,
        )
