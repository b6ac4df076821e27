"""A recorded rollout survives the disk, and what is no rollout is refused in one line."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from occsora_sim.errors import OccSoraError, SceneError
from occsora_sim.grid import CAR, DRIVEABLE, FREE, TINY
from occsora_sim.rendering.camera_view import RENDERER_VARIABLE
from occsora_sim.rendering.recorded_users import RecordedUsers
from occsora_sim.rendering.rollout import Rollout, load_rollout, rollout_frames, rollout_video, save_rollout
from occsora_sim.rendering.video import FRAME_SIZE

needs_view = pytest.mark.skipif(
    importlib.util.find_spec("open3d") is None or importlib.util.find_spec("imageio_ffmpeg") is None,
    reason="Open3D or imageio-ffmpeg is not installed: pip install 'occsora-sim[view]'",
)


@pytest.fixture
def rollout() -> Rollout:
    occupancy = np.full((3, *TINY.shape), FREE, dtype=np.uint8)
    occupancy[:, :, :, TINY.ground] = DRIVEABLE
    occupancy[:, 36:40, 23:25, 2:4] = CAR
    distance = np.arange(3, dtype=np.float32) * 2
    pose = np.stack((distance, np.zeros(3), np.zeros(3)), axis=1).astype(np.float32)
    planned = np.tile(np.array([[2, 0, 0], [4, 0, 0]], np.float32), (3, 1, 1))
    return Rollout(
        occupancy=occupancy,
        ego_pose=pose,
        actions=np.array([[0.1, 0.2], [0.3, 0.4]], np.float32),
        rewards=np.array([0.5, 1.0], np.float32),
        planned=planned,
        route=np.array([[-5, 0], [30, 0]], np.float32),
        steps=({"score": 0.5, "why": "start"}, {"score": np.float32(0.25)}, {"score": 1}),
        header={"world": "replay", "agent": "none", "seed": 7},
        grid=TINY,
    )


def test_a_rollout_comes_back_as_it_was(rollout: Rollout, tmp_path: Path) -> None:
    path = tmp_path / "new" / "rollout.npz"
    save_rollout(rollout, path)
    back = load_rollout(path)
    for name in ("occupancy", "ego_pose", "actions", "rewards", "planned", "route"):
        saved, read = getattr(rollout, name), getattr(back, name)
        assert read.dtype == saved.dtype and np.array_equal(read, saved), name
    assert back.steps == ({"score": 0.5, "why": "start"}, {"score": 0.25}, {"score": 1})
    assert back.header == rollout.header and back.grid == TINY
    assert back.frames == 3 and back.seconds == 1.0
    assert [entry.name for entry in path.parent.iterdir()] == ["rollout.npz"]


def test_saving_what_is_not_json_leaves_no_file(rollout: Rollout, tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="not JSON"):
        save_rollout(dataclasses.replace(rollout, header={"world": object()}), tmp_path / "rollout.npz")
    assert not list(tmp_path.iterdir())


def refused(path: Path, words: str) -> None:
    with pytest.raises(SceneError, match=words) as caught:
        load_rollout(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_truncated_file_is_refused_wherever_it_is_cut(rollout: Rollout, tmp_path: Path) -> None:
    path = tmp_path / "rollout.npz"
    save_rollout(rollout, path)
    whole = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        refused(path, "truncated")


def test_a_damaged_file_is_refused(rollout: Rollout, tmp_path: Path) -> None:
    path = tmp_path / "rollout.npz"
    save_rollout(rollout, path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(bytes(data))
    refused(path, "rollout")


def test_missing_foreign_and_pickled_files_are_refused(rollout: Rollout, tmp_path: Path) -> None:
    refused(tmp_path / "none.npz", "no such")
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, a=np.zeros(3))
    refused(foreign, "no rollout")
    text = tmp_path / "text.npz"
    text.write_text("hello")
    refused(text, "not a rollout")
    plain = tmp_path / "plain.npy"
    np.save(plain, np.zeros(3))
    refused(plain, "no npz file")
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, header=np.array([{"a": 1}], dtype=object))
    refused(pickled, "pickled")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ego_pose", np.zeros((2, 3), np.float32), "ego_pose has shape"),
        ("ego_pose", np.full((3, 3), np.nan, np.float32), "not finite"),
        ("occupancy", np.full((3, *TINY.shape), 77, np.uint8), "labels below"),
        ("occupancy", np.zeros((3, *TINY.shape), np.float32), "uint8"),
        ("planned", np.zeros((2, 2, 3), np.float32), "planned has shape"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(
    rollout: Rollout, tmp_path: Path, name: str, value: np.ndarray, words: str
) -> None:
    path = tmp_path / "rollout.npz"
    save_rollout(rollout, path)
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays[name] = value
    np.savez(path, **arrays)
    refused(path, words)


def test_a_later_version_is_named(rollout: Rollout, tmp_path: Path) -> None:
    path = tmp_path / "rollout.npz"
    save_rollout(rollout, path)
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    header = json.loads(arrays["header"].tobytes()) | {"version": 99}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)
    refused(path, "version 99")


def test_steps_must_be_one_per_frame(rollout: Rollout) -> None:
    with pytest.raises(OccSoraError, match="2 steps for 3 frames"):
        dataclasses.replace(rollout, steps=rollout.steps[:2])


@needs_view
def test_a_rollout_becomes_a_film_in_real_time(
    rollout: Rollout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import imageio_ffmpeg

    monkeypatch.setenv(RENDERER_VARIABLE, "raycast")
    pictures = list(rollout_frames(rollout, smooth=2))
    assert len(pictures) == 5
    assert all(picture.shape == (FRAME_SIZE[1], FRAME_SIZE[0], 3) for picture in pictures)
    path = tmp_path / "rollout.mp4"
    assert rollout_video(rollout, path, smooth=1) == 3
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert frames == 3 and seconds == pytest.approx(1.5)


def recorded_users(frames: int = 3, most: int = 2) -> RecordedUsers:
    rng = np.random.default_rng(0)
    return RecordedUsers(
        pose=rng.normal(size=(frames, most, 3)).astype(np.float32),
        size=np.ones((frames, most, 3), np.float32),
        label=np.full((frames, most), CAR, np.uint8),
        id=np.arange(frames * most).reshape(frames, most),
        velocity=rng.normal(size=(frames, most, 2)).astype(np.float32),
        valid=np.ones((frames, most), bool),
    )


def test_road_users_come_back_as_they_were(rollout: Rollout, tmp_path: Path) -> None:
    full = dataclasses.replace(rollout, users=recorded_users())
    save_rollout(full, tmp_path / "rollout.npz")
    back = load_rollout(tmp_path / "rollout.npz").users
    assert back is not None and full.users is not None
    for name, value in full.users.arrays().items():
        assert back.arrays()[name].dtype == value.dtype and np.array_equal(back.arrays()[name], value), name


def rewritten(path: Path, arrays: dict[str, np.ndarray | None], header: dict | None = None) -> None:
    """A rollout's file with some arrays put or taken away."""
    with np.load(path) as archive:
        kept = {name: archive[name] for name in archive.files}
    if header:
        text = json.dumps(json.loads(kept["header"].tobytes()) | header)
        kept["header"] = np.frombuffer(text.encode(), dtype=np.uint8)
    left = {name: value for name, value in {**kept, **arrays}.items() if value is not None}
    np.savez_compressed(path, **left)  # type: ignore[arg-type]


def test_a_file_from_before_road_users_still_loads(rollout: Rollout, tmp_path: Path) -> None:
    path = tmp_path / "rollout.npz"
    save_rollout(rollout, path)
    rewritten(path, {}, header={"version": 1})
    assert load_rollout(path).users is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("road_user_id", None, "no road_user_id"),
        ("road_user_valid", np.ones((3, 2), np.float32), "road_user_"),
        ("road_user_pose", np.full((3, 2, 3), np.nan, np.float32), "not finite"),
        ("road_user_label", np.full((3, 2), 200, np.uint8), "labels below"),
        ("road_user_size", np.ones((3, 1, 3), np.float32), "road_user_size"),
    ],
)
def test_damaged_road_users_are_refused(
    rollout: Rollout, tmp_path: Path, name: str, value: np.ndarray | None, words: str
) -> None:
    path = tmp_path / "rollout.npz"
    save_rollout(dataclasses.replace(rollout, users=recorded_users()), path)
    rewritten(path, {name: value})
    refused(path, words)


def test_road_users_of_other_frames_are_refused(rollout: Rollout) -> None:
    with pytest.raises(SceneError, match="4 frames"):
        dataclasses.replace(rollout, users=recorded_users(4))
