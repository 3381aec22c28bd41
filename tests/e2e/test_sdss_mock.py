"""The mock of SDSS as files: all that its lists name, in the folders of the survey, with their truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

import skyloom as sl
from skyloom.mock.hubble.files import SCENES
from skyloom.mock.sdss.field import sdss_field
from skyloom.mock.sdss.files import SdssFiles, write_sdss_mock
from skyloom.recipes.config import load_config
from skyloom.recipes.store.config import StoreConfig
from skyloom.store.ingest.sources import FileList, listed_files

SHAPE = (64, 96)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SdssFiles:
    field = sdss_field(6, shape=SHAPE, n_stars=3, n_galaxies=2, spiral=False)
    folder = tmp_path_factory.mktemp("sdss")
    return write_sdss_mock(
        folder, seed=6, shape=SHAPE, bands=("g", "r"), n_spectra=3, compress=True, field=field
    )


def test_the_scene_is_one_of_those_offered() -> None:
    assert "sdss-like" in SCENES


def test_all_files_are_read_and_agree_with_the_truth(files: SdssFiles) -> None:
    for (run, band), path in files.frames.items():
        image = sl.read(path)
        assert (image.meta["run"], image.meta["band"]) == (run, band)
        name = path.name.replace(".fits.bz2", "_truth.fits")
        truth = fits.getdata(files.directory / "truth" / name, "TRUTH")
        pull = (image.data - truth) / np.sqrt(image.variance)
        # The counted electrons, not the expected ones, make the variance.
        assert pull.std() == pytest.approx(1.0, abs=0.01 + 3 / np.sqrt(2 * pull.size))
    for path in files.spectra:
        spectrum = sl.read(path)
        truth = fits.getdata(files.directory / "truth" / path.name.replace(".fits", "_truth.fits"), 1)
        pull = ((spectrum.data[0] - truth["TRUTH"]) / np.sqrt(truth["VARIANCE"]))[~spectrum.mask[0]]
        assert pull.std() == pytest.approx(1.0, abs=3 / np.sqrt(2 * pull.size))


def test_one_seed_writes_the_same_bytes(files: SdssFiles, tmp_path: Path) -> None:
    again = write_sdss_mock(
        tmp_path,
        seed=6,
        shape=SHAPE,
        bands=("g",),
        n_spectra=1,
        compress=True,
        field=files.field,
        truth=False,
    )
    for key, path in again.frames.items():
        assert path.read_bytes() == files.frames[key].read_bytes()
    assert again.spectra[0].read_bytes() == files.spectra[0].read_bytes()


def test_lists_name_the_files(files: SdssFiles) -> None:
    frames = FileList(files.directory / "frames.csv", files.directory / "frames")
    spectra = FileList(files.directory / "spectra.csv", files.directory / "spectra")
    for listing, expected in ((frames, files.frames.values()), (spectra, files.spectra)):
        found, missing = listed_files(listing)
        assert not missing
        assert set(found) == set(expected)


def test_configuration_and_table_are_read(files: SdssFiles) -> None:
    config = load_config(files.config, StoreConfig)
    assert files.config.parent / "store" == Path(config.output.directory)
    table = QTable.read(files.table)
    assert len(table) == len(files.field.sources) == 5
