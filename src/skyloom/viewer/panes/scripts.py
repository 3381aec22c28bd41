"""What runs in the browser beside an image: proportions, links between two images, and the read-out."""

from __future__ import annotations

__all__ = ["FIT", "KEEP_PROPORTIONS", "LINK", "READ_OUT"]

FIT = """
const [x0, x1, y0, y1, turn] = figure.tags;
const [width, height] = [figure.inner_width, figure.inner_height];
if (!(width > 0 && height > 0)) return;
const side = Math.max((x1 - x0) / width, (y1 - y0) / height);
const [middle_x, middle_y] = [(x0 + x1) / 2, (y0 + y1) / 2];
figure._fitted = turn;
x.setv({start: middle_x - side * width / 2, end: middle_x + side * width / 2});
y.setv({start: middle_y - side * height / 2, end: middle_y + side * height / 2});
figure._home = [x.start, x.end];
"""
"""Show a box in proportion; arguments figure, x, y (its ranges). The tags are its edges, and a number that changes."""

KEEP_PROPORTIONS = (
    """
const [width, height] = [figure.inner_width, figure.inner_height];
if (!(width > 0 && height > 0) || figure.tags.length == 0) return;
const is_home = figure._home != null && x.start == figure._home[0] && x.end == figure._home[1];
if (figure._fitted === figure.tags[4] && !is_home) {
    const half = (x.end - x.start) / width * height / 2;
    const middle = (y.start + y.end) / 2;
    y.setv({start: middle - half, end: middle + half});
} else {"""
    + FIT.replace("const [width, height] = [figure.inner_width, figure.inner_height];\n", "")
    + "}"
)
"""After a change of the page's size: as many pixels per screen pixel along y as along x. Arguments as for `FIT`."""

LINK = """
if (link.data.matrix.length == 0 || from._follows || from._waiting) return;
from._waiting = true;
requestAnimationFrame(() => {
    from._waiting = false;
    const [a, b, c, d, e, f] = link.data.matrix;
    const [x, y] = [(from.x_range.start + from.x_range.end) / 2, (from.y_range.start + from.y_range.end) / 2];
    const width = to.inner_width || from.inner_width;
    const height = to.inner_height || from.inner_height;
    const side = (from.x_range.end - from.x_range.start) / from.inner_width * Math.sqrt(Math.abs(a * e - b * d));
    const [u, v] = [a * x + b * y + c, d * x + e * y + f];
    if (![side, u, v].every(Number.isFinite)) return;
    to._fitted = to.tags[4];
    to._follows = true;
    to.x_range.setv({start: u - side * width / 2, end: u + side * width / 2});
    to.y_range.setv({start: v - side * height / 2, end: v + side * height / 2});
    to._follows = false;
});
"""
"""Bring the figure ``to`` to the place and scale of ``from``, by the affine map of pixels in ``link``."""

READ_OUT = """
const show = (text) => target.setv({text}, {sync: false});
const data = probe.data;
if (data.values.length == 0) { show(""); return; }
const [x0, y0, step, nx, ny] = data.frame[0];
const level = data.status[0];
const [x, y] = [cb_obj.x, cb_obj.y];
const [column, row] = [Math.floor((x - x0) / step), Math.floor((y - y0) / step)];
const inside = column >= 0 && column < nx && row >= 0 && row < ny;
if (cb_obj.event_name == "mouseleave" || !inside) { show(`<span class="level">${level}</span>`); return; }

const number = (value) => {
    if (!Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    return size != 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
};
const sexagesimal = (value, digits) => {
    let units = Math.round(Math.abs(value) * 3600 * 10 ** digits);
    const seconds = (units / 10 ** digits) % 60;
    const minutes = Math.floor(units / 10 ** digits / 60);
    const pad = (part, width) => part.padStart(width, "0");
    return `${pad(String(Math.floor(minutes / 60)), 2)}:${pad(String(minutes % 60), 2)}:` +
        pad(seconds.toFixed(digits), digits + 3);
};
let place = "";
if (data.sky[0] != null) {
    // Directions between the points of the grid: bilinear, as vectors, so that neither poles nor 0h matter.
    const [u0, u1, v0, v1, n] = data.sky_frame[0];
    const u = (x - u0) / (u1 - u0) * (n - 1), v = (y - v0) / (v1 - v0) * (n - 1);
    const i = Math.min(Math.max(Math.floor(u), 0), n - 2), j = Math.min(Math.max(Math.floor(v), 0), n - 2);
    const [s, t] = [u - i, v - j];
    const at = (k) => {
        const value = (jj, ii) => data.sky[0][(jj * n + ii) * 3 + k];
        return (1 - t) * ((1 - s) * value(j, i) + s * value(j, i + 1))
            + t * ((1 - s) * value(j + 1, i) + s * value(j + 1, i + 1));
    };
    const [a, b, c] = [at(0), at(1), at(2)];
    if (Number.isFinite(a + b + c)) {
        const right = (Math.atan2(b, a) * 180 / Math.PI + 360) % 360;
        const up = Math.atan2(c, Math.hypot(a, b)) * 180 / Math.PI;
        place = `<span class="sky">${sexagesimal(right / 15, 3)} ${up < 0 ? "−" : "+"}${sexagesimal(up, 2)}</span>`
            + ` <span class="faint">(${right.toFixed(6)}°, ${up.toFixed(6)}°)</span>`;
    }
}
const element = row * nx + column;
const value = data.values[0][element];
let text = `<b>${number(value)}</b>`;
if (data.errors[0] != null) text += ` ± ${number(data.errors[0][element])}`;
text += ` <span class="faint">${data.unit[0]}</span>`;
if (data.shown[0] != null) text += ` · ${data.layer[0]} <b>${number(data.shown[0][element])}</b>`;
show(`${text} &ensp; <span class="faint">x</span> ${x.toFixed(1)} <span class="faint">y</span> ${y.toFixed(1)} &ensp;`
    + `${place}<br><span class="level">${level}</span>`);
"""
"""Write value, error and place under the pointer into ``target``, from the arrays in ``probe``."""
