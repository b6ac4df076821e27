"""A pinhole camera in the ego frame, and the Open3D library that draws for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from occsora_sim.errors import MissingDependencyError


@dataclass(frozen=True, kw_only=True)
class Pinhole:
    """Where a camera stands and what it looks at, in the ego frame [m].

    Attributes:
        eye: position (x, y, z) [m].
        target: the point in the middle of the picture (x, y, z) [m].
        field_of_view: vertical opening angle [rad].
        width, height: size of the picture [pixels].

    """

    eye: tuple[float, float, float] = (-9.0, 0.0, 5.4)
    target: tuple[float, float, float] = (9.0, 0.0, 0.2)
    field_of_view: float = math.radians(52.0)
    width: int = 776
    height: int = 504

    def following(self, offset: tuple[float, float, float]) -> Pinhole:
        """The same camera after its vehicle moved by `offset` (x [m], y [m], yaw [rad])."""
        cos, sin = math.cos(offset[2]), math.sin(offset[2])

        def moved(p: tuple[float, float, float]) -> tuple[float, float, float]:
            return (cos * p[0] - sin * p[1] + offset[0], sin * p[0] + cos * p[1] + offset[1], p[2])

        return Pinhole(
            eye=moved(self.eye),
            target=moved(self.target),
            field_of_view=self.field_of_view,
            width=self.width,
            height=self.height,
        )

    def intrinsic(self) -> np.ndarray:
        """The camera matrix (3, 3), float64 [pixels]; its centre (size - 1) / 2, as Open3D wants."""
        focal = self.height / 2 / math.tan(self.field_of_view / 2)
        return np.array([[focal, 0, self.width / 2 - 0.5], [0, focal, self.height / 2 - 0.5], [0, 0, 1]])

    def extrinsic(self) -> np.ndarray:
        """World to camera (4, 4), float64: camera x right, y down, z forward."""
        eye, target = np.array(self.eye), np.array(self.target)
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        turn = np.stack((right, np.cross(forward, right), forward))
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = turn, -turn @ eye
        return matrix


def load_open3d() -> Any:
    """The open3d module.

    Raises:
        MissingDependencyError: it is not installed, or the system libraries that it links to are missing.

    """
    try:
        import open3d
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the camera view needs Open3D (no module {error.name}): pip install 'occsora-sim[view]'"
        ) from error
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MissingDependencyError(
            f"Open3D does not load ({reason}); run: apt-get install -y libusb-1.0-0 libgl1 libegl1"
        ) from error
    return open3d
