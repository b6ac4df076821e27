"""Scenes on the disk: what a path holds is known by its look, and every bad file of it is named."""

import dataclasses
import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from occsora_sim.cli import main
from occsora_sim.errors import SceneError, SceneWarning
from occsora_sim.grid import CAR, DRIVEABLE, FREE, OCC3D, TINY
from occsora_sim.rendering.contact_sheet import COLUMNS, contact_sheet
from occsora_sim.scenes import formats, source
from occsora_sim.scenes.file import load_scene, save_scene
from occsora_sim.scenes.source import each_scene, open_scenes
from occsora_sim.scenes.start import sample_starts
from occsora_sim.scenes.voxel_scene import VoxelScene

STEPS = 31


def log(name="a-log", speed=5.0):
    """The least that a log can hold: a lane and the recording car on it."""
    x = speed * 0.1 * np.arange(STEPS)
    state = {
        "position": np.stack((x, np.zeros(STEPS), np.zeros(STEPS)), axis=1),
        "heading": np.zeros(STEPS),
        "valid": np.ones(STEPS),
        "length": np.full(STEPS, 4.5),
        "width": np.full(STEPS, 1.9),
        "height": np.full(STEPS, 1.6),
    }
    return {
        "id": name,
        "length": STEPS,
        "metadata": {"dataset": "waymo", "sdc_id": "1", "ts": np.arange(STEPS) * 0.1},
        "tracks": {"1": {"type": "VEHICLE", "state": state, "metadata": {}}},
        "map_features": {"7": {"type": "LANE_SURFACE_STREET", "polyline": np.array([[-50.0, 0], [80, 0]])}},
        "dynamic_map_states": {},
    }


def write_log(path: Path, **more) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(log(path.stem, **more)))
    return path


def write_occ3d(root: Path) -> Path:
    infos = {}
    for k in range(3):
        labels = np.full(OCC3D.shape, FREE, dtype=np.uint8)
        labels[..., 2], labels[110 - 5 * k : 114 - 5 * k, 98:102, 3:6] = DRIVEABLE, CAR
        folder = root / "gts" / "scene-0001" / f"token{k}"
        folder.mkdir(parents=True)
        mask = np.ones(OCC3D.shape, dtype=np.uint8)
        np.savez_compressed(
            folder / "labels.npz", allow_pickle=False, semantics=labels, mask_lidar=mask, mask_camera=mask
        )
        ego = {"translation": [2.0 * k, 0.0, 0.0], "rotation": [1.0, 0.0, 0.0, 0.0]}
        infos[f"token{k}"] = {"timestamp": str(1_000_000 + 500_000 * k), "ego_pose": ego}
    (root / "annotations.json").write_text(json.dumps({"scene_infos": {"scene-0001": infos}}))
    return root


def refusal(capsys, *arguments: str | Path) -> str:
    assert main(list(map(str, arguments))) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    return error


def test_a_folder_of_all_kinds_of_files_is_read_in_the_order_of_their_names(tmp_path, straight_road):
    save_scene(straight_road(), tmp_path / "b.safetensors")
    write_log(tmp_path / "c.pkl")
    write_log(tmp_path / "part_0" / "sd_a.pkl")
    for index in ("dataset_summary.pkl", "dataset_mapping.pkl"):  # never carried out
        (tmp_path / index).write_bytes(b"cos\nsystem\n(S'ls'\ntR.")
    (tmp_path / ".c.pkl.17").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.warns(SceneWarning, match=r"dataset_mapping\.pkl: it asks for os\.system.* read without it"):
        assert [scene.name for scene in open_scenes(tmp_path)] == ["straight", "c", "sd_a"]
    assert [scene.name for scene in open_scenes(tmp_path / "c.pkl")] == ["c"]
    with pytest.raises(SceneError, match="an index of logs"):
        open_scenes(tmp_path / "dataset_summary.pkl")


def test_an_occ3d_folder_is_known_by_its_annotations(tmp_path):
    (scene,) = open_scenes(write_occ3d(tmp_path))
    assert isinstance(scene, VoxelScene) and scene.steps == 3
    assert [one.name for one in open_scenes(tmp_path / "gts" / "scene-0001")] == ["scene-0001"]


def test_all_bad_files_of_a_folder_are_named_in_one_line(tmp_path, straight_road):
    save_scene(straight_road(), tmp_path / "sound.safetensors")
    content = write_log(tmp_path / "cut.pkl").read_bytes()
    (tmp_path / "cut.pkl").write_bytes(content[:200])
    (tmp_path / "calls.pkl").write_bytes(b"cos\nsystem\n(S'ls'\ntR.")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(SceneError) as error:
        open_scenes(tmp_path)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}: 3 of 4 files cannot be used: calls.pkl: it asks for os.system")
    assert (
        "cut.pkl: no pickle, truncated" in message
        and "empty.safetensors: " in message
        and "\n" not in message
    )
    for k in range(20):
        (tmp_path / f"x{k:02d}.pkl").write_bytes(b"")
    with pytest.raises(SceneError, match=r"23 of 24 .* and 11 more \(see `scenes validate`\)"):
        open_scenes(tmp_path)


def test_towns_are_handed_on_as_they_are_made(monkeypatch, straight_road, tmp_path):
    made: list[int] = []

    def made_in_parallel(seeds, cache, kind):
        for seed in (5, 4):  # the later one is ready first
            made.append(seed)
            save_scene(straight_road(), source.town_path(seed, cache))
            yield seed

    monkeypatch.setattr(source, "_made_in_parallel", made_in_parallel)
    monkeypatch.setattr(source, "_generator_key", lambda: "key")
    save_scene(straight_road(), source.town_path(3, tmp_path))
    towns = each_scene("traffic:3-5", tmp_path)
    assert next(towns).name == "straight" and made == []
    assert next(towns).name == "straight" and made == [5]
    assert len(list(towns)) == 1 and made == [5, 4]


def test_scenes_make_writes_each_town_when_it_is_made(monkeypatch, straight_road, tmp_path, capsys):
    out = tmp_path / "out"

    def each(spec, cache=None):
        for seed in (1, 2):
            assert len(list(out.glob("*.safetensors"))) == seed - 1
            yield dataclasses.replace(straight_road(), name=f"traffic-{seed}")

    monkeypatch.setattr(source, "each_scene", each)
    assert main(["scenes", "make", "--scenes", "traffic:1-2", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["traffic-1.safetensors", "traffic-2.safetensors"]


def test_a_log_becomes_a_scene_file_that_reads_back_equal(tmp_path, capsys):
    path = write_log(tmp_path / "a-log.pkl")
    assert main(["scenes", "make", "--scenes", str(path), "--out", str(tmp_path / "out")]) == 0
    again, (scene,) = load_scene(tmp_path / "out" / "a-log.safetensors"), open_scenes(path)
    for name, value in vars(scene).items():
        other = getattr(again, name)
        assert np.array_equal(value, other) if isinstance(value, np.ndarray) else value == other, name
    capsys.readouterr()
    folder = write_occ3d(tmp_path / "occ3d")
    assert "voxel sequence" in refusal(
        capsys, "scenes", "make", "--scenes", folder, "--out", tmp_path / "out"
    )


def test_info_says_what_a_path_holds_and_draws_it(tmp_path, capsys):
    write_log(tmp_path / "logs" / "one.pkl")
    write_log(tmp_path / "logs" / "two.pkl")
    picture, report = tmp_path / "sheet.png", tmp_path / "info.json"
    arguments = ["scenes", "info", str(tmp_path / "logs"), "--picture", str(picture), "--json", str(report)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "2 scenes, 6 s; 6.2 s of ego motion" in said and "1 car" in said and "1 expert" in said
    one, two = json.loads(report.read_text())["scenes"]
    assert (
        (one["name"], two["name"]) == ("one", "two") and one["source"] == "scenarionet" and one["hertz"] == 10
    )
    assert one["tracks"] == {"car": 1} and {"car", "driveable_surface", "sidewalk", "terrain"} <= set(
        one["classes"]
    )
    assert Image.open(picture).size == (2 * 408 + 8, 416)
    folder = write_occ3d(tmp_path / "occ3d")
    assert main(["scenes", "info", str(folder), "--json", str(report)]) == 0
    (scene,) = json.loads(report.read_text())["scenes"]
    assert (
        scene["classes"] == ["car", "driveable_surface"] and scene["frames"] == 3 and scene["gaps"] == "none"
    )


def test_a_sheet_shows_at_most_sixteen_scenes(straight_road):
    sheet = contact_sheet([straight_road(length=60.0)] * 20)
    assert sheet.shape == (4 * 408 + 8, COLUMNS * 408 + 8, 3)
    assert contact_sheet([straight_road()]).shape == (416, 416, 3)


def test_validate_names_each_fault_with_its_place_and_ends_with_2(tmp_path, capsys):
    write_log(tmp_path / "sound.pkl")
    bad = log()
    bad["tracks"]["1"]["state"]["heading"] = None
    bad["map_features"]["7"]["polyline"] = "here"
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(bad))
    (tmp_path / "cut.safetensors").write_bytes(b"12")
    report = tmp_path / "faults.json"
    assert main(["scenes", "validate", str(tmp_path), "--json", str(report)]) == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"{tmp_path}/bad.pkl: tracks[1].state.heading is missing",
        f"{tmp_path}/bad.pkl: map_features[7].polyline is not a list of finite points",
        f"{tmp_path}/cut.safetensors: this is no scene file, or a truncated one; make it again",
    ]
    assert captured.err == f"occsora-sim: {tmp_path}: 3 faults in 2 of 3 files\n"
    found = json.loads(report.read_text())
    assert found["files"] == 3 and found["faulty"] == 2 and len(found["faults"]) == 3
    assert main(["scenes", "validate", str(tmp_path / "sound.pkl")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/sound.pkl: 1 files, no fault\n"
    assert "no such file" in refusal(capsys, "scenes", "validate", tmp_path / "nowhere")
    (tmp_path / "nothing").mkdir()
    assert "holds no scene file" in refusal(capsys, "scenes", "validate", tmp_path / "nothing")


def test_validate_reads_every_frame_of_an_occ3d_folder(tmp_path, capsys):
    folder = write_occ3d(tmp_path)
    assert main(["scenes", "validate", str(folder)]) == 0
    assert "4 files, no fault" in capsys.readouterr().out
    frames = folder / "gts" / "scene-0001"
    content = (frames / "token1" / "labels.npz").read_bytes()
    (frames / "token1" / "labels.npz").write_bytes(content[:500])
    (frames / "token2" / "labels.npz").unlink()
    assert main(["scenes", "validate", str(folder)]) == 2
    missing, damaged = capsys.readouterr().out.splitlines()
    assert missing == f"{frames}/token2/labels.npz: is missing, and should be there"
    assert damaged.startswith(f"{frames}/token1/labels.npz: truncated or damaged")


def test_nothing_is_read_where_nothing_is():
    for spec in ("", "nowhere\0", "/no/such/place"):
        assert not formats.is_file_or_folder(spec)


EACH = 25
SHIPPED = sorted((Path(__file__).parent.parent / "assets" / "scenes").glob("*.safetensors"))


def mutant_of_a_scene(content: bytes, rng: random.Random) -> bytes:
    """`content` with one to four places overwritten, cut out or filled."""
    mutant, header = bytearray(content), int.from_bytes(content[:8], "little")
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(header + 8 if rng.random() < 0.7 else len(mutant))  # the header holds the most
        filling = rng.choice((b"", rng.randbytes(2), b"9", b"-", b'"', b"}", b"[", b"e9"))
        mutant[at : at + rng.choice((0, 1, 1, 4))] = filling
    return bytes(mutant)


def overwritten(content: bytes, rng: random.Random) -> bytes:
    """`content` with up to four numbers of its arrays changed: nothing moves, so most are read."""
    mutant, begin = bytearray(content), 8 + int.from_bytes(content[:8], "little")
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(begin, len(mutant) - 4)
        mutant[at : at + 4] = rng.choice(
            (rng.randbytes(4), b"\xff" * 4, b"\x00\x00\xc0\x7f", b"\xf9\x02\x15\x50")
        )
    return bytes(mutant)


def use(path: Path) -> None:
    """Read a scene file, draw from it and begin an episode in it; what cannot be is refused in one line."""
    try:
        scene = load_scene(path)
    except SceneError as error:
        assert "\n" not in str(error) and str(error).startswith(str(path))
        return
    try:
        (start,) = sample_starts([scene], 1, 0, 4, TINY)
        assert start.occupancy.max() <= FREE
    except SceneError as error:
        assert "\n" not in str(error)


@settings(max_examples=20, deadline=None, database=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(seed=st.integers(0, 2**32))
def test_500_mutated_scene_files_are_read_or_refused_in_one_line(straight_road, tmp_path, seed):
    path = tmp_path / "scene.safetensors"
    save_scene(straight_road(steps=5, length=60.0), path)
    content, rng = path.read_bytes(), random.Random(seed)
    for _ in range(EACH):
        path.write_bytes(mutant_of_a_scene(content, rng))
        use(path)


@pytest.mark.slow
@pytest.mark.skipif(not SHIPPED, reason="the shipped scenes are not in this checkout")
@settings(max_examples=6, deadline=None, database=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(seed=st.integers(0, 2**32))
def test_60_mutants_of_a_shipped_town_are_read_and_drawn_or_refused_in_one_line(tmp_path, seed):
    path, content, rng = tmp_path / "town.safetensors", SHIPPED[0].read_bytes(), random.Random(seed)
    for _ in range(10):
        path.write_bytes(rng.choice((mutant_of_a_scene, overwritten))(content, rng))
        use(path)
