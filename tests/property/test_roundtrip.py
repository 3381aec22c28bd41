"""Whatever an object holds, it is the same after it was written and read."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.inputs.io_objects import assert_same, sip_wcs, tan_wcs

import skyloom as sl
from skyloom.core.cube import CubeCorrelation
from skyloom.core.provenance import Step
from skyloom.io.formats.blocks import card
from skyloom.io.formats.files import parse_header
from skyloom.io.formats.plain_json import from_json, to_json

FEW = settings(max_examples=40, deadline=None)

dtypes = st.sampled_from([np.float32, np.float64])
finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=40)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
units = st.sampled_from(
    [
        "electron/s",
        "1e-20 erg/(s cm2 AA)",
        "1e-17 erg/(s cm2 AA arcsec2)",
        "nmgy",
        "MJy/sr",
        "ct",
        "",
        "1e30 Jy",
    ]
)
widths = st.floats(1e-3, 1e3)
ratios = st.floats(0.01, 1.0)
angles = st.floats(-360.0, 360.0)
gaussians = st.builds(sl.GaussianPSF, widths, ratios, angles)
moffats = st.builds(sl.MoffatPSF, widths, st.floats(1.01, 20.0), ratios, angles)


@st.composite
def sampled_psfs(draw):
    half = draw(st.integers(0, 3))
    size = 2 * half + 1
    array = draw(hnp.arrays(np.float64, (size, size), elements=st.floats(0.001, 10.0)))
    return sl.SampledPSF(array, np.array([[-0.06, 1e-3 / 3], [1e-3 / 7, 0.06]]))


@st.composite
def chromatic_psfs(draw):
    count = draw(st.integers(1, 4))
    kind = draw(st.sampled_from([gaussians, moffats]))
    return sl.ChromaticPSF(
        np.sort(4000.0 + np.arange(count) * 100 / 3), tuple(draw(kind) for _ in range(count))
    )


psfs = st.none() | gaussians | moffats | sampled_psfs() | chromatic_psfs()
steps = st.builds(Step, texts, texts, st.dictionaries(texts, plain, max_size=3))
histories = st.lists(steps, max_size=3).map(tuple)
metas = st.dictionaries(texts, plain, max_size=4)
grids = st.none() | st.floats(-180, 180).map(tan_wcs) | st.builds(sip_wcs)


@st.composite
def planes(draw, shape):
    dtype = draw(dtypes)
    width = np.finfo(dtype).bits
    data = draw(hnp.arrays(dtype, shape, elements=st.floats(width=width)))
    variance = draw(hnp.arrays(dtype, shape, elements=st.floats(width=width)))
    with np.errstate(invalid="ignore"):
        unusable = ~(np.isfinite(data) & (variance > 0) & (variance < np.inf))
    return data, variance, unusable | draw(hnp.arrays(bool, shape))


@st.composite
def correlations(draw, dimensions):
    shape = tuple(2 * draw(st.integers(0, 2)) + 1 for _ in range(dimensions))
    values = draw(hnp.arrays(np.float64, shape, elements=st.floats(-1, 1)))
    rho = (values + values[(slice(None, None, -1),) * dimensions]) / 2
    rho[tuple(size // 2 for size in shape)] = 1.0
    return rho


@st.composite
def shared_errors(draw, shape):
    maps = finite | hnp.arrays(np.float64, shape, elements=finite)
    return tuple(sl.Mode(draw(texts), draw(maps), draw(finite)) for _ in range(draw(st.integers(0, 2))))


@st.composite
def extras(draw, shape):
    return {
        "unit": draw(units),
        "flags": draw(st.none() | hnp.arrays(np.uint16, shape)),
        "modes": draw(shared_errors(shape)),
        "meta": draw(metas),
        "history": draw(histories),
    }


@st.composite
def images(draw):
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    correlation = draw(st.none() | correlations(2))
    return sl.Image(
        *draw(planes(shape)), wcs=draw(grids), psf=draw(psfs), correlation=correlation, **draw(extras(shape))
    )


@st.composite
def spectral(draw, size):
    wave = 3000.0 + np.cumsum(draw(hnp.arrays(np.float64, size, elements=st.floats(1e-3, 100.0))))
    return {"wave": wave, "medium": draw(st.sampled_from(["air", "vacuum"]))}


@st.composite
def cubes(draw):
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)))
    lsf = st.none() | st.floats(0.1, 9) | hnp.arrays(np.float64, shape[:1]) | hnp.arrays(np.float64, shape)
    parts = st.builds(CubeCorrelation, st.none() | correlations(2), st.none() | correlations(1))
    return sl.Cube(
        *draw(planes(shape)),
        wcs=draw(grids),
        psf=draw(psfs),
        lsf=draw(lsf),
        correlation=draw(st.none() | parts),
        **draw(spectral(shape[0])),
        **draw(extras(shape)),
    )


@st.composite
def many_spectra(draw):
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 5)))
    lsf = st.none() | st.floats(0.1, 9) | hnp.arrays(np.float64, shape[1:]) | hnp.arrays(np.float64, shape)
    correlation = st.none() | correlations(1)
    return sl.Spectra(
        *draw(planes(shape)),
        lsf=draw(lsf),
        correlation=draw(correlation),
        **draw(spectral(shape[1])),
        **draw(extras(shape)),
    )


@st.composite
def label_maps(draw):
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    return sl.LabelMap(draw(hnp.arrays(np.int32, shape)), draw(grids), draw(metas), draw(histories))


def same_plain(first, second):
    if isinstance(second, float) and math.isnan(second):
        return isinstance(first, float) and math.isnan(first)
    if isinstance(second, dict):
        return first.keys() == second.keys() and all(same_plain(first[key], second[key]) for key in second)
    if isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(same_plain, first, second))
    return first == second and type(first) is type(second)


@FEW
@given(images() | cubes() | many_spectra() | label_maps())
def test_written_and_read_it_is_the_same(obj):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "object.fits"
        sl.write(obj, path)
        back = sl.read(path)
    plain_fields = ("meta", "history")
    assert_same(back, obj, only=[name for name in obj.__slots__ if name not in plain_fields])
    assert same_plain(back.meta, obj.meta)
    for first, second in zip(back.history, obj.history, strict=True):
        assert (first.name, first.version) == (second.name, second.version)
        assert same_plain(dict(first.parameters), dict(second.parameters))


@FEW
@given(plain)
def test_json_keeps_plain_values(value):
    assert same_plain(from_json(to_json(value, "value")), value)


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300)
    | finite
    | st.integers()
    | st.booleans()
)
def test_cards_keep_values(value):
    back = parse_header(card("KEY", value))["KEY"]
    # Blanks at the end of a text mean nothing in FITS.
    assert back == (value.rstrip() if isinstance(value, str) else value)
    assert type(back) is type(value)
