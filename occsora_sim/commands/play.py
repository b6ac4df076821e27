"""`occsora-sim play`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from occsora_sim.commands.driving import DrivingOptions
from occsora_sim.commands.output import Outputs, output_folder, write_json
from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import FRAME_SECONDS

if TYPE_CHECKING:
    from occsora_sim.agents.episode import Episode, EpisodeGroup
    from occsora_sim.envs.simulation import DriveSimulation
    from occsora_sim.rendering.rollout import Rollout
    from occsora_sim.viewer.seat import Seat

STARTS = 16
"""Beginnings drawn from the scenes, driven one after another."""


@dataclass(frozen=True, kw_only=True)
class Options(DrivingOptions):
    """Options of `play`.

    Attributes:
        open3d: drive in a window of Open3D instead of the browser; needs a display and the extra `view`.
        out: folder for rollout.npz, rollout-2.npz and so on, one an episode, and summary.json, as `drive` writes them.
        port: of the loopback address; 0: any that is free.
        no_open: do not open the browser.
        seconds: an episode ends after so long [s].

    """

    open3d: bool = False
    out: Path = Path("out/play")
    port: int = 0
    no_open: bool = False
    seconds: float = 60.0


def run(options: Options) -> None:
    """Let a person drive, episode after episode, until Ctrl-C or until the window is closed."""
    from occsora_sim.interruption import Terminated
    from occsora_sim.viewer.page_seat import PageSeat
    from occsora_sim.viewer.seat import LeftError
    from occsora_sim.viewer.window_seat import WindowSeat

    folder = output_folder(options.out)
    seat: Seat = WindowSeat() if options.open3d else PageSeat(options.port, not options.no_open)
    session = Session(options, seat)
    with Outputs() as outputs:
        try:
            with seat:
                while True:
                    session.drive(outputs, folder)
        except LeftError:
            pass
        except KeyboardInterrupt as stop:
            if isinstance(stop, Terminated):
                raise
        finally:
            session.finish(outputs, folder)


class Session:
    """Episodes that a person drives.

    Args:
        options: of the command.
        seat: where the person sits.

    Raises:
        ConfigurationError: the agent takes other actions than acceleration and steering.

    """

    def __init__(self, options: Options, seat: Seat) -> None:
        from occsora_sim.envs.imagination import Imagination
        from occsora_sim.envs.simulation import DriveSimulation
        from occsora_sim.viewer.keyboard import Person

        simulation, self.agent = options.open(STARTS)
        if simulation.config.action != "controls":
            raise ConfigurationError(
                f"--agent {options.agent}: acts by {simulation.config.action}; give one that acts by acceleration "
                "and steering, so that it and a person can take turns"
            )
        self.options, self.seat = options, seat
        self.simulation: DriveSimulation = DriveSimulation(
            replace(simulation.config, frames_per_decision=1), simulation.world, simulation.starts
        )
        self.imagination = Imagination(self.simulation)
        self.person = Person(simulation.config.vehicle)
        self.number = self.place = 0  # of the episode, and of its start
        self.spent: list[float] = []  # [s], of each step
        self.episodes: list[Episode] = []
        self.stems: list[str] = []

    def drive(self, outputs: Outputs, folder: Path) -> None:
        """One episode, saved however it ends; then wait for the order to go on."""
        from occsora_sim.agents.episode import EpisodeGroup

        self.place = self.number % len(self.simulation.starts)
        seed = self.options.seed + self.number
        group = self.seat.during(
            lambda: EpisodeGroup(self.simulation, self.imagination, self.person, [self.place], seed, [0])
        )
        self.number += 1
        self.seat.show(self._piece(group), driver="you", new=True)
        again = False
        try:
            again = self._roll(group)
        finally:
            if len(group.logs[0]) > 1:
                episode = group.done[0] if 0 in group.done else group.episode(0, "stopped")
                self._save(episode, outputs, folder)
        self.seat.show(None, driver="you", ended=episode_words(group))
        while not again:
            again = "again" in self.seat.take(time.monotonic() + 1.0)[1]

    def _roll(self, group: EpisodeGroup) -> bool:
        """Step from the first key to the episode's end; returns whether a new one was asked for before that."""
        due, by_agent, begun = time.monotonic(), False, False
        while group.live:
            watched = self.seat.wait_for_watcher(0.2)
            keys, orders = self.seat.take(due)
            if "again" in orders:
                return True
            if orders.count("agent") % 2:
                by_agent = not by_agent
                self.agent.reset(1)
            begun = begun or bool(keys) or by_agent
            if not (watched and begun):
                due = time.monotonic() + 0.1
                continue
            begin = time.monotonic()
            group.agent = self.agent if by_agent else self.person
            if by_agent:
                self._let_see(group)
            self.person.keys, self.person.speed = keys, float(group.state.motion[0, 0])
            self.seat.during(group.step)
            self.spent.append(time.monotonic() - begin)
            self.seat.show(self._piece(group), driver=self.options.agent if by_agent else "you")
            due = max(begin + FRAME_SECONDS, time.monotonic())
        return False

    def _let_see(self, group: EpisodeGroup) -> None:
        """Show the agent as many frames as it sees elsewhere, though a step here has one."""
        count = self.simulation.world.frames_per_chunk
        state = group.state
        state = replace(state, frames=state.seen[:, -count:], poses=state.seen_poses[:, -count:])
        group.observation = self.simulation.observe(state)

    def _piece(self, group: EpisodeGroup) -> Rollout:
        """The newest step as a rollout of its own."""
        import numpy as np

        from occsora_sim.commands.recording import SHOWN, plans
        from occsora_sim.rendering.rollout import Rollout

        log = group.logs[0]
        entry = log[-1]
        terms = {**dict.fromkeys(SHOWN, 1.0), "reward": 0.0}
        planned = np.zeros((1, 0, 3), np.float32)
        if "terms" in entry:
            terms = {
                **{name: float(entry["terms"][name]) for name in SHOWN},
                "reward": float(entry["reward"]),
            }
            planned = plans(entry["trajectory"][None])[-1:]
        start = self.simulation.starts[self.place]
        return Rollout(
            occupancy=entry["occupancy"],
            ego_pose=np.asarray(entry["ego_pose"], np.float32),
            actions=np.zeros((0, 2), np.float32),
            rewards=np.zeros(0, np.float32),
            planned=planned,
            route=start.route.cpu().numpy(),
            users=entry["users"],
            steps=(terms,),
            header={"world": self.options.world, "agent": "you", "name": start.name},
            grid=self.simulation.world.grid,
        )

    def _save(self, episode: Episode, outputs: Outputs, folder: Path) -> None:
        from occsora_sim.commands.recording import rollout_of
        from occsora_sim.rendering.rollout import save_rollout

        header = {
            "world": self.options.world,
            "agent": "person",
            "name": episode.start,
            "seed": episode.seed,
            "ended": episode.ended,
            "score": episode.summary,
        }
        route, grid = self.simulation.starts[self.place].route, self.simulation.world.grid
        rollout = rollout_of(episode, route, grid, header)
        stem = "rollout" if not self.stems else f"rollout-{len(self.stems) + 1}"
        if outputs.write(save_rollout, rollout, folder / f"{stem}.npz"):
            self.stems.append(stem)
            self.episodes.append(replace(episode, recording=None))
            print(f"{folder / stem}.npz: {episode.ended}, score {episode.summary['score']:.2f}", flush=True)

    def finish(self, outputs: Outputs, folder: Path) -> None:
        """Write the summary, and say how fast it went."""
        from occsora_sim.commands.drive import print_table, summarise

        if not self.episodes:
            print("nothing was driven")
            return
        options: Any = replace(self.options, agent="person")
        summary = summarise(options, self.episodes, self.stems, sum(self.spent))
        outputs.write(write_json, folder / "summary.json", summary)
        print_table(summary)
        spent = sum(self.spent) / len(self.spent)
        print(f"a step of {FRAME_SECONDS} s took {spent:.2f} s, {1 / spent:.1f} steps/s")


def episode_words(group: EpisodeGroup) -> str:
    """How an episode ended, for the page."""
    episode = group.done.get(0)
    return "stopped" if episode is None else f"{episode.ended}, score {episode.summary['score']:.2f}"
