"""What the names in a pickle of plain data stand for. None of them is numpy's own: numpy restores a type from a state
that it does not check.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

MAX_EMPTY = 100_000
"""Largest side of an array without a value."""

_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,5}|O8?)")
"""numpy types that arrays may have."""


class Refused(Exception):
    """What a pickle asks for and does not get."""


class Name:
    """Stands for a name in a pickle: it can be called if a function is given, and nothing else."""

    __slots__ = ("_call", "_text")

    def __init__(self, text: str, call: Callable[..., Any] | None = None) -> None:
        self._text, self._call = text, call

    def __call__(self, *arguments: Any) -> Any:
        """What the name makes of `arguments`."""
        if self._call is None:
            raise Refused(f"it calls {self._text}")
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused(f"it changes {self._text}")


class _Type:
    """A numpy type while it is read: its text, and its byte order once that is known."""

    __slots__ = ("_order", "_text")

    def __init__(self, text: Any, *_: Any) -> None:
        if not (isinstance(text, str) and _NUMBERS.fullmatch(text)):
            raise Refused(f"it holds a numpy array of type {text!r}"[:120])
        self._text, self._order = text.lstrip("<>|="), text[0] if text[0] in "<>|=" else "="

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) >= 5 and state[1] in ("<", ">", "|", "=")):
            raise Refused("it holds a numpy type with an unknown state")
        if any(part is not None for part in state[2:5]):
            raise Refused("it holds a numpy type made of fields")
        self._order = state[1]

    def real(self) -> np.dtype[Any]:
        """The type itself, made anew."""
        return np.dtype(self._text if self._text in ("O", "O8") else self._order + self._text)


class _Array(np.ndarray):
    """An array while it is read: its state is checked before it is taken over."""

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _Type)):
            raise Refused("it holds a numpy array with an unknown state")
        _, shape, kind, by_column, values = state
        made = _filled(values, kind, shape, "F" if by_column else "C")
        super().__setstate__((1, made.shape, made.dtype, False, _raw(made)))  # type: ignore[arg-type]


def _raw(array: np.ndarray) -> Any:
    """What numpy restores an array from: its bytes, or a list of its objects."""
    return array.ravel().tolist() if array.dtype.kind == "O" else array.tobytes()


def _filled(values: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    """An array of `values`, which must be as many as `shape` says; its axes in another order for order "K"."""
    if not isinstance(kind, _Type) or order not in ("C", "F", "K") or (order == "K") == (axes is None):
        raise Refused("it holds a numpy array with an unknown state")
    if not (isinstance(shape, tuple) and len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)):
        raise Refused("it holds a numpy array of an impossible shape")
    if axes is not None:
        return _filled(values, kind, shape, "C").transpose(axes)
    dtype, count = kind.real(), math.prod(shape)
    if dtype.kind == "O":
        if not (isinstance(values, list) and len(values) == count):
            raise Refused(f"a numpy array of shape {shape} does not hold as many values")
        flat = np.empty(count, dtype=object)
        flat[:] = values
        return flat.reshape(shape, order=order)
    if isinstance(values, str):  # the oldest protocols write bytes as text
        values = values.encode("latin1")
    if not (isinstance(values, bytes | bytearray) and len(values) == count * dtype.itemsize):
        raise Refused(f"a numpy array of shape {shape} does not hold as many values")
    if count == 0:
        if max(shape) > MAX_EMPTY:
            raise Refused(f"it holds an empty numpy array of shape {shape}")
        return np.zeros(shape, dtype=dtype)
    return np.frombuffer(bytes(values), dtype=dtype).reshape(shape, order=order)


def _empty_array(subtype: Any, shape: Any, _: Any) -> _Array:
    if subtype is not NAMES["numpy", "ndarray"] or shape != (0,):
        raise Refused("it makes a numpy array in an unknown way")
    return np.zeros(0, dtype=np.float64).view(_Array)


def _scalar(kind: Any, value: Any = b"") -> Any:
    return _filled(value if not isinstance(value, _Type) else b"", kind, (), "C")[()]


def _dict(*arguments: Any) -> dict[Any, Any]:
    if not arguments or (len(arguments) == 1 and isinstance(arguments[0], Name)):
        return {}  # a defaultdict with its factory
    if len(arguments) == 1 and isinstance(arguments[0], list):
        return {key: value for key, value in arguments[0]}
    raise Refused("it makes a dict in an unknown way")


class _Fixed(type):
    """A type that a pickle cannot change."""

    def __setstate__(cls, state: Any) -> NoReturn:
        raise Refused(f"it changes {cls.__name__}")

    def __setattr__(cls, name: str, value: Any) -> NoReturn:
        raise Refused(f"it changes {cls.__name__}")


class ScenarioDescription(metaclass=_Fixed):
    """Stands for MetaDrive's own kind of dict, and makes plain ones. A type, as pickles of objects ask for one."""

    def __new__(cls, *arguments: Any) -> dict[Any, Any]:  # type: ignore[misc]
        """An empty dict; the pickle fills it."""
        if arguments:
            raise Refused("it makes a ScenarioDescription in an unknown way")
        return {}


def _object(*arguments: Any) -> dict[Any, Any]:
    """The dict that the oldest protocols make an object of a kind of dict from."""
    if len(arguments) != 3 or arguments[0] is not ScenarioDescription or not isinstance(arguments[2], dict):
        raise Refused("it makes an object in an unknown way")
    return dict(arguments[2])


def _bytes(*arguments: Any) -> bytes:
    if not arguments:
        return b""
    if len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
        return arguments[0].encode("latin1")
    raise Refused("it makes bytes in an unknown way")


def _bytearray(*arguments: Any) -> bytes:
    if arguments and not isinstance(arguments[0], bytes):
        raise Refused(f"it makes a bytearray from {type(arguments[0]).__name__}")
    return arguments[0] if arguments else b""


def _set(*arguments: Any) -> set[Any]:
    if len(arguments) > 1 or (arguments and not isinstance(arguments[0], list)):
        raise Refused("it makes a set in an unknown way")
    return set(*arguments)


def _complex(*arguments: Any) -> complex:
    if len(arguments) != 2 or not all(type(part) is float for part in arguments):
        raise Refused("it makes a complex number in an unknown way")
    return complex(*arguments)


def _names() -> Iterator[tuple[tuple[str, str], Name | type]]:
    for core in ("numpy.core", "numpy._core"):
        yield (f"{core}.multiarray", "_reconstruct"), Name("numpy._reconstruct", _empty_array)
        yield (f"{core}.multiarray", "scalar"), Name("numpy.scalar", _scalar)
        yield (f"{core}.numeric", "_frombuffer"), Name("numpy._frombuffer", _filled)
    yield ("numpy", "ndarray"), Name("numpy.ndarray")
    yield ("numpy", "dtype"), Name("numpy.dtype", _Type)
    yield ("collections", "defaultdict"), Name("defaultdict", _dict)
    yield ("collections", "OrderedDict"), Name("OrderedDict", _dict)
    for module in ("metadrive.scenario.scenario_description", "metadrive.scenario"):
        yield (module, "ScenarioDescription"), ScenarioDescription
    for module in ("copyreg", "copy_reg"):
        yield (module, "_reconstructor"), Name("copyreg._reconstructor", _object)
    yield ("_codecs", "encode"), Name("codecs.encode", _bytes)
    calls = {"bytes": _bytes, "bytearray": _bytearray, "set": _set, "frozenset": _set, "complex": _complex}
    factories = dict.fromkeys(("int", "long", "float", "str", "bool", "list", "tuple", "dict"))
    for module in ("builtins", "__builtin__"):
        for name, call in {**factories, **calls}.items():
            yield (module, name), Name(name, call)


NAMES: dict[tuple[str, str], Name | type] = dict(_names())
"""The names that a pickle may use, and what stands in for them."""
