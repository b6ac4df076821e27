"""Numbers as people write them: text, NumPy numbers and plain ones are taken, what is no number is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from occsora_sim.errors import ConfigurationError


def written(value: object, most: int = 60) -> str:
    """`value` as it was written, in one line of at most `most` characters, for messages."""
    text = " ".join(repr(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def real(value: object, name: str, *, finite: bool = True) -> float:
    """`value` as a float; NaN is never one, infinity only where `finite` is False.

    Raises:
        ConfigurationError: it is no number.

    """
    try:
        number = float(_scalar(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number) or (finite and math.isinf(number)):
        raise ConfigurationError(f"{name}={written(value)}: must be a {'finite ' if finite else ''}number")
    return number


def whole(value: object, name: str, *, least: int | None = None) -> int:
    """`value` as an int: 3, 3.0, "3" and NumPy's; not 3.5, not True.

    Raises:
        ConfigurationError: it is no whole number, or below `least`.

    """
    try:
        scalar: Any = _scalar(value)
        number = int(scalar)
        exact = isinstance(scalar, str) or number == scalar
    except (TypeError, ValueError, OverflowError):
        exact = False
    if not exact or (least is not None and number < least):
        bound = "" if least is None else f", {least} or more"
        raise ConfigurationError(f"{name}={written(value)}: must be a whole number{bound}")
    return number


def settle(config: Any, what: str = "", *, infinite: tuple[str, ...] = ()) -> None:
    """Turn the fields of a frozen dataclass that are declared as numbers into plain ones; None stays where it may be.

    Args:
        config: the dataclass, in its `__post_init__`.
        what: put before the fields' names in messages.
        infinite: names of the fields that may be infinite.

    Raises:
        ConfigurationError: a field holds no number, or not one of its kind.

    """
    given = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    for name, value in plain(type(config), given, what, infinite=infinite).items():
        object.__setattr__(config, name, value)


def plain(
    kind: type, values: Mapping[str, Any], what: str = "", *, infinite: tuple[str, ...] = ()
) -> dict[str, Any]:
    """`values` of fields of the dataclass `kind`, with plain numbers where it declares numbers; as `settle`."""
    found = dict(values)
    for entry in fields(kind):
        declared, _, rest = str(entry.type).partition(" | ")
        if declared not in ("int", "float") or entry.name not in found:
            continue
        value, name = found[entry.name], what + entry.name
        if value is not None or rest != "None":
            number = (
                whole(value, name)
                if declared == "int"
                else real(value, name, finite=entry.name not in infinite)
            )
            found[entry.name] = number
    return found


def _scalar(value: object) -> object:
    """The one number that a NumPy number or an array without axes holds; text as it is; no bool."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes) or np.ndim(value):  # type: ignore[arg-type]
        raise TypeError("not one number")
    found = np.asarray(value).item()
    if isinstance(found, bool):
        raise TypeError("a truth value")
    return found
