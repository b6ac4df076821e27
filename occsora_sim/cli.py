"""The command `occsora-sim`: finds the verb, reads its options, and ends every bad input in one line."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

VERBS: dict[str, tuple[str, str]] = {
    "drive": ("drive", "drive an agent through a world; write a video, the rollout and its score"),
    "play": ("play", "drive yourself, with the keyboard in the browser; hand over to an agent and back"),
    "train traffic": ("train_traffic", "train what moves and enters: road users, on recorded tracks"),
    "train ground": ("train_ground", "train what stands still: the ground of a generated world"),
    "train tokenizer": ("train_tokenizer", "train the tokenizer of OccSora's own model, as published"),
    "train world-model": ("train_world_model", "train the denoiser of OccSora's own model on its tokenizer"),
    "train encoder": ("train_encoder", "train the encoder in whose space generated frames are judged"),
    "train agent": ("train_agent", "train a driving policy in a world, the generated one by default"),
    "evaluate world": ("evaluate_world", "forecasts, control and drift of a world against recorded scenes"),
    "evaluate clips": (
        "evaluate_clips",
        "OccSora's design and the closed loop side by side: reconstruction, forecasts, generated clips, time",
    ),
    "evaluate agent": ("evaluate_agent", "score an agent over many episodes"),
    "evaluate transfer": (
        "evaluate_transfer",
        "whether the generated world ranks agents as live traffic does; with a scatter plot",
    ),
    "view": ("view", "look at a rollout or a scene in the browser, two side by side, or as one HTML file"),
    "render": ("render", "draw a recorded rollout again, as a video or one picture"),
    "scenes make": ("scenes_make", "make scenes of traffic and write them to files"),
    "scenes info": (
        "scenes_info",
        "what a path holds: scenes, seconds, classes, ego motions; with a picture",
    ),
    "scenes edit": ("scenes_edit", "place, move, remove or script road users at a start; write a scene file"),
    "scenes validate": ("scenes_validate", "check every file of a path and name each fault with its place"),
    "weights info": (
        "weights_info",
        "what a weights file holds: parameters, configuration, how it was trained",
    ),
    "doctor": ("doctor", "what is installed here and works, and the line that installs what does not"),
    "bench": ("bench", "frames per second of the world, the voxeliser and the paper's sampler"),
}
"""Verb -> (module in occsora_sim.commands, what it does). A module is imported when its verb is called."""

PROGRAM = "occsora-sim"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns the exit status: 0 done, 2 unusable input (one line on standard error says what), 130 interrupted, 143
    told to end by SIGTERM.
    """
    from occsora_sim.commands.streams import patient_streams
    from occsora_sim.interruption import ended_by_signals

    # GNU OpenMP's threads wait for each other by counting so far before they sleep. By default they count a hundred
    # times as far, and beside one other program 20 s of driving took 400 s; read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    with ended_by_signals(), patient_streams():
        return _guarded(list(sys.argv[1:] if argv is None else argv))


def _guarded(arguments: list[str]) -> int:
    """Run the command of these arguments; returns the exit status, and lets no expected error out."""
    from occsora_sim.errors import OccSoraError
    from occsora_sim.interruption import Terminated

    try:
        _run(arguments)
        sys.stdout.flush()
    except OccSoraError as error:
        return _refuse(str(error))
    except OSError as error:
        what = f"{error.filename}: " if error.filename is not None else ""
        reason = error.strerror or str(error) or type(error).__name__
        return _refuse(f"{what}{reason}; check the path, the permissions and the space on the disk")
    except KeyboardInterrupt as stop:
        print("interrupted", file=sys.stderr)
        return 128 + stop.number if isinstance(stop, Terminated) else 130
    return 0


def _run(arguments: list[str]) -> None:
    """Run the command of these arguments."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return
    if arguments[0] == "--version":
        from occsora_sim import __version__

        print(f"{PROGRAM} {__version__}")
        return
    verb, rest = find_verb(arguments)
    if not verb:
        print(overview(rest))
        return
    command = importlib.import_module(f"occsora_sim.commands.{VERBS[verb][0]}")
    from occsora_sim.commands.parsing import parse_command

    options = parse_command(command, f"{PROGRAM} {verb}", VERBS[verb][1], rest)
    if options is not None:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_warn, warnings.showwarning)
            command.run(options)


def find_verb(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Split the arguments into a verb of VERBS and the rest. The verb is "" when help on a group is asked for
    ("scenes --help"), and the rest is then that group's name.

    Raises:
        ConfigurationError: there is no such verb.

    """
    from occsora_sim.errors import ConfigurationError

    for words in (2, 1):
        verb = " ".join(arguments[:words])
        if len(arguments) >= words and verb in VERBS:
            return verb, list(arguments[words:])
    group = [verb for verb in VERBS if verb.startswith(arguments[0] + " ")]
    if group and arguments[1:2] in (["-h"], ["--help"]):
        return "", [arguments[0]]
    if group:
        raise ConfigurationError(
            f"{PROGRAM} {arguments[0]}: say which: {', '.join(group)}; see {PROGRAM} {arguments[0]} --help"
        )
    known = ", ".join(dict.fromkeys(verb.split()[0] for verb in VERBS))
    raise ConfigurationError(
        f"{PROGRAM}: unknown command '{arguments[0]}'; there are {known}; see {PROGRAM} --help"
    )


def overview(groups: Sequence[str] = ()) -> str:
    """The list of verbs (of `groups`, or of all) that `--help` prints."""
    verbs = {verb: what for verb, (_, what) in VERBS.items() if not groups or verb.split()[0] in groups}
    width = max(map(len, verbs))
    lines = [f"  {verb:<{width}}  {what}" for verb, what in verbs.items()]
    title = (
        f"usage: {PROGRAM} COMMAND [options]\n\nDrive cars through worlds that a 4D occupancy model makes."
    )
    return "\n".join([title, "", *lines, "", f"Options of a command: {PROGRAM} COMMAND --help"])


def _warn(usual: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any) -> None:
    """Print what is left out as one line; any other warning as usual."""
    from occsora_sim.errors import SceneWarning

    if not issubclass(category, SceneWarning):
        usual(message, category, *where)
        return
    print(f"{PROGRAM}: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _refuse(message: str) -> int:
    """Print `message` on standard error as one line; returns exit status 2."""
    line = " ".join(message.split())
    print(line if line.startswith(PROGRAM) else f"{PROGRAM}: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
