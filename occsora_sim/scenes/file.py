"""Scene files: one vector scene in a safetensors file, checked when written and when read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from occsora_sim.atomic_file import atomic_path
from occsora_sim.bounded_json import parse_json
from occsora_sim.errors import SceneError
from occsora_sim.grid import FREE
from occsora_sim.quantities import written
from occsora_sim.scenes.scene import Scene

KIND = "occsora-sim/scene"
VERSION = 1
SUFFIX = ".safetensors"

FIELDS: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "polygon_points": ("float32", ("corners", 2)),
    "polygon_offsets": ("int64", ("polygons+1",)),
    "polygon_class": ("uint8", ("polygons",)),
    "polygon_z": ("float32", ("polygons", 2)),
    "lane_points": ("float32", ("lane corners", 2)),
    "lane_offsets": ("int64", ("lanes+1",)),
    "lane_width": ("float32", ("lanes",)),
    "track_state": ("float32", ("tracks", "steps", 5)),
    "track_valid": ("bool", ("tracks", "steps")),
    "track_size": ("float32", ("tracks", 3)),
    "track_class": ("uint8", ("tracks",)),
    "ego_pose": ("float32", ("egos", "steps", 3)),
    "ego_valid": ("bool", ("egos", "steps")),
    "ego_track": ("int64", ("egos",)),
    "route_points": ("float32", ("route corners", 2)),
    "route_offsets": ("int64", ("egos+1",)),
}
"""Type and shape of each array of a scene; a name stands for one number throughout the scene."""

MAX_BYTES = 1 << 28
"""Largest file [bytes]; the largest towns have 2 MB."""

MAX_STATES = 20_000_000
"""Most states, known or not, of all tracks or ego motions together; the largest towns have 100,000."""

_PACKED = {"track_state": "track_valid", "ego_pose": "ego_valid"}
"""Stored for the valid steps alone."""

_NAME = re.compile(r"[^\W_][\w .,+=@()-]{0,199}")
"""Names of scenes: files are called after them, so they lead to no other folder."""

_FAR = 1e9
"""No number of a scene is as large [m, m/s, rad]."""

_RAGGED = {
    "polygon_points": "polygon_offsets",
    "lane_points": "lane_offsets",
    "route_points": "route_offsets",
}


def save_scene(scene: Scene, path: str | Path) -> None:
    """Write a scene file, whole or not at all. States of invalid steps read back as zeros.

    Raises:
        SceneError: the scene breaks a rule of `Scene` (the message names it), or the file cannot be written.

    """
    path = Path(path)
    content = write_scene(scene, str(path))
    with atomic_path(path, SceneError) as temporary:
        temporary.write_bytes(content)


def write_scene(scene: Scene, where: str) -> bytes:
    """The content of a scene file.

    Raises:
        SceneError: the scene breaks a rule of `Scene`; the message begins with `where`.

    """
    arrays = {name: np.asarray(getattr(scene, name)) for name in FIELDS}
    check_scene(arrays, scene.dt, scene.ego_kind, where)
    for name, valid in _PACKED.items():
        arrays[name] = arrays[name][arrays[valid]]
    text = {
        "name": scene.name,
        "dt": scene.dt,
        "ego_kind": list(scene.ego_kind),
        "attributes": scene.attributes,
    }
    metadata = {"kind": KIND, "version": str(VERSION), "scene": json.dumps(text, allow_nan=False)}
    return save_tensors({n: np.ascontiguousarray(a) for n, a in arrays.items()}, metadata=metadata)


def load_scene(path: str | Path) -> Scene:
    """Read a scene file.

    Raises:
        SceneError: the file is missing, truncated, foreign, of another version, or breaks a rule of `Scene`;
            the message is one line and names the file and the field.

    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SceneError(f"{path}: {size} bytes, more than {MAX_BYTES}; split it into several scenes")
        content = path.read_bytes()
    except OSError as error:
        raise SceneError(f"{path}: {error.strerror}; give a scene file ({SUFFIX})") from error
    return read_scene(content, path)


def read_scene(content: bytes, path: Path) -> Scene:
    """A scene of the content of a scene file; messages name it as `path`. Raises as `load_scene`."""
    text = _read_text(content, path)
    try:
        arrays = load_tensors(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise SceneError(f"{path}: truncated or damaged ({_short(error)}); make it again") from error
    for name in FIELDS:
        if name not in arrays:
            raise SceneError(f"{path}: {name} is missing; make the file again")
    for name, valid in _PACKED.items():
        arrays[name] = _unpack(arrays[name], arrays[valid], name, path)
    arrays = {name: arrays[name] for name in FIELDS}
    check_scene(arrays, text["dt"], text["ego_kind"], str(path))
    return Scene(
        name=text["name"],
        dt=float(text["dt"]),
        ego_kind=tuple(text["ego_kind"]),
        attributes=text["attributes"],
        **arrays,
    )


def check_scene(arrays: dict[str, np.ndarray], dt: float, ego_kind: Any, where: str) -> None:
    """See that the arrays of a scene have the types and shapes of FIELDS and agree with each other.

    Raises:
        SceneError: with one line that begins with `where` and names the field.

    """

    def refuse(field: str, what: str) -> None:
        raise SceneError(f"{where}: {field} {what}; make the scene again")

    if not (isinstance(dt, int | float) and 1e-3 <= dt <= 60):
        refuse("dt", f"is {written(dt)}, not a number of seconds from 0.001 to 60")
    sizes: dict[str, int] = {}
    for name, (kind, shape) in FIELDS.items():
        array = arrays[name]
        if array.dtype != np.dtype(kind):
            refuse(name, f"is {array.dtype}, not {kind}")
        if array.ndim != len(shape):
            refuse(name, f"has shape {array.shape}, not ({', '.join(map(str, shape))})")
        for axis, size in zip(array.shape, shape, strict=True):
            known, extra = (
                (size, 0) if isinstance(size, int) else (size.removesuffix("+1"), int("+1" in size))
            )
            expected = known if isinstance(known, int) else sizes.setdefault(known, axis - extra)
            if axis != expected + extra:
                refuse(name, f"has shape {array.shape}; {size} should be {expected + extra}")
    if sizes["steps"] < 1:
        refuse("track_valid", "has no time step")
    for name in FIELDS:
        values = arrays[name][arrays[_PACKED[name]]] if name in _PACKED else arrays[name]
        if values.dtype.kind == "f" and not (np.abs(values) < _FAR).all():
            refuse(name, f"holds a value that is not finite, or beyond {_FAR:g}")
    for points, name in _RAGGED.items():
        offsets = arrays[name]
        if offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != len(arrays[points]):
            refuse(name, f"does not divide the {len(arrays[points])} rows of {points} in order")
    if (np.diff(arrays["polygon_z"], axis=1) <= 0).any():
        refuse("polygon_z", "has an upper height that is not above the lower")
    for name in ("polygon_class", "track_class"):
        if (arrays[name] > FREE).any():
            refuse(name, f"holds a label above {FREE}")
    for name in ("track_size", "lane_width"):
        if (arrays[name] <= 0).any():
            refuse(name, "holds a size that is not positive")
    ego_track, ego_valid = arrays["ego_track"], arrays["ego_valid"]
    if ((ego_track < -1) | (ego_track >= sizes["tracks"])).any():
        refuse("ego_track", f"names a track outside -1 to {sizes['tracks'] - 1}")
    if (np.diff(ego_valid, axis=1, prepend=False, append=False).sum(1) > 2).any():
        refuse("ego_valid", "has a motion with a gap")
    if len(ego_kind) != sizes["egos"] or not all(isinstance(kind, str) for kind in ego_kind):
        refuse("ego_kind", f"does not name the kind of each of the {sizes['egos']} ego motions")


def _read_text(content: bytes, path: Path) -> dict[str, Any]:
    """The scene's own metadata out of the safetensors header (8 bytes of length, then JSON)."""
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = parse_json(content[8 : 8 + length]).get("__metadata__") or {}
    except (ValueError, AttributeError) as error:
        raise SceneError(f"{path}: this is no scene file, or a truncated one; make it again") from error
    if metadata.get("kind") != KIND:
        raise SceneError(f"{path}: kind is {written(metadata.get('kind'))}, not {KIND!r}; give a scene file")
    if metadata.get("version") != str(VERSION):
        version = written(metadata.get("version"))
        raise SceneError(f"{path}: version is {version}, not {VERSION}; make the scene again")
    try:
        text = parse_json(metadata["scene"])
        types = {"name": str, "dt": int | float, "ego_kind": list, "attributes": dict}
        wrong = [name for name, kind in types.items() if not isinstance(text[name], kind)]
    except (KeyError, TypeError, ValueError) as error:
        raise SceneError(f"{path}: the metadata 'scene' cannot be read; make the scene again") from error
    if wrong:
        raise SceneError(f"{path}: {wrong[0]} in the metadata has the wrong type; make the scene again")
    if not _NAME.fullmatch(text["name"]):
        raise SceneError(
            f"{path}: name is {written(text['name'])}, which cannot be a file's; make the scene again"
        )
    if not all(isinstance(value, str) for value in text["attributes"].values()):
        raise SceneError(f"{path}: attributes are not all text; make the scene again")
    return text


def _unpack(values: np.ndarray, valid: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Spread the rows of the valid steps (v, c) over all of them (k, T, c); zeros elsewhere."""
    flag = _PACKED[name]
    if valid.dtype != np.bool_ or valid.ndim != 2:
        raise SceneError(f"{path}: {flag} is not a bool matrix; make the scene again")
    if valid.size > MAX_STATES:
        raise SceneError(f"{path}: {flag} holds {valid.size} steps, more than {MAX_STATES}; split the scene")
    if values.shape != (valid.sum(), FIELDS[name][1][-1]):
        raise SceneError(f"{path}: {name} does not have one row for each valid step; make the scene again")
    whole = np.zeros((*valid.shape, values.shape[1]), dtype=values.dtype)
    whole[valid] = values
    return whole


def _short(error: Exception) -> str:
    """The first line of an error's own message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
