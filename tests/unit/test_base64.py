"""Base64 of blocks against that of the standard library."""

from __future__ import annotations

import binascii

import numpy as np
import pytest

from skyloom.kernels.tables.base64 import encode_triples, pair_table


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("n", [0, 1, 2, 257])
def test_letters_are_those_of_the_standard_library(n, compiled):
    data = np.random.default_rng(n).integers(0, 256, 3 * n, dtype=np.uint8)
    out = np.empty(2 * n, np.uint16)
    function = encode_triples if compiled else encode_triples.py_func
    function(data, pair_table(), out)
    assert out.tobytes() == binascii.b2a_base64(data.tobytes(), newline=False)


def test_every_group_of_twelve_bits():
    words = np.arange(4096, dtype=np.uint32)
    data = np.stack([words >> 4, (words & 15) << 4, words * 0], axis=1).astype(np.uint8).ravel()
    out = np.empty(2 * 4096, np.uint16)
    encode_triples(data, pair_table(), out)
    assert out.tobytes() == binascii.b2a_base64(data.tobytes(), newline=False)
