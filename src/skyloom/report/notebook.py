"""How objects look in a notebook: a card as HTML, and the figures of ``.plot()``.

`skyloom` registers this module with `skyloom.core.display`, which imports it when the first object is shown.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.geometry import pixel_scale
from skyloom.core.image import Image
from skyloom.core.line_fit import LineFit
from skyloom.core.provenance import Step
from skyloom.core.psf import PSF
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from skyloom.store.contents import Contents

__all__ = ["card", "plot"]

Facts = list[tuple[str, str]]
SAMPLE = 200_000  # voxels that typical errors and shares are taken from
PREVIEW = 140  # pixels of a side
PREVIEW_VOXELS = 2e6  # of a cube that its preview is made of
SHOWN_STEPS = 6
MOST_TEXT = 160  # characters of one value


def card(shown: Any) -> str:
    """Return what an object is as a piece of HTML.

    Parameters
    ----------
    shown : Image, Cube, Spectra, LineFit or Store

    Returns
    -------
    str
        A small table with a preview. Typical errors and masked shares of large objects are taken from a sample of
        their voxels; of a store nothing but its index is read. All text is escaped.
    """
    title, facts = _described(shown)
    rows = "".join(
        f'<tr><th style="text-align:left;font-weight:600;padding:1px 12px 1px 0;vertical-align:top;white-space:nowrap">'
        f'{escape(name)}</th><td style="text-align:left;padding:1px 0">{escape(_cut(value))}</td></tr>'
        for name, value in facts
        if value
    )
    picture = _preview(shown)
    image = (
        f'<img alt="preview" style="image-rendering:pixelated;max-width:{2 * PREVIEW}px;max-height:{PREVIEW}px" '
        f'src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        if picture
        else ""
    )
    history = "" if not hasattr(shown, "history") or callable(shown.history) else _history(shown.history)
    return (
        '<div class="skyloom-card" style="display:flex;gap:16px;align-items:flex-start;font-size:90%">'
        f'<div><div style="font-weight:700;margin-bottom:3px">{escape(title)}</div>'
        f'<table style="border-collapse:collapse;margin:0"><tbody>{rows}</tbody></table>{history}</div>{image}</div>'
    )


def plot(shown: Any, **options: Any) -> Figure:
    """Return a figure of an object.

    Parameters
    ----------
    shown : Image, Cube, Spectra, LineFit or Store
    **options
        Image: ``layer=``, ``stretch=``, ``limits=``; Cube: ``x=``, ``y=``, ``lines=``, ``redshift=``, ``stretch=``,
        ``limits=``; Spectra: ``rows=``, ``lines=``, ``redshift=``, ``limits=``; LineFit: ``labels=`` and ``line=`` for
        maps, or ``row=``, ``spectra=``, ``continuum=``, ``limits=``; all of them ``title=``. Store: conditions as for
        `skyloom.store.Store.observations`. See the functions in `skyloom.report.figures.objects`.

    Raises
    ------
    InputError
        When an option is unknown or does not fit.
    """
    try:
        if isinstance(shown, Image):
            from skyloom.report.figures.objects.images import image_figure

            return image_figure(shown, **options)
        if isinstance(shown, Cube):
            from skyloom.report.figures.objects.cubes import cube_figure

            return cube_figure(shown, **options)
        if isinstance(shown, Spectra):
            from skyloom.report.figures.objects.spectra import spectra_figure

            return spectra_figure(shown, **options)
        if isinstance(shown, LineFit):
            from skyloom.report.figures.objects.line_fits import line_fit_figure

            return line_fit_figure(shown, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise InputError(
            f"unknown option: {error}", field="plot", remedy="see help(skyloom.report.notebook.plot)"
        ) from error
    return _store_figure(shown, **options)


def _store_figure(store: Contents, **where: Any) -> Figure:
    from skyloom.report.figures.objects.stores import store_figure

    rows = store.search(**where)
    names = ("s_ra", "s_dec", "radius", "t_start", "t_stop", "dataproduct_type", "band")
    ra, dec, radius, start, stop, kind, band = (_text(store.column(name, rows)) for name in names)
    outlines = store.outlines(rows)
    return store_figure(
        f"{store.path.name}: {len(rows)} observations", (ra, dec, radius), kind, outlines, (start, stop), band
    )


def _text(values: NDArray[Any]) -> NDArray[Any]:
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


# --- what stands on the card -------------------------------------------------------------------------


def _described(shown: Any) -> tuple[str, Facts]:
    if isinstance(shown, Image):
        ny, nx = shown.shape
        return f"Image {nx} × {ny} pixels", [*_about(shown), *_sky(shown, shown.shape), *_errors(shown)]
    if isinstance(shown, Cube):
        n_wave, ny, nx = shown.shape
        title = f"Cube {nx} × {ny} spaxels, {n_wave} channels"
        return title, [*_about(shown), *_axis(shown), *_sky(shown, (ny, nx)), *_errors(shown)]
    if isinstance(shown, Spectra):
        n, n_wave = shown.shape
        spectra = "1 spectrum" if n == 1 else f"{n} spectra"
        return f"Spectra: {spectra}, {n_wave} channels", [*_about(shown), *_axis(shown), *_errors(shown)]
    if isinstance(shown, LineFit):
        return _fit_facts(shown)
    return _store_facts(shown)


def _about(shown: Image | Cube | Spectra) -> Facts:
    known = (shown.meta.get(name) for name in ("telescope", "instrument", "band", "object"))
    observed = " ".join(str(value) for value in known if isinstance(value, str))
    return [("observed", observed), ("unit", str(shown.unit) or "none")]


def _axis(shown: Cube | Spectra) -> Facts:
    wave = shown.wave
    reach = f"{wave[0]:.6g} to {wave[-1]:.6g} Å in {shown.medium}" if wave.size else "no channels"
    facts = [("wavelengths", reach)]
    if shown.lsf is not None:
        middle = float(np.nanmedian(np.asarray(shown.lsf, dtype=np.float64)))
        facts.append(("LSF", f"σ {middle:.3g} Å (median)"))
    return facts


def _sky(shown: Image | Cube, shape: tuple[int, int]) -> Facts:
    facts: Facts = []
    if shown.wcs is not None:
        facts.append(("pixels", f'{pixel_scale(shown.wcs, shape):.4g}"'))
    if isinstance(shown.psf, PSF):
        facts.append(("PSF", f'{type(shown.psf).__name__}, FWHM {shown.psf.fwhm:.3g}"'))
    return facts


def _errors(shown: Image | Cube | Spectra) -> Facts:
    masked, variance = _sample(shown.mask), _sample(shown.variance)
    usable = variance[~masked]
    share = f"{100 * float(masked.mean()):.3g} %" if masked.size else "no pixels"
    sampled = "" if masked.size == shown.mask.size else " (of a sample)"
    correlation: Any = shown.correlation
    parts = correlation if isinstance(shown, Cube) and correlation is not None else (correlation,)
    widths = [" × ".join(str(size) for size in part.shape) for part in parts if part is not None]
    noise = f"median σ {np.sqrt(float(np.median(usable))):.4g}" if usable.size else "no usable pixel"
    known = f"correlated over {' and '.join(widths)} pixels" if widths else "independent pixels"
    modes = f"; shared: {', '.join(mode.name for mode in shown.modes)}" if shown.modes else ""
    return [("noise", f"{noise}, {known}{modes}"), ("masked", share + sampled)]


def _sample(values: NDArray[Any]) -> NDArray[Any]:
    """Return elements spread evenly over an array, not more than `SAMPLE`; a view where possible."""
    step = max(1, int(np.ceil((values.size / SAMPLE) ** (1.0 / values.ndim))))
    return values[(slice(None, None, step),) * values.ndim]


def _fit_facts(fit: LineFit) -> tuple[str, Facts]:
    spectra = "1 spectrum" if len(fit) == 1 else f"{len(fit)} spectra"
    rows: Facts = []
    for key in fit.lines.keys[:8]:
        snr = np.asarray(fit.table[f"{key}_snr"], dtype=np.float64)
        seen = int(np.sum(snr > 3))
        middle = f", median S/N {float(np.nanmedian(snr)):.3g}" if np.isfinite(snr).any() else ""
        rows.append((key, f"S/N above 3 in {seen} of {len(fit)}{middle}"))
    if len(fit.lines) > 8:
        rows.append(("", f"and {len(fit.lines) - 8} more lines"))
    reach = f"{fit.wave[0]:.6g} to {fit.wave[-1]:.6g} Å in {fit.medium}"
    facts = [("wavelengths", reach), ("unit", str(fit.unit)), *rows]
    return f"LineFit: {len(fit.lines)} lines in {spectra}", facts


def _store_facts(store: Contents) -> tuple[str, Facts]:
    facts: Facts = [("path", str(store.path))]
    if not len(store):
        return "Store, empty", facts
    for kind in ("image", "cube", "spectrum"):
        rows = store.search(kind=kind)
        if rows.size:
            bands = sorted({str(band) for band in _text(store.column("band", rows)).tolist()} - {""})
            shown = ", ".join(bands[:12]) + (" ..." if len(bands) > 12 else "")
            facts.append((kind, f"{rows.size}" + (f" in {shown}" if shown else "")))
    for name, first, last, unit in (
        ("time", "t_start", "t_stop", "MJD (TAI)"),
        ("wavelengths", "em_min", "em_max", "m"),
    ):
        low, high = store.column(first), store.column(last)
        if np.isfinite(low).any() and np.isfinite(high).any():
            facts.append((name, f"{np.nanmin(low):.6g} to {np.nanmax(high):.6g} {unit}"))
    return f"Store of {len(store)} observations", facts


def _history(steps: Iterable[Step]) -> str:
    lines = [escape(_cut(step.describe())) for step in steps]
    if not lines:
        return ""
    hidden = len(lines) - SHOWN_STEPS
    shown = ([f"{hidden} earlier steps"] if hidden > 0 else []) + lines[-SHOWN_STEPS:]
    items = "".join(f"<li>{line}</li>" for line in shown)
    count = f"{len(lines)} step{'s' if len(lines) > 1 else ''}"
    return f'<details><summary>history: {count}</summary><ol style="margin:0">{items}</ol></details>'


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 4]} ..."


# --- the preview -------------------------------------------------------------------------------------


def _preview(shown: Any) -> bytes:
    """Return a small PNG; empty where there is nothing to see."""
    from skyloom.report.figures.objects.previews import curve_preview, image_preview

    if isinstance(shown, Image):
        step = max(1, -(-max(shown.shape) // PREVIEW))
        return image_preview(shown.data[::step, ::step], shown.mask[::step, ::step])
    if isinstance(shown, Cube):
        from skyloom.report.figures.objects.cubes import white_light

        step = max(1, -(-max(shown.shape[1:]) // PREVIEW))
        light, _ = white_light(shown, PREVIEW_VOXELS, step)
        return image_preview(light.data, light.mask)
    if isinstance(shown, Spectra) and shown.data.size:
        return curve_preview(shown.wave, np.where(shown.mask[0], np.nan, shown.data[0]))
    if isinstance(shown, LineFit) and len(shown):
        return curve_preview(shown.wave, np.asarray(shown.model[0], dtype=np.float64))
    return b""
