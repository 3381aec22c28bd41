"""The check of the invariants of cubes and spectra catches operations that break them."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.cube import CubeCorrelation
from skyloom.core.provenance import step
from tests.spectral_invariants import check_spectral_invariants, make_cube, make_spectra


def shifted(subject):
    """An honest operation that changes nothing but the data."""
    return subject.evolve(
        step("add", level=0.0), data=subject.data * np.float32(3), variance=subject.variance * np.float32(9)
    )


def mutate(subject):
    subject.data[3, 5] = 0
    return subject.evolve(step("mutate", pixel=5), data=subject.data.copy())


def leak(subject):
    level = np.float32(np.where(np.isfinite(subject.data), subject.data, 0).mean())
    return subject.evolve(step("leak", level=float(level)), data=subject.data - level)


def changed(**fields):
    return lambda subject: subject.evolve(step("a", b=1), data=subject.data.copy(), **fields)


BAD = {
    "mutate": (mutate, "the input was changed"),
    "itself": (lambda subject: subject, "returns a new object"),
    "silent": (lambda subject: subject.evolve(data=subject.data.copy()), "one operation is one step"),
    "view": (lambda subject: subject.evolve(step("a", b=1)), "a view of the input"),
    "unit": (changed(unit="Jy"), "the unit changed"),
    "lsf": (changed(lsf=None), "line-spread function was lost"),
    "other lsf": (changed(lsf=2.0), "the LSF changed"),
    "modes": (changed(modes=()), "shared errors were lost"),
    "correlation": (changed(correlation=None), "correlation was lost"),
    "flags": (changed(flags=None), "flags were lost"),
    "medium": (changed(medium="vacuum"), "the medium changed"),
    "meta": (changed(meta={}), "metadata were lost"),
    "leak": (leak, "under the mask leaked"),
    "scale": (
        lambda subject: subject.evolve(
            step("a", b=1), data=subject.data.copy(), variance=subject.variance + np.float32(1.0)
        ),
        "variance",
    ),
}


@pytest.mark.parametrize("make", [make_cube, make_spectra])
def test_an_honest_operation_passes(make):
    check_spectral_invariants(shifted, make())


@pytest.mark.parametrize("name", BAD)
def test_a_bad_operation_is_caught(name):
    operation, message = BAD[name]
    with pytest.raises(AssertionError, match=message):
        check_spectral_invariants(operation, make_cube())


def test_a_band_that_is_not_symmetric_is_caught():
    spectra = make_spectra()
    band = spectra.correlation.copy()
    band[40, 4] += 0.1
    with pytest.raises(AssertionError, match="not symmetric"):
        check_spectral_invariants(changed(correlation=band), spectra, changes=("correlation",))


def test_a_lost_spatial_correlation_is_caught():
    cube = make_cube()
    bare = changed(correlation=CubeCorrelation(None, cube.correlation.spectral))
    with pytest.raises(AssertionError, match="spatial correlation was lost"):
        check_spectral_invariants(bare, cube)
