"""``skyloom send``: what a file is, who is told, and what is said when nobody listens."""

from __future__ import annotations

import time

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from pyvo import samp
from typer.testing import CliRunner

import skyloom as sl
from skyloom.cli import app
from skyloom.errors import InputError
from skyloom.io.samp import kind_of
from tests.inputs.io_objects import make_cube, make_image, make_spectra


def run(*arguments):
    return CliRunner().invoke(app, ["send", *map(str, arguments)])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sent")
    rng = np.random.default_rng(2)
    for name, obj in (
        ("image", make_image(rng)),
        ("cube", make_cube(rng)),
        ("spectra", make_spectra(rng)),
    ):
        sl.write(obj, folder / f"{name}.fits")
    table = QTable({"a": [1.0, 2.0]})
    table.write(folder / "table.fits")
    table.write(folder / "table.vot", format="votable")
    table.write(folder / "table.ecsv")
    fits.PrimaryHDU(np.ones(5)).writeto(folder / "line.fits")
    fits.PrimaryHDU().writeto(folder / "empty.fits")
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    lock = tmp_path_factory.mktemp("hub") / "lock"
    server = samp.SAMPHubServer(addr="127.0.0.1", web_profile=False, lockfile=str(lock), mode="multiple")
    server.start()
    yield lock
    server.stop()


def listener(name, got):
    def take(key, sender, number, mtype, sent, extra):
        got.append((name, mtype, sent))

    return take


@pytest.fixture(scope="module")
def programs(hub):
    """Two programs: one opens images, the other tables and spectra; and what they have got."""
    from pyvo.samp.lockfile_helpers import check_running_hub

    _, parameters = check_running_hub(str(hub))
    got, clients = [], []
    for name, kinds in (
        ("SAOImage DS9", ("image.load.fits",)),
        ("TOPCAT", ("table.load.votable", "table.load.fits", "spectrum.load.ssa-generic")),
    ):
        client = samp.SAMPIntegratedClient(name=name, addr="127.0.0.1")
        client.connect(hub_params=parameters)
        clients.append(client)

        for kind in kinds:
            client.bind_receive_notification(kind, listener(name, got))
    yield got
    for client in clients:
        client.disconnect()


def waited(got, n):
    end = time.monotonic() + 10
    while len(got) < n and time.monotonic() < end:
        time.sleep(0.02)
    return got


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("image.fits", "image"),
        ("cube.fits", "image"),
        ("spectra.fits", "spectrum"),
        ("line.fits", "spectrum"),
        ("table.fits", "fits-table"),
        ("table.vot", "votable"),
    ],
)
def test_the_kind_is_found_in_the_file(files, name, kind):
    assert kind_of(files / name) == kind


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table.ecsv", "skyloom convert"),
        ("empty.fits", "neither an image nor a table"),
        ("imge.fits", "did you mean"),
    ],
)
def test_what_nobody_opens_is_told(files, name, message):
    with pytest.raises(InputError, match=message):
        kind_of(files / name)


@pytest.mark.parametrize("kept", [0.4025, 0.55])  # The one ends in an array, the other in a header.
def test_a_truncated_image_is_called_truncated(files, tmp_path, kept):
    whole = (files / "image.fits").read_bytes()
    (tmp_path / "part.fits").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InputError, match="truncated"):
        kind_of(tmp_path / "part.fits")


def test_files_go_to_those_who_open_them(files, hub, programs):
    programs.clear()
    result = run(files / "image.fits", files / "table.vot", files / "spectra.fits", "--hub", hub)
    assert result.exit_code == 0, result.output
    assert "image.fits (image): SAOImage DS9" in result.output
    told = sorted((name, mtype) for name, mtype, _ in waited(programs, 3))
    assert told == [
        ("SAOImage DS9", "image.load.fits"),
        ("TOPCAT", "spectrum.load.ssa-generic"),
        ("TOPCAT", "table.load.votable"),
    ]
    (image,) = [sent for _, mtype, sent in programs if mtype == "image.load.fits"]
    assert image["url"] == (files / "image.fits").resolve().as_uri()


def test_one_program_is_chosen_by_name(files, hub, programs):
    programs.clear()
    assert run(files / "cube.fits", "--to", "ds9", "--hub", f"std-lockurl:{hub}").exit_code == 0
    assert [name for name, _, _ in waited(programs, 1)] == ["SAOImage DS9"]
    deaf = run(files / "cube.fits", "--to", "topcat", "--hub", hub)
    assert deaf.exit_code == 2
    assert "topcat does not open image.load.fits; those who do: SAOImage DS9" in deaf.output
    missing = run(files / "cube.fits", "--to", "aladin", "--hub", hub)
    assert "no program named aladin is connected" in missing.output
    assert "SAOImage DS9, TOPCAT" in missing.output


def test_the_kind_can_be_given(files, hub, programs):
    programs.clear()
    result = run(files / "spectra.fits", "--as", "image", "--hub", hub)
    assert result.exit_code == 0
    assert [name for name, _, _ in waited(programs, 1)] == ["SAOImage DS9"]
    assert "use one of" in run(files / "image.fits", "--as", "picture", "--hub", hub).output


def test_what_fails_does_not_keep_the_rest_back(files, hub, programs):
    programs.clear()
    result = run(files / "empty.fits", files / "image.fits", "--hub", hub)
    assert result.exit_code == 4
    assert "neither an image nor a table" in result.output
    assert [name for name, _, _ in waited(programs, 1)] == ["SAOImage DS9"]


def test_without_a_hub_it_says_what_to_do(files, tmp_path):
    result = run(files / "image.fits", "--hub", tmp_path / "none")
    assert result.exit_code == 2
    assert "no SAMP hub runs for" in result.output
    assert "start TOPCAT or Aladin first" in result.output
