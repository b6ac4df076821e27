"""Files are there whole or not at all, whatever refuses them."""

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from occsora_sim.atomic_file import atomic_path, check_folder, write_rows
from occsora_sim.checkpoint import write_tensors
from occsora_sim.commands.output import Outputs, output_file, write_json
from occsora_sim.errors import CheckpointError, ConfigurationError, OccSoraError, SceneError
from occsora_sim.rendering.contact_sheet import write_contact_sheet
from occsora_sim.rendering.rollout import Rollout, save_rollout
from occsora_sim.scenes.file import save_scene


@pytest.fixture
def full_disk(monkeypatch):
    """Every byte that is written to a file from now on finds no room, though the file itself can be made."""

    def write(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return write if name == "write" else getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    opened = Path.open

    def open_path(self, mode="r", *rest, **options):
        file = opened(self, mode, *rest, **options)
        return Full(file) if set("wax+") & set(mode) else file

    built_in = open

    def open_any(name, mode="r", *rest, **options):
        file = built_in(name, mode, *rest, **options)
        return Full(file) if set("wax+") & set(mode) else file

    monkeypatch.setattr(Path, "open", open_path)
    monkeypatch.setattr("builtins.open", open_any)
    monkeypatch.setattr(Path, "write_bytes", write)
    monkeypatch.setattr(Path, "write_text", write)


def a_rollout():
    occupancy = np.full((1, 200, 200, 16), 17, np.uint8)
    none = np.zeros((0, 2), np.float32)
    pose, planned = np.zeros((1, 3), np.float32), np.zeros((1, 0, 3), np.float32)
    return Rollout(
        occupancy=occupancy, ego_pose=pose, actions=none, rewards=np.zeros(0, np.float32), planned=planned
    )


def test_a_full_disk_is_one_line_for_every_kind_of_file_and_leaves_the_old_one(
    full_disk, tmp_path, straight_road
):
    scene, rollout = straight_road(steps=12), a_rollout()
    writers = {
        "rollout.npz": (lambda path: save_rollout(rollout, path), ConfigurationError),
        "report.json": (lambda path: write_json(path, {"score": 1.0}), ConfigurationError),
        "table.csv": (lambda path: write_rows(path, ("a",), [{"a": 1}]), ConfigurationError),
        "sheet.png": (lambda path: write_contact_sheet([scene], path), ConfigurationError),
        "scene.safetensors": (lambda path: save_scene(scene, path), SceneError),
        "weights.safetensors": (lambda path: write_tensors(path, {"a": torch.zeros(2)}, {}), CheckpointError),
    }
    for name, (write, kind) in writers.items():
        path = tmp_path / name
        path.touch()
        with pytest.raises(kind, match=rf"^{path}: cannot be written \(No space left on device\)[^\n]+$"):
            write(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(writers)


def test_the_error_of_another_file_is_not_put_down_to_this_one(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "out.json"):
        (tmp_path / "in.json").read_text()
    assert not list(tmp_path.iterdir())


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_json(output_file(pipe), {"score": 1})
    assert os.read(reader, 100) == b'{\n  "score": 1\n}\n'
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and len(list(tmp_path.iterdir())) == 1
    write_json(output_file(Path("/dev/null")), {})
    assert not Path("/dev/null").is_file()


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    link = tmp_path / "report.json"
    link.symlink_to(tmp_path / "far" / "report.json")
    write_json(link, 1)
    assert link.is_symlink() and (tmp_path / "far" / "report.json").read_text() == "1\n"


def test_a_name_as_long_as_names_may_be_is_written(tmp_path):
    path = tmp_path / ("n" * 250 + ".json")
    write_json(path, 1)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_one_failing_output_loses_no_other(tmp_path):
    written: list[int] = []

    def fail():
        raise ConfigurationError("the film failed")

    with pytest.raises(OccSoraError, match=r"^the film failed$"), Outputs() as outputs:
        assert not outputs.write(fail)
        assert outputs.write(written.append, 1)
    assert written == [1]
    with pytest.raises(KeyboardInterrupt), Outputs() as outputs:
        outputs.write(fail)
        raise KeyboardInterrupt


def test_a_folder_is_checked_by_making_it(tmp_path):
    check_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        check_folder(tmp_path / "file")
