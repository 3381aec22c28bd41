"""Cosmic rays: edges, holes, protected pixels, settings and errors."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from skyloom.core.image import Flag, Image
from skyloom.core.psf import GaussianPSF
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.repair import cosmic_rays
from skyloom.imaging.repair.cosmic_rays import remove_cosmic_rays
from skyloom.imaging.repair.local_fill import fill_from_neighbours
from tests.grids import tangent_wcs

N = 80


def sky_image(seed=1, level=2.0, **changes):
    data = np.random.default_rng(seed).normal(level, 1.0, (N, N)).astype(np.float32)
    fields = {"psf": GaussianPSF(0.08)} | changes
    return Image(data, np.ones_like(data), None, "electron / s", tangent_wcs((N, N), 0.04), **fields)


def with_rays(image, *places, electrons=100.0):
    data = image.data.copy()
    for place in places:
        data[place] += electrons
    return image.evolve(data=data)


@pytest.mark.parametrize(
    "place",
    [
        (0, 40), (40, 0), (N - 1, 40), (40, N - 1), (0, 0), (N - 1, N - 1), (1, 1), (40, 40),
        (slice(20, 30), N - 2), (N - 2, slice(20, 30)), (slice(0, 9), 33),
    ],
)  # fmt: skip
def test_rays_are_found_up_to_the_borders(place):
    found = remove_cosmic_rays(with_rays(sky_image(), place))
    assert found.mask[place].all()
    assert found.n_pixels <= np.ones((N, N))[place].size + 3
    assert np.abs(found.image.data[place] - 2.0).max() < 4.0


def test_spikes_of_two_pixels_are_found():
    found = remove_cosmic_rays(
        with_rays(sky_image(), (30, slice(30, 32)), (slice(50, 52), 60), electrons=40.0)
    )
    assert found.mask[30, 30:32].all()
    assert found.mask[50:52, 60].all()
    assert 2 <= found.n_rays <= 4


def test_an_empty_sky_has_none():
    found = [remove_cosmic_rays(sky_image(seed)).n_pixels for seed in range(8)]
    assert np.mean(found) < 1.5
    assert remove_cosmic_rays(sky_image(), threshold=6.0).n_pixels == 0


def test_tiles_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    image = with_rays(sky_image(), *[tuple(place) for place in rng.integers(0, N, (30, 2))])
    whole = remove_cosmic_rays(image).mask
    monkeypatch.setattr(cosmic_rays, "TILE", 31)
    np.testing.assert_array_equal(remove_cosmic_rays(image).mask, whole)


def test_masked_pixels_are_never_rays_and_stay_masked():
    image = with_rays(sky_image(), (slice(30, 35), 30), (50, 50))
    mask = np.zeros((N, N), dtype=bool)
    mask[28:36, 20:40] = True
    mask[60:, :] = True
    hollow = image.evolve(mask=mask, data=np.where(mask, np.nan, image.data))
    found = remove_cosmic_rays(hollow)
    assert found.mask[50, 50]
    assert not (found.mask & mask).any()
    np.testing.assert_array_equal(found.image.mask, mask)
    assert found.n_pixels <= 3


def test_rims_of_holes_in_bright_light_are_no_rays():
    """What fills a hole for the filters must not look like an edge."""
    y, x = np.indices((N, N)) - N / 2
    image = sky_image()
    image = image.evolve(data=image.data + (400 * np.exp(-(x**2 + y**2) / 800)).astype(np.float32))
    mask = np.zeros((N, N), dtype=bool)
    mask[35:45, 10:70] = True
    found = remove_cosmic_rays(image.evolve(mask=mask, data=np.where(mask, 0, image.data)))
    assert found.n_pixels <= 2


def test_a_ray_without_good_neighbours_is_masked():
    mask = np.ones((N, N), dtype=bool)
    mask[40:44, 40:44] = False
    mask[:, 60:] = False
    image = with_rays(sky_image(), (slice(40, 44), slice(40, 44)), electrons=500.0).evolve(mask=mask)
    wanted = np.zeros((N, N), dtype=bool)
    wanted[40:44, 40:44] = True
    fill = fill_from_neighbours(image, wanted, image.valid & ~wanted, sigma=0.5)
    assert not fill.found.any()
    repaired = cosmic_rays._repair(image, wanted, {"fill_sigma": 0.5}).image
    assert repaired.mask[40:44, 40:44].all()


def test_a_point_source_is_no_ray_but_a_spike_is():
    image = sky_image()
    data = image.data.copy()
    for index, flux in enumerate((50.0, 500.0, 5000.0, 50000.0)):
        stamp = image.psf.render(image.pixel_matrix, 15, (0.3 * index - 0.5, 0.1))
        data[33:48, 2 + 20 * index : 17 + 20 * index] += flux * stamp
    variance = image.variance + np.maximum(data, 0) * 0.5
    noisy = data + np.random.default_rng(2).normal(0, np.sqrt(variance - 1))
    star = image.evolve(data=noisy.astype(np.float32), variance=variance.astype(np.float32))
    cores = np.zeros((N, N), dtype=bool)
    cores[38:43] = True
    assert not (remove_cosmic_rays(star).mask & cores).any()
    hit = with_rays(star, (slice(30, 50), 52), electrons=400.0)
    assert remove_cosmic_rays(hit).mask[30:50, 52].all()
    assert remove_cosmic_rays(hit).n_pixels < 30


def test_saturated_and_protected_pixels_are_left_alone():
    image = sky_image()
    data = image.data.copy()
    data[10:70, 40] = 1000.0
    data[38:43, 38:43] = 1000.0
    bled = image.evolve(data=data)
    assert remove_cosmic_rays(bled).mask[10:30, 40].any()
    for found in (
        remove_cosmic_rays(bled, saturation=900.0),
        remove_cosmic_rays(bled, protect=data > 900),
        remove_cosmic_rays(bled.evolve(flags=np.where(data > 900, Flag.NEAR_SATURATED, 0))),
    ):
        assert not found.mask[10:70, 40].any()
    spike = with_rays(image, (20, 20), electrons=5000.0)
    assert remove_cosmic_rays(spike, saturation=900.0).mask[20, 20]


def test_settings_and_counts_are_in_the_history():
    found = remove_cosmic_rays(with_rays(sky_image(), (40, slice(40, 46))))
    last = found.image.history[-1]
    assert last.name == "remove_cosmic_rays"
    assert last.parameters["pixels"] == found.n_pixels
    assert last.parameters["rays"] == found.n_rays >= 1
    assert last.parameters["contrast"] == 2.0
    assert remove_cosmic_rays(sky_image(psf=None)).settings["contrast"] == 5.0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"threshold": 0.0}, "threshold"),
        ({"neighbours": 2.0}, "neighbours"),
        ({"growth": -1.0}, "growth"),
        ({"contrast": -1.0}, "contrast"),
        ({"iterations": 0}, "iterations"),
        ({"exposure": 0.0}, "exposure"),
        ({"gain": np.nan}, "gain"),
        ({"saturation": -5.0}, "saturation"),
        ({"fill_sigma": 0.0}, "fill_sigma"),
    ],
)
def test_bad_settings_are_named(options, field):
    with pytest.raises(InputError) as caught:
        remove_cosmic_rays(sky_image(), **options)
    assert caught.value.field == field


def test_bad_images_are_refused():
    with pytest.raises(InputError, match="all pixels are masked"):
        remove_cosmic_rays(sky_image().evolve(mask=np.ones((N, N), dtype=bool)))
    with pytest.raises(ShapeError, match="protect"):
        remove_cosmic_rays(sky_image(), protect=np.zeros((3, 3), dtype=bool))


def test_a_missing_package_is_named(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("astroscrappy"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="astroscrappy") as caught:
        remove_cosmic_rays(sky_image())
    assert "pip install" in caught.value.remedy


# --- filling single pixels -------------------------------------------------------------------------------


def naive_fill(image, row, column, good, sigma, plane):
    """Weighted least squares with matrices: value, variance of its noise, weighted mean square of the residuals."""
    radius = int(np.ceil(3 * sigma))
    y, x = np.indices(image.shape)
    near = good & (np.hypot(y - row, x - column) <= radius)
    near[row, column] = False
    dy, dx = (y - row)[near], (x - column)[near]
    weight = np.exp(-0.5 * (dy**2 + dx**2) / sigma**2)
    design = np.column_stack([np.ones(dy.size), dx, dy] if plane else [np.ones(dy.size)]).astype(float)
    solve = np.linalg.solve(design.T @ (weight[:, None] * design), design.T * weight)
    rho, reach = image.correlation, image.correlation.shape[0] // 2
    lag_y, lag_x = np.subtract.outer(dy, dy), np.subtract.outer(dx, dx)
    inside = (np.abs(lag_y) <= reach) & (np.abs(lag_x) <= reach)
    rho = np.where(
        inside, rho[np.clip(lag_y, -reach, reach) + reach, np.clip(lag_x, -reach, reach) + reach], 0
    )
    spread = np.sqrt(image.variance[near].astype(float))
    covariance = rho * np.outer(spread, spread)
    values = image.data[near].astype(float)
    residual = values - design @ (solve @ values)
    return solve[0] @ values, solve[0] @ covariance @ solve[0], np.sum(weight * residual**2) / weight.sum()


@pytest.mark.parametrize("plane", [True, False])
def test_fills_agree_with_plain_least_squares(plane):
    rng = np.random.default_rng(8)
    image = sky_image(correlation=np.outer([0.2, 1.0, 0.2], [0.3, 1.0, 0.3]))
    image = image.evolve(variance=rng.uniform(0.5, 2.0, (N, N)).astype(np.float32))
    wanted = rng.random((N, N)) < 0.1
    good = ~wanted & (rng.random((N, N)) < 0.95)
    fill = fill_from_neighbours(image, wanted, good, sigma=1.2, plane=plane)
    inner = np.flatnonzero(
        (fill.rows > 5) & (fill.rows < N - 6) & (fill.columns > 5) & (fill.columns < N - 6)
    )
    assert fill.found.all()
    for index in inner[:40]:
        expected = naive_fill(image, fill.rows[index], fill.columns[index], good, 1.2, plane)
        ours = fill.value[index], fill.noise[index], fill.scatter[index]
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_a_plane_is_filled_exactly():
    y, x = np.indices((N, N))
    image = sky_image().evolve(data=(3.0 + 0.2 * x - 0.1 * y).astype(np.float64))
    wanted = np.random.default_rng(3).random((N, N)) < 0.2
    fill = fill_from_neighbours(image, wanted, ~wanted, sigma=1.0)
    inner = (fill.rows > 3) & (fill.rows < N - 4) & (fill.columns > 3) & (fill.columns < N - 4)
    error = fill.value - image.data[fill.rows, fill.columns]
    assert np.mean(np.abs(error[inner]) < 1e-9) > 0.98  # A few have neighbours on one side only.
    assert np.abs(error).max() < 1.0
