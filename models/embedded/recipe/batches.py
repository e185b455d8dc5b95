"""Training batches: prepared clips in, augmented waveforms and target texts out.

Clips of similar length go together; some are joined to longer ones, some are only noise with nothing to
transcribe. Augmentation is done here, on waveforms, anew in every epoch.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from models.embedded.recipe.prepare import Clip, load_clips
from models.types import SAMPLE_RATE

_JOIN_SHARE = 0.06  # of items made of several clips
_NOISE_SHARE = 0.015  # of items, replaced by noise with nothing to write
_BUCKET = 2_000  # items sorted by length together
_STEP = SAMPLE_RATE  # waveforms are padded to whole seconds: kernels are made anew for every new shape


@dataclass(frozen=True, slots=True)
class Span:
    """A clip inside a waveform.

    Attributes:
        text: What it says.
        end: The sample behind its last.
        phones: Its phonemes and when each begins, in seconds from the start of the waveform.
    """

    text: str
    end: int
    phones: list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class AudioBatch:
    """Waveforms and what they say.

    Attributes:
        samples: Padded waveforms, shape (B, N).
        num_samples: Valid samples of each, shape (B,).
        spans: What each says where; none if it is only noise.
        langs: ISO 639-1 code of each.
    """

    samples: Tensor
    num_samples: Tensor
    spans: list[list[Span]]
    langs: list[str]

    @property
    def texts(self) -> list[str]:
        """What each waveform says."""
        return [" ".join(span.text for span in spans) for spans in self.spans]


class TrainingBatches(IterableDataset[AudioBatch]):
    """Endless augmented batches, a new order every epoch.

    Attributes:
        seed: Seed of the order and of the augmentation.
        phones: Names of all phonemes of the clips, sorted.
    """

    def __init__(self, work: Path, batch_seconds: float, human_repeat: int, seed: int) -> None:
        """Reads the index of the clips in a work folder.

        Args:
            work: Where `prepare` put the clips.
            batch_seconds: Padded audio per batch.
            human_repeat: How often an epoch has each human recording.
            seed: Seed of the order and of the augmentation.

        Raises:
            ValueError: No clip is for training.
        """
        clips, self._samples = load_clips(work)
        train = [clip for clip in clips if clip.split == "train" and clip.kind == "synthetic"]
        human = [clip for clip in clips if clip.split == "train" and clip.kind == "human"]
        self._clips = train + human * human_repeat
        if not self._clips:
            raise ValueError("no training clips are prepared")
        self._batch_seconds = batch_seconds
        self.seed = seed
        self.phones = sorted({name for clip in self._clips for name, _ in clip.phones})

    def __iter__(self) -> Iterator[AudioBatch]:
        torch.manual_seed(self.seed)
        for epoch in itertools.count():
            rng = random.Random(f"{self.seed}-{epoch}")
            for group in grouped(_items(self._clips, rng), self._batch_seconds, rng):
                yield _augmented(group, self._samples, rng)


def _items(clips: list[Clip], rng: random.Random) -> list[list[Clip]]:
    """Shuffles clips into items: mostly one each, some several joined."""
    order = rng.sample(clips, len(clips))
    items: list[list[Clip]] = []
    while order:
        count = rng.randint(2, 5) if rng.random() < _JOIN_SHARE else 1
        item = [order.pop() for _ in range(min(count, len(order)))]
        # Only one language at a time: the prompt names one.
        items += [item] if len({clip.lang for clip in item}) == 1 else [[clip] for clip in item]
    return items


def grouped(items: list[list[Clip]], batch_seconds: float, rng: random.Random) -> Iterator[list[list[Clip]]]:
    """Groups items of similar length into batches of about ``batch_seconds`` padded seconds, shuffled."""
    groups: list[list[list[Clip]]] = []
    for first in range(0, len(items), _BUCKET):
        group: list[list[Clip]] = []
        for item in sorted(items[first : first + _BUCKET], key=_num_samples):
            if group and _rounded(_num_samples(item)) * (len(group) + 1) > batch_seconds * SAMPLE_RATE:
                groups.append(group)
                group = []
            group.append(item)
        groups.append(group)
    rng.shuffle(groups)
    yield from groups


def _num_samples(item: list[Clip]) -> int:
    return sum(clip.num_samples for clip in item) + int(0.3 * SAMPLE_RATE) * (len(item) + 1)


def _rounded(num_samples: int) -> int:
    return -(-num_samples // _STEP) * _STEP


def _wave(clip: Clip, samples: np.ndarray) -> Tensor:
    return torch.from_numpy(samples[clip.start : clip.start + clip.num_samples].astype(np.float32) / 32768)


def _augmented(group: list[list[Clip]], samples: np.ndarray, rng: random.Random) -> AudioBatch:
    speed = rng.uniform(0.88, 1.12) if rng.random() < 0.2 else 1.0
    waves: list[Tensor] = []
    spans: list[list[Span]] = []
    for item in group:
        noise = rng.random() < _NOISE_SHARE
        wave, spoken = _only_noise(item, rng) if noise else _joined(item, samples, speed, rng)
        waves.append(wave)
        spans.append(spoken)
    langs = [item[0].lang for item in group]
    lengths = torch.tensor([len(wave) for wave in waves])
    padded = torch.zeros(len(waves), _rounded(int(lengths.max())))
    for row, wave in zip(padded, waves, strict=True):
        row[: len(wave)] = wave
    return AudioBatch(padded, lengths, spans, langs)


def _joined(item: list[Clip], samples: np.ndarray, speed: float, rng: random.Random) -> tuple[Tensor, list[Span]]:
    """Clips one after the other with pauses around them, degraded, and where each is spoken."""
    pieces = [_silence(rng, 0.0, 0.35)]
    spans: list[Span] = []
    position = len(pieces[0])
    for clip in item:
        wave = _changed_speed(_wave(clip, samples), speed)
        offset = position / SAMPLE_RATE
        phones = [(name, offset + start / speed) for name, start in clip.phones]
        spans.append(Span(clip.text, position + len(wave), phones))
        pieces += [wave, _silence(rng, 0.0, 0.5)]
        position += len(pieces[-2]) + len(pieces[-1])
    return _degraded(torch.cat(pieces), rng), spans


def _only_noise(item: list[Clip], rng: random.Random) -> tuple[Tensor, list[Span]]:
    return coloured_noise(_num_samples(item), rng) * 10 ** rng.uniform(-4, -1), []


def _silence(rng: random.Random, low_s: float, high_s: float) -> Tensor:
    return torch.zeros(int(rng.uniform(low_s, high_s) * SAMPLE_RATE))


def _changed_speed(wave: Tensor, speed: float) -> Tensor:
    """Plays faster or slower, pitch and formants with it: other vocal tracts."""
    if speed == 1.0:
        return wave
    return torch.nn.functional.interpolate(wave[None, None], scale_factor=1 / speed, mode="linear")[0, 0]


def _degraded(wave: Tensor, rng: random.Random) -> Tensor:
    """Sometimes a room, sometimes noise at 6 to 35 dB below the speech."""
    if rng.random() < 0.05:
        wave = _reverberated(wave, rng)
    if rng.random() < 0.15:
        noise = coloured_noise(len(wave), rng)
        wave = wave + noise * wave.std() * 10 ** (-rng.uniform(6, 35) / 20)
    return wave


def coloured_noise(length: int, rng: random.Random) -> Tensor:
    """Noise of unit deviation whose power falls with frequency^-0 (white) to frequency^-2 (brown)."""
    spectrum = torch.fft.rfft(torch.randn(length))
    frequency = torch.arange(1, len(spectrum) + 1)
    noise: Tensor = torch.fft.irfft(spectrum * frequency ** (-rng.uniform(0, 1)), length)
    return noise / (noise.std() + 1e-9)


def _reverberated(wave: Tensor, rng: random.Random) -> Tensor:
    """Convolves with exponentially decaying noise, as a room of 0.1 to 0.5 s reverberation would."""
    decay_s = rng.uniform(0.1, 0.5)
    length = int(decay_s * SAMPLE_RATE)
    impulse = torch.randn(length) * torch.exp(-6.9 * torch.arange(length) / length) * rng.uniform(0.02, 0.12)
    impulse[0] = 1.0
    size = len(wave) + length
    wet: Tensor = torch.fft.irfft(torch.fft.rfft(wave, size) * torch.fft.rfft(impulse, size), size)
    return wet[: len(wave)]
