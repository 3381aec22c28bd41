"""Fluxes of nebulae in both instruments, many times over: their differences scatter as their errors say."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from tests.inputs.quality import BLURRED, quality_scene

from skyloom.core.image import Mode
from skyloom.imaging.measure.comparison import compare_regions
from skyloom.imaging.psfs.psf_fit import match_to

DRAWS = 6


def test_pulls_of_nebulae_are_of_unit_width():
    scene = quality_scene(n_nebulae=36, size=300, noise=False)
    generator = np.random.default_rng(5)
    kernel = np.array([0.25, 0.5, 0.25])
    rho = np.convolve(kernel, kernel[::-1]) / (kernel**2).sum()
    pulls, sharp_pulls = [], []
    truth = compare_regions(scene.sharp, scene.blurred, scene.labels)
    for _ in range(DRAWS):
        grain = generator.normal(size=scene.sharp.shape)
        for axis in (0, 1):
            grain = ndimage.convolve1d(grain, kernel, axis=axis, mode="wrap")
        sky = 5.0 * generator.normal()
        sharp = scene.sharp.evolve(
            data=scene.sharp.data + 200.0 * grain / (kernel**2).sum() + sky,
            variance=np.full(scene.sharp.shape, 200.0**2),
            correlation=np.outer(rho, rho),
            modes=(Mode("sky", 1.0, 5.0),),
        )
        blurred = scene.blurred.evolve(
            data=scene.blurred.data + 30.0 * generator.normal(size=scene.blurred.shape)
        )
        matched = match_to(sharp, blurred, BLURRED)
        table = compare_regions(sharp, blurred, scene.labels, matched=matched)
        whole = np.asarray(table["whole"])
        pulls.append(np.asarray(table["pull"])[whole])
        sharp_pulls.append(((table["flux"] - truth["flux"]) / table["flux_err"]).value[whole])
    for values in (np.concatenate(pulls), np.concatenate(sharp_pulls)):
        assert values.size > 150
        # Regions of one draw share the error of the sky, a tenth of their variance: the mean is that of fewer values.
        assert abs(values.mean()) < 3 / np.sqrt(0.25 * values.size)
        assert abs(values.std() - 1) < 3 / np.sqrt(2 * 0.8 * values.size)
