"""Pictures: what a person would see, checked on scenes with known answers."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from occsora_sim.errors import ConfigurationError, MissingDependencyError, SceneError
from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE, NUM_CLASSES, PEDESTRIAN, TINY, VEGETATION, Grid
from occsora_sim.rendering import palette
from occsora_sim.rendering.birdseye import render, render_birdseye, shaded_map
from occsora_sim.rendering.camera_view import RENDERER_VARIABLE, ChaseCamera, clear_view, resampled
from occsora_sim.rendering.inbetween import Inbetween
from occsora_sim.rendering.mesh import occupancy_mesh
from occsora_sim.rendering.palette import PLAN, class_colours
from occsora_sim.rendering.pinhole import Pinhole
from occsora_sim.rendering.surroundings import ground_height
from occsora_sim.rendering.video import FRAME_SIZE, compose_frame, write_video

VIEW = pytest.mark.skipif(
    importlib.util.find_spec("open3d") is None,
    reason="Open3D is not installed: pip install 'occsora-sim[view]'",
)
FILM = pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None,
    reason="imageio-ffmpeg is not installed: pip install 'occsora-sim[view]'",
)
SMALL = Pinhole(width=96, height=64)


def empty(shape: tuple[int, int, int] = (5, 5, 5)) -> np.ndarray:
    return np.full(shape, FREE, dtype=np.uint8)


def road(grid: Grid = TINY) -> np.ndarray:
    """A plain of road on the grid's ground layer."""
    occupancy = np.full(grid.shape, FREE, dtype=np.uint8)
    occupancy[:, :, grid.ground] = DRIVEABLE
    return occupancy


def cell(x: float, y: float, grid: Grid = TINY) -> tuple[int, int]:
    return int((x - grid.lower[0]) / grid.voxel), int((y - grid.lower[1]) / grid.voxel)


def pixel_of(picture: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Mean (row, column) of the pixels close to `colour`."""
    near = np.abs(picture.astype(int) - colour.astype(int)).sum(axis=-1) < 60
    assert near.any()
    return np.argwhere(near).mean(axis=0)


@pytest.mark.parametrize("label", [label for label in range(NUM_CLASSES - 1)])
def test_a_class_has_the_same_colour_on_the_map_in_the_camera_and_in_the_legend(label: int) -> None:
    """Light darkens the palette's colour and never tints it; in full light it is exactly that colour."""
    occupancy = np.full(TINY.shape, FREE, dtype=np.uint8)
    occupancy[10:20, 10:20, : TINY.shape[2]] = label
    occupancy[30:40, 30:40, 2] = label
    wanted = class_colours()[label].astype(float)
    seen_from_above = shaded_map(occupancy)[(occupancy != FREE).any(axis=2)].astype(float)
    seen_by_camera = occupancy_mesh(occupancy, TINY, haze=False).colours * 255.0
    for seen in (seen_from_above, seen_by_camera):
        light = seen @ wanted / (wanted @ wanted)
        assert np.abs(seen - light[:, None] * wanted).max() <= 1.0, "tinted"
        assert 0.1 < light.min() and light.max() == pytest.approx(1.0, abs=0.06) and light.max() <= 1.004
    chase, above = np.zeros((504, 776, 3), np.uint8), np.zeros((600, 600, 3), np.uint8)
    legend = compose_frame(chase, above, labels=[label])[565:]
    assert (legend == wanted).all(axis=-1).sum() > 50


def test_what_lies_flat_in_the_sun_is_exactly_its_colour() -> None:
    occupancy = road()
    top = occupancy_mesh(occupancy, TINY, haze=False)
    colours = top.colours[np.isclose(top.colours.sum(axis=1), top.colours.sum(axis=1).max())]
    assert np.allclose(colours * 255, class_colours()[DRIVEABLE], atol=0.6)
    assert (shaded_map(occupancy)[:, :] == class_colours()[DRIVEABLE]).all(axis=-1).any()


def test_the_picture_of_the_readme_has_the_palettes_colours() -> None:
    with Image.open(Path(__file__).parent.parent / "docs" / "images" / "rollout.png") as picture:
        legend = np.asarray(picture.convert("RGB"))[565:]
    for label in (CAR, PEDESTRIAN, DRIVEABLE, MANMADE, VEGETATION):
        assert (legend == class_colours()[label]).all(axis=-1).sum() > 50, label


def test_the_moving_picture_plays_twenty_seconds_in_the_palettes_colours_and_loads_fast() -> None:
    path = Path(__file__).parent.parent / "docs" / "images" / "pair.gif"
    assert path.stat().st_size < 2_000_000
    with Image.open(path) as film:
        times = []
        for frame in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(frame)
            times.append(film.info["duration"])
        assert sum(times[:-1]) == 20_000
        last = np.asarray(film.convert("RGB"))
    for half, kind in ((last[:, :368], "live traffic"), (last[:, 368:], "generated")):
        assert (half == class_colours()[DRIVEABLE]).all(axis=-1).sum() > 5000
        assert (half == palette.KINDS[kind]).all(axis=-1).sum() > 1000


def test_colours_are_written_down_in_the_palette_alone() -> None:
    def is_colour(node: ast.AST) -> bool:
        parts = node.elts if isinstance(node, ast.Tuple) else []
        values = [part.value for part in parts if isinstance(part, ast.Constant)]
        whole = len(parts) == len(values) == 3 and all(type(value) is int for value in values)
        return whole and min(values) >= 10 and max(values) >= 30  # type: ignore[type-var, operator]

    folder = Path(palette.__file__).parent
    found = {
        path.name
        for path in folder.glob("*.py")
        if any(is_colour(node) for node in ast.walk(ast.parse(path.read_text())))
    }
    assert found == {"palette.py"}


def test_palette_has_a_distinct_colour_for_every_class() -> None:
    colours = class_colours().astype(int)
    assert colours.shape == (NUM_CLASSES, 3)
    distance = np.abs(colours[:, None] - colours[None]).sum(axis=-1) + 999 * np.eye(NUM_CLASSES)
    assert distance.min() > 30


def test_one_voxel_has_six_faces_and_twelve_triangles() -> None:
    occupancy = empty()
    occupancy[2, 2, 2] = CAR
    mesh = occupancy_mesh(occupancy, Grid(shape=(5, 5, 5)), bottom=True)
    assert mesh.triangles.shape == (12, 3)
    assert len(occupancy_mesh(occupancy, Grid(shape=(5, 5, 5))).triangles) == 10


def test_two_touching_voxels_have_ten_faces() -> None:
    occupancy = empty()
    occupancy[2, 2, 2] = occupancy[2, 2, 3] = CAR
    assert len(occupancy_mesh(occupancy, Grid(shape=(5, 5, 5)), bottom=True).triangles) == 2 * 10


def test_a_voxel_in_the_corner_of_the_grid_has_all_its_faces() -> None:
    occupancy = empty()
    occupancy[0, 0, 0] = occupancy[4, 4, 4] = CAR
    assert len(occupancy_mesh(occupancy, Grid(shape=(5, 5, 5)), bottom=True).triangles) == 2 * 12


def test_the_mesh_lies_where_the_voxel_lies_and_its_faces_look_outwards() -> None:
    occupancy = empty((6, 4, 3))
    occupancy[4, 1, 2] = CAR
    grid = Grid(shape=(6, 4, 3), voxel=0.5, lower=(-1.0, -2.0, -0.5))
    mesh = occupancy_mesh(occupancy, grid, bottom=True)
    assert np.allclose(mesh.vertices.min(axis=0), (1.0, -1.5, 0.5))
    assert np.allclose(mesh.vertices.max(axis=0), (1.5, -1.0, 1.0))
    a, b, c = (mesh.vertices[mesh.triangles[:, i]] for i in range(3))
    outwards = ((a + b + c) / 3 - np.array((1.25, -1.25, 0.75))) * np.cross(b - a, c - a)
    assert (outwards.sum(axis=1) > 0).all()


def test_a_wall_throws_a_shadow_and_darkens_its_foot() -> None:
    plain = road()
    walled = plain.copy()
    walled[20, 20:28, TINY.ground + 1 :] = MANMADE

    def brightness(occupancy: np.ndarray) -> np.ndarray:
        mesh = occupancy_mesh(occupancy, TINY, haze=False)
        up = np.isclose(mesh.vertices[:, 2], (TINY.ground + 1) * TINY.voxel + TINY.lower[2])
        up &= (np.abs(mesh.vertices[:, :2]) < 19.0).all(axis=1)
        return np.sort(mesh.colours[up].sum(axis=1))

    assert brightness(plain).std() < 1e-5
    assert brightness(walled)[0] < 0.7 * brightness(plain)[0]


def test_an_empty_frame_makes_an_empty_mesh() -> None:
    assert len(occupancy_mesh(empty(), Grid(shape=(5, 5, 5))).triangles) == 0


def test_a_batch_instead_of_a_frame_is_refused_in_one_line() -> None:
    with pytest.raises(SceneError, match="one occupancy frame"):
        occupancy_mesh(np.zeros((2, 4, 4, 4), np.uint8))


def test_in_birdseye_forward_is_up_and_left_is_left() -> None:
    occupancy = road()
    occupancy[(*cell(12.0, 0.0), slice(2, 4))] = CAR
    occupancy[(*cell(0.0, 12.0), slice(2, 4))] = PEDESTRIAN
    picture = render_birdseye(occupancy, grid=TINY, ego=False)
    assert picture.shape == (144, 144, 3) and picture.dtype == np.uint8
    row, column = pixel_of(picture, class_colours()[CAR])
    assert row < 50 and 64 < column < 80
    row, column = pixel_of(picture, class_colours()[PEDESTRIAN])
    assert column < 50 and 64 < row < 80


def test_the_ego_rectangle_has_its_size_and_stands_ahead_of_the_rear_axle() -> None:
    plain, drawn = (render_birdseye(road(), grid=TINY, scale=8, ego=ego) for ego in (False, True))
    rows, columns = np.nonzero((plain != drawn).any(axis=-1))
    metres = TINY.voxel / 8
    assert abs((rows.max() - rows.min()) * metres - 4.084) < 0.4
    assert abs((columns.max() - columns.min()) * metres - 1.73) < 0.4
    ahead = TINY.upper[0] - (rows.max() + rows.min()) / 2 * metres
    assert abs(ahead - 1.3) < 0.2


def test_the_trajectory_is_drawn_where_it_leads() -> None:
    trajectory = np.array([[5.0, 2.0, 0.1], [10.0, 8.0, 0.4]], dtype=np.float32)
    picture = render(road(), trajectory=trajectory, grid=TINY, ego=False)
    near = np.abs(picture.astype(int) - np.array(PLAN)).sum(axis=-1) < 60
    rows, columns = np.nonzero(near)
    assert rows.min() < 144 / 2 - 9 / 0.8 * 3 and columns.min() < 144 / 2 - 7 / 0.8 * 3
    assert columns.max() < 80


def test_a_moved_map_shows_the_car_closer_when_the_ego_drove_towards_it() -> None:
    occupancy = road()
    occupancy[(*cell(12.0, 0.0), slice(2, 4))] = CAR
    still = render_birdseye(occupancy, grid=TINY, ego=False)
    moved = render_birdseye(occupancy, grid=TINY, ego=False, offset=(8.0, 0.0, 0.0))
    car = class_colours()[CAR]
    assert pixel_of(moved, car)[0] - pixel_of(still, car)[0] == pytest.approx(8.0 / 0.8 * 3, abs=2)
    turned = render_birdseye(occupancy, grid=TINY, ego=False, offset=(0.0, 0.0, np.pi / 2))
    row, column = pixel_of(turned, car)
    assert column > 94 and 64 < row < 80  # what was ahead is on the right after a left turn


def test_text_is_written_in_the_upper_left_corner() -> None:
    plain, written = render(road(), grid=TINY), render(road(), grid=TINY, text=("12.0 s",))
    rows, columns = np.nonzero((plain != written).any(axis=-1))
    assert rows.max() < 50 and columns.max() < 100


def test_the_ground_is_found_under_a_line() -> None:
    occupancy = road()
    occupancy[24:, :, TINY.ground] = FREE
    occupancy[24:, :, TINY.ground + 2] = DRIVEABLE
    height = ground_height(occupancy, np.array([[-5.0, 0.0], [5.0, 0.0]]), TINY)
    assert np.allclose(height, ((TINY.ground + 1) * 0.8 - 1.0, (TINY.ground + 3) * 0.8 - 1.0), atol=1e-5)


def test_what_hides_the_car_from_the_camera_is_cleared_but_no_road_user() -> None:
    occupancy = road()
    occupancy[(*cell(-5.0, 0.0), slice(3, 12))] = VEGETATION
    occupancy[(*cell(-3.0, 0.4), slice(2, 6))] = CAR
    occupancy[(*cell(-5.0, 10.0), slice(3, 12))] = VEGETATION
    clear = clear_view(occupancy, Pinhole(), TINY)
    assert (clear[cell(-5.0, 0.0)][4:8] == FREE).all()
    assert (clear == CAR).sum() == 4 and (clear[6:] == DRIVEABLE).sum() == (occupancy[6:] == DRIVEABLE).sum()
    assert (clear[cell(-5.0, 10.0)] == occupancy[cell(-5.0, 10.0)]).all()


def test_resampling_keeps_the_ends_and_spaces_the_points() -> None:
    line = resampled(np.array([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]]), 0.5)
    assert np.allclose(line[[0, -1]], ((0, 0), (3, 4)))
    assert np.allclose(np.linalg.norm(np.diff(line, axis=0), axis=1), 0.5)
    assert len(resampled(np.array([[1.0, 1.0], [1.0, 1.0]]), 0.5)) == 0


def test_between_two_frames_a_car_is_half_way_and_the_rest_stands() -> None:
    before, after = road(), road()
    before[20:24, 30:32, 2:4] = CAR
    after[26:30, 30:32, 2:4] = CAR
    before[10, 10, 2:9] = after[10, 10, 2:9] = MANMADE
    middle = Inbetween(before, after, np.zeros(3), TINY).at(0.5)
    assert (middle[23:27, 30:32, 2:4] == CAR).all() and (middle == CAR).sum() == (before == CAR).sum()
    assert (middle[10] == before[10]).all()


def test_a_parked_car_stays_on_its_place_while_the_ego_moves() -> None:
    before, after = road(), road()
    before[30:35, 10:12, 2:4] = CAR
    after[25:30, 10:12, 2:4] = CAR  # the ego drove 5 voxels
    middle = Inbetween(before, after, np.array([4.0, 0.0, 0.0]), TINY).at(0.5)
    assert (middle == before).all()


def street_of_colours() -> np.ndarray:
    occupancy = road()
    occupancy[(*cell(8.0, 0.0), slice(2, 4))] = CAR
    occupancy[:, 10:16, 2:7] = MANMADE
    return occupancy


def check_street(picture: np.ndarray) -> None:
    """Sky above, road below, a building on the right and none on the left, the car's blue in the middle."""
    width = picture.shape[1]
    assert picture[2, width // 2, 2] > 200
    below = picture[-4, width // 2].astype(int)
    assert below.max() - below.min() < 45 and 50 < below.mean() < 190
    blue = (picture[12:, :, 2].astype(int) - picture[12:, :, 0]) > 70
    assert blue.any() and abs(np.nonzero(blue)[1].mean() - width / 2) < width / 8
    ochre = (picture[..., 0].astype(int) - picture[..., 2]) > 40
    assert ochre[:, width // 2 :].sum() > 4 * ochre[:, : width // 2].sum() + 20


@VIEW
def test_ray_casting_draws_a_street(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RENDERER_VARIABLE, "raycast")
    with ChaseCamera(SMALL, TINY) as camera:
        assert camera.renderer == "raycast"
        picture = camera.render(street_of_colours(), np.array([[4.0, 0.0, 0.0], [9.0, 1.0, 0.1]]))
    assert picture.shape == (64, 96, 3) and picture.dtype == np.uint8
    check_street(picture)


@VIEW
def test_opengl_draws_the_same_street(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = {}
    occupancy = street_of_colours()
    for name in ("gl", "raycast"):
        monkeypatch.setenv(RENDERER_VARIABLE, name)
        try:
            camera = ChaseCamera(SMALL, TINY)
        except MissingDependencyError as error:
            pytest.skip(f"no OpenGL on this machine: {error}")
        with camera:
            assert camera.renderer == name
            pictures[name] = camera.render(occupancy, offset=(0.5, 0.1, 0.02))
    check_street(pictures["gl"])
    difference = np.abs(pictures["gl"].astype(int) - pictures["raycast"])
    assert difference.mean() < 8


@VIEW
def test_without_opengl_the_camera_falls_back_to_ray_casting(monkeypatch: pytest.MonkeyPatch) -> None:
    from occsora_sim.rendering import camera_view
    from occsora_sim.rendering.gl_renderer import NoOpenGLError

    def refuse(width: int, height: int) -> None:
        raise NoOpenGLError("none here")

    monkeypatch.setattr(camera_view, "shared_renderer", refuse)
    monkeypatch.delenv(RENDERER_VARIABLE, raising=False)
    with ChaseCamera(SMALL, TINY) as camera:
        assert camera.renderer == "raycast"
        assert camera.render(road()).std() > 5
    monkeypatch.setenv(RENDERER_VARIABLE, "gl")
    with pytest.raises(MissingDependencyError, match="apt-get install"):
        ChaseCamera(SMALL, TINY)


@VIEW
@pytest.mark.slow
def test_a_machine_without_a_graphics_driver_still_gets_a_picture(tmp_path: Path) -> None:
    program = (
        "import numpy as np\n"
        "from occsora_sim.grid import TINY\n"
        "from occsora_sim.rendering.camera_view import ChaseCamera\n"
        "with ChaseCamera(grid=TINY) as camera:\n"
        "    picture = camera.render(np.full(TINY.shape, 11, np.uint8))\n"
        "    print(camera.renderer, picture.shape)\n"
    )
    environment = {
        key: value for key, value in os.environ.items() if key not in ("DISPLAY", RENDERER_VARIABLE)
    }
    environment |= {"__EGL_VENDOR_LIBRARY_DIRS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "raycast (504, 776, 3)"


def test_an_unknown_renderer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RENDERER_VARIABLE, "vulkan")
    with pytest.raises(ConfigurationError, match="vulkan"):
        ChaseCamera(SMALL, TINY)


def test_a_missing_open3d_and_missing_system_libraries_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import builtins

    from occsora_sim.rendering.pinhole import load_open3d

    real = builtins.__import__

    def failing(error: Exception):  # type: ignore[no-untyped-def]
        def load(name: str, *args, **kwargs):  # type: ignore[no-untyped-def]
            if name == "open3d":
                raise error
            return real(name, *args, **kwargs)

        return load

    for error, remedy in (
        (ModuleNotFoundError("No module named 'open3d'", name="open3d"), "pip install 'occsora-sim"),
        (
            OSError("libusb-1.0.so.0: cannot open shared object file"),
            "apt-get install -y libusb-1.0-0 libgl1 libegl1",
        ),
    ):
        monkeypatch.setattr(builtins, "__import__", failing(error))
        with pytest.raises(MissingDependencyError) as caught:
            load_open3d()
        assert remedy in str(caught.value) and "\n" not in str(caught.value)


def frames(count: int, height: int = 34, width: int = 51) -> list[np.ndarray]:
    return [np.full((height, width, 3), 20 + 40 * k, dtype=np.uint8) for k in range(count)]


@FILM
def test_a_video_has_all_frames_in_even_size(tmp_path: Path) -> None:
    import imageio_ffmpeg

    path = tmp_path / "new" / "film.mp4"
    assert write_video(path, frames(5), fps=4) == 5
    assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == 5
    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    assert facts["size"] == (52, 34) and facts["fps"] == 4 and facts["codec"] == "h264"
    levels = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    assert np.allclose(levels, [20, 60, 100, 140, 180], atol=6)
    assert [entry.name for entry in path.parent.iterdir()] == ["film.mp4"]


@FILM
def test_a_film_that_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"old")

    def broken():  # type: ignore[no-untyped-def]
        yield from frames(2)
        raise RuntimeError("the world ended")

    with pytest.raises(RuntimeError, match="ended"):
        write_video(path, broken(), fps=4)
    with pytest.raises(ConfigurationError, match="frame 1"):
        write_video(path, frames(1) + frames(1, height=40), fps=4)
    with pytest.raises(ConfigurationError, match="no frames"):
        write_video(path, [], fps=4)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@FILM
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="cannot be written") as caught:
        write_video(tmp_path / "file" / "film.mp4", frames(1), fps=4)
    assert "\n" not in str(caught.value)


def test_a_composed_frame_holds_camera_map_header_and_legend() -> None:
    chase = np.full((504, 776, 3), (200, 10, 10), dtype=np.uint8)
    above = np.full((600, 600, 3), (10, 10, 200), dtype=np.uint8)
    frame = compose_frame(
        chase, above, title="a\nb", time=3.0, speed=8.0, terms={"score": 0.9, "end": "route"}, labels=[CAR]
    )
    assert frame.shape == (FRAME_SIZE[1], FRAME_SIZE[0], 3)
    assert tuple(frame[300, 300]) == (200, 10, 10) and tuple(frame[300, 1000]) == (10, 10, 200)
    assert frame[:50].std() > 10
    assert (frame[565:] == class_colours()[CAR]).all(axis=-1).sum() > 50
