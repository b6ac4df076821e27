"""Numbers as people write them."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.reward import RewardConfig
from occsora_sim.errors import ConfigurationError
from occsora_sim.quantities import real, settle, whole
from occsora_sim.scene_prompt import ScenePrompt
from occsora_sim.scoring.driving import ScoreConfig
from occsora_sim.vehicle import Vehicle


@pytest.mark.parametrize(
    "written", [3, 3.0, "3", " 3 ", np.int64(3), np.float32(3), np.array(3), torch.tensor(3)]
)
def test_a_whole_number_is_taken_however_it_is_written(written):
    assert whole(written, "n") == 3 and type(whole(written, "n")) is int
    assert real(written, "x") == 3.0 and type(real(written, "x")) is float


@pytest.mark.parametrize(
    "wrong", [None, True, np.bool_(True), "three", "", math.nan, [3], np.ones(1), {}, b"3", 3j]
)
def test_what_is_no_number_is_refused_in_one_line(wrong):
    for read in (real, whole):
        with pytest.raises(ConfigurationError, match=r"^n=[^\n]+ number$"):
            read(wrong, "n")


@pytest.mark.parametrize("wrong", [3.5, "3.5", math.inf, -math.inf])
def test_a_broken_number_is_not_whole(wrong):
    with pytest.raises(ConfigurationError, match="whole number"):
        whole(wrong, "n")
    with pytest.raises(ConfigurationError, match="4 or more"):
        whole(3, "n", least=4)


def test_infinity_is_a_number_only_where_it_may_be():
    with pytest.raises(ConfigurationError, match="finite"):
        real(math.inf, "x")
    assert real("inf", "x", finite=False) == math.inf


def test_settling_leaves_open_fields_open_and_text_alone():
    @dataclass(frozen=True, kw_only=True)
    class Config:
        count: "int" = 1
        share: "float | None" = None
        name: "str" = "7"

        def __post_init__(self) -> None:
            settle(self, "config ")

    assert Config(count="4") == Config(count=4)  # type: ignore[arg-type]
    assert Config().share is None and Config(name="8").name == "8"
    assert Config(share=np.float32(0.5)).share == 0.5  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="config count="):
        Config(count=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (RewardConfig, "progress"),
        (ScoreConfig, "route_width"),
        (ScenePrompt, "vehicles"),
        (DriveConfig, "seconds"),
    ],
)
def test_every_configuration_takes_text_and_refuses_nan(kind, name):
    assert getattr(kind(**{name: "2.5"}), name) == 2.5
    for wrong in (math.nan, "much", True):
        with pytest.raises(ConfigurationError, match=rf"^[^\n]*{name}[^\n]*$"):
            kind(**{name: wrong})


@pytest.mark.parametrize("wrong", [math.nan, math.inf, "wide", True])
def test_an_ego_without_a_size_is_refused_as_a_vehicle_and_as_a_mapping(wrong):
    assert DriveConfig(vehicle={"width": "2"}).vehicle == Vehicle(width=2.0)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"^vehicle width="):
        DriveConfig(vehicle={"width": wrong})  # type: ignore[arg-type]
    if not isinstance(wrong, str):
        with pytest.raises(ConfigurationError, match=r"^vehicle width="):
            DriveConfig(vehicle=Vehicle(width=wrong))
