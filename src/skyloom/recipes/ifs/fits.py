"""The second half of ``ifs``: continua and lines of the spectra of an object, and what is made of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skyloom.core.labels import LabelMap
from skyloom.core.spectra import Spectra
from skyloom.errors import AssumptionWarning, InputError
from skyloom.recipes.chunks import ChunkPlan, Chunks
from skyloom.recipes.ifs.continuum import fit_stars, input_stamps, merged_continuum
from skyloom.recipes.ifs.fit_config import LineFitSettings
from skyloom.recipes.ifs.fit_figures import draw_fits
from skyloom.recipes.ifs.fit_products import Fitted, Record, read_record, write_products, write_record
from skyloom.recipes.ifs.inputs import Source
from skyloom.recipes.ifs.lines import fit_all_lines, list_stamp, merged_lines
from skyloom.recipes.ifs.noise import NoiseModel
from skyloom.recipes.stages import Files, Made, Stages

__all__ = ["do_fits"]

_CHUNKS: Files[Chunks] = Files(lambda chunks: chunks.paths, lambda paths: Chunks(tuple(sorted(paths))))
_PATHS: Files[tuple[Path, ...]] = Files(lambda paths: paths, lambda paths: tuple(paths))


def do_fits(
    source: Source,
    stages: Stages,
    noise: Made[NoiseModel],
    bins: Made[LabelMap],
    spectra: Made[Spectra],
    *,
    scheduler: str | None = None,
) -> Record:
    """Fit continua and lines, chunk by chunk, and make maps, tables and figures of them.

    Returns
    -------
    dict
        The figures that judge the fits; see `skyloom.recipes.ifs.fit_products.make_record`.

    Raises
    ------
    InputError
        When no spectrum at all can be fitted: templates, lines and spectra do not go together.
    """
    wanted = stage_settings(source)
    continuum = None
    if source.config.continuum.chosen != "none":
        continuum = do_continuum(source, stages, bins, spectra, wanted["continuum"], scheduler)
    inputs: tuple[Made[Any], ...] = (spectra,) if continuum is None else (spectra, continuum)

    def all_lines(spectra: Spectra, stars: Chunks | None = None) -> Chunks:
        _require_lsf(source, spectra)
        if stars is None:
            _say_no_templates(source)
        plan = ChunkPlan(
            stages.folder / "stages",
            "lines",
            stages.digest("lines", *inputs, settings=wanted["lines"]),
            spectra.shape[0],
            # Each chunk needs the continua of its rows, which may come from a run with other chunks.
            source.config.chunk if stars is None else stars.size,
        )
        return fit_all_lines(source, plan, spectra, stars, scheduler=scheduler, overwrite=stages.overwrite)

    lines = stages.do("lines", all_lines, *inputs, settings=wanted["lines"], files=_CHUNKS)
    fitted = Fitted(
        lambda: merged_lines(lines.value, spectra.value),
        None if continuum is None else lambda: merged_continuum(continuum.value, spectra.value),
    )
    return do_products(source, stages, (noise, bins, *inputs, lines), fitted, wanted)


def do_continuum(
    source: Source,
    stages: Stages,
    bins: Made[LabelMap],
    spectra: Made[Spectra],
    settings: Any,
    scheduler: str | None,
) -> Made[Chunks]:
    """Fit the light of stars."""

    def stars(labels: LabelMap, spectra_: Spectra) -> Chunks:
        _require_lsf(source, spectra_)
        digest = stages.digest("continuum", bins, spectra, settings=settings)
        plan = ChunkPlan(
            stages.folder / "stages", "continuum", digest, len(spectra_.data), source.config.chunk
        )
        return fit_stars(source, plan, labels, spectra_, scheduler=scheduler, overwrite=stages.overwrite)

    return stages.do("continuum", stars, bins, spectra, settings=settings, files=_CHUNKS)


def _require_lsf(source: Source, spectra: Spectra) -> None:
    """Say in the words of a configuration what the fits would say in those of the interface."""
    if spectra.lsf is None:
        raise InputError(
            "the file does not tell the line-spread function, without which no width can be fitted",
            source=source.files.cube,
            field="cube.instrument.lsf",
            remedy="give its sigma in A, cube.instrument: {lsf: 1.1, ...}; or fit nothing: lines: none",
        )


def do_products(
    source: Source, stages: Stages, inputs: Sequence[Made[Any]], fitted: Fitted, wanted: dict[str, Any]
) -> Record:
    """Write maps, tables and figures."""
    noise, bins, spectra = inputs[:3]
    files: list[Path] = []

    def products(*_: Any) -> Record:
        record, paths = write_products(source, stages.folder, noise.value, bins.value, spectra.value, fitted)
        files.extend(paths)
        return record

    def keep(record: Record) -> Sequence[Path]:
        return [*files, write_record(record, stages.folder / "stages" / "fits.record.json")]

    made = stages.do(
        "fits",
        products,
        *inputs,
        settings=wanted["fits"],
        files=Files(keep, lambda paths: read_record(paths[-1])),
    )
    if source.config.output.figures:
        stages.do(
            "fit_figures",
            lambda record, *_: draw_fits(source, noise.value, bins.value, spectra.value, fitted, record),
            made,
            settings=wanted["fit_figures"],
            files=_PATHS,
        )
    return made.value


def stage_settings(source: Source) -> dict[str, Any]:
    """What decides the result of each stage, beside the stages that it builds on."""
    plain = source.config.model_dump(mode="json")
    settings = source.config.lines
    stamp = list_stamp(settings) if isinstance(settings, LineFitSettings) else None
    common = [plain["sky_residuals"], source.redshift]
    return {
        "continuum": [plain["continuum"], input_stamps(source), *common],
        "lines": [plain["lines"], stamp, *common],
        "fits": [plain["maps"], source.name],
        "fit_figures": [source.name],
    }


def _say_no_templates(source: Source) -> None:
    warnings.warn(
        f"{source.name}: no stellar continuum was fitted, lines stand on local polynomials: stellar absorption is not"
        " corrected for (give continuum.templates)",
        AssumptionWarning,
        stacklevel=2,
    )
