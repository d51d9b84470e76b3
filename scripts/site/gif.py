"""Draw docs/assets/agents.gif: videos of two runs side by side, random and trained.

    export MUJOCO_GL=osmesa
    mbrl-flat-train env.task=walker-stand agent=random preset=cpu steps=250 eval_every=250 \
        eval_episodes=1 video=true run_dir=runs/random
    mbrl-flat-evaluate run=runs/TRAINED episodes=1 video=true
    python scripts/site/gif.py runs/random runs/TRAINED

Takes the newest video of each run. The file is kept below 1 MB.
"""

import argparse
import sys
from io import BytesIO
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

LARGEST = 1_000_000
"""Bytes; a README with more is slow to open."""
OUT = Path(__file__).parents[2] / "docs" / "assets" / "agents.gif"


def newest_video(run: Path) -> Path:
    """The video of a run that was written last."""
    videos = sorted((run / "videos").glob("*.mp4"), key=lambda file: file.stat().st_mtime)
    if not videos:
        raise SystemExit(f"{run} has no video; run: mbrl-flat-evaluate run={run} video=true")
    return videos[-1]


def titled(frame: np.ndarray, title: str, height: int) -> np.ndarray:
    """A frame of ``height`` pixels with a line of text above it."""
    image = Image.fromarray(frame)
    image = image.resize((image.width * height // image.height, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (image.width, height + 26), "white")
    canvas.paste(image, (0, 26))
    font = ImageFont.load_default(size=15)
    ImageDraw.Draw(canvas).text((8, 4), title, fill="#222222", font=font)
    return np.asarray(canvas)


def encode(frames: list[np.ndarray], milliseconds: int) -> bytes:
    """The frames as a GIF that repeats, with one palette of 48 colours."""
    images = [Image.fromarray(frame) for frame in frames]
    palette = images[len(images) // 2].quantize(48)
    small = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    buffer = BytesIO()
    small[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=small[1:],
        duration=milliseconds,
        loop=0,
        optimize=True,
    )
    return buffer.getvalue()


def main() -> None:
    """Read both videos, shrink until the file is small enough, write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN")
    parser.add_argument("--titles", nargs=2, default=["random actions", "TD-MPC2 with SAM"])
    parser.add_argument("--seconds", type=float, default=8.0, help="of the episode")
    parser.add_argument("--fps", type=float, default=12.5, help="frames a second of the GIF")
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    files = [newest_video(run) for run in options.runs]
    rates = [iio.immeta(file)["fps"] for file in files]
    clips = [iio.imread(file) for file in files]
    count = int(options.seconds * options.fps)
    sides = [
        [
            titled(clip[min(int(k * rate / options.fps), len(clip) - 1)], title, options.height)
            for k in range(count)
        ]
        for clip, rate, title in zip(clips, rates, options.titles, strict=True)
    ]
    frames = [np.concatenate(pair, axis=1) for pair in zip(*sides, strict=True)]
    data = encode(frames, round(1000.0 / options.fps))
    while len(data) > LARGEST:
        frames = frames[: int(0.85 * len(frames))]
        data = encode(frames, round(1000.0 / options.fps))
    options.out.write_bytes(data)
    sys.stdout.write(f"{options.out}: {len(frames)} frames, {len(data):,} bytes\n")


if __name__ == "__main__":
    main()
