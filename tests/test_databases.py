"""ScenarioNet databases and deep folders: the logs that they name are found, and what is missing is named."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from occsora_sim.cli import main
from occsora_sim.errors import SceneError, SceneWarning
from occsora_sim.scenes.log_files import find_scene_files
from occsora_sim.scenes.source import open_scenes


def write_log(path: Path) -> Path:
    steps = 31
    state = {
        "position": np.stack((0.5 * np.arange(steps), np.zeros(steps), np.zeros(steps)), axis=1),
        "heading": np.zeros(steps),
        "valid": np.ones(steps, bool),
    }
    content = {
        "id": path.stem,
        "length": steps,
        "metadata": {"dataset": "waymo", "sdc_id": "1", "ts": np.arange(steps) * 0.1},
        "tracks": {"1": {"type": "VEHICLE", "state": state, "metadata": {}}},
        "map_features": {"7": {"type": "LANE_FREEWAY", "polyline": np.array([[-50.0, 0], [80, 0]])}},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return path


def write_database(folder: Path, logs: list[Path], *, mapping: bool = True) -> Path:
    """The two index files alone, as ScenarioNet's filter, merge and split write them."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = {path.name: {"id": path.stem, "length": 31, "number": np.float64(1)} for path in logs}
    (folder / "dataset_summary.pkl").write_bytes(pickle.dumps(summary))
    if mapping:
        places = {path.name: os.path.relpath(path.parent, folder) for path in logs}
        (folder / "dataset_mapping.pkl").write_bytes(pickle.dumps(places))
    return folder


@pytest.fixture
def logs(tmp_path: Path) -> list[Path]:
    return [write_log(tmp_path / "raw" / f"part_{k % 2}" / f"sd_{k}.pkl") for k in range(4)]


def names(folder: Path) -> list[str]:
    return [scene.name for scene in open_scenes(folder)]


def test_a_filtered_database_reads_the_logs_that_it_names_elsewhere(tmp_path, logs):
    assert names(write_database(tmp_path / "filtered", logs[1:3])) == ["sd_2", "sd_1"]
    assert names(write_database(tmp_path / "deep" / "er" / "split", logs[:1]).parent.parent) == ["sd_0"]


def test_a_database_without_a_mapping_holds_its_logs_itself(tmp_path):
    log = write_log(tmp_path / "plain" / "sd_a.pkl")
    assert names(write_database(log.parent, [log], mapping=False)) == ["sd_a"]


def test_a_log_that_two_databases_name_is_read_once(tmp_path, logs):
    write_database(tmp_path / "both" / "one", logs[:2])
    write_database(tmp_path / "both" / "two", logs[1:])
    assert sorted(names(tmp_path / "both")) == ["sd_0", "sd_1", "sd_2", "sd_3"]


def test_logs_that_a_database_does_not_name_are_left_out_and_named(tmp_path, logs):
    write_database(tmp_path / "raw", logs[:1])
    with pytest.warns(SceneWarning, match=r"3 logs that its index does not name are left out: .*sd_2\.pkl"):
        assert names(tmp_path / "raw") == ["sd_0"]


def test_logs_several_folders_down_are_found_and_links_that_lead_back_are_not_followed(tmp_path):
    write_log(tmp_path / "a" / "b" / "c" / "d" / "sd_deep.pkl")
    write_log(tmp_path / "a" / ".trash" / "sd_gone.pkl")
    (tmp_path / "a" / "b" / "back").symlink_to(tmp_path / "a")
    assert names(tmp_path / "a") == ["sd_deep"]


def test_each_missing_log_is_named(tmp_path, logs, capsys):
    folder = write_database(tmp_path / "merged", logs)
    logs[3].unlink()
    with pytest.warns(SceneWarning, match=r"1 logs that its index names are missing: .*sd_3\.pkl"):
        assert names(folder) == ["sd_0", "sd_2", "sd_1"]
    assert main(["scenes", "info", str(folder)]) == 0
    assert f"missing: {folder / '..' / 'raw' / 'part_1' / 'sd_3.pkl'}" in capsys.readouterr().out
    assert main(["scenes", "validate", str(folder)]) == 2
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "sd_3.pkl: is missing, and the index of its database names it" in said[0]
    for log in logs[:3]:
        log.unlink()
    with pytest.raises(SceneError, match=r"none of the 4 logs that its index names is there: .*sd_0\.pkl"):
        open_scenes(folder)


@pytest.mark.parametrize("content", [[1], {3: "a"}, {"sd_0.pkl": 5}, {"sd_0.pkl": "a\0b"}, b"broken"])
def test_a_damaged_index_is_named_and_its_folder_read_without_it(tmp_path, content):
    write_log(tmp_path / "sd_0.pkl")
    raw = content if isinstance(content, bytes) else pickle.dumps(content)
    (tmp_path / "dataset_mapping.pkl").write_bytes(raw)
    with pytest.warns(SceneWarning, match=r"dataset_mapping\.pkl: .* read without it"):
        assert names(tmp_path) == ["sd_0"]
    (tmp_path / "sd_0.pkl").unlink()
    with pytest.raises(SceneError, match=r"holds no scene file; .*dataset_mapping\.pkl") as error:
        open_scenes(tmp_path)
    assert "\n" not in str(error.value)


def test_an_occ3d_folder_further_down_is_pointed_at(tmp_path):
    frame = tmp_path / "nuscenes" / "gts" / "scene-0001" / "token" / "labels.npz"
    frame.parent.mkdir(parents=True)
    frame.write_bytes(b"")
    assert find_scene_files(tmp_path).occ3d == (tmp_path / "nuscenes",)
    with pytest.raises(SceneError, match=f"there is an Occ3D folder in it, give {tmp_path / 'nuscenes'}"):
        open_scenes(tmp_path)
    write_log(tmp_path / "sd_0.pkl")
    with pytest.warns(SceneWarning, match="Occ3D folders are read by themselves, and left out"):
        assert names(tmp_path) == ["sd_0"]
