"""``skyloom templates``: the sets of stellar templates that there are, and how they come to this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from skyloom.core.templates import TemplateLibrary

__all__ = ["templates"]

EXIT_CODES = """\b
Exit codes:
  0  done
  2  bad input: one message says what and where
"""

templates = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Sets of stellar templates: list them, install one, look into one.",
    epilog=f"""\b
Examples:
  skyloom templates list
  skyloom templates install mastar-ssp
  skyloom templates info my_templates/

Installed sets are in $SKYLOOM_CACHE/templates ($XDG_CACHE_HOME/skyloom/templates, ~/.cache/skyloom/templates).

{EXIT_CODES}""",
)


@templates.command(
    "list",
    epilog="""\b
Examples:
  skyloom templates list
""",
)
def list_sets() -> None:
    """Show which sets are known, and which of them are installed."""
    from skyloom.io.templates.sets import TEMPLATE_SETS, installed_path, templates_folder

    for known in TEMPLATE_SETS.values():
        path = installed_path(known.name)
        there = path.is_file()
        if there:
            state = f"installed, {path.stat().st_size / 1e6:.1f} MB"
        else:
            state = f"not installed (download of {known.wheel.size / 1e6:.0f} MB)"
        typer.secho(known.name, bold=True, nl=False)
        typer.secho(f"  {state}", fg=typer.colors.GREEN if there else typer.colors.YELLOW)
        typer.echo(f"  {known.n_templates} templates; {known.summary}")
        typer.echo(f"  source:  {known.wheel.package} {known.wheel.version}; {known.reference}")
        typer.echo(f"  licence: {known.licence}")
    typer.echo(f"folder: {templates_folder()}")


@templates.command(
    epilog=f"""\b
Examples:
  skyloom templates install mastar-ssp
  skyloom templates install bc03-mpajhu --wheel sdss_mangadap-4.5.0-py3-none-any.whl

The package comes from the index that pip uses on this machine (PIP_INDEX_URL, pip config); its SHA-256 is verified,
only the spectra are kept. Sets of the same package given at once need one download.

{EXIT_CODES}"""
)
def install(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of 'skyloom templates list'.")],
    wheel: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The package as a file, where there is no network.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Install again what is there.")] = False,
) -> None:
    """Fetch sets of templates into the user's cache."""
    from skyloom.io.templates.sets import install_sets, installed_path, template_set

    before = {name for name in names if installed_path(template_set(name).name).is_file()}
    with _download_bar() as progress:
        paths = install_sets(names, wheel=wheel, overwrite=overwrite, progress=progress)
    for name, path in paths.items():
        kept = name in before and not overwrite
        typer.echo(f"{name}: {'is there already' if kept else 'installed'}, {path}")


@templates.command(
    epilog=f"""\b
Examples:
  skyloom templates info mastar-ssp
  skyloom templates info my_templates/ --medium air --fwhm 2.5
  skyloom templates info Base.BC03.N --folder BC03_spectra

{EXIT_CODES}"""
)
def info(
    source: Annotated[
        str, typer.Argument(metavar="NAME|PATH", help="An installed set, a file, a folder, or a base list.")
    ],
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the spectra of a base list are.")
    ] = None,
    medium: Annotated[
        str | None, typer.Option(metavar="air|vacuum", help="Of a folder or base list that does not say.")
    ] = None,
    fwhm: Annotated[float | None, typer.Option(metavar="A", help="Width of the lines of such a set.")] = None,
) -> None:
    """Show what a set of templates holds."""
    from skyloom.io.templates.sets import load_templates

    given = {"folder": folder, "medium": medium, "fwhm": fwhm}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    library = load_templates(source, **options)
    for line in _describe(library):
        typer.echo(line)


def _describe(library: TemplateLibrary) -> list[str]:
    """Return what there is to say about a library."""
    import numpy as np

    fwhm = np.asarray(library.fwhm)
    speed = 299792.458 * fwhm / library.wave
    ages, metals = np.unique(library.age), np.unique(library.metallicity)
    weights = "masses formed" if library.meta.get("flux_per_mass") else "light (mass is not known)"
    lines = [
        f"{library.name}: {len(library)} templates, {library.wave.size} wavelengths from {library.wave[0]:.1f} to"
        f" {library.wave[-1]:.1f} A in {library.medium}",
        f"resolution:  FWHM {fwhm.min():.2f} to {fwhm.max():.2f} A ({speed.min():.0f} to {speed.max():.0f} km/s)",
        f"ages:        {ages.size} from {ages[0]:.4g} to {ages[-1]:.4g} Gyr",
        f"[M/H]:       {', '.join(f'{value:+.2f}' for value in metals)}",
        f"weights:     {weights}; unit {library.meta.get('unit') or 'not stated'}",
    ]
    wanted = ("imf", "fwhm_source", "note", "source", "reference", "package", "licence")
    lines += [f"{key + ':':<13}{library.meta[key]}" for key in wanted if library.meta.get(key)]
    return lines


class _download_bar:  # noqa: N801  # used as a verb: with _download_bar() as progress
    """A bar on a terminal, a line at each tenth elsewhere (both on stderr)."""

    def __enter__(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        live = sys.stderr.isatty()
        self.bar = Bar(
            TextColumn("downloading"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True, soft_wrap=True),
            transient=True,
            disable=not live,
        )
        self.bar.start()
        task = self.bar.add_task("", total=None)
        told = -1

        def progress(done: int, total: int) -> None:
            nonlocal told
            if live:
                self.bar.update(task, completed=done, total=total)
            elif total and 10 * done // total > told:
                told = 10 * done // total
                typer.echo(f"downloading: {done / 1e6:.0f} of {total / 1e6:.0f} MB", err=True)

        return progress

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
