"""Python values as JSON and back without loss: tuples, arrays, quantities and times keep their type."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np

from skyloom.errors import InputError

__all__ = ["from_json", "to_json"]

TAG = "__skyloom__"
_AS_IT_IS = frozenset({type(None), str, bool, int})
_TEXT = frozenset({str})


def to_json(value: object, where: str) -> str:
    """Return ``value`` as JSON text that `from_json` turns back into an equal value.

    Raises
    ------
    InputError
        When something in ``value`` has no such form; ``where`` names the place in the message.
    """
    return json.dumps(_pack(value, where), ensure_ascii=True, allow_nan=False)


def from_json(text: str) -> Any:
    """Return the value that `to_json` wrote."""
    return json.loads(text, object_hook=_unpack)


def _pack(value: object, where: str) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        # JSON has no NaN and no infinities.
        return float(value) if math.isfinite(value) else {TAG: "float", "value": repr(float(value))}
    if isinstance(value, list):
        return [
            item
            if type(item) in _AS_IT_IS or (type(item) is float and math.isfinite(item))
            else _pack(item, where)
            for item in value
        ]
    if isinstance(value, dict):
        return _pack_mapping(value, where)
    if isinstance(value, tuple):
        return {TAG: "tuple", "value": [_pack(item, where) for item in value]}
    if isinstance(value, np.generic):
        return _pack_array(np.asarray(value), "scalar", where)
    if type(value) is np.ndarray:
        return _pack_array(value, "array", where)
    return _pack_astropy(value, where)


def _pack_mapping(value: dict[Any, Any], where: str) -> dict[str, Any]:
    if TAG not in value and (
        _TEXT.issuperset(map(type, value)) or all(isinstance(key, str) for key in value)
    ):
        return {
            key: item
            if type(item) in _AS_IT_IS or (type(item) is float and math.isfinite(item))
            else _pack(item, f"{where}[{key!r}]")
            for key, item in value.items()
        }
    # JSON has text as keys only, and one of them is taken.
    pairs = [[_pack(key, where), _pack(item, f"{where}[{key!r}]")] for key, item in value.items()]
    return {TAG: "dict", "value": pairs}


def _pack_array(array: np.ndarray[Any, Any], kind: str, where: str) -> dict[str, Any]:
    if array.dtype.kind not in "biufcU":
        raise InputError(f"an array of type {array.dtype} cannot be written", field=where)
    content = base64.b64encode(array.tobytes()).decode()
    return {TAG: kind, "dtype": array.dtype.str, "shape": list(array.shape), "value": content}


def _pack_astropy(value: object, where: str) -> dict[str, Any]:
    import astropy.units as u

    if isinstance(value, u.Quantity):
        return {TAG: "quantity", "value": _pack(value.value, where), "unit": value.unit.to_string()}
    if isinstance(value, u.UnitBase):
        return {TAG: "unit", "value": value.to_string()}
    from astropy.time import Time

    if isinstance(value, Time):
        parts = [_pack(np.asarray(part), where) for part in (value.jd1, value.jd2)]
        return {TAG: "time", "value": parts, "format": value.format, "scale": value.scale}
    raise InputError(
        f"a value of type {type(value).__name__} cannot be written",
        field=where,
        remedy="use text, numbers, lists, dicts, arrays, quantities or times",
    )


def _unpack(values: dict[str, Any]) -> Any:
    kind = values.get(TAG)
    if kind is None:
        return values
    content = values["value"]
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(content)
    if kind == "dict":
        return dict(content)
    if kind in ("array", "scalar"):
        flat = np.frombuffer(base64.b64decode(content), dtype=values["dtype"])
        array = flat.reshape(values["shape"]).copy()
        return array if kind == "array" else array[()]
    return _unpack_astropy(kind, content, values)


def _unpack_astropy(kind: str, content: Any, values: dict[str, Any]) -> Any:
    import astropy.units as u

    if kind == "quantity":
        return u.Quantity(content, u.Unit(values["unit"]))
    if kind == "unit":
        return u.Unit(content)
    from astropy.time import Time

    time = Time(*content, format="jd", scale=values["scale"])
    time.format = values["format"]
    return time
