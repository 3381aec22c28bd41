"""Where the pixels of one grid lie in another: the WCS on a coarse grid, bicubic splines in between.

A projection with its distortions is smooth over hundreds of pixels, so that a spline through a few nodes replaces
millions of trigonometric evaluations. The number of nodes is doubled until the spline through every other
node predicts the rest; where the map is not smooth (or not defined everywhere) it is evaluated in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.geometry import celestial
from skyloom.errors import InputError

__all__ = ["PixelMap", "affine_map", "pixel_map", "source_positions"]

Float = NDArray[np.float64]
FIRST_NODES = 9
MOST_NODES = 257
TOLERANCE = 1e-7
"""Error, in source pixels, at which no more nodes are added."""
MARGIN = 4
"""Target pixels kept around the outline of the source."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelMap:
    """Source pixel positions of a window of target pixels.

    Parameters
    ----------
    coefficients : (3, cells, cells, 4, 4) array
        Bicubic pieces of source x, source y and the area of a target pixel in source pixels; powers of the
        position within the cell, y before x.
    grid : (4,) array
        x and step in x of the first cell, y and step in y, in target pixels.
    dense : (3, rows, columns) array
        The same planes for every pixel (or corner) where splines do not serve; else empty.
    window : (4,) int64 array
        First row, one past the last row, first column, one past the last column of the target that may see
        the source.
    matrix : (2, 2) array
        Step of one target pixel (x, y) in source pixels (x, y), at the centre of the window (of a dense map:
        where it sees the centre of the source).
    error : float
        Estimated error of the positions in source pixels.
    """

    coefficients: Float
    grid: Float
    dense: Float
    window: NDArray[np.int64]
    matrix: Float
    error: float

    @property
    def scale(self) -> float:
        """Side of a square of the area of a target pixel, in source pixels."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix))))

    @property
    def coarseness(self) -> float:
        """Longest step, in source pixels, that one target pixel can make in any direction."""
        return float(np.linalg.norm(self.matrix, 2))

    @property
    def rotation(self) -> float:
        """Angle in degrees from source x to target x."""
        return float(np.degrees(np.arctan2(self.matrix[1, 0], self.matrix[0, 0])))

    def positions(self, x: Float, y: Float) -> tuple[Float, Float, Float]:
        """Return source x, source y and area for target positions within the window (splines only)."""
        cells_y, cells_x = self.coefficients.shape[1:3]
        column, row = (x - self.grid[0]) / self.grid[1], (y - self.grid[2]) / self.grid[3]
        i = np.clip(np.floor(column).astype(int), 0, cells_x - 1)
        j = np.clip(np.floor(row).astype(int), 0, cells_y - 1)
        powers = np.arange(4)
        s, t = (column - i)[..., np.newaxis] ** powers, (row - j)[..., np.newaxis] ** powers
        planes = np.einsum("p...yx,...y,...x->p...", self.coefficients[:, j, i], t, s)
        return planes[0], planes[1], planes[2]

    def whole_shift(self, tolerance: float) -> tuple[int, int] | None:
        """Return the shift (x, y) in whole pixels that this map is to ``tolerance`` pixels, or None."""
        if self.dense.size or np.abs(self.matrix - np.eye(2)).max() > tolerance:
            return None
        x, y = self._samples(5)
        source_x, source_y, _ = self.positions(x, y)
        shift_x, shift_y = source_x - x, source_y - y
        whole_x, whole_y = round(float(shift_x.mean())), round(float(shift_y.mean()))
        drift = max(np.abs(shift_x - whole_x).max(), np.abs(shift_y - whole_y).max())
        return (whole_x, whole_y) if drift <= tolerance else None

    def phases(self) -> Float | None:
        """Return source positions (n, 2) with the sub-pixel phases that occur, or None when all occur alike.

        Shifts and rational scales repeat a few phases for ever; a turn so small that the phase drifts by less
        than a pixel over the image shows only a part of them.
        """
        if self.dense.size:
            return None
        x, y = self._samples(4)
        source_x, source_y, _ = self.positions(x, y)
        found = np.stack([source_x, source_y], axis=-1).reshape(-1, 2)
        steps = np.stack([x - x[0, 0], y - y[0, 0]], axis=-1).reshape(-1, 2)
        for repeat in (1, 2, 3, 4, 5):
            rational = np.round(self.matrix * repeat) / repeat
            if abs(np.linalg.det(rational)) < 1e-6:
                continue
            residual = found - steps @ rational.T
            drift = float(np.ptp(residual, axis=0).max())
            if drift < 0.05:
                cycle = np.stack(np.meshgrid(np.arange(repeat), np.arange(repeat)), axis=-1).reshape(-1, 2)
                return np.unique(np.round(np.mod(residual.mean(axis=0) + cycle @ rational.T, 1.0), 6), axis=0)
            if repeat <= 2 and drift < 0.7 / repeat:
                turns = np.stack(np.meshgrid(np.arange(repeat), np.arange(repeat)), axis=-1).reshape(-1, 1, 2)
                return np.asarray((residual + turns @ rational.T).reshape(-1, 2))
        return None

    def _samples(self, count: int) -> tuple[Float, Float]:
        """Return whole-pixel target positions spread over the window, each (count, count)."""
        rows = np.rint(np.linspace(self.window[0], self.window[1] - 1, count))
        columns = np.rint(np.linspace(self.window[2], self.window[3] - 1, count))
        x, y = np.meshgrid(columns, rows)
        return x, y


def source_positions(source: WCS, target: WCS, x: Float, y: Float) -> tuple[Float, Float]:
    """Return where target pixel positions lie in the source, through the full WCS of both.

    Parameters
    ----------
    source, target : WCS
        Celestial, two-dimensional.
    x, y : arrays
        Positions in target pixels, 0 in the centre of the first one.

    Returns
    -------
    x, y : arrays
        Positions in source pixels; NaN where the source's projection does not reach.

    Notes
    -----
    Frames are transformed where both headers name them and they differ; a header that names none is taken to
    mean the same as the other.
    """
    longitude, latitude = _pixel_to_sky(target, np.ravel(x), np.ravel(y))
    longitude, latitude = _change_frame(target, source, longitude, latitude)
    source_x, source_y = _sky_to_pixel(source, longitude, latitude)
    return source_x.reshape(np.shape(x)), source_y.reshape(np.shape(y))


def _pixel_to_sky(wcs: WCS, x: Float, y: Float) -> tuple[Float, Float]:
    world = wcs.all_pix2world(x, y, 0)
    return world[wcs.wcs.lng], world[wcs.wcs.lat]


def _frame_name(wcs: WCS) -> tuple[str, str, float]:
    # ICRS has no equinox, although headers often give one.
    system = wcs.wcs.radesys.strip().upper()
    equinox = wcs.wcs.equinox if system.startswith("FK") and np.isfinite(wcs.wcs.equinox) else 0.0
    return wcs.wcs.lngtyp.strip(), system, float(equinox)


def _change_frame(old: WCS, new: WCS, longitude: Float, latitude: Float) -> tuple[Float, Float]:
    first, second = _frame_name(old), _frame_name(new)
    unnamed = "" in (first[1], second[1])
    if first == second or (first[0] == second[0] and unnamed):
        return longitude, latitude
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from astropy.wcs.utils import wcs_to_celestial_frame

    sky = SkyCoord(longitude * u.deg, latitude * u.deg, frame=wcs_to_celestial_frame(old))
    moved = sky.transform_to(wcs_to_celestial_frame(new)).spherical
    return np.asarray(moved.lon.deg), np.asarray(moved.lat.deg)


def _sky_to_pixel(wcs: WCS, longitude: Float, latitude: Float) -> tuple[Float, Float]:
    world = [longitude, latitude] if wcs.wcs.lng == 0 else [latitude, longitude]
    x, y = wcs.wcs_world2pix(*world, 0)
    distorted = any(part is not None for part in (wcs.sip, wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2))
    return _undo_distortion(wcs, x, y) if distorted else (x, y)


def _undo_distortion(wcs: WCS, focal_x: Float, focal_y: Float) -> tuple[Float, Float]:
    """Solve ``wcs.pix2foc(x, y) = focal`` by Newton steps, NaN where they do not settle.

    Fixed-point iteration, the usual way, converges linearly and diverges far outside the detector.
    """
    x, y = focal_x.copy(), focal_y.copy()
    shift = np.array([0.0, 1.0, -1.0, 0.0, 0.0])[:, np.newaxis]
    settled = np.zeros(x.shape, bool)
    for _ in range(12):
        around_x, around_y = x + shift, y + shift[[0, 3, 4, 1, 2]]
        found = wcs.pix2foc(around_x.ravel(), around_y.ravel(), 0)
        u, v = (axis.reshape(around_x.shape) for axis in found)
        ux, uy, vx, vy = (u[1] - u[2]) / 2, (u[3] - u[4]) / 2, (v[1] - v[2]) / 2, (v[3] - v[4]) / 2
        determinant = ux * vy - uy * vx
        determinant[np.abs(determinant) < 0.1] = np.nan  # The polynomial folds over: no such pixel.
        miss_x, miss_y = focal_x - u[0], focal_y - v[0]
        step_x = (vy * miss_x - uy * miss_y) / determinant
        step_y = (ux * miss_y - vx * miss_x) / determinant
        x, y = x + step_x, y + step_y
        settled = np.hypot(step_x, step_y) < 1e-8
        if np.all(settled | ~np.isfinite(x)):
            break
    return np.where(settled, x, np.nan), np.where(settled, y, np.nan)


@lru_cache(maxsize=8)
def _spline_operator(nodes: int) -> tuple[Float, Float]:
    """Matrices from values at ``nodes`` equidistant nodes to a not-a-knot cubic spline.

    Returns
    -------
    pieces : (4 (nodes - 1), nodes) array
        Coefficients of each cell, powers 0 to 3 of the position within it.
    slopes : (nodes, nodes) array
        Derivatives at the nodes, per cell.
    """
    system, right = np.zeros((nodes, nodes)), np.zeros((nodes, nodes))
    for i in range(1, nodes - 1):
        system[i, i - 1 : i + 2] = 1.0, 4.0, 1.0
        right[i, i - 1], right[i, i + 1] = -3.0, 3.0
    system[0, [0, 2]], right[0, :3] = (1.0, -1.0), (-2.0, 4.0, -2.0)
    system[-1, [-1, -3]], right[-1, -3:] = (1.0, -1.0), (2.0, -4.0, 2.0)
    slopes = np.linalg.solve(system, right)
    values = np.eye(nodes)
    rise = np.diff(values, axis=0)
    pieces = np.stack(
        [
            values[:-1],
            slopes[:-1],
            3.0 * rise - 2.0 * slopes[:-1] - slopes[1:],
            slopes[:-1] + slopes[1:] - 2.0 * rise,
        ],
        axis=1,
    )
    return np.asarray(pieces.reshape(-1, nodes)), np.asarray(slopes)


@lru_cache(maxsize=8)
def _prediction(nodes: int) -> Float:
    """Matrix from the values at every other of ``nodes`` nodes to the spline's values at all of them."""
    few = nodes // 2 + 1
    pieces, _ = _spline_operator(few)
    middle = np.array([1.0, 0.5, 0.25, 0.125]) @ pieces.reshape(few - 1, 4, few)
    matrix = np.zeros((nodes, few))
    matrix[::2] = np.eye(few)
    matrix[1::2] = middle
    return matrix


def affine_map(matrix: Float, offset: Float, shape: tuple[int, int]) -> PixelMap:
    """Return the map ``matrix @ (x, y) + offset`` for all pixels of a target of ``shape``.

    Parameters
    ----------
    matrix : (2, 2) array
    offset : (2,) array
        Source position (x, y) of the target's first pixel.
    shape : (ny, nx)
    """
    coefficients = np.zeros((3, 1, 1, 4, 4))
    coefficients[:2, 0, 0, 0, 0] = offset
    coefficients[:2, 0, 0, 0, 1] = matrix[:, 0]
    coefficients[:2, 0, 0, 1, 0] = matrix[:, 1]
    coefficients[2, 0, 0, 0, 0] = abs(np.linalg.det(matrix))
    window = np.array([0, shape[0], 0, shape[1]], dtype=np.int64)
    grid = np.array([0.0, 1.0, 0.0, 1.0])
    return PixelMap(
        coefficients, grid, np.empty((3, 0, 0)), window, np.asarray(matrix, dtype=np.float64), 0.0
    )


def pixel_map(
    source_wcs: WCS | None,
    source_shape: tuple[int, int],
    target_wcs: WCS | None,
    target_shape: tuple[int, int],
    *,
    corners: bool = False,
) -> PixelMap:
    """Map the pixels of a target grid into a source grid.

    Parameters
    ----------
    source_wcs, target_wcs : WCS
    source_shape, target_shape : (ny, nx)
    corners : bool
        Should the map have to be dense: of the pixels' corners rather than of their centres.

    Raises
    ------
    InputError
        When a WCS is missing, or the two grids do not overlap.
    """
    source, target = celestial(source_wcs, "resampling"), celestial(target_wcs, "the target of a resampling")
    ny, nx = target_shape
    window = np.array([0, ny, 0, nx], dtype=np.int64)
    nodes, error = _sample(source, target, window, FIRST_NODES)
    if not _is_near(nodes, source_shape):
        window = _visible_window(source, source_shape, target, target_shape)
        nodes, error = _sample(source, target, window, FIRST_NODES)
    while not error < TOLERANCE and nodes.shape[1] < MOST_NODES:
        finer, finer_error = _sample(source, target, window, 2 * nodes.shape[1] - 1)
        # What more nodes do not improve is the rounding of the WCS itself.
        stalled = error < 1e-6 and not finer_error < 0.5 * error
        nodes, error = finer, finer_error
        if stalled:
            break
    count = nodes.shape[1]
    pieces, slopes = _spline_operator(count)
    step_x, step_y = (window[3] - window[2]) / (count - 1), (window[1] - window[0]) / (count - 1)
    grid = np.array([window[2] - 0.5, step_x, window[0] - 0.5, step_y])
    along_x, along_y = nodes @ slopes.T / step_x, np.matmul(slopes, nodes) / step_y
    area = np.abs(along_x[0] * along_y[1] - along_y[0] * along_x[1])
    tensor = pieces @ np.concatenate([nodes, area[np.newaxis]]) @ pieces.T
    cells = count - 1
    coefficients = np.ascontiguousarray(tensor.reshape(3, cells, 4, cells, 4).transpose(0, 1, 3, 2, 4))
    middle = np.array([cells // 2])
    matrix = np.stack([along_x[:, middle, middle], along_y[:, middle, middle]], axis=1).reshape(2, 2)
    if error < 1e-6:
        return PixelMap(coefficients, grid, np.empty((3, 0, 0)), window, matrix, error)
    dense = _evaluate_everywhere(source, target, window, corners)
    matrix = _matrix_at(source, target, *_best_seen(dense, window, source_shape))
    return PixelMap(coefficients, grid, dense, window, matrix, 0.0)


def _sample(source: WCS, target: WCS, window: NDArray[np.int64], count: int) -> tuple[Float, float]:
    """Positions of count x count nodes from edge to edge of the window, and the error of a spline through them."""
    x = np.linspace(window[2] - 0.5, window[3] - 0.5, count)
    y = np.linspace(window[0] - 0.5, window[1] - 0.5, count)
    x_nodes, y_nodes = np.meshgrid(x, y)
    nodes = np.stack(source_positions(source, target, x_nodes, y_nodes))
    predict = _prediction(count)
    miss = np.abs(predict @ nodes[:, ::2, ::2] @ predict.T - nodes).max()
    # Halving the cells divides the error of a cubic by 16; half of that gain is kept as a reserve.
    return nodes, float(miss / 8.0)


def _is_near(nodes: Float, source_shape: tuple[int, int]) -> bool:
    """Tell whether all nodes are defined and none is farther outside the source than the source is wide."""
    ny, nx = source_shape
    size = max(ny, nx)
    return bool(
        np.all(np.isfinite(nodes))
        and nodes[0].min() > -size
        and nodes[0].max() < nx + size
        and nodes[1].min() > -size
        and nodes[1].max() < ny + size
    )


def _visible_window(
    source: WCS, source_shape: tuple[int, int], target: WCS, target_shape: tuple[int, int]
) -> NDArray[np.int64]:
    """Bounding box, in target pixels, of the outline of the source."""
    ny, nx = source_shape
    share = np.linspace(0.0, 1.0, 33)
    along, zero, one = share, np.zeros(33), np.ones(33)
    x = np.concatenate([along, one, along, zero]) * nx - 0.5
    y = np.concatenate([zero, along, one, along]) * ny - 0.5
    seen_x, seen_y = source_positions(target, source, x, y)
    rows, columns = target_shape
    if not (np.all(np.isfinite(seen_x)) and np.all(np.isfinite(seen_y))):
        return np.array([0, rows, 0, columns], dtype=np.int64)
    pad_x, pad_y = MARGIN + 0.01 * np.ptp(seen_x), MARGIN + 0.01 * np.ptp(seen_y)
    window = np.array(
        [
            np.clip(np.floor(seen_y.min() - pad_y), 0, rows),
            np.clip(np.ceil(seen_y.max() + pad_y) + 1, 0, rows),
            np.clip(np.floor(seen_x.min() - pad_x), 0, columns),
            np.clip(np.ceil(seen_x.max() + pad_x) + 1, 0, columns),
        ],
        dtype=np.int64,
    )
    if window[1] <= window[0] or window[3] <= window[2]:
        raise InputError(
            f"the image and the target grid do not overlap: the image covers x {seen_x.min():.0f} to "
            f"{seen_x.max():.0f}, y {seen_y.min():.0f} to {seen_y.max():.0f} of a target of {columns} x {rows}",
            field="wcs",
            remedy="check the WCS of both, or choose a target that sees the image",
        )
    return window


def _evaluate_everywhere(source: WCS, target: WCS, window: NDArray[np.int64], corners: bool) -> Float:
    """Positions of all pixel centres (or corners) of the window, and the areas of the pixels."""
    x_edges = np.arange(window[2], window[3] + 1) - 0.5
    y_edges = np.arange(window[0], window[1] + 1) - 0.5
    x, y = source_positions(source, target, *np.meshgrid(x_edges, y_edges))
    if corners:
        return np.stack([x, y, np.ones_like(x)])
    area = 0.5 * np.abs(
        (x[1:, 1:] - x[:-1, :-1]) * (y[1:, :-1] - y[:-1, 1:])
        - (x[1:, :-1] - x[:-1, 1:]) * (y[1:, 1:] - y[:-1, :-1])
    )
    centres = source_positions(source, target, *np.meshgrid(x_edges[:-1] + 0.5, y_edges[:-1] + 0.5))
    return np.stack([*centres, area])


def _best_seen(dense: Float, window: NDArray[np.int64], source_shape: tuple[int, int]) -> tuple[float, float]:
    """Target pixel (x, y) that lies nearest to the centre of the source."""
    ny, nx = source_shape
    distance = np.hypot(dense[0] - (nx - 1) / 2, dense[1] - (ny - 1) / 2)
    if not np.any(np.isfinite(distance)):
        raise InputError(
            "no pixel of the target lies on the projection of the image",
            field="wcs",
            remedy="choose a target that sees the image",
        )
    row, column = np.unravel_index(np.nanargmin(distance), distance.shape)
    return float(window[2] + column), float(window[0] + row)


def _matrix_at(source: WCS, target: WCS, x: float, y: float) -> Float:
    """Step of one target pixel in source pixels at a target position."""
    around_x = x + np.array([0.05, -0.05, 0.0, 0.0])
    around_y = y + np.array([0.0, 0.0, 0.05, -0.05])
    u, v = source_positions(source, target, around_x, around_y)
    return np.array([[u[0] - u[1], u[2] - u[3]], [v[0] - v[1], v[2] - v[3]]]) / 0.1
