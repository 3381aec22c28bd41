"""Jobs on images: PSF matching, sums, background, cosmic rays, PSF of stars, continuum of a narrow band."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.jobs import Contender, Goal, Job, Task
from benchmarks.pulls import image_pulls, plain_pulls, pull_figures
from skyloom.core.image import Image, Mode
from skyloom.core.psf import GaussianPSF
from skyloom.mock.scenes.images import sky_wcs

Size = Mapping[str, Any]
SCALE = 0.06
CENTRE = (53.0, -27.0)
BLUR = 8.5  # Pixels, sigma: the kernel.
BOX = 9
MEGAPIXELS = "million pixels"


def noise_plane(side: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((side, side), dtype=np.float32)


def smooth_noise(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise of variance 1 whose neighbours are correlated as drizzled ones are, and its correlation."""
    kernel = np.array([0.25, 1.0, 0.25])
    kernel /= np.sqrt((kernel**2).sum())
    white = np.random.default_rng(2).standard_normal((side + 2, side + 2), dtype=np.float32)
    rows = sum(np.float32(weight) * white[i : i + side] for i, weight in enumerate(kernel))
    noise = sum(np.float32(weight) * rows[:, i : i + side] for i, weight in enumerate(kernel))
    line = np.convolve(kernel, kernel[::-1])
    return noise, np.outer(line, line)


# ------------------------------------------------------------------------------------------------ PSF matching


def holed_noise(size: Size) -> tuple[np.ndarray, np.ndarray]:
    data = noise_plane(size["side"])
    mask = np.zeros(data.shape, bool)
    places = np.random.default_rng(2).integers(0, size["side"], (2, size["masked"]))
    mask[places[0], places[1]] = True
    data[mask] = np.nan
    return data, mask


def matching_error(data: np.ndarray, mask: np.ndarray, found: np.ndarray) -> float:
    """Largest error over the largest value, in a window, against sums in double precision."""
    axis = np.arange(-60, 61) / BLUR
    kernel = np.exp(-0.5 * axis**2)
    kernel /= kernel.sum()
    half = min(60, data.shape[0] // 2 - 61)
    window = slice(data.shape[0] // 2 - half - 60, data.shape[0] // 2 + half + 60)

    def smooth(plane: np.ndarray) -> np.ndarray:
        rows = np.apply_along_axis(np.convolve, 1, plane, kernel, "valid")
        return np.apply_along_axis(np.convolve, 0, rows, kernel, "valid")

    good = (~mask[window, window]).astype(float)
    true = smooth(np.where(good > 0, data[window, window], 0.0).astype(float)) / smooth(good)
    inner = slice(window.start + 60, window.stop - 60)
    return float(np.abs(found[inner, inner] - true).max() / np.abs(true).max())


def match_ours(size: Size) -> Task:
    from skyloom.imaging.psfs.convolve import match_psf

    data, mask = holed_noise(size)
    narrow, wide = (GaussianPSF.from_sigma(np.hypot(1.2, blur) * SCALE) for blur in (0.0, BLUR))
    wcs = sky_wcs(CENTRE, data.shape, SCALE)
    image = Image(data, np.ones_like(data), mask, "electron/s", wcs, psf=narrow)

    def judge(found: Image) -> dict[str, float]:
        margin = min(48, size["side"] // 6)
        error = {"largest error": matching_error(data, mask, found.data)} if size["side"] > 300 else {}
        return error | pull_figures(image_pulls(found, BOX, margin=margin))

    return Task(lambda: match_psf(image, wide), judge, data.size / 1e6)


def match_astropy(size: Size) -> Task:
    from astropy.convolution import Gaussian2DKernel, convolve_fft

    data, mask = holed_noise(size)
    kernel = Gaussian2DKernel(BLUR, x_size=81, y_size=81)

    def judge(found: np.ndarray) -> dict[str, float]:
        error = {"largest error": matching_error(data, mask, found)} if size["side"] > 300 else {}
        variance = np.full(data.shape, np.sum(kernel.array**2))
        return error | pull_figures(plain_pulls(found, variance, BOX))

    return Task(lambda: convolve_fft(data, kernel, allow_huge=True), judge, data.size / 1e6)


def match_scipy(size: Size) -> Task:
    from scipy import ndimage

    data, mask = holed_noise(size)

    def convolve() -> np.ndarray:
        weight = ndimage.gaussian_filter((~mask).astype(np.float32), BLUR, truncate=4.7)
        return ndimage.gaussian_filter(np.where(mask, 0, data), BLUR, truncate=4.7) / weight

    def judge(found: np.ndarray) -> dict[str, float]:
        error = {"largest error": matching_error(data, mask, found)} if size["side"] > 300 else {}
        variance = np.full(data.shape, 1 / (4 * np.pi * BLUR**2))
        return error | pull_figures(plain_pulls(found, variance, BOX))

    return Task(convolve, judge, data.size / 1e6)


# ------------------------------------------------------------------------------------------------ sums


def sources(size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data, rho = smooth_noise(size["side"])
    places = np.random.default_rng(3).uniform(10, size["side"] - 11, (size["n"], 2))
    return data, rho, places


def apertures_ours(size: Size) -> Task:
    from skyloom.imaging.measure.regions import sum_apertures

    data, rho, places = sources(size)
    wcs = sky_wcs(CENTRE, data.shape, SCALE)
    image = Image(data, np.ones_like(data), None, "electron/s", wcs, correlation=rho)

    def judge(table: Any) -> dict[str, float]:
        return pull_figures(table["flux"].value / table["flux_err"].value)

    return Task(lambda: sum_apertures(image, places[:, 0], places[:, 1], 5.0), judge, size["n"])


def apertures_photutils(size: Size) -> Task:
    from photutils.aperture import CircularAperture, aperture_photometry

    data, _, places = sources(size)
    error = np.ones_like(data)

    def judge(table: Any) -> dict[str, float]:
        return pull_figures(table["aperture_sum"] / table["aperture_sum_err"])

    return Task(
        lambda: aperture_photometry(data, CircularAperture(places, 5.0), error=error), judge, size["n"]
    )


def apertures_sep(size: Size) -> Task:
    import sep

    data, _, places = sources(size)
    x, y = places.T

    def judge(found: Any) -> dict[str, float]:
        return pull_figures(found[0] / found[1])

    return Task(lambda: sep.sum_circle(data, x, y, 5.0, err=1.0, subpix=0), judge, size["n"])


def blobs(size: Size) -> np.ndarray:
    """Labels of round regions of 60 to 500 pixels, from 1 on; 0 elsewhere."""
    generator = np.random.default_rng(4)
    labels = np.zeros((size["side"], size["side"]), np.int32)
    rows, columns = np.mgrid[-12:13, -12:13]
    for number, (y, x) in enumerate(generator.uniform(14, size["side"] - 15, (size["n"], 2)), start=1):
        disc = np.hypot(rows, columns) < generator.uniform(4.5, 12.5)
        labels[rows[disc] + int(y), columns[disc] + int(x)] = number
    return labels


def regions_ours(size: Size) -> Task:
    from skyloom.imaging.measure.regions import sum_regions

    data, rho = smooth_noise(size["side"])
    labels = blobs(size) - 1
    ramp = np.linspace(-1, 1, size["side"], dtype=np.float32)
    # Their amplitude is small: what is judged is the noise, what is timed is the work of six shared errors.
    modes = tuple(Mode(f"mode {n}", np.broadcast_to(ramp**n, data.shape).copy(), 1e-6) for n in range(6))
    wcs = sky_wcs(CENTRE, data.shape, SCALE)
    image = Image(data, np.ones_like(data), None, "electron/s", wcs, correlation=rho, modes=modes)

    def judge(table: Any) -> dict[str, float]:
        return pull_figures(table["flux"].value / table["flux_err"].value)

    return Task(lambda: sum_regions(image, labels), judge)


def regions_photutils(size: Size) -> Task:
    from photutils.segmentation import SegmentationImage, SourceCatalog

    data, _ = smooth_noise(size["side"])
    labels, error = blobs(size), np.ones_like(data)

    def measure() -> tuple[Any, Any]:
        catalogue = SourceCatalog(data, SegmentationImage(labels), error=error)
        names = ("segment_flux", "segment_flux_err", "segment_fluxerr")
        return tuple(getattr(catalogue, name) for name in names if hasattr(type(catalogue), name))[:2]

    def judge(found: tuple[Any, Any]) -> dict[str, float]:
        return pull_figures(found[0] / found[1])

    return Task(measure, judge)


# ------------------------------------------------------------------------------------------------ background


def sloping_sky(size: Size) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: size["side"], : size["side"]] / size["side"]
    truth = 10 + 2 * x - y
    return (truth + noise_plane(size["side"], 5)).astype(np.float32), truth


def background_ours(size: Size) -> Task:
    from skyloom.imaging.sky.background import measure_background

    data, truth = sloping_sky(size)
    image = Image(data, np.ones_like(data), None, "electron/s", None)

    def judge(found: Any) -> dict[str, float]:
        return {"rms error": float(np.std(found.map - truth))} | pull_figures(
            (found.map - truth) / found.error_map
        )

    return Task(lambda: measure_background(image, method="mesh"), judge)


def background_sep(size: Size) -> Task:
    import sep

    data, truth = sloping_sky(size)
    return Task(
        lambda: sep.Background(data, bw=64, bh=64).back(),
        lambda found: {"rms error": float(np.std(found - truth))},
    )


def background_photutils(size: Size) -> Task:
    from photutils.background import Background2D

    data, truth = sloping_sky(size)
    return Task(
        lambda: Background2D(data, 64).background,
        lambda found: {"rms error": float(np.std(np.asarray(found) - truth))},
    )


# ------------------------------------------------------------------------------------------------ cosmic rays


def rays(size: Size) -> Any:
    from tests.inputs.cosmic import crowded_field

    return crowded_field(size["side"], size["rays"], 6, 25, size["nebulae"])


def judged_rays(field: Any) -> Any:
    def judge(mask: np.ndarray) -> dict[str, float]:
        # Sigma of a pixel that a ray must leave to count as missed.
        false = np.count_nonzero(mask & (field.deposit == 0)) * 1520**2 / mask.size
        return {"complete": float(mask[field.deposit > 5.0].mean()), "false px": float(false)}

    return judge


def rays_ours(size: Size) -> Task:
    from skyloom.imaging.repair.cosmic_rays import remove_cosmic_rays

    field = rays(size)
    image = field.image
    return Task(lambda: remove_cosmic_rays(image).mask, judged_rays(field), image.data.size / 1e6)


def rays_astroscrappy(size: Size) -> Task:
    from astroscrappy import detect_cosmics
    from tests.inputs.cosmic import EXPOSURE

    field = rays(size)
    data = (field.image.data * EXPOSURE).astype(np.float32)
    variance = (field.image.variance * EXPOSURE**2).astype(np.float32)
    return Task(
        lambda: detect_cosmics(data, invar=variance, satlevel=np.inf)[0], judged_rays(field), data.size / 1e6
    )


def rays_ccdproc(size: Size) -> Task:
    from ccdproc import cosmicray_lacosmic
    from tests.inputs.cosmic import EXPOSURE

    field = rays(size)
    data = (field.image.data * EXPOSURE).astype(np.float32)
    variance = (field.image.variance * EXPOSURE**2).astype(np.float32)
    return Task(
        lambda: cosmicray_lacosmic(data, invar=variance, satlevel=np.inf, gain_apply=False)[1],
        judged_rays(field),
        data.size / 1e6,
    )


# ------------------------------------------------------------------------------------------------ PSF of stars

STAR = (0.5, 2.8)  # Arcsec of the core (FWHM), exponent of the wings.
PIXEL = 0.1


def stars_of(size: Size) -> list[Image]:
    """Moffat stars off the centres of pixels, with the noise of their photons."""
    generator = np.random.default_rng(6)
    images, side, fine = [], size["side"], 5
    core = STAR[0] / (2 * np.sqrt(2 ** (1 / STAR[1]) - 1))
    grid = (np.arange(side * fine) + 0.5) / fine - 0.5
    for _ in range(size["n"]):
        x, y = (side - 1) / 2 + generator.uniform(-0.5, 0.5, 2)
        radius = np.hypot(grid[:, None] - y, grid - x) * PIXEL / core
        light = (1 + radius**2) ** -STAR[1]
        light = (2e4 / light.sum() * light).reshape(side, fine, side, fine).sum(axis=(1, 3))
        data = light + np.sqrt(1.0 + light) * generator.standard_normal(light.shape)
        planes = (plane.astype(np.float32) for plane in (data, 1.0 + light))
        images.append(Image(*planes, None, "electron/s", sky_wcs(CENTRE, light.shape, PIXEL)))
    return images


def stars_ours(size: Size) -> Task:
    from skyloom.imaging.psfs.psf import measure_psf

    images = stars_of(size)

    def judge(found: Any) -> dict[str, float]:
        return {"FWHM error %": 100 * (found.psf.fwhm / STAR[0] - 1), "beta error": found.psf.beta - STAR[1]}

    return Task(lambda: measure_psf(images, model="moffat"), judge)


def stars_astropy(size: Size) -> Task:
    from astropy.modeling import fitting, models

    images = stars_of(size)
    y, x = np.indices(images[0].shape)

    def fit() -> np.ndarray:
        middle, found = (size["side"] - 1) / 2, []
        for image in images:
            start = models.Moffat2D(image.data.max(), middle, middle, 3.0, 2.5) + models.Const2D(0.0)
            best = fitting.TRFLSQFitter()(start, x, y, image.data, weights=1 / np.sqrt(image.variance))
            found.append((float(best[0].fwhm) * PIXEL, float(best[0].alpha.value)))
        return np.array(found).mean(axis=0)

    def judge(found: np.ndarray) -> dict[str, float]:
        return {"FWHM error %": 100 * (found[0] / STAR[0] - 1), "beta error": found[1] - STAR[1]}

    return Task(fit, judge)


# ------------------------------------------------------------------------------------------------ narrow band


def bands_of(size: Size) -> tuple[list[np.ndarray], np.ndarray]:
    """A narrow band and two continua of one light, with noise of variance 1; and the light of the line, which is 0."""
    line = np.linspace(-1, 1, size["side"], dtype=np.float32)
    light = np.float32(0.2) + 30 * np.exp(-np.hypot(line[:, None], line) / np.float32(0.2))
    return [noise_plane(size["side"], 7 + band) + light for band in range(3)], light


def continuum_ours(size: Size) -> Task:
    from skyloom.imaging.narrow_band.continuum import subtract_continuum

    planes, _ = bands_of(size)
    unit, wcs = "1e-20 erg / (s cm2 AA arcsec2)", sky_wcs(CENTRE, planes[0].shape, 0.04)
    images = [Image(plane, np.ones_like(plane), None, unit, wcs) for plane in planes]
    pivots = 6450.0, (5550.0, 7550.0)

    def judge(found: Any) -> dict[str, float]:
        return pull_figures(image_pulls(found.excess, BOX))

    return Task(
        lambda: subtract_continuum(images[0], images[1:], *pivots, interpolation="linear"),
        judge,
        planes[0].size / 1e6,
    )


def continuum_numpy(size: Size) -> Task:
    planes, _ = bands_of(size)
    first = (7550.0 - 6450.0) / (7550.0 - 5550.0)

    def subtract() -> tuple[np.ndarray, np.ndarray]:
        narrow, blue, red = (plane.astype(float) for plane in planes)
        errors = [np.ones(plane.shape) for plane in planes]
        spread = errors[0] + first**2 * errors[1] + (1 - first) ** 2 * errors[2]
        return narrow - first * blue - (1 - first) * red, spread

    return Task(subtract, lambda found: pull_figures(plain_pulls(*found, BOX)), planes[0].size / 1e6)


JOBS = (
    Job(
        "match_psf",
        "match_psf, {side} x {side} float32, Gaussian of 8.5 px, {masked} masked: data, variance, mask",
        {"side": 2048, "masked": 2000},
        {"side": 400, "masked": 10},
        Contender("Skyloom", match_ours),
        (
            Contender("astropy convolve_fft", match_astropy, note="data alone"),
            Contender("scipy gaussian_filter", match_scipy, note="data alone"),
        ),
        item=MEGAPIXELS,
        accuracy=f"largest error over the largest value; pulls of sums of {BOX} x {BOX} px of pure noise "
        "(peers: errors of pixels in quadrature)",
        goals=(Goal("cpu", 0, 1.5 / 4096**2 * 1e6, "1.5 CPU s for 4096 x 4096"),),
    ),
    Job(
        "apertures",
        "sums over {n} circles of 5 px in {side} x {side}, correlated noise",
        {"side": 1000, "n": 2000},
        {"side": 100, "n": 5},
        Contender("Skyloom", apertures_ours),
        (
            Contender("photutils", apertures_photutils, "photutils", "no covariance"),
            Contender("sep", apertures_sep, "sep", "no covariance"),
        ),
        item="aperture",
        accuracy="pulls of the sums of pure noise",
    ),
    Job(
        "sum_regions",
        "sums over {n} regions in {side} x {side}, correlated noise, six shared errors",
        {"side": 1600, "n": 1000},
        {"side": 100, "n": 5},
        Contender("Skyloom", regions_ours),
        (Contender("photutils", regions_photutils, "photutils", "no covariance, no shared errors"),),
        accuracy="pulls of the sums of pure noise",
        goals=(Goal("cpu", 0, 0.3, "0.3 CPU s"),),
    ),
    Job(
        "background",
        "sky of {side} x {side} on a mesh of 64 px, a slope and noise",
        {"side": 1024},
        {"side": 192},
        Contender("Skyloom", background_ours, note="sources and their wings masked, with an error map"),
        (
            Contender("sep", background_sep, "sep"),
            Contender("photutils", background_photutils, "photutils"),
        ),
        accuracy="rms of the sky less the truth, noise 1 per pixel",
    ),
    Job(
        "cosmic_rays",
        "cosmic rays in {side} x {side}, stars and nebulae",
        {"side": 760, "rays": 112, "nebulae": 100},
        {"side": 120, "rays": 4, "nebulae": 3},
        Contender("Skyloom", rays_ours),
        (
            Contender("astroscrappy", rays_astroscrappy, "astroscrappy"),
            Contender("ccdproc", rays_ccdproc, "ccdproc"),
        ),
        item=MEGAPIXELS,
        accuracy="share of pixels above 5 sigma that is found; pixels taken wrongly, for 1520 x 1520",
        goals=(
            Goal("complete", 0.99, 1.0, "at least 0.99"),
            Goal("false px", 0, 150, "at most 150 false pixels in 1520 x 1520"),
        ),
    ),
    Job(
        "measure_psf",
        "Moffat PSF of {n} stars of {side} x {side} px",
        {"side": 61, "n": 8},
        {"side": 41, "n": 3},
        Contender("Skyloom", stars_ours, note="all stars at once, pixels taken out"),
        (Contender("astropy Moffat2D", stars_astropy, note="one fit for each star, pixels left in"),),
        accuracy="FWHM and exponent of a Moffat PSF less the truth",
    ),
    Job(
        "subtract_continuum",
        "narrow band less two continua, {side} x {side}: data, variance, mask",
        {"side": 1600},
        {"side": 64},
        Contender("Skyloom", continuum_ours),
        (Contender("plain numpy", continuum_numpy, note="no mask, no line light"),),
        item=MEGAPIXELS,
        accuracy=f"pulls of sums of {BOX} x {BOX} px",
    ),
)
