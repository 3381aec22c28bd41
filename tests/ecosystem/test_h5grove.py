"""A packed store behind h5grove, which h5web talks to: attributes and slices are those of the file."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from tests.inputs.ecosystem_products import needs
from tests.inputs.export_stores import make_odd_store


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    needs("h5grove")
    folder = tmp_path_factory.mktemp("grove")
    store = make_odd_store(folder)
    return store, store.pack(folder / "all.h5")


def datasets(path):
    """Names of all arrays of numbers with two dimensions or more."""
    found = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
        return [
            name
            for name in found
            if file[name].ndim >= 2 and file[name].dtype.kind in "fiu" and file[name].size
        ]


def grove(path, name):
    from h5grove.content import get_content_from_file

    return get_content_from_file(path, name, lambda status, message: AssertionError(f"{status}: {message}"))


def test_slices_are_served_as_they_are(packed):
    from h5grove.encoders import encode

    _, path = packed
    names = datasets(path)
    assert names
    for name in names[:12]:
        with h5py.File(path) as file:
            expected = file[name][0]
            kind = file[name].dtype
        with grove(path, f"/{name}") as content:
            response = encode(content.data("0"), "bin")
            assert content.metadata()["shape"] == h5py_shape(path, name)
        body = response.content if isinstance(response.content, bytes) else b"".join(response.content)
        served = np.frombuffer(body, kind)
        np.testing.assert_array_equal(served, np.ravel(expected), err_msg=name)


def h5py_shape(path, name):
    with h5py.File(path) as file:
        return file[name].shape


def test_groups_and_attributes_are_json(packed):
    from h5grove.encoders import encode

    _, path = packed
    with h5py.File(path) as file:
        names = dict(file.attrs)
        children = sorted(file)
    with grove(path, "/") as content:
        told = json.loads(encode(content.metadata(), "json").content)
        attributes = content.attributes()
    assert sorted(child["name"] for child in told["children"]) == children
    assert set(attributes) == set(names)
    json.loads(encode(attributes, "json").content)


def test_pixels_of_an_image_are_those_of_the_store(packed):
    """By way of h5grove, values are in the file's own form; the store's reading of the same file is its meaning."""
    store, path = packed
    from skyloom.store import open as open_store

    with open_store(path) as again:
        name = str(store.images()["obs_id"][0])
        np.testing.assert_array_equal(again.cutout(name).data, store.cutout(name).data)
