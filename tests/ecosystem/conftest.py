"""Products of every kind, made once for all programs that must read them."""

from __future__ import annotations

import pytest
from tests.inputs.ecosystem_products import write_all


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("products"))
