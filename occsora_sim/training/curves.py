"""Curves and pictures of a training, in TensorBoard's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch import Tensor

from occsora_sim.errors import CheckpointError, MissingDependencyError


class Curves:
    """A context that writes numbers and pictures by step into a folder.

    Raises:
        MissingDependencyError: TensorBoard is not installed.
        CheckpointError: the folder cannot be written; by `add`, `add_pictures` and at the end, too, since files are
            written behind.

    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                'TensorBoard is not installed: pip install "occsora-sim[train]"'
            ) from error
        self.folder = folder
        try:
            self._writer = SummaryWriter(str(folder))
        except OSError as error:
            raise self._refusal(error) from error

    def __enter__(self) -> Curves:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
        except OSError as late:
            if error is None:  # what ended the training first is what is told
                raise self._refusal(late) from late

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve named in `values`."""
        try:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        except OSError as error:
            raise self._refusal(error) from error

    def add_pictures(self, pictures: Mapping[str, Tensor], step: int) -> None:
        """Add a picture (3, height, width) uint8 to each row of pictures named in `pictures`."""
        try:
            for name, picture in pictures.items():
                self._writer.add_image(name, picture, step)
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"{self.folder}: cannot be written ({error.strerror or error}); make room and give the same command again"
        )
