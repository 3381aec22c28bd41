"""``skyloom run``: one configuration or several, for the objects they name or for a table of galaxies."""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyloom.cli.outcome import finish, tell_result, worst_code
from skyloom.cli.progress import ProgressBar
from skyloom.cli.terminal import RUN_EXIT_CODES, complain, console
from skyloom.core.mpi import cluster_address
from skyloom.errors import InputError
from skyloom.recipes.registry import Recipe, recipe_of
from skyloom.recipes.result import ExitCode

if TYPE_CHECKING:
    from skyloom.recipes.config import Settings
    from skyloom.recipes.result import RunResult

__all__ = ["add_run"]

commands = typer.Typer()


def add_run(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.registered_commands += commands.registered_commands


@dataclass(frozen=True, slots=True)
class _Job:
    """A configuration that has been read and checked."""

    path: Path
    recipe: Recipe
    config: Settings

    @property
    def directory(self) -> Path:
        """The folder of its products."""
        output: Any = self.config.output  # type: ignore[attr-defined]  # every recipe's configuration has this block
        return Path(output.directory)


@commands.command(
    epilog=f"""\b
Examples:
  skyloom run homogenize.yaml
  skyloom run homogenize.yaml --set sky.method=mesh --set 'objects=[37, 912]'
  skyloom run homogenize.yaml --out results --workers 2
  skyloom run ifs.yaml --set snr.line=SII6716 --set binning.target=5
  skyloom run ifs.yaml --galaxies sample.csv              a table with the columns name, z, a_v
  skyloom run halpha.yaml --set anchor.method=ratio --set cosmic_rays=none
  skyloom run store.yaml --out sky --workers 2
  skyloom run hst.yaml muse.yaml sdss.yaml                one after the other

A run that was interrupted goes on where it stopped: what is finished is kept unless --overwrite is given. A
recipe of stages (ifs, halpha) does again what a change of the configuration concerns, and nothing else.

Of several configurations one that cannot be used does not stop the others; --out DIR gives each a folder of its
own, DIR/NAME. In a table of galaxies, z and a_v may be empty (the header or the configuration tells them then), and
every other column of words is a field of file names: the column 'cubename' fills {{cubename}}. A galaxy that the
configuration names too keeps what stands there.

{RUN_EXIT_CODES}"""
)
def run(
    configs: Annotated[
        list[Path],
        typer.Argument(metavar="CONFIG.yaml", help="YAML files; 'skyloom init' writes one to start from."),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value, such as target.psf=f160w. Repeatable."
        ),
    ] = None,
    galaxies: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Run these objects: CSV, TSV, ECSV, FITS or VOTable."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine; threads for a single cube.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A running Dask scheduler to work on.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the products.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do finished items again.")] = False,
) -> None:
    """Run the recipes that configurations describe."""
    overrides = [*(settings or ()), *([] if workers is None else [f"workers={workers}"])]
    options = {"scheduler": scheduler or cluster_address(), "overwrite": overwrite}
    if len(configs) == 1:
        job = _load(configs[0], overrides, galaxies, out)
        with ProgressBar() as progress:
            result = job.recipe.load_function()(job.config, progress=progress, **options)
        finish(result)
        return
    jobs, refused = _load_all(configs, overrides, galaxies, out)
    _check_folders(jobs)
    _run_all(jobs, refused, options)


def _load(path: Path, overrides: Sequence[str], galaxies: Path | None, out: Path | None) -> _Job:
    recipe = recipe_of(path)
    own = [] if out is None else [f"output.directory={json.dumps(str(out.resolve()))}"]
    return _Job(path, recipe, recipe.load_config(path, [*overrides, *own], galaxies=galaxies))


def _load_all(
    configs: Sequence[Path], overrides: Sequence[str], galaxies: Path | None, out: Path | None
) -> tuple[list[_Job], list[Path]]:
    """Read all configurations before anything runs; complain of those that cannot be used."""
    jobs, refused = [], []
    for path in configs:
        try:
            jobs.append(_load(path, overrides, galaxies, None if out is None else out / path.stem))
        except InputError as error:
            complain(error)
            refused.append(path)
    return jobs, refused


def _check_folders(jobs: Sequence[_Job]) -> None:
    """See to it that no two runs write into one folder.

    Raises
    ------
    InputError
        Naming the two.
    """
    owners: dict[Path, Path] = {}
    for job in jobs:
        other = owners.setdefault(job.directory.resolve(), job.path)
        if other is not job.path:
            raise InputError(
                f"would write into {job.directory}, as {other} does",
                source=job.path,
                field="output.directory",
                remedy="give each configuration a folder of its own; --out DIR makes one of each file name",
            )


def _run_all(jobs: Sequence[_Job], refused: Sequence[Path], options: dict[str, Any]) -> None:
    """Run one after the other; tell of all together at the end, and end with the exit code of all."""
    outcomes: list[tuple[_Job, RunResult | Exception]] = []
    with ProgressBar(len(jobs)) as progress:
        for job in jobs:
            progress.begin_run(job.path.name)
            try:
                outcomes.append((job, job.recipe.load_function()(job.config, progress=progress, **options)))
            # A bug in one run does not lose the others; its traceback is shown, and the exit code says it.
            except Exception as error:  # noqa: BLE001
                outcomes.append((job, error))
    codes = [ExitCode.BAD_INPUT for _ in refused]
    for job, outcome in outcomes:
        console().print(f"[bold underline]{job.path.name}[/]")
        if isinstance(outcome, InputError):
            complain(outcome)
            codes.append(ExitCode.BAD_INPUT)
        elif isinstance(outcome, Exception):
            typer.echo("".join(traceback.format_exception(outcome)), err=True)
            codes.append(ExitCode.INTERNAL_ERROR)
        else:
            tell_result(outcome)
            codes.append(outcome.exit_code)
    done = sum(code is ExitCode.DONE for code in codes)
    typer.echo(f"{done} of {len(codes)} configurations done without a complaint")
    code = worst_code(codes)
    if code is not ExitCode.DONE:
        raise typer.Exit(int(code))
