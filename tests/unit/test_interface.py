"""The interface that scripts are written against: every name is there, and means the function."""

from __future__ import annotations

import subprocess
import sys

import pytest

import skyloom as sl

# What the documentation promises; renaming one of these breaks the scripts of users.
PROMISED = {
    "imaging": ("match_psf", "reproject", "sum_regions"),
    "spectral": (
        "line_snr",
        "bin_to_snr",
        "extract_spectra",
        "fit_lines",
        "to_rest_frame",
        "deredden",
        "resample",
        "find_regions",
        "paint",
    ),
}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PROMISED.items() for name in names]
)
def test_promised_functions_are_there(module, name):
    function = getattr(getattr(sl, module), name)
    assert callable(function)
    assert function.__doc__


@pytest.mark.parametrize("module", ["imaging", "spectral"])
def test_every_listed_name_is_there(module):
    package = getattr(sl, module)
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))


def test_a_function_wins_over_the_module_of_its_name():
    code = "import skyloom.spectral.axes.resample, skyloom as sl; assert callable(sl.spectral.resample)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute"):
        _ = sl.spectral.fit_linse
