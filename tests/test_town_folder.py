"""SUMO's files in temporary folders of any name, or of none; and the cache that towns are kept in."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from occsora_sim.cli import main
from occsora_sim.errors import SceneError
from occsora_sim.grid import TINY
from occsora_sim.scenes import made, source
from occsora_sim.scenes.source import open_scenes
from occsora_sim.scenes.start import sample_starts
from occsora_sim.scenes.town import TownConfig
from occsora_sim.scenes.town_folder import temporary_files, town_folder
from occsora_sim.scenes.traffic import make_town
from occsora_sim.worlds.traffic import TrafficWorld

SMALL = TownConfig(extent=90.0, warm_up=2.0, duration=20.0, egos=2)


@pytest.fixture
def temporary(monkeypatch):
    """Makes a folder the temporary one."""

    def use(folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        return folder

    return use


def test_towns_are_made_and_lived_in_whatever_the_temporary_folder_is_called(temporary, tmp_path):
    pytest.importorskip("libsumo", reason="towns need SUMO (the extra `traffic`)")
    folder = temporary(tmp_path / "a b,c:d'ä")
    town = make_town(3, SMALL)
    world = TrafficWorld(TINY, workers=1)
    starts = sample_starts([town], 1, 0, grid=TINY, least_future=2.0, future=2.0)
    state = world.reset(starts, [0])
    assert state.occupancy.shape[1:] == (1, *TINY.shape)
    world._end()
    assert not list(folder.iterdir())


@pytest.mark.slow
def test_a_place_with_its_own_files_too(temporary, tmp_path):
    pytest.importorskip("libsumo", reason="towns need SUMO (the extra `traffic`)")
    temporary(tmp_path / "a b,c:d")
    config = TownConfig(
        plan="motorway", warm_up=1.0, duration=10.0, bicycles_per_km=0.0, pedestrians_per_km=0.0
    )
    assert make_town(1, config).attributes["plan"] == "motorway"


def test_a_full_temporary_folder_names_itself_and_its_variable(temporary, tmp_path):
    folder = temporary(tmp_path / "t")
    says = rf"^temporary folder {folder}: No space left on device; set TMPDIR [^\n]+$"
    with pytest.raises(SceneError, match=says), town_folder():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(folder.iterdir())
    with pytest.raises(SceneError, match=r"SUMO left a file that is not whole"), town_folder() as made_in:
        import xml.etree.ElementTree as ElementTree

        (made_in / "town.net.xml").write_text("<net><edge")
        ElementTree.parse(made_in / "town.net.xml")
    with pytest.raises(PermissionError), temporary_files():
        raise PermissionError(errno.EACCES, "Permission denied", "/usr/bin/netconvert")


def test_without_any_temporary_folder_the_variable_is_named(monkeypatch):
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(SceneError, match=r"^temporary folder .*set TMPDIR"), temporary_files():
        none()


@pytest.mark.parametrize("seeds", ["traffic:3", "traffic:3-4"])
def test_an_unwritable_cache_is_refused_before_any_work_and_names_its_variable(
    seeds, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").touch()
    monkeypatch.setenv(source.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(made, "make", lambda *_: pytest.fail("a town was made"))
    monkeypatch.setattr(source, "_made_in_parallel", lambda *_: pytest.fail("towns were made"))
    monkeypatch.setattr(source, "_generator_key", lambda *_: "abc")
    assert main(["scenes", "make", "--scenes", seeds, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1 and source.CACHE_VARIABLE in said and str(tmp_path / "file" / "cache") in said
    )


def test_a_cache_that_fills_up_names_its_variable(tmp_path, monkeypatch, straight_road):
    monkeypatch.setattr(made, "make", lambda *_: straight_road())
    monkeypatch.setattr(source, "_generator_key", lambda *_: "abc")

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SceneError, match=rf"No space left.*{source.CACHE_VARIABLE}"):
        open_scenes("traffic:3", tmp_path)


def test_without_a_home_folder_only_towns_are_refused(tmp_path, monkeypatch, straight_road):
    from occsora_sim.scenes.file import save_scene

    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(source.CACHE_VARIABLE, raising=False)
    monkeypatch.setattr(Path, "home", none)
    save_scene(straight_road(), tmp_path / "a.safetensors")
    assert len(open_scenes(str(tmp_path))) == 1
    with pytest.raises(SceneError, match=source.CACHE_VARIABLE):
        open_scenes("traffic:3")
