"""Make the picture of the README: the galaxy of the demonstration as each recipe leaves it.

python docs/images/make_demo.py [FOLDER]      after 'skyloom demo'
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image as Picture

from skyloom.recipes.demo.portrait import galaxy_portrait


def main(demo: Path, output: Path) -> None:
    """Draw the products of a demonstration, small enough to keep."""
    picture = Picture.open(io.BytesIO(galaxy_portrait(demo, dpi=120.0))).convert("RGB")
    picture.quantize(256, Picture.Quantize.MAXCOVERAGE, dither=Picture.Dither.NONE).save(
        output, optimize=True
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "skyloom-demo"), Path(__file__).with_name("demo.png"))
