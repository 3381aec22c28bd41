"""``skyloom regions``: regions of DS9 as masks and labels, and labels and catalogues as regions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skyloom.cli.terminal import EXIT_CODES
from skyloom.errors import InputError

__all__ = ["add_regions"]

commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

RegionFile = Annotated[Path, typer.Argument(metavar="FILE.reg", help="Regions of DS9.")]
GridFile = Annotated[Path, typer.Argument(metavar="IMAGE", help="FITS image or cube that gives the pixels.")]
OutFile = Annotated[Path, typer.Option(metavar="FILE", help="Where it is written.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
FRAMES = ("icrs", "fk5", "galactic", "image")


def add_regions(app: typer.Typer) -> None:
    """Add the commands to those of ``skyloom``."""
    app.add_typer(
        commands,
        name="regions",
        help="Regions of DS9: masks and labels from them, outlines of bins as them.",
    )


@commands.command(
    epilog=f"""\b
Examples:
  skyloom regions mask stars.reg image.fits --out stars.fits

1 inside what is included and not excluded ('-'), 0 outside. Recipes take the region file itself, too:
stars.mask, segmentation.pattern and binning.segmentation may end in .reg.

{EXIT_CODES}"""
)
def mask(file: RegionFile, image: GridFile, out: OutFile, overwrite: Overwrite = False) -> None:
    """Write which pixels of an image lie inside regions."""
    from skyloom.recipes.label_files import grid_of, write_region_mask

    inside = write_region_mask(file, grid_of(image), out, overwrite=overwrite)
    typer.echo(f"wrote {out}: {inside} pixels inside")


@commands.command(
    epilog=f"""\b
Examples:
  skyloom regions labels nebulae.reg image.fits --out nebulae.fits

A label per region: the number in its text where all texts are whole numbers, else 1, 2 ... in the order of the file.
Where regions overlap the later one has the pixels.

{EXIT_CODES}"""
)
def labels(file: RegionFile, image: GridFile, out: OutFile, overwrite: Overwrite = False) -> None:
    """Write a map of labels, one per region."""
    from skyloom import io
    from skyloom.recipes.label_files import grid_of, read_region_labels

    found = read_region_labels(file, grid_of(image))
    io.write(found, out, overwrite=overwrite)
    typer.echo(f"wrote {out}: {len(found.ids)} labels")
    if found.meta["n_overlapping"]:
        typer.echo(f"{found.meta['n_overlapping']} pixels lie in several regions; the later one has them")
    if found.meta["empty"]:
        typer.echo(f"no pixel inside: {', '.join(map(str, found.meta['empty']))}")


@commands.command(
    epilog=f"""\b
Examples:
  skyloom regions write NGC1433_bins.fits --out bins.reg        outlines of bins, with their numbers
  skyloom regions write catalogue.ecsv --out apertures.reg --radius 1.5

A map of labels becomes polygons along its pixels; a table with ra and dec (or x and y) becomes circles, of the column
radius or of --radius, in arcsec (or pixels). 'regions labels' makes the same map of the polygons again.

{EXIT_CODES}"""
)
def write(
    source: Annotated[
        Path, typer.Argument(metavar="LABELS", help="A FITS map of labels, or a table of apertures.")
    ],
    out: OutFile,
    frame: Annotated[str, typer.Option(metavar="|".join(FRAMES), help="Coordinates of outlines.")] = "icrs",
    radius: Annotated[
        float | None, typer.Option(min=0.0, help="Of all apertures, in arcsec (pixels with x and y).")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write outlines of labels, or apertures of a catalogue, as regions."""
    from skyloom import io
    from skyloom.core.labels import LabelMap
    from skyloom.imaging.measure.outlines import aperture_regions, outline_regions
    from skyloom.io.ds9_regions import write_regions
    from skyloom.io.formats.files import open_fits
    from skyloom.io.table_files import read_table

    if frame not in FRAMES:
        raise InputError(f"frame is {frame!r}", field="--frame", remedy=f"use one of {', '.join(FRAMES)}")
    if not source.is_file():
        raise InputError.missing(source)
    is_map = False
    if source.suffix.lower() in (".fits", ".fit", ".gz", ".fz", ".bz2"):
        with open_fits(source) as file:
            is_map = any(hdu.is_image and len(hdu.shape) == 2 for hdu in file)
    try:
        if is_map:
            found = io.read(source, instrument="segmentation")
            if not isinstance(found, LabelMap):
                raise InputError(f"holds a {type(found).__name__}, not a map of labels")
            regions = outline_regions(found, frame=frame)  # type: ignore[arg-type]  # checked above
        else:
            regions = aperture_regions(read_table(source), radius)
    except InputError as error:
        raise error.located(source) from error
    write_regions(regions, out, overwrite=overwrite)
    typer.echo(f"wrote {out}: {len(regions)} regions")
