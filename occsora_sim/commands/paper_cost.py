"""What OccSora's own model costs: seconds for a clip, from a few steps that were timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from occsora_sim.commands.step_costs import timed

if TYPE_CHECKING:
    from occsora_sim.models.occsora_world import OccSoraConfig

SPEED = 5.0
"""Of the car that is prompted to drive straight on [m/s]."""


def paper_seconds(
    device: str, seed: int, config: OccSoraConfig | None = None, steps: int = 3
) -> tuple[float, dict[str, Any]]:
    """Seconds that OccSora's model takes for one clip [s], untrained, which costs the same; and how that is known.

    All its steps would take hours on a CPU. They cost the same each, so a sample in a few (`steps`, at least 1) is
    timed, with guidance, and multiplied up to the schedule's number; one decoding is added.

    Args:
        device: where.
        seed: of the sample's noise.
        config: by default the preset `paper`, at full size.
        steps: how many are timed.

    """
    import torch

    from occsora_sim.grid import FRAME_SECONDS
    from occsora_sim.models.occsora_world import OccSora
    from occsora_sim.presets import paper

    config = config or paper()
    model = OccSora(config).to(device).eval()
    prompt = torch.zeros(1, config.tokenizer.frames, 2)
    prompt[..., 0] = SPEED * FRAME_SECONDS

    def sample(count: int) -> torch.Tensor:
        return model.sample_latents(prompt, [torch.Generator().manual_seed(seed)], count)

    latents = sample(1)  # the first call of a kind is slower
    step_seconds = timed(lambda: sample(steps), device) / steps
    decode_seconds = timed(lambda: model.tokenizer.draw(latents), device)
    return config.diffusion_steps * step_seconds + decode_seconds, {
        "preset": config.preset,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps_timed": steps,
        "diffusion_steps": config.diffusion_steps,
        "seconds_per_step": step_seconds,
        "seconds_decoding": decode_seconds,
        "frames": config.tokenizer.frames,
        "guidance": config.guidance,
    }
