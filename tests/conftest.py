"""Fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from skyloom.store import Store

pytest.register_assert_rewrite(
    "tests.invariants", "tests.spectral_invariants", "tests.report_pages", "tests.figure_audit"
)

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


@pytest.fixture(scope="session")
def sdss_store(data_dir, tmp_path_factory) -> Iterator[Store]:
    """A store with the five frames and all spectra of SDSS, made by the commands; for all tests that read it."""
    from typer.testing import CliRunner

    from skyloom import store
    from skyloom.cli import app

    path = tmp_path_factory.mktemp("sdss") / "sky"
    for arguments in (
        ("create", path),
        ("ingest", path, data_dir / "sdss_frames", data_dir / "sdss_spectra"),
    ):
        result = CliRunner().invoke(app, ["store", *map(str, arguments)])
        assert result.exit_code == 0, (result.output, result.exception)
    with store.open(path) as opened:
        yield opened


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed, fresh for each test."""
    return np.random.default_rng(20240229)


@pytest.fixture
def audited_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure that becomes a PNG in the test is held against the rules of `tests.figure_audit`."""
    from skyloom.report.figures import style
    from tests.figure_audit import AuditedCanvas

    monkeypatch.setattr(style, "FigureCanvasAgg", AuditedCanvas)
