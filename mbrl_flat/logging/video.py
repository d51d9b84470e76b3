"""Frames to a video; one that was not finished never has its name."""

import importlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from mbrl_flat.errors import MissingExtraError


class VideoWriter:
    """Takes RGB frames one by one; the video has its name once it is whole.

    Use it as a context manager: leaving by an exception removes what was written so far.

    Args:
        path: The video, such as ``videos/step_10000.mp4``; its folder is made.
        fps: Frames shown in a second.

    Raises:
        MissingExtraError: If imageio or its ffmpeg is not installed.
    """

    def __init__(self, path: Path, *, fps: int = 30) -> None:
        try:
            imageio = importlib.import_module("imageio.v2")
            # imageio looks for it only when the first frame is written, too late to say so.
            importlib.import_module("imageio_ffmpeg")
        except ImportError as error:
            raise MissingExtraError("Videos need imageio and ffmpeg", "video") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.frames = 0
        self._temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._writer: Any = imageio.get_writer(
            str(self._temporary), format="FFMPEG", fps=fps, macro_block_size=1
        )

    def __call__(self, frame: np.ndarray) -> None:
        """Append one frame ``[height, width, 3]``, uint8."""
        # H.264 wants even sides: repeat the last row or column instead of scaling the image.
        height, width = frame.shape[:2]
        padding = ((0, height % 2), (0, width % 2), (0, 0))
        self._writer.append_data(np.pad(frame, padding, mode="edge"))
        self.frames += 1

    def close(self) -> None:
        """Finish the video and give it its name; without frames there is none."""
        self._writer.close()
        if self.frames > 0:
            self._temporary.replace(self.path)
        else:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
            return
        self._writer.close()
        self._temporary.unlink(missing_ok=True)
