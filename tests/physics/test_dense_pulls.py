"""Dense cubes of mock nights and spectra: (stack - truth) scatters as its error says, whatever the number of exposures.

The truth is the observation without noise, through the same ingest and the same stacks. All of that is linear in the
data, and weights follow the variance alone: the stack of the noise is the stack minus the truth. One test makes both.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.inputs.dense import NIGHTS, night, noise_of, store_of

from skyloom.core.spectra import Spectra
from skyloom.store.dense import DenseCube

BANDS = "ugriz"
LEVELS = (0, 1, 2)
SIZE = 108
EXPOSURES = (1, 2, 5)
CENTRE = (38.33, -0.107)
STEP = 0.396 * (SIZE + 3) / 3600
PLACES = [(CENTRE[0], CENTRE[1] + north * STEP) for north in (-0.5, 0.5)]


def time_of(n: int) -> tuple[None, float]:
    """Until the last of ``n`` nights."""
    return None, NIGHTS[n - 1].tai / 86400.0 + 0.02


@pytest.fixture(scope="module", params=[0.0, 0.7], ids=["white", "correlated"])
def cubes(request, tmp_path_factory):
    """Cubes of the noise in 1, 2 and 5 exposures."""
    folder = tmp_path_factory.mktemp("nights")
    frames = {
        f"{epoch.run}-{band}": noise_of(*night(epoch, band, 11, correlation=request.param))
        for epoch in NIGHTS
        for band in BANDS
    }
    store = store_of(folder, frames, levels=3)
    found = {}
    for n in EXPOSURES:
        where = {"time": time_of(n)}
        store.dense_cube(folder / f"{n}.h5", PLACES, size=SIZE, bands=BANDS, levels=LEVELS, where=where)
        found[n] = DenseCube(folder / f"{n}.h5")
    return found


@pytest.mark.parametrize("n", EXPOSURES)
def test_images_scatter_as_their_errors_say(cubes, n):
    batch = next(cubes[n].batches(len(PLACES)))
    assert (batch["n_exposures"] == n).all()
    for level in LEVELS:
        valid = batch[f"image_{level}_valid"]
        assert valid.mean() > 0.95
        pull = (batch[f"image_{level}"] * np.sqrt(batch[f"image_{level}_ivar"]))[valid].astype(float)
        # Neighbours share noise: as many pixels count as one as the sum of the squared correlation.
        correlation = cubes[n].image(0, "r", level).correlation
        independent = pull.size / float(np.sum(correlation**2))
        assert pull.std() == pytest.approx(1.0, abs=max(0.03, 3 / np.sqrt(2 * independent))), level
        assert abs(pull.mean()) < 4 * np.sqrt(abs(float(correlation.sum())) / pull.size)


@pytest.mark.parametrize("n", EXPOSURES)
def test_sums_over_pixels_have_the_errors_that_the_correlation_gives(cubes, n):
    batch = next(cubes[n].batches(len(PLACES)))
    side = 3
    for level in (0, 1):
        noise = batch[f"image_{level}"].astype(float)
        spread = 1 / np.sqrt(np.where(batch[f"image_{level}_valid"], batch[f"image_{level}_ivar"], np.nan))
        pulls, naive = [], []
        for number, band in enumerate(BANDS):
            correlation = cubes[n].image(0, band, level).correlation
            total, expected, alone = windows(noise[:, number], spread[:, number], correlation, side)
            pulls.append(total / np.sqrt(expected))
            naive.append(total / np.sqrt(alone))
        values = np.concatenate(pulls)
        # 3 % for the noise model itself, as for all resampled images.
        assert values.std() == pytest.approx(1.0, abs=0.03 + 3 / np.sqrt(2 * values.size)), level
        if correlation.sum() > 4:
            # What ivar alone would give for sums, where the frames themselves are correlated.
            assert np.concatenate(naive).std() > 1.4


def windows(values, spread, correlation, side):
    """Sums over squares apart from each other, their variances with and without the correlation."""
    middle = correlation.shape[0] // 2
    steps = [slice(3, -3 - side, side + 6)] * 2
    shape = (values.shape[1] - side + 1, values.shape[2] - side + 1)

    def shifted(plane, y, x):
        return plane[:, y : y + shape[0], x : x + shape[1]]

    inside = [(y, x) for y in range(side) for x in range(side)]
    total = sum(shifted(values, *one) for one in inside)
    expected = sum(
        shifted(spread, *one) * shifted(spread, *other)
        * correlation[middle + one[0] - other[0], middle + one[1] - other[1]]
        for one in inside
        for other in inside
    )  # fmt: skip
    alone = sum(shifted(spread, *one) ** 2 for one in inside)
    found = [plane[:, steps[0], steps[1]].ravel() for plane in (total, expected, alone)]
    usable = np.isfinite(found[1])
    return [plane[usable] for plane in found]


def test_the_stack_of_the_noise_is_the_stack_minus_the_truth(tmp_path):
    made: dict[str, dict] = {"noisy": {}, "true": {}, "noise": {}}
    for epoch in NIGHTS[:3]:
        frame, truth = night(epoch, "r", 3)
        for name, image in (("noisy", frame), ("true", truth), ("noise", noise_of(frame, truth))):
            made[name][f"{epoch.run}"] = image
    found = {}
    for name, images in made.items():
        store_of(tmp_path / name, images, levels=2).dense_cube(tmp_path / f"{name}.h5", PLACES[:1])
        found[name] = next(DenseCube(tmp_path / f"{name}.h5").batches(1))
    assert np.nanmax(found["true"]["image_0"]) > 1.0
    for level in (0, 1):
        key = f"image_{level}"
        for plane in ("ivar", "valid"):
            np.testing.assert_array_equal(found["noisy"][f"{key}_{plane}"], found["noise"][f"{key}_{plane}"])
        difference = found["noisy"][key] - found["true"][key]
        np.testing.assert_allclose(
            difference, found["noise"][key], atol=2e-6 * np.abs(found["true"][key]).max()
        )


N_PLACES = 12
N_WAVE = 4700
TAPS = {"white": [1.0], "correlated": [0.5, 1.0, 0.5]}


def spectra_of(rng, taps, n: int, shift: float) -> Spectra:
    """Noise of ``n`` spectra of each place."""
    n_rows = n * N_PLACES
    kernel = np.asarray(taps) / np.linalg.norm(taps)
    white = rng.normal(size=(n_rows, N_WAVE + kernel.size - 1))
    unit = sum(weight * white[:, start : start + N_WAVE] for start, weight in enumerate(kernel))
    # Each spectrum has a depth of its own; the noise doubles along it, and a sky line is in all.
    depth = np.tile([1.0, 0.5, 2.0, 0.8, 1.2][:n], N_PLACES)[:, None]
    line = 1 + 8 * np.exp(-0.5 * ((np.arange(N_WAVE) - N_WAVE // 3) / 2.0) ** 2)
    variance = depth * np.linspace(1.0, 2.0, N_WAVE) * line
    mask = np.zeros(unit.shape, bool)
    mask[:, N_WAVE // 2 : N_WAVE // 2 + 3] = True
    mask[::2, N_WAVE // 4] = True
    wave = 10 ** (1e-4 * (35460 + shift + np.arange(N_WAVE)))
    lags = None if kernel.size == 1 else np.convolve(kernel, kernel[::-1])
    # Thousandths of an arcsec apart, well within the radius.
    meta = {
        "instrument": "spectrograph",
        "ra": [20.0 + 0.01 * place + number * 1e-6 for place in range(N_PLACES) for number in range(n)],
        "dec": [0.5] * n_rows,
    }
    data = unit * np.sqrt(variance)
    return Spectra(data, variance, mask, "1e-17 erg/(s cm2 AA)", wave, "vacuum", correlation=lags, meta=meta)


def sums_of(spectrum: Spectra, width: int):
    """Sums over neighbouring channels, all of them usable, and their variances with the lags of the spectrum."""
    n_wave = spectrum.wave.size
    band, middle = spectrum.correlation, spectrum.correlation.shape[1] // 2
    spread = np.sqrt(np.where(spectrum.mask[0], np.nan, spectrum.variance[0]).astype(float))
    shape = n_wave - width + 1
    total = sum(spectrum.data[0, i : i + shape].astype(float) for i in range(width))
    expected = sum(
        spread[i : i + shape] * spread[j : j + shape] * band[i : i + shape, middle + j - i]
        for i in range(width)
        for j in range(max(0, i - middle), min(width, i + middle + 1))
    )
    total, expected = total[:: width + 2], expected[:: width + 2]
    usable = np.isfinite(expected)
    return total[usable] / np.sqrt(expected[usable])


@pytest.mark.parametrize(("noise", "n"), [("white", 2), *(("correlated", n) for n in EXPOSURES)])
def test_spectra_scatter_as_their_errors_say_at_every_level(noise, n, tmp_path):
    rng = np.random.default_rng([5, n, len(noise)])
    # Shifted by a fraction of a pixel of the common grid, which mixes neighbours; or on its pixels.
    spectra = spectra_of(rng, TAPS[noise], n, 0.37 if noise == "correlated" else 0.0)
    store_of(tmp_path, {"all": spectra}, levels=5).dense_cube(tmp_path / "cube.h5")
    cube = DenseCube(tmp_path / "cube.h5")
    assert len(cube) == N_PLACES
    batch = next(cube.batches(N_PLACES))
    assert (batch["n_spectra"] == n).all()
    for level in range(5):
        valid = batch[f"spectrum_{level}_valid"]
        pull = (batch[f"spectrum_{level}"] * np.sqrt(batch[f"spectrum_{level}_ivar"]))[valid].astype(float)
        lags = cube.spectrum(0, level).correlation[valid[0]]
        independent = pull.size / float(np.mean(np.sum(lags**2, axis=1)))
        # 20 of these are looked at: 3.3 times the scatter of such a figure is chance.
        assert pull.std() == pytest.approx(1.0, abs=max(0.03, 3.3 / np.sqrt(2 * independent))), level
        assert abs(pull.mean()) < 4 * np.sqrt(float(np.mean(lags.sum(axis=1))) / pull.size)
        found = np.concatenate([sums_of(cube.spectrum(target, level), 5) for target in range(N_PLACES)])
        assert found.std() == pytest.approx(1.0, abs=0.01 + 3.3 / np.sqrt(2 * found.size)), level
