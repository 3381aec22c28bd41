"""The configuration of the recipe ``store``: which files go into which store, and how it is laid out."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from skyloom.recipes.config import FilePath, Settings
from skyloom.recipes.patterns import Positive
from skyloom.store.ingest.sources import FileList
from skyloom.store.schema import CommonGrid, StoreSettings

__all__ = ["StoreConfig"]

DEFAULTS = StoreSettings()


def _to_list(value: Any) -> Any:
    """One entry stands for a list of one."""
    return [value] if isinstance(value, str | dict) else value


class ListSettings(Settings):
    """A table that names frames or spectra by their numbers."""

    table: FilePath
    folder: FilePath = Field(description="where the files are; folders in it are searched, too")
    pattern: str | None = Field(None, description="of the files' names; default: those of SDSS")


class GridSettings(Settings):
    """The wavelengths that all spectra share."""

    start: Positive = Field(DEFAULTS.common_grid.start, description="A, vacuum")
    stop: Positive = Field(DEFAULTS.common_grid.stop, description="A")
    step: Positive = Field(DEFAULTS.common_grid.step, description="dex")


class LayoutSettings(Settings):
    """What is decided once, when the store is made."""

    partition_order: Annotated[int, Field(ge=0, le=12)] = Field(
        DEFAULTS.partition_order, description="HEALPix order of the partitions"
    )
    adaptive_bytes: Annotated[int, Field(ge=1)] | None = Field(
        DEFAULTS.adaptive_bytes, description="cells of all orders instead, of files of about this size"
    )
    levels: Annotated[int, Field(ge=1, le=8)] = Field(DEFAULTS.levels, description="resolutions")
    common_grid: GridSettings = GridSettings()
    compression: Literal["lossless", "quantised"] = "lossless"
    quantum: Annotated[float, Field(gt=0, le=1)] = Field(
        DEFAULTS.quantum, description="quantised: step over the noise"
    )
    part_bytes: Annotated[int, Field(ge=1)] = Field(
        DEFAULTS.part_bytes, description="largest file of a partition, uncompressed"
    )

    def to_store(self) -> StoreSettings:
        """Return the settings in the form that the store takes them."""
        values = self.model_dump()
        return StoreSettings(**{**values, "common_grid": CommonGrid(**values["common_grid"])})


class OutputSettings(Settings):
    """Where the store is."""

    directory: FilePath = Field("store", description="folder of the store, made where there is none")
    figures: bool = True
    report: bool = True


class StoreConfig(Settings):
    """The whole configuration of a run of ``store``."""

    recipe: Literal["store"] = "store"
    files: Annotated[tuple[FilePath, ...], BeforeValidator(_to_list)] = Field(
        (), description="files, folders, patterns with *, ? and **"
    )
    lists: Annotated[tuple[ListSettings, ...], BeforeValidator(_to_list)] = ()
    options: dict[str, Any] = Field(default_factory=dict, description="for the readers, e.g. unit")
    replace: bool = Field(
        False, description="a file whose observations have names that are taken is stored instead"
    )
    layout: LayoutSettings = LayoutSettings()
    output: OutputSettings = OutputSettings()
    workers: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _something_to_store(self) -> Self:
        if not self.files and not self.lists:
            raise ValueError("give files (names, folders, patterns) or lists")
        return self

    def file_lists(self) -> tuple[FileList, ...]:
        """Return the lists in the form that an ingest takes them."""
        return tuple(FileList(item.table, item.folder, item.pattern) for item in self.lists)
