"""Showing exported files in TOPCAT, Aladin and DS9: messages over SAMP to what runs on this machine.

The message names a file, which the programs open themselves; nothing leaves the machine.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skyloom._version import __version__
from skyloom.errors import InputError

__all__ = ["MESSAGES", "broadcast"]

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


def broadcast(path: str | Path, kind: str, name: str | None = None) -> list[str]:
    """Ask all programs that understand it to open a file.

    Parameters
    ----------
    path : str or path
        A file that is there.
    kind : str
        One of `MESSAGES`.
    name : str, optional
        What the programs call it; by default the name of the file.

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
        raise InputError("there is no such file", source=file, field="samp")
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
    with _client() as client:
        # Asked first: not every hub says that there was nobody.
        told = list(client.get_subscribed_clients(MESSAGES[kind]))
        if not told:
            raise InputError(
                f"no program that is connected opens {MESSAGES[kind]}",
                source=file,
                field="samp",
                remedy="start TOPCAT for tables, Aladin or DS9 for images; the file is written",
            )
        client.notify_all(message)
        return [str(client.get_metadata(known).get("samp.name", known)) for known in told]


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
def _client() -> Iterator[Any]:
    samp = _samp()
    metadata = {
        "samp.name": "Skyloom",
        "samp.description.text": "Exports of a store of images and spectra",
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
            client.connect()
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
