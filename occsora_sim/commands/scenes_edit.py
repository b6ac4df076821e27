"""`occsora-sim scenes edit`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from occsora_sim.commands.output import output_file
from occsora_sim.errors import ConfigurationError

if TYPE_CHECKING:
    from occsora_sim.scenes.start import Start


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `scenes edit`.

    Attributes:
        scenes: a scene file, a log, a folder of them, or `traffic:A-B`.
        start: which of the starts that an environment draws from the scenes with the same seed.
        seed: of the draw.
        road_users: those that are placed, moved, removed or scripted, each as JSON, for example
            '{"class": "car", "cut_in": "left", "seconds": 3}'; without any, those who are there are listed alone.
        browser: edit the start in the browser instead, beginning with these; the page saves beside --out, by default
            under its name.
        out: the scene file with the edited start.
        port: of the loopback address, for the page; 0: any that is free.
        no_open: do not open the browser.

    """

    scenes: tyro.conf.Positional[str]
    start: int = 0
    seed: int = 0
    road_users: tuple[str, ...] = ()
    browser: bool = False
    out: Path = Path("edited.safetensors")
    port: int = 0
    no_open: bool = False

    def edits(self) -> list[Any]:
        """The road users as `read_edits` takes them.

        Raises:
            ConfigurationError: one of them is no JSON.

        """
        try:
            return [json.loads(text) for text in self.road_users]
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(
                f'--road-users: no JSON ({error}); write each as \'{{"class": "car", "x": 12, "y": 3}}\''
            ) from error


def run(options: Options) -> None:
    """Edit the start, write its scene, and list the road users there; or serve a page that does, until Ctrl-C."""
    from occsora_sim.commands.scenes_edit_page import serve_page
    from occsora_sim.envs.config import DriveConfig
    from occsora_sim.envs.road_user_edit import read_edits
    from occsora_sim.envs.scene_edit import edit_start
    from occsora_sim.envs.starts import open_starts
    from occsora_sim.scenes.file import SUFFIX, save_scene
    from occsora_sim.worlds.replay import ReplayWorld

    edits = read_edits(options.edits())
    if edits or options.browser:
        output_file(options.out)
        if options.out.suffix != SUFFIX:
            raise ConfigurationError(f"--out {options.out}: a scene file ends in {SUFFIX}")
    config = DriveConfig(scenes=options.scenes, seed=options.seed)
    if not 0 <= options.start < config.starts:
        raise ConfigurationError(f"--start {options.start}: give 0 to {config.starts - 1}")
    start = open_starts(config, ReplayWorld(), replayed=False, only=options.start)[0]
    if options.browser and start.users is not None:
        serve_page(start, edits, options.out, options.port, not options.no_open)
        return
    if edits or start.users is None:  # which is refused
        start = edit_start(start, edits)
    print_road_users(start)
    if edits:
        save_scene(start.source[0], options.out)
        print(options.out)


def print_road_users(start: Start) -> None:
    """Who is in view at a start, as `road_users` names and places them."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from occsora_sim.geometry import relative
    from occsora_sim.grid import CLASSES, OCC3D

    users, ego = start.users, start.ego_pose[-1].double()
    assert users is not None
    table = Table(title=start.name, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("id", "class", "x [m]", "y [m]", "yaw [rad]", "speed [m/s]"):
        table.add_column(name, justify="left" if name == "class" else "right")
    order = (users.now[0, :, :2] - ego[:2]).norm(dim=-1).argsort()
    for slot in order.tolist():
        x, y, yaw = relative(ego, users.now[0, slot]).tolist()
        if users.valid[0, slot] and max(abs(x), abs(y)) < OCC3D.upper[0]:
            label, speed = CLASSES[int(users.label[0, slot])], float(users.speed[0, slot])
            numbers = (f"{value:.1f}" for value in (x, y))
            table.add_row(str(int(users.id[0, slot])), label, *numbers, f"{yaw:.2f}", f"{speed:.1f}")
    Console(markup=False, emoji=False).print(table)  # names may hold [ and :
