"""The widgets that narrow a list of observations: kind, band, instrument, time, wavelength, position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bokeh.models import (
    Button,
    CheckboxButtonGroup,
    Column,
    DatetimeRangeSlider,
    Div,
    MultiChoice,
    NumericInput,
    RangeSlider,
    Row,
    TextInput,
)

from skyloom.errors import InputError
from skyloom.store.contents import plural
from skyloom.viewer.panes.listening import when_changed
from skyloom.viewer.stores.filters import ARCSEC, Filters, Place, parse_place
from skyloom.viewer.stores.listing import Listing

__all__ = ["FilterWidgets"]

WIDTH = 270
_UNIX_ZERO = 40587.0  # MJD
_DAY = 86400e3  # ms
_RADIUS = 60.0  # arcsec
_SLIDER_STEPS = 500
_SEVERAL = 2


class FilterWidgets:
    """The widgets, and what they ask for.

    Parameters
    ----------
    listing : Listing
    on_change : callable
        Called when something else is asked for.
    on_place : callable
        Called with a position that was typed.
    on_error : callable
        Called with what was wrong with it.
    """

    def __init__(
        self,
        listing: Listing,
        on_change: Callable[[], None],
        on_place: Callable[[Place, str], None],
        on_error: Callable[[InputError], None],
    ) -> None:
        self._listing, self._on_change = listing, on_change
        self._on_place, self._on_error = on_place, on_error
        self._quiet = False
        self._box: tuple[float, float, float, float] | None = None
        self._cone: tuple[float, float, float] | None = None
        facets = listing.facets
        self._kind_names = list(facets.kinds)
        self._kinds = CheckboxButtonGroup(
            labels=[f"{plural(kind)} {number:,}" for kind, number in facets.kinds.items()],
            active=[],
            name="store-kinds",
            width=WIDTH,
        )
        self._bands = _choice("band", "store-bands", facets.bands)
        self._instruments = _choice("instrument", "store-instruments", {})
        self._time = _time_slider(facets.time)
        self._wave = _wave_slider(facets.wave)
        self._place = TextInput(
            title="position or name", placeholder="38.33 -0.09", name="store-position", width=WIDTH - 90
        )
        self._radius = NumericInput(
            title="radius ″", value=_RADIUS, low=0, high=648000, mode="float", name="store-radius", width=80
        )
        self._region = Div(text="", name="store-region", width=WIDTH - 80, styles={"padding-top": "6px"})
        self._clear = Button(label="clear all", name="store-clear", width=70)
        self._listen()
        self.fill_instruments()
        self.layout = Column(
            self._kinds,
            *([self._bands] if facets.bands else []),
            self._instruments,
            self._time,
            self._wave,
            Row(self._place, self._radius),
            Row(self._region, self._clear),
            width=WIDTH + 10,
            name="store-filters",
        )

    @property
    def filters(self) -> Filters:
        """What is asked for."""
        return Filters(
            kinds=tuple(self._kind_names[number] for number in sorted(self._kinds.active)),
            bands=tuple(self._bands.value),
            instruments=tuple(self._instruments.value),
            time=self._asked_time(),
            wave=self._asked(self._wave),
            cone=self._cone,
            box=self._box,
        )

    def show(self, filters: Filters) -> None:
        """Bring the widgets to what is asked for, without telling of it.

        Raises
        ------
        InputError
            When the store has no such band, kind or instrument.
        """
        self._check(filters)
        self._quiet = True
        try:
            self._kinds.active = [self._kind_names.index(kind) for kind in filters.kinds]
            self._bands.value = list(filters.bands)
            self._instruments.value = list(filters.instruments)
            _set(self._time, filters.time, lambda mjd: (mjd - _UNIX_ZERO) * _DAY)
            _set(self._wave, filters.wave, float)
            self._cone, self._box = filters.cone, filters.box
            if filters.cone is not None:
                self._place.value = str(Place(*filters.cone[:2]))
                self._radius.value = filters.cone[2] * ARCSEC
            else:
                self._place.value = ""
            self._tell_region()
        finally:
            self._quiet = False

    def _check(self, filters: Filters) -> None:
        known = {
            "kinds": self._kind_names,
            "bands": [name for name, _ in self._bands.options],
            "instruments": [name for name, _ in self._instruments.options],
        }
        for name, names in known.items():
            absent = [value for value in getattr(filters, name) if value not in names]
            if absent:
                raise InputError(f"the store has no {name[:-1]} {absent[0][:60]!r}", field=name)

    def choose_box(self, box: tuple[float, float, float, float]) -> None:
        """Ask for what touches a box on the sky."""
        self._box, self._cone = box, None
        self._place.value = ""
        self._tell_region()
        self._on_change()

    def fill_instruments(self) -> None:
        """Offer the instruments there are."""
        counts = self._listing.instrument_counts()
        self._instruments.options = [(name, f"{name} ({number:,})") for name, number in counts.items()]
        self._instruments.visible = len(counts) >= _SEVERAL

    def _listen(self) -> None:
        for widget, name in (
            (self._kinds, "active"),
            (self._bands, "value"),
            (self._instruments, "value"),
            (self._time, "value_throttled"),
            (self._wave, "value_throttled"),
        ):
            when_changed(widget, name, lambda _: self._changed())
        when_changed(self._place, "value", lambda _: self._typed())
        when_changed(self._radius, "value", lambda _: self._typed() if self._place.value else None)
        self._clear.on_click(self._cleared)

    def _changed(self) -> None:
        if not self._quiet:
            self._on_change()

    def _cleared(self) -> None:
        self.show(Filters())
        self._on_change()

    def _typed(self) -> None:
        """Look for a position that was typed, or for an observation of that name."""
        if self._quiet:
            return
        text = self._place.value.strip()
        try:
            if not text:
                self._cone = None
            else:
                place, name = parse_place(text), ""
                if place is None:
                    place, name = self._listing.place_of(text)
                self._cone = (place.ra, place.dec, float(self._radius.value or 0.0) / ARCSEC)
                self._box = None
                self._on_place(place, name)
        except InputError as error:
            self._on_error(error)
            return
        self._tell_region()
        self._on_change()

    def _tell_region(self) -> None:
        if self._box is not None:
            ra_min, ra_max, dec_min, dec_max = self._box
            text = f"in RA {ra_min:.4g}° … {ra_max:.4g}°, Dec {dec_min:+.4g}° … {dec_max:+.4g}°"
        elif self._cone is not None:
            ra, dec, radius = self._cone
            text = f"within {radius * ARCSEC:g}″ of {ra:.5f}° {dec:+.5f}°"
        else:
            text = "the whole sky"
        self._region.text = text

    def _asked(self, slider: Any) -> tuple[float, float] | None:
        """Return the values of a slider, None where it is open on both sides."""
        low, high = (float(value) for value in slider.value)
        return None if not slider.visible or (low <= slider.start and high >= slider.end) else (low, high)

    def _asked_time(self) -> tuple[float, float] | None:
        asked = self._asked(self._time)
        return None if asked is None else (asked[0] / _DAY + _UNIX_ZERO, asked[1] / _DAY + _UNIX_ZERO)

    @property
    def centre_of_cone(self) -> Place | None:
        """The position that was typed."""
        return None if self._cone is None else Place(*self._cone[:2])

    def without_place(self) -> Filters:
        """What is asked for anywhere on the sky."""
        return replace(self.filters, cone=None, box=None)


def _choice(title: str, name: str, counts: dict[str, int]) -> MultiChoice:
    options = [(value, f"{value} ({number:,})") for value, number in counts.items()]
    return MultiChoice(
        title=title, options=options, value=[], name=name, width=WIDTH, placeholder="all", solid=False
    )


def _time_slider(span: tuple[float, float] | None) -> DatetimeRangeSlider:
    low, high = span or (_UNIX_ZERO, _UNIX_ZERO + 1.0)
    # Whole days, so that both ends hold everything.
    start, end = (int(low) - _UNIX_ZERO) * _DAY, (int(high) + 1 - _UNIX_ZERO) * _DAY
    step = max(60_000, int((end - start) / _SLIDER_STEPS) // 60_000 * 60_000)
    return DatetimeRangeSlider(
        title="time (TAI)",
        start=start,
        end=end,
        value=(start, end),
        step=step,
        format="%Y-%m-%d" if end - start > 3 * _DAY else "%Y-%m-%d %H:%M",
        name="store-time",
        width=WIDTH - 20,
        visible=span is not None,
    )


def _wave_slider(span: tuple[float, float] | None) -> RangeSlider:
    low, high = span or (0.0, 1.0)
    step = 10.0 if high - low < 50 * _SLIDER_STEPS else 100.0
    start, end = low // step * step, (high // step + 1) * step
    return RangeSlider(
        title="wavelength, Å in vacuum",
        start=start,
        end=end,
        value=(start, end),
        step=step,
        format="0",
        name="store-wave",
        width=WIDTH - 20,
        visible=span is not None,
    )


def _set(slider: Any, asked: tuple[float, float] | None, convert: Callable[[float], float]) -> None:
    low, high = (slider.start, slider.end) if asked is None else (convert(asked[0]), convert(asked[1]))
    slider.value = (max(low, slider.start), min(high, slider.end))
