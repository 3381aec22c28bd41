"""A dense cube of the real field of SDSS: its star is as bright as on the frames themselves."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from skyloom.errors import AssumptionWarning
from skyloom.store.dense import DenseCube
from skyloom.store.query import create

pytestmark = pytest.mark.data
STAR = "sdss-3126-54804-0211"
BANDS = "gri"
RADIUS = 4.0
"""arcsec"""


@pytest.fixture(scope="module")
def cube(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    store = create(folder / "sky", levels=3)
    frames = [next((data_dir / "sdss_frames").glob(f"frame-{band}-*")) for band in BANDS]
    store.ingest([*frames, *sorted((data_dir / "sdss_spectra").glob("spec-*"))])
    with pytest.warns(AssumptionWarning, match="no image in u "):
        store.dense_cube(folder / "cube.h5", size=48, bands="ugri", radius=2.0)
    return store, DenseCube(folder / "cube.h5")


def within(image, ra, dec):
    """Pixels whose middle is within the radius of a place."""
    y, x = np.indices(image.shape)
    sky = image.wcs.pixel_to_world(x, y)
    return np.asarray(sky.separation(SkyCoord(ra, dec, unit="deg")).arcsec) < RADIUS


def test_the_star_is_as_bright_as_on_the_frames_at_every_level(cube):
    store, found = cube
    row = list(found.targets["name"]).index(STAR)
    place = found.targets["ra"][row].value, found.targets["dec"][row].value
    assert found[row]["n_exposures"].tolist() == [0, 1, 1, 1]
    for band in BANDS:
        frame = store.cutout(store.images(band=band)["obs_id"][0], place, 48)
        expected = float(frame.data[within(frame, *place)].sum(dtype=float))
        for level, tolerance in ((0, 0.01), (1, 0.03)):
            image = found.image(row, band, level)
            assert not image.mask.any()
            flux = float(image.data[within(image, *place)].sum(dtype=float))
            assert flux == pytest.approx(expected, rel=tolerance), (band, level)


def test_empty_sky_scatters_as_the_errors_say(cube):
    found = cube[1]
    row = list(found.targets["name"]).index(STAR)
    for band in BANDS:
        image = found.image(row, band, 0)
        pull = (image.data / np.sqrt(image.variance)).astype(float)
        spread = 1.4826 * np.median(np.abs(pull - np.median(pull)))
        # The wings of the star and galaxies too faint to be told from the sky are in.
        assert 0.9 < spread < 1.3, (band, spread)


def test_repeated_spectra_are_averaged(cube):
    found = cube[1]
    table = found.targets
    several = np.flatnonzero(table["n_spectra"] > 1)
    assert several.size >= 1
    for row in several:
        sources = found.sources(int(row))
        assert np.count_nonzero(sources["kind"] == "spectrum") == table["n_spectra"][row]
        assert found[int(row)]["spectrum_0_valid"].any()
