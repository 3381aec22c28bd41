"""Template libraries: checks, and the round trip through a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from skyloom.core.provenance import step
from skyloom.core.templates import TemplateLibrary
from skyloom.errors import FileFormatError, InputError, ShapeError
from skyloom.io.templates.library import read_templates, write_templates


def library(**changes: object) -> TemplateLibrary:
    values: dict = {
        "wave": np.linspace(3500.0, 7000.0, 50),
        "medium": "air",
        "flux": np.random.default_rng(0).random((3, 50)),
        "age": [0.1, 1.0, 10.0],
        "metallicity": [0.0, -0.4, 0.2],
        "fwhm": 2.5,
        "name": "small",
        "meta": {"unit": "Lsun / (Msun AA)", "imf": {"name": "Chabrier", "slope": 1.3}},
        "history": (step("make", width=3.0), step("cut", limits=[1, 2])),
    }
    return TemplateLibrary(**(values | changes))


def test_a_library_comes_back_from_its_file(tmp_path: Path) -> None:
    first = library()
    write_templates(first, tmp_path / "small.fits")
    again = read_templates(tmp_path / "small.fits")
    for name in ("wave", "flux", "age", "metallicity", "fwhm"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    assert (again.medium, again.name, again.meta, again.history) == (
        first.medium,
        first.name,
        first.meta,
        first.history,
    )
    with fits.open(tmp_path / "small.fits", checksum=True) as hdus:
        hdus.verify("exception")


def test_a_library_without_notes_comes_back(tmp_path: Path) -> None:
    write_templates(library(meta={}, history=()), tmp_path / "bare.fits")
    again = read_templates(tmp_path / "bare.fits")
    assert again.meta == {}
    assert again.history == ()


def test_other_files_are_refused(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.zeros((2, 2))).writeto(tmp_path / "image.fits")
    (tmp_path / "text.fits").write_text("no fits")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros(2), name="TEMPLATES")]).writeto(
        tmp_path / "other.fits"
    )
    for name in ("image.fits", "text.fits", "other.fits", "absent.fits"):
        with pytest.raises(FileFormatError, match=name):
            read_templates(tmp_path / name)


def test_evolve_and_sigma() -> None:
    first = library()
    second = first.evolve(step("scale", factor=2), flux=2 * first.flux)
    assert len(second.history) == 3
    np.testing.assert_allclose(second.sigma, 2.5 / 2.3548200450309493)
    assert len(first) == 3


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"flux": np.ones((3, 49))}, ShapeError, r"expected \(n, 50\)"),
        ({"age": [1.0, 2.0]}, ShapeError, "age has shape"),
        ({"age": [0.0, 1.0, 2.0]}, InputError, "ages > 0"),
        ({"flux": np.full((3, 50), np.nan)}, InputError, "finite"),
        ({"wave": np.linspace(7000.0, 3500.0, 50)}, InputError, "ascending"),
        ({"medium": "water"}, InputError, "water"),
    ],
)
def test_bad_libraries_are_refused(changes: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        library(**changes)
