"""The observation "policy": small enough to learn from, and what stands still stands still in its image."""

import math

import gymnasium as gym
import pytest
import torch

from occsora_sim.envs.birdseye import CHANNELS, aligned_image, birdseye_image
from occsora_sim.envs.config import DriveConfig
from occsora_sim.envs.drive import DriveEnv
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE, OCC3D, SIDEWALK, TINY
from occsora_sim.scenes.start import make_start
from occsora_sim.worlds.replay import ReplayWorld

STATIC, ROAD_USER = CHANNELS.index("static"), CHANNELS.index("road_user")
NO_ROUTE = torch.full((1, 20, 2), 1e3)


def seen_from(pose, wall=(12.0, 4.0), car=(10.0, -6.0)):
    """A frame (x, y, z) seen from a pose: a wall 2.4 m square, and a car, on a road; world coordinates [m]."""
    frame = torch.full(OCC3D.shape, FREE, dtype=torch.uint8)
    frame[..., OCC3D.ground] = SIDEWALK
    x, y = OCC3D.centres_xy().double().unbind(-1)
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    world = torch.stack((pose[0] + cos * x - sin * y, pose[1] + sin * x + cos * y), dim=-1)
    frame[..., OCC3D.ground][world[..., 1].abs() < 3] = DRIVEABLE
    for centre, label in ((wall, MANMADE), (car, CAR)):
        inside = (world - torch.tensor(centre)).abs().amax(dim=-1) < 1.2
        frame[..., 3:7][inside] = label
    return frame


@pytest.mark.parametrize(
    ("pose", "error"), [((4.0, 0.0, 0.0), 0), ((4.0, 0.8, math.pi / 2), 0), ((3.3, 1.1, 0.4), 6)]
)
def test_what_stands_still_stands_still_in_the_image(pose, error):
    poses = torch.tensor([[(0.0, 0.0, 0.0), pose]])
    frames = torch.stack([seen_from(poses[0, 0].tolist()), seen_from(poses[0, 1].tolist(), car=(14.0, -6.0))])
    image = aligned_image(frames[None], poses, NO_ROUTE, OCC3D)[0] > 0
    old, new = image[:4], image[4:8]
    assert image.shape == (9, 100, 100) and not image[8].any()
    assert new[STATIC].sum() >= 9 and (old[STATIC] ^ new[STATIC]).sum() <= error
    assert new[ROAD_USER].any() and not (old[ROAD_USER] & new[ROAD_USER]).any(), "the car has moved on"
    both = old[:2].any(dim=0) & new[:2].any(dim=0)  # ground that is in view in both
    assert both.sum() > 5000 and ((old[0] ^ new[0]) & both).sum() <= 40 * error


def test_the_newest_frame_is_the_plain_image_of_which_no_voxel_is_lost():
    poses, frame = torch.tensor([[(7.0, 3.0, 1.0)]]), seen_from((7.0, 3.0, 1.0))[None, None]
    route = torch.tensor([[[2.0 * k, 0.0] for k in range(1, 21)]])
    plain, small = birdseye_image(frame, route, OCC3D), aligned_image(frame, poses, route, OCC3D)
    assert torch.equal(plain.view(1, 5, 100, 2, 100, 2).amax(dim=(3, 5)), small)


def test_what_lies_outside_an_older_frame_is_nothing():
    poses = torch.tensor([[(0.0, 0.0, 0.0), (8.0, 0.0, 0.0)]])
    frames = torch.stack([seen_from((0.0, 0.0, 0.0)), seen_from((8.0, 0.0, 0.0))])[None]
    image = aligned_image(frames, poses, NO_ROUTE, OCC3D)[0]
    assert not image[:4, 90:].any() and image[:2, :90].amax(dim=0).all() and image[4:6].amax(dim=0).all()


def test_policy_stands_for_four_parts(straight_road):
    config = DriveConfig(observation="policy")  # type: ignore[arg-type]
    assert config.observation == ("birdseye", "road_users", "ego", "route") and config.birdseye == "aligned"
    assert DriveConfig().birdseye == "frames"
    start = make_start(straight_road(), 0, 6, TINY)
    env = DriveEnv(world=ReplayWorld(TINY), scenes=[start], observation="policy")
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen) and seen["birdseye"].shape == (9, 48, 48)
    assert env.observation_space.contains(env.step(env.action_space.sample())[0])
    with pytest.raises(ConfigurationError, match=r"^birdseye='above'[^\n]+$"):
        DriveConfig(birdseye="above")  # type: ignore[arg-type]


def test_a_policy_of_it_is_small(straight_road):
    policies = pytest.importorskip("stable_baselines3.common.policies", reason="the extra `rl`")
    start = make_start(straight_road(), 0, 6)
    env = gym.make("OccSora/Drive-v0", world=ReplayWorld(), scenes=[start], observation="policy")
    seen, _ = env.reset(seed=0)
    assert sum(value.nbytes for value in seen.values()) == 9 * 100 * 100 + 4 * (32 * 10 + 4 + 2 * 20)
    policy = policies.MultiInputActorCriticPolicy(env.observation_space, env.action_space, lambda _: 1e-3)
    assert sum(part.numel() for part in policy.parameters()) < 1.6e6
