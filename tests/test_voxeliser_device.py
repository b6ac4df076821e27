"""Voxelising away from the CPU: everything is made on the voxeliser's device, and objects are never gone through.

Where there is no GPU, a mode watches the calls: a tensor counts as `there` when it was made with a device named, moved
to one, or computed from what is there.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from occsora_sim.grid import BUS, CAR, OCC3D, PEDESTRIAN
from occsora_sim.scenes import voxeliser
from occsora_sim.scenes.voxeliser import Voxeliser

SIZES = {PEDESTRIAN: (0.6, 0.6, 1.7), CAR: (4.5, 1.9, 1.5), BUS: (18.0, 2.6, 3.2)}
TO_THE_HOST = ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "__len__")


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


class Watch(TorchFunctionMode):
    """Counts the calls of torch, and notes those that mix tensors of two places or wait for the device."""

    def __init__(self):
        super().__init__()
        self.calls, self.mixed, self.waits = 0, [], []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        there = [getattr(one, "there", False) for one in given]
        if name != "__get__":  # of a property, as .shape
            self.calls += 1
            if any(there) and any(not yes and one.ndim for yes, one in zip(there, given, strict=True)):
                self.mixed.append(name)
            if any(there) and name in TO_THE_HOST and name != "__len__":
                self.waits.append(name)
        out = func(*args, **kwargs)
        named = kwargs.get("device") is not None or (
            name == "to" and any(isinstance(one, torch.device) for one in args)
        )
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor) and (named or any(there)):
                setattr(one, "there", True)  # noqa: B010
        return out


def watched(made, frames):
    """What is seen of a call of everything that the voxeliser draws."""
    pose, time, exclude = somewhere(frames)
    with Watch() as watch:
        made.frames(pose, time, exclude)
        made.frames_and_motion(pose, time, exclude)
        made.displacement(pose, time, torch.tensor([0.1, 0.2]), exclude)
    return watch


def held(voxeliser):
    """The tensors that a voxeliser keeps, by name."""
    parts = {**vars(voxeliser), **vars(voxeliser._boxes)}
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
    assert set(watch.waits) == {"__bool__"} and len(watch.waits) == 3  # the check of the question, once each


def test_a_tensor_of_the_host_would_be_noticed(crowd):
    with Watch():
        made = Voxeliser(crowd(2))
    made._boxes._top = made._boxes._top.clone()  # made outside: no device is named
    assert watched(made, 1).mixed


def test_64_poses_take_as_many_calls_among_300_road_users_as_among_3(crowd, monkeypatch):
    monkeypatch.setitem(voxeliser._SLICE, "cpu", voxeliser._SLICE["cuda"])  # all at once, as on a GPU
    few, many = Voxeliser(crowd(1)), Voxeliser(crowd(100))
    assert watched(few, 64).calls == watched(many, 64).calls == watched(many, 1).calls


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_draws_what_the_cpu_draws(crowd):
    scene, asked = crowd(100), somewhere(64)
    here, there = Voxeliser(scene, OCC3D).frames(*asked), Voxeliser(scene, OCC3D, "cuda").frames(*asked)
    assert there.device.type == "cuda" and there.shape == (64, *OCC3D.shape)
    assert (here != there.cpu()).float().mean() < 1e-5  # a cosine may round otherwise
