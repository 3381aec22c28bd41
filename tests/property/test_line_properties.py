"""What holds for the fit of lines whatever the data."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.lines import mock_spectra

from skyloom.core.linelist import default_lines
from skyloom.core.spectra import Spectra
from skyloom.spectral.lines.linefit import fit_lines

WAVE = 6440 + 1.25 * np.arange(260)
LINES = default_lines().select(("NII6548", "Halpha", "NII6583"))


def scene(seed: int, amplitude: float, n: int = 3) -> Spectra:
    return mock_spectra(
        WAVE, LINES, {"Halpha": amplitude, "NII6583": 0.4 * amplitude, "NII6548": 0.4 * 0.3279 * amplitude}, n=n,
        rng=np.random.default_rng(seed),
    )  # fmt: skip


def numbers(spectra: Spectra, redshift: float = 0.0) -> dict[str, np.ndarray]:
    table = fit_lines(spectra, LINES, redshift).table
    return {name: np.asarray(table[name], dtype=np.float64) for name in table.colnames}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(5, 500), st.floats(-6, 6))
def test_the_unit_does_not_matter(seed: int, amplitude: float, exponent: float) -> None:
    spectra, factor = scene(seed, amplitude), 10.0**exponent
    one = numbers(spectra)
    other = numbers(
        spectra.evolve(data=spectra.data * factor, variance=spectra.variance * np.float32(factor**2))
    )
    for name, values in one.items():
        scale = factor if ("flux" in name or "limit" in name) else 1.0
        if name.endswith("flag") or name == "id":
            np.testing.assert_array_equal(values, other[name])
        else:
            # Storage in single precision moves a value by 1e-7 of the data, 1e-3 of an error at most.
            spread = scale * np.nan_to_num(one.get(f"{name}_err", np.zeros(1)))
            close = np.abs(other[name] - scale * values) <= 5e-3 * spread + 2e-3 * np.abs(scale * values)
            assert np.all(close | (np.isnan(values) & np.isnan(other[name]))), name


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(30, 500), st.floats(0.001, 0.4))
def test_redshift_and_wavelengths_move_together(seed: int, amplitude: float, redshift: float) -> None:
    spectra = scene(seed, amplitude)
    stretched = Spectra(
        spectra.data, spectra.variance, spectra.mask, spectra.unit, WAVE * (1 + redshift), "air",
        lsf=1.1 * (1 + redshift),
    )  # fmt: skip
    one, other = numbers(spectra), numbers(stretched, redshift)
    for name in ("Halpha_velocity", "Halpha_sigma_observed", "Halpha_snr", "NII6583_velocity"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(other["Halpha_flux"], one["Halpha_flux"] * (1 + redshift), rtol=1e-4)
    np.testing.assert_allclose(other["Halpha_ew"], one["Halpha_ew"], rtol=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([np.nan, np.inf, -1e30, 0.0]))
def test_what_lies_under_the_mask_changes_nothing(seed: int, garbage: float) -> None:
    spectra = scene(seed, 200.0)
    mask = np.random.default_rng(seed).random(spectra.shape) < 0.1
    clean = spectra.evolve(mask=mask)
    dirty = clean.evolve(
        data=np.where(mask, np.float32(garbage), clean.data),
        variance=np.where(mask, np.float32(np.nan), clean.variance),
    )
    one, other = numbers(clean), numbers(dirty)
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(5)))
def test_the_order_of_spectra_does_not_matter(seed: int, order: list[int]) -> None:
    spectra = scene(seed, 50.0, n=5)
    moved = spectra.evolve(
        data=spectra.data[order], variance=spectra.variance[order], mask=spectra.mask[order]
    )
    one, other = numbers(spectra), numbers(moved)
    for name, values in one.items():
        if name != "id":
            np.testing.assert_array_equal(values[order], other[name])


def test_the_spectra_stay_as_they_are() -> None:
    spectra = scene(1, 100.0)
    before = spectra.data.copy(), spectra.variance.copy(), spectra.mask.copy()
    fit_lines(spectra, LINES, components="bic", intervals="profile")
    for plane, kept in zip((spectra.data, spectra.variance, spectra.mask), before, strict=True):
        np.testing.assert_array_equal(plane, kept)
