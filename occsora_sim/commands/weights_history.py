"""The trainings that made a weights file, as its recipe tells them: the newest first, then what each began from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training; what the recipe does not say is None.

    Attributes:
        trained: which part: "traffic", "ground", "tokenizer"...
        preset: whose sizes it was begun with.
        scenes: trained on.
        stages: steps that were asked for, by stage, in the order of training.
        minutes: the limit that was set; 0: none [min].
        batch: windows per step.
        lr: peak learning rate.
        seed: of batches, noise and initial weights.
        device: trained on.
        begun_from: names of the weights files that it began from, by option.

    """

    trained: str
    preset: str | None
    scenes: str | None
    stages: Mapping[str, Any]
    minutes: Any
    batch: Any
    lr: Any
    seed: Any
    device: str | None
    begun_from: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The same as JSON types."""
        return asdict(self)


def history(recipe: Any) -> list[Training]:
    """The trainings of a weights file's recipe, the newest first. One that several others began from stands once, at
    its first mention.
    """
    found: list[Training] = []
    for training in _trainings(recipe):
        if training not in found:
            found.append(training)
    return found


def _trainings(recipe: Any) -> Iterator[Training]:
    if not isinstance(recipe, Mapping):
        return
    for name, part in reversed(list(recipe.items())):
        if name == "init" or not isinstance(part, Mapping):
            continue
        if "loop" in part:
            yield _training(str(name), part)
        else:  # a part that was taken from other weights, with their recipe
            yield from _trainings(part)
    yield from _trainings(recipe.get("init"))


def _training(name: str, options: Mapping[str, Any]) -> Training:
    loop = options["loop"] if isinstance(options["loop"], Mapping) else {}
    main = {name: loop.get("steps_taken", loop.get("steps"))}
    first = {key: options.get(f"{key}_steps") for key in ("plan",)}
    later = {key: options.get(f"{key}_steps") for key in ("rollout", "entry")}
    begun = {key: options.get(key) for key in ("init", "traffic", "tokenizer")}
    return Training(
        trained=name,
        preset=_text(options.get("preset")),
        scenes=_text(options.get("scenes")),
        stages={key: steps for key, steps in {**first, **main, **later}.items() if steps},
        minutes=loop.get("minutes"),
        batch=loop.get("batch"),
        lr=loop.get("lr"),
        seed=loop.get("seed"),
        device=_text(loop.get("device")),
        begun_from={key: str(path) for key, path in begun.items() if path},
    )


def policy_history(recipe: Any) -> list[Training]:
    """The training of a policy; its recipe has other fields."""
    if not isinstance(recipe, Mapping) or not isinstance(learner := recipe.get("learner"), Mapping):
        return []
    return [
        Training(
            trained="agent",
            preset=None,
            scenes=_text(recipe.get("scenes")),
            stages={"decisions": recipe.get("decisions")},
            minutes=learner.get("minutes"),
            batch=learner.get("copies"),
            lr=learner.get("lr"),
            seed=learner.get("seed"),
            device=None,
            begun_from={"weights": str(recipe["weights"])} if recipe.get("weights") else {},
        )
    ]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
