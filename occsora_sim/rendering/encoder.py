"""The video encoder: ffmpeg as a process that is fed pictures and asked at the end whether it succeeded."""

from __future__ import annotations

import contextlib
import subprocess
from collections import deque
from pathlib import Path
from threading import Thread
from types import TracebackType

from occsora_sim.errors import ConfigurationError, MissingDependencyError

_LINES = 3
"""First lines of ffmpeg's report that an error repeats; the later ones are consequences."""


class Encoder:
    """Writes an H.264 film (yuv420p, plays everywhere). Leaving the `with` block ends the process, done or not.

    Args:
        path: of the film, written in place.
        size: width and height of the pictures, both even.
        fps: pictures a second.

    Raises:
        MissingDependencyError: there is no ffmpeg, or it cannot be run.

    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        program = find_ffmpeg()
        # "file:" keeps ffmpeg from reading "12:30/film.mp4" as an address and "-film.mp4" as an option.
        command = [
            program, "-loglevel", "error", "-y",
            "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", f"{fps:.6f}", "-i", "-",
            "-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-preset", "veryfast",
            "-movflags", "+faststart", f"file:{path}",
        ]  # fmt: skip
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for us; we end the process
            )
        except OSError as error:
            raise MissingDependencyError(
                f"the video encoder {program} cannot be run ({error.strerror}); unset IMAGEIO_FFMPEG_EXE or run: "
                "pip install 'occsora-sim[view]'"
            ) from error
        self._report: deque[str] = deque()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def write(self, picture: bytes) -> None:
        """One picture, rows of red, green, blue.

        Raises:
            ConfigurationError: the encoder has stopped; the message holds its reason.

        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(picture)
        except OSError as error:
            raise self._failure() from error

    def finish(self) -> None:
        """Wait until the film is whole.

        Raises:
            ConfigurationError: the encoder failed; the message holds its reason.

        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError as error:
            raise self._failure() from error
        if self._process.wait():
            raise self._failure()

    def __enter__(self) -> Encoder:
        """Use as `with Encoder(...) as encoder:`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process where it has not ended."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):  # pictures that nobody reads any more
                stream.close()

    def _read(self) -> None:
        """Keep the first lines of the report, and read the rest so that the process never waits."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            text = " ".join(line.decode("utf-8", "replace").split())
            if text and len(self._report) < _LINES:
                self._report.append(text)

    def _failure(self) -> ConfigurationError:
        status = self._process.wait()
        self._reader.join()
        return ConfigurationError(
            f"the video encoder failed (status {status}): {'; '.join(self._report) or 'it gave no reason'}"
        )


def find_ffmpeg() -> str:
    """The path of ffmpeg: $IMAGEIO_FFMPEG_EXE, or the one that imageio-ffmpeg brings.

    Raises:
        MissingDependencyError: there is none.

    """
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError("videos need imageio-ffmpeg: pip install 'occsora-sim[view]'") from error
