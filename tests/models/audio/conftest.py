"""Media made with PyAV, in every shape that people send."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

MakeMedia = Callable[..., Path]


def tone(seconds: float, rate: int, *, frequency: float = 440.0, level: float = 0.5) -> NDArray[np.float32]:
    """A sine, shape (samples,)."""
    times = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


def write_media(
    path: Path,
    codec: str,
    channels: NDArray[np.float32],
    *,
    rate: int,
    layout: str,
    sample_format: str | None = None,
    container: str | None = None,
    with_video: bool = False,
    delay: float = 0.0,
) -> Path:
    """Encodes float channels, shape (channels, samples); ``delay`` moves the timestamps of the sound, in seconds."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        if sample_format:
            stream.format = sample_format
        if with_video:  # after all streams are there: muxing writes the header
            write_video(output, len(channels[0]) / rate + delay)
        frame = av.AudioFrame.from_ndarray(channels, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        resampler = av.AudioResampler(format=stream.codec_context.format.name, layout=layout, rate=rate)
        fifo = av.AudioFifo()
        for part in resampler.resample(frame):
            fifo.write(part)
        size, position = stream.codec_context.frame_size or 1024, round(delay * rate)
        while (part := fifo.read(min(size, fifo.samples))) is not None:
            part.time_base, part.pts = Fraction(1, rate), position
            position += part.samples
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return path


def write_video(output: av.container.OutputContainer, seconds: float) -> None:
    """Encodes blank pictures."""
    video = output.add_stream("mpeg4", rate=25)
    video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
    for index in range(round(seconds * 25)):
        frame = av.VideoFrame(64, 64, "yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, 25)
        output.mux(video.encode(frame))
    output.mux(video.encode(None))


@pytest.fixture
def make_media(tmp_path: Path) -> MakeMedia:
    """Writes a tone in the same phase on all channels; see `write_media` for the options."""

    def make(
        name: str, codec: str, *, seconds: float = 1.0, rate: int = 16_000, layout: str = "mono", **kwargs
    ) -> Path:
        num_channels = av.AudioLayout(layout).nb_channels
        channels = np.tile(tone(seconds, rate), (num_channels, 1))
        return write_media(tmp_path / name, codec, channels, rate=rate, layout=layout, **kwargs)

    return make


@pytest.fixture
def silent_film(tmp_path: Path) -> Path:
    """A film without a sound track."""
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as output:
        write_video(output, 1.0)
    return path


@pytest.fixture
def write_channels(tmp_path: Path) -> MakeMedia:
    """Writes given channels; see `write_media` for the options."""

    def make(name: str, codec: str, channels: NDArray[np.float32], **kwargs) -> Path:
        return write_media(tmp_path / name, codec, channels, **kwargs)

    return make
