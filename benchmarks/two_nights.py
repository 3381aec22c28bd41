"""Two mock nights of one field, whose difference is known: pulls of it at every resolution of a store."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHAPE = (172, 237)
N_LEVELS = 5
# How many pixels of a level count as one in the scatter of their squares: the sum of the squared correlation.
SHARED = {0.0: (1.0,) * N_LEVELS, 0.8: (4.1, 1.8, 1.3, 1.2, 1.1)}


def level_pulls(correlation: float, n_draws: int) -> list[NDArray[np.float64]]:
    """Return the pulls of (first - second) less the true difference, an array for each level."""
    from skyloom.mock.sdss.field import sdss_field
    from skyloom.mock.sdss.frames import EPOCHS, observe_frame
    from skyloom.store.levels.images import image_levels

    field = sdss_field(4, shape=SHAPE, n_stars=6, n_galaxies=3, spiral=False)
    truth = [observe_frame(field, epoch, "r", SHAPE, seed=0).truth for epoch in EPOCHS]
    pulls: list[list[NDArray[np.float64]]] = [[] for _ in range(N_LEVELS)]
    for draw in range(n_draws):
        both = []
        for epoch, light in zip(EPOCHS, truth, strict=True):
            seed = np.random.default_rng([draw, epoch.run])
            image = observe_frame(
                field, epoch, "r", SHAPE, truth=light, correlation=correlation, n_dead=300, seed=seed
            ).image
            noise_free = image.evolve(data=np.where(image.mask, np.nan, light).astype(np.float32))
            both.append([image_levels(item, N_LEVELS) for item in (image, noise_free)])
        for z in range(N_LEVELS):
            (one, true_one), (two, true_two) = ((item[z].subject for item in pair) for pair in both)
            noise = (one.data - true_one.data) - (two.data - true_two.data)
            good = ~(one.mask | two.mask)
            pulls[z].append((noise / np.sqrt(one.variance + two.variance))[good].astype(float))
    return [np.concatenate(level) for level in pulls]
