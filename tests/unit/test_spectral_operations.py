"""Operations on cubes and spectra keep what they must; one that is not listed here fails a test."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from skyloom.spectral.axes.extinction import deredden
from skyloom.spectral.axes.prepare import prepare_cube
from skyloom.spectral.axes.resample import resample
from skyloom.spectral.axes.rest_frame import to_rest_frame
from tests.spectral_invariants import check_spectral_invariants, make_cube, make_spectra

MODULES = ("axes.extinction", "axes.prepare", "axes.resample", "axes.rest_frame", "noise.sky_residuals")
FRAME = ("wave", "lsf", "psf")
GRID = ("wave", "lsf", "correlation", "mask")


@dataclass
class Operation:
    """An operation, its options, and what it is there to change."""

    function: Any
    options: dict[str, Any]
    changes: tuple[str, ...] = ()


OPERATIONS = {
    "to_rest_frame": Operation(to_rest_frame, {"redshift": 0.0885}, FRAME),
    "deredden, A_V": Operation(deredden, {"av": 0.7}),
    "deredden, E(B-V)": Operation(deredden, {"ebv": 0.2, "r_v": 3.5, "curve": "odonnell94"}),
    "prepare_cube": Operation(prepare_cube, {"redshift": 0.0885, "av": 0.7}, FRAME),
    "prepare_cube, dust alone": Operation(prepare_cube, {"ebv": 0.1, "curve": "ccm89"}),
    "prepare_cube, nothing": Operation(prepare_cube, {}),
    "resample, finer": Operation(resample, {"step": 1.0}, GRID),
    "resample, coarser": Operation(resample, {"step": 3.1}, GRID),
    "resample, log": Operation(resample, {"step": 1e-4, "sampling": "log"}, GRID),
    "resample, given": Operation(resample, {"wave": np.arange(6480.0, 6590.0, 0.7)}, GRID),
}


def of_cubes(name):
    return OPERATIONS[name].function is prepare_cube


@pytest.mark.parametrize("sampling", ["linear", "log"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_on_a_cube_keeps_what_it_must(name, dtype, sampling):
    operation = OPERATIONS[name]
    check_spectral_invariants(
        lambda cube: operation.function(cube, **operation.options),
        make_cube(dtype, sampling=sampling),
        changes=operation.changes,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if not of_cubes(name)])
def test_an_operation_on_spectra_keeps_what_it_must(name, dtype):
    operation = OPERATIONS[name]
    check_spectral_invariants(
        lambda spectra: operation.function(spectra, **operation.options),
        make_spectra(dtype),
        changes=operation.changes,
    )


def public_operations():
    """Every public function of these modules that takes a cube or spectra first and returns the same."""
    for name in MODULES:
        module = importlib.import_module(f"skyloom.spectral.{name}")
        for item in module.__all__:
            function = getattr(module, item)
            if not inspect.isfunction(function):
                continue
            signature = inspect.signature(function)
            first = next(iter(signature.parameters.values()), None)
            if first is None or first.annotation not in ("Subject", "Cube", "Spectra"):
                continue
            if signature.return_annotation == first.annotation:
                yield function


def test_every_operation_is_listed():
    found = {function.__name__ for function in public_operations()}
    assert found == {operation.function.__name__ for operation in OPERATIONS.values()}
