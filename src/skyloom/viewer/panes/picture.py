"""The figure of an image pane: the picture, its colour bar, scale and compass, and what follows the pointer.

What must feel instant happens in the browser: the read-out is computed from the array on the screen and a small grid of
directions on the sky, and the picture keeps its proportions when the page changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bokeh.core.property.descriptors import UnsetValueError
from bokeh.models import (
    Angular,
    Arrow,
    BoxZoomTool,
    ColorBar,
    ColumnDataSource,
    CustomJS,
    Div,
    FixedTicker,
    Label,
    LassoSelectTool,
    LinearColorMapper,
    NormalHead,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    ScaleBar,
    WheelZoomTool,
)
from bokeh.plotting import figure

from skyloom.viewer.panes.scripts import FIT, KEEP_PROPORTIONS, READ_OUT
from skyloom.viewer.panes.stretch import COLOURS, palette_of
from skyloom.viewer.protocols import Box

__all__ = ["Picture"]

ACCENT = "#c2410c"
INK = "#1b1f2a"
FAINT = "#646b7c"
COMPASS = 30.0
"""Screen pixels from the middle of the compass to its tips."""
COMPASS_PLACE = (58.0, 124.0)
"""Its middle, in screen pixels from the lower left corner: above the scale bar."""
NO_IMAGE: dict[str, list[Any]] = {"image": [], "x": [], "y": [], "dw": [], "dh": []}
NO_READING: dict[str, list[Any]] = {"values": []}


@dataclass(eq=False)
class Picture:
    """The figure of an image pane and the sources of what it shows.

    Attributes
    ----------
    number : int
        Which pane; part of the names of the models.
    """

    number: int
    figure: Any = field(init=False)
    image: ColumnDataSource = field(init=False)
    overview: ColumnDataSource = field(init=False)
    outline: ColumnDataSource = field(init=False)
    probe: ColumnDataSource = field(init=False)
    mapper: LinearColorMapper = field(init=False)
    bar: ColorBar = field(init=False)
    read_out: Div = field(init=False)
    palette: str = "inferno"
    _turn: int = 0

    def __post_init__(self) -> None:
        number = self.number
        self.image, self.overview = ColumnDataSource(NO_IMAGE), ColumnDataSource(NO_IMAGE)
        self.image.name = f"image-data-{number}"
        self.outline = ColumnDataSource({"xs": [], "ys": []}, name=f"outline-{number}")
        self.probe = ColumnDataSource(dict(NO_READING), name=f"probe-{number}")
        self.mapper = LinearColorMapper(palette=palette_of("inferno"), low=-0.5, high=COLOURS + 0.5)
        self.read_out = Div(
            text="",
            name=f"read-out-{number}",
            sizing_mode="stretch_width",
            height=44,
            css_classes=["read-out"],
        )
        self.figure = self._figure()
        self._add_bar()
        self._add_scale()
        self._add_compass()
        self._add_scripts()

    def _figure(self) -> Any:
        wheel = WheelZoomTool()
        shown = figure(
            name=f"image-{self.number}",
            x_range=Range1d(-0.5, 0.5),
            y_range=Range1d(-0.5, 0.5),
            tools=[
                PanTool(),
                wheel,
                BoxZoomTool(match_aspect=True),
                LassoSelectTool(continuous=False),
                ResetTool(),
                SaveTool(filename="skyloom"),
            ],
            active_scroll=wheel,
            toolbar_location="right",
            sizing_mode="stretch_both",
            min_height=300,
            min_border=4,
            background_fill_color="#f5f6fa",
            outline_line_color="#e1e4ec",
            lod_threshold=None,
        )
        shown.toolbar.logo = None
        shown.axis.visible = False
        shown.grid.visible = False
        for source in (self.overview, self.image):
            shown.image("image", "x", "y", "dw", "dh", source=source, color_mapper=self.mapper)
        for width, colour in ((4.0, "white"), (1.8, ACCENT)):
            shown.multi_line("xs", "ys", source=self.outline, line_width=width, line_color=colour)
        return shown

    def _add_bar(self) -> None:
        number = self.number
        self.bar = ColorBar(
            color_mapper=LinearColorMapper(palette=palette_of("inferno")[1:], low=1.0, high=float(COLOURS)),
            ticker=FixedTicker(ticks=[]),
            name=f"colour-bar-{number}",
            height=10,
            padding=4,
            title_text_font="system-ui",
            title_text_font_style="normal",
            title_text_font_size="12px",
            title_text_color=FAINT,
            title_standoff=4,
            major_label_text_font_size="11px",
            major_label_text_color=INK,
            major_label_text_font="system-ui",
            major_tick_line_color=INK,
            major_tick_in=0,
            major_tick_out=4,
            bar_line_color=None,
            background_fill_color=None,
        )
        self.figure.add_layout(self.bar, "below")

    def _add_scale(self) -> None:
        self.scale = ScaleBar(
            range=self.figure.x_range,
            unit="px",
            dimensional=Angular(basis={"px": (1.0, "px", "pixel")}, ticks=[1, 2, 5, 10, 20, 30, 50]),
            location="bottom_left",
            length_sizing="adaptive",
            bar_length=64,
            bar_line_width=3,
            bar_line_color=INK,
            border_line_color=None,
            background_fill_color="white",
            background_fill_alpha=0.82,
            label_text_font="system-ui",
            label_text_font_size="12px",
            label_text_color=INK,
            padding=6,
            margin=10,
            visible=False,
        )
        self.figure.add_layout(self.scale)

    def _add_compass(self) -> None:
        self._needles: dict[str, tuple[Arrow, Label]] = {}
        for name in ("N", "E"):
            arrow = Arrow(
                x_start=0, y_start=0, x_end=0, y_end=0, start_units="screen", end_units="screen",
                end=NormalHead(size=7, fill_color=INK, line_color=INK), line_color=INK, line_width=1.6, visible=False,
            )  # fmt: skip
            label = Label(
                x=0, y=0, x_units="screen", y_units="screen", text=name, text_align="center",
                text_baseline="middle", text_font="system-ui", text_font_size="12px", text_color=INK, visible=False,
                background_fill_color="white", background_fill_alpha=0.6,
            )  # fmt: skip
            self.figure.add_layout(arrow)
            self.figure.add_layout(label)
            self._needles[name] = arrow, label

    def _add_scripts(self) -> None:
        ranges = {"figure": self.figure, "x": self.figure.x_range, "y": self.figure.y_range}
        fit = CustomJS(args=ranges, code=FIT)
        self.figure.js_on_change("tags", fit)
        self.figure.js_on_event("reset", fit)
        keep = CustomJS(args=ranges, code=KEEP_PROPORTIONS)
        self.figure.js_on_change("inner_width", keep)
        self.figure.js_on_change("inner_height", keep)
        read = CustomJS(args={"probe": self.probe, "target": self.read_out}, code=READ_OUT)
        self.figure.js_on_event("mousemove", read)
        self.figure.js_on_event("mouseleave", read)

    # --- what it shows ----------------------------------------------------------------------------------

    def home(self, shape: tuple[int, int]) -> None:
        """Show all of an image of (ny, nx) pixels."""
        ny, nx = shape
        self.place((-0.5 - 0.01 * nx, 1.01 * nx - 0.5, -0.5 - 0.01 * ny, 1.01 * ny - 0.5))

    def place(self, box: Box) -> None:
        """Show a box (x0, x1, y0, y1), and more of the longer side: the browser knows how large it is on the screen."""
        self._turn += 1
        self.figure.tags = [*box, self._turn]

    @property
    def screen(self) -> tuple[int, int] | None:
        """Width and height on the screen, None until the browser has said them."""
        try:
            width, height = int(self.figure.inner_width), int(self.figure.inner_height)
        except UnsetValueError:
            return None
        return (width, height) if width > 0 and height > 0 else None

    def colours(self, name: str) -> None:
        """Change the colours."""
        self.palette = name
        self.mapper.palette = palette_of(name)
        self.bar.color_mapper.palette = palette_of(name)[1:]

    def orient(self, matrix: Any) -> None:
        """Show scale and compass for a (2, 2) matrix from pixels (x, y) to the sky (east, north) in arcsec, or None."""
        self.scale.visible = matrix is not None
        for arrow, label in self._needles.values():
            arrow.visible = label.visible = matrix is not None
        if matrix is None:
            return
        side = float(np.sqrt(abs(np.linalg.det(matrix))))
        self.scale.dimensional = Angular(
            basis={
                "px": (side, "px", "pixel"),
                "″": (1.0, "″", "arcsecond"),
                "′": (60.0, "′", "arcminute"),
                "°": (3600.0, "°", "degree"),
            },
            ticks=[1, 2, 5, 10, 20, 30, 50, 100, 200, 500],
        )
        # Unit steps to the north and to the east, as directions on the screen.
        steps = np.linalg.inv(matrix)
        x, y = COMPASS_PLACE
        for name, direction in (("N", steps[:, 1]), ("E", steps[:, 0])):
            dx, dy = direction / np.hypot(*direction) * COMPASS
            arrow, label = self._needles[name]
            arrow.update(x_start=x, y_start=y, x_end=x + dx, y_end=y + dy)
            label.update(x=x + 1.35 * dx, y=y + 1.35 * dy)
