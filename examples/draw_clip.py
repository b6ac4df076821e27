"""Draw a clip along a trajectory with OccSora's design, film it, and show it in Open3D where there is a display.

python examples/draw_clip.py assets/weights/paper-small.safetensors clip.mp4
"""

import sys
from pathlib import Path

import torch

from occsora_sim.models.occsora_world import pose_steps
from occsora_sim.models.weights import load_occsora
from occsora_sim.rendering.rollout import Rollout, rollout_video
from occsora_sim.vehicle import Vehicle, bicycle_rollout
from occsora_sim.viewer.rollout_window import show_window
from occsora_sim.viewer.window import has_display


def draw(weights: Path, film: Path, steps: int = 50, seed: int = 0, smooth: int = 4) -> Rollout:
    """A clip from noise and a trajectory: 6 m/s, straight on, then a slow bend to the left."""
    model, _ = load_occsora(weights)
    frames = model.config.tokenizer.frames
    steering = torch.zeros(1, frames - 1)
    steering[:, frames // 2 :] = 0.1  # rad
    moved, _ = bicycle_rollout(Vehicle(), torch.tensor([6.0]), torch.zeros(1, frames - 1), steering)
    poses = torch.cat([torch.zeros(1, 1, 3), moved], dim=1)
    clip = model.eval().sample(pose_steps(poses), [torch.Generator().manual_seed(seed)], steps=steps)[0]
    none = torch.zeros(frames, 0, 3).numpy()
    rollout = Rollout(
        occupancy=clip.numpy(), ego_pose=poses[0].numpy(), planned=none, actions=none[0], rewards=none[0, :, 0],
        grid=model.config.grid, header={"world": model.config.preset, "seed": seed},
    )  # fmt: skip
    rollout_video(rollout, film, smooth=smooth)
    return rollout


if __name__ == "__main__":
    clip = draw(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "clip.mp4"))
    if has_display():
        show_window(clip)
