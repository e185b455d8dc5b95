"""Training batches: prepared clips in, augmented waveforms and target texts out.

Clips of similar length go together; some are joined to longer ones, some are only noise with nothing to
transcribe. Augmentation is done here, on waveforms, anew in every epoch.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.embedded.recipe.prepare import Clip
from models.embedded.recipe.synthesis import SAMPLE_RATE

_JOIN_SHARE = 0.12  # of items made of several clips
_NOISE_SHARE = 0.015  # of items with no speech at all
_BUCKET = 2_000  # items sorted by length together


@dataclass(frozen=True, slots=True)
class AudioBatch:
    """Padded waveforms, shape (B, N), their valid samples, shape (B,), and what each says, in which language."""

    samples: Tensor
    num_samples: Tensor
    texts: list[str]
    langs: list[str]


def training_batches(
    clips: list[Clip], samples: np.ndarray, batch_seconds: float, human_repeat: int, seed: int
) -> Iterator[AudioBatch]:
    """Endless augmented batches, a new order every epoch."""
    train = [clip for clip in clips if clip.split == "train" and clip.kind == "synthetic"]
    human = [clip for clip in clips if clip.split == "train" and clip.kind == "human"]
    if not train + human:
        raise ValueError("no training clips are prepared")
    for epoch in itertools.count():
        rng = random.Random(f"{seed}-{epoch}")
        items = _items(train + human * human_repeat, rng)
        for group in grouped(items, batch_seconds, rng):
            yield _augmented(group, samples, rng)


def _items(clips: list[Clip], rng: random.Random) -> list[list[Clip]]:
    """Shuffles clips into items: mostly one each, some several joined, some empty (only noise)."""
    order = rng.sample(clips, len(clips))
    items: list[list[Clip]] = []
    while order:
        if rng.random() < _NOISE_SHARE:
            items.append([])
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
        for item in sorted(items[first : first + _BUCKET], key=_duration):
            if group and _duration(item) * (len(group) + 1) > batch_seconds:
                groups.append(group)
                group = []
            group.append(item)
        groups.append(group)
    rng.shuffle(groups)
    yield from groups


def _duration(item: list[Clip]) -> float:
    return sum(clip.num_samples for clip in item) / SAMPLE_RATE + 0.3 * len(item)


def _wave(clip: Clip, samples: np.ndarray) -> Tensor:
    return torch.from_numpy(samples[clip.start : clip.start + clip.num_samples].astype(np.float32) / 32768)


def _augmented(group: list[list[Clip]], samples: np.ndarray, rng: random.Random) -> AudioBatch:
    speed = rng.uniform(0.88, 1.12) if rng.random() < 0.6 else 1.0
    waves = []
    for item in group:
        if not item:
            waves.append(coloured_noise(rng.randint(SAMPLE_RATE, 4 * SAMPLE_RATE), rng) * 10 ** rng.uniform(-4, -1))
            continue
        pieces = [_silence(rng, 0.0, 0.35)]
        for clip in item:
            pieces += [_changed_speed(_wave(clip, samples), speed), _silence(rng, 0.0, 0.5)]
        waves.append(_degraded(torch.cat(pieces), rng))
    texts = [" ".join(clip.text for clip in item) for item in group]
    langs = [item[0].lang if item else "en" for item in group]
    return _padded(waves, texts, langs)


def _padded(waves: list[Tensor], texts: list[str], langs: list[str]) -> AudioBatch:
    lengths = torch.tensor([len(wave) for wave in waves])
    return AudioBatch(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), lengths, texts, langs)


def _silence(rng: random.Random, low_s: float, high_s: float) -> Tensor:
    return torch.zeros(int(rng.uniform(low_s, high_s) * SAMPLE_RATE))


def _changed_speed(wave: Tensor, speed: float) -> Tensor:
    """Plays faster or slower, pitch and formants with it: other vocal tracts."""
    if speed == 1.0:
        return wave
    return torch.nn.functional.interpolate(wave[None, None], scale_factor=1 / speed, mode="linear")[0, 0]


def _degraded(wave: Tensor, rng: random.Random) -> Tensor:
    """Sometimes a room, sometimes noise at 6 to 35 dB below the speech."""
    if rng.random() < 0.15:
        wave = _reverberated(wave, rng)
    if rng.random() < 0.4:
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
