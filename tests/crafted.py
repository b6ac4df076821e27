"""Files made by somebody who means harm: small, and asking for memory, time or places that they should not get."""

from __future__ import annotations

import json
import lzma
import struct
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from occsora_sim.checkpoint import FORMAT, VERSION

DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 100_000
NASTY = (
    "../../escaped",
    "/etc/escaped",
    "..",
    ".hidden",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "\x1b[31mred",
    "",
    "n" * 5000,
)
"""Names that lead elsewhere, change a terminal, or are none."""


def member(content: bytes, **lies: int) -> dict[str, Any]:
    """A stored member of an archive."""
    entry = {"data": content, "method": 0, "size": len(content), "crc": zlib.crc32(content), "flags": 0}
    return entry | lies


def zeros_member(header: bytes, count: int) -> dict[str, Any]:
    """A deflated member of `count` MiB of zeros behind a header: a thousand times smaller than it says."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    begin = packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    data = begin + piece * count + packer.flush()
    return {"data": data, "method": 8, "size": len(header) + (count << 20), "crc": 0, "flags": 0}


def archive(members: Mapping[str, dict[str, Any]] | list[tuple[str, dict[str, Any]]]) -> bytes:
    """A zip of members, written by hand, so that it may lie."""
    body, directory = bytearray(), bytearray()
    entries = list(members.items() if isinstance(members, Mapping) else members)
    for name, entry in entries:
        fields = struct.pack(
            "<HHHHHIIIHH", 20, entry["flags"], entry["method"], 0, 33, entry["crc"], len(entry["data"]),
            min(entry["size"], 0xFFFFFFFE), len(name.encode()), 0,
        )  # fmt: skip
        directory += b"PK\1\2" + struct.pack("<H", 20) + fields
        directory += struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name.encode()
        body += b"PK\3\4" + fields + name.encode() + entry["data"]
    end = struct.pack(
        "<HHHHIIH", 0, 0, len(entries) & 0xFFFF, len(entries) & 0xFFFF, len(directory), len(body), 0
    )
    return bytes(body + directory) + b"PK\5\6" + end


def array_header(shape: str, descr: str = "'|u1'", version: int = 1, length: int | None = None) -> bytes:
    """The header of an .npy that says of itself what it likes."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    kind = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(kind, length or len(text)) + text


def npy(values: np.ndarray) -> bytes:
    """An honest .npy."""
    return array_header(str(values.shape), repr(values.dtype.str)) + values.tobytes()


def rollout_arrays(**changes: Any) -> dict[str, np.ndarray]:
    """The arrays of a sound rollout of two frames; `changes` of its header."""
    header: dict[str, Any] = {
        "format": "occsora-sim rollout",
        "version": 2,
        "grid": {"shape": [8, 8, 4], "voxel": 1.0, "lower": [-4.0, -4.0, -1.0]},
        "header": {"world": "replay"},
        "steps": [],
    }
    text = json.dumps(header | changes).encode()
    return {
        "header": np.frombuffer(text, np.uint8),
        "occupancy": np.full((2, 8, 8, 4), 17, np.uint8),
        "ego_pose": np.zeros((2, 3), np.float32),
        "actions": np.zeros((1, 2), np.float32),
        "rewards": np.zeros(1, np.float32),
        "planned": np.zeros((2, 0, 3), np.float32),
        "route": np.zeros((0, 2), np.float32),
    }


def rollouts() -> dict[str, bytes]:
    """Bad rollouts, by what is bad about them."""
    sound = {f"{name}.npy": member(npy(value)) for name, value in rollout_arrays().items()}
    made: dict[str, bytes] = {}

    def put(name: str, **members: dict[str, Any] | bytes) -> None:
        given = {
            f"{key}.npy": member(value) if isinstance(value, bytes) else value
            for key, value in members.items()
        }
        made[name] = archive({**sound, **given})

    put("4 GiB of zeros", occupancy=zeros_member(array_header("(16777216, 8, 8, 4)"), 4095))
    put("400 MiB of zeros", occupancy=zeros_member(array_header("(1638400, 8, 8, 4)"), 400))
    put("zeros in an array that nobody needs", more=zeros_member(array_header(f"({1 << 31},)"), 2048))
    for shape in (
        "(1099511627776,)", "(4611686018427387904, 4611686018427387904)", "(-1,)", "(-1, -1, -1, -1)", "(2.5,)", "2",
        "(True,)", "('x',)", "(" * 5000 + ")" * 5000, "(" + "1," * 60 + ")", "(0, 4611686018427387904)", "[2]", "None",
    ):  # fmt: skip
        put(f"shape {shape[:30]}", occupancy=array_header(shape) + bytes(512))
    for descr in (
        "'|O'", "'|V8'", "'<U1000000000'", "'|S1'", "'<M8[s]'", "[('a', '<f8')]", "('<f8', (1000000,))", "'x'", "None",
        "'<f8'", "'<c16'", "1", "[" * 3000 + "]" * 3000,
    ):  # fmt: skip
        put(f"type {descr[:30]}", occupancy=array_header("(2, 8, 8, 4)", descr) + bytes(512))
    for version, length in ((1, 60000), (2, 1 << 31), (3, None), (9, None)):
        put(
            f"header of version {version}, {length} bytes",
            occupancy=array_header("(2, 8, 8, 4)", version=version, length=length) + bytes(512),
        )
    content = npy(np.zeros((2, 8, 8, 4), np.uint8))
    for method in (1, 9, 12, 14, 93, 99):
        put(f"packed by method {method}", occupancy=member(content, method=method))
    put("deflated, and is not", occupancy=member(content, method=8))
    put("encrypted", occupancy=member(content, flags=1))
    put("another sum", occupancy=member(content, crc=1))
    for size in (0, 10, len(content) - 1, len(content) + 1, 1 << 31):
        put(f"says {size} bytes", occupancy=member(content, size=size))
    put("no array", occupancy=b"nothing")
    put("an empty array", occupancy=b"")
    made["sixty thousand arrays"] = archive([(f"{k}.npy", member(b"")) for k in range(60_000)])
    made["one name twice"] = archive([*sound.items(), ("header.npy", member(b"x"))])
    made["a name that leads elsewhere"] = archive({**sound, "../../escaped.npy": member(content)})
    whole = archive(sound)
    for share in (0.0, 0.1, 0.5, 0.9, 0.99):
        made[f"cut at {share}"] = whole[: int(share * len(whole))]
    made["text"], made["no archive"] = b"a rollout, surely", npy(np.zeros(3))
    for text in (
        DEEP,
        LONG,
        f'{{"format": {DEEP}}}',
        "null",
        "[]",
        "{}",
        "NaN",
        "[" + "0," * 2_000_000 + "0]",
    ):
        put(f"header {text[:20]}", header=npy(np.frombuffer(text.encode(), np.uint8)))
    grid = {"shape": [8, 8, 4], "voxel": 1.0, "lower": [-4.0, -4.0, -1.0]}
    some: tuple[dict[str, Any], ...] = (
        {"version": 99}, {"version": LONG}, {"version": []}, {"format": LONG}, {"steps": 3}, {"steps": None},
        {"steps": [1, 2]}, {"header": 3}, {"header": []}, {"grid": None}, {"grid": grid | {"shape": [8, 8]}},
        {"grid": grid | {"shape": [1, 1, 256]}}, {"grid": grid | {"shape": [100_000_000, 1, 1]}},
        {"grid": grid | {"shape": ["8", 8, 4]}}, {"grid": grid | {"shape": LONG}}, {"grid": grid | {"voxel": 0}},
        {"grid": grid | {"voxel": 1e300}}, {"grid": grid | {"voxel": "1"}}, {"grid": grid | {"lower": [0, 0]}},
        {"grid": grid | {"lower": [1e300, 0, 0]}}, {"grid": grid | {"lower": [float("nan")] * 3}},
    )  # fmt: skip
    for changes in some:
        arrays = rollout_arrays(**changes)
        made[f"header with {str(changes)[:60]}"] = archive(
            {f"{name}.npy": member(npy(value)) for name, value in arrays.items()}
        )
    for name, value in (
        ("route", np.array([[0, 0], [1e30, 0]], np.float32)), ("planned", np.full((2, 1, 3), np.inf, np.float32)),
        ("ego_pose", np.full((2, 3), 1e20, np.float32)), ("ego_pose", np.full((2, 3), np.nan, np.float32)),
        ("occupancy", np.full((2, 8, 8, 4), 200, np.uint8)), ("occupancy", np.zeros((0, 8, 8, 4), np.uint8)),
        ("rewards", np.zeros(10_000, np.float32)), ("steps", np.zeros(1)), ("users", np.zeros(1)),
        ("road_user_pose", np.zeros((2, 1, 3), np.float32)), ("planned", np.zeros((), np.float32)),
    ):  # fmt: skip
        put(f"{name} {value.dtype} {value.shape} {value.ravel()[:1]}", **{name: npy(value)})
    return made


def safetensors(table: Mapping[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file whose table says what it likes."""
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tables(metadata: Mapping[str, str]) -> dict[str, bytes]:
    """Safetensors files that are damaged whatever they hold."""

    def one(dtype: str, shape: list[int], begin: int, end: int, data: bytes = b"") -> bytes:
        table = {
            "__metadata__": dict(metadata),
            "a": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]},
        }
        return safetensors(table, data)

    made = {
        "nothing": b"",
        "text": b"weights, surely",
        "header of 2 ** 63 bytes": safetensors({}, length=1 << 63),
        "header of 99 MB that are not there": safetensors({}, length=99_000_000),
        "header that nests": struct.pack("<Q", len(DEEP)) + DEEP.encode(),
        "metadata that nests": struct.pack("<Q", len(DEEP) + 17) + b'{"__metadata__":' + DEEP.encode() + b"}",
        "tensor of 2 ** 60 numbers": one("F32", [1 << 60], 0, 1 << 62),
        "tensor of 2 ** 128 numbers": one("F32", [1 << 32] * 4, 0, 8, bytes(8)),
        "tensor beyond the file": one("F32", [2], 1 << 40, (1 << 40) + 8, bytes(8)),
        "tensor that ends before it begins": one("F32", [2], 8, 0, bytes(8)),
        "tensor of an unknown type": one("PICKLE", [2], 0, 8, bytes(8)),
        "tensor of a negative side": one("F32", [-2], 0, 8, bytes(8)),
    }
    overlap = {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}
    made["tensors that overlap"] = safetensors({"__metadata__": dict(metadata), **overlap}, bytes(8))
    return made


def checkpoint(header: Any, tensors: Mapping[str, torch.Tensor]) -> bytes:
    """A checkpoint with a header that says what it likes; text goes in as it is."""
    text = header if isinstance(header, str) else json.dumps(header)
    return save(dict(tensors), {"format": FORMAT, "version": str(VERSION), "header": text})


def lzma_member(content: bytes) -> bytes:
    """`content` as an archive holds it when it is packed by LZMA."""
    packed = lzma.compress(content, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "preset": 0}])
    return b"\x09\x04\x05\0" + packed


def sparse_tar(size: int) -> bytes:
    """A tar with a scene file of `size` zeros that takes no room in it."""
    info = tarfile.TarInfo("000000.safetensors")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, 0)
    header[483:495] = size.to_bytes(12, "big") if size >= 8**11 else b"%011o\0" % size
    if size >= 8**11:
        header[483] |= 0x80
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def sparse(path: Path, size: int) -> None:
    """A file of `size` bytes that takes no room."""
    with path.open("wb") as file:
        file.truncate(size)
