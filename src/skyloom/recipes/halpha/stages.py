"""The stages of an object of a ``halpha`` run: what decides each, how its files are written and read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from astropy.table import QTable

from skyloom import io
from skyloom.core.image import Image
from skyloom.core.provenance import plain
from skyloom.imaging.grids.register import Registration
from skyloom.io.fits import read_product, write_product
from skyloom.io.formats.atomic import atomic_path
from skyloom.recipes.config import resolved_yaml
from skyloom.recipes.folder import file_stamp, open_folder
from skyloom.recipes.halpha.alignment import Alignment
from skyloom.recipes.halpha.anchor import Anchors
from skyloom.recipes.halpha.cleaning import binned, read_rays, read_stars, write_rays, write_stars
from skyloom.recipes.halpha.images import Images
from skyloom.recipes.halpha.inputs import Source
from skyloom.recipes.halpha.muse import MuseSide
from skyloom.recipes.halpha.products import DESCRIPTIONS, ObjectProduct, write_tables
from skyloom.recipes.halpha.qa import quality, read_checks
from skyloom.recipes.stages import Files, Made, Stages

__all__ = ["Judged", "draw_images", "gather", "judge", "object_stages"]

SHOWN_IMAGES = ("hst_ha_as2",)
SHOWN_PIXELS = 600
"""Along the longer side of a figure; a larger image is averaged over blocks."""
Value = TypeVar("Value")
Step = Callable[..., Made[Any]]


def object_stages(source: Source, *, overwrite: bool) -> tuple[Stages, Step]:
    """Return the stages of an object, and a function that does one: ``step(name, function, source, *inputs)``."""
    open_folder(source.folder, inner=("stages",))
    stages = Stages(source.folder, overwrite, announce=lambda name: source.tick(name, 0, 1))
    settings = stage_settings(source)
    files = stage_files(source)

    def step(name: str, function: Callable[..., Value], *inputs: Any) -> Made[Value]:
        kept = files[name]
        if kept.read is again:
            # Quicker made again from what came before than written and read.
            kept = replace(kept, read=lambda _: function(*(_value(item) for item in inputs)))
        return stages.do(name, function, *inputs, settings=settings[name], files=kept)

    return stages, step


def _value(item: Any) -> Any:
    return item.value if isinstance(item, Made) else item


def again(_: Sequence[Path]) -> Any:
    """Stand for a value that is not read from files but made once more."""


def stage_settings(source: Source) -> dict[str, Any]:
    """What decides the result of each stage, beside the stages that it builds on."""
    config, files = source.config, source.files
    whole = config.model_dump(mode="json")
    curves = [[band, file_stamp(Path(item.filter or band))] for band, item in config.bands.items()]
    bands = [source.stamps, whole["images"], whole["narrow"], whole["continua"], curves]
    stars = [file_stamp(path) for path in (files.star_catalogue, files.star_mask) if path is not None]
    nebulae = [file_stamp(path) for path in (files.labels, files.catalogue) if path is not None]
    own = [source.redshift, source.settings.a_v]
    return {
        "cosmic_rays": [bands, whole["cosmic_rays"]],
        "stars": [bands, whole["stars"], stars],
        "muse": [source.muse_stamps, whole["muse"], curves, own],
        "alignment": [bands, whole["noise"], whole["registration"]],
        "anchors": [own, whole["anchor"], whole["continuum"], whole["background"]],
        "images": [
            source.settings.distance_mpc,
            whole["negatives"],
            whole["white_noise"],
            config.output.modes,
        ],
        "figures": [SHOWN_IMAGES],
        "qa": [nebulae, whole["nebulae"], whole["checks"], config.output.figures],
    }


def stage_files(source: Source) -> dict[str, Files[Any]]:
    """How the value of each stage is kept."""
    config = resolved_yaml(source.config.only(source.name))

    def place(kind: str) -> Path:
        return source.folder / f"{source.name}_{kind}.fits"

    def write_muse(muse: MuseSide | None) -> Sequence[Path]:
        if muse is None:
            return []
        images = {f"band-{name}": image for name, image in muse.bands.items()}
        images |= {f"line-{name}": image for name, image in muse.lines.items()}
        write_product(place("muse"), images, config=config, overwrite=True)
        return [place("muse")]

    def write_alignment(aligned: Alignment | None) -> Sequence[Path]:
        if aligned is None:
            return []
        write_product(place("matched"), _alignment_images(aligned), config=config, overwrite=True)
        return [place("matched"), *write_tables(source, {"alignment": aligned.table})]

    def write_anchors(anchors: Anchors) -> Sequence[Path]:
        return write_tables(source, anchors.tables())

    def write_images(images: Images) -> Sequence[Path]:
        return [*images.paths, *write_tables(source, {"products": images.table})]

    return {
        "cosmic_rays": Files(lambda rays: write_rays(source, rays), lambda paths: read_rays(source, paths)),
        "stars": Files(lambda stars: write_stars(source, stars), read_stars),
        "muse": Files(write_muse, read_muse_file),
        "alignment": Files(write_alignment, read_alignment),
        "anchors": Files(write_anchors, again),
        "images": Files(write_images, lambda paths: Images(_table(paths, "products"), list(paths))),
        "figures": Files(lambda paths: paths, tuple),
        "qa": Files(
            lambda judged: judged.files, lambda paths: Judged(paths, read_checks(source.folder, source.name))
        ),
    }


def _table(paths: Sequence[Path], kind: str) -> QTable:
    path = next(path for path in paths if path.name.endswith(f"_{kind}.ecsv"))
    return QTable.read(path, format="ascii.ecsv")


def read_muse_file(paths: Sequence[Path]) -> MuseSide | None:
    """Read what MUSE saw as the stage ``muse`` has left it."""
    if not paths:
        return None
    images = read_product(paths[0])
    parts: dict[str, dict[str, Image]] = {"band": {}, "line": {}}
    for name, image in images.items():
        kind, _, key = name.partition("-")
        parts[kind][key] = image
    first = next(iter(images.values()))
    return MuseSide(bands=parts["band"], lines=parts["line"], psf=first.psf, meta=dict(first.meta))


def _alignment_images(aligned: Alignment) -> dict[str, Image]:
    images = {}
    found = aligned.registration
    known = {} if found is None else {item.name: plain(getattr(found, item.name)) for item in fields(found)}
    for band, image in aligned.matched.items():
        images[f"own-{band}"] = image.evolve(meta={**image.meta, "registration": known})
        if aligned.common[band] is not image:
            images[f"line-{band}"] = aligned.common[band]
    return images


def read_alignment(paths: Sequence[Path]) -> Alignment | None:
    """Read the bands of HST on the grid of MUSE, and where HST lies."""
    if not paths:
        return None
    images = read_product(paths[0])
    matched = {name.removeprefix("own-"): image for name, image in images.items() if name.startswith("own-")}
    common = {band: images.get(f"line-{band}", image) for band, image in matched.items()}
    known = next(iter(matched.values())).meta["registration"]
    arrays: dict[str, Any] = {
        key: np.array(value) if isinstance(value, list) else value for key, value in known.items()
    }
    found = Registration(**arrays) if known else None
    return Alignment(matched, common, found, _table(paths, "alignment"))


# --- figures --------------------------------------------------------------------------------------------------------


def draw_images(source: Source, images: Images) -> tuple[Path, ...]:
    """Draw the map of Halpha with its error; return the files."""
    # matplotlib takes a second to import, which a run without figures need not spend.
    from skyloom.report.figures.halpha_maps import halpha_maps

    drawn = []
    for kind in SHOWN_IMAGES:
        path = next((path for path in images.paths if path.name == f"{source.name}_{kind}.fits"), None)
        if path is None:
            continue
        image = io.read(path)
        side = -(-max(image.shape) // SHOWN_PIXELS)
        shown = binned(image, side)
        per = "pixel" if shown is image else f"block of {side} x {side} pixels"
        picture = path.with_suffix(".png")
        with atomic_path(picture, overwrite=True) as temporary:
            temporary.write_bytes(halpha_maps(f"{source.name}: {DESCRIPTIONS[kind]}", shown, per=per))
        drawn.append(picture)
    return tuple(drawn)


# --- quality --------------------------------------------------------------------------------------------------------


class Judged:
    """What the quality analysis has made: its files and its checks."""

    def __init__(self, files: Sequence[Path] = (), checks: Sequence[Any] = ()) -> None:
        self.files = tuple(files)
        self.checks = tuple(checks)


def judge(source: Source, _: Images) -> Judged:
    """Let the quality analysis judge the products in the folder of an object."""
    result = quality(source.folder, source.config, source.name)
    return Judged(result.files, result.checks)


# --- what is known of an object at the end --------------------------------------------------------------------------


def gather(source: Source, stages: Stages, judged: Made[Judged] | None, problem: str = "") -> ObjectProduct:
    """Put together what the checks and the report need of an object, from its files.

    ``problem`` tells why the quality analysis could not be made.
    """
    paths = [path for made in stages.done for path in made.files if path.parent.name != "stages"]
    tables = {
        path.stem.removeprefix(f"{source.name}_"): QTable.read(path, format="ascii.ecsv")
        for path in paths
        if path.suffix == ".ecsv" and path.parent == source.folder
    }
    return ObjectProduct(
        source.name,
        tuple(paths),
        all(made.kept for made in stages.done),
        {
            "redshift": source.redshift,
            "a_v": source.settings.a_v,
            "inputs": [str(path) for path in (*source.files.hst, *source.files.muse)],
        },
        tables,
        tuple(dict.fromkeys(note for made in stages.done for note in made.notes)),
        stages.records(),
        () if judged is None else tuple(judged.value.checks),
        ((f"{source.name}: quality analysis", problem),) if problem else (),
    )
