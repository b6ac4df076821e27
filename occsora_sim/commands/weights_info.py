"""`occsora-sim weights info`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from occsora_sim.commands.output import Outputs, output_file, write_json
from occsora_sim.errors import CheckpointError, OccSoraError

if TYPE_CHECKING:
    from occsora_sim.checkpoint import Outline

MOST_SHOWN = 5
"""Trainings of the history that are printed; --json has all."""

LONGEST = 200
"""Characters of a text of the file that are printed."""

PARTS = {
    "ground.plan": "ground: plan of the streets",
    "ground.fine": "ground: tokens",
    "traffic": "traffic: how road users move",
    "entries": "entries: who comes into view",
}
"""What parts are called on the screen; others by their own names."""

WORLDS = ("world_model", "traffic", "tokenizer")
"""Kinds of weights that have a family."""

_MEASURED = ("running_mean", "running_var", "entries.sizes", "entries.kept")
"""How names of floats end that are measured on data, not learned."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `weights info`.

    Attributes:
        weights: weights that a training wrote: of either design, of a policy or of an encoder.
        json: also write what is known to this file.

    """

    weights: tyro.conf.Positional[Path]
    json: Path | None = None


def describe(path: Path) -> dict[str, Any]:
    """What a weights file holds, as JSON types. The header and the shapes are read, no tensor.

    Raises:
        CheckpointError: the file is unusable, or holds no weights to use.

    """
    from occsora_sim.agents.learned import KIND as POLICY
    from occsora_sim.checkpoint import read_outline
    from occsora_sim.commands.weights_history import history, policy_history
    from occsora_sim.models.occupancy_encoder import KIND as ENCODER

    outlines, header = read_outline(path)
    kind = header.get("kind")
    if kind not in (*WORLDS, POLICY, ENCODER):
        raise CheckpointError(
            f"{path}: holds a {kind!r} checkpoint, which a training goes on from; give the weights that it wrote"
        )
    config = header.get("policy" if kind == POLICY else "config")
    config = dict(config) if isinstance(config, Mapping) else {}
    trainings = (policy_history if kind == POLICY else history)(header.get("recipe"))
    scenes = header.get("trained_on", trainings[0].scenes if trainings else None)
    floats = {name: part for name, part in outlines.items() if part.dtype.startswith(("F", "BF"))}
    return {
        "path": str(path),
        "kind": kind,
        "family": header.get("family"),
        "preset": config.pop("preset", None),
        "bytes": path.stat().st_size,
        "types": sorted({part.dtype for part in floats.values()}),
        "parameters": _parameters(floats, whole=None if kind in WORLDS else "network"),
        "configuration": config,
        "refused": _refusal(path, str(kind)) if kind in WORLDS else None,
        "trained_on": scenes,
        "steps": header.get("steps"),
        "history": [training.to_json() for training in trainings],
    }


def _parameters(floats: Mapping[str, Outline], whole: str | None) -> dict[str, int]:
    """Learned numbers of each part; of `whole`, where the network has no parts."""
    found: dict[str, int] = {}
    for name, part in floats.items():
        if not name.endswith(_MEASURED):
            words = name.split(".")
            of = whole or ".".join(words[: 2 if words[0] == "ground" else 1])
            found[of] = found.get(of, 0) + math.prod(part.shape)
    return found


def _refusal(path: Path, kind: str) -> str | None:
    """Why this release cannot use weights of this configuration; None where it can."""
    from occsora_sim.models.weights import read_config

    try:
        read_config(path, kind=kind)
    except OccSoraError as error:
        return str(error)
    return None


def run(options: Options) -> None:
    """Print what the file holds on one screen; write all of it to --json.

    Raises:
        CheckpointError: the file is unusable, or holds no weights to use.
        ConfigurationError: --json cannot be written.

    """
    if options.json:
        output_file(options.json)
    try:
        found = _plain(describe(options.weights))
    except RecursionError as error:
        raise CheckpointError(f"{options.weights}: its header is nested too deeply; get it again") from error
    with Outputs() as outputs:
        if options.json:
            outputs.write(write_json, options.json, found)
        _print(found)


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("weights", header_style="")
    table.add_column(_clean(found["path"]), overflow="fold")
    for name, value in _facts(found):
        table.add_row(_clean(name), _clean(value))
    if found["history"]:
        table.add_section()
        table.add_row("trained", "newest first; steps as they were asked for")
        for name, value in _trainings(found["history"]):
            table.add_row(f"  {_clean(name)}", _clean(value))
    Console(markup=False, emoji=False, highlight=False).print(table)


def _facts(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the file holds, line by line."""
    of = [found["kind"], found["family"], found["preset"] and f"preset {found['preset']}"]
    yield "holds", ", ".join(str(part) for part in of if part)
    if found["refused"]:
        yield "refused", found["refused"]
    yield "size", f"{found['bytes'] / 1e6:.1f} MB; weights in {', '.join(found['types']) or 'no type'}"
    for name, count in found["parameters"].items():
        yield PARTS.get(name, name), f"{count / 1e6:.2f} M"
    if len(found["parameters"]) > 1:
        yield "all parameters", f"{sum(found['parameters'].values()) / 1e6:.2f} M"
    yield from _configuration(found["configuration"])
    yield "trained on", str(found["trained_on"] or "not said")
    if found["steps"]:
        yield "steps", str(found["steps"])


def _configuration(config: Mapping[str, Any], name: str = "configuration") -> Iterator[tuple[str, str]]:
    """A line for the plain fields of a configuration, and one for each configuration inside it."""
    plain = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    if plain:
        yield name, ", ".join(f"{key} {_short(value)}" for key, value in plain.items())
    for key, value in config.items():
        repeated = key == "grid" and name != "configuration"  # parts have the grid of the whole
        if isinstance(value, Mapping) and not repeated:
            yield from _configuration(value, key if name == "configuration" else f"{name}.{key}")


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _trainings(trainings: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """A line for each training, the newest first."""
    for one in trainings[:MOST_SHOWN]:
        stages = one["stages"]
        steps = " + ".join(f"{count} {name}" for name, count in stages.items())
        told = [
            f"steps {next(iter(stages.values())) if len(stages) == 1 else steps}" if stages else "",
            f"at most {_short(one['minutes'])} minutes" if one["minutes"] else "",
            *(f"{key} {_short(one[key])}" for key in ("batch", "lr", "seed") if one[key] is not None),
            one["device"] or "",
            *(f"--{option} {Path(path).name}" for option, path in one["begun_from"].items()),
        ]
        scenes = f"on {one['scenes']}" if one["scenes"] else "scenes not said"
        yield one["trained"], f"{', '.join(part for part in told if part)}; {scenes}"
    left = len(trainings) - MOST_SHOWN
    if left > 0:
        yield "earlier", f"{left} more; --json FILE has them"


def _plain(value: Any) -> Any:
    """The same with numbers that JSON does not know, NaN and infinity, as texts."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _clean(text: object) -> str:
    """A text of the file as it may be printed: no control characters, and not too long."""
    line = "".join(character if character.isprintable() else "?" for character in str(text))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
