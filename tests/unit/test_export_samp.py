"""Messages over SAMP: a hub on the loopback, and a second program that gets them."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import pytest
from astropy.io import fits
from pyvo import samp

from skyloom.errors import InputError
from skyloom.io.samp import broadcast
from tests.inputs.export_stores import make_odd_store


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return make_odd_store(tmp_path_factory.mktemp("samp"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    lock = tmp_path / "hub"
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:file://{lock}")
    server = samp.SAMPHubServer(addr="127.0.0.1", web_profile=False, lockfile=str(lock))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def viewer(hub):
    """A program that opens tables and images, and the messages that it has got."""
    client = samp.SAMPIntegratedClient(name="viewer", addr="127.0.0.1")
    client.connect()
    got = []

    def take(private_key, sender, message, kind, parameters, extra):
        got.append((kind, parameters))

    for kind in ("table.load.votable", "image.load.fits"):
        client.bind_receive_notification(kind, take)
    yield got
    client.disconnect()


def waited(got, n):
    end = time.monotonic() + 10
    while len(got) < n and time.monotonic() < end:
        time.sleep(0.02)
    return got


def file_of(parameters) -> Path:
    return Path(url2pathname(urlparse(parameters["url"]).path))


def test_a_table_arrives(odd, viewer, tmp_path):
    result = odd.export(tmp_path / "with space.vot", samp=True)
    assert result.told == ("viewer",)
    [(kind, parameters)] = waited(viewer, 1)
    assert kind == "table.load.votable"
    assert file_of(parameters).read_bytes() == (tmp_path / "with space.vot").read_bytes()
    assert parameters["name"] == "with space"
    assert parameters["table-id"]


def test_images_arrive(odd, viewer, tmp_path):
    result = odd.export(tmp_path / "images", "images", obs=["plain", "drift"], samp=True)
    assert result.told == ("viewer",)
    got = waited(viewer, 2)
    assert {kind for kind, _ in got} == {"image.load.fits"}
    for _, parameters in got:
        name = file_of(parameters).stem
        image = odd.cutout(name)
        found = fits.getdata(file_of(parameters), "SCI")
        np.testing.assert_array_equal(found[~image.mask], image.data[~image.mask])


def test_nobody_understands_spectra(odd, viewer, tmp_path):
    with pytest.raises(InputError, match=r"no program.*spectrum\.load\.ssa-generic"):
        odd.export(tmp_path / "spectra", "spectra", obs="fibre", samp=True)
    assert (tmp_path / "spectra" / "fibre.fits").exists()


def test_without_a_hub_the_remedy_is_told(odd, tmp_path, monkeypatch):
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:file://{tmp_path / 'none'}")
    with pytest.raises(InputError, match=r"no SAMP hub.*start TOPCAT or Aladin"):
        odd.export(tmp_path / "t.vot", samp=True)
    # It is written all the same.
    assert (tmp_path / "t.vot").exists()


def test_what_cannot_be_sent(odd, tmp_path):
    with pytest.raises(InputError, match="parquet cannot be sent"):
        odd.export(tmp_path / "t.parquet", samp=True)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="no such file"):
        broadcast(tmp_path / "none.vot", "votable")
    with pytest.raises(InputError, match="fits-table"):
        broadcast(tmp_path / "none.vot", "picture")
