"""Files made in memory, handed to the browser: it saves them, the server writes nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, CustomJS, Div

__all__ = ["Downloads", "file_name"]

_NOTHING: dict[str, list[Any]] = {"name": [], "type": [], "content": []}
_NO_PICTURE: dict[str, list[Any]] = {"name": [], "title": [], "top": [], "left": []}
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
_LONGEST = 80

SAVE = """
if (files.data.name.length == 0) return;
const content = new Blob([files.data.content[0]], {type: files.data.type[0]});
const link = document.createElement("a");
link.href = URL.createObjectURL(content);
link.download = files.data.name[0];
link.click();
setTimeout(() => URL.revokeObjectURL(link.href), 10000);
"""

DRAW = """
if (pictures.data.name.length == 0) return;
const name = pictures.data.name[0];
const views = pictures.data.figures[0].map((name) => pictures.document.get_model_by_name(name))
    .filter((model) => model != null && model.visible)
    .map((model) => Bokeh.index.find_one(model)).filter((view) => view != null);
if (views.length == 0) return;
const parts = views.map((view) => view.export("png").canvas);
const ratio = parts[0].width / views[0].bbox.width;
const top = pictures.data.top[0], left = pictures.data.left[0];
const title = 30 * ratio, above = (top.length ? 20 : 0) * ratio, beside = (left.length ? 76 : 0) * ratio;
const canvas = document.createElement("canvas");
canvas.width = Math.max(...parts.map((part) => part.width)) + beside;
canvas.height = parts.reduce((sum, part) => sum + part.height, 0) + title + above;
const pen = canvas.getContext("2d");
pen.fillStyle = "white";
pen.fillRect(0, 0, canvas.width, canvas.height);
let down = title + above;
for (const part of parts) { pen.drawImage(part, beside, down); down += part.height; }
pen.fillStyle = "#1b1f2a";
pen.strokeStyle = "#1b1f2a";
pen.lineWidth = ratio;
pen.font = `${14 * ratio}px system-ui, sans-serif`;
pen.fillText(pictures.data.title[0], 10 * ratio, 20 * ratio);
pen.font = `${11 * ratio}px system-ui, sans-serif`;
const frame = views[0].frame.bbox;
const x0 = beside + frame.left * ratio, y0 = title + above + frame.top * ratio;
pen.textAlign = "center";
for (const [place, text] of top) {
    const x = x0 + place * frame.width * ratio;
    pen.beginPath(); pen.moveTo(x, y0); pen.lineTo(x, y0 - 5 * ratio); pen.stroke();
    pen.fillText(text, x, y0 - 8 * ratio);
}
pen.textAlign = "right";
for (const [place, text] of left) {
    const y = y0 + (1 - place) * frame.height * ratio;
    pen.beginPath(); pen.moveTo(x0, y); pen.lineTo(x0 - 5 * ratio, y); pen.stroke();
    pen.fillText(text, x0 - 8 * ratio, y + 4 * ratio);
}
canvas.toBlob((content) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}, "image/png");
"""


class Downloads:
    """What hands files to the browser.

    Attributes
    ----------
    layout : Bokeh model
        To be put anywhere into the page; it is not seen.
    """

    def __init__(self) -> None:
        self.files = ColumnDataSource(dict(_NOTHING), name="download")
        self.pictures = ColumnDataSource({**_NO_PICTURE, "figures": []}, name="download-picture")
        self.files.js_on_change("data", CustomJS(args={"files": self.files}, code=SAVE))
        self.pictures.js_on_change("data", CustomJS(args={"pictures": self.pictures}, code=DRAW))
        self.layout = Div(visible=False, tags=[self.files, self.pictures])

    def save(self, name: str, kind: str, content: bytes) -> None:
        """Hand a file to the browser.

        Parameters
        ----------
        name : str
        kind : str
            Media type.
        content : bytes
        """
        self.files.data = {"name": [name], "type": [kind], "content": [np.frombuffer(content, np.uint8)]}
        # The browser has it by then: nothing that large stays in the document.
        self.files.data = dict(_NOTHING)

    def draw(
        self,
        name: str,
        figures: Sequence[str],
        title: str,
        top: Sequence[tuple[float, str]] = (),
        left: Sequence[tuple[float, str]] = (),
    ) -> None:
        """Let the browser save figures as a picture, one below the other.

        Parameters
        ----------
        name : str
        figures : sequence of str
            Names of the models.
        title : str
            Written above.
        top, left : sequence of (place, text)
            Marks along the edges of the first figure, places from 0 to 1.
        """
        self.pictures.data = {
            "name": [name],
            "title": [title],
            "figures": [list(figures)],
            "top": [[list(mark) for mark in top]],
            "left": [[list(mark) for mark in left]],
        }
        self.pictures.data = {**_NO_PICTURE, "figures": []}


def file_name(title: str, suffix: str) -> str:
    """Return a name for a file: letters, digits and dashes of a title."""
    plain = _UNSAFE.sub("-", title).strip("-.")[:_LONGEST] or "skyloom"
    return f"{plain}{suffix}"
