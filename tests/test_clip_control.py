"""Claims about control of drawn clips: one that obeys, one that does not listen, and refusals in one line."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from occsora_sim.errors import ConfigurationError
from occsora_sim.grid import TINY
from occsora_sim.models.occsora_world import OccSora, pose_steps
from occsora_sim.presets import paper_tiny
from occsora_sim.scoring.clip_control import check, clip_control, print_clip_control
from occsora_sim.scoring.clip_models import recorded_clips


@pytest.fixture(scope="module")
def clips(built_street):
    """Two clips of 4 s, at 8 m/s and at 4 m/s."""
    return [next(recorded_clips([built_street(ego_speed=speed)], 1, TINY, 8)) for speed in (8.0, 4.0)]


class Answer:
    """Draws the recorded clip that its prompt belongs to, or always the first; without prompt the first too."""

    config = SimpleNamespace(grid=TINY, guidance=4.0, diffusion_steps=1000)

    def __init__(self, clips, deaf: bool) -> None:
        self.clips, self.deaf = clips, deaf
        self.asked: list[tuple[int, float | None]] = []
        self.tokenizer = SimpleNamespace(
            embedding=SimpleNamespace(vectors=torch.zeros(1)),
            encode=lambda labels: labels,
            quantise=lambda latent: SimpleNamespace(latent=latent),
            draw=lambda latent: latent,
        )

    def eval(self):
        return self

    def sample(self, prompt, generators, steps, guidance):
        self.asked.append((steps, guidance))
        if prompt is None or self.deaf:
            return self.clips[0].labels[None]
        return next(c.labels[None] for c in self.clips if torch.equal(pose_steps(c.poses[None]), prompt))


def test_clips_that_obey_lie_nearer_to_their_own_prompts_and_deaf_ones_do_not(clips, capsys):
    obedient: Any = Answer(clips, deaf=False)
    rows = clip_control(obedient, clips, steps=[2])
    assert [(row["what"], row["guidance"]) for row in rows] == [
        ("recorded", None), ("reconstructed", None), ("drawn", 4.0), ("drawn", 1.0), ("drawn", 0.0),
    ]  # fmt: skip
    assert obedient.asked == [(2, 4.0)] * 2 + [(2, 1.0)] * 2 + [(2, None)] * 2
    for row in rows[:4]:
        assert row["prompt"]["obeyed"] and not row["swapped"]["obeyed"] and row["nearer"] == 1.0
        assert row["metres_driven"] == pytest.approx(6.0, abs=0.01)
    assert rows[4]["nearer"] == 0.5, "without prompt it cannot know"
    print_clip_control("weights", rows)
    assert "weights" in capsys.readouterr().out
    deaf: Any = Answer(clips, deaf=True)
    assert {row["nearer"] for row in clip_control(deaf, clips, steps=[2])[2:]} == {0.5}


def test_what_cannot_be_checked_is_refused_in_one_line(clips):
    model = OccSora(paper_tiny())
    for refused in (
        lambda: clip_control(model, clips[:1], steps=[2]),
        lambda: check({}, [2]),
        lambda: check({"weights": model}, [2, 1001]),
    ):
        with pytest.raises(ConfigurationError, match=r"^control: [^\n]*$"):
            refused()
