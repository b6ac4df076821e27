"""A frame of Occ3D-nuScenes: the arrays of a `labels.npz`, each looked at before it is read."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from occsora_sim.bounded_npz import read_array
from occsora_sim.errors import SceneError
from occsora_sim.grid import FREE, OCC3D
from occsora_sim.scenes.voxel_scene import VoxelFrame

KEYS = ("semantics", "mask_lidar", "mask_camera")
"""What a frame's file holds, each uint8 of the shape of `grid.OCC3D`; some copies go without the masks."""


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
                    array = read_array(archive, key, size)
                except KeyError:
                    if key in KEYS[1:]:
                        continue
                    raise SceneError(f"{path}: {key} is missing; fetch the file again") from None
                if array.shape != OCC3D.shape or array.dtype not in (np.uint8, np.bool_):
                    raise SceneError(f"{path}: {key} is {array.dtype} {array.shape}, not uint8 {OCC3D.shape}")
                arrays[key] = np.ascontiguousarray(array, dtype=np.uint8)
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
