"""What every operation on cubes and spectra keeps, whatever it does; and subjects that have everything to lose.

`check_spectral_invariants` is the twin of `tests.invariants.check_invariants` for `Cube` and `Spectra`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import numpy as np
from astropy.wcs import WCS

from skyloom.core import geometry
from skyloom.core.cube import Cube, CubeCorrelation, check_lags
from skyloom.core.image import Flag, Mode, check_correlation
from skyloom.core.provenance import step
from skyloom.core.psf import ChromaticPSF, GaussianPSF
from skyloom.core.spectra import Spectra

GARBAGE = (np.nan, np.inf, -np.inf, 1e30, -1e30)
Subject = TypeVar("Subject", Cube, Spectra)
LAGS = np.array([0.05, 0.4, 1.0, 0.4, 0.05])


def make_wcs(scale: float = 0.2) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [53.1, -27.8]
    wcs.wcs.crpix = [3.0, 3.0]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    return wcs


def make_wave(sampling: str, n_wave: int) -> np.ndarray:
    if sampling == "log":
        return 10 ** (np.log10(6500.0) + 1e-4 * np.arange(n_wave))
    return 6500.0 + 1.25 * np.arange(n_wave)


def _planes(shape: tuple[int, ...], dtype: Any, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.005
    mask[..., -1] |= rng.random(shape[:-1]) < 0.3
    gradient = np.linspace(1.0, 2.0, shape[0]).reshape((-1,) + (1,) * (len(shape) - 1))
    return {
        "data": (rng.normal(0, 1, shape) + 5.0).astype(dtype),
        "variance": (gradient * (1 + 0.1 * rng.random(shape))).astype(dtype),
        "mask": mask,
        "unit": "1e-20 erg / (s cm2 AA)",
        "flags": np.where(rng.random(shape) < 0.05, Flag.NEAR_SATURATED, 0).astype(np.uint16),
        "modes": (
            Mode("sky level", (gradient * rng.normal(0, 1, shape)).astype(dtype), 0.1),
            Mode("pedestal", 1.0, 0.02),
        ),
        "meta": {"instrument": "MUSE", "object": "a galaxy"},
        "history": (step("read", path="a.fits"),),
    }


def make_cube(
    dtype: Any = np.float32, *, n_wave: int = 80, shape: tuple[int, int] = (6, 7), sampling: str = "linear"
) -> Cube:
    """A cube with everything that a cube can have: a chromatic PSF, a LSF per voxel, both correlations, modes."""
    wave = make_wave(sampling, n_wave)
    y, x = np.indices(shape)
    return Cube(
        **_planes((n_wave, *shape), dtype, 7),
        wcs=make_wcs(),
        wave=wave,
        medium="air",
        lsf=(1.1 + 1e-4 * (wave - wave[0]))[:, None, None] + 0.01 * (x + y),
        psf=ChromaticPSF(wave[[0, -1]], (GaussianPSF(0.7), GaussianPSF(0.6))),
        correlation=CubeCorrelation(np.outer([0.2, 1.0, 0.2], [0.3, 1.0, 0.3]), LAGS),
    )


def make_spectra(
    dtype: Any = np.float32, *, n: int = 9, n_wave: int = 80, sampling: str = "linear"
) -> Spectra:
    """Spectra with everything that spectra can have: a band of lags per wavelength, a LSF per voxel, modes."""
    wave = make_wave(sampling, n_wave)
    band = np.tile(LAGS, (n_wave, 1))
    band[0, :2] = band[1, 0] = band[-1, 3:] = band[-2, 4] = 0.0
    return Spectra(
        **_planes((n, n_wave), dtype, 8),
        wave=wave,
        medium="vacuum",
        lsf=1.1 + 0.01 * np.arange(n)[:, None] + 1e-4 * (wave - wave[0]),
        correlation=band,
    )


def check_spectral_invariants(
    operation: Callable[[Subject], Subject],
    subject: Subject,
    *,
    changes: Collection[str] = (),
    equivariant: bool = True,
    tolerance: float = 2e-5,
) -> Subject:
    """Run ``operation`` on ``subject`` and check all that must hold.

    Parameters
    ----------
    operation : callable
        From Cube to Cube, or from Spectra to Spectra; what it returns may also be the other of the two.
    subject : Cube or Spectra
        From `make_cube` or `make_spectra`.
    changes : collection of str
        What the operation is there to change: "wave", "lsf", "correlation", "unit", "wcs", "psf", "mask", "shape",
        "kind" (Cube to Spectra). All others must come out as they went in (data and variance may always change,
        modes and flags must not be lost). With "wave" the mask, the LSF and the PSF's wavelengths may change too.
    equivariant : bool
        Whether ``operation(a subject) = a operation(subject)``.
    tolerance : float
        Relative to the largest value, for the test of equivariance.

    Returns
    -------
    Cube or Spectra
        The result.
    """
    before = _snapshot(subject)
    result = operation(subject)
    _assert_same(before, _snapshot(subject), "the input was changed")
    assert isinstance(result, (Cube, Spectra) if "kind" in changes else type(subject))
    assert result is not subject, "an operation returns a new object"
    _check_planes(subject, result, changes)
    _check_axis(subject, result, changes)
    _check_fields(subject, result, changes)
    _check_correlation(subject, result, changes)
    _check_garbage(operation, subject, result)
    if equivariant:
        _check_scaling(operation, subject, result, tolerance)
    return result


def _snapshot(subject: Cube | Spectra) -> dict[str, Any]:
    names = set(subject.__dataclass_fields__) - {"wcs", "psf"}
    kept: dict[str, Any] = copy.deepcopy({name: getattr(subject, name) for name in names})
    if isinstance(subject, Cube):
        kept["wcs"] = None if subject.wcs is None else subject.wcs.to_header_string(relax=True)
        kept["psf"] = None if subject.psf is None else subject.psf.describe()
    return kept


def _assert_same(first: Any, second: Any, message: str) -> None:
    np.testing.assert_equal(first, second, err_msg=message)


def _check_planes(subject: Any, result: Any, changes: Collection[str]) -> None:
    for name in ("data", "variance", "mask"):
        plane = getattr(result, name)
        assert plane.shape == result.data.shape, name
        assert plane.dtype == getattr(subject, name).dtype, f"{name} changed its type"
        assert not np.shares_memory(plane, subject.data), f"{name} is a view of the input's data"
    valid = result.valid
    assert valid.any(), "nothing is left"
    assert np.isfinite(result.data[valid]).all()
    assert (result.variance[valid] > 0).all()
    assert np.isfinite(result.variance[valid]).all()
    if not {"shape", "wave", "kind"} & set(changes):
        assert result.shape == subject.shape, "the shape changed"
        if "mask" not in changes:
            _assert_same(subject.mask, result.mask, "the mask changed")
    missing = {mode.name for mode in subject.modes} - {mode.name for mode in result.modes}
    assert not missing, f"shared errors were lost: {missing}"
    for mode in result.modes:
        assert np.isfinite(np.broadcast_to(mode.map, result.shape)[valid]).all(), mode.name
        assert mode.sigma >= 0


def _check_axis(subject: Any, result: Any, changes: Collection[str]) -> None:
    n_wave = result.wave.size
    assert result.medium == subject.medium or "medium" in changes, "the medium changed"
    if "wave" not in changes:
        _assert_same(subject.wave, result.wave, "the wavelengths changed")
    assert result.lsf is not None, "the line-spread function was lost"
    assert np.all(np.asarray(result.lsf) > 0)
    allowed = {(), (n_wave,), result.shape}
    assert np.shape(result.lsf) in allowed, f"the LSF has shape {np.shape(result.lsf)}"
    if not {"wave", "lsf", "kind"} & set(changes):
        _assert_same(subject.lsf, result.lsf, "the LSF changed")


def _check_fields(subject: Any, result: Any, changes: Collection[str]) -> None:
    if "unit" not in changes:
        assert result.unit == subject.unit, "the unit changed"
    assert result.flags is not None, "the flags were lost"
    if result.shape == subject.shape and "wave" not in changes:
        kept = result.valid & subject.valid
        assert (result.flags[kept] & subject.flags[kept] == subject.flags[kept]).all(), "flags were lost"
    else:
        assert np.any(result.flags[result.valid]), "flags were lost"
    if isinstance(result, Cube) and isinstance(subject, Cube):
        _check_place(subject, result, changes)
    assert subject.meta.items() <= result.meta.items(), "metadata were lost"
    assert result.history[: len(subject.history)] == subject.history, "the history was changed"
    assert len(result.history) == len(subject.history) + 1, "one operation is one step of the history"
    assert result.history[-1].parameters, "the step says nothing"


def _check_place(subject: Cube, result: Cube, changes: Collection[str]) -> None:
    assert result.wcs is not None, "the WCS was lost"
    if "wcs" not in changes:
        shapes = subject.shape[1:], result.shape[1:]
        assert geometry.same_grid(subject.wcs, shapes[0], result.wcs, shapes[1]), "the WCS changed"
    assert result.psf is not None, "the PSF was lost"
    if not {"psf", "wave"} & set(changes):
        _assert_same(subject.psf.describe(), result.psf.describe(), "the PSF changed")


def _lags(subject: Any) -> Any:
    return subject.correlation.spectral if isinstance(subject, Cube) else subject.correlation


def _check_correlation(subject: Any, result: Any, changes: Collection[str]) -> None:
    assert result.correlation is not None, "the noise correlation was lost"
    assert _lags(result) is not None, "the correlation along wavelength was lost"
    if "correlation" not in changes:
        _assert_same(_lags(subject), _lags(result), "the correlation along wavelength changed")
    _check_lags(_lags(result), result.wave.size)
    if isinstance(result, Cube) and isinstance(subject, Cube):
        assert result.correlation.spatial is not None, "the spatial correlation was lost"
        if "spatial correlation" not in changes:
            _assert_same(
                subject.correlation.spatial, result.correlation.spatial, "the spatial correlation changed"
            )
        check_correlation(result.correlation.spatial, ndim=2)


def _check_lags(lags: Any, n_wave: int) -> None:
    """A band: 1 in the middle, symmetric as a matrix, nothing beyond the ends of the axis."""
    check_lags(lags, n_wave)
    if lags.ndim == 1:
        return
    radius = lags.shape[1] // 2
    np.testing.assert_allclose(lags[:, radius], 1.0, atol=1e-9)
    for lag in range(1, radius + 1):
        upper = lags[: n_wave - lag, radius + lag]
        lower = lags[lag:, radius - lag]
        np.testing.assert_allclose(upper, lower, atol=1e-9, err_msg="the band of lags is not symmetric")
        assert not lags[n_wave - lag :, radius + lag].any(), "lags beyond the red end"
        assert not lags[:lag, radius - lag].any(), "lags beyond the blue end"


def _check_garbage(operation: Callable[[Any], Any], subject: Any, result: Any) -> None:
    """What lies under the mask must not leak into anything."""
    for garbage in GARBAGE:
        data, variance = subject.data.copy(), subject.variance.copy()
        data[subject.mask] = garbage
        variance[subject.mask] = -1.0 if garbage == 1e30 else garbage
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            other = operation(subject.evolve(data=data, variance=variance))
        message = f"{garbage} under the mask leaked"
        _assert_same(result.mask, other.mask, message)
        valid = result.valid
        _assert_same(result.data[valid], other.data[valid], message)
        _assert_same(result.variance[valid], other.variance[valid], message)
        _assert_same(_lags(result), _lags(other), message)
        for mine, its in zip(result.modes, other.modes, strict=True):
            assert mine.sigma == its.sigma, message
            maps = (np.broadcast_to(mode.map, result.shape)[valid] for mode in (mine, its))
            _assert_same(*maps, message)


def _check_scaling(operation: Callable[[Any], Any], subject: Any, result: Any, tolerance: float) -> None:
    """Twice the light, twice the result; a power of two, so that rounding is the same."""
    factor = subject.data.dtype.type(2.0)
    scaled = subject.evolve(
        data=subject.data * factor,
        variance=subject.variance * factor**2,
        modes=tuple(Mode(mode.name, mode.map, mode.sigma * float(factor)) for mode in subject.modes),
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
    np.testing.assert_allclose(_lags(other), _lags(result), atol=tolerance, err_msg="correlation")
