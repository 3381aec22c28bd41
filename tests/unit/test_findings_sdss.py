"""Defects that were measured in existing pipelines for SDSS data, each as a test that fails with the defect."""

from __future__ import annotations

import numpy as np

from skyloom.io.sdss.frame import frame_errors, read_frame
from skyloom.io.sdss.spec import read_sdss_spectrum
from tests.inputs.sdss_files import frame_hdus, spectrum_hdus, write


def test_wavelengths_are_not_rounded(tmp_path):
    """Stored with the lossy compression of the flux, 4620 wavelengths became 622."""
    wave = read_sdss_spectrum(write(tmp_path / "spec.fits", spectrum_hdus(4620, first=35512))).wave
    assert wave.dtype == np.float64
    assert np.unique(wave).size == 4620
    np.testing.assert_allclose(np.diff(np.log10(wave)), 1e-4, rtol=1e-9)


def test_times_tell_rows_apart(tmp_path):
    """In single precision, times had steps of 512 s; a row of a drift scan lasts 26 ms."""
    start, step = read_frame(write(tmp_path / "frame.fits", frame_hdus())).meta["row_time"]
    seconds = (start + step * np.arange(1489)) * 86400
    np.testing.assert_allclose(np.diff(seconds), 0.026322, atol=2e-6)


def test_ratio_of_error_and_signal_is_unknown_where_there_is_no_signal(tmp_path):
    """Zeros in place of infinities claimed pixels without light to be free of error."""
    hdus = frame_hdus()
    hdus[0].data[2, 3] = 0.0
    steps = frame_errors(write(tmp_path / "frame.fits", hdus))
    assert np.isnan(steps.error_to_signal[2, 3])
    assert np.nanmin(steps.error_to_signal) > 0
