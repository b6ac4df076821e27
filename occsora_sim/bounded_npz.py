"""Arrays of an .npz that somebody else may have written: sizes are looked at before memory is taken for them."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

MAX_BYTES = 1 << 32
"""Most bytes of all arrays of a file together."""

MAX_ARRAYS = 64

_ALWAYS = 1 << 28  # bytes that a file of any size may hold
_RATIO = 250  # and as many times its own size; recorded voxels are packed 20 to 60 times, an archive of zeros 1,000
_PIECE = 1 << 20  # bytes that are unpacked at once
_LARGEST_HEADER = 10_000  # of an array [bytes]; usual ones have 128
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what else zipfile unpacks, it unpacks without a bound


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file, by name.

    Raises:
        ValueError: the file is no npz, is damaged, holds other than numbers and flags, or more of them than it may.
        OSError: it cannot be read.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MAX_ARRAYS:
                raise ValueError(f"holds {len(members)} arrays, more than {MAX_ARRAYS}")
            total = sum(member.file_size for member in members)
            if total > min(MAX_BYTES, _ALWAYS + _RATIO * path.stat().st_size):
                raise ValueError(f"unpacks to {total} bytes, more than a file of its size may")
            names = [member.filename.removesuffix(".npy") for member in members]
            return {name: read_array(archive, name) for name in names}
    except OSError:
        raise
    except ValueError as error:  # NumPy's own ones quote all of a header
        raise ValueError((str(error).splitlines() or ["is damaged"])[0][:200]) from error
    except Exception as error:  # a damaged archive can fail in any way
        raise ValueError("is truncated or no npz file") from error


def read_array(archive: zipfile.ZipFile, name: str, most: int = MAX_BYTES) -> np.ndarray:
    """The array of one member, of `most` bytes at most.

    Raises:
        KeyError: there is none of this name.
        ValueError: it takes more bytes, does not hold what its header says, or other than numbers and flags.
        Exception: of any kind, where the archive is damaged.

    """
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in _PACKED:
        raise ValueError(f"holds {name} in an unknown form")
    if member.file_size > most + _LARGEST_HEADER:
        raise ValueError(f"{name} takes {member.file_size} bytes, more than {most}")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"holds {name} of the unknown version {version}")
        header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, by_column, dtype = header(file, max_header_size=_LARGEST_HEADER)
        if dtype.hasobject:
            raise ValueError("holds pickled objects")
        if dtype.kind not in "biufc" or dtype.subdtype is not None:
            raise ValueError(f"holds {name} of the type {str(dtype)[:40]}")
        size = math.prod(shape) * dtype.itemsize
        if not all(0 <= side <= MAX_BYTES for side in shape) or file.tell() + size != member.file_size:
            raise ValueError(
                f"holds {name} of {str(shape)[:80]}, which does not fit its {member.file_size} bytes"
            )
        array = np.empty(shape, dtype, order="F" if by_column else "C")
        room = array.reshape(-1, order="A").view(np.uint8)
        place = 0
        while place < size and (piece := file.read(min(_PIECE, size - place))):
            room[place : place + len(piece)] = np.frombuffer(piece, np.uint8)
            place += len(piece)
        if place < size or file.read(1):
            raise ValueError(f"{name} is truncated")
    return array
