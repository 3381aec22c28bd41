"""Files appear complete or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from skyloom.errors import InputError
from skyloom.io.formats.atomic import atomic_path


def test_the_file_appears_at_the_end(tmp_path):
    target = tmp_path / "product.fits"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".fits"
        temporary.write_bytes(b"content")
        assert not target.exists()
    assert target.read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["product.fits"]


def fail_halfway(target):
    with atomic_path(target, overwrite=True) as temporary:
        temporary.write_bytes(b"half")
        raise ValueError("no more")


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "product.fits"
    target.write_bytes(b"old")
    with pytest.raises(ValueError, match="no more"):
        fail_halfway(target)
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_existing_files_are_kept_unless_asked(tmp_path):
    target = tmp_path / "product.fits"
    target.write_bytes(b"old")
    with pytest.raises(InputError, match="exists already"), atomic_path(target):
        pass
    with atomic_path(target, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_a_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(InputError, match=r"folder .*absent does not exist"),
        atomic_path(tmp_path / "absent" / "a.fits"),
    ):
        pass


def test_a_killed_run_leaves_no_half_file(tmp_path):
    target = tmp_path / "product.fits"
    script = (
        "import sys, time\n"
        "from skyloom.io.formats.atomic import atomic_path\n"
        f"with atomic_path({str(target)!r}) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    time.sleep(0.01)
    assert not target.exists()
    assert all(path.name.startswith(".product.") for path in tmp_path.iterdir())
