"""What is taken for the noise of a cube: measured in line-free channels, given, or as its file claims."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.noise import gaussian_correlation
from skyloom.core.provenance import step
from skyloom.core.threads import stream_blocks
from skyloom.errors import AssumptionWarning, InputError
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.blocks import Extension, card, encode, text_cards
from skyloom.io.formats.files import open_fits
from skyloom.recipes.ifs.config import NoiseBlur
from skyloom.recipes.ifs.inputs import Source, line_free_channels
from skyloom.spectral.noise.measure import CubeNoise, combine_cube_noise, measure_cube_noise

__all__ = ["NoiseModel", "find_noise", "read_noise", "sample_slabs", "write_noise"]

Float = NDArray[np.float64]
SAMPLES = 8  # Slabs that are looked at, spread over the wavelengths: enough to see how the scale runs.
SAMPLE_CHANNELS = 64
SAMPLE_BYTES = 1 << 28


class MeasuredScale(NamedTuple):
    """True over claimed variance: over all that was looked at, and in windows of channels (wavelengths in A)."""

    value: float
    error: float
    n_voxels: int
    wave: Float
    values: Float
    errors: Float


@dataclass(frozen=True, slots=True, eq=False)
class NoiseModel:
    """The noise that is applied to every slab of a cube.

    Attributes
    ----------
    scale : (n_wave,) array
        By which the variance of the file is multiplied.
    correlation : CubeCorrelation
    measured : MeasuredScale or None
        What was measured of the scale, if anything was.
    """

    scale: Float
    correlation: CubeCorrelation
    measured: MeasuredScale | None = None

    def apply(self, cube: Cube, channels: slice) -> Cube:
        """Give a slab of the cube, its channels ``channels``, this noise."""
        scale = self.scale[channels]
        spatial, spectral = self.correlation
        if spectral is not None and spectral.ndim == 2:
            spectral = spectral[channels]
        untouched = bool(np.all(scale == 1.0))
        return cube.evolve(
            step(
                "apply_noise",
                variance_scale=float(np.median(self.scale)),
                measured=self.measured is not None,
                spatial_correlation_sum=1.0 if spatial is None else float(spatial.sum()),
            ),
            variance=cube.variance
            if untouched
            else cube.variance * scale.astype(cube.variance.dtype)[:, None, None],
            correlation=None if spatial is None and spectral is None else CubeCorrelation(spatial, spectral),
        )


def find_noise(source: Source) -> NoiseModel:
    """Settle the noise of an object's cube as the configuration asks.

    A cube that is too small to measure its noise keeps what its file claims, with a note.
    """
    settings, cube = source.config.noise, source.cube
    spatial, spectral = cube.correlation if cube.correlation is not None else (None, None)
    wanted = (settings.errors, settings.spatial_correlation, settings.spectral_correlation)
    measured = measured_noise(source) if "measured" in wanted else None
    scale = np.ones(cube.shape[0])
    if measured is not None:
        found = measured.correlation
        if settings.errors == "measured":
            scale = measured.scale_at(cube.wave)
        if settings.spatial_correlation == "measured":
            spatial = found.spatial
        if settings.spectral_correlation == "measured":
            spectral = found.spectral
    if isinstance(settings.spatial_correlation, NoiseBlur):
        # White noise smoothed with a Gaussian is correlated like a Gaussian of sqrt(2) times its width.
        spatial = gaussian_correlation(np.sqrt(2.0) * settings.spatial_correlation.sigma)
    spatial = None if settings.spatial_correlation == "none" else spatial
    spectral = None if settings.spectral_correlation == "none" else spectral
    return NoiseModel(
        scale, CubeCorrelation(spatial, spectral), None if measured is None else _scale_of(measured)
    )


def _scale_of(noise: CubeNoise) -> MeasuredScale:
    return MeasuredScale(
        noise.scale, noise.scale_error, noise.n_voxels, noise.wave, noise.scales, noise.scale_errors
    )


def measured_noise(source: Source) -> CubeNoise | None:
    """Measure the noise in some slabs of channels spread over the cube; None where that is not possible."""
    line_free = line_free_channels(source)
    slabs = sample_slabs(source.cube.shape, line_free)

    def measure(channels: slice) -> CubeNoise | str:
        try:
            return measure_cube_noise(source.read(channels), line_free=line_free[channels])
        except InputError as error:
            return error.message

    found: list[CubeNoise] = []
    reason = "no channel is free of lines"
    for number, each in enumerate(stream_blocks(measure, slabs, source.threads), start=1):
        if isinstance(each, str):
            reason = each
        else:
            found.append(each)
        source.tick("noise", number, len(slabs))
    if found:
        return combine_cube_noise(found)
    source.cube.require_usable()
    warnings.warn(
        f"{source.files.cube}: the noise could not be measured ({reason}); errors and correlation are those of the"
        " file",
        AssumptionWarning,
        stacklevel=2,
    )
    return None


def sample_slabs(shape: tuple[int, int, int], line_free: NDArray[np.bool_]) -> list[slice]:
    """Choose slabs of channels spread over the axis, each where most channels are free of lines."""
    n_wave, ny, nx = shape
    size = int(np.clip(SAMPLE_BYTES // (9 * ny * nx), 20, SAMPLE_CHANNELS))
    if n_wave <= SAMPLES * size:
        edges = np.linspace(0, n_wave, max(1, round(n_wave / size)) + 1).astype(int)
        return [slice(int(low), int(high)) for low, high in pairwise(edges)]
    total = np.concatenate([[0], np.cumsum(line_free)])
    count = total[size:] - total[:-size]
    edges = np.linspace(0, n_wave - size + 1, SAMPLES + 1).astype(int)
    slabs: list[slice] = []
    for low, high in pairwise(edges):
        # Two slabs must not share channels.
        low = max(int(low), slabs[-1].stop if slabs else 0)
        if low >= high or not count[low:high].any():
            continue
        best = np.flatnonzero(count[low:high] == count[low:high].max())
        first = low + int(best[best.size // 2])
        slabs.append(slice(first, first + size))
    return slabs


# --- files ----------------------------------------------------------------------------------------------------------

_NUMBERS = {"value": "f8", "error": "f8", "n_voxels": "i8"}
_COLUMNS = ("wave", "values", "errors")


def write_noise(noise: NoiseModel, path: Path) -> Path:
    """Write the noise of a cube: the scale and correlations that are applied, and what was measured."""
    extensions = [Extension("", None, card("ORIGIN", "Skyloom", "software that wrote this file"))]
    extensions.append(
        Extension("SCALE", noise.scale, text_cards("COMMENT", ["applied variance over that of the file"]))
    )
    for name, plane in zip(("SPATIAL", "SPECTRAL"), noise.correlation, strict=True):
        if plane is not None:
            extensions.append(Extension(name, plane))
    if noise.measured is not None:
        row = tuple(getattr(noise.measured, name) for name in _NUMBERS)
        windows = np.empty(noise.measured.wave.size, dtype=[(name, "f8") for name in _COLUMNS])
        for name in _COLUMNS:
            windows[name] = getattr(noise.measured, name)
        extensions.append(Extension("MEASURED", np.array([row], dtype=list(_NUMBERS.items()))))
        extensions.append(Extension("WINDOWS", windows))
    pieces = encode(extensions)
    with atomic_path(path, overwrite=True) as temporary, open(temporary, "wb") as stream:
        stream.writelines(pieces)
    return path


def read_noise(paths: Sequence[Path]) -> NoiseModel:
    """Read what `write_noise` wrote."""
    with open_fits(paths[0]) as file:
        planes = {hdu.name: hdu.array() for hdu in file if hdu.is_image and hdu.shape}
        tables = {hdu.name: hdu.table() for hdu in file if hdu.name in ("MEASURED", "WINDOWS")}
    measured = None
    if tables:
        row, windows = tables["MEASURED"][0], tables["WINDOWS"]
        columns = (np.array(windows[name], dtype=np.float64) for name in _COLUMNS)
        measured = MeasuredScale(float(row["value"]), float(row["error"]), int(row["n_voxels"]), *columns)
    return NoiseModel(
        planes["SCALE"], CubeCorrelation(planes.get("SPATIAL"), planes.get("SPECTRAL")), measured
    )
