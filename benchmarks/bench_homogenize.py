"""CPU time of `homogenize` on the real UDF stamps: nine bands, six objects, products written.

    python benchmarks/bench_homogenize.py [--profile]

Each measurement is a fresh process with a warm numba cache; the clock starts after the imports. Contact sheets and the
HTML report are pictures, and are timed apart.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from measure import DATA, run_code

BANDS = ("f435w", "f606w", "f775w", "f814w", "f850lp", "f105w", "f125w", "f140w", "f160w")
FINE_BANDS = ("f606w", "f775w", "f814w", "f850lp")
OBJECTS = 6
TARGET = 25.0  # ms per object and band


def configuration(data: Path, *, fine: bool = False) -> str:
    """Return the configuration of the nine-band run; ``fine`` takes four bands from the 30 mas files."""
    bands = "\n".join(
        f"  {band}: {{fields: {{scale: 30mas}}}}" if fine and band in FINE_BANDS else f"  {band}:"
        for band in BANDS
    )
    return f"""
recipe: homogenize
objects:
  3:
  15:
  37:
  912:
  919:
  m3: {{source: 3, labels: [centre, 24350]}}
bands:
{bands}
fields: {{scale: 60mas}}
images:
  pattern: {data}/hst_udf/stamps/{{object}}_{{scale}}_{{band}}_sci.fits
  weight: {data}/hst_udf/stamps/{{object}}_{{scale}}_{{band}}_wht.fits
psf:
  stars:
    pattern: {data}/hst_udf/psf_stars/{{star}}_{{scale}}_{{band}}_sci.fits
    weight: {data}/hst_udf/psf_stars/{{star}}_{{scale}}_{{band}}_wht.fits
    names: [1, 2, 3, 4, 5]
segmentation:
  pattern: {data}/hst_udf/segment_maps/udf_mosaic_{{object}}_HST_SEGMAP.fits
target: {{psf: f160w, grid: f160w}}
"""


MEASURE = """
import json, resource, sys, time
from skyloom.recipes.config import load_config
from skyloom.recipes.homogenize.run import homogenize
from skyloom.recipes.homogenize.config import HomogenizeConfig
import skyloom.io.hst, skyloom.io.segmentation, skyloom.report.figures, scipy.ndimage, scipy.special
import numpy
from skyloom.kernels.images.regions import pair_variances
# Numba imports the rest of itself when the first compiled function is loaded; imports do not count.
pair_variances(numpy.ones((1, 1)), numpy.zeros((1, 1), numpy.int32), numpy.ones((1, 1)), 1)
path, out, pictures = sys.argv[1:4]
settings = [f"output.directory={out}", f"output.contact_sheet={pictures}", f"output.report={pictures}"]
config = load_config(path, HomogenizeConfig, settings)
times = []
for _ in range(2):
    start = time.process_time()
    result = homogenize(config, overwrite=True)
    times.append(time.process_time() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"first": times[0], "second": times[1], "peak": peak, "failed": len(result.failures)}))
"""


def measure(config: str, *, pictures: bool) -> dict[str, float]:
    """Run once in a fresh process; return CPU seconds of the first and a second run, and peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "homogenize.yaml"
        path.write_text(config, encoding="utf-8")
        return run_code(MEASURE, path, f"{folder}/out", str(pictures).lower())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    items = OBJECTS * len(BANDS)
    print(
        f"homogenize, {OBJECTS} objects x {len(BANDS)} bands; CPU per object and band, median of {runs} processes"
    )
    for fine in (False, True):
        config = configuration(DATA, fine=fine)
        measure(config, pictures=False)  # fills numba's cache
        for pictures in (False, True):
            found = [measure(config, pictures=pictures) for _ in range(runs)]
            first, second = (
                1e3 * statistics.median(item[key] for item in found) / items for key in ("first", "second")
            )
            peak = statistics.median(item["peak"] for item in found)
            what = ("four bands from 30 mas" if fine else "all at 60 mas") + (
                ", with pictures" if pictures else ""
            )
            target = f"(target {TARGET:g} ms)" if not pictures else ""
            print(
                f"  {what:38s} {first:6.1f} ms; run again in the process {second:6.1f} ms; peak {peak:.0f} MB {target}"
            )


if __name__ == "__main__":
    main()
