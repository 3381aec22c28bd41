"""Figures of the viewer: time to the first picture of a large cube, memory, and what a zoomed view reads.

    python benchmarks/bench_viewer.py [--gigabytes 1] [--folder /tmp]

Needs Chromium and playwright; the cube is written sparsely, with noise in the channels that are looked at.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.browser import open_browser, open_page, serve_in_process  # noqa: E402  # from the checkout
from tests.inputs.viewer_cubes import write_cube  # noqa: E402


def first_picture(browser, served) -> tuple[float, int, int]:
    """Seconds from the request of the page to its first picture, what was read, and the memory of the process."""
    started = time.perf_counter()
    with open_page(browser, served) as page:
        page.wait_for("image-data-1", "model.data.image.length == 1 && model.data.image[0].length > 0")
        seconds = time.perf_counter() - started
        page.wait_for("probe-1", "model.data.total_bytes != null")
        read = page.model("probe-1", "model.data.total_bytes[0]")
        page.set_value("plane-select-1", "1")
        for channel in (8, 80, 800):
            page.set_value("channel-1", channel)
            page.page.wait_for_timeout(400)
    return seconds, read, served.peak_memory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "cube.fits"
        shape = write_cube(path, 1e9 * options.gigabytes)
        print(f"cube {shape}, {path.stat().st_size / 1e9:.2f} GB")
        started = time.perf_counter()
        with open_browser() as browser, serve_in_process(path) as served:
            print(
                f"  the server answers after      {time.perf_counter() - started:6.2f} s (with Chromium's start)"
            )
            for which in ("first", "second"):
                seconds, read, memory = first_picture(browser, served)
                print(f"  first picture, {which:6} page    {seconds:6.2f} s   target < 3 s")
                print(f"  read for it                   {read / 1e6:6.1f} MB")
                print(f"  most memory of the process    {memory / 1e6:6.0f} MB  target < 500 MB")


if __name__ == "__main__":
    main()
