"""Line models of galaxies of the Hubble Ultra Deep Field: residuals beside those of the best band, and CPU time.

SKYLOOM_DATA=... python benchmarks/bench_line_model.py
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.regression.test_line_model_udf import matched_bands, udf_config

from skyloom.errors import AssumptionWarning
from skyloom.imaging.line_models.halves import judge_line_model
from skyloom.imaging.line_models.line_model import fit_line_model


def main() -> None:
    """Print one row per galaxy."""
    warnings.simplefilter("ignore", AssumptionWarning)  # units and coverage, see the test of these galaxies
    data = Path(os.environ.get("SKYLOOM_DATA", "data"))
    columns = "blur (arcsec)   chi2   rms  left out  best band   ratio  CPU s"
    print(f"galaxy  {'weights':45}  {columns}")
    with tempfile.TemporaryDirectory() as folder:
        for name, bands, line_map in matched_bands(udf_config(data, Path(folder))):
            clock = time.process_time()
            model = fit_line_model(bands, line_map, offset="fit")
            used = time.process_time() - clock
            judged = judge_line_model(bands, line_map, offset="fit")
            errors = model.table["weight_err"].value
            weights = "  ".join(
                f"{band} {weight:.0f}+-{error:.0f}"
                for band, weight, error in zip(model.bands, model.weights, errors, strict=True)
            )
            print(
                f"{name:>6}  {weights:45}  {model.blur.fwhm:.3f}+-{model.fwhm_err:.3f}  {model.chi_square:5.1f}"
                f"  {model.residual_rms(model.used & model.residual.valid):4.2f}  {judged.rms:8.2f}"
                f"  {judged.single_rms:5.2f} {judged.single}  {judged.ratio:5.2f}  {used:5.2f}"
            )


if __name__ == "__main__":
    main()
