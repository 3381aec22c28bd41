"""The files of a store at the size of a survey: what each costs in journal and index, and how the sky is divided."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mock_index import SEED, write_part_of
from store_scale_index import peak, timed
from store_table import child, show

SCRIPT = "store_scale_parts.py"
ROWS = 20
"""Observations of the small parts that are really there."""
SPECTRA, WAVES = 50, 4772
FRAME_PIXELS, SPECTRUM_PIXELS = 2048 * 1489, 60_000
SAMPLE = 2_500_000
TARGETS = (1 << 29, 1 << 31, 1 << 33)


def many_parts(folder: str, number: str) -> dict[str, Any]:
    """Write small parts; return what each costs when the index is made of them, and made anew with one more."""
    from skyloom.mock.sdss.observations import mock_observations
    from skyloom.store.files.folder import make_folder
    from skyloom.store.files.manifest import PartEntry, append_part
    from skyloom.store.files.master_writer import write_master

    store, parts = Path(folder), int(number)
    make_folder(store)
    columns = mock_observations(ROWS * (parts + 1), seed=SEED, where="sdss")

    def add(part: int) -> None:
        name = f"partitions/5-{part}/mock.h5"
        own = {key: values[part * ROWS : (part + 1) * ROWS] for key, values in columns.items()}
        write_part_of(store / name, own)
        append_part(store, PartEntry(name, ROWS, "mock", (store / name).stat().st_size))

    for part in range(parts):
        add(part)
    first = timed(lambda: write_master(store))[1]
    add(parts)
    return {"first": first, "again": timed(lambda: write_master(store))[1], "peak": peak()}


def journal(folder: str, number: str) -> dict[str, Any]:
    """Read a journal of many parts."""
    from skyloom.store.files.manifest import MANIFEST_NAME, Manifest

    store = Path(folder)
    store.mkdir()
    with (store / MANIFEST_NAME).open("w") as file:
        for part in range(int(number)):
            line = {"part": f"partitions/5-{part // 30}/{part:016x}.h5", "n": 14}
            file.write(json.dumps({**line, "digest": f"{part:064x}", "bytes": 280_000_000}) + "\n")
    _, cpu, _ = timed(lambda: Manifest.read(store))
    return {"cpu": cpu, "bytes": (store / MANIFEST_NAME).stat().st_size}


def external(folder: str, number: str) -> dict[str, Any]:
    """Write links to many files and one virtual array over a tenth of them, as the index does, and open them."""
    import h5py

    path, parts = Path(folder), int(number)

    def write() -> None:
        with h5py.File(path, "w", libver="v110") as file:
            group = file.create_group("partitions")
            for part in range(parts):
                group[f"5-{part}"] = h5py.ExternalLink(f"partitions/5-{part}/mock.h5", "/")

    def write_virtual() -> None:
        layout = h5py.VirtualLayout((parts // 10 * SPECTRA, WAVES), "f4")
        for part in range(parts // 10):
            source = h5py.VirtualSource(f"partitions/5-{part}/mock.h5", "0/spectra/flux", (SPECTRA, WAVES))
            layout[part * SPECTRA : (part + 1) * SPECTRA] = source
        with h5py.File(path, "a", libver="v110") as file:
            file.create_virtual_dataset("flux", layout)

    figures = {"links": timed(write)[1], "bytes": path.stat().st_size}
    figures["virtual"] = timed(write_virtual)[1]

    def look() -> None:
        with h5py.File(path, "r") as file:
            figures["open"] = timed(lambda: len(file["partitions"]))[1]
            figures["row"] = timed(lambda: file["flux"][parts // 20 * SPECTRA])[1]

    figures["whole"] = timed(look)[1]
    return figures


def show_parts(folder: Path, real: int, simulated: int) -> None:
    """Print what parts cost."""
    figures = child(SCRIPT, "many_parts", folder / "store", real)
    show(f"index made of {real} parts", f"CPU {figures['first'] / real * 1e3:.2f} ms a part")
    show("    of the index before and one part", f"CPU {figures['again']:.2f} s")
    figures = child(SCRIPT, "journal", folder / "journal", simulated)
    show(f"journal of {simulated:.0e} parts", f"CPU {figures['cpu']:.2f} s, {figures['bytes'] / 1e6:.0f} MB")
    figures = child(SCRIPT, "external", folder / "links.h5", simulated)
    show(
        f"{simulated:.0e} external links: written, opened",
        f"CPU {figures['links']:.1f} s, {figures['open'] * 1e3:.1f} ms",
    )
    show(
        f"a virtual array of {simulated / 10:.0e} of them: written, one row",
        f"CPU {figures['virtual']:.2f} s, {figures['row'] * 1e3:.1f} ms",
    )


def show_partitions(number: int, where: str) -> None:
    """Print how many partitions and files so many images and as many spectra make."""
    from skyloom.mock.sdss.observations import mock_observations
    from skyloom.store.ingest import partitions
    from skyloom.store.schema import PARTITION_ORDER, POSITION_ORDER, StoreSettings

    # Each row of the sample stands for several at the same place.
    rows = min(2 * number, SAMPLE)
    columns = mock_observations(rows, seed=SEED, where=where)
    image = columns["dataproduct_type"] == b"image"
    place = columns["healpix"]
    weight = np.where(image, packed_bytes(FRAME_PIXELS), packed_bytes(SPECTRUM_PIXELS)) * (2 * number / rows)
    show(f"partitions of {number:.0e} images and as many spectra", f"{weight.sum() / 1e12:.1f} TB")
    fixed = place >> 2 * (POSITION_ORDER - PARTITION_ORDER)
    # Without a target of bytes, files are closed by their uncompressed size.
    limit = StoreSettings().part_bytes * partitions.PACKED_BYTES / partitions.STORED_BYTES
    _show_cells(f"    order {PARTITION_ORDER}", fixed, weight, limit)
    for target in TARGETS:
        _, cpu, (order, cell) = timed(lambda target=target: partitions.partition_tree(place, weight, target))
        _show_cells(f"    of {target / 1e9:.1f} GB", cell * 32 + order, weight, target)
        show("        the tree, orders", f"CPU {cpu:.1f} s, {order.min()} to {order.max()}")


def packed_bytes(n_pixels: int) -> int:
    """Return the bytes that an ingest reckons with for so many pixels."""
    from skyloom.store.ingest import partitions

    return n_pixels * partitions.PACKED_BYTES


def _show_cells(told: str, cell: np.ndarray, weight: np.ndarray, limit: float) -> None:
    _, own = np.unique(cell, return_inverse=True)
    held = np.bincount(own, weight)
    files = np.ceil(held / limit)
    gigabytes = np.percentile(held, [5, 50, 100]) / 1e9
    show(
        f"{told}: {held.size} cells, {files.sum():.0f} files",
        f"5 % {gigabytes[0]:.2f}, median {gigabytes[1]:.2f}, largest {gigabytes[2]:.2f} GB",
    )
    show("        files of one folder, median, most", f"{np.median(files):.0f}, {files.max():.0f}")


if __name__ == "__main__":
    os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"
    functions = {"many_parts": many_parts, "journal": journal, "external": external}
    print(json.dumps(functions[sys.argv[1]](*sys.argv[2:])))
