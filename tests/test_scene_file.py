"""Scene files: what is written reads back equal; what is damaged is refused in one line."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from occsora_sim.errors import SceneError
from occsora_sim.grid import CAR, DRIVEABLE, PEDESTRIAN
from occsora_sim.scenes.file import FIELDS, load_scene, save_scene
from occsora_sim.scenes.scene import Scene


def make_scene():
    generator = np.random.default_rng(0)
    valid = np.array([[True, True, False], [False, True, True]])
    state = generator.normal(size=(2, 3, 5)).astype(np.float32)
    state[~valid] = 0
    pose = generator.normal(size=(1, 3, 3)).astype(np.float32)
    pose[0, 0] = 0
    return Scene(
        name="hand-built",
        dt=0.1,
        polygon_points=generator.normal(size=(7, 2)).astype(np.float32),
        polygon_offsets=np.array([0, 3, 7]),
        polygon_class=np.array([DRIVEABLE, DRIVEABLE], np.uint8),
        polygon_z=np.array([[-0.2, 0.2], [-0.2, 0.2]], np.float32),
        lane_points=generator.normal(size=(2, 2)).astype(np.float32),
        lane_offsets=np.array([0, 2]),
        lane_width=np.array([3.2], np.float32),
        track_state=state,
        track_valid=valid,
        track_size=np.array([[4.5, 1.9, 1.5], [0.6, 0.6, 1.7]], np.float32),
        track_class=np.array([CAR, PEDESTRIAN], np.uint8),
        ego_pose=pose,
        ego_valid=np.array([[False, True, True]]),
        ego_track=np.array([1]),
        ego_kind=("expert",),
        route_points=generator.normal(size=(5, 2)).astype(np.float32),
        route_offsets=np.array([0, 5]),
        attributes={"seed": "3", "kind": "grid"},
    )


def refused(path):
    with pytest.raises(SceneError) as error:
        load_scene(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


def rewrite(path, arrays=None, metadata=None):
    """The same file with some arrays or some of its own metadata replaced."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    path.write_bytes(save({**load(content), **(arrays or {})}, metadata={**header, **(metadata or {})}))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "scene.safetensors"
    save_scene(make_scene(), path)
    return path


def test_a_scene_reads_back_equal(path):
    scene, again = make_scene(), load_scene(path)
    for field in dataclasses.fields(Scene):
        a, b = getattr(scene, field.name), getattr(again, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype and np.array_equal(a, b), field.name
        else:
            assert a == b, field.name


def test_writing_leaves_no_other_file(path):
    save_scene(make_scene(), path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_is_not_valid_is_neither_checked_nor_kept(path):
    scene = make_scene()
    scene.track_state[~scene.track_valid] = np.nan
    save_scene(scene, path)
    assert not load_scene(path).track_state[~scene.track_valid].any()


def test_a_missing_file_is_refused(tmp_path):
    assert "No such file" in refused(tmp_path / "none.safetensors")


def test_a_folder_is_refused(tmp_path):
    assert "directory" in refused(tmp_path)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.8, 0.999])
def test_a_truncated_file_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "truncated" in refused(path)


def test_foreign_files_are_refused(path):
    path.write_bytes(save({"weight": np.zeros(3)}))
    assert "kind" in refused(path)
    path.write_bytes(save({"weight": np.zeros(3)}, metadata={"kind": "occsora-sim/checkpoint"}))
    assert "occsora-sim/checkpoint" in refused(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    assert "no scene file" in refused(path)


@pytest.mark.parametrize(
    "metadata",
    [
        {"version": "99"},
        {"scene": "{"},
        {"scene": "[]"},
        {"scene": "{}"},
        {"scene": json.dumps({"name": 1, "dt": 0.1, "ego_kind": ["expert"], "attributes": {}})},
        {"scene": json.dumps({"name": "a", "dt": -1, "ego_kind": ["expert"], "attributes": {}})},
        {"scene": json.dumps({"name": "a", "dt": 0.1, "ego_kind": [], "attributes": {}})},
    ],
)
def test_wrong_metadata_is_refused(path, metadata):
    rewrite(path, metadata=metadata)
    refused(path)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_missing_or_retyped_field_is_named(path, name):
    arrays = load(path.read_bytes())
    rewrite(path, {name: arrays[name].astype(np.float64)})
    assert name in refused(path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    path.write_bytes(save({k: v for k, v in arrays.items() if k != name}, metadata=header))
    assert f"{name} is missing" in refused(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("polygon_points", np.full((7, 2), np.nan, np.float32)),
        ("polygon_points", np.zeros((7, 3), np.float32)),
        ("polygon_offsets", np.array([0, 3, 8])),
        ("polygon_offsets", np.array([0, 9, 7])),
        ("polygon_offsets", np.array([1, 3, 7])),
        ("polygon_class", np.zeros(3, np.uint8)),
        ("polygon_class", np.full(2, 18, np.uint8)),
        ("polygon_z", np.array([[0, 0], [1, 2]], np.float32)),
        ("lane_width", np.array([0], np.float32)),
        ("track_size", -np.ones((2, 3), np.float32)),
        ("track_state", np.full((4, 5), np.inf, np.float32)),
        ("track_state", np.zeros((3, 5), np.float32)),
        ("track_state", np.zeros((4, 4), np.float32)),
        ("track_valid", np.zeros((3, 3), bool)),
        ("ego_track", np.array([2])),
        ("ego_track", np.array([-2])),
        ("ego_valid", np.array([[True, False, True]])),
        ("ego_valid", np.array([[True, True]])),
        ("route_offsets", np.array([0, 2, 5])),
    ],
)
def test_inconsistent_fields_are_named(path, name, value):
    rewrite(path, {name: value})
    message = refused(path)
    # a wrong mask shows in the states that it packs
    packed = {"track_valid": "track_state", "ego_valid": "ego_pose"}.get(name, name)
    assert name in message or packed in message


def test_an_inconsistent_scene_is_not_written(tmp_path):
    scene = dataclasses.replace(make_scene(), ego_kind=())
    with pytest.raises(SceneError, match="ego_kind"):
        save_scene(scene, tmp_path / "scene.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SceneError, match="file"):
        save_scene(make_scene(), tmp_path / "file" / "scene.safetensors")
