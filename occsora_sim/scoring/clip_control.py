"""Does a drawn clip move as its trajectory prompt says? The ego's motion, registered from the frames alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import FRAME_SECONDS, Grid
from occsora_sim.models.occsora_world import OccSora, pose_steps
from occsora_sim.scoring.allocator import give_back
from occsora_sim.scoring.clip_models import RecordedClip
from occsora_sim.scoring.motion_error import chunk_motion, motion_error
from occsora_sim.scoring.registration import Registration, register

STRIDE = round(1.0 / FRAME_SECONDS)
"""Frames between those that are registered: a second, for which the registration's bounds are made."""

PROTOCOL = (
    "the ego's motion over each second of a clip, registered from what stands still in its frames, beside that of its "
    "trajectory prompt and of the next clip's (swapped); nearer: share of the registered motions that lie nearer to "
    "their own prompt, of those whose two prompts differ by 1 m or more; recorded: the recorded frames; reconstructed: "
    "through the tokenizer; guidance 1: the prompt as it is, 0: without prompt"
)

APART = 1.0
"""Motions of two prompts differ when they end this far apart [m]."""


def check(designs: Mapping[str, OccSora], steps: Sequence[int]) -> None:
    """Refuse what `clip_control` cannot do, before anything is computed.

    Raises:
        ConfigurationError: there is no model, or one has fewer steps.

    """
    if not designs:
        raise ConfigurationError(
            "control: no weights of OccSora's design among these; give one, or no --control"
        )
    for name, model in designs.items():
        if max(steps) > model.config.diffusion_steps:
            raise ConfigurationError(
                f"control: {max(steps)} steps, but the schedule of {name} has 1 to {model.config.diffusion_steps}"
            )


def clip_control(
    model: OccSora,
    clips: Sequence[RecordedClip],
    *,
    steps: Sequence[int],
    seed: int = 0,
    on_clip: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Draw each clip's trajectory with its guidance, with the prompt alone and without prompt; see PROTOCOL.

    Args:
        model: tokenizer and denoiser.
        clips: two or more, as long as the model's.
        steps: of the diffusion; all is done for each of these numbers.
        seed: of the first clip; the next ones count on. The same for every row.
        on_clip: told how many clips are registered, and of how many.

    Returns:
        A row for the recorded clips, one for their reconstructions, and one for each number of steps and guidance:
        `what`, `steps` and `guidance` (null but for drawn clips), `prompt` and `swapped` (`motion_error`), `nearer`
        (null where nothing is registered), and `metres_driven`: what the prompts ask for each second, on average.

    Raises:
        ConfigurationError: too few clips.

    """
    if len(clips) < 2:
        raise ConfigurationError(
            f"control: {len(clips)} clips; prompts are swapped between two or more, give more"
        )
    config, tokenizer = model.eval().config, model.tokenizer
    asked = torch.stack([chunk_motion(clip.poses[None], STRIDE)[0] for clip in clips])  # (n, k, 3)
    prompts = [pose_steps(clip.poses[None]) for clip in clips]
    cases = [(count, weight) for count in steps for weight in (config.guidance, 1.0, 0.0)]
    total, done = len(clips) * (2 + len(cases)), 0

    def row(what: str, frames: Callable[[int], Tensor], **given: float) -> dict[str, Any]:
        nonlocal done
        seen = []
        for number in range(len(clips)):
            seen.append(_motions(frames(number), config.grid))
            done += 1
            give_back()
            if on_clip:
                on_clip(done, total)
        return {
            "what": what,
            "steps": None,
            "guidance": None,
            **given,
            **_errors(seen, asked, config.grid.voxel),
        }

    def rebuilt(number: int) -> Tensor:
        with torch.no_grad():
            latent = tokenizer.encode(clips[number].labels[None].to(tokenizer.embedding.vectors.device))
            return tokenizer.draw(tokenizer.quantise(latent).latent)[0]

    rows = [row("recorded", lambda number: clips[number].labels), row("reconstructed", rebuilt)]
    for count, weight in cases:

        def drawn(number: int, count: int = count, weight: float = weight) -> Tensor:
            generator = torch.Generator().manual_seed(seed + number)
            prompt = prompts[number] if weight else None
            return model.sample(prompt, [generator], count, weight or None)[0]

        rows.append(row("drawn", drawn, steps=count, guidance=weight))
    return rows


def _motions(frames: Tensor, grid: Grid) -> Registration:
    """The motion over each second of a clip (t, x, y, z)."""
    ends = frames[::STRIDE].cpu()
    return register(ends[:-1], ends[1:], grid)


def _errors(seen: Sequence[Registration], asked: Tensor, voxel: float) -> dict[str, Any]:
    found = Registration.cat(seen)
    own, other = asked.flatten(0, 1), asked.roll(-1, 0).flatten(0, 1)
    metres = [(found.motion[:, :2].cpu() - motion[:, :2]).norm(dim=-1) for motion in (own, other)]
    told = found.found.cpu() & ((own - other)[:, :2].norm(dim=-1) >= APART)
    nearer = (metres[0] < metres[1])[told]
    return {
        "prompt": motion_error(found, own, voxel),
        "swapped": motion_error(found, other, voxel),
        "nearer": float(nearer.double().mean()) if len(nearer) else None,
        "metres_driven": float(own[:, :2].norm(dim=-1).mean()),
    }


def print_clip_control(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of the weights `name` as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "clips", "steps", "guidance", "registered [%]", "error [m]", "swapped [m]", "nearer to its own [%]",
        title=f"{name}: motion over a second; the prompts ask for {rows[0]['metres_driven']:.1f} m on average",
    )  # fmt: skip
    for row in rows:
        own, other = row["prompt"], row["swapped"]
        values = (row["steps"], row["guidance"], 100 * own["registered"], own["metres"], other["metres"])
        share = None if row["nearer"] is None else 100 * row["nearer"]
        formats = ("d", "g", ".0f", ".2f", ".2f")
        shown = ["-" if v is None else f"{v:{form}}" for v, form in zip(values, formats, strict=True)]
        table.add_row(row["what"], *shown, "-" if share is None else f"{share:.0f}")
    Console().print(table)
