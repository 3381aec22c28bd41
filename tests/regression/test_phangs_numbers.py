"""Numbers of PHANGS-HST by Skyloom's own code: pixel areas, pivot wavelengths, widths, zero points."""

from __future__ import annotations

import csv
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from skyloom.core.bandpass import Bandpass, HeaderWidth, photbw_width
from skyloom.core.image import Image
from skyloom.errors import AssumptionWarning
from skyloom.imaging.measure.units import FLUX_DENSITY, convert_unit
from skyloom.io import read_bandpass
from skyloom.io.formats.headers import parse_bunit
from skyloom.io.hst import hst_meta

pytestmark = pytest.mark.data
HST_PIXEL, MUSE_PIXEL = 0.03962, 0.2
# (camera, filter): total throughput of SVO, cut off near the band; pyphot's over all wavelengths; and the rectangular
# width in A (that of F657N as in the WFC3 Instrument Handbook; the others as both curves have it).
CURVES = {
    ("WFC3", "F657N"): ("HST_WFC3_UVIS1.F657N.dat", "hst_wfc3_f657n.csv", 121.0),
    ("WFC3", "F658N"): ("HST_WFC3_UVIS1.F658N.dat", "hst_wfc3_f658n.csv", 27.5),
    ("ACS", "F658N"): ("HST_ACS_WFC.F658N.dat", "hst_acs_wfc_f658n.csv", 75.0),
}


@dataclass(frozen=True)
class Row:
    """One header beside the curves of its filter."""

    name: str
    key: tuple[str, str]
    header: fits.Header
    total: Bandpass
    full: Bandpass

    @property
    def width(self) -> HeaderWidth:
        return photbw_width(self.header["PHOTBW"], self.full)

    def __str__(self) -> str:
        return (
            f"{self.name:<32}{self.header['PHOTPLAM']:10.2f}{self.total.pivot:10.2f}{self.header['PHOTBW']:9.2f}"
            f"{self.full.rms_width:9.2f}{self.total.rms_width:9.2f}{self.total.rectangular_width:9.2f}"
            f"{CURVES[self.key][2]:9.1f}  {self.width.kind}"
        )


@pytest.fixture(scope="module")
def rows(data_dir: Path) -> list[Row]:
    """All 16 headers."""
    curves = {}
    with warnings.catch_warnings():
        # Two of the full curves are bare filters, which reading says; here they serve for widths only.
        warnings.simplefilter("ignore", AssumptionWarning)
        for key, (total, full, _) in CURVES.items():
            curves[key] = (
                read_bandpass(data_dir / "phangs_hst" / "filters" / total),
                read_bandpass(data_dir / "filters" / "pyphot_csv" / full),
            )
    found = []
    for path in sorted((data_dir / "phangs_hst" / "headers").glob("*.txt")):
        header = fits.Header.fromstring(path.read_text())
        band = str(header.get("FILTER", header.get("FILTER1"))).strip()
        key = (str(header["INSTRUME"]).strip(), band)
        found.append(Row(path.name.replace("_exp_drc_sciheader.txt", ""), key, header, *curves[key]))
    return found


def table(rows: list[Row]) -> str:
    title = (
        "header                            PHOTPLAM     pivot   PHOTBW rms(full) rms(cut)  rectang. expected"
    )
    return "\n".join(["", title, *map(str, rows)])


# ----------------------------------------------------------------------------------------------------- pixel areas


def offset_per_pixel(wcs: WCS, shape: tuple[int, int]) -> float:
    """An offset in surface brightness, per pixel, by the unit code."""
    image = Image(np.full(shape, 1.0), np.ones(shape), np.zeros(shape, bool), FLUX_DENSITY, wcs)
    return float(convert_unit(image, "1e-20 erg / (s cm2 AA)").data[shape[0] // 2, shape[1] // 2])


def square(header: fits.Header, scale: float | None = None) -> WCS:
    """The WCS of a header in its middle, with its own pixels or square ones of ``scale`` arcsec."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [header["CTYPE1"], header["CTYPE2"]]
    wcs.wcs.crval = [header["CRVAL1"], header["CRVAL2"]]
    wcs.wcs.crpix = [5.0, 5.0]
    matrix = [[header["CD1_1"], header["CD1_2"]], [header["CD2_1"], header["CD2_2"]]]
    wcs.wcs.cd = matrix if scale is None else np.diag([-scale / 3600, scale / 3600])
    return wcs


def test_offsets_scale_with_the_pixel_areas(rows: list[Row], data_dir: Path) -> None:
    """offset_lowres / offset_highres = 25.482, in every row of the published table and from the headers' own WCS.

    The table's offsets were multiplied with (0.03962 / 0.2)^2, so they agree to the rounding of doubles; the areas
    come from coordinates on the sphere, which have 1e-8 of a pixel.
    """
    assert len(rows) == 16
    by_code = []
    for row in rows:
        low, high = square(row.header, MUSE_PIXEL), square(row.header)
        by_code.append(offset_per_pixel(low, (9, 9)) / offset_per_pixel(high, (9, 9)))
    np.testing.assert_allclose(by_code, (MUSE_PIXEL / HST_PIXEL) ** 2, rtol=1e-7)
    assert round(by_code[0], 3) == 25.482
    with (data_dir / "phangs_hst" / "tabs" / "fit_table.csv").open() as file:
        published = [
            float(line["intercept"]) / float(line["intercept_scaled"]) for line in csv.DictReader(file)
        ]
    assert len(published) == 63
    np.testing.assert_allclose(published, by_code[0], rtol=1e-7)


# ------------------------------------------------------------------------------------------- wavelengths and widths


def test_pivots_agree_with_photplam(rows: list[Row]) -> None:
    """ACS and F657N to 0.02 A. F658N of UVIS is 28 A wide: half a per cent of its light leaks in far from the band

    (PHOTBW says so), which the curve of SVO, cut off at 6559-6612 A, does not hold; a leak of share e at l moves the
    pivot by e l0 (l / l0 - l0 / l) / 2, so by up to some A. 2 A it is.
    """
    for row in rows:
        tolerance = 2.0 if row.key == ("WFC3", "F658N") else 0.02
        assert row.total.pivot == pytest.approx(row.header["PHOTPLAM"], abs=tolerance), table(rows)


def test_rectangular_widths_agree(rows: list[Row]) -> None:
    """To 0.2 A; the bare filter's and the total throughput's agree, as detectors are even over a narrow band."""
    for row in rows:
        assert row.total.rectangular_width == pytest.approx(CURVES[row.key][2], abs=0.2), table(rows)
        assert row.full.rectangular_width == pytest.approx(row.total.rectangular_width, rel=0.004), table(
            rows
        )


def test_photbw_is_recognised_as_the_rms_width(rows: list[Row]) -> None:
    """In all 16 headers, by curves over all wavelengths.

    ACS, whose curve is the total throughput, to 2 %. Those of WFC3 are bare filters: without the detector, which dims
    far wavelengths more, their leaks count too much, up to 11 % in the width. Never the rectangular width: PHOTBW is
    a third of it for F657N, half for F658N of ACS, and five times that for F658N of UVIS.
    """
    for row in rows:
        assert row.width.kind == "rms", table(rows)
        assert row.header["PHOTBW"] == pytest.approx(
            row.full.rms_width, rel=0.02 if row.key[0] == "ACS" else 0.12
        )
        cut = photbw_width(row.header["PHOTBW"], row.total)
        # Cut off near the band, only that of F657N still tells; the others lack the leak, and none is mistaken.
        assert cut.kind == ("rms" if row.key[1] == "F657N" else "neither"), table(rows)
        assert cut.leak > 0
    ratios = {row.key: row.header["PHOTBW"] / row.total.rectangular_width for row in rows}
    assert ratios["WFC3", "F657N"] == pytest.approx(0.34, abs=0.01)
    assert ratios["WFC3", "F658N"] == pytest.approx(5.4, abs=0.1)
    assert ratios["ACS", "F658N"] == pytest.approx(0.49, abs=0.01)


def test_bare_filters_are_announced_and_too_transparent(rows: list[Row], data_dir: Path) -> None:
    """Right for a width, wrong for a zero point: the bare filter lets 3.6 times as much through as the telescope."""
    path = data_dir / "filters" / "pyphot_csv" / "hst_wfc3_f657n.csv"
    with pytest.warns(AssumptionWarning, match="bare filter"):
        bare = read_bandpass(path)
    total = next(row.total for row in rows if row.key == ("WFC3", "F657N"))
    assert bare.throughput.max() / total.throughput.max() == pytest.approx(3.6, abs=0.1)
    assert bare.pivot == pytest.approx(total.pivot, abs=0.5)


# ------------------------------------------------------------------------------------------------------ zero points


def test_photfnu_follows_from_photflam_by_the_unit_code(rows: list[Row]) -> None:
    """PHOTFNU (Jy s / electron) of the headers of WFC3 is one e/s in Jy, of the two chips' mean.

    PHOTFLAM is that of chip 1, to which the other was scaled (FLUXCORR); PHOTFNU is the mean of both, which differ by
    0.06 % in F657N and 1.2 % in F658N.
    """
    checked = 0
    for row in rows:
        if "PHOTFNU" not in row.header:
            continue
        shape = (3, 3)
        image = Image(
            np.ones(shape, np.float32),
            np.ones(shape, np.float32),
            np.zeros(shape, bool),
            parse_bunit(row.header["BUNIT"]),
            square(row.header),
            meta=hst_meta(dict(row.header), dict(row.header)),
        )
        assert image.meta["photflam"] == pytest.approx(row.header["PHTFLAM1"], rel=1e-6)
        mean = (row.header["PHTFLAM1"] + row.header["PHTFLAM2"]) / 2
        jansky = float(convert_unit(image, "Jy", photflam=mean).data[1, 1])
        assert jansky == pytest.approx(row.header["PHOTFNU"], rel=1e-6), row.name
        off = float(convert_unit(image, "Jy").data[1, 1]) / row.header["PHOTFNU"] - 1
        assert abs(off) < (0.007 if row.key[1] == "F658N" else 0.003), row.name
        checked += 1
    assert checked >= 12


def test_zero_points_lead_to_the_same_photflam(rows: list[Row]) -> None:
    """As without PHOTFLAM: from the curve's pivot and the zero point -2.5 lg(PHOTFLAM) - 5 lg(PHOTPLAM) - 2.408.

    The pivot is off by 2.5e-4 at most, so PHOTFLAM by 5e-4; the constant -2.408 is rounded to 5e-4 mag.
    """
    for row in rows:
        flam, pivot = row.header["PHOTFLAM"], row.header["PHOTPLAM"]
        zero_point = -2.5 * np.log10(flam) - 5 * np.log10(pivot) - 2.408
        assert row.total.photflam(zero_point) == pytest.approx(flam, rel=1.1e-3), row.name
