"""Run on its own: open products in Imviz, Cubeviz and Specviz, and write what was loaded.

``python jdaviz_script.py FOLDER`` writes FOLDER/loaded.json and the arrays beside it.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np

warnings.simplefilter("ignore")  # what jdaviz and its own packages say about each other


def loaded(viewer, folder, name):
    """What is in a viewer: label, shape, unit of each; arrays go to files."""
    found = []
    for number, data in enumerate((viewer._app if hasattr(viewer, "_app") else viewer.app).data_collection):
        component = data.main_components[0]
        np.save(folder / f"{name}_{number}.npy", np.asarray(data.get_component(component).data))
        units = {item.label: data.get_component(item).units for item in data.main_components}
        found.append(
            {"label": data.label, "shape": data.shape, "units": units, "coords": str(type(data.coords))}
        )
    return found


def main(folder):
    from jdaviz import Cubeviz, Imviz, Specviz

    told = {}
    for viewer, name, options in (
        (Imviz, "image", {"format": "Image"}),
        (Cubeviz, "cube", {"format": "3D Spectrum"}),
        (Specviz, "spectra", {}),
    ):
        opened = viewer()
        opened.load(str(folder / f"{name}.fits"), **options)
        told[name] = loaded(opened, folder, name)
    (folder / "loaded.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
