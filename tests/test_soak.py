"""The script that drives for long: what it calls flat, and what it does when a process is killed."""

import importlib.util
from functools import partial
from pathlib import Path

import pytest

from occsora_sim.envs.drive import DriveEnv
from occsora_sim.grid import TINY
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.replay import ReplayWorld

SCRIPT = Path(__file__).parent.parent / "scripts" / "soak.py"

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make(straight_road):
    """Makes an environment in a small world."""
    starts = [make_start(straight_road(), 0, 6, TINY, history=4)]
    return partial(DriveEnv, world=ReplayWorld(TINY), scenes=starts, seconds=3.0)


def test_memory_is_flat_within_a_twentieth_of_what_it_was_after_a_fifth(soak, capsys):
    assert soak.verdict("a", 1.0, [50.0, 100.0, 104.0, 99.0, 105.0])
    assert not soak.verdict("b", 1.0, [50.0, 100.0, 106.0, 99.0, 100.0])
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("(+5.0 %): flat") and said[1].endswith("(+6.0 %): GROWS")


def test_steps_are_driven_through_the_ends_of_episodes(soak, make):
    assert len(soak.drive(make(), 40, list)) == 20


def test_a_process_that_is_killed_is_named_in_a_line_and_all_begin_anew(soak, make, capfd):
    soak.soak_workers(2, 1, 2, make)
    said = capfd.readouterr().out.splitlines()
    assert len(said) == 2 and "of 2: its process" in said[0] and "2 workers, 1 killed, 1 replaced" in said[1]
