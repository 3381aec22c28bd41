"""The figures of the spectrum pane: names of lines, the spectrum with its models, and the residual below."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    CustomJS,
    HoverTool,
    Legend,
    LegendItem,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    Span,
    WheelZoomTool,
)
from bokeh.plotting import figure

__all__ = [
    "ACCENT",
    "COLUMNS",
    "FAINT",
    "FIGURES",
    "INK",
    "LINE_COLOURS",
    "PIN_COLOURS",
    "SpectrumFigures",
    "make_figures",
]

INK, FAINT, ACCENT, BAND, STARS, MASKED = "#1b1f2a", "#8a90a0", "#c2410c", "#c4cfe4", "#2a8f7a", "#9aa0ab"
LINE_COLOURS = ("#7c3aed", "#0891b2", "#db2777", "#65a30d", "#ea580c", "#4f46e5")
# Told apart by all kinds of colour vision (Okabe & Ito).
PIN_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
COLUMNS = ("wave", "flux", "error", "low", "high", "continuum", "below", "model", "residual", "pull")
FIGURES = ("spectrum-names", "spectrum", "spectrum-residual")  # Their names, from top to bottom.
LEFT = 76  # Width of the space for the vertical axes, so that wavelengths stand below each other.
ROWS = 3  # Of names of lines.

# Names of lines stand in rows, the most important first; one that would cover another waits until it is zoomed to.
PLACE_NAMES = """
const data = lines.data;
const n = data.wave.length;
const width = frame.inner_width || 900;
const scale = width / (x_range.end - x_range.start);
const taken = Array.from({length: rows}, () => []);
const order = Array.from({length: n}, (_, i) => i).sort((a, b) => data.rank[a] - data.rank[b]);
const shown = new Array(n).fill('');
const row = new Array(n).fill(0);
for (const i of order) {
  const centre = (data.x[i] - x_range.start) * scale;
  const half = 3.4 * data.name[i].length + 5;
  if (centre < half - 4 || centre > width - half + 4) continue;
  for (let k = 0; k < rows; k++) {
    if (taken[k].every(([a, b]) => centre + half < a || centre - half > b)) {
      taken[k].push([centre - half, centre + half]);
      shown[i] = data.name[i];
      row[i] = k + 0.25;
      break;
    }
  }
}
data.shown = shown;
data.row = row;
data.faint = shown.map(text => text === '' ? 0.0 : 0.55);
lines.change.emit();
"""


@dataclass(slots=True)
class SpectrumFigures:
    """The three figures and what they draw."""

    names: Any
    main: Any
    below: Any
    data: ColumnDataSource
    parts: ColumnDataSource
    masked: ColumnDataSource
    lines: ColumnDataSource
    pins: list[ColumnDataSource]
    pin_items: list[LegendItem]
    optional: dict[str, tuple[Any, LegendItem]] = field(default_factory=dict)


def make_figures() -> SpectrumFigures:
    """Make figures that show nothing yet."""
    x_range, y_range = Range1d(0.0, 1.0), Range1d(0.0, 1.0)
    # Never without a row: Bokeh's stepped area paints an empty one for ever, and the browser stands still.
    data = ColumnDataSource({name: [float("nan")] for name in COLUMNS}, name="spectrum-data")
    parts = ColumnDataSource({"xs": [], "ys": [], "name": [], "colour": []}, name="spectrum-components")
    masked = ColumnDataSource({"left": [], "right": []}, name="spectrum-masked")
    lines = ColumnDataSource(
        {name: [] for name in ("x", "wave", "key", "name", "rank", "shown", "row", "faint")},
        name="spectrum-lines",
    )
    pins = [
        ColumnDataSource({"wave": [], "flux": []}, name=f"spectrum-pin-{number + 1}")
        for number in range(len(PIN_COLOURS))
    ]
    main = figure(
        height=330, x_range=x_range, y_range=y_range, name="spectrum", tools=[], sizing_mode="stretch_width",
        min_border_left=LEFT, output_backend="canvas",
    )  # fmt: skip
    names = _names_figure(x_range, lines)
    below = _residual_figure(x_range, data, masked)
    made = SpectrumFigures(names, main, below, data, parts, masked, lines, pins, [])
    _draw_main(made)
    place = CustomJS(args={"lines": lines, "frame": main, "x_range": x_range, "rows": ROWS}, code=PLACE_NAMES)
    x_range.js_on_change("start", place)
    x_range.js_on_change("end", place)
    lines.js_on_change("data", place)
    main.js_on_change("inner_width", place)
    for each in (main, below):
        _plain(each)
    main.xaxis.visible = False
    return made


def _names_figure(x_range: Range1d, lines: ColumnDataSource) -> Any:
    names = figure(
        height=58, x_range=x_range, y_range=Range1d(0.0, ROWS), name="spectrum-names", tools=[],
        toolbar_location=None, sizing_mode="stretch_width", min_border_left=LEFT, outline_line_color=None,
        min_border_bottom=0, min_border_top=0,
    )  # fmt: skip
    names.axis.visible = False
    names.grid.visible = False
    names.text(
        x="x", y="row", text="shown", source=lines, text_align="center", text_font_size="10px",
        text_color=INK, y_offset=-1,
    )  # fmt: skip
    names.segment(x0="x", x1="x", y0=0, y1="row", source=lines, line_color=FAINT, line_alpha="faint")
    return names


def _residual_figure(x_range: Range1d, data: ColumnDataSource, masked: ColumnDataSource) -> Any:
    below = figure(
        height=150, x_range=x_range, y_range=Range1d(-5.0, 5.0), name="spectrum-residual", tools=[],
        toolbar_location=None, sizing_mode="stretch_width", min_border_left=LEFT,
    )  # fmt: skip
    below.vstrip(x0="left", x1="right", source=masked, fill_color=MASKED, fill_alpha=0.25, line_color=None)
    for level, dash, alpha in ((0, "solid", 0.9), (-3, "dashed", 0.6), (3, "dashed", 0.6)):
        below.add_layout(
            Span(location=level, dimension="width", line_color=FAINT, line_dash=dash, line_alpha=alpha)
        )
    below.step("wave", "pull", source=data, mode="center", line_color=INK, line_width=0.8)
    below.yaxis.axis_label = "residual / σ"
    below.yaxis.ticker = [-5, 0, 5]
    below.add_tools(PanTool(dimensions="width"), WheelZoomTool(dimensions="width"))
    return below


def _draw_main(made: SpectrumFigures) -> None:
    main, data = made.main, made.data
    main.vstrip(
        x0="left", x1="right", source=made.masked, fill_color=MASKED, fill_alpha=0.25, line_color=None,
        name="spectrum-masked-glyph",
    )  # fmt: skip
    main.vspan(x="x", source=made.lines, line_color=FAINT, line_alpha=0.35, line_dash="dotted")
    band = main.varea_step(
        "wave", "low", "high", source=data, step_mode="center", fill_color=BAND, fill_alpha=0.75
    )
    pins = [
        main.step("wave", "flux", source=pin, mode="center", line_color=colour, line_width=1.1, alpha=0.9)
        for pin, colour in zip(made.pins, PIN_COLOURS, strict=True)
    ]
    spectrum = main.step("wave", "flux", source=data, mode="center", line_color=INK, line_width=0.9)
    stars = main.line("wave", "continuum", source=data, line_color=STARS, line_width=1.6)
    below = main.line(
        "wave", "below", source=data, line_color=STARS, line_width=1.2, line_dash="5 3", line_alpha=0.8
    )
    parts = main.patches(
        "xs", "ys", source=made.parts, fill_color="colour", fill_alpha=0.25, line_color="colour", line_width=0.8,
        line_alpha=0.7,
    )  # fmt: skip
    model = main.line("wave", "model", source=data, line_color=ACCENT, line_width=1.4)
    touched = main.line("wave", "flux", source=data, line_alpha=0.0)
    items = {
        "spectrum": LegendItem(label="spectrum ± 1σ", renderers=[band, spectrum]),
        "continuum": LegendItem(label="continuum", renderers=[stars]),
        "polynomial": LegendItem(label="with polynomials", renderers=[below]),
        "components": LegendItem(label="each line", renderers=[parts]),
        "model": LegendItem(label="model", renderers=[model]),
    }
    made.optional = {
        "continuum": (stars, items["continuum"]), "polynomial": (below, items["polynomial"]),
        "components": (parts, items["components"]),
        "model": (model, items["model"]),
    }  # fmt: skip
    made.pin_items = [LegendItem(label="", renderers=[pin], visible=False) for pin in pins]
    legend = Legend(
        items=[*items.values(), *made.pin_items], location="top_left", click_policy="hide", label_text_font_size="11px",
        glyph_height=12, spacing=1, padding=4, background_fill_alpha=0.75, border_line_alpha=0.0,
    )  # fmt: skip
    main.add_layout(legend)
    main.add_tools(*_tools(touched, parts))
    main.toolbar.logo = None


def _tools(touched: Any, parts: Any) -> list[Any]:
    reading = HoverTool(
        renderers=[touched],
        mode="vline",
        tooltips=[
            ("wavelength", "@wave{0.00} Å"),
            ("flux", "@flux{0.0000a} ± @error{0.0000a}"),
            ("model", "@model{0.0000a}"),
            ("residual", "@pull{0.0} σ"),
        ],
        name="spectrum-hover",
    )
    line = HoverTool(renderers=[parts], tooltips=[("line", "@name")])
    return [
        BoxZoomTool(),
        PanTool(),
        WheelZoomTool(dimensions="width"),
        ResetTool(),
        SaveTool(),
        reading,
        line,
    ]


def _plain(each: Any) -> None:
    each.outline_line_color = None
    each.grid.grid_line_color = "#e8eaf0"
    each.xgrid.grid_line_alpha = 0.6
    for axis in each.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "12px"
        axis.axis_label_text_color = INK
        axis.major_label_text_color = INK
        axis.axis_line_color = FAINT
        axis.major_tick_line_color = FAINT
        axis.minor_tick_line_color = None
