"""Pickles of plain data: numpy arrays, dicts, lists, numbers and text. A file that asks for more is refused by name.

A pickle is a program. Before it runs, its instructions are read without carrying them out (`_inspect`): which there
are, how much they would make, how deep. It then runs with the few names of `pickle_names.NAMES` alone. What it made
is looked over last (`_look_over`).
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from occsora_sim.errors import SceneError
from occsora_sim.scenes.pickle_names import NAMES, Refused

MAX_BYTES = 1 << 29
"""Largest file [bytes]."""

MAX_INSTRUCTIONS = 4_000_000
"""Most instructions in a file; the largest logs known have a few hundred thousand."""

MAX_DEPTH = 64
"""Deepest nesting; logs have about 8."""

MAX_SIZE = 50_000_000
"""Most values, those of arrays too, once shared parts are written out: a few bytes can stand for 2 ** 60 of them."""

_REFUSED = frozenset(
    {
        "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ_EX", "NEXT_BUFFER",
        "READONLY_BUFFER",
    }
)  # fmt: skip
"""Instructions that plain data never needs."""


def load_plain(path: str | Path) -> Any:
    """Read a pickle that holds plain data.

    Returns:
        The data: dict, list, tuple, set, bytes, str, numbers, None, numpy arrays and scalars. A defaultdict, an
        OrderedDict and MetaDrive's ScenarioDescription come as dicts.

    Raises:
        SceneError: the file is missing, too large, truncated, damaged, or asks for anything else; one line that
            names the file and what it asked for.

    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SceneError(f"{path}: {size} bytes, more than {MAX_BYTES}; split it into several scenes")
        content = path.read_bytes()
    except OSError as error:
        raise SceneError(f"{path}: {error.strerror}; give a pickled log") from error
    try:
        _inspect(content)
        data = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        _look_over(data)
    except Refused as error:
        raise SceneError(f"{path}: {error}; only plain data and numpy arrays are read") from error
    except Exception as error:  # a damaged program can fail in any way
        what = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        raise SceneError(f"{path}: no pickle, truncated or damaged ({what}); fetch it again") from error
    return data


def short_text(value: Any) -> str:
    """A name or number as text of at most 80 characters; of anything else, which could be endless, its type."""
    if isinstance(value, str | int | float | np.integer | np.floating) and not isinstance(value, bool):
        return str(value)[:80]
    return "" if value is None else f"<{type(value).__name__}>"


def _inspect(content: bytes) -> None:
    """Follow a pickle's instructions with sizes and depths in place of values.

    Raises:
        Refused: an instruction, a depth or a size that plain data has no use for.
        Exception: of any kind, where the file is damaged or ends early.

    """
    mark = [-1, -1]
    stack: list[list[int]] = []  # [size, depth] of each value; shared where the value is
    memo: dict[int, list[int]] = {}
    count = 0
    argument: Any
    for operation, argument, place in pickletools.genops(content):
        count, position = count + 1, place or 0
        name = operation.name
        if count > MAX_INSTRUCTIONS:
            raise Refused(f"it has more than {MAX_INSTRUCTIONS} instructions")
        if name in _REFUSED:
            raise Refused(f"it uses the instruction {name} at byte {position}")
        if name == "FRAME" and argument > len(content) - position:
            raise EOFError(f"the part at byte {position} says {argument} bytes, and fewer follow")
        if type(argument) is int and name in _INTEGERS and not -(1 << 63) <= argument < 1 << 64:
            raise Refused(f"it holds an integer of {argument.bit_length()} bits")
        if name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            key = len(memo) if name == "MEMOIZE" else argument
            if key > count or stack[-1] is mark:
                raise Refused(f"it makes a memo entry {key} at byte {position}")
            memo[key] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(mark)
        elif name == "DUP" and stack[-1] is not mark:
            stack.append(stack[-1])
        elif name in ("POP", "POP_MARK", "STOP"):
            while stack.pop() is not mark and name == "POP_MARK":
                pass
        else:
            before = operation.stack_before
            parts: list[list[int]] = []
            if pickletools.markobject in before:
                while (top := stack.pop()) is not mark:
                    parts.append(top)
                below = before.index(pickletools.markobject)
            else:
                below = len(before)
            taken = [stack.pop() for _ in range(below)]
            if any(part is mark for part in taken):
                raise Refused(f"{name} at byte {position} has nothing to work on")
            grown = taken[-1] if name in _GROWING else [1, 0]
            parts += taken[:-1] if name in _GROWING else taken
            grown[0] += sum(part[0] for part in parts)
            grown[1] = max([grown[1], *(part[1] + 1 for part in parts)])
            if grown[0] > MAX_SIZE or grown[1] > MAX_DEPTH:
                raise Refused(f"it nests {grown[1]} deep and stands for {grown[0]} values or more")
            stack.append(grown)


_GROWING = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
"""Instructions that add to the value below their arguments."""

_INTEGERS = frozenset({"INT", "LONG", "LONG1", "LONG4"})
"""Instructions that can hold integers of any length, which hash alike and are slow to read."""


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the names of `NAMES` alone."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands in for a name, or a refusal."""
        try:
            return NAMES[module, name]
        except KeyError:
            raise Refused(f"it asks for {module}.{name}"[:120]) from None


_PLAIN = (str, bytes, bytearray, bool, int, float, complex, type(None), np.generic)


def _look_over(data: Any) -> None:
    """See that `data` is plain, has no cycles, and is neither too deep nor, written out, too large.

    Raises:
        Refused: it is not so.

    """
    measured: dict[int, tuple[int, int]] = {}  # size and depth of each container that is done
    open_: set[int] = set()
    stack: list[tuple[Any, bool]] = [(data, False)]
    while stack:
        value, done = stack.pop()
        if id(value) in measured or isinstance(value, _PLAIN):
            continue
        children = list(_children(value))
        if not done:
            if id(value) in open_:
                raise Refused("it holds a container that contains itself")
            open_.add(id(value))
            stack.append((value, True))
            stack += [(child, False) for child in children if not isinstance(child, _PLAIN)]
            continue
        open_.discard(id(value))
        sizes = [measured.get(id(child), (1, 0)) for child in children]
        size, depth = 1 + sum(s for s, _ in sizes), 1 + max((d for _, d in sizes), default=0)
        if isinstance(value, np.ndarray):
            size = max(size, value.size)
        if size > MAX_SIZE or depth > MAX_DEPTH:
            raise Refused(f"it nests {depth} deep and stands for {size} values or more")
        measured[id(value)] = size, depth


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, np.ndarray):
        return value.ravel().tolist() if value.dtype.kind == "O" else ()
    if isinstance(value, dict):
        return (*value.keys(), *value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return value
    raise Refused(f"it holds a {type(value).__name__}")
