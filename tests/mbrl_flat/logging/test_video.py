import sys

import numpy as np
import pytest

from mbrl_flat.errors import MissingExtraError
from mbrl_flat.logging.video import VideoWriter


def write_black_frames(writer, count):
    for _ in range(count):
        writer(np.zeros((33, 41, 3), np.uint8))


def test_a_film_has_its_name_only_once_it_is_whole(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "videos" / "step_10.mp4"

    with VideoWriter(path) as writer:
        write_black_frames(writer, 3)
        assert not path.exists()

    assert path.stat().st_size > 0
    assert list(path.parent.iterdir()) == [path]


def test_an_exception_leaves_no_film(tmp_path):
    pytest.importorskip("imageio_ffmpeg")

    def record():
        with VideoWriter(tmp_path / "video.mp4") as writer:
            write_black_frames(writer, 1)
            raise KeyError("lost")

    with pytest.raises(KeyError):
        record()

    assert list(tmp_path.iterdir()) == []


def test_a_film_without_frames_is_not_written(tmp_path):
    pytest.importorskip("imageio_ffmpeg")

    VideoWriter(tmp_path / "video.mp4").close()

    assert list(tmp_path.iterdir()) == []


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)

    with pytest.raises(MissingExtraError, match=r"run: pip install .*\[video\]"):
        VideoWriter(tmp_path / "video.mp4")
