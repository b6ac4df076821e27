"""Claims on shards: they hold the scenes, whole, in their order, and nothing in them runs."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from occsora_sim import cli
from occsora_sim.errors import SceneError
from occsora_sim.scenes.file import FIELDS, save_scene, write_scene
from occsora_sim.scenes.scene import Scene
from occsora_sim.scenes.shards import read_shard, shards_of, write_shard
from occsora_sim.scenes.source import open_scenes
from occsora_sim.training import processes

pytest.importorskip("webdataset", reason="shards need WebDataset (the extra `train`)")


def same(a: Scene, b: Scene) -> bool:
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)
    return arrays and (a.name, a.dt, a.ego_kind, a.attributes) == (b.name, b.dt, b.ego_kind, b.attributes)


@pytest.fixture
def folder(straight_road, tmp_path) -> Path:
    """A folder of five scene files of different lengths."""
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for number in range(5):
        save_scene(straight_road(steps=30 + number), scenes / f"road.{number}.safetensors")
    return scenes


@pytest.fixture
def shards(folder, tmp_path, capsys) -> Path:
    """The folder as three shards."""
    out = tmp_path / "shards"
    assert cli.main(["scenes", "make", "--scenes", str(folder), "--shards", "3", "--out", str(out)]) == 0
    assert [int(line.split()[1]) for line in capsys.readouterr().out.splitlines()] == [1, 2, 2]
    return out


def test_shards_hold_the_scenes_in_their_order_however_they_are_named(folder, shards):
    whole = open_scenes(folder)
    for spec in (shards, f"{shards}/*.tar", "+".join(map(str, sorted(shards.iterdir())))):
        found = open_scenes(spec)
        assert len(found) == 5 and all(map(same, whole, found))  # type: ignore[arg-type]


def test_each_process_has_its_shards_and_all_together_have_all(shards, monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 2)
    lengths = []
    for rank in (0, 1):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(processes.dist, "barrier", lambda: None)
        lengths.append([len(scene.ego_valid[0]) for scene in processes.open_share(str(shards))])
    assert lengths == [[30, 33, 34], [31, 32]]
    monkeypatch.setattr(processes, "count", lambda: 4)
    with pytest.raises(SceneError, match="3 shards are too few for 4 processes"):
        processes.open_share(str(shards))


def test_a_scene_of_a_shard_is_checked_and_named(shards, capsys):
    assert cli.main(["scenes", "validate", str(shards)]) == 0
    one = sorted(shards.iterdir())[1]
    content = bytearray(one.read_bytes())
    content[600:610] = b"0123456789"  # in the header of the first scene
    one.write_bytes(content)
    with pytest.raises(SceneError, match=rf"^{one}/000000.safetensors: [^\n]*$"):
        list(read_shard(one))
    capsys.readouterr()
    assert cli.main(["scenes", "validate", str(shards)]) == 2


@pytest.mark.parametrize("keep", [100, 700, 20_000])
def test_a_truncated_shard_is_refused_in_one_line(straight_road, tmp_path, keep):
    path = tmp_path / "a.tar"
    write_shard([straight_road()], path)
    path.write_bytes(path.read_bytes()[: min(keep, path.stat().st_size - 12_000)])
    with pytest.raises(SceneError, match=rf"^{path}[^\n]*$"):
        list(read_shard(path))


def test_what_is_no_plain_tar_or_holds_no_scene_is_refused(straight_road, tmp_path):
    for mode, name, content in (
        ("w:gz", "a.safetensors", write_scene(straight_road(), "a")),
        ("w", "a.pkl", b"cos\nsystem\n(S'touch evil'\ntR."),
    ):
        path = tmp_path / "a.tar"
        with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        with pytest.raises(SceneError, match=r"no tar file|holds no scene file"):
            open_scenes(path)


def test_a_folder_with_other_files_beside_its_shards_is_read_as_a_folder(folder, straight_road):
    write_shard([straight_road()], folder / "z.tar")
    assert shards_of(str(folder)) == [] and len(open_scenes(folder)) == 6


@pytest.mark.parametrize(("count", "says"), [("0", "must be 1 or more"), ("6", "there are 5 scenes")])
def test_numbers_of_shards_that_cannot_be_are_refused(folder, tmp_path, capsys, count, says):
    command = ["scenes", "make", "--scenes", str(folder), "--out", str(tmp_path / "o"), "--shards", count]
    assert cli.main(command) == 2 and says in capsys.readouterr().err
