"""Opens the window of a small rollout on the display, presses real keys, and prints what became of them as JSON.

python tests/window_driver.py FOLDER
"""

import json
import os
import sys
from pathlib import Path

from display import XKeyboard
from PIL import Image
from small_rollout import small_rollout

from occsora_sim.viewer.rollout_window import RolloutWindow


def main(folder: Path) -> None:
    """Pause, look at every camera, hide the ground, scrub and close."""
    window, keyboard, found = RolloutWindow(small_rollout()), XKeyboard(os.environ["DISPLAY"]), []
    window.step(0.0)
    for number, name in enumerate(("space", "Right", "2", "3", "g", "End", "q")):
        keyboard.press(name)
        going = [window.step(0.0) for _ in range(3)][-1]
        state = window.playback
        found.append([name, going, state.playing, state.frame, state.camera, sorted(state.hidden)])
        if going:
            Image.fromarray(window.picture()).save(folder / f"{number}.png")
    window.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
