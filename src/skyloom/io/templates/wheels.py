"""Data files out of wheels: fetched from the package index the user's machine is set up for, checked, unpacked."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

from skyloom.errors import FileFormatError, InputError

__all__ = ["Wheel", "fetch_wheel", "unpack_members", "verify_wheel"]

PYPI = "https://pypi.org/simple"
_CHUNK = 1 << 20
_TIMEOUT = 60.0  # s without a byte
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel of the Python package index.

    Attributes
    ----------
    package, version : str
    file : str
        Its name.
    sha256 : str
        What its content must have.
    size : int
        Bytes.
    """

    package: str
    version: str
    file: str
    sha256: str
    size: int


def fetch_wheel(wheel: Wheel, folder: str | Path, *, progress: Progress | None = None) -> Path:
    """Fetch a wheel into a folder and verify it.

    ``pip download`` is asked first, because it knows the mirrors, proxies, certificates and credentials that the
    machine is set up with (``PIP_INDEX_URL``, ``pip config``). Where there is no pip, the simple index is read
    directly: ``UV_DEFAULT_INDEX``, ``UV_INDEX_URL`` or ``PIP_INDEX_URL``, else pypi.org.

    Parameters
    ----------
    wheel : Wheel
    folder : str or path
        It must exist.
    progress : callable, optional
        Called with the number of bytes that are there, and of all.

    Returns
    -------
    path

    Raises
    ------
    InputError
        When the index cannot be reached or lacks the wheel.
    FileFormatError
        When what came is not the wheel.
    """
    place = Path(folder)
    if importlib.util.find_spec("pip") is not None:
        found = _by_pip(wheel, place, progress)
    else:
        found = _by_index(wheel, place, progress)
    verify_wheel(found, wheel)
    return found


def verify_wheel(path: str | Path, wheel: Wheel) -> None:
    """Raise `FileFormatError` unless a file is the wheel, by its SHA-256."""
    if not Path(path).is_file():
        raise FileFormatError.missing(path)
    with open(path, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != wheel.sha256:
        raise FileFormatError(
            f"its SHA-256 is {found}, that of {wheel.file} is {wheel.sha256}",
            source=path,
            remedy="fetch it again; a mirror or a proxy may have given something else",
        )


def _unreachable(wheel: Wheel, why: str) -> InputError:
    return InputError(
        f"{wheel.file} cannot be fetched from the package index ({why})",
        remedy="check the network and PIP_INDEX_URL (or pip config), or fetch it elsewhere with 'pip download --no-deps"
        f" {wheel.package}=={wheel.version}' and give the file with --wheel",
    )


# --------------------------------------------------------------------------------------------------- pip


def _by_pip(wheel: Wheel, folder: Path, progress: Progress | None) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        f"{wheel.package}=={wheel.version}",
        "--dest",
        str(folder),
    ]
    # It is unpacked, never run: what Python it wants does not matter.
    command += ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--no-input"]
    command += ["--disable-pip-version-check"]
    if progress is not None and _pip_version() >= (24, 1):
        command += ["--progress-bar", "raw"]
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in process.stdout or ():
                report = re.fullmatch(r"Progress (\d+) of (\d+)\s*", line)
                if report is None:
                    said.append(line.strip())
                elif progress is not None:
                    progress(int(report[1]), int(report[2]))
        except BaseException:
            process.kill()
            raise
    found = folder / wheel.file
    if process.returncode or not found.is_file():
        errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
        raise _unreachable(wheel, (errors or said or ["pip said nothing"])[-1])
    return found


def _pip_version() -> tuple[int, ...]:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return (0,)
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


# --------------------------------------------------------------------------------------- the simple index


class _Links(HTMLParser):
    """Targets of the links of a page, by their text."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: dict[str, str] = {}
        self._target: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._target = dict(attrs).get("href")

    def handle_data(self, data: str) -> None:
        if self._target is not None and data.strip():
            self.targets[data.strip()] = self._target
            self._target = None


def _index() -> str:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        value = os.environ.get(name, "").strip()
        if value:
            return value.partition("=")[2] if re.match(r"\w+=", value) else value
    return PYPI


def _by_index(wheel: Wheel, folder: Path, progress: Progress | None) -> Path:
    index = _index()
    if urllib.parse.urlsplit(index).scheme not in ("https", "http", "file"):
        raise InputError(f"{index!r} is no address of a package index", remedy="set PIP_INDEX_URL")
    page = f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', wheel.package).lower()}/"
    if page.startswith("file:"):
        page += "index.html"
    links = _Links()
    target = folder / wheel.file
    try:
        with urllib.request.urlopen(page, timeout=_TIMEOUT) as answer:
            base = answer.geturl()
            links.feed(answer.read().decode("utf-8"))
        if wheel.file not in links.targets:
            raise _unreachable(wheel, f"{page} does not list it")
        address = urllib.parse.urljoin(base, links.targets[wheel.file])
        with (
            urllib.request.urlopen(address.partition("#")[0], timeout=_TIMEOUT) as answer,
            open(target, "wb") as out,
        ):
            done = 0
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, wheel.size)
    except (OSError, urllib.error.URLError, UnicodeDecodeError) as error:
        raise _unreachable(wheel, str(getattr(error, "reason", error))) from error
    return target


# --------------------------------------------------------------------------------------------- unpacking


def unpack_members(wheel: str | Path, prefix: str, folder: str | Path) -> list[Path]:
    """Unpack the files directly below a folder of a wheel, and nothing else.

    Parameters
    ----------
    wheel : str or path
    prefix : str
        Folder inside the wheel.
    folder : str or path
        Where the files go, by their own names.

    Returns
    -------
    list of path

    Raises
    ------
    FileFormatError
        When the wheel is no archive, a member is damaged, or there is none.
    """
    place, inside = Path(folder), PurePosixPath(prefix)
    written = []
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                path = PurePosixPath(member.filename)
                if member.is_dir() or path.parent != inside:
                    continue
                target = place / path.name
                with archive.open(member) as source, open(target, "wb") as out:
                    shutil.copyfileobj(source, out)
                written.append(target)
    except zipfile.BadZipFile as error:
        raise FileFormatError(f"the wheel is damaged ({error})", source=wheel) from error
    if not written:
        raise FileFormatError(f"there is nothing in {prefix}", source=wheel)
    return written
