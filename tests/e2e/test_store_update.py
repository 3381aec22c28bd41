"""``skyloom store update`` from the command line, and killed at a random moment."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tests.inputs.store import digests, make_store, small_image, write_files
from typer.testing import CliRunner

from skyloom.cli import app
from skyloom.io.fits import write
from skyloom.store.files.manifest import Manifest
from skyloom.store.files.verify import verify
from skyloom.store.ingest.run import ingest


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["store", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("update") / "files"
    write_files(folder, 10)
    return folder


@pytest.fixture(scope="module")
def filled(files, tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("filled") / "store")
    assert not ingest(store, [files]).failures
    return store


@pytest.fixture
def store(filled, tmp_path):
    return shutil.copytree(filled, tmp_path / "store")


def test_every_part_from_the_command_line(store, files, tmp_path):
    seen = digests(store)
    assert "metadata: 0 observations done again in 0 files, 10 are as they were" in run(
        "update", store, "metadata"
    )
    assert "images: 8 observations done again" in run("update", store, "images", files)
    assert "spectra: 2 observations done again" in run("update", store, "spectra", f"{files}/*.fits")
    assert "the index is made anew" in run("update", store, "links")
    assert digests(store) == seen
    # A file that is changed is taken when that is asked for, and one that is gone is told of.
    changed = shutil.copytree(files, tmp_path / "changed")
    (changed / "field000.fits").unlink()
    write(small_image(77), changed / "field000.fits")
    (changed / "field001.fits").unlink()
    told = run("update", store, "images", changed, code=4)
    assert "has been changed since it was stored" in told
    assert "the source of field001 is not among the files" in told
    told = run("update", store, "images", changed, "--replace", "--obs", "field000")
    assert "images: 1 observations done again in 1 files, 0 failed" in told
    now = digests(store)
    assert {name for name in now if now[name] != seen[name]} == {"field000"}
    assert "everything is as it was stored" in run("verify", store)


def test_errors_and_help(store, files, tmp_path):
    assert "did you mean spectra?" in _error("update", store, "spectrum")
    assert "no files are given" in _error("update", store, "images")
    assert "need no source files" in _error("update", store, "links", files)
    assert "there is no such file or folder" in _error("update", store, "images", tmp_path / "nowhere")
    assert "there is no observation" in _error("update", store, "images", files, "--obs", "nothing")
    assert "--out belongs to dense" in _error("update", store, "metadata", "--out", tmp_path / "x.h5")
    run("pack", store, tmp_path / "sky.h5")
    assert "a packed file cannot be changed" in _error("update", tmp_path / "sky.h5", "links")
    told = run("update", "--help")
    for part in ("metadata", "images", "spectra", "links", "dense"):
        assert f"skyloom store update sky {part}" in told


def _error(*arguments):
    return run(*arguments, code=2)


@pytest.mark.slow
def test_killed_at_any_moment(filled, files, tmp_path):
    """The store opens, every observation is there once, and the next run finishes."""
    seen = digests(filled)
    command = "import sys; from skyloom.store.ingest.update import update; update(sys.argv[1], 'images', [sys.argv[2]])"
    generator = np.random.default_rng(7)
    states = set()
    for number in range(3):
        store = shutil.copytree(filled, tmp_path / f"store{number}")
        n_before = len(Manifest.read(store).parts)
        process = subprocess.Popen([sys.executable, "-c", command, str(store), str(files)])
        (store / "lock").unlink(missing_ok=True)
        while not (store / "lock").exists() and process.poll() is None:
            time.sleep(0.002)
        time.sleep(generator.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        states.add(len(Manifest.read(store).parts) - n_before)
        assert digests(store) == seen
        run("update", store, "images", files)
        assert digests(store) == seen
        assert not len(verify(store))
        on_disk = {path.relative_to(store).as_posix() for path in store.glob("partitions/*/*.h5")}
        manifest = Manifest.read(store)
        visible = {part.name for part in manifest.visible_parts}
        assert visible <= on_disk <= {part.name for part in manifest.parts}
    assert states
