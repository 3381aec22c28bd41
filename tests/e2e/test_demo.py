"""The demonstration that a new user runs first."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from skyloom.recipes.demo import compare_with_truth


@pytest.mark.slow
def test_the_demo_ends_with_a_report_and_fluxes_near_the_truth(tmp_path):
    command = [sys.executable, "-m", "skyloom.cli", "demo", "--out", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = tmp_path / "demo" / "homogenized" / "report.html"
    assert f"report: {report}" in done.stdout
    page = report.read_text(encoding="utf-8")
    for link in re.findall(r'href="([^"#][^"]*)"', page):
        assert (report.parent / link).exists(), link
    assert page.count('src="data:image/png;base64,') >= 3 + 3 + 1

    table = compare_with_truth(tmp_path / "demo")
    assert len(table) == 15
    # The mask leaves out the outskirts, and holds some light of neighbours.
    assert np.all(np.abs(table["ratio"] - 1) < 0.05), table["ratio"]
    assert "flux inside the masks over the true flux: 0.9" in done.stdout
