"""The command line: exit codes, one message for bad input, help that answers at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from skyloom import __version__, cli
from skyloom.errors import InputError
from skyloom.recipes.registry import RECIPES
from skyloom.recipes.result import ExitCode, ItemFailure, RunResult
from skyloom.report.model import Check


@pytest.fixture
def invoke():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(cli.app, [str(item) for item in arguments])


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "homogenize.yaml"
    path.write_text(RECIPES["homogenize"].template())
    return path


@pytest.fixture
def recipe(monkeypatch, tmp_path):
    """Put a recipe in the place of the real one that returns (or raises) what the test says."""
    calls = []
    outcome = {"result": RunResult("homogenize", tmp_path, (tmp_path / "a.fits",))}

    def function(config, **options):
        calls.append((config, options))
        if isinstance(outcome["result"], Exception):
            raise outcome["result"]
        options["progress"]("3", 1, 2)
        return outcome["result"]

    monkeypatch.setattr("skyloom.recipes.registry.Recipe.load_function", lambda _: function)
    return calls, outcome


# --- starting ----------------------------------------------------------------------------------------


def test_version(invoke):
    assert invoke("--version").output.strip() == f"skyloom {__version__}"


def test_without_a_command_the_help_is_shown(invoke):
    assert "Examples:" in invoke().output


@pytest.mark.parametrize(
    "command", [[], *([command.callback.__name__] for command in cli.app.registered_commands)]
)
def test_help_teaches(invoke, command):
    output = invoke(*command, "--help").output
    assert "Examples:" in output
    assert "skyloom" in output


def test_help_imports_nothing_heavy():
    """Imports decide how soon it answers; seconds would depend on what else the machine does."""
    code = (
        "import sys; from skyloom import cli; sys.argv = ['skyloom', '--help']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'astropy', 'scipy', 'numba', 'pydantic', 'yaml', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: skyloom" in done.stdout


# --- init --------------------------------------------------------------------------------------------


def test_init_prints_the_template(invoke):
    result = invoke("init", "homogenize")
    assert result.exit_code == 0
    assert result.output == RECIPES["homogenize"].template()


def test_init_does_not_replace_a_file_unless_told(invoke, tmp_path):
    path = tmp_path / "a.yaml"
    assert invoke("init", "homogenize", "--out", path).exit_code == 0
    path.write_text("mine")
    result = invoke("init", "homogenize", "--out", path)
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "exists already; give --overwrite" in result.output
    assert path.read_text() == "mine"
    assert invoke("init", "homogenize", "--out", path, "--overwrite").exit_code == 0


def test_an_unknown_recipe_is_told_with_the_nearest(invoke):
    result = invoke("init", "homogenise")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "did you mean 'homogenize'?" in result.output


# --- run ---------------------------------------------------------------------------------------------


def test_run_hands_the_options_to_the_recipe(invoke, config, recipe, tmp_path, monkeypatch):
    calls, _ = recipe
    monkeypatch.chdir(tmp_path)
    result = invoke(
        "run", config, "--set", "sky.method=mesh", "--workers", 3, "--out", "a b: c", "--scheduler", "tcp://x:1",
        "--overwrite",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    loaded, options = calls[0]
    assert loaded.bands["f160w"].sky.method == "mesh"
    assert loaded.workers == 3
    assert loaded.output.directory == str(tmp_path / "a b: c")
    assert options["scheduler"] == "tcp://x:1"
    assert options["overwrite"] is True
    assert "1/2 3" in result.stderr
    assert "1 file" in result.output


@pytest.mark.parametrize(
    ("checks", "failures", "code"),
    [
        ((), (), ExitCode.DONE),
        ((Check("residual", "a", 0.01, None, 0.05),), (), ExitCode.DONE),
        ((Check("residual", "a [b]", 0.07, None, 0.05),), (), ExitCode.CHECK_FAILED),
        ((Check("residual", "a", float("nan")),), (), ExitCode.CHECK_FAILED),
        ((), (ItemFailure("912", "truncated [file]"),), ExitCode.ITEMS_FAILED),
        ((Check("r", "a", 1, None, 0),), (ItemFailure("912", "truncated [file]"),), ExitCode.ITEMS_FAILED),
    ],
)
def test_the_exit_code_says_how_it_went(invoke, config, recipe, tmp_path, checks, failures, code):
    _, outcome = recipe
    outcome["result"] = RunResult("homogenize", tmp_path, (), checks=checks, failures=failures)
    result = invoke("run", config)
    assert result.exit_code == code
    for failure in failures:
        assert f"failed {failure.item}: {failure.reason}" in result.output
    for check in checks:
        assert (f"check failed {check.item}: {check.name}" in result.output) is not check.passed


def test_bad_input_is_one_message_without_a_traceback(invoke, config, recipe):
    _, outcome = recipe
    outcome["result"] = InputError("is truncated", source="a.fits", remedy="copy it again")
    result = invoke("run", config)
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.stderr == "error: a.fits: is truncated; copy it again\n"


def test_debug_shows_the_traceback(config, recipe):
    _, outcome = recipe
    outcome["result"] = InputError("is truncated")
    result = CliRunner().invoke(cli.app, ["--debug", "run", str(config)])
    assert isinstance(result.exception, InputError)


def test_a_bug_is_not_hidden(invoke, config, recipe):
    _, outcome = recipe
    outcome["result"] = ZeroDivisionError("division by zero")
    result = invoke("run", config)
    assert isinstance(result.exception, ZeroDivisionError)
    assert result.exit_code == ExitCode.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no such file; skyloom init writes a configuration"),
        ("just words", "is no configuration"),
        ("a: [", "not valid YAML"),
        ("objects: [3]\n", "recipe: the key is missing"),
        ("recipe: homogenise\n", "no recipe 'homogenise'; did you mean 'homogenize'"),
        ("recipe: homogenize\nobjets: [3]\n", "objets (line 2): unknown key; did you mean 'objects'?"),
    ],
)
def test_a_bad_configuration_is_told_and_nothing_is_written(invoke, tmp_path, text, message):
    path = tmp_path / "run.yaml"
    if text is not None:
        path.write_text(text)
    result = invoke("run", path, "--out", tmp_path / "out")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert message in result.stderr
    assert str(path) in result.stderr
    assert not (tmp_path / "out").exists()


# --- several configurations ----------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path):
    """Two configurations with folders of their own."""
    paths = [tmp_path / name for name in ("first.yaml", "second.yaml")]
    for path in paths:
        path.write_text(RECIPES["homogenize"].template())
    return paths


def test_several_configurations_run_one_after_the_other(invoke, two, recipe, tmp_path):
    calls, _ = recipe
    result = invoke("run", *two, "--out", tmp_path / "out", "--set", "sky.method=mesh")
    assert result.exit_code == 0, result.output
    assert [Path(loaded.output.directory).name for loaded, _ in calls] == ["first", "second"]
    assert all(loaded.bands["f160w"].sky.method == "mesh" for loaded, _ in calls)
    assert "[1/2 first.yaml] 1/2 3" in result.stderr
    assert "[2/2 second.yaml] 1/2 3" in result.stderr
    assert "2 of 2 configurations" in result.stdout


def test_a_configuration_that_is_none_does_not_stop_the_others(invoke, two, recipe, tmp_path):
    calls, _ = recipe
    two[0].write_text(two[0].read_text() + "objets: [3]\n")
    result = invoke("run", *two, tmp_path / "absent.yaml", "--out", tmp_path / "out")
    assert result.exit_code == ExitCode.ITEMS_FAILED
    assert len(calls) == 1
    assert "unknown key; did you mean 'objects'?" in result.stderr
    assert "absent.yaml: there is no such file" in result.stderr
    assert "1 of 3 configurations" in result.stdout


def test_when_no_configuration_can_be_used_it_is_bad_input(invoke, tmp_path):
    result = invoke("run", tmp_path / "a.yaml", tmp_path / "b.yaml")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.stderr.count("error: ") == 2


def test_two_configurations_do_not_write_into_one_folder(invoke, two, recipe):
    calls, _ = recipe
    result = invoke("run", *two)
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "second.yaml: output.directory: would write into" in result.stderr
    assert not calls


def test_the_worst_of_several_runs_is_the_exit_code(invoke, two, recipe, tmp_path):
    _, outcome = recipe
    outcome["result"] = RunResult(
        "homogenize", tmp_path, (), checks=(Check("residual", "a", 1.0, None, 0.1),)
    )
    assert invoke("run", *two, "--out", tmp_path / "out").exit_code == ExitCode.CHECK_FAILED
    outcome["result"] = InputError("is truncated", source="a.fits")
    result = invoke("run", *two, "--out", tmp_path / "out")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.stderr.count("error: a.fits: is truncated") == 2


def test_a_bug_in_one_of_several_runs_is_shown_and_the_others_go_on(invoke, two, recipe, tmp_path):
    calls, outcome = recipe
    outcome["result"] = ZeroDivisionError("division by zero")
    result = invoke("run", *two, "--out", tmp_path / "out")
    assert result.exit_code == ExitCode.INTERNAL_ERROR
    assert len(calls) == 2
    assert result.stderr.count("ZeroDivisionError: division by zero") == 2


# --- completion and guesses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("skyloom ins", "inspect"),
        ("skyloom init h", "homogenize"),
        ("skyloom mock muse", "muse-like"),
        ("skyloom store cut", "cutout"),
        ("skyloom run --gal", "--galaxies"),
    ],
)
def test_the_shell_completes(words, expected):
    environment = os.environ | {
        "_SKYLOOM_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    code = "from skyloom.cli import main; main()"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert expected in done.stdout.split(), done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed(shell):
    command = [sys.executable, "-c", "from skyloom.cli import main; main()", "--show-completion", shell]
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "_SKYLOOM_COMPLETE" in done.stdout, done.stderr


def test_a_file_that_is_not_there_is_guessed(invoke, image_file):
    assert "did you mean 'image.fits'?" in invoke("inspect", image_file.with_name("imgae.fits")).stderr
    elsewhere = invoke("inspect", image_file.parent / "absent" / "image.fits").stderr
    assert f"the folder {image_file.parent / 'absent'} is not there either" in elsewhere
    assert "is a folder, not a file" in invoke("inspect", image_file.parent).stderr


def test_the_console_script_is_declared():
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert 'skyloom = "skyloom.cli:main"' in project.read_text()


# --- mock and demo -----------------------------------------------------------------------------------


def test_every_scene_is_listed(invoke):
    from skyloom.mock.hubble.files import SCENES

    output = invoke("mock", "--help").output
    listed = output[output.index("Scenes:") :]
    for name, (text, _) in SCENES.items():
        assert f"{name:13}{text}" in listed


def test_mock_writes_files_and_a_configuration_that_is_valid(invoke, tmp_path):
    result = invoke("mock", "small", "--out", tmp_path / "a b", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a b" / "truth.ecsv").exists()
    config = RECIPES["homogenize"].load_config(tmp_path / "a b" / "homogenize.yaml")
    for name in config.object_names():
        for band in config.object_files(name).bands:
            assert band.image.exists()
            assert band.weight.exists()


def test_an_unknown_scene_is_told(invoke, tmp_path):
    result = invoke("mock", "smal", "--out", tmp_path / "out")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "small (one galaxy" in result.stderr
    assert not (tmp_path / "out").exists()


# --- inspect -----------------------------------------------------------------------------------------


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "image.fits"
    fits.writeto(path, np.random.default_rng(1).normal(size=(20, 30)).astype("f4"))
    return path


def test_inspect_shows_a_file_and_what_is_suspicious(invoke, image_file):
    result = invoke("inspect", image_file)
    assert result.exit_code == 0, result.output
    assert "image 20 x 30 float32" in result.output
    assert "problems:" in result.output


def test_inspect_goes_on_after_a_file_that_is_none(invoke, image_file, tmp_path):
    text = tmp_path / "text.fits"
    text.write_text("not FITS")
    result = invoke("inspect", text, image_file, tmp_path / "absent.fits")
    assert result.exit_code == ExitCode.ITEMS_FAILED
    assert "image 20 x 30" in result.stdout
    assert result.stderr.count("error: ") == 2
    assert invoke("inspect", text).exit_code == ExitCode.BAD_INPUT
