"""A store whose observations have no pixels: its index alone, of any size."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

SEED = 6


def write_part_of(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Write the table of a part whose observations have no pixels."""
    import h5py

    from skyloom.store.files.parts import OBSERVATIONS
    from skyloom.store.schema import SCHEMA_VERSION, StoreSettings

    path.parent.mkdir(parents=True)
    with h5py.File(path, "w", libver="v110") as file:
        for name, values in columns.items():
            file[f"{OBSERVATIONS}/{name}"] = values
        settings = json.dumps(StoreSettings().describe())
        file.attrs.update(schema=SCHEMA_VERSION, settings=settings, digest=path.stem, complete=True)


def write_index(place: Path, number: int) -> float:
    """Write a store of mock observations, and its index; return the CPU of the latter."""
    from skyloom.mock.sdss.observations import mock_observations
    from skyloom.store.files.folder import make_folder
    from skyloom.store.files.manifest import PartEntry, append_part
    from skyloom.store.files.master_writer import write_master

    make_folder(place)
    name = "partitions/0-0/mock.h5"
    write_part_of(place / name, mock_observations(number, seed=SEED))
    append_part(place, PartEntry(name, number, "mock", 0))
    start = time.process_time()
    write_master(place)
    return time.process_time() - start
