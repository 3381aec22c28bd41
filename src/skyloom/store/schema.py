"""What the store keeps of every observation, and under which names: the columns, the groups, the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from skyloom.errors import InputError

__all__ = [
    "COLUMNS",
    "PARTITION_ORDER",
    "POSITION_ORDER",
    "SCHEMA_VERSION",
    "Column",
    "CommonGrid",
    "StoreSettings",
    "level_group",
]

SCHEMA_VERSION = 1
POSITION_ORDER = 29
"""HEALPix order (nested) of the positions in the column ``healpix``."""
PARTITION_ORDER = 5
"""HEALPix order (nested) of the partitions: cells of 1.8 degrees."""
CUBE_GROUP = "semi_sparse_cube"


class Column(NamedTuple):
    """A column of the table of observations."""

    name: str
    kind: str
    """"str", or a numpy type code."""
    unit: str
    ucd: str
    description: str


COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column("obs_id", "str", "", "meta.id;meta.main", "name of the observation in the store"),
        Column("dataproduct_type", "str", "", "meta.code.class", "image, cube or spectrum"),
        Column("calib_level", "i1", "", "meta.code;obs.calib", "2: calibrated, 3: combined"),
        Column("obs_collection", "str", "", "meta.id", "survey or collection"),
        Column("target_name", "str", "", "meta.id;src", "object as the header names it"),
        Column("facility_name", "str", "", "meta.id;instr.tel", "telescope"),
        Column("instrument_name", "str", "", "meta.id;instr", "instrument"),
        Column("band", "str", "", "instr.bandpass", "band of an image, empty for spectra"),
        Column("s_ra", "f8", "deg", "pos.eq.ra;meta.main", "right ascension of the centre, ICRS"),
        Column("s_dec", "f8", "deg", "pos.eq.dec;meta.main", "declination of the centre, ICRS"),
        Column("s_fov", "f8", "deg", "phys.angSize;instr.fov", "diameter of the region covered"),
        Column("s_region", "str", "", "pos.outline;obs.field", "region covered, STC-S, ICRS"),
        Column("s_resolution", "f8", "arcsec", "pos.angResolution", "full width at half maximum of the PSF"),
        Column("s_xel1", "i8", "", "meta.number", "pixels along the first axis (x)"),
        Column("s_xel2", "i8", "", "meta.number", "pixels along the second axis (y)"),
        Column("t_min", "f8", "d", "time.start;obs.exposure", "start, MJD in UTC (ObsCore)"),
        Column("t_max", "f8", "d", "time.end;obs.exposure", "end, MJD in UTC (ObsCore)"),
        Column("t_start", "f8", "d", "time.start;obs.exposure", "start, MJD in TAI"),
        Column("t_stop", "f8", "d", "time.end;obs.exposure", "end, MJD in TAI"),
        Column("t_exptime", "f8", "s", "time.duration;obs.exposure", "exposure time"),
        Column("em_min", "f8", "m", "em.wl;stat.min", "shortest wavelength, in vacuum"),
        Column("em_max", "f8", "m", "em.wl;stat.max", "longest wavelength, in vacuum"),
        Column("em_res_power", "f8", "", "spect.resolution", "wavelength over FWHM, in the middle"),
        Column("em_xel", "i8", "", "meta.number", "pixels along wavelength"),
        Column("o_ucd", "str", "", "meta.ucd", "what is observed"),
        Column("o_unit", "str", "", "meta.unit", "unit of the values"),
        Column("access_estsize", "i8", "kbyte", "phys.size;meta.file", "size of the source file"),
        Column(
            "healpix",
            "i8",
            "",
            "pos.healpix",
            "cell of the centre at order 29, nested; -1 without a position",
        ),
        Column(
            "radius",
            "f8",
            "deg",
            "phys.angSize;instr.fov",
            "radius of the circle about the centre that holds all",
        ),
        Column("pixel_scale", "f8", "arcsec", "instr.scale", "side of a pixel of level 0"),
        Column("n_levels", "i2", "", "meta.number", "resolutions, level 0 included"),
        Column("n_good", "i8", "", "meta.number", "usable pixels of level 0"),
        Column("redshift", "f8", "", "src.redshift", "redshift, where the source file tells one"),
        Column("source", "str", "", "meta.id;meta.file", "name of the source file"),
        Column("source_digest", "str", "", "meta.checksum", "SHA-256 of the source file"),
        Column("digest", "str", "", "meta.checksum", "digest of all that is stored of the observation"),
        Column("version", "str", "", "meta.version", "version of Skyloom that stored it"),
    )
}


@dataclass(frozen=True, slots=True)
class CommonGrid:
    """The wavelengths that all spectra of a store share: whole multiples of a step in log10.

    Parameters
    ----------
    start, stop : float
        A, vacuum.
    step : float
        dex; 1e-4 is that of SDSS.
    """

    start: float = 3500.0
    stop: float = 10500.0
    step: float = 1e-4


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """What is decided once, when a store is made.

    Parameters
    ----------
    partition_order : int
        HEALPix order of the partitions.
    levels : int
        Resolutions of images, cubes and spectra, level 0 included; fewer where an image has not enough pixels.
    common_grid : CommonGrid
    compression : {"lossless", "quantised"}
        "quantised" rounds values to ``quantum`` times their noise; never wavelengths, times or coordinates.
    quantum : float
        Step of rounded values in units of the standard deviation of the noise.
    part_bytes : int
        Uncompressed size beyond which another file of a partition is begun.
    adaptive_bytes : int or None
        Size on the disk that files are to have, about: where much lies cells are finer, elsewhere coarser, whatever
        ``partition_order`` and ``part_bytes`` say. None: all cells are of that order.

    Raises
    ------
    InputError
        When a value is out of its range.
    """

    partition_order: int = PARTITION_ORDER
    levels: int = 5
    common_grid: CommonGrid = field(default_factory=CommonGrid)
    compression: str = "lossless"
    quantum: float = 0.1
    part_bytes: int = 1 << 29
    adaptive_bytes: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.partition_order <= 12:
            raise InputError(
                f"partition_order is {self.partition_order}; expected 0 to 12", field="partition_order"
            )
        if not 1 <= self.levels <= 8:
            raise InputError(f"levels is {self.levels}; expected 1 to 8", field="levels")
        if self.compression not in ("lossless", "quantised"):
            raise InputError(
                f"compression is {self.compression!r}",
                field="compression",
                remedy="use 'lossless' or 'quantised'",
            )
        if not 0 < self.quantum <= 1:
            raise InputError(f"quantum is {self.quantum}; expected above 0, at most 1", field="quantum")
        if self.part_bytes < 1:
            raise InputError(f"part_bytes is {self.part_bytes}; expected > 0", field="part_bytes")
        if self.adaptive_bytes is not None and self.adaptive_bytes < 1:
            raise InputError(f"adaptive_bytes is {self.adaptive_bytes}; expected > 0", field="adaptive_bytes")
        grid = self.common_grid
        if not (0 < grid.start < grid.stop and 0 < grid.step < 0.1):
            raise InputError(
                f"the common grid is {grid}; expected 0 < start < stop and a step in dex", field="common_grid"
            )

    def describe(self) -> dict[str, Any]:
        """Return the settings as plain values, for the file that records them."""
        from dataclasses import asdict

        values = {"schema": SCHEMA_VERSION, **asdict(self)}
        if self.adaptive_bytes is None:
            # Stores that do without it are as they were before it was known.
            del values["adaptive_bytes"]
        return values


def level_group(level: int, kind: str) -> str:
    """Return the name of the group of one kind of data at one level, e.g. ``semi_sparse_cube/0/images``."""
    return f"{CUBE_GROUP}/{level}/{kind}"
