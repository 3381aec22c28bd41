"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.register_assert_rewrite("tests.invariants", "tests.spectral_invariants")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; the test skips, saying so, where it is absent."""
    folder = Path(os.environ.get("SKYLOOM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        message = f"the folder of real data is absent: {folder} (set SKYLOOM_DATA)"
        if os.environ.get("SKYLOOM_REQUIRE_DATA"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed, fresh for each test."""
    return np.random.default_rng(20240229)
