"""``skyloom store serve`` as its clients see it: pyvo finds, cuts out and reads; others send what they should not."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import pyvo
import requests
from astropy import units as u
from astropy.io.votable import parse
from astropy.time import Time
from tests.inputs.store import small_image, small_wcs, write_files
from tests.inputs.store_files import good_frame, good_spectrum

import skyloom.store
from skyloom.core.cube import Cube
from skyloom.io.fits import write
from skyloom.io.registry import read
from skyloom.store.service import StoreServer

LIMIT = 60_000
"""Bytes of the largest cut-out: whole images are below it, the whole cube is not."""


def small_cube() -> Cube:
    shape = (40, 20, 24)
    data = np.random.default_rng(3).normal(5.0, 1.0, shape).astype(np.float32)
    wave = np.linspace(4800.0, 5190.0, shape[0])
    meta = {"instrument": "unit", "object": "Ring <2> & more"}
    return Cube(
        data,
        np.ones_like(data),
        None,
        "nmgy",
        small_wcs(40.0, 20.0, shape[1:]),
        wave=wave,
        medium="air",
        meta=meta,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    files = folder / "files"
    for epoch, band in ((0, "r"), (0, "g"), (1, "r")):
        good_frame(files, epoch, band)
    good_spectrum(files)
    write(small_cube(), files / "ring.fits")
    write_files(files, 3)
    store = skyloom.store.create(folder / "sky", levels=3)
    assert not store.ingest([files]).failures
    store.close()
    return folder


@pytest.fixture(scope="module")
def store(folder):
    with skyloom.store.open(folder / "sky") as store:
        yield store


@pytest.fixture(scope="module")
def server(folder):
    with StoreServer(folder / "sky", most_bytes=LIMIT) as server:
        yield server


@pytest.fixture(scope="module")
def service(server):
    return pyvo.dal.SIA2Service(f"{server.address}/sia2")


def names(found):
    return {record["obs_id"] for record in found}


def opened(content: bytes, tmp_path: Path):
    path = tmp_path / "part.fits"
    path.write_bytes(content)
    return read(path)


def get(server, path, **parameters):
    return requests.get(f"{server.address}/{path}", params=parameters, timeout=30)


def soda(server, **parameters):
    return get(server, "soda/sync", **parameters)


# --- discovery ------------------------------------------------------------------------------------------------------


def test_discovery_by_position_and_time(service, store):
    table = store.images(cone=((38.3, -0.13), 0.1))
    first = next(row for row in table if row["obs_id"] == "sdss-002820-3-0122-r")
    ra, dec = float(first["s_ra"].value), float(first["s_dec"].value)
    found = service.search(pos=(ra, dec, 0.001))
    frames = {"sdss-002820-3-0122-r", "sdss-002820-3-0122-g", "sdss-005902-3-0218-r"}
    assert names(found) == frames
    begin, end = (Time(float(first[name].value), format="mjd", scale="utc") for name in ("t_min", "t_max"))
    night = service.search(pos=(ra, dec, 0.001), time=(begin, end))
    assert names(night) == {"sdss-002820-3-0122-r", "sdss-002820-3-0122-g"} & names(night)
    assert "sdss-002820-3-0122-r" in names(night)
    assert "sdss-005902-3-0218-r" not in names(night)
    # The very moment at which it began, as it was told.
    assert "sdss-002820-3-0122-r" in names(service.search(time=begin))
    assert not len(service.search(pos=(ra, dec, 0.001), time=("1990-01-01", "1990-01-02")))
    assert names(service.search(time=[(begin, end), ("2005-01-01", "2009-01-01")])) > names(night)


def test_discovery_says_what_the_store_says(service, store):
    record = service.search(publisher_did="sdss-002820-3-0122-r")[0]
    table = store.table([store.row("sdss-002820-3-0122-r")])
    for name in ("s_ra", "s_dec", "t_min", "t_max", "t_exptime", "em_min", "em_max", "s_fov"):
        assert record[name] == pytest.approx(table[name].value[0], rel=1e-15), name
    assert record.obs_publisher_did == "ivo://skyloom.store/sky?sdss-002820-3-0122-r"
    assert record.dataproduct_type == "image"
    assert record["s_region"] == table["s_region"][0]
    assert (record["s_xel1"], record["s_xel2"]) == (64, 48)
    assert record["band"] == "r"


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"pos": (10.0, -5.0, 0.01)}, {"field000"}),
        ({"pos": (9.9, 10.1, -5.1, -4.9)}, {"field000"}),
        ({"pos": (9.9, -5.1, 10.1, -5.1, 10.0, -4.9)}, {"field000"}),
        ({"pos": [(10.0, -5.0, 0.01), (30.0, -5.0, 0.01)]}, {"field000", "field001"}),
        ({"band": (5.0e-7, 5.1e-7), "data_type": "cube"}, {"ring"}),
        ({"band": (1.0, 2.0)}, set()),
        ({"instrument": ["camera"]}, {"field000", "field001", "field002"}),
        ({"instrument": ["camera", "unit"], "data_type": "cube"}, {"ring"}),
        ({"instrument": "CAMERA"}, set()),
        ({"collection": "SDSS", "data_type": "spectrum"}, {"sdss-3126-54804-0211"}),
        ({"target_name": "Ring <2> & more"}, {"ring"}),
        ({"calib_level": [3, 4]}, set()),
        ({"exptime": (29.0, 31.0)}, {"field000", "field001", "field002"}),
        ({"field_of_view": (1.0, np.inf)}, set()),
        ({"res_format": "application/fits", "data_type": "cube"}, {"ring"}),
        ({"res_format": "image/png"}, set()),
        ({"pol": "I"}, set()),
        ({"timeres": (0.0, 1e9)}, set()),
    ],
)
def test_discovery_by_other_conditions(service, where, expected):
    assert names(service.search(**where)) == expected


def test_spectra_are_found_when_they_are_asked_for(service, store):
    everything = service.search()
    assert names(everything) == set(store.images()["obs_id"]) | set(store.cubes()["obs_id"])
    spectra = service.search(data_type="spectrum")
    assert names(spectra) == set(store.spectra()["obs_id"])


def test_responses_are_valid_and_tell_of_more(server, service):
    for parameters in (
        {},
        {"MAXREC": 0},
        {"MAXREC": 2},
        {"POS": "CIRCLE 10 -5 1"},
        {"POS": "CIRCLE 10 -95 1"},
    ):
        response = get(server, "sia2/query", **parameters)
        document = parse(io.BytesIO(response.content), verify="exception")
        status = document.resources[0].infos[0]
        assert (status.name, response.headers["Content-Type"]) == (
            "QUERY_STATUS",
            "application/x-votable+xml",
        )
        wrong = parameters.get("POS") == "CIRCLE 10 -95 1"
        overflow = parameters.get("MAXREC") == 2
        assert status.value == ("ERROR" if wrong else "OVERFLOW" if overflow else "OK")
        assert response.status_code == (400 if wrong else 200)
    assert len(service.search(maxrec=0)) == 0
    assert len(service.search(maxrec=2)) == 2
    with pytest.raises(pyvo.dal.DALQueryError, match="UsageFault: POS=CIRCLE"):
        pyvo.dal.sia2.SIA2Query(f"{server.address}/sia2/query", POS="CIRCLE 10 95 1").execute()


def test_standard_names_units_and_utypes(server):
    table = parse(io.BytesIO(get(server, "sia2/query").content), verify="exception").get_first_table()
    fields = {field.name: field for field in table.fields}
    assert fields["s_ra"].utype == "obscore:Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C1"
    assert fields["t_min"].ucd == "time.start;obs.exposure"
    assert [str(fields[name].unit) for name in ("s_ra", "s_resolution", "t_min", "em_min", "t_exptime")] == [
        "deg", "arcsec", "d", "m", "s",
    ]  # fmt: skip


def test_other_forms_and_post(server):
    text = get(server, "sia2/query", RESPONSEFORMAT="csv", DPTYPE="cube").text
    assert text.splitlines()[0].startswith("dataproduct_type,")
    assert len(text.splitlines()) == 2
    assert "\t" in get(server, "sia2/query", RESPONSEFORMAT="tsv", DPTYPE="cube").text
    address = f"{server.address}/sia2/query"
    posted = requests.post(address, data={"dptype": "cube", "responseFormat": "csv"}, timeout=30)
    assert posted.text == text
    form = requests.post(
        address, files={"dptype": (None, "cube"), "responseformat": (None, "csv")}, timeout=30
    )
    assert form.text == text
    head = requests.head(address, params={"DPTYPE": "cube"}, timeout=30)
    assert (head.status_code, head.content) == (200, b"")


# --- cut-outs -------------------------------------------------------------------------------------------------------


def test_cutout_of_a_record_is_that_of_the_store(service, store, tmp_path):
    record = next(own for own in service.search(pos=(10.0, -5.0, 0.01)) if own["obs_id"] == "field000")
    place, radius = (10.0003, -5.0005), 4.0 / 3600
    stream = record.processed(circle=(*place, radius) * u.deg)
    part = opened(stream.read(), tmp_path)
    expected = store.cutout("field000", place, 2 * radius * u.deg)
    assert part.shape == expected.shape == (20, 20)
    np.testing.assert_array_equal(part.data, expected.data)
    np.testing.assert_array_equal(part.variance, expected.variance)
    np.testing.assert_array_equal(part.mask, expected.mask)
    assert part.unit == expected.unit
    for x, y in ((0.0, 0.0), (19.0, 3.0)):
        assert part.wcs.pixel_to_world(x, y).separation(expected.wcs.pixel_to_world(x, y)) < 1e-9 * u.arcsec
    # It reaches beyond the image, where nothing is known.
    assert part.mask.any()
    assert np.isnan(part.data[part.mask]).any()
    assert not part.mask.all()


def test_whole_data_sets_come_from_their_address(service, store, tmp_path):
    record = service.search(publisher_did="ivo://skyloom.store/sky?field001")[0]
    whole = opened(record.getdataset().read(), tmp_path)
    expected = store.cutout("field001")
    np.testing.assert_array_equal(whole.data, expected.data)
    np.testing.assert_array_equal(whole.variance, expected.variance)


def test_regions_and_levels(server, store, tmp_path):
    for parameters in (
        {"POS": "RANGE 9.9997 10.0003 -5.0003 -4.9997"},
        {"POLYGON": "9.9997 -5.0003 10.0003 -5.0003 10.0003 -4.9997 9.9997 -4.9997"},
    ):
        part = opened(soda(server, ID="field000", **parameters).content, tmp_path)
        x, y = part.wcs.world_to_pixel_values([9.9997, 10.0003], [-5.0003, -4.9997])
        inside = np.array([x.min(), part.shape[1] - 1 - x.max(), y.min(), part.shape[0] - 1 - y.max()])
        assert ((inside >= -0.51) & (inside <= 0.51)).all(), parameters
    coarse = opened(soda(server, ID="field000", LEVEL=2).content, tmp_path)
    expected = store.cutout("field000", level=2)
    np.testing.assert_array_equal(coarse.data, expected.data)
    assert "levels 0 to" in soda(server, ID="field000", LEVEL=9).text


def test_cubes_are_cut_in_wavelength_too(server, store, tmp_path):
    parameters = {"CIRCLE": f"40 20 {2 / 3600}", "BAND": "4.9e-7 5.0e-7"}
    response = soda(server, ID="ring", **parameters)
    part = opened(response.content, tmp_path)
    expected = store.cutout("ring", (40.0, 20.0), 4 * u.arcsec)
    first = int(np.flatnonzero(expected.wave == part.wave[0])[0])
    assert part.shape[1:] == expected.shape[1:] == (10, 10)
    assert 10 <= part.shape[0] <= 12
    np.testing.assert_array_equal(part.data, expected.data[first : first + part.shape[0]])
    np.testing.assert_array_equal(part.variance, expected.variance[first : first + part.shape[0]])
    # The wavelengths of the file are those of air, the request's of vacuum: 1.4 A more.
    assert part.wave[0] == pytest.approx(4898.6, abs=5.1)
    assert soda(server, ID="ring", BAND="7e-7 8e-7").status_code == 204


def test_spectra_whole_and_in_part(server, service, store, tmp_path):
    record = service.search(data_type="spectrum", publisher_did="sdss-3126-54804-0211")[0]
    expected = store.spectrum(record["obs_id"])
    spectrum = opened(record.getdataset().read(), tmp_path)
    np.testing.assert_array_equal(spectrum.data, expected.data)
    np.testing.assert_array_equal(spectrum.variance, expected.variance)
    band = [float(expected.wave[edge]) * 1e-10 for edge in (100, 149)]
    part = opened(soda(server, ID=record["obs_id"], BAND=f"{band[0]!r} {band[1]!r}").content, tmp_path)
    np.testing.assert_array_equal(part.wave, expected.wave[100:150])
    np.testing.assert_array_equal(part.variance, expected.variance[:, 100:150])
    assert soda(server, ID=record["obs_id"], CIRCLE="100 50 1").status_code == 204


def test_what_is_not_in_the_image_has_no_content(server, service):
    for parameters in (
        {"CIRCLE": "11 -5 0.1"},
        {"POS": "RANGE 100 101 -5 5"},
        {"POLYGON": "190 5 191 5 191 6"},
        {"TIME": "50000 50001"},
        {"BAND": "1 2"},
        {"POL": "V"},
    ):
        response = soda(server, ID="field000", **parameters)
        assert (response.status_code, response.content) == (204, b""), parameters
    record = next(own for own in service.search(pos=(10.0, -5.0, 0.01)) if own["obs_id"] == "field000")
    assert record.processed(circle=(200.0, 10.0, 0.001) * u.deg).read() == b""


@pytest.mark.parametrize(
    ("parameters", "status", "words"),
    [
        ({}, 400, "UsageError: ID is missing"),
        ({"ID": "nowhere"}, 404, "UsageError: there is no data set 'nowhere'"),
        ({"ID": "../../etc/passwd"}, 404, "UsageError: there is no data set"),
        ({"ID": ["field000", "field001"]}, 400, "MultiValuedParamNotSupported: ID"),
        ({"ID": "field000", "CIRCLE": ["1 2 3", "4 5 6"]}, 400, "MultiValuedParamNotSupported: 2 regions"),
        (
            {"ID": "field000", "CIRCLE": "1 2 3", "POS": "RANGE 1 2 3 4"},
            400,
            "MultiValuedParamNotSupported: 2",
        ),
        ({"ID": "field000", "BAND": ["1", "2"]}, 400, "MultiValuedParamNotSupported: BAND"),
        ({"ID": "field000", "CIRCLE": "10 95 1"}, 400, "UsageError: CIRCLE: (10, 95) is not on the sky"),
        ({"ID": "field000", "CIRCLE": "10 -5 -1"}, 400, "UsageError: CIRCLE: the radius is -1"),
        ({"ID": "field000", "CIRCLE": "10 -5 nan"}, 400, "UsageError: CIRCLE: 'nan' is no number"),
        ({"ID": "field000", "LEVEL": "one"}, 400, "UsageError: LEVEL"),
        ({"ID": "field000", "POL": "X"}, 400, "UsageError: POL"),
        ({"ID": "field000", "RESPONSEFORMAT": "image/png"}, 400, "UsageError: RESPONSEFORMAT"),
        ({"ID": "ring"}, 400, "UsageError: the cut-out would have 24 x 20 pixels in 40 channels, 0.1728 MB"),
        (
            {"ID": "field000", "CIRCLE": "10.0 -4.98 0.0195"},
            400,
            "UsageError: the cut-out would have 351 x 351",
        ),
    ],
)
def test_errors_of_cutouts(server, parameters, status, words):
    response = soda(server, **parameters)
    assert (response.status_code, response.headers["Content-Type"]) == (status, "text/plain; charset=utf-8")
    assert response.text.startswith(words)


def test_pyvo_raises_what_the_service_says(service):
    record = next(own for own in service.search(data_type="cube"))
    with pytest.raises(pyvo.dal.DALServiceError, match=r"UsageError: the cut-out would have 24 x 20"):
        record.processed(band=(4.0e-7, 6.0e-7) * u.m)


def test_links(server, store, tmp_path):
    links = pyvo.dal.adhoc.DatalinkService(f"{server.address}/datalink/links")
    found = links.run_sync("ivo://skyloom.store/sky?field000")
    assert [link.semantics for link in found] == ["#this", "#cutout", "#derivation", "#derivation"]
    part = found.get_first_proc().process(circle=(10.0, -5.0, 2.0 / 3600) * u.deg)
    assert opened(part.read(), tmp_path).shape == (10, 10)
    several = get(server, "datalink/links", ID=["field000", "nowhere"])
    document = parse(io.BytesIO(several.content), verify="exception")
    assert "NotFoundFault" in str(document.get_first_table().array["error_message"][-1])


def test_the_service_describes_itself(server):
    for path in ("", "sia2/", "soda/"):
        response = get(server, f"{path}capabilities")
        assert f"{server.address}/sia2/query" in response.text
    assert "<vosi:available>true<" in get(server, "availability").text
    assert "obscore:Char.TimeAxis" in get(server, "tables").text
    page = get(server, "")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    for address in re.findall(r'href="([^"]+)"', page.text):
        response = requests.get(address.replace("&amp;", "&"), timeout=30)
        assert response.status_code in (200, 204), address


# --- what nobody should send ----------------------------------------------------------------------------------------


def test_hostile_requests_leave_the_service_alive(server):
    address = server.address
    nasty = [
        "%00",
        "%ff%fe",
        "A" * 3000,
        "';DROP TABLE x",
        "<script>",
        "{{7*7}}",
        "NaN",
        "1e309",
        "-1",
        "١٢",
        "%0d%0aX: y",
    ]
    paths = [f"soda/sync?ID={text}" for text in nasty]
    paths += [
        f"soda/sync?ID=field000&{name}={text}" for name in ("CIRCLE", "LEVEL", "BAND") for text in nasty
    ]
    paths += [
        f"sia2/query?{name}={text}" for name in ("POS", "MAXREC", "ID", "TARGET", "TIME") for text in nasty
    ]
    paths += [f"sia2/query?RESPONSEFORMAT={text}" for text in nasty]
    paths += [
        "../../etc/passwd",
        "soda/sync/../../x",
        "soda/sync?" + "&".join(f"P{n}={n}" for n in range(3000)),
    ]
    paths += [
        "sia2/query?POS=POLYGON " + "0 0 " * 2000,
        "sia2/query?" + "POS=CIRCLE 1 2 3&" * 2500,
        "sia2/query?VERSION=9",
    ]
    paths += [
        "soda/sync?ID=field000&CIRCLE=10 -5 180",
        "sia2/query?REQUEST=drop",
        "sia2/query?TIME=1e300 2e300",
    ]
    with requests.Session() as session:
        for path in paths:
            response = session.get(f"{address}/{path}", timeout=30)
            assert response.status_code < 500, path
            assert "Traceback" not in response.text
            assert "<script>" not in response.text or response.headers["Content-Type"].startswith(
                "text/plain"
            )
            assert "X" not in response.headers
        for body in (b"\xff" * 1000, b"ID=" + b"x" * 2_000_000):
            try:
                assert session.post(f"{address}/soda/sync", data=body, timeout=30).status_code < 500
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                # A request that is too long is cut off.
                assert len(body) > 1_000_000
        assert session.put(f"{address}/soda/sync", timeout=30).status_code == 405
        assert session.get(f"{address}/sia2/query?MAXREC=1", timeout=30).status_code == 200


def test_pages_of_other_sites_get_nothing(server):
    response = requests.get(f"{server.address}/sia2/query", headers={"Host": "example.org"}, timeout=30)
    assert response.status_code == 421
    local = requests.get(
        f"{server.address}/capabilities", headers={"Host": f"localhost:{server.port}"}, timeout=30
    )
    assert f"http://localhost:{server.port}/sia2/query" in local.text


# --- the store meanwhile --------------------------------------------------------------------------------------------


def test_what_is_stored_meanwhile_is_seen(tmp_path):
    write(small_image(1, 50.0, 5.0), tmp_path / "one.fits")
    store = skyloom.store.create(tmp_path / "sky", levels=1)
    with StoreServer(tmp_path / "sky") as server:
        assert "0 observations" in get(server, "").text
        store.ingest([tmp_path / "one.fits"])
        deadline = time.monotonic() + 30.0
        while "one" not in (text := get(server, "sia2/query", RESPONSEFORMAT="csv").text):
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
        assert soda(server, ID="one").status_code == 200


def test_damaged_files_are_told_without_telling_where_they_are(tmp_path, caplog):
    write(small_image(1, 50.0, 5.0), tmp_path / "one.fits")
    store = skyloom.store.create(tmp_path / "sky", levels=1)
    store.ingest([tmp_path / "one.fits"])
    store.close()
    (part,) = (tmp_path / "sky").glob("partitions/*/*.h5")
    content = bytearray(part.read_bytes())
    with StoreServer(tmp_path / "sky") as server:
        part.write_bytes(bytes(len(content) // 2))
        response = soda(server, ID="one")
        assert response.status_code == 500
        assert response.text == "Error: the service has failed; its log says why\n"
        assert str(part.name) in caplog.text
        assert get(server, "sia2/query").status_code == 200


def test_packed_stores_are_served(store, tmp_path):
    store.pack(tmp_path / "sky.h5")
    with StoreServer(tmp_path / "sky.h5") as server:
        assert names(pyvo.dal.SIA2Service(server.address).search(pos=(10.0, -5.0, 0.01))) == {"field000"}
        assert soda(server, ID="ivo://skyloom.store/sky?field000").status_code == 200


def test_many_at_once(server):
    from concurrent.futures import ThreadPoolExecutor

    def ask(number):
        if number % 2:
            return soda(server, ID=f"field00{number % 3}").status_code
        return get(server, "sia2/query", POS="CIRCLE 10 -5 1").status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(40))) == {200}


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_prints_its_address_and_ends_by_interrupt(folder):
    command = [
        sys.executable,
        "-c",
        "from skyloom.cli import main; main()",
        "store",
        "serve",
        str(folder / "sky"),
    ]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    with process:
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)[0]
        assert requests.get(f"{address}/sia2/query?MAXREC=1", timeout=30).status_code == 200
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output == "ended\n"
    assert errors == ""


def test_ports_that_are_taken(server, folder):
    from typer.testing import CliRunner

    from skyloom.cli import app

    result = CliRunner().invoke(app, ["store", "serve", str(folder / "sky"), "--port", str(server.port)])
    assert result.exit_code == 2
    assert "cannot listen on 127.0.0.1" in result.output
    assert CliRunner().invoke(app, ["store", "serve", str(folder / "nothing")]).exit_code == 2
