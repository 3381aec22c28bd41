"""Make the picture of the README: a contact sheet of the merger of the demonstration, small enough to keep.

python docs/images/make_sheet.py      after 'skyloom demo'
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image as Picture

from skyloom.recipes.config import load_config
from skyloom.recipes.homogenize.config import HomogenizeConfig
from skyloom.recipes.homogenize.inputs import object_mask, prepare, read_image, target_grid
from skyloom.recipes.homogenize.run import homogenize_band
from skyloom.report.figures import BandRow, contact_sheet

BANDS = ("f435w", "f814w", "f160w")
OBJECT = "3"


def main(demo: Path, output: Path) -> None:
    """Treat one object of the demonstration in three bands, and draw it."""
    bands = f"bands=[{', '.join(BANDS)}]"
    config = load_config(demo / "mock" / "homogenize.yaml", HomogenizeConfig, [bands])
    preparation = prepare(config)
    files = config.object_files(OBJECT)
    natives = {item.band: read_image(config.bands[item.band], item) for item in files.bands}
    grid = target_grid(config, files, natives)
    mask = object_mask(config, files, grid)
    rows = []
    for item in files.bands:
        product = homogenize_band(preparation, item, natives[item.band], grid, mask)
        rows.append(BandRow(item.band, product.native, product.matched, mask.inside, mask.inside))
    sheet = Picture.open(io.BytesIO(contact_sheet("a mock merger", rows, dpi=100))).convert("RGB")
    sheet.quantize(256, Picture.Quantize.MAXCOVERAGE, dither=Picture.Dither.NONE).save(output, optimize=True)


if __name__ == "__main__":
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else "skyloom-demo"),
        Path(__file__).with_name("contact_sheet.png"),
    )
