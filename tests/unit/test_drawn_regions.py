"""Region files of DS9 read and written, on pixels as masks and labels, and outlines of labels."""

from __future__ import annotations

import re

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from astropy.wcs import WCS

import skyloom as sl
from skyloom.core.apertures import circle_overlap
from skyloom.core.drawn_regions import DrawnRegion
from skyloom.core.labels import LabelMap
from skyloom.errors import FileFormatError, InputError
from skyloom.imaging.measure.drawn import label_regions, region_mask
from skyloom.imaging.measure.outlines import aperture_regions, outline_regions
from skyloom.io.ds9_regions import is_region_file, parse_regions, read_regions, write_regions
from tests.inputs.io_objects import sip_wcs, tan_wcs
from tests.inputs.line import six_bins

SHAPE = (60, 80)
EVERYTHING = """\
# Region file format: DS9 version 4.1
global color=green font="helvetica 10 normal roman" include=1
image
circle(20,30,8.5) # color=red text={first one}
-box(22.5 30 4 6 30)
ellipse(55.25,25,14,6,40) # text="second"
annulus(40,40,5,9,12)
polygon(60.3,10,75,12,70,40,62,20)
point(3,4) # point=x
"""


def grid(angle=0.0, scale=0.5, mirrored=False, frame="RA"):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["GLON-TAN", "GLAT-TAN"] if frame == "G" else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.1, 2.2]
    wcs.wcs.crpix = [40.5, 30.5]
    turn = np.radians(angle)
    matrix = scale / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.cd = matrix * [-1.0, 1.0] if mirrored else matrix
    wcs.wcs.set()
    return wcs


def naive_polygon(points, shape):
    """Even and odd crossings, pixel by pixel."""
    inside = np.zeros(shape, bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
                if (y1 <= row) != (y2 <= row) and x1 + (row - y1) * (x2 - x1) / (y2 - y1) <= column:
                    inside[row, column] ^= True
    return inside


# --- reading ---------------------------------------------------------------------------------------------


def test_every_shape_is_read():
    found = parse_regions(EVERYTHING)
    assert [region.shape for region in found] == [
        "circle", "box", "ellipse", "annulus", "annulus", "polygon", "point",
    ]  # fmt: skip
    assert [region.include for region in found] == [True, False, True, True, True, True, True]
    assert [region.text for region in found[:3]] == ["first one", "", "second"]
    np.testing.assert_array_equal(found[0].points, [[19.0, 29.0]])
    assert found[1].sizes == (4.0, 6.0)
    assert found[1].angle == 30.0
    assert [ring.sizes for ring in found[3:5]] == [(5.0, 9.0), (9.0, 12.0)]
    assert {region.size_unit for region in found} == {"pixel", "arcsec"}


@pytest.mark.parametrize(
    ("line", "place", "size"),
    [
        ('fk5;circle(10:00:24,+02:12:00,3")', (150.1, 2.2), 3.0),
        ("icrs; circle(150.1, 2.2, 0.05')", (150.1, 2.2), 3.0),
        ("icrs\ncircle 150.1d 2.2d 0.001", (150.1, 2.2), 3.6),
        ("J2000;circle(10h00m24s,2d12m00s,0.001d)", (150.1, 2.2), 3.6),
        ("galactic;circle(150:06:00,2:12:00,1e-5r)", (150.1, 2.2), 2.0626480624709638),
        ("fk5;circle(2.6197392072434886r,2.2,5p)", (150.1, 2.2), 5.0),
    ],
)
def test_numbers_in_all_their_forms(line, place, size):
    (region,) = parse_regions(line)
    np.testing.assert_allclose(region.points[0], place, rtol=0, atol=2e-9)
    assert region.sizes[0] == pytest.approx(size, rel=1e-12)
    assert region.size_unit == ("pixel" if "p)" in line else "arcsec")


def test_a_global_property_excludes_unless_a_region_says_otherwise():
    text = "global include=0\nimage\ncircle(1,1,1)\n+circle(1,1,1)\ncircle(1,1,1) # include=1"
    assert [region.include for region in parse_regions(text)] == [False, True, True]


def test_what_ds9_writes_as_a_comment_is_no_region():
    text = "image\n# text(10,10) text={hello}\n# compass(1,2,3) compass=fk5\ncircle(5,5,2)"
    assert len(parse_regions(text)) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("panda(1,2,0,360,4,1,2,3)", "'panda' cannot be used as an area"),
        ("circle(1,2)", "circle has 2 numbers"),
        ("circle(1,2,x)", "cannot be read: could not convert"),
        ("circle(1,2,-3)", "sizes are (-3.0,)"),
        ("ellipse(1,2,3,4,5,6,7)", "elliptical rings"),
        ("polygon(1,2,3)", "polygon has 3 numbers"),
        ("polygon(1,2,3,4)", "a polygon has 2 points"),
        ("annulus(1,2,5,3)", "expected the inner one first"),
        ('box(1,2,3p,4",0)', "mixes pixels and angles"),
        ("circle(1,nan,3)", "finite"),
        ("1234", "is no region"),
    ],
)
def test_what_cannot_be_read_names_its_line(tmp_path, line, message):
    path = tmp_path / "bad.reg"
    path.write_text(f"# Region file format\nimage\n{line}\n")
    with pytest.raises(FileFormatError, match=re.escape(message)) as error:
        read_regions(path)
    assert error.value.field == "line 3"
    assert error.value.source == str(path)


@pytest.mark.parametrize("frame", ["physical", "fk4", "ecliptic"])
def test_unknown_frames_are_refused(frame):
    with pytest.raises(FileFormatError, match=f"frame {frame}"):
        parse_regions(f"{frame}\ncircle(1,2,3)")
    with pytest.raises(FileFormatError, match="before any frame"):
        parse_regions("circle(1,2,3)")


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_regions(tmp_path / "none.reg")
    (tmp_path / "x.reg").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="is no text"):
        read_regions(tmp_path / "x.reg")
    (tmp_path / "plain").write_text("# Region file format: DS9 version 4.1\n")
    assert is_region_file(tmp_path / "plain")
    assert is_region_file("any.reg")
    assert not is_region_file("any.fits")


@pytest.mark.parametrize("frame", ["image", "fk5", "icrs", "galactic"])
def test_what_is_written_is_read_back(tmp_path, frame):
    path = tmp_path / "out.reg"
    unit = "pixel" if frame == "image" else "arcsec"
    place = np.array([[150.1, 2.2]])
    regions = [
        DrawnRegion("circle", frame, place, (3.25,), unit, text="a {b}"),
        DrawnRegion("ellipse", frame, place, (3.0, 1.0 / 3.0), unit, 12.5, include=False),
        DrawnRegion("box", frame, place, (3.0, 2.0), "pixel", -7.0),
        DrawnRegion("annulus", frame, place, (0.0, 2.0), unit),
        DrawnRegion("polygon", frame, place + np.array([[0, 0], [0, 0.1], [0.1, 0.1]]), text="7"),
        DrawnRegion("point", frame, place),
    ]
    write_regions(regions, path)
    back = read_regions(path)
    for first, second in zip(regions, back, strict=True):
        assert (first.shape, first.frame, first.include, first.text) == (
            second.shape, second.frame, second.include, second.text,
        )  # fmt: skip
        np.testing.assert_allclose(second.points, first.points, atol=1e-6 if frame == "image" else 1e-9)
        np.testing.assert_allclose(second.sizes, first.sizes, rtol=1e-8)
        assert second.angle == pytest.approx(first.angle)
        if first.sizes:
            assert second.size_unit == first.size_unit
    with pytest.raises(InputError, match="exists"):
        write_regions(regions, path)


# --- on pixels -------------------------------------------------------------------------------------------


def test_shapes_in_pixels_follow_their_definition():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    circle, box, ellipse, inner, _, polygon, point = parse_regions(EVERYTHING)
    none = (None, SHAPE)
    np.testing.assert_array_equal(region_mask([circle], none), np.hypot(x - 19, y - 29) < 8.5)
    turn = np.radians(30)
    along = (x - 21.5) * np.cos(turn) + (y - 29) * np.sin(turn)
    across = (y - 29) * np.cos(turn) - (x - 21.5) * np.sin(turn)
    np.testing.assert_array_equal(~region_mask([box], none), (abs(along) < 2) & (abs(across) < 3))
    turn = np.radians(40)
    along = (x - 54.25) * np.cos(turn) + (y - 24) * np.sin(turn)
    across = (y - 24) * np.cos(turn) - (x - 54.25) * np.sin(turn)
    np.testing.assert_array_equal(region_mask([ellipse], none), (along / 14) ** 2 + (across / 6) ** 2 < 1)
    distance = np.hypot(x - 39, y - 39)
    np.testing.assert_array_equal(region_mask([inner], none), (distance >= 5) & (distance < 9))
    np.testing.assert_array_equal(region_mask([polygon], none), naive_polygon(polygon.points, SHAPE))
    assert np.argwhere(region_mask([point], none)).tolist() == [[3, 2]]


def test_excluded_regions_are_taken_out_of_all():
    regions = parse_regions(EVERYTHING)
    whole = region_mask([region for region in regions if region.include], (None, SHAPE))
    out = ~region_mask([regions[1]], (None, SHAPE))
    np.testing.assert_array_equal(region_mask(regions, (None, SHAPE)), whole & ~out)
    assert region_mask(parse_regions("image;-circle(5,5,2)"), (None, SHAPE)).sum() == SHAPE[0] * SHAPE[1] - 9


@pytest.mark.parametrize(("angle", "mirrored"), [(0.0, False), (35.0, False), (-100.0, True)])
def test_sizes_and_angles_on_the_sky(angle, mirrored):
    """A pixel is inside where its offsets on the sky, west and north, are inside."""
    wcs = grid(angle, mirrored=mirrored)
    centre = SkyCoord(150.1 * u.deg, 2.2 * u.deg)
    text = 'icrs\nellipse(150.1,2.2,12",5",25)\nbox(150.1,2.2,14",4",-60)\ncircle(150.1,2.2,7")'
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    east, north = centre.spherical_offsets_to(SkyCoord.from_pixel(x, y, wcs))
    west, north = -east.arcsec, north.arcsec
    expected = []
    for turn, inside in (
        (25.0, lambda a, b: (a / 12) ** 2 + (b / 5) ** 2 < 1),
        (-60.0, lambda a, b: (abs(a) < 7) & (abs(b) < 2)),
        (0.0, lambda a, b: np.hypot(a, b) < 7),
    ):
        cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        expected.append(inside(west * cosine + north * sine, north * cosine - west * sine))
    for region, mask in zip(parse_regions(text), expected, strict=True):
        np.testing.assert_array_equal(region_mask([region], (wcs, SHAPE)), mask)


def test_frames_agree(rng):
    """The same circle and polygon in three frames cover the same pixels, on an equatorial and a galactic grid."""
    for wcs in (grid(20.0), grid(20.0, frame="G")):
        middle = SkyCoord.from_pixel(41.3, 28.7, wcs)
        corners = SkyCoord.from_pixel(np.array([10.2, 70.1, 40.3]), np.array([5.2, 8.3, 50.6]), wcs)
        masks = []
        for frame in ("fk5", "icrs", "galactic"):
            places = [item.transform_to(frame).spherical for item in (middle, corners)]
            points = [np.column_stack([np.atleast_1d(p.lon.deg), np.atleast_1d(p.lat.deg)]) for p in places]
            circle = DrawnRegion("circle", frame, points[0], (6.1,))
            polygon = DrawnRegion("polygon", frame, points[1])
            masks.append([region_mask([item], (wcs, SHAPE)) for item in (circle, polygon)])
        np.testing.assert_array_equal(masks[0], masks[1])
        np.testing.assert_array_equal(masks[0], masks[2])
        assert masks[0][0].sum() > 100


def test_regions_that_share_an_edge_share_no_pixel(rng):
    corners = np.array([[0.0, 0.0], [79.0, 0.0], [79.0, 59.0], [0.0, 59.0]])
    middle = np.array([31.0, 22.0])
    parts = [
        region_mask([DrawnRegion("polygon", "image", [corners[i - 1], corners[i], middle])], (None, SHAPE))
        for i in range(4)
    ]
    whole = region_mask([DrawnRegion("polygon", "image", corners)], (None, SHAPE))
    np.testing.assert_array_equal(np.sum(parts, axis=0), whole)


def test_regions_far_from_a_distorted_image_cover_nothing():
    """The distortion is a polynomial that runs away there; the places near by are not lost with those."""
    text = 'icrs\ncircle(233.1,27.8,9")\ncircle(53.0948,-27.8311,1.5")\ncircle(55.5,-26.1,3")'
    wcs = sip_wcs()
    x, y = wcs.all_world2pix(53.0948, -27.8311, 0)
    wcs.wcs.crpix -= [float(x) - 40, float(y) - 30]
    wcs.sip = type(wcs.sip)(wcs.sip.a, wcs.sip.b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    labels = label_regions(parse_regions(text), (wcs, SHAPE))
    assert labels.meta["empty"] == [1, 3]
    assert np.argwhere(labels.labels == 2).mean(axis=0) == pytest.approx([30.0, 40.0], abs=0.5)


def test_regions_outside_cover_nothing_and_sizes_convert():
    wcs = grid()
    far = parse_regions('icrs;circle(10,80,3")')
    outside = parse_regions("image\ncircle(-50,20,8)\npoint(500,2)\npolygon(-9,-9,-5,-9,-5,-2)")
    assert not region_mask(outside, (wcs, SHAPE)).any()
    assert not region_mask(far, (wcs, SHAPE)).any()
    pixels, arcsec = parse_regions('image\ncircle(40.5,30.5,10)\ncircle(40.5,30.5,5")')
    on_sky = parse_regions("icrs;circle(150.1,2.2,10p)")
    masks = [region_mask([region], (wcs, SHAPE)) for region in (pixels, arcsec, *on_sky)]
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])


def test_a_region_on_the_sky_needs_a_wcs():
    with pytest.raises(InputError, match="needs a WCS"):
        region_mask(parse_regions('icrs;circle(1,2,3")'), (None, SHAPE))


# --- labels ------------------------------------------------------------------------------------------------


def test_labels_count_or_are_the_texts():
    text = "image\ncircle(10,10,4)\ncircle(30,10,4)\n-point(10,10)\ncircle(32,10,4)"
    labels = label_regions(parse_regions(text), (None, SHAPE))
    assert labels.ids.tolist() == [1, 2, 3]
    assert labels.labels[9, 9] == -1
    assert labels.meta["n_overlapping"] > 0
    named = text.replace("4)", "4) # text={%d}") % (7, 3, 7)
    labels = label_regions(parse_regions(named), (None, SHAPE))
    assert labels.ids.tolist() == [3, 7]
    assert labels.labels[9, 31] == labels.labels[9, 8] == 7
    gone = label_regions(parse_regions("image\ncircle(900,10,4)\ncircle(30,10,4)"), (None, SHAPE))
    assert gone.meta["empty"] == [1]
    with pytest.raises(InputError, match="no region to label"):
        label_regions(parse_regions("image\n-circle(1,1,1)"), (None, SHAPE))


def test_labels_go_into_sums():
    data = np.ones(SHAPE)
    image = sl.Image(data, data, None, "ct", grid())
    labels = label_regions(parse_regions("image\ncircle(30,30,9.5)"), image)
    table = sl.imaging.sum_regions(image, labels)
    area = circle_overlap(SHAPE, 29.0, 29.0, 9.5).sum()
    assert table["flux"][0].value == pytest.approx(area, rel=0.05)  # whole pixels beside exact overlap


# --- outlines ----------------------------------------------------------------------------------------------


def odd_labels(rng):
    """Pieces, holes within holes, pixels that touch at corners only, and the border of the image."""
    labels = rng.integers(-1, 5, (25, 30)).astype(np.int32)
    labels[3:15, 4:20] = 40
    labels[6:12, 8:16] = 41
    labels[8:10, 10:12] = 40
    labels[7, 9] = labels[8, 8] = 40
    return labels


@pytest.mark.parametrize("frame", ["image", "icrs", "galactic"])
def test_outlines_give_the_labels_back(tmp_path, rng, frame):
    for name, wcs in (("plain", grid(33.0, 0.2)), ("sip", sip_wcs())):
        labels = LabelMap(odd_labels(rng), wcs)
        path = write_regions(outline_regions(labels, frame=frame), tmp_path / f"{name}.reg")
        back = label_regions(read_regions(path), (wcs, labels.shape))
        np.testing.assert_array_equal(back.labels, labels.labels)
        assert back.meta["n_overlapping"] == 0


def test_the_outline_of_a_rectangle_has_four_corners():
    labels = np.full((6, 7), -1, np.int32)
    labels[2:4, 1:5] = 9
    (region,) = outline_regions(LabelMap(labels), frame="image")
    assert region.text == "9"
    assert sorted(map(tuple, region.points)) == [(0.5, 1.5), (0.5, 3.5), (4.5, 1.5), (4.5, 3.5)]
    with pytest.raises(InputError, match="no label"):
        outline_regions(LabelMap(np.full((3, 3), -1)))
    with pytest.raises(InputError, match="WCS"):
        outline_regions(LabelMap(labels))


def test_bins_of_a_cube_go_out_and_come_back():
    bins = six_bins()
    back = label_regions(outline_regions(bins), (bins.wcs, bins.shape))
    np.testing.assert_array_equal(back.labels, np.maximum(bins.labels, -1))


def test_a_catalogue_becomes_circles():
    table = QTable({"RA": [10.0, 11.0] * u.deg, "Dec": [1.0, 2.0] * u.deg, "radius": [0.05, 0.1] * u.arcmin})
    table["name"] = ["a", "b"]
    regions = aperture_regions(table)
    assert [region.sizes for region in regions] == [(3.0,), (6.0,)]
    assert [region.text for region in regions] == ["a", "b"]
    assert regions[0].frame == "icrs"
    pixels = aperture_regions(QTable({"x": [4.0], "y": [5.0]}), radius=3.0)
    assert (pixels[0].frame, pixels[0].size_unit, pixels[0].sizes) == ("image", "pixel", (3.0,))
    with pytest.raises(InputError, match="no radius"):
        aperture_regions(QTable({"x": [4.0], "y": [5.0]}))
    with pytest.raises(InputError, match="no places"):
        aperture_regions(QTable({"a": [4.0]}))


# --- beside the package regions ------------------------------------------------------------------------------


def test_the_package_regions_reads_and_paints_the_same(tmp_path):
    regions = pytest.importorskip("regions")
    text = (
        'icrs\ncircle(150.101,2.2005,7.3")\nellipse(150.0985,2.1992,11.2",5.1",25)\nbox(150.1004,2.2,13.3",4.7",-60)\n'
        'annulus(150.1,2.2003,4.1",9.7")\npolygon(150.1031,2.1971,150.0972,2.1983,150.1002,2.2027)\n'
        "image\ncircle(20.2,30.1,8.4)\nellipse(55.3,25.2,14.1,6.2,40)\nbox(30.1,40.2,9.3,4.4,15)\n"
    )
    path = tmp_path / "peer.reg"
    write_regions(parse_regions(text), path)
    wcs = tan_wcs(12.0, 0.5)
    wcs.wcs.crval, wcs.wcs.crpix = [150.1, 2.2], [40.5, 30.5]
    theirs = regions.Regions.read(path, format="ds9")
    ours = read_regions(path)
    assert len(theirs) == len(ours)
    for their, our in zip(theirs, ours, strict=True):
        pixel = their.to_pixel(wcs) if hasattr(their, "to_pixel") else their
        painted = pixel.to_mask(mode="center").to_image(SHAPE).astype(bool)
        difference = painted ^ region_mask([our], (wcs, SHAPE))
        # They turn sizes into pixels by the scale towards north; a pixel on the very edge may differ.
        assert difference.sum() <= 1, our.shape
        assert painted.sum() > 20
