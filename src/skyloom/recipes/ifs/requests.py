"""Products of an ``ifs`` run that are made on request: a resampled cube, and a folder for STARLIGHT."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skyloom.core.cube import Cube
from skyloom.core.labels import LabelMap
from skyloom.core.linelist import convert_medium
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError
from skyloom.io.products.resampled import write_resampled
from skyloom.io.starlight import write_starlight_set
from skyloom.recipes.ifs.continuum import spectrum_names
from skyloom.recipes.ifs.inputs import Source
from skyloom.recipes.ifs.noise import NoiseModel
from skyloom.recipes.ifs.products import object_folder
from skyloom.spectral.axes.prepare import prepare_cube
from skyloom.spectral.axes.resample import resample
from skyloom.spectral.axes.rest_frame import to_rest_frame
from skyloom.spectral.noise.sky_residuals import sky_residual_mask

__all__ = ["resample_cube", "write_starlight"]

SKY_FLAG = 3
WORKING_COPIES = 4.0  # What rows in work take, over data, variance and mask as read.


def resample_cube(source: Source, noise: NoiseModel) -> Path:
    """Write the cube on a grid of equal steps, in the rest frame and without the Milky Way's extinction.

    It is made in blocks of rows; only the result is in memory as a whole.

    Raises
    ------
    InputError
        When the result alone would take more than the memory that the configuration allows.
    """
    wanted = source.config.resampled_cube
    assert wanted is not None  # asked for by whoever calls this
    n_wave, ny, nx = source.cube.shape
    span = float(source.cube.wave[-1] - source.cube.wave[0])
    span /= 1.0 + (source.redshift if wanted.frame == "rest" else 0.0)
    result = 9.0 * ny * nx * (span / wanted.step + 1.0)
    if result > source.memory:
        raise InputError(
            f"the resampled cube takes {result / 1e9:.2f} GB, and {source.memory / 1e9:.2f} GB are allowed",
            field="memory",
            remedy="allow more, or leave resampled_cube out",
        )
    room = max(source.memory - result, 0.05 * source.memory)
    count = int(np.clip(room / (WORKING_COPIES * 9.0 * n_wave * nx), 1, ny))
    blocks: list[Cube] = []
    for first in range(0, ny, count):
        rows = slice(first, min(first + count, ny))
        blocks.append(resampled_rows(source, noise, rows, wanted.step, rest=wanted.frame == "rest"))
        source.tick("resampled", rows.stop, ny)
    path = object_folder(source) / f"{source.name}.resam.fits"
    write_resampled(joined_rows(blocks), path, overwrite=True)
    return path


def resampled_rows(source: Source, noise: NoiseModel, rows: slice, step: float, *, rest: bool) -> Cube:
    """Read some rows of spaxels and bring them to the rest frame and the new grid."""
    cube = noise.apply(source.read(rows=rows), slice(None))
    extinction = source.config.extinction
    cube = prepare_cube(
        cube,
        redshift=source.redshift if rest else None,
        av=source.a_v,
        r_v=extinction.r_v,
        curve="fitzpatrick99" if extinction.curve == "none" else extinction.curve,
    )
    return resample(cube, step=step, threads=source.threads)


def joined_rows(blocks: list[Cube]) -> Cube:
    """Put blocks of rows together; the first one knows the WCS."""
    if len(blocks) == 1:
        return blocks[0]
    lsf = blocks[0].lsf
    if lsf is not None and np.ndim(lsf) == 3:
        lsf = np.concatenate([np.asarray(block.lsf) for block in blocks], axis=1)
    return blocks[0].evolve(
        data=np.concatenate([block.data for block in blocks], axis=1),
        variance=np.concatenate([block.variance for block in blocks], axis=1),
        mask=np.concatenate([block.mask for block in blocks], axis=1),
        lsf=lsf,
    )


def write_starlight(source: Source, labels: LabelMap, spectra: Spectra) -> tuple[Path, ...]:
    """Write the spectra, masks, grids and lists that STARLIGHT needs; residuals of the sky get flag 3."""
    wanted = source.config.starlight
    assert wanted is not None  # asked for by whoever calls this
    at_rest = resample(to_rest_frame(in_air(spectra), source.redshift), step=wanted.step)
    sky = sky_residual_mask(at_rest, source.config.sky_residuals)
    names = spectrum_names(source.name, labels)
    folder = object_folder(source) / f"{source.name}_starlight"
    done = write_starlight_set(
        folder,
        at_rest,
        names,
        config=wanted.config,
        base=wanted.base,
        masks=wanted.masks,
        flags=np.where(sky, SKY_FLAG, 0),
        base_dir=wanted.base_dir,
        reddening_law=wanted.reddening_law,
        dispersion=wanted.dispersion,
        fit_range=wanted.fit_range,
        signal_to_noise_window=wanted.signal_to_noise_window,
        step=wanted.step,
        n_grids=wanted.n_grids,
        overwrite=True,
    )
    lists = [Path(name).name for name in (wanted.config, wanted.base, wanted.masks or "lines.masks")]
    beside = [folder / name for name in lists if (folder / name).is_file()]
    return (*done.grids, *beside, *done.spectra)


def in_air(spectra: Spectra) -> Spectra:
    """Return observed spectra on an axis in air, as the usual bases are."""
    if spectra.medium == "air":
        return spectra
    return spectra.evolve(wave=convert_medium(spectra.wave, "vacuum", "air"), medium="air")
