"""Registration of real stamps: neighbouring bands of the Ultra Deep Field lie on each other to a tenth of a pixel."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from skyloom.core.image import Image
from skyloom.imaging.grids.register import register


def stamp(folder, galaxy, band):
    data = fits.getdata(folder / f"{galaxy}_60mas_{band}_sci.fits").astype(np.float32)
    weight = fits.getdata(folder / f"{galaxy}_60mas_{band}_wht.fits").astype(np.float32)
    header = fits.getheader(folder / f"{galaxy}_60mas_{band}_sci.fits")
    mask = ~(weight > 0) | ~np.isfinite(data)
    return Image(data, 1.0 / np.where(mask, 1.0, weight), mask, "electron/s", WCS(header))


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")  # old date keywords in these headers
@pytest.mark.parametrize("galaxy", [3, 15, 912, 919])
def test_neighbouring_bands_agree(data_dir, galaxy):
    folder = data_dir / "hst_udf" / "stamps"
    first, second = stamp(folder, galaxy, "f775w"), stamp(folder, galaxy, "f814w")
    found = register(second, first)
    assert np.hypot(found.shift_x, found.shift_y) < 0.15
    assert found.agreement > 0.97
    back = register(first, second)
    sigma = np.hypot(found.shift_error, back.shift_error)
    assert abs(found.shift_x + back.shift_x) < 3 * sigma[0]
    assert abs(found.shift_y + back.shift_y) < 3 * sigma[1]
