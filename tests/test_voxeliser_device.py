"""Voxelising away from the CPU: everything is made on the voxeliser's device, and objects are never gone through.

Where there is no GPU, a mode watches the calls: a tensor counts as `there` when it was made with a device named, moved
to one, or computed from what is there.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from occsora_sim import constants, grid
from occsora_sim.grid import BUS, CAR, FREE, OCC3D, PEDESTRIAN
from occsora_sim.road_users import RoadUsers
from occsora_sim.scenes import voxeliser
from occsora_sim.scenes.voxeliser import Voxeliser
from occsora_sim.voxels import paint
from occsora_sim.voxels.paint import paint_road_users
from occsora_sim.voxels.shape import observe_shape
from occsora_sim.voxels.shape_cells import CELLS
from occsora_sim.watch import Watch

SIZES = {PEDESTRIAN: (0.6, 0.6, 1.7), CAR: (4.5, 1.9, 1.5), BUS: (18.0, 2.6, 3.2)}


@pytest.fixture(autouse=True)
def constants_made_anew():
    """Those that a test before made were not watched while they were."""
    for made in (constants._made, constants._span, grid._centres, paint._labels, paint._layer_tables):
        made.cache_clear()


@pytest.fixture
def crowd(straight_road):
    """A road with `each` road users of every size."""

    def build(each):
        rng, road = np.random.default_rng(0), straight_road(steps=3)
        label = np.repeat(list(SIZES), each).astype(np.uint8)
        state = np.zeros((len(label), 3, 5), np.float32)
        state[..., :3] = rng.uniform((-30, -30, -3), (30, 30, 3), (len(label), 3))[:, None]
        return replace(
            road,
            track_state=state,
            track_valid=np.ones(state.shape[:2], dtype=bool),
            track_size=np.array([SIZES[int(one)] for one in label], dtype=np.float32),
            track_class=label,
        )

    return build


def somewhere(frames):
    """Poses (n, 3), times (n,) and excluded tracks (n,)."""
    rng = np.random.default_rng(1)
    pose, time = (
        torch.from_numpy(rng.uniform(-3, 3, (frames, 3))),
        torch.from_numpy(rng.uniform(0, 1, frames)),
    )
    return pose, time, torch.arange(frames) % 3


def watched(made, frames):
    """What is seen of a call of everything that the voxeliser draws."""
    pose, time, exclude = somewhere(frames)
    for _ in range(2):  # the first makes the constants
        with Watch() as watch:
            made.frames(pose, time, exclude)
            made.road_users(pose, time, exclude)
    return watch


def held(voxeliser):
    """The tensors that a voxeliser keeps, by name."""
    parts = {**vars(voxeliser._atlas), **vars(voxeliser.tracks)}
    return {name: value for name, value in parts.items() if isinstance(value, torch.Tensor)}


def test_what_a_voxeliser_keeps_lies_on_its_device(crowd):
    kept = held(Voxeliser(crowd(2), device="meta"))
    assert len(kept) >= 10 and {tensor.device.type for tensor in kept.values()} == {"meta"}


def test_what_it_draws_is_made_from_what_lies_there(crowd):
    with Watch():
        made = Voxeliser(crowd(2))
    assert all(getattr(tensor, "there", False) for tensor in held(made).values())
    watch = watched(made, 3)
    assert watch.calls > 100 and watch.mixed == []
    # The check of each question, and how many pieces there are, which is counted on a CPU alone.
    assert sorted(watch.waits) == ["__bool__"] * 2 + ["__int__"]


def test_a_tensor_of_the_host_would_be_noticed(crowd):
    with Watch():
        made = Voxeliser(crowd(2))
    made.tracks._size = made.tracks._size.clone()  # made outside: no device is named
    assert watched(made, 1).mixed


def test_16_poses_take_as_many_calls_among_300_road_users_as_among_3(crowd, monkeypatch):
    monkeypatch.setitem(voxeliser._SLICE, "cpu", voxeliser._SLICE["cuda"])  # all at once, as on a GPU
    few, many = Voxeliser(crowd(1)), Voxeliser(crowd(100))
    assert watched(few, 16).calls == watched(many, 16).calls == watched(many, 1).calls


def several(worlds, slots, shapes=False):
    """Road users at random places, and egos."""
    rng = np.random.default_rng(worlds + slots)
    kinds = np.array(list(SIZES))[rng.integers(0, 3, (worlds, slots))]
    users = RoadUsers.empty(worlds, slots, 2)
    pose = torch.from_numpy(rng.uniform((-45, -45, -3), (45, 45, 3), (worlds, slots, 2, 3)))
    return replace(
        users,
        label=torch.from_numpy(kinds.astype(np.uint8)),
        size=torch.tensor([[SIZES[int(one)] for one in row] for row in kinds]).view(worlds, slots, 3),
        pose=pose,
        present=torch.from_numpy(rng.random((worlds, slots, 2)) < 0.8),
        shape=torch.from_numpy(rng.integers(0, 99, (worlds, slots, *CELLS)).astype(np.int16))
        if shapes
        else None,
    ), torch.from_numpy(rng.uniform(-3, 3, (worlds, 3)))


def painting(worlds, slots, shapes=False):
    """What is seen of a call that paints road users, and of one that looks at their shapes."""
    users, pose = several(worlds, slots, shapes)
    ground = torch.full((worlds, *OCC3D.shape), FREE, dtype=torch.uint8)
    watches = []
    for call in (paint_road_users, observe_shape):
        for _ in range(2):  # the first makes the constants
            with Watch() as watch:
                here = [one.to(device=torch.device("cpu")) for one in (ground, pose)]
                call(here[0], users.map(lambda one: one.to(device=torch.device("cpu"))), here[1], OCC3D)
        assert watch.mixed == []
        watches.append(watch)
    return watches


@pytest.mark.parametrize("shapes", [False, True])
def test_painting_waits_for_nothing_and_takes_as_many_calls_for_any_batch(shapes):
    few, many = painting(1, 3, shapes), painting(6, 40, shapes)
    for one, other in zip(few, many, strict=True):
        assert one.waits == other.waits == []
        assert 50 < one.calls == other.calls


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x[x > 0], lambda x: x.nonzero(), lambda x: x.unique(), lambda x: x.sum().item(),
        lambda x: float(x.sum()), lambda x: x.cpu(), lambda x: x.to("cpu"), lambda x: torch.where(x > 0),
        lambda x: x.index_put_((x > 0,), torch.zeros(())), lambda x: bool(x.any()), lambda x: x.tolist(),
        lambda x: torch.tensor([1.0], device=x.device), lambda x: x.new_tensor([1.0]),
    ],
)  # fmt: skip
def test_a_wait_would_be_noticed(wait):
    with Watch() as watch:
        wait(torch.ones(3, device="cpu"))
    assert len(watch.waits) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_draws_what_the_cpu_draws(crowd):
    scene, asked = crowd(100), somewhere(64)
    here, there = Voxeliser(scene, OCC3D).frames(*asked), Voxeliser(scene, OCC3D, "cuda").frames(*asked)
    assert there.device.type == "cuda" and there.shape == (64, *OCC3D.shape)
    assert (here != there.cpu()).float().mean() < 1e-5  # a cosine may round otherwise
