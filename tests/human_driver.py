"""Drives render_mode="human" on the display, saves what the screen shows, and prints what was found as JSON.

python tests/human_driver.py SCENE FOLDER
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from display import XKeyboard
from gymnasium.utils.env_checker import check_env
from PIL import ImageGrab

import occsora_sim  # noqa: F401  (registers the id)


def main(scene: str, folder: Path) -> None:
    """Reset and two steps; close; drive on without the window that somebody has closed; Gymnasium's checker."""
    display = os.environ["DISPLAY"]

    def save(name: str) -> None:
        ImageGrab.grab(xdisplay=display).save(folder / f"{name}.png")

    options: dict[str, Any] = {"world": "replay", "scenes": scene, "starts": 1}
    with gym.make("OccSora/Drive-v0", render_mode="human", **options) as env:
        save("before")
        env.reset(seed=0)
        save("reset")
        for step in range(2):
            env.step(np.array([0.5, 0.0], np.float32))
            save(f"step{step}")
        found = {"render": env.render(), "modes": env.metadata["render_modes"]}
    save("closed")
    with gym.make("OccSora/Drive-v0", render_mode="human", **options) as env:
        env.reset(seed=0)
        XKeyboard(display).press("Escape")
        env.step(np.array([0.5, 0.0], np.float32))
        save("escaped")
        env.step(np.array([0.5, 0.0], np.float32))
    env = gym.make("OccSora/Drive-v0", render_mode="human", disable_env_checker=True, **options).unwrapped
    check_env(env)
    env.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
