"""Defects measured in the files of an existing cube database, each shown and each gone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import h5py
import numpy as np
import pytest

from skyloom.errors import FileFormatError, InputError
from skyloom.store.files.part_reader import PartReader
from skyloom.store.files.parts import PartWriter, write_part
from skyloom.store.levels.quantise import quantise_observation
from skyloom.store.observation import Level
from skyloom.store.schema import StoreSettings
from tests.inputs.part_observations import columns, image_observation, plain_spectrum

SETTINGS = StoreSettings(compression="quantised")


@pytest.mark.parametrize("rounded", [False, True])
def test_wavelength_time_and_wcs_are_never_stored_lossy(tmp_path, rounded):
    """Half precision leaves few of 4620 wavelengths apart, single precision steps of minutes in MJD."""
    rng = np.random.default_rng(0)
    spectrum = plain_spectrum(rng, "s", n_native=4620)
    assert np.unique(np.float16(spectrum.native.subject.wave)).size < 4620 / 2
    time = 51_813.123456789012
    assert np.spacing(np.float32(time)) * 86400 > 300
    image = image_observation(rng, "i", (20, 20), 2)
    given = [
        replace(one, columns=columns(one.obs_id, t_start=time, t_stop=time + 1e-9))
        for one in (spectrum, image)
    ]
    if rounded:
        given = [quantise_observation(one, SETTINGS.quantum) for one in given]
    write_part(tmp_path / "p.h5", given, SETTINGS)
    with PartReader(tmp_path / "p.h5") as reader:
        assert np.unique(reader.spectrum("s").wave).size == 4620
        np.testing.assert_array_equal(reader.spectrum("s").wave, spectrum.native.subject.wave)
        np.testing.assert_array_equal(reader.spectrum("s", 0, "common").wave, spectrum.levels[0].subject.wave)
        assert set(reader.column("t_start").tolist()) == {time}
        assert set(reader.column("t_stop").tolist()) == {time + 1e-9}
        for z, level in enumerate(image.levels):
            wcs = reader.image("i", z).wcs
            np.testing.assert_array_equal(wcs.wcs.crval, level.subject.wcs.wcs.crval)
            np.testing.assert_array_equal(wcs.wcs.cd, level.subject.wcs.wcs.cd)
            np.testing.assert_array_equal(wcs.sip.a, level.subject.wcs.sip.a)


def test_errors_are_those_of_the_data_not_copies_of_it(tmp_path):
    rng = np.random.default_rng(1)
    given = [image_observation(rng, f"i{number}", (40, 30)) for number in range(3)]
    write_part(tmp_path / "p.h5", given, SETTINGS)
    with PartReader(tmp_path / "p.h5") as reader:
        for one in given:
            for z, level in enumerate(one.levels):
                planes = reader.planes(one.obs_id, z)
                np.testing.assert_array_equal(planes["variance"], level.subject.variance)
                np.testing.assert_array_equal(planes["flux"], level.subject.data)


def test_a_bad_file_never_lends_its_name_to_other_pixels(tmp_path):
    """What fails in the middle is left out whole; those before and after it keep their own pixels."""
    rng = np.random.default_rng(2)
    good = [image_observation(rng, f"i{number}", (30, 20), 1) for number in range(2)]
    bad = replace(image_observation(rng, "bad", (30, 20), 1), columns=columns("bad", s_ra="not a number"))
    with PartWriter(tmp_path / "p.h5", SETTINGS) as writer:
        writer.add(good[0])
        with pytest.raises(InputError, match="not a number"):
            writer.add(bad)
        writer.add(good[1])
        writer.finish()
    with PartReader(tmp_path / "p.h5") as reader:
        assert reader.obs_ids == ["i0", "i1"]
        for one in good:
            np.testing.assert_array_equal(reader.image(one.obs_id).data, one.levels[0].subject.data)
        with pytest.raises(InputError, match="no observation 'bad'"):
            reader.image("bad")
    with h5py.File(tmp_path / "p.h5") as file:
        assert list(file["semi_sparse_cube/0/images"]) == ["i0", "i1"]


def test_a_killed_writer_leaves_no_file_that_passes_for_a_whole_one(tmp_path):
    rng = np.random.default_rng(3)
    writer = PartWriter(tmp_path / "p.h5", SETTINGS)
    writer.add(image_observation(rng, "i", (200, 150), 1))
    writer.file.flush()
    (tmp_path / "killed.h5").write_bytes((tmp_path / "p.h5").read_bytes())
    writer.file.close()
    for name in ("killed.h5", "p.h5"):
        with pytest.raises(FileFormatError, match="cannot be read"):
            PartReader(tmp_path / name)


def test_threads_that_share_a_reader_get_their_own_pixels(tmp_path):
    rng = np.random.default_rng(4)
    given = [image_observation(rng, f"i{number}", (150, 140), 1, sip=False) for number in range(4)]
    write_part(tmp_path / "p.h5", given, SETTINGS)
    jobs = [(int(number), int(y), int(x)) for number, y, x in rng.integers(0, (4, 90, 80), (200, 3))]
    with PartReader(tmp_path / "p.h5") as reader, ThreadPoolExecutor(4) as pool:

        def cut(job):
            number, y, x = job
            return reader.planes(number, 0, (slice(y, y + 60), slice(x, x + 60)))["flux"]

        for (number, y, x), flux in zip(jobs, pool.map(cut, jobs), strict=True):
            whole: Level = given[number].levels[0]
            np.testing.assert_array_equal(flux, whole.subject.data[y : y + 60, x : x + 60])
