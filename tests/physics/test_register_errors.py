"""The quoted error of a registration is the scatter of registrations."""

import numpy as np
import pytest
from tests.grids import tangent_wcs
from tests.unit.test_register import SHAPE, blobs

from skyloom.core.image import Image
from skyloom.core.noise import autocorrelate
from skyloom.imaging.grids.register import INTERPOLATION_ERROR, register

TRIANGLE = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
DRIZZLED = autocorrelate(TRIANGLE) / autocorrelate(TRIANGLE).max()


def drawn_noise(rng, correlated):
    if not correlated:
        return rng.normal(size=SHAPE)
    white = rng.normal(size=(SHAPE[0] + 2, SHAPE[1] + 2))
    smooth = sum(
        TRIANGLE[j, i] * white[j : j + SHAPE[0], i : i + SHAPE[1]] for j in range(3) for i in range(3)
    )
    return smooth / np.sqrt(np.sum(TRIANGLE**2))


@pytest.mark.parametrize("correlated", [pytest.param(False, marks=pytest.mark.long), True])
@pytest.mark.parametrize(
    ("shift", "amplitude", "sigma", "reference_sigma"),
    [((0.5, 0.5), 1.0, 1.0, 1.0), ((3.3, -2.75), 2.0, 1.0, 0.4), ((0.0, 0.2), 1.0, 2.0, 2.0)],
)
def test_pulls_of_the_shift(shift, amplitude, sigma, reference_sigma, correlated):
    rng = np.random.default_rng(8)
    draws, light, moved = 160, blobs(SHAPE), amplitude * blobs(SHAPE, shift=shift) + 5.0
    y = np.indices(SHAPE)[0] / SHAPE[0]
    variance, correlation = sigma**2 * (0.5 + y), DRIZZLED if correlated else None
    other = np.full(SHAPE, reference_sigma**2)
    pulls = []
    for _ in range(draws):
        image = Image(
            moved + np.sqrt(variance) * drawn_noise(rng, correlated),
            variance,
            rng.random(SHAPE) < 0.003,
            "electron/s",
            tangent_wcs(SHAPE),
            correlation=correlation,
        )
        reference = Image(
            light + np.sqrt(other) * drawn_noise(rng, correlated),
            other,
            None,
            "electron/s",
            tangent_wcs(SHAPE),
            correlation=correlation,
        )
        found = register(image, reference)
        # The allowance for interpolation is systematic: it does not scatter.
        error = np.sqrt(np.diag(found.covariance) - INTERPOLATION_ERROR**2)
        pulls.append((np.array([found.shift_x, found.shift_y]) - shift) / error)
        bias = INTERPOLATION_ERROR / error
    pulls = np.array(pulls)
    assert np.all(np.abs(pulls.std(axis=0, ddof=1) - 1.0) < 3.0 / np.sqrt(2 * draws))
    assert np.all(np.abs(pulls.mean(axis=0)) < 3.0 / np.sqrt(draws) + bias)
