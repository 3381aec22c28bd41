"""Files that are open for reading do not stand in the way of an ingest by the same process."""

from __future__ import annotations

from pathlib import Path

import skyloom as sl
from tests.inputs.store_files import good_frame, good_spectrum


def test_a_store_is_added_to_after_its_spectra_were_read(tmp_path: Path) -> None:
    store = sl.store.create(tmp_path / "store", levels=2)
    store.ingest([good_spectrum(tmp_path)])
    name = str(store.spectra()["obs_id"][0])
    before = store.spectrum(name, 1)
    result = store.ingest([good_frame(tmp_path)])
    assert len(result.stored) == 1
    assert len(store) == 2
    assert (store.spectrum(name, 1).data == before.data)[~before.mask].all()
