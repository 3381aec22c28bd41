"""Showing files in TOPCAT, Aladin, DS9 and SPLAT: messages over SAMP to what runs on this machine.

The message names a file, which the programs open themselves; nothing leaves the machine.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skyloom._version import __version__
from skyloom.errors import InputError

__all__ = ["MESSAGES", "broadcast", "kind_of"]

MESSAGES: Mapping[str, str] = {
    "votable": "table.load.votable",
    "fits-table": "table.load.fits",
    "image": "image.load.fits",
    "spectrum": "spectrum.load.ssa-generic",
}
"""What is said about a file of each kind."""
_NO_HUB = (
    "start TOPCAT or Aladin first, or another program with a SAMP hub, on this machine and as the same user"
)
_OPENED_BY = {
    "votable": "TOPCAT",
    "fits-table": "TOPCAT",
    "image": "DS9 or Aladin",
    "spectrum": "SPLAT or Aladin",
}
_HEAD = 4096  # bytes in which a VOTable has named itself


def kind_of(path: str | Path) -> str:
    """Tell from the content of a file what it is to other programs.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    str
        One of `MESSAGES`. Images and cubes are images; spectra that `skyloom.write` wrote, those of SDSS and other
        one-dimensional arrays are spectra; other FITS files with a table are tables.

    Raises
    ------
    InputError
        When the file is missing, cannot be read, or is no kind that such programs open.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError.missing(file)
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    if b"<VOTABLE" in head:
        return "votable"
    from skyloom.io.formats.files import open_fits
    from skyloom.io.registry import sniff_instrument

    try:
        with open_fits(file) as opened:
            if str(opened[0].header.get("SKYTYPE", "")) == "Spectra":
                return "spectrum"
            images = [hdu for hdu in opened if hdu.is_image and hdu.shape]
            tables = len(list(opened)) > 1
    except InputError as error:
        if head.startswith((b"SIMPLE", b"\x1f\x8b", b"BZh")):
            raise
        raise InputError(
            "is neither FITS nor VOTable",
            source=file,
            remedy="tables of other formats: 'skyloom convert' makes VOTables of them",
        ) from error
    if any(len(hdu.shape) > 1 for hdu in images):
        return "image"
    if images or (tables and _is_sdss_spectrum(sniff_instrument, file)):
        return "spectrum"
    if tables:
        return "fits-table"
    raise InputError("has neither an image nor a table", source=file)


def _is_sdss_spectrum(sniff: Any, file: Path) -> bool:
    try:
        return bool(sniff(file) == "sdss-spec")
    except InputError:
        return False


def broadcast(
    path: str | Path,
    kind: str,
    name: str | None = None,
    *,
    to: str | None = None,
    hub: str | Path | None = None,
) -> list[str]:
    """Ask all programs that understand it, or one of them, to open a file.

    Parameters
    ----------
    path : str or path
        A file that is there.
    kind : str
        One of `MESSAGES`.
    name : str, optional
        What the programs call it; by default the name of the file.
    to : str, optional
        Only programs whose name contains this, by any case.
    hub : str or path, optional
        Lock file of the hub, if it is not that of the user (or of the environment variable SAMP_HUB).

    Returns
    -------
    list of str
        Names of the programs that were told.

    Raises
    ------
    InputError
        When the file or a hub is missing, no program understands such files, or the kind is unknown.
    """
    if kind not in MESSAGES:
        raise InputError(f"kind is {kind!r}", field="kind", remedy=f"use one of {', '.join(MESSAGES)}")
    file = Path(path).resolve()
    if not file.is_file():
        raise InputError.missing(file, field="samp")
    # "table-id", "image-id", "spectrum-id": under it programs refer to what they have opened.
    subject = MESSAGES[kind].partition(".")[0]
    parameters: dict[str, Any] = {
        "url": file.as_uri(),
        "name": name or file.stem,
        f"{subject}-id": f"skyloom-{file.name}",
    }
    if kind == "spectrum":
        parameters["meta"] = {"Access.Reference": file.as_uri(), "Access.Format": "application/fits"}
    message = {"samp.mtype": MESSAGES[kind], "samp.params": parameters}
    with _client(hub) as client:
        told = _receivers(client, kind, to, file)
        for program in told:
            client.notify(program, message)
        return list(told.values())


def _receivers(client: Any, kind: str, to: str | None, file: Path) -> dict[str, str]:
    """Return who opens such files, by the hub's name of each: not every hub says that there was nobody."""
    mtype = MESSAGES[kind]
    names = {
        program: str(client.get_metadata(program).get("samp.name", program))
        for program in client.get_subscribed_clients(mtype)
    }
    chosen = {program: name for program, name in names.items() if to is None or to.lower() in name.lower()}
    if chosen:
        return chosen
    if to is None:
        raise InputError(
            f"no program that is connected opens {mtype}",
            source=file,
            field="samp",
            remedy=f"start {_OPENED_BY[kind]}, connect it to the hub, and try again",
        )
    connected = {
        str(client.get_metadata(program).get("samp.name", program))
        for program in client.get_registered_clients()
    } - {"Skyloom"}
    if any(to.lower() in name.lower() for name in connected):
        raise InputError(
            f"{to} does not open {mtype}",
            source=file,
            field="samp",
            remedy=f"those who do: {', '.join(sorted(names.values())) or 'nobody'}",
        )
    raise InputError(
        f"no program named {to} is connected",
        source=file,
        field="samp",
        remedy=f"connected are {', '.join(sorted(connected)) or 'none'}",
    )


def _samp() -> Any:
    """Return the package of SAMP: that of pyvo, into which it has moved, or of an astropy that still has it."""
    try:
        from pyvo import samp
    except ImportError:
        with warnings.catch_warnings():
            # It says that it will move to pyvo, which is not installed here.
            warnings.simplefilter("ignore")
            from astropy import samp
    return samp


@contextmanager
def _client(hub: str | Path | None) -> Iterator[Any]:
    samp = _samp()
    metadata = {
        "samp.name": "Skyloom",
        "samp.description.text": "Images, spectra and tables of Skyloom",
        "skyloom.version": __version__,
    }
    # Nothing is received; on the loopback nobody has to find out whether there is a network.
    client = samp.SAMPIntegratedClient(name="Skyloom", metadata=metadata, callable=False, addr="127.0.0.1")
    logger = logging.getLogger("astropy")
    level = logger.level
    # astropy reports each connection on the terminal.
    logger.setLevel(logging.ERROR)
    try:
        try:
            client.connect(hub_params=None if hub is None else _address(samp, hub))
        except (samp.SAMPHubError, samp.SAMPProxyError, OSError) as error:
            raise InputError(
                f"there is no SAMP hub: {str(error).rstrip('.')}", field="samp", remedy=_NO_HUB
            ) from error
        try:
            yield client
        finally:
            client.disconnect()
    finally:
        logger.setLevel(level)


def _address(samp: Any, hub: str | Path) -> dict[str, str]:
    """Return what the lock file of a hub says."""
    helpers = importlib.import_module(f"{samp.__name__}.lockfile_helpers")
    lock = str(hub).removeprefix("std-lockurl:")
    running, parameters = helpers.check_running_hub(lock)
    if not running:
        raise InputError(f"no SAMP hub runs for {lock}", field="--hub", remedy=_NO_HUB)
    found: dict[str, str] = parameters
    return found
