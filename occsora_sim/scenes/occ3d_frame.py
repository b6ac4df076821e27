"""A frame of Occ3D-nuScenes: the arrays of a `labels.npz`, each looked at before it is read."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np

from occsora_sim.errors import SceneError
from occsora_sim.grid import FREE, OCC3D
from occsora_sim.scenes.voxel_scene import VoxelFrame

KEYS = ("semantics", "mask_lidar", "mask_camera")
"""What a frame's file holds, each uint8 of the shape of `grid.OCC3D`; some copies go without the masks."""

_LARGEST_HEADER = 10_000  # of an array in a file [bytes]; a frame's has 128


def read_labels(path: Path) -> VoxelFrame:
    """Read the frame of a `labels.npz`.

    Raises:
        SceneError: the file is missing, truncated or damaged, lacks a key, or holds arrays of another shape, type or
            range; one line that names the file and the key. What an array declares is checked before it is read.

    """
    size = math.prod(OCC3D.shape)
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for key in KEYS:
                try:
                    member = archive.getinfo(f"{key}.npy")
                except KeyError:
                    if key in KEYS[1:]:
                        continue
                    raise SceneError(f"{path}: {key} is missing; fetch the file again") from None
                if member.file_size > size + _LARGEST_HEADER:
                    raise SceneError(f"{path}: {key} takes {member.file_size} bytes; a frame's takes {size}")
                with archive.open(member) as file:
                    arrays[key] = _array(file.read(size + _LARGEST_HEADER + 1), key, path)
    except SceneError:
        raise
    except OSError as error:
        raise SceneError(f"{path}: {error.strerror or error}; fetch the file again") from error
    except Exception as error:  # a damaged archive can fail in any way
        what = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        raise SceneError(f"{path}: truncated or damaged ({what}); fetch the file again") from error
    if int(arrays["semantics"].max()) > FREE:
        raise SceneError(
            f"{path}: semantics holds the label {arrays['semantics'].max()}; labels go to {FREE}"
        )
    for key in arrays.keys() - {"semantics"}:
        if int(arrays[key].max()) > 1:
            raise SceneError(f"{path}: {key} holds {arrays[key].max()}; a mask holds 0 and 1")
    return VoxelFrame(
        labels=arrays["semantics"],
        mask_lidar=arrays["mask_lidar"].astype(bool) if "mask_lidar" in arrays else None,
        mask_camera=arrays["mask_camera"].astype(bool) if "mask_camera" in arrays else None,
    )


def _array(content: bytes, key: str, path: Path) -> np.ndarray:
    """The array of one member, its header read first."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise SceneError(f"{path}: {key} is of the unknown version {version}; fetch the file again")
    shape, _, dtype = read_header[version](file, max_header_size=_LARGEST_HEADER)
    if shape != OCC3D.shape or dtype not in (np.dtype(np.uint8), np.dtype(bool)):
        raise SceneError(f"{path}: {key} is {dtype} {shape}, not uint8 {OCC3D.shape}")
    file.seek(0)
    array = np.lib.format.read_array(file, allow_pickle=False, max_header_size=_LARGEST_HEADER)
    return np.ascontiguousarray(array, dtype=np.uint8)
