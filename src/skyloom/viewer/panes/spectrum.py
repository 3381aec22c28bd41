"""The spectrum pane: what was picked, with error band, models, residual and the numbers of its fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import astropy.units as u
import numpy as np
from bokeh.layouts import column, row
from bokeh.models import (
    Button,
    Checkbox,
    Div,
    MultiSelect,
    RadioButtonGroup,
    Select,
    TextInput,
    Toggle,
)

from skyloom.core.linelist import convert_medium
from skyloom.errors import InputError, SkyloomError
from skyloom.viewer.panes.spectrum_figures import (
    COLUMNS,
    LINE_COLOURS,
    PIN_COLOURS,
    SpectrumFigures,
    make_figures,
)
from skyloom.viewer.panes.spectrum_text import line_table, lines_html, pins_html, summary_html, title_html
from skyloom.viewer.protocols import Float, Region, SpectrumView
from skyloom.viewer.spectra.bins import POLYNOMIAL
from skyloom.viewer.spectra.names import line_rank, lines_at, pretty_name, unit_name
from skyloom.viewer.spectra.regions import rows_region
from skyloom.viewer.spectra.sampling import MOST_POINTS, thinned

__all__ = ["SpectrumPane"]

FRAMES = ("observed", "rest")
WHOLE = "whole range"
AROUND = 60.0  # A on either side of a line that is gone to
NOTHING = "Click a spaxel or bin of the image, or draw a lasso around several."
MOST_NAMES = 5000  # Rows of a list that a page offers.
SCREEN = 1200  # Pixels across, as far as the thinning of very long spectra goes.


class SpectrumPane:
    """Shows one spectrum with all that belongs to it, and pinned ones for comparison.

    Parameters
    ----------
    resolve : callable, optional
        Gives the `SpectrumView` of a `Region`, or None where there is none. Without it the pane shows what `show` is
        given.
    names : callable, optional
        Gives what the spectra of a file are called, by the key of its entry.

    Attributes
    ----------
    layout : bokeh model
    view : SpectrumView or None
        What is shown.
    """

    def __init__(
        self,
        resolve: Callable[[Region], SpectrumView | None] | None = None,
        names: Callable[[str], tuple[str, ...]] | None = None,
    ) -> None:
        self._resolve, self._names = resolve, names
        self.view: SpectrumView | None = None
        self._region: Region | None = None
        self._pinned: list[tuple[SpectrumView, Region | None]] = []
        self._entry = ""
        self._figures: SpectrumFigures | None = None
        self._make_controls()
        self.layout = self._lay_out()

    # --- what it is made of -----------------------------------------------------------------------------

    @property
    def figures(self) -> SpectrumFigures:
        """The figures, made for the first spectrum: half of a page, and its first picture is faster without."""
        if self._figures is None:
            parts = self._figures = make_figures()
            parts.main.x_range.on_change("start", self._zoomed)
            self.curves.children = [self.controls, parts.names, parts.main, parts.below, self.pins]
        return self._figures

    def _make_controls(self) -> None:
        self.title = Div(text=title_html(NOTHING), name="spectrum-title", sizing_mode="stretch_width")
        self.summary = Div(text="", name="spectrum-summary")
        self.pins = Div(text="", name="spectrum-pins", sizing_mode="stretch_width")
        self.table = Div(text="", name="spectrum-numbers")
        self.pin_button = Button(label="Pin", name="spectrum-pin", width=60, disabled=True)
        self.clear_button = Button(label="Clear pins", name="spectrum-clear", width=90, disabled=True)
        self.scaled = Checkbox(label="scale pins", name="spectrum-scaled", active=False, align="center")
        self.frame = RadioButtonGroup(labels=list(FRAMES), active=0, name="spectrum-frame")
        self.redshift = TextInput(placeholder="redshift z", name="spectrum-redshift", width=110)
        self.go = Select(value=WHOLE, options=[WHOLE], name="spectrum-go", width=150)
        size = {"width": 200, "height": 240}
        self.files = MultiSelect(
            title="files", options=[], value=[], name="spectrum-files", visible=False, **size
        )
        self.list = MultiSelect(
            title="spectra", options=[], value=[], name="spectrum-list", visible=False, **size
        )
        self.chooser = Toggle(label="List of spectra", name="spectrum-chooser", visible=False, width=130)
        self.pin_button.on_click(self.pin)
        self.clear_button.on_click(self.clear)
        self.scaled.on_change("active", lambda _attr, _old, _new: self._draw_pins())
        self.frame.on_change("active", lambda _attr, _old, _new: self._draw(keep=False))
        self.redshift.on_change("value", lambda _attr, _old, _new: self._draw(keep=self.frame.active == 0))
        self.go.on_change("value", lambda _attr, _old, _new: self._go())
        self.list.on_change("value", lambda _attr, _old, _new: self._choose_rows())
        self.files.on_change("value", lambda _attr, _old, _new: self._choose_files())

    def _lay_out(self) -> Any:
        self.controls = row(
            self.pin_button, self.clear_button, self.scaled, self.frame, Div(text="z =", align="center"),
            self.redshift, self.go, sizing_mode="stretch_width", visible=False, styles={"flex-wrap": "wrap"},
        )  # fmt: skip
        self.curves = column(self.controls, self.pins, sizing_mode="stretch_width")
        numbers = column(self.summary, self.table, name="spectrum-beside")
        # Empty figures are nothing to look at; they appear with the first spectrum.
        self.body = row(self.curves, numbers, sizing_mode="stretch_width", visible=False, spacing=16)
        head = row(self.title, self.chooser, sizing_mode="stretch_width")
        shown = column(head, self.body, sizing_mode="stretch_width")
        self.choice = column(self.files, self.list, visible=False, name="spectrum-choice")
        self.chooser.js_link("active", self.choice, "visible")
        return row(
            self.choice,
            shown,
            sizing_mode="stretch_width",
            name="spectrum-pane",
            spacing=12,
            css_classes=["spectrum"],
        )

    # --- what others do with it -------------------------------------------------------------------------

    def pick(self, region: Region) -> bool:
        """Show the spectrum of what was picked, and tell whether there is one; what goes wrong is said as the title."""
        if self._resolve is None:
            return False
        try:
            view = self._resolve(region)
        except (SkyloomError, OSError) as error:
            self.title.text = title_html(str(error), wrong=True)
            return False
        if view is None:
            self.title.text = title_html("There is no spectrum at this place.", wrong=True)
            return False
        self.show(view, region)
        return True

    def offer(self, files: Sequence[tuple[str, str]], *, opened: bool = True) -> None:
        """Offer files of spectra, (key, title): in an open list, where one alone is shown, or behind a button."""
        kept = list(files)[:MOST_NAMES]
        self.files.options = [(key, title) for key, title in kept]
        self.files.visible = len(kept) > 1 or not opened
        self.chooser.visible = bool(kept)
        self.chooser.active = self.choice.visible = opened and bool(kept)
        if opened and len(kept) == 1:
            self._open_file(kept[0][0])

    def _open_file(self, key: str) -> None:
        """Show the first spectrum of a file, and offer the others."""
        self._entry = key
        try:
            names = () if self._names is None else self._names(key)
        except (SkyloomError, OSError) as error:
            self.title.text = title_html(str(error), wrong=True)
            return
        self.list.options = [(str(number), name) for number, name in enumerate(names[:MOST_NAMES])]
        self.list.visible = len(names) > 1
        self.list.value = []
        self.pick(rows_region([0], key))

    def show(self, view: SpectrumView, region: Region | None = None) -> None:
        """Show a spectrum; the range of wavelengths stays where the axis is the same as before."""
        before = self.view
        keep = before is not None and np.array_equal(before.wave, view.wave)
        self.view, self._region = view, region
        self.body.visible = self.controls.visible = True
        known = None if before is None else before.redshift
        if view.redshift is not None and (known != view.redshift or not self.redshift.value):
            self.redshift.value = f"{view.redshift:.6g}"
        elif view.redshift is None and known is not None and self.redshift.value == f"{known:.6g}":
            # It was that of another object, and nobody typed it.
            self.redshift.value = ""
        self.pin_button.disabled = False
        self._draw(keep=keep)

    def pin(self) -> None:
        """Keep what is shown for comparison; of more than six the oldest goes."""
        if self.view is None:
            return
        self._pinned = [*self._pinned, (self.view, self._region)][-len(PIN_COLOURS) :]
        self._draw_pins()

    def clear(self) -> None:
        """Take all pins away."""
        self._pinned = []
        self._draw_pins()

    @property
    def pinned(self) -> tuple[SpectrumView, ...]:
        """What is pinned, the oldest first."""
        return tuple(view for view, _ in self._pinned)

    def state(self) -> dict[str, Any]:
        """Return what a saved view needs: what was picked, not the spectra themselves."""
        return {
            "shown": _plain_region(self._region),
            "pinned": [_plain_region(region) for _, region in self._pinned if region is not None],
            "redshift": self.redshift.value,
            "frame": FRAMES[self.frame.active or 0],
            "scaled": bool(self.scaled.active),
            **self._window(),
        }

    def _window(self) -> dict[str, list[float]]:
        """The ranges of both axes, once there are any."""
        if self._figures is None:
            return {}
        main = self._figures.main
        return {
            axis: [float(shown.start), float(shown.end)]
            for axis, shown in (("x", main.x_range), ("y", main.y_range))
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Show again what `state` returned.

        Raises
        ------
        InputError
            When some of it is not there any more.
        """
        self.clear()
        shown = state.get("shown")
        missing = 0
        for plain in [*state.get("pinned", []), *([] if shown is None else [shown])]:
            region = Region(np.array(plain["x"]), _with_unknown(plain["y"]), str(plain["entry"]))
            if not self.pick(region):
                missing += 1
            elif plain is not shown:
                self.pin()
        self.scaled.active = bool(state.get("scaled", False))
        self.frame.active = FRAMES.index(state.get("frame", FRAMES[0]))
        if state.get("redshift"):
            self.redshift.value = str(state["redshift"])
        if self.view is not None and shown is not None and "x" in state:
            main = self.figures.main
            main.x_range.start, main.x_range.end = state["x"]
            main.y_range.start, main.y_range.end = state["y"]
        if missing:
            raise InputError(f"{missing} of its spectra cannot be shown any more", field="view")

    # --- drawing ----------------------------------------------------------------------------------------

    def _typed_redshift(self) -> float | None:
        """The redshift in the box; None where it is empty or no number that can be one."""
        try:
            value = float(self.redshift.value)
        except ValueError:
            return None
        return value if np.isfinite(value) and value > -1.0 else None

    def _stretch(self, view: SpectrumView) -> float:
        """What observed wavelengths are divided by: its own redshift for each, else the one that was typed."""
        if self.frame.active == 0 or view.rest_frame:
            return 1.0
        typed = self._typed_redshift()
        known = view.redshift if view is not self.view or typed is None else typed
        return 1.0 + (known if known is not None else typed or 0.0)

    def _draw(self, *, keep: bool) -> None:
        view = self.view
        if view is None:
            return
        wrong = bool(self.redshift.value) and self._typed_redshift() is None
        self.title.text = title_html(
            f"z = {self.redshift.value} is no redshift: a number above -1 is needed" if wrong else view.title,
            wrong=wrong,
        )
        stretch = self._stretch(view)
        self._draw_lines(view, stretch)
        self._draw_ranges(view, stretch, keep)
        self._draw_curves(view, stretch)
        self._draw_axes(view)
        self._draw_numbers(view)
        self._draw_pins()

    def _draw_curves(self, view: SpectrumView, stretch: float) -> None:
        figures, x = self.figures, view.wave / stretch
        main = figures.main
        kept = thinned(x, view.flux, main.x_range.start, main.x_range.end, SCREEN)
        if view.wave.size <= MOST_POINTS:
            kept = np.arange(view.wave.size)
        nothing = np.full(view.wave.size, np.nan)
        residual = nothing if view.residual is None else view.residual
        with np.errstate(invalid="ignore", divide="ignore"):  # channels without an error have no pull
            pull = residual / view.error
        continuum = nothing if view.continuum is None else view.continuum
        polynomial = view.components.get(POLYNOMIAL)
        below = np.zeros(x.size) if view.continuum is None else continuum
        below = below if polynomial is None else below + polynomial
        # Without a continuum there is nothing below the lines but where they were fitted.
        drawn = nothing if polynomial is None else np.where(below == 0, np.nan, below)
        planes = {
            "wave": x, "flux": view.flux, "error": view.error,
            "low": view.flux - view.error, "high": view.flux + view.error, "continuum": continuum,
            "below": drawn,
            "model": nothing if view.model is None else view.model, "residual": residual, "pull": pull,
        }  # fmt: skip
        figures.data.data = {name: np.asarray(planes[name], np.float64)[kept] for name in COLUMNS}
        figures.parts.data = _line_areas(view, x, below)
        figures.masked.data = {
            "left": [low / stretch for low, _ in view.masked_ranges],
            "right": [high / stretch for _, high in view.masked_ranges],
        }
        there = {
            "continuum": view.continuum, "polynomial": polynomial, "components": view.components or None,
            "model": view.model,
        }  # fmt: skip
        for name, (renderer, item) in figures.optional.items():
            item.visible = there[name] is not None
            if there[name] is None:
                renderer.visible = True  # for the next spectrum, whatever was hidden for this one
        figures.below.visible = view.residual is not None
        main.xaxis.visible = view.residual is None

    def _draw_lines(self, view: SpectrumView, stretch: float) -> None:
        typed = self._typed_redshift()
        lines = view.lines
        if (
            not view.rest_frame
            and typed is not None
            and (view.redshift is None or abs(typed - view.redshift) > 1e-6)
        ):
            lines = lines_at(view.wave, view.medium, typed)  # fmt: skip
        keys = [key for key, _ in lines]
        self.figures.lines.data = {
            "x": [wave / stretch for _, wave in lines], "wave": [wave for _, wave in lines], "key": keys,
            "name": [pretty_name(key) for key in keys], "rank": [line_rank(key) for key in keys],
            "shown": [""] * len(lines), "row": [0.0] * len(lines), "faint": [0.0] * len(lines),
        }  # fmt: skip
        self.go.options = [WHOLE, *dict.fromkeys(pretty_name(key) for key in keys)]
        if self.go.value not in self.go.options:
            self.go.value = WHOLE

    def _draw_ranges(self, view: SpectrumView, stretch: float, keep: bool) -> None:
        main = self.figures.main
        x = view.wave / stretch
        ends = (float(x[0]), float(x[-1]))
        main.x_range.reset_start, main.x_range.reset_end = ends
        if not keep:
            main.x_range.start, main.x_range.end = ends
            if self.go.value != WHOLE:
                self.go.value = WHOLE
        self._fit_heights(view, x, (main.x_range.start, main.x_range.end))

    def _fit_heights(self, view: SpectrumView, x: Float, window: tuple[float, float]) -> None:
        """Vertical range of what is seen: all of a model and nearly all of the data, without single outliers."""
        main = self.figures.main
        low, high = _heights(view, np.ones(x.size, bool))
        main.y_range.reset_start, main.y_range.reset_end = low, high
        main.y_range.start, main.y_range.end = _heights(view, (x >= window[0]) & (x <= window[1]))

    def _draw_axes(self, view: SpectrumView) -> None:
        rest = view.rest_frame or self.frame.active == 1
        label = f"{'rest' if rest else 'observed'} wavelength (Å, {view.medium})"
        for each in (self.figures.main, self.figures.below):
            each.xaxis.axis_label = label
        self.figures.main.yaxis.axis_label = f"flux ({unit_name(view.unit)})"

    def _draw_numbers(self, view: SpectrumView) -> None:
        self.summary.text = summary_html(view)
        self.table.text = lines_html(line_table(view))

    def _draw_pins(self) -> None:
        figures, shown = self.figures, self.view
        for number, (source, item) in enumerate(zip(figures.pins, figures.pin_items, strict=True)):
            there = number < len(self._pinned) and shown is not None
            item.visible = there
            if not there or shown is None:
                source.data = {"wave": [], "flux": []}
                continue
            view = self._pinned[number][0]
            factor = _factor(view, shown, scaled=bool(self.scaled.active))
            why = "cannot be scaled" if self.scaled.active else "another kind of unit"
            item.label = {"value": view.title if factor is not None else f"{view.title}: {why}"}
            wave = convert_medium(view.wave, view.medium, shown.medium) / self._stretch(view)  # type: ignore[arg-type]
            source.data = {"wave": wave, "flux": view.flux * (np.nan if factor is None else factor)}
        self.pins.text = pins_html(self.pinned)
        self.clear_button.disabled = not self._pinned

    # --- what the controls do ---------------------------------------------------------------------------

    def _zoomed(self, _attr: str, _old: Any, _new: Any) -> None:
        """Draw the part that is seen of a very long spectrum again."""
        if self.view is not None and self.view.wave.size > MOST_POINTS:
            self._draw_curves(self.view, self._stretch(self.view))

    def _go(self) -> None:
        view = self.view
        if view is None:
            return
        main, lines = self.figures.main, self.figures.lines.data
        x = view.wave / self._stretch(view)
        window = (float(x[0]), float(x[-1]))
        if self.go.value != WHOLE:
            centre = lines["x"][list(lines["name"]).index(self.go.value)]
            window = (centre - AROUND, centre + AROUND)
        main.x_range.start, main.x_range.end = window
        self._fit_heights(view, x, window)

    def _choose_rows(self) -> None:
        self._show_all([rows_region([int(number)], self._entry) for number in self.list.value])

    def _choose_files(self) -> None:
        keys = [str(key) for key in self.files.value]
        if len(keys) == 1:
            self._open_file(keys[0])
        else:
            self._show_all([rows_region([0], key) for key in keys])

    def _show_all(self, regions: list[Region]) -> None:
        """Show the first of what was chosen from a list, the others pinned beside it."""
        if len(regions) > 1:
            self.clear()
        for region in regions[1 : len(PIN_COLOURS) + 1]:
            if self.pick(region):
                self.pin()
        for region in regions[:1]:
            self.pick(region)


def _line_areas(view: SpectrumView, x: Float, below: Float) -> dict[str, list[Any]]:
    """Each line as an area on top of all that is below the lines, where it is not zero."""
    areas: dict[str, list[Any]] = {"xs": [], "ys": [], "name": [], "colour": []}
    for number, (name, curve) in enumerate(view.components.items()):
        seen = np.flatnonzero((curve != 0) & np.isfinite(below))
        if name == POLYNOMIAL or not seen.size:
            continue
        part = slice(max(int(seen[0]) - 1, 0), int(seen[-1]) + 2)
        floor = np.nan_to_num(below[part], nan=float(below[seen[0]]))
        areas["xs"].append([*x[part], *x[part][::-1]])
        areas["ys"].append([*(floor + curve[part]), *floor[::-1]])
        areas["name"].append(pretty_name(name))
        areas["colour"].append(LINE_COLOURS[number % len(LINE_COLOURS)])
    return areas


def _heights(view: SpectrumView, seen: Any) -> tuple[float, float]:
    values = view.flux[seen & np.isfinite(view.flux)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, [0.3, 99.7]))
    if view.model is not None:
        model = view.model[seen & np.isfinite(view.model)]
        if model.size:
            low, high = min(low, float(model.min())), max(high, float(model.max()))
    else:
        high = max(high, float(values.max()))
    margin = 0.08 * (high - low) or 1.0
    return low - margin, high + margin


def _factor(view: SpectrumView, shown: SpectrumView, *, scaled: bool) -> float | None:
    """What a pinned spectrum is multiplied with to stand beside another; None where units are of another kind."""
    if scaled:
        both = (max(view.wave[0], shown.wave[0]), min(view.wave[-1], shown.wave[-1]))
        levels = [
            float(np.nanmedian(each.flux[(each.wave >= both[0]) & (each.wave <= both[1])]))
            if np.isfinite(each.flux[(each.wave >= both[0]) & (each.wave <= both[1])]).any()
            else np.nan
            for each in (view, shown)
        ]
        return levels[1] / levels[0] if np.isfinite(levels).all() and levels[0] != 0 else None
    try:
        return float(u.Unit(view.unit).to(u.Unit(shown.unit)))
    except u.UnitConversionError:
        return None


def _plain_region(region: Region | None) -> dict[str, Any] | None:
    if region is None:
        return None
    y = [float(value) if np.isfinite(value) else None for value in region.y]
    return {"x": [float(value) for value in region.x], "y": y, "entry": region.entry}


def _with_unknown(values: list[float | None]) -> Float:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
