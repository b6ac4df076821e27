"""Episodes side by side on one device, from action to observation: nothing waits, not even where one ends.

`reset` begins a pool of episodes beside those that are driven. A row that ends takes the next of the pool, in a world
of its own seed, so what it meets is new although it begins where others have begun. Which rows end and what they take
is told by masks and positions that stay on the device: the same operations whatever happens. A CPU is the host and has
nothing to wait for, so there a look at the mask saves the copying of worlds when nobody has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from occsora_sim.envs.beginnings import Beginnings
from occsora_sim.envs.infos import Infos, tell
from occsora_sim.envs.road_user_edit import RoadUserEdit
from occsora_sim.envs.simulation import DriveSimulation
from occsora_sim.envs.state import DriveState
from occsora_sim.errors import ConfigurationError
from occsora_sim.worlds.protocol import World, WorldState

LARGEST_POOL = 32
"""Beginnings that are prepared unless the option `pool` says how many; a world of each is kept."""

_LARGE = 1 << 15  # numbers in a row from which on a tensor is put in by itself

Step = tuple[dict[str, Tensor], Tensor, Tensor, Tensor, Infos]


def can_pool(world: World) -> bool:
    """Whether the states of a world are tensors alone, and what happens in it follows from a seed: `memory` has `map`,
    `users`, and a `key` (b, 2) int64 of seeds and frames. Recordings and live traffic are no such worlds.
    """
    from occsora_sim.worlds.diffusion import DiffusionWorld

    return isinstance(world, DiffusionWorld)


class PooledEpisodes:
    """The rows of a vector environment.

    Args:
        simulation: that is driven.
        beginnings: of all rows.
        at_once: whether an episode that has ended begins anew at once, or in the next step, whose action it ignores.
        size: of the pool.

    Attributes:
        state: the episodes under way. Where rows begin anew, the tensors of its world may be written into.
        looks: whether the mask of the rows that begin anew is looked at, which waits for the device.

    """

    def __init__(self, simulation: DriveSimulation, beginnings: Beginnings, at_once: bool, size: int) -> None:
        self.simulation, self.beginnings, self.at_once, self.size = simulation, beginnings, at_once, size
        self.state: DriveState | None = None
        self.looks = simulation.device.type == "cpu"

    def reset(
        self, rows: Sequence[int], chosen: Sequence[int | str] | None, edits: Sequence[RoadUserEdit] = ()
    ) -> tuple[dict[str, Tensor], Infos]:
        """Begin all rows, with the road users at their starts edited, and the pool; or let some `rows` begin with the
        next of the pool, while the others go on.

        Raises:
            ConfigurationError: some rows are to begin at starts that are chosen.

        """
        simulation, count = self.simulation, self.beginnings.count
        device = simulation.device
        anew = torch.tensor([row in set(rows) for row in range(count)], device=device)
        if self.state is None or len(rows) == count:
            mine = self.beginnings.draw(rows, chosen, edits)
            drawn = zip(mine, self.beginnings.draw_pool(self.size), strict=True)
            both = simulation.begin(*(own + pooled for own, pooled in drawn))
            self.pool = simulation.select(both, range(count, count + self.size))
            self._states = Pool.of(tensors_of(self.pool))
            self._sights, ids = simulation.look(self.pool)
            self._told = tell(self.pool, simulation.config, ids=ids)
            self._shown = Pool.of([*self._sights.values(), *self._told.values()])
            self.state = map_state(simulation.select(both, range(count)), lambda tensor: tensor)
            self._taken = torch.zeros((), dtype=torch.int64, device=device)  # of the pool, since it was made
            assert self.beginnings.generators is not None
            self._seed = int(self.beginnings.generators[0].integers(1 << 62))
            self._over = torch.zeros(count, dtype=torch.bool, device=device)
        else:
            if chosen is not None:
                raise ConfigurationError(
                    'reset: start with a reset_mask: with output="torch" they take the next of the pool'
                )
            self.state, _ = self._begin(self.state, anew)
            self._over = self._over & ~anew
        seen, ids = simulation.look(self.state)
        return _copied(seen), _copied(masked(tell(self.state, simulation.config, ids=ids), anew))

    @torch.no_grad()
    def step(self, actions: Any) -> Step:
        """Drive on; nothing waits.

        Raises:
            ActionError: wrong shape.

        """
        assert self.state is not None
        simulation = self.simulation
        after, outcome = simulation.step(self.state, simulation.clamp(actions, self.beginnings.count))
        seen, ids = simulation.look(after)
        if "occupancy" in seen:  # is the state's own memory
            seen["occupancy"] = seen["occupancy"].clone()
        told = tell(after, simulation.config, outcome, ids)
        over = outcome.terminated | outcome.truncated
        anew = over if self.at_once else self._over
        self.state, place = self._begin(after, anew)
        sight, fresh = dict(seen), {name: told[name] for name in self._told}
        if place is not None:
            mine = [seen[name] for name in self._sights] + [fresh[name] for name in self._told]
            shown = iter(self._shown.put(anew, place, mine, None))
            sight = {name: next(shown) for name in self._sights}
            fresh = {name: next(shown) for name in self._told}
        stepped = {name: value for name, value in told.items() if name not in fresh}
        infos = {**masked(fresh, torch.ones_like(anew)), **masked(stepped, ~anew)}
        if self.at_once:
            last = {
                "final_obs": seen, "_final_obs": over, "final_info": masked(told, over), "_final_info": over,
            }  # fmt: skip
            return sight, outcome.reward, outcome.terminated, outcome.truncated, {**infos, **last}
        self._over = over & ~anew
        reward = outcome.reward.masked_fill(anew, 0.0)
        return sight, reward, outcome.terminated & ~anew, outcome.truncated & ~anew, infos

    def _begin(self, state: DriveState, anew: Tensor) -> tuple[DriveState, Tensor | None]:
        """`state` with the rows `anew` (b,) bool taken from the pool, each the next; and their places in it (b,), None
        where it was looked at and there are none.
        """
        number = self._taken + anew.cumsum(0)  # of each beginning, from 1 on
        place = (number - 1) % self.size
        if self.looks and not bool(anew.any()):
            return state, None
        rows = anew.nonzero()[:, 0] if self.looks else None
        self._taken = number[-1]
        begun = iter(self._states.put(anew, place, tensors_of(state), rows))
        state = map_state(state, lambda _: next(begun))
        memory = state.world.memory
        seed = torch.where(anew, self._seed + number, memory.key[:, 0])
        memory = replace(memory, key=torch.stack((seed, memory.key[:, 1]), dim=1))
        return replace(state, world=replace(state.world, memory=memory)), place


def map_state(state: DriveState, change: Callable[[Tensor], Tensor]) -> DriveState:
    """Every tensor of a state changed in the same way; what is the same in several places is changed once.

    The world's chunk becomes the frames that are observed; the score's last frame, the last of them.
    """
    count = state.frames.shape[1]
    memory = state.world.memory.map(change)
    seen, seen_poses = change(state.seen), change(state.seen_poses)
    frames, poses = seen[:, -count:], seen_poses[:, -count:]
    episodes = replace(state.episodes, occupancy=state.episodes.frames).map(change)
    return DriveState(
        world=WorldState(occupancy=frames, ego_pose=poses, memory=memory, users=memory.users),
        episodes=replace(episodes, occupancy=seen[:, -1]),
        frames=frames,
        poses=poses,
        seen=seen,
        seen_poses=seen_poses,
        motion=change(state.motion),
        start=change(state.start),
        origin=change(state.origin),
        known=state.known,
    )


def tensors_of(state: DriveState) -> list[Tensor]:
    """The tensors of a state in the order of `map_state`."""
    found: list[Tensor] = []
    map_state(state, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found


def masked(told: Infos, mask: Tensor) -> Infos:
    """Infos with `_name` for each name, at every depth: the rows of which it is told; what others hold is void."""
    out: Infos = {}
    for name, value in told.items():
        out[name] = masked(value, mask) if isinstance(value, dict) else value
        out[f"_{name}"] = mask
    return out


@dataclass(frozen=True)
class Pool:
    """Tensors (p, ...) of p beginnings, whose rows are put into others; `packed` are the small ones side by side."""

    tensors: Sequence[Tensor]
    packed: dict[torch.dtype, Tensor]

    @staticmethod
    def of(tensors: Sequence[Tensor]) -> Pool:
        """A pool of these."""
        return Pool(tensors, pack(tensors))

    def put(self, mask: Tensor, place: Tensor, mine: Sequence[Tensor], rows: Tensor | None) -> list[Tensor]:
        """Tensors `mine` (b, ...), as many, with the rows of the mask (b,) taken from the pool at `place` (b,).

        Small tensors are put in side by side: three operations for all of a kind. Large ones are written into, where
        `rows` says which are set in the mask.
        """
        both = {
            kind: torch.where(mask[:, None], self.packed[kind].index_select(0, place), table)
            for kind, table in pack(mine).items()
        }
        small = unpack(both, mine)

        def placed(tensor: Tensor, pool: Tensor) -> Tensor:
            if _is_small(tensor):
                return next(small)
            if rows is not None:
                return tensor.index_copy_(0, rows, pool.index_select(0, place[rows]))
            return torch.where(mask.view(-1, *[1] * (tensor.ndim - 1)), pool.index_select(0, place), tensor)

        return [placed(tensor, pool) for tensor, pool in zip(mine, self.tensors, strict=True)]


def pack(tensors: Iterable[Tensor]) -> dict[torch.dtype, Tensor]:
    """The small ones of tensors (b, ...) side by side: (b, *) of each kind."""
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in filter(_is_small, tensors):
        kinds.setdefault(tensor.dtype, []).append(tensor.reshape(len(tensor), -1))
    return {kind: torch.cat(parts, dim=1) for kind, parts in kinds.items()}


def unpack(packed: dict[torch.dtype, Tensor], like: Iterable[Tensor]) -> Iterator[Tensor]:
    """What `pack` has put side by side of tensors `like` these."""
    taken = dict.fromkeys(packed, 0)
    for tensor in filter(_is_small, like):
        kind, begin = tensor.dtype, taken[tensor.dtype]
        taken[kind] += tensor[0].numel()
        yield packed[kind][:, begin : taken[kind]].view_as(tensor)


def _is_small(tensor: Tensor) -> bool:
    return tensor[0].numel() < _LARGE


def _copied(tree: dict[str, Any]) -> dict[str, Any]:
    """Tensors that share no memory with the state."""
    return {
        name: _copied(value) if isinstance(value, dict) else value.clone() for name, value in tree.items()
    }
