"""The page: one image or two, linked on the sky, the spectrum of what is picked in them, and the store."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    Div,
    GlobalInlineStyleSheet,
    InlineStyleSheet,
    RadioButtonGroup,
    TabPanel,
    Tabs,
    Toggle,
    Widget,
)
from jinja2 import Template

from skyloom.errors import InputError
from skyloom.viewer.panes.export_bar import ExportBar
from skyloom.viewer.panes.image import ImagePane
from skyloom.viewer.panes.scripts import LINK
from skyloom.viewer.panes.sky_grid import affine_between
from skyloom.viewer.panes.spectrum import SpectrumPane
from skyloom.viewer.protocols import PlaneSource, Region, SpectrumSource, SpectrumView
from skyloom.viewer.shelf import Entry, Shelf
from skyloom.viewer.spectra import open_spectra

__all__ = ["Page", "fill_page"]

MODES = ("one image", "side by side", "blink")
ONE, BOTH, BLINK = range(3)
STORED = "::"
"""Between the key of a store and the name of an observation in it."""
HEADINGS = {"image": "images and maps", "cube": "cubes"}
BLINK_KEY = """
if (window._skyloom_blinks) return;
window._skyloom_blinks = true;
document.addEventListener("keydown", (event) => {
    const inside = event.composedPath()[0];
    const types = inside instanceof HTMLInputElement || inside instanceof HTMLTextAreaElement;
    if (event.key == "b" && !types && toggle.visible) toggle.active = !toggle.active;
});
"""
BLINK_NOW = """
const blinks = modes.active == 2;
first.visible = !(blinks && toggle.active);
second.visible = modes.active == 1 || (blinks && toggle.active);
toggle.visible = blinks;
toggle.label = toggle.active ? "second image (b)" : "first image (b)";
"""


class Page:
    """All panes of one page, and what passes between them.

    Parameters
    ----------
    document : bokeh Document
    shelf : Shelf

    Attributes
    ----------
    images : tuple of ImagePane
    spectrum : SpectrumPane
    store : StorePane or None
    layout : bokeh model
    """

    def __init__(self, document: Document, shelf: Shelf) -> None:
        self.shelf = shelf
        self.layout: Any = None
        self._spectra: dict[str, SpectrumSource | None] = {}
        self._stamps: dict[str, tuple[int, ...]] = {}
        self.spectrum = SpectrumPane(self._spectrum_of, self._names_of)
        choices = self._choices()
        self.images = tuple(
            ImagePane(document, self.open_planes, choices, self.spectrum.pick, number=number)
            for number in (1, 2)
        )
        # The second one waits until it is wanted: the first picture shall be fast.
        self.images[0].fill()
        for pane in self.images:
            pane.on_source.append(self._relink)
        self._links: tuple[ColumnDataSource, ...] = ()
        # Every widget lives in a tree of its own, which rules of the page do not reach.
        self._widget_style = InlineStyleSheet(css=_style("widgets.css"))
        self.store = self._store_pane()
        self._arrange(document)
        self._show_first()
        self._dress(self.root)

    # --- what there is ----------------------------------------------------------------------------------

    def _choices(self) -> dict[str, list[tuple[str, str]]]:
        """What can be chosen in an image pane: by folder where there are several, else by kind."""
        choices: dict[str, list[tuple[str, str]]] = {}
        shown = [entry for entry in self.shelf.entries if entry.kind in HEADINGS]
        folders = {entry.key.rpartition("/")[0] for entry in shown}
        for entry in shown:
            folder, _, name = entry.title.rpartition("/")
            heading = folder or "here" if len(folders) > 1 else HEADINGS[entry.kind]
            text = f"{name if len(folders) > 1 else entry.title}   {entry.detail}"
            choices.setdefault(heading, []).append((entry.key, text.rstrip()))
        return choices

    def open_planes(self, key: str) -> PlaneSource:
        """Return the planes of an entry, or of an observation of a store.

        Raises
        ------
        InputError
            When there are none.
        """
        store, found, name = str(key).partition(STORED)
        if found:
            from skyloom.viewer.planes.store import StorePlanes

            return StorePlanes(self.shelf.open_store(self.shelf.entry(store)), name)
        entry = self.shelf.entry(key)
        if entry.kind not in HEADINGS:
            raise InputError("this is no image", source=entry.path, field="entry")
        self._stamps[entry.key] = _stamp(entry)
        self._spectra.pop(key, None)
        planes: PlaneSource = self.shelf.open(key)
        return planes

    # --- what passes between panes ----------------------------------------------------------------------

    def _spectrum_of(self, region: Region) -> SpectrumView | None:
        """Return the spectrum of what was picked, or chosen from a list."""
        self._check_unchanged(region.entry)
        source = self._source_of(region.entry)
        return None if source is None else source.spectrum(region)

    def _names_of(self, key: str) -> tuple[str, ...]:
        """Return what the spectra of an entry are called, where they are chosen from a list."""
        return tuple(getattr(self._source_of(key), "names", ()))

    def _check_unchanged(self, key: str) -> None:
        """See to it that a spectrum belongs to the image that it is picked in: the file may have been written anew."""
        if STORED in key:
            return
        entry = self.shelf.entry(key)
        if self._stamps.setdefault(key, _stamp(entry)) != _stamp(entry):
            raise InputError(
                "the file has changed since it was opened here", source=entry.path, remedy="reload the page"
            )

    def _source_of(self, key: str) -> SpectrumSource | None:
        if key not in self._spectra:
            self._spectra[key] = self._open_spectra(key)
        return self._spectra[key]

    def _open_spectra(self, key: str) -> SpectrumSource | None:
        store, found, name = key.partition(STORED)
        if found:
            from skyloom.viewer.spectra.store import StoreSpectrum

            return StoreSpectrum(self.shelf.open_store(self.shelf.entry(store)), name)
        entry = self.shelf.entry(key)
        return open_spectra(entry.path, entry.kind, self.shelf.may_read)

    def _store_pane(self) -> Any:
        entry = self.shelf.first("store")
        if entry is None:
            return None
        from skyloom.viewer.panes.store import StorePane

        def on_image(planes: Any, place: Any) -> None:
            centre = None if place is None else (place.ra, place.dec)
            self.images[0].show_source(planes, f"{entry.key}{STORED}{planes.obs_id}", centre)
            self._go_to_images()

        def on_spectrum(name: str) -> None:
            # A place of its own, so that a saved view finds the spectrum again.
            anywhere = np.zeros(1)
            self.spectrum.pick(Region(anywhere, anywhere, f"{entry.key}{STORED}{name}"))

        return StorePane(self.shelf.open_store(entry), on_image, on_spectrum)

    def _go_to_images(self) -> None:
        if isinstance(self.layout, Tabs):
            self.layout.active = 0

    def state(self) -> dict[str, Any]:
        """Return which tab is open and how images are arranged, as values of JSON."""
        tab = self.layout.active if isinstance(self.layout, Tabs) else 0
        return {"tab": int(tab), "mode": int(self.modes.active or 0)}

    def restore(self, state: dict[str, Any]) -> None:
        """Open the tab and arrange the images as `state` said.

        Raises
        ------
        InputError
            When there is no such tab or arrangement.
        """
        tab, mode = state.get("tab", 0), state.get("mode", ONE)
        for value, count in ((tab, 2), (mode, len(MODES))):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
                raise InputError(f"the page has no part {str(value)[:20]!r}", field="page")
        if isinstance(self.layout, Tabs):
            self.layout.active = tab
        if mode == ONE or self.images[0].source is not None:
            self.modes.active = mode

    # --- how it looks -----------------------------------------------------------------------------------

    def _arrange(self, document: Document) -> None:
        first, second = (pane.layout for pane in self.images)
        second.visible = False
        self.modes = RadioButtonGroup(labels=list(MODES), active=ONE, name="modes", width=260)
        self.blink = Toggle(label="first image (b)", name="blink", visible=False, width=130)
        arguments = {"modes": self.modes, "toggle": self.blink, "first": first, "second": second}
        self.modes.js_on_change("active", CustomJS(args=arguments, code=BLINK_NOW))
        self.blink.js_on_change("active", CustomJS(args=arguments, code=BLINK_NOW))
        self.modes.on_change("active", lambda _attr, _old, new: self._mode_changed(new))
        document.js_on_event("document_ready", CustomJS(args={"toggle": self.blink}, code=BLINK_KEY))
        bar = row(self.modes, self.blink, sizing_mode="stretch_width", spacing=8)
        images = row(first, second, sizing_mode="stretch_width", height=720, spacing=18, name="images")
        looking = column(bar, images, sizing_mode="stretch_width", spacing=12)
        has_images = any(entry.kind in HEADINGS for entry in self.shelf.entries) or self.store is not None
        if not has_images:
            bar.visible = images.visible = False
        body = looking
        if self.store is not None:
            panels = [
                TabPanel(child=looking, title="Images"),
                TabPanel(child=self.store.layout, title="Store"),
            ]
            only_store = self.shelf.first("image", "cube", "spectra") is None
            body = self.layout = Tabs(
                tabs=panels, active=int(only_store), sizing_mode="stretch_width", name="tabs"
            )
        self.exports = ExportBar(self.images, self.spectrum, self.store, self.shelf.path.name, {"page": self})
        head = row(self._header(), self.exports.layout, sizing_mode="stretch_width")
        # Below both tabs: a spectrum and its cut-outs belong to the list they were chosen from and to the images.
        below = [self.spectrum.layout, *([] if self.store is None else [self.store.epochs])]
        self.root = column(head, body, *below, sizing_mode="stretch_width", spacing=10, css_classes=["page"])

    def _dress(self, root: Any) -> None:
        """Give the widgets below a model their style."""
        for model in root.references():
            if isinstance(model, (Widget, Tabs)) and self._widget_style not in model.stylesheets:
                model.stylesheets = [self._widget_style, *model.stylesheets]

    def _header(self) -> Div:
        left_out = self.shelf.left_out
        text = f"<h1>Skyloom <span>{escape(self.shelf.path.name)}</span></h1>"
        if left_out:
            shown = escape("; ".join(left_out[:3])) + (
                f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
            )
            text += f'<p class="left-out">not shown: {shown}</p>'
        return Div(text=text, name="header", sizing_mode="stretch_width", css_classes=["header"])

    def _mode_changed(self, mode: int) -> None:
        first, second = self.images
        if mode != ONE and second.source is None:
            second.fill()
            self._dress(second.layout)
            if first.source is not None:
                second.try_to_show(first.key)
            if first.key and second.key == first.key:
                second.controls.plane.value = first.controls.plane.value
                if "S/N" in second.controls.layer.labels:
                    second.controls.layer.active = second.controls.layer.labels.index("S/N")
        self._relink()

    # --- two images as one ------------------------------------------------------------------------------

    def _link(self) -> None:
        """Let each figure follow the other through the sky."""
        self._links = tuple(ColumnDataSource({"matrix": []}, name=f"link-{number}") for number in (1, 2))
        figures = [pane.picture.figure for pane in self.images]
        for link, here, there in zip(self._links, figures, reversed(figures), strict=True):
            follow = CustomJS(args={"link": link, "from": here, "to": there}, code=LINK)
            for axis in (here.x_range, here.y_range):
                axis.js_on_change("start", follow)
                axis.js_on_change("end", follow)

    def _relink(self) -> None:
        """Find out anew how pixels of one image become pixels of the other."""
        first, second = (pane.source for pane in self.images)
        if first is None or second is None:
            return
        if not self._links:
            self._dress(self.images[1].layout)
            self._link()
        if self.modes.active == ONE:
            for link in self._links:
                link.data = {"matrix": []}
            return
        for link, here, there in ((self._links[0], first, second), (self._links[1], second, first)):
            link.data = {"matrix": _between(here, there)}

    # --- the first picture ------------------------------------------------------------------------------

    def _show_first(self) -> None:
        wanted = _preferred(self.shelf)
        if wanted is not None:
            self.images[0].try_to_show(wanted.key)
        listed = [(entry.key, entry.title) for entry in self.shelf.entries if entry.kind == "spectra"]
        self.spectrum.offer(listed, opened=wanted is None)


def _stamp(entry: Entry) -> tuple[int, ...]:
    """What changes when a file is written anew."""
    found = entry.path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _preferred(shelf: Shelf) -> Entry | None:
    """What is shown first: what a run is for, rather than its notes."""
    shown = [entry for entry in shelf.entries if entry.kind in HEADINGS]
    for ending in ("_lines", "_anchored", "_maps"):
        for entry in shown:
            if entry.title.endswith(ending):
                return entry
    return shown[0] if shown else None


def _between(first: PlaneSource, second: PlaneSource) -> list[Any]:
    """The affine map of pixels about the middle of an image; where there is none, pixel by pixel of like shapes."""
    ny, nx = first.shape
    found = affine_between(first, second, (nx - 1) / 2, (ny - 1) / 2)
    if not found and first.shape == second.shape:
        return [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    return found


ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M2 5h12M2 11h12"
    "M5 2v12M11 2v12' stroke='%23c2410c' stroke-width='2'/%3E%3C/svg%3E"
)


@lru_cache(maxsize=1)
def _template() -> Template:
    """Bokeh's page with an icon of its own: otherwise the browser would ask for one elsewhere."""
    return Template(
        f'{{% extends base %}}{{% block preamble %}}<link rel="icon" href="{ICON}">{{% endblock %}}'
    )


@lru_cache(maxsize=2)
def _style(name: str) -> str:
    return (files("skyloom.viewer") / name).read_text(encoding="utf-8")


def fill_page(document: Document, shelf: Shelf) -> Page:
    """Put a page into a document of Bokeh."""
    page = Page(document, shelf)
    document.title = f"{shelf.path.name} – Skyloom"
    document.template = _template()
    page.root.stylesheets = [GlobalInlineStyleSheet(css=_style("page.css"))]
    # Last: from here on each change makes the document look through all its models.
    document.add_root(page.root)
    return page
