"""The bar that saves what is seen: pictures, FITS, CSV, VOTable, and the view itself."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING

from bokeh.models import Button, Div, FileInput, Row, Select

from skyloom.errors import InputError, SkyloomError
from skyloom.viewer.exports.images import Seen, pixels_csv, seen_fits, shown_fits
from skyloom.viewer.exports.marks import edge_marks
from skyloom.viewer.exports.spectra import curves_csv, curves_fits
from skyloom.viewer.panes.downloads import Downloads, file_name
from skyloom.viewer.panes.image import ImagePane
from skyloom.viewer.panes.listening import when_changed
from skyloom.viewer.panes.spectrum import SpectrumPane
from skyloom.viewer.panes.spectrum_figures import FIGURES
from skyloom.viewer.view import LARGEST, Restorable, read_view, restore_panes, view_file

if TYPE_CHECKING:
    from skyloom.viewer.panes.store import StorePane

__all__ = ["ExportBar"]

_IMAGE = {
    "png": "PNG as on the screen",
    "fits": "FITS, full resolution",
    "shown": "FITS, as shown",
    "csv": "CSV of the pixels",
    "picked": "CSV of what is picked",
}
_SPECTRUM = {"png": "PNG as on the screen", "fits": "FITS table", "csv": "CSV"}
_LIST = {"csv": "CSV", "vot": "VOTable"}
_NAMES = {"image-1": "image", "image-2": "second image", "spectrum": "spectrum", "store": "list of the store"}
_FITS, _CSV, _VOTABLE, _JSON = "application/fits", "text/csv", "application/x-votable+xml", "application/json"


class ExportBar:
    """The bar.

    Parameters
    ----------
    images : tuple of ImagePane
    spectrum : SpectrumPane
    store : StorePane or None
    title : str
        What is looked at; part of the names of files.
    others : mapping of str to Restorable
        What else belongs to a view, brought back before the panes.

    Attributes
    ----------
    layout : Bokeh model
    """

    def __init__(
        self,
        images: tuple[ImagePane, ...],
        spectrum: SpectrumPane,
        store: StorePane | None,
        title: str,
        others: Mapping[str, Restorable],
    ) -> None:
        self._others = others
        self._images = {f"image-{number}": pane for number, pane in enumerate(images, start=1)}
        self._spectrum, self._store, self._title = spectrum, store, title
        self._downloads = Downloads()
        self._what = Select(options=self._options(), value="image-1:png", name="export-what", width=240)
        self._export = Button(label="Export", name="export", width=70, button_type="primary")
        self._save = Button(label="Save view", name="save-view", width=85)
        self._load = FileInput(accept=".json", title="", name="load-view", width=210)
        self._told = Div(text="", name="export-message", visible=False)
        self._export.on_click(lambda: self._guarded(self._export_seen))
        self._save.on_click(lambda: self._guarded(self._save_view))
        when_changed(self._load, "value", lambda value: self._guarded(lambda: self._load_view(value)))
        self.layout = Row(
            self._what,
            self._export,
            self._save,
            Div(text="load a view:", margin=(7, 0, 0, 8)),
            self._load,
            self._told,
            self._downloads.layout,
            name="export-bar",
        )

    @property
    def panes(self) -> Mapping[str, Restorable]:
        """All panes of the page that have something to save, by name."""
        shown: dict[str, Restorable] = dict(self._others)
        shown |= {name: pane for name, pane in self._images.items() if pane.source is not None}
        shown["spectrum"] = self._spectrum
        return shown if self._store is None else {**shown, "store": self._store}

    def _options(self) -> dict[str, list[tuple[str, str]]]:
        options = {_NAMES[name]: _named(name, _IMAGE) for name in self._images}
        options[_NAMES["spectrum"]] = _named("spectrum", _SPECTRUM)
        if self._store is not None:
            options[_NAMES["store"]] = _named("store", _LIST)
        return options

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do what a button asks for; what is wrong with it is said beside it."""
        self._told.visible = False
        try:
            work()
        except (SkyloomError, OSError) as error:
            text = f"{error.message}; {error.remedy}" if isinstance(error, InputError) else str(error)
            self._tell([text.removesuffix("; None")])

    def _tell(self, lines: list[str]) -> None:
        self._told.text = (
            '<span style="color:#b3261e">' + "<br>".join(escape(line) for line in lines) + "</span>"
        )
        self._told.visible = bool(lines)

    # --- exports ----------------------------------------------------------------------------------------

    def _export_seen(self) -> None:
        what, _, form = self._what.value.partition(":")
        if what in self._images:
            self._export_image(self._images[what], what, form)
        elif what == "spectrum":
            self._export_spectrum(form)
        elif self._store is not None:
            self._export_list(form)

    def _export_image(self, pane: ImagePane, name: str, form: str) -> None:
        seen = _seen(pane)
        title = seen.source.title
        stem = title if seen.name in title else f"{title} {seen.name}"
        if form == "png":
            shown = "" if seen.layer == "value" else f" · {seen.layer}"
            unit = pane.shown.view.unit if pane.shown is not None and seen.layer in ("value", "error") else ""
            above = f"{stem}{shown}  {f'({unit})' if unit else ''}"
            self._downloads.draw(
                file_name(f"{stem} {seen.layer}", ".png"), [name], above, *edge_marks(seen.source, seen.box)
            )
        elif form == "fits":
            self._downloads.save(file_name(stem, ".fits"), _FITS, seen_fits(seen))
        elif form == "shown":
            self._downloads.save(file_name(f"{stem} {seen.layer}", ".fits"), _FITS, shown_fits(seen))
        else:
            picked = pane.picture.outline.data
            polygons = list(zip(picked["xs"], picked["ys"], strict=True)) if form == "picked" else []
            if form == "picked" and not polygons:
                raise InputError(
                    "nothing is picked", field="export", remedy="click on a bin, or lasso pixels"
                )
            self._downloads.save(file_name(stem, ".csv"), _CSV, pixels_csv(seen, polygons))

    def _export_spectrum(self, form: str) -> None:
        view = self._spectrum.view
        views = [] if view is None else [view, *(pin for pin in self._spectrum.pinned if pin is not view)]
        if view is None:
            raise InputError("no spectrum is shown", field="export", remedy="click on one first")
        if form == "png":
            self._downloads.draw(file_name(view.title, ".png"), FIGURES, view.title)
        elif form == "fits":
            self._downloads.save(file_name(view.title, ".fits"), _FITS, curves_fits(views))
        else:
            self._downloads.save(file_name(view.title, ".csv"), _CSV, curves_csv(views))

    def _export_list(self, form: str) -> None:
        from skyloom.viewer.exports.lists import list_csv, list_votable

        assert self._store is not None
        store, rows = self._store.store, self._store.rows
        if form == "csv":
            self._downloads.save(
                file_name(f"{self._title} observations", ".csv"), _CSV, list_csv(store, rows)
            )
        else:
            content = list_votable(store, rows)
            self._downloads.save(file_name(f"{self._title} observations", ".vot"), _VOTABLE, content)

    # --- the view ---------------------------------------------------------------------------------------

    def _save_view(self) -> None:
        self._downloads.save(file_name(f"{self._title} view", ".json"), _JSON, view_file(self.panes))

    def _load_view(self, value: object) -> None:
        if not isinstance(value, str) or not value:
            return
        if len(value) > 2 * LARGEST:
            raise InputError("the file is too large for a view", field="view")
        try:
            content = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputError("the file did not arrive", field="view", remedy="choose it again") from error
        panes: dict[str, Restorable] = {**self._others, **self._images, **self.panes}
        self._tell(restore_panes(panes, read_view(content)))


def _named(pane: str, forms: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(f"{pane}:{form}", f"{_NAMES[pane]}: {text}") for form, text in forms.items()]


def _seen(pane: ImagePane) -> Seen:
    """Return what an image pane shows."""
    if pane.source is None or pane.shown is None:
        raise InputError("no image is shown", field="export", remedy="choose one first")
    request = pane.shown.request
    return Seen(request.source, request.layer, request.plane, request.channel, request.box, request.pixels)
