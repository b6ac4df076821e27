"""Occ3D folders in their exact layout, small in frames; what is damaged is named with its place."""

import json
import math
import random
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from occsora_sim.cli import main
from occsora_sim.errors import SceneError, SceneWarning
from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE, OCC3D, TINY
from occsora_sim.scenes.occ3d import examine_occ3d, is_occ3d, read_labels, read_occ3d, yaw_of
from occsora_sim.scenes.recorded import drawer_of
from occsora_sim.scenes.start import make_start, sample_starts
from occsora_sim.scoring.forecasting import forecast_windows
from occsora_sim.training.clips import ClipSampler
from occsora_sim.training.windows import WindowSampler
from occsora_sim.worlds.replay import ReplayWorld

BEGIN = 1_533_151_603_512_404
"""Microseconds, as in nuScenes."""


def frame_of(x: float, y: float) -> np.ndarray:
    """What the ego sees at (x, y), heading along x: ground everywhere, a wall at y = 20 m, a car at (30, 0)."""
    labels = np.full(OCC3D.shape, FREE, dtype=np.uint8)
    labels[:, :, 2] = DRIVEABLE
    labels[:, round((20 - y + 40) / 0.4) :, 3:8] = MANMADE
    at = round((30 - x + 40) / 0.4)
    labels[max(at - 5, 0) : max(at + 5, 0), round((40 - y) / 0.4) - 2 : round((40 - y) / 0.4) + 2, 3:6] = CAR
    return labels


def quaternion(yaw: float) -> list[float]:
    return [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]


def write_frame(folder: Path, labels: np.ndarray, **more: np.ndarray) -> None:
    folder.mkdir(parents=True)
    masks = {"mask_lidar": (labels != FREE).astype(np.uint8), "mask_camera": np.ones(labels.shape, np.uint8)}
    np.savez_compressed(folder / "labels.npz", allow_pickle=False, semantics=labels, **{**masks, **more})


def write_folder(root: Path, scenes: dict[str, list[float]], step: float = 2.0) -> dict:
    """A download: for each scene the times [s] of its frames; the ego drives along x, `step` m from frame to frame."""
    infos: dict = {}
    for name, times in scenes.items():
        frames = {}
        for k, time in enumerate(times):
            token = f"{name}-{k:02d}"
            write_frame(root / "gts" / name / token, frame_of(k * step, 0.0))
            ego = {"translation": [500.0 + k * step, 900.0, 1.5], "rotation": quaternion(0.0)}
            frames[token] = {
                "timestamp": str(BEGIN + round(time * 1e6)),
                "camera_sensor": {
                    "CAM_FRONT": {"img_path": "a.jpg", "intrinsic": [[1.0] * 3] * 3, "ego_pose": ego}
                },
                "ego_pose": ego,
                "gt_path": f"gts/{name}/{token}/labels.npz",
                "next": "",
                "prev": "",
            }
        # the order of the frames in the file says nothing
        infos[name] = dict(sorted(frames.items(), key=lambda item: item[0][::-1]))
    annotations = {"train_split": list(scenes), "val_split": [], "scene_infos": infos}
    (root / "annotations.json").write_text(json.dumps(annotations))
    return annotations


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two scenes: one of 12 frames with clocks a little off, one with a gap after the third of its frames."""
    root = tmp_path_factory.mktemp("occ3d")
    even = [0.5 * k + 0.02 * (k % 2) for k in range(12)]
    write_folder(root, {"scene-0001": even, "scene-0002": [0.0, 0.5, 1.0, 2.5, 3.0]})
    return root


def rewrite(folder: Path, tmp_path: Path, change) -> Path:
    """A copy of the folder's first scene with other annotations."""
    annotations = json.loads((folder / "annotations.json").read_text())
    change(annotations["scene_infos"])
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    if not (tmp_path / "gts").exists():
        (tmp_path / "gts").symlink_to(folder / "gts")
    return tmp_path


def test_frames_are_in_the_order_of_their_times(folder):
    scene = read_occ3d(folder)[0]
    assert scene.name == "scene-0001" and scene.dt == 0.5 and scene.steps == 12
    assert [path.parent.name for path in scene.files if path] == [f"scene-0001-{k:02d}" for k in range(12)]
    assert scene.ego_pose[0, :, 0].tolist() == [2.0 * k for k in range(12)] and scene.ego_kind == ("expert",)
    assert scene.attributes["gaps"] == "none" and scene.attributes["origin"] == "500.000, 900.000"


def test_frames_and_masks_are_kept_as_they_are(folder):
    frame = read_occ3d(folder)[0].frame(3)
    assert np.array_equal(frame.labels, frame_of(6.0, 0.0)) and frame.labels.dtype == np.uint8
    assert frame.mask_lidar is not None and frame.mask_camera is not None
    assert np.array_equal(frame.mask_lidar, frame.labels != FREE) and frame.mask_camera.all()


def test_a_gap_in_time_parts_two_motions_and_is_told(folder):
    scene = read_occ3d(folder)[1]
    assert scene.steps == 7 and scene.attributes["gaps"] == "1 to 2.5 s"
    assert scene.ego_valid.tolist() == [[True] * 3 + [False] * 4, [False] * 5 + [True] * 2]
    assert scene.ego_pose[1, 5:, 0].tolist() == [6.0, 8.0]
    with pytest.raises(SceneError, match="no frame was recorded at step 4"):
        scene.frame(4)


def test_one_scene_or_the_frames_folder_can_be_named(folder):
    assert [scene.name for scene in read_occ3d(folder / "gts")] == ["scene-0001", "scene-0002"]
    assert [scene.name for scene in read_occ3d(folder / "gts" / "scene-0002")] == ["scene-0002"]
    assert is_occ3d(folder) and is_occ3d(folder / "gts") and is_occ3d(folder / "gts" / "scene-0001")
    assert not is_occ3d(folder.parent) and not is_occ3d(folder / "gts" / "scene-0001" / "scene-0001-00")


def test_the_part_of_a_download_that_is_there_is_read(tmp_path):
    write_folder(tmp_path, {"scene-0001": [0.0, 0.5, 1.0], "scene-0002": [0.0]})
    (tmp_path / "gts" / "scene-0001" / "scene-0001-01" / "labels.npz").unlink()
    (tmp_path / "gts" / "scene-0002" / "scene-0002-00" / "labels.npz").unlink()
    (scene,) = read_occ3d(tmp_path)
    assert scene.attributes["gaps"] == "0 to 1 s" and scene.attributes["frames"] == "2"
    (tmp_path / "gts" / "scene-0001" / "scene-0001-00" / "labels.npz").unlink()
    (scene,) = read_occ3d(tmp_path)
    assert scene.steps == 1 and scene.attributes["origin"] == "504.000, 900.000"
    (tmp_path / "gts" / "scene-0001" / "scene-0001-02" / "labels.npz").unlink()
    with pytest.raises(SceneError, match=r"no frame .* is there"):
        read_occ3d(tmp_path)


@pytest.mark.parametrize("yaw", [0.0, 1.0, -2.5, 3.1])
def test_headings_come_from_quaternions(yaw):
    assert yaw_of(quaternion(yaw)) == pytest.approx(yaw)
    half = 0.02  # a car on a ramp heads where it heads
    pitch = [math.cos(half), 0.0, math.sin(half), 0.0]
    w, z = math.cos(yaw / 2), math.sin(yaw / 2)
    turned = [w * pitch[0], -z * pitch[2], w * pitch[2], z * pitch[0]]
    assert yaw_of(turned) == pytest.approx(yaw, abs=1e-3)
    assert yaw_of([-part for part in quaternion(yaw)]) == pytest.approx(yaw)


def test_from_the_recording_cars_place_a_frame_is_seen_as_it_was(folder):
    scene = read_occ3d(folder)[0]
    drawer = drawer_of(scene)
    poses = torch.from_numpy(scene.ego_pose[0, [2, 5]])
    frames = drawer.frames(poses, torch.tensor([1.0, 2.5]))
    assert torch.equal(frames, torch.from_numpy(np.stack([frame_of(4.0, 0), frame_of(10.0, 0)])))


def test_from_elsewhere_a_frame_is_moved_over_the_plane(folder):
    scene = read_occ3d(folder)[0]
    drawer = drawer_of(scene)
    moved = drawer.frames(torch.tensor([[4.0 + 4.0, -2.0, 0.0]]), torch.tensor([1.0]))[0]
    expected = frame_of(8.0, -2.0)  # beyond the edge ahead: what the frames after saw there
    expected[:, :5] = FREE  # nobody ever saw the last 2 m to the right
    assert torch.equal(moved, torch.from_numpy(expected))
    back = drawer.frames(torch.tensor([[4.0, 0.0, math.pi / 2]]), torch.tensor([1.0]))[0]
    seen = torch.from_numpy(frame_of(4.0, 0.0))
    assert torch.equal(back, torch.flip(seen.transpose(0, 1), dims=(1,)))
    far = drawer.frames(torch.tensor([[500.0, 0, 0]]), torch.tensor([1.0]))
    assert (far == FREE).all()


def test_road_users_stand_only_where_the_moment_shows_them(tmp_path):
    """The car at (30, 0) is out of the first frame's reach, from 60 m behind it, and in the last one's."""
    write_folder(tmp_path, {"scene-0001": [0.0, 0.5, 1.0]}, step=-20.0)
    drawer = drawer_of(read_occ3d(tmp_path)[0])
    ahead = drawer.frames(torch.tensor([[0.0, 0, 0]]), torch.tensor([1.0]))[0]
    assert not (ahead == CAR).any() and (ahead[..., 2] == DRIVEABLE).float().mean() > 0.95


def test_another_grid_takes_the_label_at_each_centre(folder):
    scene = read_occ3d(folder)[0]
    made = drawer_of(scene, TINY).frames(torch.from_numpy(scene.ego_pose[0, :1]), torch.zeros(1))[0]
    assert made.shape == TINY.shape and (made[..., 1] == FREE).all()
    assert (made[:, 24, 0] == FREE).all()  # the centre at -0.6 m lies below the road
    assert set(made.unique().tolist()) <= {FREE, DRIVEABLE, MANMADE, CAR}


def test_voxel_scenes_start_episodes_windows_replays_and_clips(folder):
    scenes = read_occ3d(folder)[:1]
    start = make_start(scenes[0], 0, 4, OCC3D, history=2)
    assert torch.equal(start.occupancy[1], torch.from_numpy(frame_of(8.0, 0.0))) and len(start.route) > 20
    (window,) = forecast_windows(scenes[0], 4, OCC3D)
    assert torch.equal(window.truth[-1], torch.from_numpy(frame_of(18.0, 0.0)))
    world = ReplayWorld(OCC3D)
    state = world.step(world.reset([start], [0]), torch.tensor([[[2.0, 0, 0], [4.0, 0, 0]]]))
    assert torch.equal(state.occupancy[0, 1], torch.from_numpy(frame_of(12.0, 0.0)))
    for _ in range(5):  # past the end, time stands still
        state = world.step(state, torch.zeros(1, 2, 3))
    assert (state.occupancy == DRIVEABLE).any()
    clips = ClipSampler(scenes, OCC3D, frames=4).draw(1, 0)
    assert clips.labels.shape == (1, 4, *OCC3D.shape)
    assert sample_starts(scenes, 1, 0, 2, TINY, future=2.0)[0].source[0] is scenes[0]
    assert WindowSampler(scenes, OCC3D, history=2, future=1).draw(1, 0).labels.shape == (1, 3, *OCC3D.shape)
    with pytest.raises(SceneError, match="has no tracks of road users"):
        drawer_of(scenes[0]).road_users(torch.zeros(1, 3), torch.zeros(1))


def change(token, path, value):
    def apply(infos):
        place = infos["scene-0001"]
        keys = [token, *path]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return apply


FIRST = "scene-0001-00"
FAULTS = [
    (change(FIRST, ["timestamp"], "soon"), f"[{FIRST}].timestamp is not a number of microseconds"),
    (change(FIRST, ["timestamp"], 1.5), f"[{FIRST}].timestamp is not"),
    (change(FIRST, ["timestamp"], str(BEGIN + 520_000)), "has two frames of the timestamp"),
    # Time steps for all of the time between once filled the memory.
    (
        change("scene-0001-11", ["timestamp"], str(10**18)),
        f"the timestamp {10**18} lies too far from the one before",
    ),
    (change(FIRST, ["ego_pose"], None), f"[{FIRST}].ego_pose.translation is not 3 finite numbers"),
    (change(FIRST, ["ego_pose", "translation"], [1, 2]), f"[{FIRST}].ego_pose.translation"),
    (change(FIRST, ["ego_pose", "translation"], [math.nan, 0, 0]), f"[{FIRST}].ego_pose.translation"),
    (
        change(FIRST, ["ego_pose", "rotation"], [0, 0, 0, 0]),
        f"[{FIRST}].ego_pose.rotation is not a quaternion",
    ),
    (change(FIRST, ["ego_pose", "rotation"], [1, 0, 0, "0"]), f"[{FIRST}].ego_pose.rotation"),
    (change(FIRST, [], []), f"[{FIRST}] is no frame"),
    (change("../up", [], {}), "[../up] is no frame"),
    (change("9" * 300, [], {"timestamp": "1"}), "] is no frame"),  # no file can be called so
    (change("a\0b", [], {"timestamp": "1"}), "] is no frame"),
    (change("\ud800", [], {"timestamp": "1"}), "] is no frame"),
    (lambda infos: infos.update({"9" * 300: {}}), "] is no name of a scene"),
    (lambda infos: infos.pop("scene-0001"), "scene_infos[scene-0001] is missing"),
    (lambda infos: infos.update({"scene-0001": 3}), "scene_infos[scene-0001] is missing"),
]


@pytest.mark.parametrize(("apply", "said"), FAULTS, ids=[said[-40:] for _, said in FAULTS])
def test_faults_of_the_annotations_are_named(folder, tmp_path, apply, said):
    root = rewrite(folder, tmp_path, apply)
    with pytest.raises(SceneError) as error:
        read_occ3d(root / "gts" / "scene-0001" if "missing" in said else root)
    assert (
        said in str(error.value) and "\n" not in str(error.value) and str(error.value).startswith(str(root))
    )


def test_all_faults_are_found_and_sound_scenes_kept(folder, tmp_path):
    def apply(infos):
        change(FIRST, ["timestamp"], "x")(infos)
        change("scene-0001-05", ["ego_pose"], 1)(infos)

    scenes, faults = examine_occ3d(rewrite(folder, tmp_path, apply))
    assert [scene.name for scene in scenes] == ["scene-0002"] and len(faults) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"scene_infos": 1}', b"[" * 100_000, b"\xff\xfe"])
def test_damaged_annotations_are_refused(folder, tmp_path, content):
    rewrite(folder, tmp_path, lambda infos: None)
    (tmp_path / "annotations.json").write_bytes(content)
    with pytest.raises(SceneError, match=r"annotations\.json") as error:
        read_occ3d(tmp_path)
    assert "\n" not in str(error.value)


def test_frames_without_annotations_can_be_looked_at_but_not_driven_in(folder, tmp_path, capsys):
    (tmp_path / "gts").symlink_to(folder / "gts")
    for place in (tmp_path, tmp_path / "gts", tmp_path / "gts" / "scene-0001"):
        with pytest.warns(
            SceneWarning, match=r"annotations\.json is missing, and with it the order and the ego poses"
        ):
            scene = read_occ3d(place)[0]
    assert scene.name == "scene-0001" and scene.steps == 12 and scene.ego_kind == ()
    assert np.array_equal(scene.frame(3).labels, frame_of(6.0, 0.0))
    seen = drawer_of(scene, OCC3D).frames(torch.zeros(1, 3), torch.tensor([1.5]))
    assert torch.equal(seen[0], torch.from_numpy(frame_of(6.0, 0.0)))
    with pytest.raises(SceneError, match=r"annotations\.json is missing"):
        drawer_of(scene, OCC3D).frames(torch.ones(1, 3), torch.tensor([1.5]))
    with pytest.raises(SceneError, match=r"scene-0001 \(annotations.json is missing, .*not driven in\)"):
        sample_starts([scene], 1, 0, 2, TINY)
    picture = tmp_path / "sheet.png"
    assert main(["scenes", "info", str(tmp_path), "--picture", str(picture)]) == 0 and picture.is_file()
    said = capsys.readouterr()
    assert said.err.count("annotations.json is missing") == 1 and said.err.startswith(
        "occsora-sim: warning: "
    )
    assert (
        main(["drive", "--world", "replay", "--scenes", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    )
    assert "annotations.json" in capsys.readouterr().err


def test_frames_without_masks_are_read(tmp_path):
    path, labels = tmp_path / "labels.npz", frame_of(0, 0)
    np.savez_compressed(path, allow_pickle=False, semantics=labels)
    frame = read_labels(path)
    assert np.array_equal(frame.labels, labels) and frame.mask_lidar is None and frame.mask_camera is None


def test_each_missing_frame_and_each_scene_that_is_left_out_is_named(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "copy")
    place = tmp_path / "copy" / "gts"
    lost = place / "scene-0001" / "scene-0001-04" / "labels.npz"
    lost.unlink()
    (place / "scene-0002").rename(place / "scene-0007")
    for verb, status in (("info", 0), ("validate", 2)):
        assert main(["scenes", verb, str(tmp_path / "copy")]) == status
        said = capsys.readouterr()
        assert said.out.count(str(lost)) == 1
        assert "1 scenes have no frame on the disk and are left out: scene-0002" in said.err
        assert "1 scenes are not in annotations.json and are left out: scene-0007" in said.err


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(SceneError, match="no Occ3D-nuScenes folder"):
        read_occ3d(tmp_path)
    (tmp_path / "training" / "000").mkdir(parents=True)
    (tmp_path / "training" / "000" / "000_04.npz").write_bytes(b"")
    assert is_occ3d(tmp_path)
    with pytest.raises(SceneError, match="Occ3D-Waymo gives no ego poses"):
        read_occ3d(tmp_path)


def test_damaged_frames_are_named(tmp_path):
    path = tmp_path / "labels.npz"
    labels = frame_of(0, 0)
    mask = np.ones(labels.shape, np.uint8)

    def refused(**arrays) -> str:
        np.savez_compressed(path, allow_pickle=True, **arrays)
        with pytest.raises(SceneError) as error:
            read_labels(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
        return str(error.value)

    sound = {"semantics": labels, "mask_lidar": mask, "mask_camera": mask}
    assert "semantics is missing" in refused(mask_camera=mask, mask_lidar=mask)
    assert "semantics is float32" in refused(**{**sound, "semantics": mask[:100].astype(np.float32)[..., :4]})
    assert "semantics is uint8 (200, 200, 15)" in refused(**{**sound, "semantics": labels[..., :15]})
    assert "label 18" in refused(**{**sound, "semantics": labels + 1})
    assert "mask_lidar holds 2" in refused(**{**sound, "mask_lidar": mask * 2})
    assert "holds pickled objects" in refused(**{**sound, "semantics": np.array([{}, 1], dtype=object)})
    np.savez(path, allow_pickle=False, **sound)
    content = path.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(SceneError, match="truncated or damaged"):
            read_labels(path)
    with pytest.raises(SceneError, match="No such file"):
        read_labels(tmp_path / "none.npz")


def test_declared_sizes_that_are_not_there_take_no_memory(tmp_path):
    path = tmp_path / "labels.npz"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    bombs = {
        "array": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header,
        "zeros": bytes(50_000_000),
        "header": b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + b" " * 1000,
    }
    for bomb in bombs.values():
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for key in ("semantics", "mask_lidar", "mask_camera"):
                archive.writestr(f"{key}.npy", bomb)
        tracemalloc.start()
        with pytest.raises(SceneError, match=r"semantics|damaged"):
            read_labels(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
        tracemalloc.stop()


EACH = 10


@settings(max_examples=20, deadline=None, database=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(seed=st.integers(0, 2**32))
def test_200_mutated_frames_are_read_or_refused_in_one_line(folder, tmp_path, seed):
    rng = random.Random(seed)
    content = (folder / "gts" / "scene-0001" / FIRST / "labels.npz").read_bytes()
    path = tmp_path / "labels.npz"
    for _ in range(EACH):
        mutant = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(mutant))
            mutant[at : at + rng.choice((0, 1, 1, 8))] = rng.randbytes(rng.choice((0, 1, 1, 4)))
        path.write_bytes(bytes(mutant))
        try:
            assert read_labels(path).labels.shape == OCC3D.shape
        except SceneError as error:
            assert "\n" not in str(error) and str(error).startswith(str(path))


@settings(max_examples=20, deadline=None, database=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(seed=st.integers(0, 2**32))
def test_200_mutated_annotations_are_read_or_refused_in_one_line(folder, tmp_path, seed):
    rng = random.Random(seed)
    text = (folder / "annotations.json").read_text()
    rewrite(folder, tmp_path, lambda infos: None)
    junk = [
        "null",
        "1e999",
        "-1",
        "[]",
        "{}",
        '"../x"',
        "NaN",
        "9" * 5000,
        "99",
        '"',
        "]",
        ",",
        "\\u0000",
        "true",
        "",
    ]
    for _ in range(EACH):
        mutant = text
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(mutant))
            mutant = mutant[:at] + rng.choice(junk) + mutant[at + rng.choice((0, 1, 5, 20)) :]
        (tmp_path / "annotations.json").write_text(mutant)
        try:
            assert all(scene.steps >= 1 for scene in read_occ3d(tmp_path))
        except SceneError as error:
            assert "\n" not in str(error) and str(error).startswith(str(tmp_path))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=20, deadline=None, database=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(seed=st.integers(0, 2**32))
def test_200_frames_with_damaged_arrays_in_a_sound_archive_are_read_or_refused_in_one_line(
    folder, tmp_path, seed
):
    """Past the checksums of the archive: what it holds is no array, or none of this shape, type or range."""
    rng, path = random.Random(seed), tmp_path / "labels.npz"
    with zipfile.ZipFile(folder / "gts" / "scene-0001" / FIRST / "labels.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(EACH):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, content in members.items():
                mutant = bytearray(content)
                for _ in range(rng.choice((0, 0, 1, 2))):
                    at = rng.randrange(
                        128 if rng.random() < 0.8 else len(mutant)
                    )  # the header holds the most
                    filling = rng.choice((b"", rng.randbytes(1), b"9", b"(", b"O", b"\n", rng.randbytes(4)))
                    mutant[at : at + rng.choice((0, 1, 1, 4))] = filling
                archive.writestr(rng.choice((name, name, name, name, "other.npy")), bytes(mutant))
        try:
            assert read_labels(path).labels.shape == OCC3D.shape
        except SceneError as error:
            assert "\n" not in str(error) and str(error).startswith(str(path))
