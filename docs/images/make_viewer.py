"""Make the picture of the page about the viewer: the cube of the demonstration, and the spectrum of a bin.

python docs/images/make_viewer.py [FOLDER]      after 'skyloom demo'; needs Chromium and playwright
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image as Picture

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.browser import open_browser, open_page, serve_in_process  # from the checkout

BIN = (24, 30)


def main(demo: Path, output: Path) -> None:
    """Click on a bin, go to its Halpha, and keep what is seen."""
    with (
        open_browser() as browser,
        serve_in_process(demo / "ifs") as served,
        open_page(browser, served, width=1500, height=1400) as viewer,
    ):
        viewer.wait_for("image-data-1", "model.data.image.length == 1")
        viewer.settle()
        viewer.click_at("image-1", *BIN)
        viewer.wait_for("spectrum-data", "model.data.wave.length > 10")
        viewer.set_value("spectrum-go", "Hα")
        viewer.settle()
        viewer.page.mouse.move(5, 5)
        viewer.page.evaluate("() => { document.activeElement.blur(); window.scrollTo(0, 0); }")
        viewer.settle()
        seen = Picture.open(io.BytesIO(viewer.page.screenshot())).convert("RGB")
    seen.quantize(256, dither=Picture.Dither.NONE).save(output, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "skyloom-demo"), Path(__file__).with_name("viewer.png"))
