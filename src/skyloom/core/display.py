"""How objects show themselves in notebooks: a hook that those who can draw fill, without being imported here.

The types of `skyloom.core` know neither HTML nor figures. Whoever does gives a source of both with `provide_displays`;
it is called when the first object is shown, and not before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Displays", "Shown", "provide_displays"]


class Displays(Protocol):
    """What draws objects."""

    def card(self, shown: Any) -> str:
        """Return what an object is as a piece of HTML."""
        ...

    def plot(self, shown: Any, **options: Any) -> Any:
        """Return a matplotlib.figure.Figure of an object."""
        ...


_sources: list[Callable[[], Displays]] = []


def provide_displays(source: Callable[[], Displays]) -> None:
    """Say where drawings come from.

    Parameters
    ----------
    source : callable
        Returns the `Displays`; called when something is shown, each time.
    """
    _sources[:] = [source]


class Shown:
    """An object that notebooks show as a card, and that can be plotted."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        """Return a card for a notebook; None, for which it shows the text, where nobody draws."""
        return _sources[-1]().card(self) if _sources else None

    def plot(self, **options: Any) -> Any:
        """Draw the object; the options of its kind are listed in `skyloom.report.notebook.plot`.

        Returns
        -------
        matplotlib.figure.Figure
            Jupyter shows it as the result of a cell; elsewhere ``figure.savefig(path)`` writes it.
        """
        if not _sources:
            raise RuntimeError("nobody has said who draws; import skyloom does")
        return _sources[-1]().plot(self, **options)
