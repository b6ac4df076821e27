"""The view from behind and above the car, drawn by OpenGL where there is one and by ray casting where not.

The environment variable OCCSORA_SIM_RENDERER forces one of them: `gl` or `raycast`.
"""

from __future__ import annotations

import os
from types import TracebackType

import numpy as np

from occsora_sim.errors import ConfigurationError, MissingDependencyError
from occsora_sim.grid import DYNAMIC, FREE, OCC3D, Grid, class_mask
from occsora_sim.rendering.ego_car import EGO_CENTRE, ego_car_mesh
from occsora_sim.rendering.gl_renderer import NoOpenGLError, close_renderers, shared_renderer
from occsora_sim.rendering.mesh import Mesh, merge_meshes, occupancy_mesh
from occsora_sim.rendering.palette import PLAN, ROUTE
from occsora_sim.rendering.pinhole import Pinhole
from occsora_sim.rendering.raycast_renderer import RaycastRenderer
from occsora_sim.rendering.surroundings import ground_height, ribbon_mesh, sky_mesh

RENDERER_VARIABLE = "OCCSORA_SIM_RENDERER"
"""Environment variable that forces a renderer: `gl` or `raycast`; unset or `auto`: gl where it works."""

_CLEARANCE = 2.6
_REACH = 6.0
_BEHIND = 6.0
_MOST = 20_000  # points of a line, however long a damaged one may be


class ChaseCamera:
    """Draws occupancy frames from behind the car. All cameras of a process share one window.

    Args:
        camera: where the camera stands in the ego frame.
        grid: where the voxels of the frames lie.

    Raises:
        ConfigurationError: OCCSORA_SIM_RENDERER holds another word than gl, raycast or auto.
        MissingDependencyError: Open3D or its system libraries are missing, or gl is forced where none is.

    """

    def __init__(self, camera: Pinhole | None = None, grid: Grid = OCC3D) -> None:
        self.camera = camera or Pinhole()
        self.grid = grid
        self._sky = sky_mesh()
        self._heading: float | None = None
        self._frame: np.ndarray | None = None
        self._world: Mesh | None = None
        self._raycast: RaycastRenderer | None = None
        self._choose(os.environ.get(RENDERER_VARIABLE, "auto").strip().lower() or "auto")

    @property
    def renderer(self) -> str:
        """What draws: "gl" or "raycast"."""
        return "gl" if self._raycast is None else "raycast"

    def render(
        self,
        occupancy: np.ndarray,
        trajectory: np.ndarray | None = None,
        route: np.ndarray | None = None,
        *,
        heading: float = 0.0,
        offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> np.ndarray:
        """One picture.

        Args:
            occupancy: (x, y, z) uint8 labels of one frame. The same array object is meshed only once.
            trajectory: (f, 2 or 3) planned poses in the car's present frame [m]; drawn on the ground.
            route: (r, 2) route in the car's present frame [m].
            heading: yaw of the ego in the world [rad], so that the sun stands still while the car turns.
            offset: how far the car (with its camera) has moved since the frame: its pose (x [m], y [m], yaw
                [rad]) in the frame of the occupancy.

        Returns:
            (height, width, 3) uint8.

        """
        if self._world is None or self._frame is not occupancy or self._heading != heading:
            clear = clear_view(occupancy, self.camera, self.grid)
            self._world = merge_meshes([self._sky, occupancy_mesh(clear, self.grid, heading)])
            self._frame, self._heading = occupancy, heading
        moving = moving_mesh(occupancy, trajectory, route, self.grid, offset)
        camera = self.camera.following(offset)
        if self._raycast is None:
            try:
                return shared_renderer(camera.width, camera.height).draw(self._world, moving, camera)
            except NoOpenGLError:
                self._raycast = RaycastRenderer()
        return self._raycast.draw(self._world, moving, camera)

    def close(self) -> None:
        """Close the window. The camera can still draw; it opens another one."""
        close_renderers()
        self._frame = self._world = None

    def __enter__(self) -> ChaseCamera:
        """Use as `with ChaseCamera() as camera:`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the window."""
        self.close()

    def _choose(self, wanted: str) -> None:
        if wanted not in ("auto", "gl", "raycast"):
            raise ConfigurationError(
                f"{RENDERER_VARIABLE}={wanted}: no such renderer; set it to gl, raycast or auto"
            )
        if wanted == "raycast":
            self._raycast = RaycastRenderer()
            return
        try:
            shared_renderer(self.camera.width, self.camera.height)
        except NoOpenGLError as error:
            if wanted == "gl":
                raise MissingDependencyError(
                    f"{RENDERER_VARIABLE}=gl, but {error}: "
                    f"apt-get install -y libgl1 libegl1 libgl1-mesa-dri, or unset the variable"
                ) from error
            self._raycast = RaycastRenderer()


def moving_mesh(
    occupancy: np.ndarray,
    trajectory: np.ndarray | None,
    route: np.ndarray | None,
    grid: Grid = OCC3D,
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Mesh:
    """The car and the lines on the ground, in the frame of the occupancy. See `ChaseCamera.render`."""
    here = float(ground_height(occupancy, np.array([offset[:2]]), grid)[0])
    meshes = [ego_car_mesh().moved(offset, here)]
    turn = np.array([[np.cos(offset[2]), np.sin(offset[2])], [-np.sin(offset[2]), np.cos(offset[2])]])
    lines = [(_ahead(route), 0.35, ROUTE, 0.0), (_planned(trajectory), 1.2, PLAN, 0.03)]
    for line, width, colour, lift in lines:
        points = _rounded(resampled(line, 0.4)) @ turn + np.array(offset[:2])
        points = points[(np.abs(points) < grid.upper[0]).all(axis=1)]
        if len(points) > 1:
            height = ground_height(occupancy, points, grid) + lift
            meshes.append(ribbon_mesh(points, height, width, colour))
    return merge_meshes(meshes)


def clear_view(occupancy: np.ndarray, camera: Pinhole, grid: Grid = OCC3D) -> np.ndarray:
    """A copy of `occupancy` (x, y, z) without what stands around the camera and between it and the car.

    What lies more than 6 m behind the camera is cut off: no picture shows it, nor a shadow from there.
    Of the rest, what rises above the ground and is no road user goes where it is within 2.6 m of the line
    from the camera to the car, or of that line carried up to 6 m ahead, where both are before the next frame.
    """
    axes = [
        (np.arange(n) + 0.5) * grid.voxel + low for n, low in zip(occupancy.shape, grid.lower, strict=True)
    ]
    eye, car = np.array(camera.eye), np.array([EGO_CENTRE, 0.0, 1.6])
    low = np.minimum(eye, car) - _CLEARANCE
    high = np.maximum(eye, car) + _CLEARANCE + np.array([_REACH, 0.0, 0.0])
    high[2] = np.inf
    low[2] = max(low[2], 0.9)
    box = tuple(
        slice(int(np.searchsorted(a, b)), int(np.searchsorted(a, c)))
        for a, b, c in zip(axes, low, high, strict=True)
    )
    points = np.stack(np.meshgrid(*(a[s] for a, s in zip(axes, box, strict=True)), indexing="ij"), axis=-1)
    near = np.zeros(points.shape[:-1], dtype=bool)
    for ahead in np.arange(0.0, _REACH + 0.1, 2.0):
        start = eye + np.array([ahead, 0.0, 0.0])
        line = car + np.array([ahead, 0.0, 0.0]) - start
        share = np.clip((points - start) @ line / (line @ line), 0.0, 1.0)
        near |= np.linalg.norm(points - start - share[..., None] * line, axis=-1) < _CLEARANCE
    clear = occupancy.copy()
    clear[: int(np.searchsorted(axes[0], eye[0] - _BEHIND))] = FREE
    part = clear[box]
    part[near & ~class_mask(DYNAMIC).numpy()[part]] = FREE
    return clear


def resampled(points: np.ndarray, spacing: float) -> np.ndarray:
    """A polyline (n, 2) [m] with a point about every `spacing` [m], ends included.

    Shape (m, 2); m = 0 where the line is shorter than `spacing`.
    """
    if len(points) < 2:
        return np.zeros((0, 2))
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    keep = np.concatenate(([True], steps > 1e-6))
    points = points[keep]
    along = np.concatenate(([0.0], np.cumsum(steps[steps > 1e-6])))
    if along[-1] < spacing:
        return np.zeros((0, 2))
    wanted = np.linspace(0.0, along[-1], int(np.clip(along[-1] / spacing + 1, 2, _MOST)))
    return np.stack([np.interp(wanted, along, points[:, axis]) for axis in range(2)], axis=1)


def _planned(trajectory: np.ndarray | None) -> np.ndarray:
    """A planned trajectory as a line (n, 2) [m] that begins at the car; empty where there is none."""
    if trajectory is None or not len(trajectory):
        return np.zeros((0, 2))
    points = np.concatenate((np.zeros((1, 2)), np.asarray(trajectory, dtype=np.float64)[:, :2]))
    return points[np.isfinite(points).all(axis=1)]


def _ahead(route: np.ndarray | None) -> np.ndarray:
    """The part of a route (r, 2) [m] from its point closest to the car on; empty where there is none."""
    if route is None or not len(route):
        return np.zeros((0, 2))
    points = np.asarray(route, dtype=np.float64)[:, :2]
    points = points[np.isfinite(points).all(axis=1)]
    return points[int(np.argmin(np.linalg.norm(points, axis=1))) :] if len(points) else points


def _rounded(points: np.ndarray) -> np.ndarray:
    """A line (n, 2) without its corners; the ends stay."""
    points = points.copy()
    for _ in range(6):
        points[1:-1] = (points[:-2] + 2.0 * points[1:-1] + points[2:]) / 4.0
    return points
