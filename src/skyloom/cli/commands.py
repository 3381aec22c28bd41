"""The command line: read the arguments, call a recipe, end with an exit code that says how it went.

Nothing heavy is imported before a command runs, so that ``skyloom --help`` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from skyloom._version import __version__
from skyloom.cli.convert import add_convert
from skyloom.cli.demo import add_demo
from skyloom.cli.qa import add_qa
from skyloom.cli.regions import add_regions
from skyloom.cli.run import add_run
from skyloom.cli.send import add_send
from skyloom.cli.store import add_store
from skyloom.cli.templates import templates
from skyloom.cli.terminal import RUN_EXIT_CODES, complain
from skyloom.cli.view import add_view
from skyloom.core.mpi import is_first_rank, run_on_ranks, started_ranks
from skyloom.errors import InputError
from skyloom.recipes.registry import RECIPES, recipe_named
from skyloom.recipes.result import ExitCode


class _Commands(TyperGroup):
    """Bad input ends with one message and exit code 2; anything else that escapes is a bug and shows itself."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; turn `InputError` into a message unless ``--debug`` was given."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            if ctx.params.get("debug"):
                raise
            complain(error)
            ctx.exit(int(ExitCode.BAD_INPUT))


SEVERITY_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=f"""\b
Examples:
  skyloom demo                                  see it work on a mock galaxy
  skyloom inspect image.fits                    what Skyloom sees in a file
  skyloom init homogenize > homogenize.yaml     a commented configuration
  skyloom run homogenize.yaml --workers 2
  skyloom --install-completion                  the Tab key completes commands, options, recipes and scenes

{RUN_EXIT_CODES}""",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"skyloom {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of bad input, too.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Weave images and spectra of galaxies into maps with errors you can trust."""


add_run(app)


@app.command(
    epilog=f"""\b
Examples:
  skyloom init homogenize > homogenize.yaml
  skyloom init ifs --out ifs.yaml
  skyloom init halpha --out halpha.yaml
  skyloom init store --out store.yaml

\b
Recipes:
{chr(10).join(f"  {recipe.name:12}{recipe.summary}" for recipe in RECIPES.values())}
"""
)
def init(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="|".join(RECIPES), help="Name of the recipe.", autocompletion=lambda: list(RECIPES)
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write here instead of to the terminal.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented configuration."""
    text = recipe_named(recipe).template()
    if out is None:
        typer.echo(text, nl=False)
        return
    if out.exists() and not overwrite:
        raise InputError("exists already", source=out, remedy="give --overwrite to replace it")
    out.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {out}")


@app.command(
    epilog="""\b
Examples:
  skyloom inspect image.fits
  skyloom inspect stamps/*_sci.fits | grep -B5 warning
  skyloom inspect --errors frame-r-002820-3-0122.fits.bz2 --out steps.png

\b
Exit codes:
  0  done
  2  nothing could be inspected
  4  some files could not be inspected; each is listed with its reason
"""
)
def inspect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="FITS files of any kind.")],
    errors: Annotated[
        bool,
        typer.Option(
            "--errors", help="Show every step to the errors of an SDSS frame, or a spectrum's errors."
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Where the figure of --errors goes, of one file.")
    ] = None,
) -> None:
    """Show what Skyloom sees in files, and what is suspicious.

    For each extension: its kind, shape, unit, values, place on the sky and wavelengths; for the file: the reader,
    the PSF, and whether its errors agree with the scatter of the data. With --errors: where the errors come from, in
    numbers and as a figure.
    """
    if out is not None and (not errors or len(files) > 1):
        raise InputError("--out names the figure of --errors of one file", field="--out")
    from skyloom.cli.errors import show_errors
    from skyloom.io.inspection.inspect import inspect as inspect_file
    from skyloom.io.inspection.inspect import render

    failed = 0
    for number, path in enumerate(files):
        if number:
            typer.echo()
        try:
            if errors:
                show_errors(path, out)
                continue
            lines = render(inspect_file(path)).splitlines()
        except InputError as error:
            failed += 1
            complain(error)
            continue
        for line in lines:
            severity = line.strip().partition(":")[0]
            typer.secho(line, fg=SEVERITY_COLOURS.get(severity), bold=line == lines[0])
    if failed:
        raise typer.Exit(int(ExitCode.BAD_INPUT if failed == len(files) else ExitCode.ITEMS_FAILED))


def _scene_names() -> list[str]:
    from skyloom.mock.hubble.files import SCENES

    return list(SCENES)


@app.command(
    epilog="""\b
Examples:
  skyloom mock small --out mock
  skyloom mock udf-like --out mock --seed 7 && skyloom run mock/homogenize.yaml
  skyloom mock muse-like --out cubes && skyloom run cubes/ifs.yaml
  skyloom mock halpha-like --out halpha && skyloom run halpha/halpha.yaml
  skyloom mock sdss-like --out sdss && skyloom run sdss/store.yaml
  skyloom mock galaxy --out galaxy && skyloom run galaxy/*.yaml

\b
Scenes:
  udf-like     three galaxies, one of them a merger, in nine bands like the Hubble Ultra Deep Field
  spiral       one large spiral galaxy in nine bands
  small        one galaxy in three bands on small stamps
  muse-like    a rotating disc with HII regions in a small MUSE cube, 4750 to 7000 A
  manga-like   a rotating disc with HII regions in a MaNGA cube, logarithmic in wavelength
  pmas-like    a rotating disc with HII regions in a PMAS/CALIFA cube
  halpha-like  a spiral in Halpha and two broad bands like Hubble's, 320 pixels wide, and in a small MUSE cube
  halpha-field the same 1600 pixels wide with a thousand nebulae, MUSE as images and maps
  sdss-like    a field of SDSS in five bands and two nights, and spectra of six sources in it
  galaxy       one spiral as Hubble, MUSE and SDSS see it, with a configuration for each of the four recipes
"""
)
def mock(
    scene: Annotated[
        str,
        typer.Argument(
            metavar="SCENE", help="Name of a scene; they are listed below.", autocompletion=_scene_names
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the files.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")] = 1,
) -> None:
    """Write mock observations with known truth.

    A configuration that runs on them is written beside them.
    """
    from skyloom.mock.hubble.files import write_scene

    field = write_scene(scene, out, seed)
    typer.echo(f"mock observations in {out}; their truth in {field.table}")
    # A scene for several recipes has a configuration for each.
    for config in getattr(field, "configs", {"": field.config}).values():
        typer.echo(f"skyloom run {config}")


add_demo(app)
add_qa(app)
add_store(app)
add_view(app)
add_send(app)
add_regions(app)
add_convert(app)
app.add_typer(templates, name="templates")


def main() -> None:
    """Run the command line; of the ranks that mpiexec has started, on one, with the others as its workers."""
    if started_ranks() == 1:
        app(prog_name="skyloom")
    try:
        code = run_on_ranks(_run)
    except InputError as error:
        code = int(ExitCode.BAD_INPUT)
        if is_first_rank():
            complain(error)
    sys.exit(code)


def _run() -> int:
    """Return the exit code of the command line instead of ending the process."""
    try:
        app(prog_name="skyloom")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
