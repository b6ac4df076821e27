"""JSON of a file that somebody else may have written: as many values and as deep as is asked for, and no more."""

from __future__ import annotations

import json
from typing import Any

MAX_VALUES = 1_000_000
"""Most values of a header; the largest, of a long rollout's steps, has some ten thousand."""

MAX_DEPTH = 32
"""Deepest nesting; a recipe with its configurations has about 8."""


def parse_json(text: str | bytes, most: int = MAX_VALUES) -> Any:
    """What `text` says.

    Args:
        text: UTF-8 where it is bytes.
        most: values that it may hold. They are counted by their commas and brackets before anything is made of them.

    Raises:
        ValueError: it is no JSON, holds more values, or nests deeper than MAX_DEPTH.

    """
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > most:
        raise ValueError(f"it holds more than {most} values")
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deep") from None
    level = [found]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for part in level
            if isinstance(part, dict | list)
            for child in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return found
    raise ValueError(f"it nests deeper than {MAX_DEPTH}")
