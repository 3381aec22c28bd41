"""The file of a dense cube: which arrays are in it, under which names; written target by target.

::

    /                     NXroot: skyloom_layout, skyloom_version
    /bands/name, unit     (n_band,)
    /targets/...          one value per target: name, ra, dec, n_exposures (n_target, n_band), n_spectra, labels ...
    /images/{level}/      NXdata
        flux              (n_target, n_band, ny, nx) float32; NaN where nothing is known
        ivar              one over the variance of the mean, 0 where nothing is known
        valid             1: usable, 0: not
        correlation       (n_target, n_band, 11, 11): of the noise of neighbouring pixels
        shared_error      (n_target, n_band): error that the pixels share, not in ivar
    /spectra/{level}/     NXdata: wave (n_wave,), and of each target flux, ivar, valid (n_target, n_wave),
                          lags (n_target, n_wave, 3), shared_error (n_target,)
    /observations/...     one value per observation that went in: obs_id, kind, band, source, digests, key
    /sources/             target, observation, band: which observation went into which band (-1: the spectrum)
    /provenance           attributes: options (JSON), targets, joins, store, created

``docs/store_machine_learning.md`` explains each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom._version import __version__
from skyloom.errors import FileFormatError, InputError
from skyloom.io.formats.plain_json import from_json, to_json
from skyloom.store.dense.stacks import LAGS, REACH, Plan, TargetStack
from skyloom.store.files.filters import COMPRESSIONS, value_filters, write_attributes

__all__ = ["LAYOUT_VERSION", "DenseWriter", "open_dense", "read_column", "read_options", "write_columns"]

Array = NDArray[Any]
LAYOUT_VERSION = 1
JSON_ENTRIES = ("options", "where", "joins", "join_counts")
PAIRS = 4096
"""Sources that are written at a time."""
IMAGE_PLANES = {"flux": np.float32, "ivar": np.float32, "valid": np.uint8}
FLUX = "mean of all exposures"


class DenseWriter:
    """A dense cube that is being written.

    Parameters
    ----------
    path : path
        New file.
    plan : Plan
    waves : mapping of level to (n_wave,) array, A in vacuum
    n_targets : int
    compression : {"lz4", "gzip"}
    """

    def __init__(
        self, path: Path, plan: Plan, waves: Mapping[int, Array], n_targets: int, compression: str
    ) -> None:
        import h5py

        self.plan, self.n_targets = plan, n_targets
        self.filters = value_filters(compression)
        self.n_exposures = np.zeros((n_targets, len(plan.bands)), np.int16)
        self.n_spectra = np.zeros(n_targets, np.int16)
        self.file = h5py.File(path, "w", libver=("earliest", "v110"))
        self._numbers: dict[int, int] = {}
        self._pending: list[tuple[int, int, int]] = []
        self._root()
        for level in plan.image_levels:
            self._image_level(level)
        for level in plan.spectrum_levels:
            self._spectrum_level(level, waves[level])
        group = self._group("sources", "NXcollection", "which observation went into which target")
        for name, kind in (("target", np.int64), ("observation", np.int32), ("band", np.int16)):
            group.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(PAIRS,))

    def __enter__(self) -> DenseWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _group(self, name: str, kind: str, text: str = "") -> Any:
        group = self.file.create_group(name)
        write_attributes(group, {"NX_class": kind, **({"description": text} if text else {})})
        return group

    def _root(self) -> None:
        default = "images" if self.plan.image_levels else "spectra"
        write_attributes(
            self.file,
            {
                "NX_class": "NXroot",
                "default": default,
                "creator": "skyloom",
                "skyloom_version": __version__,
                "skyloom_layout": "dense cube",
                "skyloom_layout_version": LAYOUT_VERSION,
            },
        )
        bands = self._group("bands", "NXcollection", "bands of the images, in their order")
        write_columns(bands, {"name": self.plan.bands, "unit": self.plan.units})
        for name, levels in (("images", self.plan.image_levels), ("spectra", self.plan.spectrum_levels)):
            if levels:
                write_attributes(self._group(name, "NXentry"), {"default": str(levels[0])})

    def _dataset(self, group: Any, name: str, shape: tuple[int, ...], kind: Any, **attributes: Any) -> None:
        dataset = (
            group.create_dataset(
                name, (self.n_targets, *shape), kind, chunks=(1, *shape) if shape else None, **self.filters
            )
            if shape
            else group.create_dataset(name, (self.n_targets,), kind)
        )
        write_attributes(dataset, attributes)

    def _image_level(self, level: int) -> None:
        plan, side = self.plan, self.plan.side(level)
        group = self._group(f"images/{level}", "NXdata")
        same = len(set(plan.units)) == 1
        write_attributes(
            group,
            {
                "signal": "flux",
                "axes": [".", ".", ".", "."],
                "level": level,
                "pixel_scale": float(plan.pixel_scale * 2**level),
                "pixel_scale_units": "arcsec",
                "bands": list(plan.bands),
                "projection": "TAN: north up, east left, the target in the middle",
            },
        )
        shape = (len(plan.bands), side, side)
        units = {"units": plan.units[0]} if same else {"units": "see /bands/unit"}
        inverse = {"units": f"1/({plan.units[0]})^2"} if same else units
        self._dataset(group, "flux", shape, np.float32, long_name=FLUX, **units)
        self._dataset(group, "ivar", shape, np.float32, long_name="inverse variance of the mean", **inverse)
        self._dataset(group, "valid", shape, np.uint8, long_name="1: usable, 0: not")
        width = 2 * REACH + 1
        self._dataset(
            group,
            "correlation",
            (len(plan.bands), width, width),
            np.float32,
            long_name="correlation of the noise of pixels, by their distance (y, x); 1 in the middle",
        )
        self._dataset(
            group, "shared_error", (len(plan.bands),), np.float32, long_name="error shared by pixels", **units
        )

    def _spectrum_level(self, level: int, wave: Array) -> None:
        group = self._group(f"spectra/{level}", "NXdata")
        write_attributes(group, {"signal": "flux", "axes": [".", "wave"], "level": level})
        unit = self.plan.spectrum_unit
        group.create_dataset("wave", data=np.asarray(wave, np.float64))
        write_attributes(group["wave"], {"units": "Angstrom", "long_name": "wavelength in vacuum"})
        shape = (wave.size,)
        self._dataset(group, "flux", shape, np.float32, units=unit, long_name="mean of all spectra")
        self._dataset(
            group, "ivar", shape, np.float32, units=f"1/({unit})^2", long_name="inverse variance of the mean"
        )
        self._dataset(group, "valid", shape, np.uint8, long_name="1: usable, 0: not")
        self._dataset(
            group,
            "lags",
            (wave.size, LAGS),
            np.float32,
            long_name="correlation of the noise of channel i with channel i + 1, i + 2, i + 3",
        )
        self._dataset(group, "shared_error", (), np.float32, units=unit, long_name="error shared by channels")

    def write(self, target: int, found: TargetStack) -> None:
        """Write one target."""
        for kind, levels in (("images", found.images), ("spectra", found.spectra)):
            for level, planes in levels.items():
                group = self.file[f"{kind}/{level}"]
                for name, values in planes._asdict().items():
                    group[name][target] = values
        self.n_exposures[target] = found.n_exposures
        self.n_spectra[target] = sum(band < 0 for _, band in found.sources)
        for row, band in found.sources:
            number = self._numbers.setdefault(row, len(self._numbers))
            self._pending.append((target, number, band))
        if len(self._pending) >= PAIRS:
            self._flush()

    def _flush(self) -> None:
        group = self.file["sources"]
        first = group["target"].shape[0]
        for name, values in zip(
            ("target", "observation", "band"), zip(*self._pending, strict=True), strict=False
        ):
            group[name].resize((first + len(self._pending),))
            group[name][first:] = values
        self._pending.clear()

    def finish(
        self,
        targets: Mapping[str, Any],
        observations: Mapping[str, Any],
        provenance: Mapping[str, Any],
    ) -> None:
        """Write the columns of targets and observations, and how all was made."""
        if self._pending:
            self._flush()
        group = self._group("targets", "NXcollection", "one value for each target")
        write_columns(group, targets)
        write_columns(group, {"n_exposures": self.n_exposures, "n_spectra": self.n_spectra})
        group = self._group("observations", "NXcollection", "the observations that went in")
        write_columns(group, observations)
        write_provenance(self.file, provenance)

    @property
    def rows(self) -> list[int]:
        """The rows of the store that went in, as they are numbered in ``/observations``."""
        return list(self._numbers)


def write_provenance(file: Any, values: Mapping[str, Any]) -> None:
    """Write how a cube was made; `JSON_ENTRIES` as JSON."""
    group = file.require_group("provenance")
    for name in group.attrs:
        del group.attrs[name]
    texts = {name: to_json(values[name], name) for name in JSON_ENTRIES if name in values}
    plain = {name: value for name, value in values.items() if name not in JSON_ENTRIES}
    write_attributes(group, {"NX_class": "NXcollection", **plain, **texts})


def write_columns(group: Any, columns: Mapping[str, Any]) -> None:
    """Write columns, each one dataset; units and descriptions of astropy's columns become attributes."""
    import h5py

    for name, column in columns.items():
        values = np.asarray(getattr(column, "value", column))
        if values.dtype.kind in "UO":
            values = np.array([str(text) for text in values], dtype=object)
            dataset = group.create_dataset(name, data=values, dtype=h5py.string_dtype())
        else:
            dataset = group.create_dataset(
                name, data=values.astype(np.uint8) if values.dtype == bool else values
            )
        unit = getattr(column, "unit", None)
        text = getattr(getattr(column, "info", None), "description", None)
        attributes = {"units": str(unit) if unit is not None else "", "description": text or ""}
        write_attributes(dataset, {key: value for key, value in attributes.items() if value})


def read_column(dataset: Any) -> Array:
    """Return a column, texts as numpy's own."""
    import h5py

    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.array(dataset.asstr()[:], dtype=np.str_) if dataset.size else np.empty(0, "U1")
    return np.asarray(dataset[:])


def open_dense(path: str | Path, mode: str = "r") -> Any:
    """Open the file of a dense cube.

    Raises
    ------
    InputError, FileFormatError
        When there is none, or it is another file.
    """
    import h5py
    import hdf5plugin  # noqa: F401  # registers the filters

    source = Path(path)
    if not source.is_file():
        raise InputError.missing(source, or_else="make it with 'skyloom store dense'")
    try:
        file = h5py.File(source, mode)
    except OSError as error:
        raise FileFormatError(f"cannot be opened: {error}", source=source) from error
    layout, version = file.attrs.get("skyloom_layout"), file.attrs.get("skyloom_layout_version")
    if layout != "dense cube" or version != LAYOUT_VERSION:
        file.close()
        raise FileFormatError(
            f"it is {layout or 'no file of Skyloom'} of version {version}; expected a dense cube of {LAYOUT_VERSION}",
            source=source,
            remedy="make it anew with 'skyloom store dense'",
        )
    return file


def read_options(path: str | Path) -> dict[str, Any]:
    """Return what ``/provenance`` tells: ``options``, ``targets``, ``joins``, ``store`` and so on."""
    with open_dense(path) as file:
        attributes = dict(file["provenance"].attrs)
    attributes.pop("NX_class")
    return {name: from_json(text) if name in JSON_ENTRIES else text for name, text in attributes.items()}


def check_compression(compression: str) -> None:
    """Refuse what is no compression."""
    if compression not in COMPRESSIONS:
        raise InputError(
            f"compression is {compression!r}",
            field="compression",
            remedy=f"use one of {', '.join(COMPRESSIONS)}",
        )


def level_names(file: Any, kind: str) -> tuple[int, ...]:
    """Return the levels of ``images`` or ``spectra``."""
    return tuple(sorted(int(name) for name in file[kind])) if kind in file else ()
