"""`render`: what it writes besides films is what the rollout holds."""

import numpy as np
import pytest
from PIL.GifImagePlugin import GifImageFile
from small_rollout import FRAMES, GRID, small_rollout

from occsora_sim.cli import main
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import CAR, CLASSES, FREE
from occsora_sim.rendering import pair
from occsora_sim.rendering.gif import WIDTH, write_gif
from occsora_sim.rendering.palette import COLOURS, INK, KINDS, QUIET
from occsora_sim.rendering.points import POINT
from occsora_sim.rendering.rollout import save_rollout

HEADER = b"end_header\n"


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "rollout.npz"
    save_rollout(small_rollout(), path)
    return path


def refused(capsys, *arguments) -> str:
    assert main(["render", *map(str, arguments)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_a_ply_holds_every_occupied_voxel_at_its_place_with_its_colour_and_class(saved, tmp_path):
    out = tmp_path / "frame.ply"
    assert main(["render", str(saved), "--time", "1.1", "--out", str(out)]) == 0
    header, data = out.read_bytes().split(HEADER, maxsplit=1)
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"] and f"comment class {CAR} car" in lines
    points = np.frombuffer(data, POINT)
    occupancy = small_rollout().occupancy[2]  # frames are 0.5 s apart
    assert f"element vertex {len(points)}" in lines and len(points) == (occupancy != FREE).sum()
    rebuilt = np.full_like(occupancy, FREE)
    places = np.stack([points[axis] for axis in "xyz"], axis=1)
    rebuilt[tuple(np.floor((places - GRID.lower) / GRID.voxel).astype(int).T)] = points["class"]
    np.testing.assert_array_equal(rebuilt, occupancy)
    car = points[points["class"] == CAR][0]
    assert (car["red"], car["green"], car["blue"]) == COLOURS[CLASSES[CAR]]


def test_open3d_reads_the_ply(saved, tmp_path):
    open3d = pytest.importorskip("open3d")
    out = tmp_path / "frame.ply"
    assert main(["render", str(saved), "--out", str(out)]) == 0
    cloud = open3d.t.io.read_point_cloud(str(out))
    assert len(cloud.point.positions) == (small_rollout().occupancy[0] != FREE).sum()


@pytest.mark.parametrize(("fps", "seconds"), [(8.0, 2.0), (3.0, 2.0), (50.0, 0.5)])
def test_a_gif_shows_every_picture_and_plays_at_true_speed(fps, seconds, tmp_path):
    count = round(fps * seconds)
    pictures = [np.full((30, 40, 3), 5 * k, np.uint8) for k in range(count)]
    write_gif(tmp_path / "a.gif", pictures, fps)
    with GifImageFile(tmp_path / "a.gif") as found:
        assert found.n_frames == count and found.info["loop"] == 0
        durations = []
        for k in range(count):
            found.seek(k)
            durations.append(found.info["duration"])
    assert sum(durations) == 1000 * seconds and max(durations) - min(durations) <= 10  # [ms]


def test_a_gif_faster_than_browsers_show_is_refused_and_nothing_is_written(saved, tmp_path, capsys):
    assert "at most 50" in refused(capsys, saved, "--smooth", "40", "--out", tmp_path / "a.gif")
    with pytest.raises(ConfigurationError, match="no frames"):
        write_gif(tmp_path / "a.gif", [], 8.0)
    assert [path.name for path in tmp_path.iterdir()] == [saved.name]


@pytest.mark.slow
def test_render_writes_the_gif_of_a_rollout_and_its_page(saved, tmp_path):
    pytest.importorskip("open3d")
    assert main(["render", str(saved), "--smooth", "1", "--out", str(tmp_path / "a.gif")]) == 0
    with GifImageFile(tmp_path / "a.gif") as found:
        assert found.n_frames == FRAMES and found.width == WIDTH
    assert main(["render", str(saved), "--out", str(tmp_path / "a.HTML")]) == 0
    page = (tmp_path / "a.HTML").read_text()
    assert page.startswith("<!doctype html>") and 'id="rollout-0"' in page


@pytest.mark.slow
def test_two_rollouts_side_by_side_have_their_badges_and_the_shorter_one_waits(saved, tmp_path):
    pytest.importorskip("open3d")
    short = tmp_path / "short.npz"
    save_rollout(small_rollout({"world": "traffic"}, frames=3), short)
    assert main(["render", str(short), str(saved), "--smooth", "1", "--out", str(tmp_path / "a.gif")]) == 0
    with GifImageFile(tmp_path / "a.gif") as found:
        assert found.n_frames == FRAMES and found.size == (2 * pair.WIDTH, pair.HEIGHT)
        found.seek(FRAMES - 1)
        last = np.asarray(found.convert("RGB"))
    for half, kind, other in (
        (last[:, : pair.WIDTH], "live traffic", "generated"),
        (last[:, pair.WIDTH :], "generated", "live traffic"),
    ):
        assert (half == KINDS[kind]).all(axis=-1).sum() > 1000
        assert not (half == KINDS[other]).all(axis=-1).any()


@pytest.mark.parametrize("world", ["a world of somebody else " * 9, "two\nlines", "w" * 300])
def test_a_long_badge_is_cut_before_the_figures_at_its_right(world):
    pytest.importorskip("open3d")
    rollouts = (small_rollout({"world": world}, frames=2), small_rollout(frames=2))
    row = next(pair.pair_frames(rollouts, 1))[7, : pair.WIDTH]  # over all letters
    badge, figures = ((row == colour).all(axis=-1).nonzero()[0] for colour in (QUIET, INK))
    inside = badge[(badge > 3) & (badge < pair.WIDTH - 4)]  # and not of the border
    assert len(figures) > 40 and inside[-1] < figures[0] and figures[-1] < pair.WIDTH
    assert len(inside) > 40 and (np.diff(inside) == 1).all()


def test_what_render_cannot_write_or_find_is_said_in_one_line(saved, tmp_path, capsys):
    assert ".gif (an animation; of two rollouts, side by side)" in refused(
        capsys, saved, "--out", tmp_path / "a.webm"
    )
    assert "2 rollouts: give one" in refused(capsys, saved, saved, "--out", tmp_path / "a.png")
    assert "leave it out" in refused(capsys, saved, saved, "--title", "T", "--out", tmp_path / "a.gif")
    assert "--time 9" in refused(capsys, saved, "--time", "9", "--out", tmp_path / "a.ply")
    assert "frames 0 to 6" in refused(capsys, saved, "--frame", "-1", "--out", tmp_path / "a.ply")
    assert "say the same" in refused(capsys, saved, "--frame", "1", "--time", "0.5", "--out", "a.ply")
    assert "--time nan" in refused(capsys, saved, "--time", "nan", "--out", "a.ply")
