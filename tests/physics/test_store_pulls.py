"""Two nights of one field, from the files to the last resolution: their difference scatters as its error says."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

import skyloom as sl
from skyloom.mock.sdss.field import sdss_field
from skyloom.mock.sdss.files import write_frame
from skyloom.mock.sdss.frames import EPOCHS, observe_frame
from skyloom.mock.sdss.records import frame_name
from skyloom.store.levels.images import image_levels

SHAPE = (172, 237)
N_LEVELS = 5
N_DRAWS = 36


@lru_cache(maxsize=1)
def field():
    return sdss_field(4, shape=SHAPE, n_stars=6, n_galaxies=3, spiral=False)


@lru_cache(maxsize=8)
def truth(epoch, band, sip=False):
    """Light without noise; it is painted once for all draws."""
    return observe_frame(field(), EPOCHS[epoch], band, SHAPE, sip=sip, seed=0).truth


def frame(epoch, band, seed, correlation=0.0, n_dead=0):
    rng = np.random.default_rng([seed, epoch, ord(band)])
    return observe_frame(
        field(), EPOCHS[epoch], band, SHAPE, truth=truth(epoch, band), correlation=correlation,
        n_dead=n_dead, seed=rng,
    )  # fmt: skip


def levels_and_truth(image, light):
    """Every resolution, and the same of the light without noise (same mask, same variance)."""
    noise_free = image.evolve(data=np.where(image.mask, np.nan, light).astype(np.float32))
    for level, true in zip(image_levels(image, N_LEVELS), image_levels(noise_free, N_LEVELS), strict=True):
        yield level.subject, true.subject


def difference_pulls(images, band):
    """Pulls of (first - second) - (true first - true second) at every level."""
    both = [list(levels_and_truth(image, truth(epoch, band))) for epoch, image in enumerate(images)]
    pulls = []
    for (first, true_first), (second, true_second) in zip(*both, strict=True):
        good = ~(first.mask | second.mask)
        noise = (first.data - true_first.data) - (second.data - true_second.data)
        pulls.append((noise / np.sqrt(first.variance + second.variance))[good].astype(float))
    return pulls


def check(draws, spread):
    """``spread``: how many pixels of a level count as one in the scatter of their squares."""
    for z, level in enumerate(zip(*draws, strict=True)):
        pull = np.concatenate(level)
        independent = pull.size / spread[z]
        assert 3 / np.sqrt(2 * independent) < 0.03, "not enough draws for this tolerance"
        assert pull.std() == pytest.approx(1.0, abs=0.03), z


@pytest.mark.parametrize("n_dead", [0, 2000], ids=["whole", "masked"])
def test_difference_of_two_nights_with_white_noise(n_dead):
    draws = [
        difference_pulls([frame(epoch, "r", seed, n_dead=n_dead).image for epoch in (0, 1)], "r")
        for seed in range(N_DRAWS)
    ]
    check(draws, [1.0] * N_LEVELS)
    white = np.concatenate([draw[0] for draw in draws])
    assert abs(white.mean()) < 3 / np.sqrt(white.size)


def test_difference_of_two_nights_with_correlated_noise():
    draws = [
        difference_pulls([frame(epoch, "g", seed, correlation=0.8).image for epoch in (0, 1)], "g")
        for seed in range(N_DRAWS)
    ]
    # The sum of the squared correlation at every level.
    check(draws, [4.1, 1.8, 1.3, 1.2, 1.1])


@pytest.mark.parametrize("band", ["u", "r", "z"])
def test_difference_of_two_nights_read_from_files(band, tmp_path):
    """The reader knows the counted electrons only, of which there are few in u."""
    draws = []
    for seed in range(8):
        images = [
            sl.read(write_frame(tmp_path / frame_name(EPOCHS[epoch], band), frame(epoch, band, seed)))
            for epoch in (0, 1)
        ]
        draws.append(difference_pulls(images, band))
    for z, level in enumerate(zip(*draws, strict=True)):
        pull = np.concatenate(level)
        assert pull.std() == pytest.approx(1.0, abs=0.03 + 2 / np.sqrt(2 * pull.size)), z


def test_no_light_is_lost_at_any_level():
    observation = frame(0, "i", 3, n_dead=500)
    image = observation.image
    total = np.sum(image.data[~image.mask], dtype=float)
    for z, level in enumerate(image_levels(image, N_LEVELS)):
        subject, good = level.subject, ~level.subject.mask
        # A value stands for a block of 4^z pixels; n_good of them were usable.
        light = np.sum(subject.data[good].astype(float) * level.n_good[good] / 4.0**z)
        assert light == pytest.approx(total, rel=1e-6), z


@pytest.mark.parametrize("sip", [False, True])
def test_places_agree_at_every_level(sip):
    image = observe_frame(field(), EPOCHS[1], "z", SHAPE, truth=truth(1, "z"), sip=sip, seed=1).image
    rng = np.random.default_rng(5)
    for z, level in enumerate(image_levels(image, N_LEVELS)):
        side = 2**z
        places = rng.uniform(0, min(level.subject.shape) - 1, (50, 2))
        fine = (places + 0.5) * side - 0.5
        sky, expected = level.subject.wcs.all_pix2world(places, 0), image.wcs.all_pix2world(fine, 0)
        assert np.abs(sky - expected).max() * 3600 < 1e-3, z
