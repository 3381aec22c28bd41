"""Every operation on images keeps what it must keep; an operation that is not listed here fails a test."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from astropy.wcs import WCS

import skyloom.imaging
from skyloom.core import noise
from skyloom.core.bandpass import Bandpass
from skyloom.core.image import Flag, Image, Mode
from skyloom.core.labels import LabelMap
from skyloom.core.noise import NoiseMeasurement, add_source_poisson, apply_noise
from skyloom.core.provenance import step
from skyloom.core.psf import GaussianPSF
from skyloom.imaging.anchoring.anchor import Anchor, anchor_by_difference, anchor_by_ratio, apply_anchor
from skyloom.imaging.anchoring.line_anchor import LineAnchor, apply_line_anchor
from skyloom.imaging.anchoring.ratio_maps import smooth_ratio
from skyloom.imaging.anchoring.smooth_field import FieldFrame, SmoothField
from skyloom.imaging.grids.block_means import block_means
from skyloom.imaging.grids.register import register, shift_wcs
from skyloom.imaging.grids.reproject import reproject
from skyloom.imaging.measure.masks import apply_object_mask, mask_from_labels
from skyloom.imaging.measure.units import convert_unit
from skyloom.imaging.narrow_band.continuum import subtract_continuum
from skyloom.imaging.narrow_band.line_flux import line_flux
from skyloom.imaging.narrow_band.lines import dimensionless
from skyloom.imaging.psfs.convolve import convolve, match_psf
from skyloom.imaging.psfs.lost_light import add_lost_light
from skyloom.imaging.psfs.psf_fit import KernelFit, match_to
from skyloom.imaging.repair.cosmic_rays import remove_cosmic_rays
from skyloom.imaging.repair.negatives import repair_negatives
from skyloom.imaging.repair.white_noise import add_white_noise
from skyloom.imaging.sky.background import subtract_background
from skyloom.imaging.stars.masks import apply_star_mask, mask_stars
from tests.invariants import check_invariants

N = 60


def make_wcs(scale=0.06, angle=0.0, centre=(30.0, 30.0)):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [53.1, -27.8]
    wcs.wcs.crpix = centre
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = scale / 3600 * np.array([[-cosine, sine], [sine, cosine]])
    return wcs


def make_image(dtype=np.float32, unit="electron / s"):
    """An image with everything that an image can have."""
    rng = np.random.default_rng(7)
    y, x = np.indices((N, N)) - N / 2
    data = 50 * np.exp(-(x**2 + y**2) / 50) + rng.normal(0, 1, (N, N)) + 2.0
    mask = rng.random((N, N)) < 0.01
    mask[:4, :9] = True
    flags = np.where(rng.random((N, N)) < 0.05, Flag.NEAR_SATURATED, 0).astype(np.uint16)
    correlation = np.outer([0.2, 1.0, 0.2], [0.3, 1.0, 0.3])
    return Image(
        data.astype(dtype),
        (1.0 + 0.01 * (x + N)).astype(dtype),
        mask,
        unit,
        make_wcs(),
        psf=GaussianPSF(0.1, 0.9, 20.0),
        correlation=correlation,
        flags=flags,
        modes=(Mode("anchor", (x / N).astype(dtype), 0.1), Mode("pedestal", 1.0, 0.02)),
        meta={"band": "f435w", "exposure": 1000.0},
        history=(step("read", path="a.fits"),),
    )


def object_mask(image):
    y, x = np.indices((N, N)) - N / 2
    labels = LabelMap(np.where(x**2 + y**2 < 200, 3, -1), image.wcs)
    return mask_from_labels(labels, image)


def without_continuum(image, interpolation):
    """The image less two continua made from it, lines taken out."""
    bands = [
        image.evolve(
            data=0.4 * image.data, unit=FLUX_DENSITY, modes=(Mode("sky", 1.0, factor * image.modes[1].sigma),)
        )
        for factor in (0.1, 0.2)
    ]
    narrow, blue, red = (
        Bandpass.tophat(*box) for box in ((6585.0, 80.0), (5400.0, 1300.0), (8000.0, 1500.0))
    )
    options = {"interpolation": interpolation, "redshift": 0.0, "line_ratios": {"NII6583": 0.4}}
    narrow_image = image.evolve(unit=FLUX_DENSITY)
    return subtract_continuum(narrow_image, bands, narrow, (blue, red), **options).excess


def anchor_in(unit, offset):
    """``image = 1.25 * reference + offset``, with errors that hang together."""
    covariance = np.array([[4e-4, -1e-3], [-1e-3, 1e-2]])
    return Anchor(
        "errors_in_both", 1.25, 0.02, offset, 0.1, covariance, u.Unit(unit), 1.0, 0.0, 0.99, 900, 0, QTable()
    )


def anchored_lines(image, offset):
    """The image as an excess, with a continuum made from it, brought to the scale of lines."""
    rows, columns = np.indices(image.shape).reshape(2, -1)
    coefficients = np.array([-0.03, 0.01, 0.005])
    frame = FieldFrame.around(image.wcs, rows, columns)
    field = SmoothField(frame, 1, coefficients, 1e-6 * np.eye(3))
    parameters = np.array([1.1, offset, *coefficients])
    covariance = np.diag([1e-4, 1e-2, 1e-6, 1e-6, 1e-6])
    anchor = LineAnchor(
        1.1, 0.01, offset, 0.1, field, parameters, covariance, image.unit, 1.0, 0.0, 0.99, 900, 0, QTable()
    )
    continuum = image.evolve(data=3 * image.data, variance=0.5 * image.variance)
    return apply_line_anchor(image, continuum, anchor)


def by_pixel(function, image):
    """The image anchored to a reference that is 1.1 times its own smoothed version."""
    smoothed = convolve(image, np.ones((7, 7)) / 49.0, psf=GaussianPSF(0.3))
    modes = (Mode("calibration", 1.0, 0.5 * image.modes[1].sigma),)
    return function(image, smoothed, smoothed.evolve(data=1.1 * smoothed.data, modes=modes))


def kernel_fit():
    """A kernel of 0.25 arcsec, as if it had been fitted."""
    return KernelFit(
        psf=GaussianPSF(0.25),
        fwhm=0.25,
        fwhm_err=0.01,
        beta=np.nan,
        beta_err=np.nan,
        slope=1.0,
        slope_err=0.01,
        offset=0.0,
        offset_err=0.01,
        shift=np.zeros(2),
        shift_err=np.full(2, 0.1),
        parameters=("fwhm", "shift_x", "shift_y", "slope", "offset"),
        covariance=np.eye(5),
        chi_square=1.0,
        correlation=0.99,
        agreement=1.0,
        n_pixels=900,
        kernel=np.ones((1, 1)),
        matrix=0.12 * np.eye(2),
    )


MEASUREMENT = NoiseMeasurement(1.3, np.outer([0.1, 1.0, 0.1], [0.1, 1.0, 0.1]), 1000, 0.05)
FLUX_DENSITY = "1e-20 erg / (s cm2 AA arcsec2)"
KERNEL = np.outer([1.0, 2.0, 1.0], [1.0, 3.0, 1.0]) / 20.0


@dataclass
class Operation:
    """An operation, what it is there to change, and whether twice the light gives twice the result."""

    function: Callable[[Image], Image]
    covers: Callable[..., Image]
    changes: tuple[str, ...] = ()
    equivariant: bool = True


OPERATIONS = {
    "convolve": Operation(
        lambda image: convolve(image, KERNEL, psf=GaussianPSF(0.2)), convolve, ("psf", "correlation")
    ),
    "match_psf, Gaussian": Operation(
        lambda image: match_psf(image, GaussianPSF(0.25)), match_psf, ("psf", "correlation")
    ),
    "match_psf, Wiener": Operation(
        lambda image: match_psf(image, GaussianPSF(0.25), method="wiener"), match_psf, ("psf", "correlation")
    ),
    "match_psf, same": Operation(lambda image: match_psf(image, image.psf), match_psf),
    "reproject, same grid": Operation(lambda image: reproject(image, (make_wcs(), (N, N))), reproject),
    "reproject, whole shift": Operation(
        lambda image: reproject(image, (make_wcs(centre=(35.0, 28.0)), (N, N))), reproject, ("wcs",)
    ),
    **{
        f"reproject, {method}": Operation(
            lambda image, method=method: reproject(image, (make_wcs(0.07, 25.0), (40, 45)), method),
            reproject,
            ("wcs", "psf", "correlation"),
        )
        for method in ("lanczos3", "bilinear", "area")
    },
    **{
        f"subtract_background, {method}": Operation(
            lambda image, options=options: subtract_background(image, **options),
            subtract_background,
            equivariant="value" not in options,
        )
        for method, options in (
            ("constant", {}),
            ("mesh", {"method": "mesh"}),
            ("value", {"method": "value", "value": 2.0, "value_error": 0.1}),
        )
    },
    **{
        f"subtract_continuum, {interpolation}": Operation(
            lambda image, interpolation=interpolation: without_continuum(image, interpolation),
            subtract_continuum,
            ("unit",),
        )
        for interpolation in ("linear", "log")
    },
    "dimensionless": Operation(
        lambda image: dimensionless(image.evolve(unit="percent"), "NII6583"), dimensionless, ("unit",)
    ),
    "block_means": Operation(lambda image: block_means(image, 4), block_means, ("wcs", "psf", "correlation")),
    "add_lost_light": Operation(
        lambda image: add_lost_light(
            image, QTable({"x": [20.3], "y": [31.0], "flux": [3.0] * image.unit}), GaussianPSF(0.2)
        ),
        add_lost_light,
        equivariant=False,
    ),
    "line_flux": Operation(
        lambda image: line_flux(image.evolve(unit=FLUX_DENSITY), Bandpass.tophat(6585.0, 80.0), 0.0, 0.4),
        line_flux,
        ("unit",),
    ),
    "line_flux, map of ratios": Operation(
        lambda image: line_flux(
            image.evolve(unit=FLUX_DENSITY),
            Bandpass.tophat(6585.0, 80.0),
            0.0,
            np.linspace(0.1, 1.0, N * N).reshape(N, N),
        ),
        line_flux,
        ("unit",),
    ),
    "convert_unit, to a flux per pixel": Operation(
        lambda image: convert_unit(image, "nJy", photflam=1e-19, pivot=6000.0), convert_unit, ("unit",)
    ),
    "convert_unit, to a flux density per area": Operation(
        lambda image: convert_unit(image.evolve(unit="electron / s"), FLUX_DENSITY, photflam=1e-19),
        convert_unit,
        ("unit",),
    ),
    "convert_unit, same": Operation(lambda image: convert_unit(image, image.unit), convert_unit),
    "match_to, kernel": Operation(
        lambda image: match_to(image, (make_wcs(0.12, 25.0, (10.0, 10.0)), (20, 20)), kernel_fit()),
        match_to,
        ("wcs", "psf", "correlation"),
    ),
    "match_to, PSF": Operation(
        lambda image: match_to(image, (make_wcs(0.12, 25.0, (10.0, 10.0)), (20, 20)), GaussianPSF(0.3)),
        match_to,
        ("wcs", "psf", "correlation"),
    ),
    "apply_anchor": Operation(
        lambda image: apply_anchor(image, anchor_in(image.unit, 0.0)),
        apply_anchor,
    ),
    "apply_anchor, with an offset": Operation(
        lambda image: apply_anchor(image, anchor_in(image.unit, 0.7)), apply_anchor, equivariant=False
    ),
    # Shared errors of the excess are taken out by the fit that made the anchor.
    "apply_line_anchor": Operation(
        lambda image: anchored_lines(image, 0.0), apply_line_anchor, ("correlation", "modes")
    ),
    "apply_line_anchor, with an offset": Operation(
        lambda image: anchored_lines(image, 0.7),
        apply_line_anchor,
        ("correlation", "modes"),
        equivariant=False,
    ),
    "anchor_by_ratio": Operation(
        lambda image: by_pixel(anchor_by_ratio, image), anchor_by_ratio, ("correlation",)
    ),
    "anchor_by_difference": Operation(
        lambda image: by_pixel(anchor_by_difference, image), anchor_by_difference, ("correlation",)
    ),
    # A ratio is known everywhere, smoothed over flagged pixels and others alike, and free of common scales.
    "smooth_ratio": Operation(
        lambda image: smooth_ratio(image, make_image(np.float64, image.unit)),
        smooth_ratio,
        ("unit", "correlation", "flags", "modes"),
    ),
    "shift_wcs": Operation(
        lambda image: shift_wcs(image, register(image, make_image(np.float64))), shift_wcs, ("wcs",)
    ),
    "apply_object_mask": Operation(
        lambda image: apply_object_mask(image, object_mask(image)), apply_object_mask
    ),
    "remove_cosmic_rays": Operation(lambda image: remove_cosmic_rays(image).image, remove_cosmic_rays),
    "repair_negatives": Operation(
        lambda image: repair_negatives(image, thresholds=(2.0, 3.0)), repair_negatives
    ),
    "repair_negatives, nonpositive": Operation(
        lambda image: repair_negatives(image, method="nonpositive"), repair_negatives
    ),
    "add_white_noise": Operation(
        lambda image: add_white_noise(image, 0.5, seed=3),
        add_white_noise,
        ("correlation",),
        equivariant=False,
    ),
    "apply_star_mask": Operation(
        lambda image: apply_star_mask(image, mask_stars(image, mask=np.indices((N, N))[0] > 50)),
        apply_star_mask,
    ),
    "apply_star_mask, detected and saturated": Operation(
        lambda image: apply_star_mask(
            image, mask_stars(image, detect=True, detection=10.0, saturation="auto")
        ),
        apply_star_mask,
    ),
    "apply_noise": Operation(lambda image: apply_noise(image, MEASUREMENT), apply_noise, ("correlation",)),
    "add_source_poisson": Operation(
        lambda image: add_source_poisson(image, 1.0, 1000.0), add_source_poisson, equivariant=False
    ),
}


@pytest.mark.parametrize("unit", ["electron / s", "1e-20 erg / (s cm2 AA arcsec2)"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_keeps_what_it_must(name, dtype, unit):
    operation = OPERATIONS[name]
    check_invariants(
        operation.function,
        make_image(dtype, unit),
        changes=operation.changes,
        equivariant=operation.equivariant,
    )


def public_operations():
    """Every public function that takes an Image first and returns one."""
    modules = [
        importlib.import_module(item.name)
        for item in pkgutil.walk_packages(skyloom.imaging.__path__, "skyloom.imaging.")
        if not item.ispkg
    ]
    for module in (*modules, noise):
        for name in module.__all__:
            function = getattr(module, name)
            if not inspect.isfunction(function) or function.__module__ != module.__name__:
                continue
            signature = inspect.signature(function)
            first = next(iter(signature.parameters.values()), None)
            if signature.return_annotation == "Image" and first is not None and first.annotation == "Image":
                yield function


def test_every_operation_is_listed():
    covered = {operation.covers for operation in OPERATIONS.values()}
    missing = {function.__name__ for function in public_operations()} - {item.__name__ for item in covered}
    assert not missing, f"without a check of the invariants: {sorted(missing)}"


def mutate(image):
    image.data[5, 5] = 0
    return image.evolve(step("mutate", pixel=5))


def leak(image):
    level = np.float32(np.where(np.isfinite(image.data), image.data, 0).mean())
    return image.evolve(step("leak", level=float(level)), data=image.data - level)


BAD = {
    "mutate": (mutate, "the input was changed"),
    "itself": (lambda image: image, "returns a new image"),
    "silent": (lambda image: image.evolve(), "one operation is one step"),
    "psf": (lambda image: image.evolve(step("a", b=1), psf=GaussianPSF(0.3)), "the PSF changed"),
    "unit": (lambda image: image.evolve(step("a", b=1), unit="Jy"), "the unit changed"),
    "modes": (lambda image: image.evolve(step("a", b=1), modes=()), "shared errors were lost"),
    "type": (
        lambda image: image.evolve(
            step("a", b=1), data=image.data.astype(float), variance=image.variance.astype(float)
        ),
        "changed its type",
    ),
    "leak": (leak, "under the mask leaked"),
    "scale": (
        lambda image: image.evolve(step("a", b=1), variance=image.variance + np.float32(1.0)),
        "variance",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_operation_is_caught(name):
    operation, message = BAD[name]
    with pytest.raises(AssertionError, match=message):
        check_invariants(operation, make_image())
