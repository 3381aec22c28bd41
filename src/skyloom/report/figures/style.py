"""What all figures share: colours, type, stretches, and the marks on a map of the sky."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, FuncNorm, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

from skyloom.core.image import Image

Float = NDArray[np.float64]

FLUX_MAP, NOISE_MAP, SIGNED_MAP = "magma", "viridis", "skyloom.signed"  # all perceptually uniform
INK, PAPER, FAINT, ACCENT = "#1b1f2a", "#ffffff", "#8a90a0", "#c2410c"
BAD_PIXEL = "#9aa0ab"
OKLAB_TO_CONES = np.array(
    [
        [1.0, 1.0, 1.0],
        [0.3963377774, -0.1055613458, -0.0894841775],
        [0.2158037573, -0.0638541728, -1.2914855480],
    ]
)
CONES_TO_RGB = np.array(
    [
        [4.0767416621, -1.2684380046, -0.0041960863],
        [-3.3077115913, 2.6097574011, -0.7034186147],
        [0.2309699292, -0.3413193965, 1.7076147010],
    ]
)
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
STYLE: Any = {  # a dict[RcKey, Any], whose key type has no public name
    "font.size": 9.0,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "text.color": INK,
    "text.parse_math": False,  # names of objects may hold dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "image.origin": "lower",
    "image.interpolation": "nearest",
}


def signed_colours(n: int = 257) -> ListedColormap:
    """Make the map of signed quantities: blue, white at zero, red, in equal steps of what the eye sees.

    Notes
    -----
    Both halves are straight lines in Oklab (Ottosson 2020, https://bottosson.github.io/posts/oklab), in which equal
    distances look equally different, so that the map is uniform by construction; its ends are equally dark.
    """
    white = np.array([0.965, 0.0, 0.0])
    share = np.abs(np.linspace(-1.0, 1.0, n))[:, None]
    hues = np.where(np.arange(n) < n // 2, 262.0, 27.0)
    ends = np.column_stack(
        [np.full(n, 0.42), 0.14 * np.cos(np.radians(hues)), 0.14 * np.sin(np.radians(hues))]
    )
    cones = ((white + share * (ends - white)) @ OKLAB_TO_CONES) ** 3
    linear = np.clip(cones @ CONES_TO_RGB, 0.0, 1.0)
    colours = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return ListedColormap(colours, SIGNED_MAP)


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width: float, height: float, dpi: float) -> Figure:
    """Open a figure of this size in inches."""
    return Figure(figsize=(width, height), dpi=dpi, facecolor=PAPER)


def titled_figure(title: str, width: float, height: float, dpi: float) -> Figure:
    """Open a figure of this size in inches with its title in the upper left corner."""
    figure = new_figure(width, height, dpi)
    figure.suptitle(title, x=0.1 / width, y=1 - 0.09 / height, ha="left", va="top", weight="bold", size=12)
    return figure


def asinh_norm(linear: float, low: float, high: float) -> Normalize:
    """Return an arcsinh stretch that is linear up to about ``linear``."""
    return FuncNorm(
        (lambda value: np.arcsinh(value / linear), lambda value: linear * np.sinh(value)), vmin=low, vmax=high
    )


def asinh_ticks(norm: Normalize, *, significance: bool) -> list[float]:
    """Choose the numbers that a colour bar with an arcsinh stretch shows."""
    high = float(norm.vmax or 1.0)
    if significance:
        return [-3.0, 0.0, *(tick for tick in (3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3) if tick <= high)]
    decade = 10.0 ** np.floor(np.log10(high))
    top = decade * max(step for step in (1.0, 2.0, 5.0) if step * decade <= high)
    return [
        0.0,
        *(
            float(f"{top * factor:.0e}")
            for factor in (0.01, 0.1, 1.0)
            if top * factor > -float(norm.vmin or 0)
        ),
    ]


def draw_panel(
    axes: Axes,
    image: Image,
    values: Any,
    region: NDArray[np.bool_] | None,
    norm: Normalize,
    colours: str | Colormap,
) -> Any:
    """Show a map with the outline of a region, without ticks; unusable pixels are grey."""
    colour_map = (mpl.colormaps[colours] if isinstance(colours, str) else colours).with_extremes(
        bad=BAD_PIXEL
    )
    picture = axes.imshow(values, norm=norm, cmap=colour_map, aspect="equal")
    if region is not None and region.any() and not region.all():
        axes.contour(region, levels=[0.5], colors="white", linewidths=0.7, alpha=0.9)
    clean_frame(axes, image)
    return picture


def clean_frame(axes: Axes, image: Image) -> None:
    """Take ticks and spines off a map; its marks say how it lies on the sky."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_anchor("C")
    for spine in axes.spines.values():
        spine.set_visible(False)
    ny, nx = image.shape
    axes.set_xlim(-0.5, nx - 0.5)
    axes.set_ylim(-0.5, ny - 0.5)
    axes.set_gid("map")


def draw_beam(axes: Axes, image: Image) -> None:
    """Draw the FWHM of the PSF in the lower right corner."""
    if image.psf is None:
        return
    _, nx = image.shape
    width = image.psf.fwhm / image.pixel_scale
    away = 0.04 * nx + width / 2
    axes.add_patch(
        Ellipse(
            (nx - 0.5 - away, -0.5 + away), width, width, facecolor="white", edgecolor=INK, lw=0.6, alpha=0.9,
            gid="beam",
        )
    )  # fmt: skip


def draw_scale_bar(axes: Axes, image: Image) -> None:
    """Draw a bar of round length on the sky into the lower left corner."""
    ny, nx = image.shape
    scale = image.pixel_scale
    choices = [step * 10.0**power for power in range(-2, 5) for step in (1.0, 2.0, 5.0)]
    length = max((choice for choice in choices if choice <= 0.35 * nx * scale), default=choices[0])
    pixels = length / scale
    x, y = 0.05 * nx, 0.06 * ny
    axes.plot(
        [x, x + pixels],
        [y, y],
        color="white",
        lw=1.6,
        solid_capstyle="butt",
        path_effects=_rim(3.0),
        gid="scale bar",
    )
    text = f'{length:g}"' if length < 60 else f"{length / 60:g}'"
    axes.text(
        x + pixels / 2, y + 0.025 * ny, text, color="white", size=7, ha="center", va="bottom",
        path_effects=_rim(1.6),
    )  # fmt: skip


def _rim(width: float) -> list[AbstractPathEffect]:
    """A dark rim, by which white marks are seen on bright colours, too."""
    return [withStroke(linewidth=width, foreground=INK, alpha=0.65)]


def draw_compass(axes: Axes, image: Image) -> None:
    """Draw the directions of north and east in the upper left corner."""
    if image.wcs is None:
        return
    ny, nx = image.shape
    directions = np.linalg.inv(image.pixel_matrix) @ np.eye(2)
    directions /= np.linalg.norm(directions, axis=0)
    length = 0.13 * min(nx, ny)
    # The corner of the cross lies so that both arms and their letters stay inside the panel.
    arms = 1.55 * length * np.column_stack([directions, [0.0, 0.0]])
    corner_x = 0.03 * nx - arms[0].min()
    corner_y = 0.97 * ny - arms[1].max()
    for (dx, dy), letter in zip(directions.T * length, "EN", strict=True):
        axes.annotate(
            "",
            (corner_x + dx, corner_y + dy),
            (corner_x, corner_y),
            arrowprops={
                "arrowstyle": "-|>",
                "color": "white",
                "lw": 0.8,
                "shrinkA": 0,
                "shrinkB": 0,
                "mutation_scale": 6,
                "path_effects": _rim(2.2),
            },
            gid="compass",
        )
        axes.text(
            corner_x + 1.35 * dx,
            corner_y + 1.35 * dy,
            letter,
            color="white",
            weight="bold",
            size=7,
            ha="center",
            va="center",
            path_effects=_rim(1.6),
        )


# By its name, like the maps of matplotlib.
mpl.colormaps.register(signed_colours(), force=True)
