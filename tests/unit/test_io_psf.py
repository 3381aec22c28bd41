"""Point-spread functions read from images."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.core.psf import square_matrix
from skyloom.errors import FileFormatError, InputError
from skyloom.io import read_psf
from tests.inputs.io_objects import make_image, tan_wcs

ARRAY = sl.GaussianPSF(0.2).render(square_matrix(0.06), size=21)


def test_psf_of_an_image_with_a_grid(tmp_path):
    array = ARRAY.copy()
    array[0, 0] = np.nan
    fits.PrimaryHDU(1000 * array, tan_wcs(25.0).to_header()).writeto(tmp_path / "psf.fits")
    psf = read_psf(tmp_path / "psf.fits")
    assert psf.array.sum() == pytest.approx(1.0)
    assert psf.pixel_scale == pytest.approx(0.06)
    np.testing.assert_allclose(psf.array, np.nan_to_num(array) / np.nansum(array), atol=1e-15)


def test_pixel_scale_where_there_is_no_grid(tmp_path):
    fits.PrimaryHDU(ARRAY).writeto(tmp_path / "psf.fits")
    with pytest.raises(
        InputError, match=r"psf\.fits: the header does not say how large the pixels are; pass"
    ):
        read_psf(tmp_path / "psf.fits")
    assert read_psf(tmp_path / "psf.fits", pixel_scale=0.03).pixel_scale == pytest.approx(0.03)


@pytest.mark.parametrize("array", [ARRAY[:-1], ARRAY[:-1, :-1], np.roll(ARRAY, 1, axis=0)])
def test_what_is_not_centred_is_refused(array, tmp_path):
    fits.PrimaryHDU(array).writeto(tmp_path / "psf.fits")
    with pytest.raises(InputError, match=r"odd square .*measure_psf"):
        read_psf(tmp_path / "psf.fits", pixel_scale=0.03)


def test_the_psf_that_an_image_of_ours_carries(tmp_path, rng):
    image = make_image(rng, psf=sl.SampledPSF(ARRAY, square_matrix(0.06)), full=False)
    sl.write(image, tmp_path / "image.fits")
    np.testing.assert_array_equal(read_psf(tmp_path / "image.fits", pixel_scale=0.06).array, image.psf.array)


def test_files_without_an_image(tmp_path):
    fits.PrimaryHDU().writeto(tmp_path / "psf.fits")
    with pytest.raises(FileFormatError, match="no two-dimensional image"):
        read_psf(tmp_path / "psf.fits")
