"""Point-spread functions, on the sky.

Widths are in arcsec and orientations are position angles (degrees, north through east), so that turning or resampling
the pixel grid does not change a PSF. `GaussianPSF` and `MoffatPSF` are profiles before the pixels integrate them;
`SampledPSF` is the effective PSF, its own pixels included.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.apertures import circle_overlap
from skyloom.errors import InputError, ShapeError

__all__ = [
    "FWHM_PER_SIGMA",
    "PSF",
    "ChromaticPSF",
    "GaussianPSF",
    "MoffatPSF",
    "SampledPSF",
    "psf_from_dict",
    "square_matrix",
]

Float = NDArray[np.float64]
FWHM_PER_SIGMA = float(2.0 * np.sqrt(2.0 * np.log(2.0)))


def square_matrix(scale: float) -> Float:
    """Return the pixel matrix of north-up square pixels of ``scale`` arcsec (east to the left)."""
    return np.array([[-scale, 0.0], [0.0, scale]])


def _arcsec(value: float | u.Quantity, name: str) -> float:
    width = float(value.to_value(u.arcsec)) if isinstance(value, u.Quantity) else float(value)
    if not np.isfinite(width) or width <= 0:
        raise InputError(f"{name} is {width} arcsec; expected a width > 0", field=name)
    return width


def _shape_matrix(axis_ratio: float, position_angle: float) -> Float:
    """Covariance (east, north) of unit geometric-mean variance, for an axis ratio and a position angle."""
    if not 0.0 < axis_ratio <= 1.0:
        raise InputError(f"axis_ratio is {axis_ratio}; expected 0 < axis_ratio <= 1", field="axis_ratio")
    angle = np.radians(position_angle)
    major = np.array([np.sin(angle), np.cos(angle)])
    minor = np.array([np.cos(angle), -np.sin(angle)])
    return np.asarray(np.outer(major, major) / axis_ratio + np.outer(minor, minor) * axis_ratio)


class PSF(ABC):
    """What every point-spread function can do."""

    __slots__ = ()

    @property
    @abstractmethod
    def fwhm(self) -> float:
        """Full width at half maximum in arcsec (geometric mean of the axes)."""

    @abstractmethod
    def render(
        self, matrix: ArrayLike, size: int | None = None, offset: tuple[float, float] = (0.0, 0.0)
    ) -> Float:
        """Return the PSF integrated over pixels.

        Parameters
        ----------
        matrix : (2, 2) array
            Pixel offset (x, y) to sky offset (east, north), arcsec per pixel.
        size : int, optional
            Side of the result, odd; by default large enough for all but about 1e-4 of the light of compact profiles.
        offset : (float, float)
            Where the source lies relative to the central pixel, in pixels (x, y).

        Returns
        -------
        (size, size) float64 array with sum 1
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return plain values from which `psf_from_dict` makes the same PSF."""

    def at(self, wavelength: float) -> PSF:  # noqa: ARG002  needed by the PSFs that are chromatic
        """Return the PSF at a wavelength (in A); the same one for all, unless the PSF is chromatic."""
        return self

    def encircled_energy(self, radii: ArrayLike, matrix: ArrayLike, size: int | None = None) -> Float:
        """Return the fraction of the light of `render` within circles of ``radii`` (arcsec), pixels included."""
        image = self.render(matrix, size)
        scale = np.sqrt(abs(np.linalg.det(np.asarray(matrix, float))))
        centre = image.shape[0] // 2
        return np.array(
            [
                np.sum(image * circle_overlap(image.shape, centre, centre, radius / scale))
                for radius in np.atleast_1d(radii)
            ]
        )


class _EllipticalPSF(PSF):
    """Profiles of an elliptical radius: the geometry, and integration over pixels by quadrature."""

    __slots__ = ()
    axis_ratio: float
    position_angle: float

    @abstractmethod
    def _profile(self, radius_squared: Float) -> Float:
        """Un-normalised profile of the squared elliptical radius in arcsec2."""

    @abstractmethod
    def _reach(self) -> float:
        """Radius in arcsec that a default stamp covers."""

    @abstractmethod
    def _core(self) -> float:
        """Length in arcsec over which the profile changes."""

    def render(
        self, matrix: ArrayLike, size: int | None = None, offset: tuple[float, float] = (0.0, 0.0)
    ) -> Float:
        """Return the PSF integrated over pixels; see `PSF.render`."""
        pixel = np.asarray(matrix, dtype=np.float64)
        scale = np.sqrt(abs(np.linalg.det(pixel)))
        side = _odd_size(size, self._reach() / scale)
        inverse = np.linalg.inv(_shape_matrix(self.axis_ratio, self.position_angle))
        metric = pixel.T @ inverse @ pixel
        panels = int(np.clip(np.ceil(scale / (self._core() * np.sqrt(self.axis_ratio))), 1, 64))
        nodes, weights = _panel_quadrature(panels)
        axis = np.arange(side) - side // 2
        x = (axis[:, np.newaxis] + nodes - offset[0]).ravel()
        y = (axis[:, np.newaxis] + nodes - offset[1]).ravel()
        radius_squared = (
            metric[0, 0] * x[np.newaxis, :] ** 2
            + 2.0 * metric[0, 1] * x[np.newaxis, :] * y[:, np.newaxis]
            + metric[1, 1] * y[:, np.newaxis] ** 2
        )
        values = self._profile(radius_squared).reshape(side, nodes.size, side, nodes.size)
        image = np.einsum("iajb,a,b->ij", values, weights, weights, optimize=True)
        return np.asarray(image / image.sum())


def _odd_size(size: int | None, reach: float) -> int:
    if size is None:
        return 2 * max(1, int(np.ceil(reach))) + 1
    if size < 1 or size % 2 == 0:
        raise ShapeError(f"size is {size}; expected an odd number of pixels", field="size")
    return int(size)


def _panel_quadrature(panels: int, order: int = 4) -> tuple[Float, Float]:
    """Gauss-Legendre nodes and weights on (-1/2, 1/2), in equal panels."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    starts = (np.arange(panels) + 0.5) / panels - 0.5
    return (starts[:, np.newaxis] + nodes / (2 * panels)).ravel(), np.tile(weights / (2 * panels), panels)


@dataclass(frozen=True, slots=True)
class GaussianPSF(_EllipticalPSF):
    """An elliptical Gaussian.

    Parameters
    ----------
    fwhm : float or Quantity
        Geometric mean of the full widths at half maximum along the two axes, in arcsec.
    axis_ratio : float
        Minor over major axis.
    position_angle : float
        Of the major axis, degrees, north through east.
    """

    fwhm: float = field()  # a field serves as the abstract property
    axis_ratio: float = 1.0
    position_angle: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "fwhm", _arcsec(self.fwhm, "fwhm"))
        _shape_matrix(self.axis_ratio, self.position_angle)

    @property
    def sigma(self) -> float:
        """Standard deviation in arcsec (geometric mean of the axes)."""
        return float(self.fwhm / FWHM_PER_SIGMA)

    @property
    def covariance(self) -> Float:
        """(2, 2) covariance in arcsec2, (east, north)."""
        return self.sigma**2 * _shape_matrix(self.axis_ratio, self.position_angle)

    @classmethod
    def from_sigma(
        cls, sigma: float | u.Quantity, axis_ratio: float = 1.0, position_angle: float = 0.0
    ) -> GaussianPSF:
        """Make a Gaussian from its standard deviation in arcsec."""
        return cls(FWHM_PER_SIGMA * _arcsec(sigma, "sigma"), axis_ratio, position_angle)

    @classmethod
    def from_covariance(cls, covariance: ArrayLike) -> GaussianPSF:
        """Make a Gaussian from its (2, 2) covariance in arcsec2, (east, north)."""
        matrix = np.asarray(covariance, dtype=np.float64)
        values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
        if values[0] <= 0:
            raise InputError(
                f"covariance has eigenvalues {values} arcsec2; expected both > 0", field="covariance"
            )
        east, north = vectors[:, 1]
        sigma = float((values[0] * values[1]) ** 0.25)
        angle = float(np.degrees(np.arctan2(east, north)) % 180.0)
        return cls(FWHM_PER_SIGMA * sigma, min(1.0, float(np.sqrt(values[0] / values[1]))), angle)

    def render(
        self, matrix: ArrayLike, size: int | None = None, offset: tuple[float, float] = (0.0, 0.0)
    ) -> Float:
        """Return the PSF integrated over pixels; see `PSF.render`."""
        pixel = np.asarray(matrix, dtype=np.float64)
        inverse = np.linalg.inv(pixel)
        covariance = inverse @ self.covariance @ inverse.T
        sigma_x, sigma_y = np.sqrt(np.diag(covariance))
        if abs(covariance[0, 1]) > 1e-10 * sigma_x * sigma_y:
            return _EllipticalPSF.render(self, matrix, size, offset)
        side = _odd_size(size, self._reach() / np.sqrt(abs(np.linalg.det(pixel))))
        image = np.outer(_pixel_gaussian(side, sigma_y, offset[1]), _pixel_gaussian(side, sigma_x, offset[0]))
        return np.asarray(image / image.sum())

    def _profile(self, radius_squared: Float) -> Float:
        return np.asarray(np.exp(-0.5 * radius_squared / self.sigma**2))

    def _reach(self) -> float:
        return float(5.0 * self.sigma / np.sqrt(self.axis_ratio))

    def _core(self) -> float:
        return self.sigma

    def describe(self) -> dict[str, Any]:
        """Return plain values from which `psf_from_dict` makes the same PSF."""
        return {
            "type": "gaussian",
            "fwhm": self.fwhm,
            "axis_ratio": self.axis_ratio,
            "position_angle": self.position_angle,
        }


def _pixel_gaussian(size: int, sigma: float, centre: float) -> Float:
    """Integrals of a unit Gaussian over ``size`` pixels around 0."""
    from scipy.special import erf

    edges = (np.arange(size + 1) - size // 2 - 0.5 - centre) / (np.sqrt(2.0) * sigma)
    return np.asarray(0.5 * np.diff(erf(edges)))


@dataclass(frozen=True, slots=True)
class MoffatPSF(_EllipticalPSF):
    """An elliptical Moffat profile, (1 + r^2 / alpha^2)^-beta (Moffat 1969, A&A 3, 455).

    Parameters
    ----------
    fwhm : float or Quantity
        Geometric mean of the full widths at half maximum along the two axes, in arcsec.
    beta : float
        Slope of the wings, > 1.
    axis_ratio, position_angle : float
        As for `GaussianPSF`.
    """

    fwhm: float = field()  # a field serves as the abstract property
    beta: float
    axis_ratio: float = 1.0
    position_angle: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "fwhm", _arcsec(self.fwhm, "fwhm"))
        if not self.beta > 1.0:
            raise InputError(
                f"beta is {self.beta}; expected > 1, or the total light is infinite", field="beta"
            )
        _shape_matrix(self.axis_ratio, self.position_angle)

    @property
    def alpha(self) -> float:
        """Core radius in arcsec."""
        return float(self.fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / self.beta) - 1.0)))

    def _profile(self, radius_squared: Float) -> Float:
        return np.asarray((1.0 + radius_squared / self.alpha**2) ** -self.beta)

    def _reach(self) -> float:
        # Radius that leaves 1e-3 of the light outside, but never more than 12 FWHM for shallow wings.
        reach = self.alpha * np.sqrt(1e-3 ** (1.0 / (1.0 - self.beta)) - 1.0)
        return float(min(reach, 12.0 * self.fwhm) / np.sqrt(self.axis_ratio))

    def _core(self) -> float:
        return self.fwhm / FWHM_PER_SIGMA

    def describe(self) -> dict[str, Any]:
        """Return plain values from which `psf_from_dict` makes the same PSF."""
        return {
            "type": "moffat",
            "fwhm": self.fwhm,
            "beta": self.beta,
            "axis_ratio": self.axis_ratio,
            "position_angle": self.position_angle,
        }


@dataclass(frozen=True, slots=True, eq=False)
class SampledPSF(PSF):
    """An effective PSF sampled on pixels, which have integrated it.

    Parameters
    ----------
    array : (n, n) array
        Values, n odd, the source in the centre of the central pixel; normalised to sum 1.
    matrix : (2, 2) array
        Pixel offset (x, y) to sky offset (east, north), arcsec per pixel.
    """

    array: Float
    matrix: Float

    def __post_init__(self) -> None:
        array = np.asarray(self.array, dtype=np.float64)
        matrix = np.asarray(self.matrix, dtype=np.float64)
        if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] % 2 == 0:
            raise ShapeError(f"a sampled PSF has shape {array.shape}; expected an odd square", field="psf")
        if matrix.shape != (2, 2) or not abs(np.linalg.det(matrix)) > 0:
            raise ShapeError("the matrix of a sampled PSF must be (2, 2) and invertible", field="psf")
        if not np.all(np.isfinite(array)) or array.sum() <= 0:
            raise InputError("a sampled PSF must be finite, with a sum > 0", field="psf")
        total = array.sum()
        # What is normalised already stays as it is, to the last digit: written and read back it is the same.
        object.__setattr__(self, "array", array if abs(total - 1.0) < 1e-12 else array / total)
        object.__setattr__(self, "matrix", matrix)

    @property
    def pixel_scale(self) -> float:
        """Side of a pixel in arcsec."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix))))

    @property
    def fwhm(self) -> float:
        """Full width at half maximum in arcsec: the circle of the area above half the maximum.

        Counted on a cubic-spline interpolation ten times finer than the pixels.
        """
        from scipy.ndimage import map_coordinates

        centre = self.array.shape[0] // 2
        coarse = np.count_nonzero(self.array > 0.5 * self.array.max())
        # Only the core is looked at: its extent, counted in whole pixels, with a margin for the spline.
        half = min(centre, 4 + int(np.ceil(1.5 * np.sqrt(coarse))))
        core = self.array[centre - half : centre + half + 1, centre - half : centre + half + 1]
        fine = np.arange(10 * (2 * half - 2) + 1) / 10.0 + 1.0
        y, x = np.meshgrid(fine, fine, indexing="ij")
        values = map_coordinates(core, [y, x], order=3, mode="nearest")
        area = np.count_nonzero(values > 0.5 * values.max()) / 100.0
        return float(2.0 * np.sqrt(area / np.pi) * self.pixel_scale)

    def render(
        self, matrix: ArrayLike, size: int | None = None, offset: tuple[float, float] = (0.0, 0.0)
    ) -> Float:
        """Return the PSF on other pixels; see `PSF.render`.

        On its own grid this is the array itself. Elsewhere the array is interpolated by cubic splines; pixels larger
        than its own integrate over the box that brings the second moment of the pixel response to that of the larger
        pixel. Smaller pixels keep the response of the sampled ones, which cannot be undone.
        """
        target = np.asarray(matrix, dtype=np.float64)
        # Pixels of one instrument differ by 1e-5 across a mosaic, far below what sampling can tell.
        native = np.abs(target - self.matrix).max() < 1e-4 * self.pixel_scale and offset == (0.0, 0.0)
        if native:
            return self.array if size is None else _resize(self.array, _odd_size(size, 0.0))
        scale = np.sqrt(abs(np.linalg.det(target)))
        side = _odd_size(size, (self.array.shape[0] // 2) * self.pixel_scale / scale)
        return self._resampled(target, side, offset, scale)

    def _resampled(self, target: Float, side: int, offset: tuple[float, float], scale: float) -> Float:
        from scipy.ndimage import map_coordinates

        width = np.sqrt(max(0.0, 1.0 - (self.pixel_scale / scale) ** 2))
        nodes, weights = _panel_quadrature(2) if width > 0 else (np.zeros(1), np.ones(1))
        axis = np.arange(side) - side // 2
        image = np.zeros((side, side))
        to_native = np.linalg.inv(self.matrix) @ target
        centre = self.array.shape[0] // 2
        for dy, weight_y in zip(nodes * width, weights, strict=True):
            for dx, weight_x in zip(nodes * width, weights, strict=True):
                y, x = np.meshgrid(axis + dy - offset[1], axis + dx - offset[0], indexing="ij")
                where = np.tensordot(to_native, np.stack([x, y]), axes=1) + centre
                image += (
                    weight_x * weight_y * map_coordinates(self.array, where[::-1], order=3, mode="constant")
                )
        return np.asarray(image / image.sum())

    def describe(self) -> dict[str, Any]:
        """Return plain values from which `psf_from_dict` makes the same PSF."""
        return {"type": "sampled", "array": self.array.tolist(), "matrix": self.matrix.tolist()}


def _resize(array: Float, size: int) -> Float:
    """Crop or zero-pad a centred odd square to ``size``, sum 1."""
    difference = (size - array.shape[0]) // 2
    if difference >= 0:
        padded = np.pad(array, difference)
        return np.asarray(padded)
    cropped = array[-difference:difference, -difference:difference]
    return np.asarray(cropped / cropped.sum())


@dataclass(frozen=True, slots=True, eq=False)
class ChromaticPSF(PSF):
    """A PSF that changes with wavelength: profiles of one kind at ascending wavelengths, parameters interpolated.

    Parameters
    ----------
    wave : (n,) array
        Wavelengths in A, ascending.
    psfs : tuple of n GaussianPSF, or n MoffatPSF
        The PSF at each of them.
    """

    wave: Float
    psfs: tuple[PSF, ...]

    def __post_init__(self) -> None:
        wave = np.atleast_1d(np.asarray(self.wave, dtype=np.float64))
        if wave.ndim != 1 or wave.size != len(self.psfs) or np.any(np.diff(wave) <= 0):
            raise ShapeError(
                f"{wave.size} ascending wavelengths do not fit {len(self.psfs)} PSFs", field="psf"
            )
        kinds = {type(psf) for psf in self.psfs}
        if len(kinds) != 1 or not kinds <= {GaussianPSF, MoffatPSF}:
            raise InputError("a chromatic PSF is made of Gaussians or of Moffats, not a mixture", field="psf")
        object.__setattr__(self, "wave", wave)
        object.__setattr__(self, "psfs", tuple(self.psfs))

    @property
    def fwhm(self) -> float:
        """Full width at half maximum at the middle of the wavelengths, in arcsec."""
        return self.at(0.5 * (self.wave[0] + self.wave[-1])).fwhm

    def at(self, wavelength: float) -> PSF:
        """Return the PSF at ``wavelength`` (A); beyond the ends, that of the end."""
        values: dict[str, Any] = {}
        for key in self.psfs[0].describe():
            if key != "type":
                values[key] = float(
                    np.interp(wavelength, self.wave, [psf.describe()[key] for psf in self.psfs])
                )
        return type(self.psfs[0])(**values)

    def render(
        self, matrix: ArrayLike, size: int | None = None, offset: tuple[float, float] = (0.0, 0.0)
    ) -> Float:
        """Return the PSF integrated over pixels; see `PSF.render`."""
        return self.at(0.5 * (self.wave[0] + self.wave[-1])).render(matrix, size, offset)

    def describe(self) -> dict[str, Any]:
        """Return plain values from which `psf_from_dict` makes the same PSF."""
        return {
            "type": "chromatic",
            "wave": self.wave.tolist(),
            "psfs": [psf.describe() for psf in self.psfs],
        }


def psf_from_dict(values: dict[str, Any]) -> PSF:
    """Make the PSF that `PSF.describe` described.

    Raises
    ------
    InputError
        When ``type`` is unknown.
    """
    fields = dict(values)
    kind = fields.pop("type", None)
    if kind == "gaussian":
        return GaussianPSF(**fields)
    if kind == "moffat":
        return MoffatPSF(**fields)
    if kind == "sampled":
        return SampledPSF(np.array(fields["array"]), np.array(fields["matrix"]))
    if kind == "chromatic":
        return ChromaticPSF(np.array(fields["wave"]), tuple(psf_from_dict(psf) for psf in fields["psfs"]))
    raise InputError(
        f"{kind!r} is no kind of PSF", field="psf", remedy="use gaussian, moffat, sampled or chromatic"
    )
