"""Synthesised speech: a sentence and a voice in, 16 kHz samples out.

espeak-ng and flite are Debian packages; their output may be used freely.
Whole voices are kept out of training, so that the tests can ask how the model hears strangers.
"""

import io
import random
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import yaml

from models.embedded.recipe.espeak import Phone, espeak
from models.types import SAMPLE_RATE

_VOICES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("voices.yaml").read_text())


@dataclass(frozen=True, slots=True)
class Voice:
    """A synthesiser and how it is told to speak.

    Attributes:
        name: "espeak:<voice>+<variant>" or "flite:<voice>".
        words_per_minute: Speaking rate (espeak only).
        pitch: 0 to 99 (espeak only).
    """

    name: str
    words_per_minute: int = 165
    pitch: int = 50


def pick_voice(language: str, rng: random.Random) -> Voice:
    """A random training voice, rate and pitch."""
    flite = _VOICES["flite"].get(language)
    if flite and rng.random() < flite["share"]:
        return Voice(f"flite:{rng.choice(flite['voices'])}")
    accent = rng.choice(_VOICES["accents"].get(language, [language]))
    return Voice(f"espeak:{accent}+{rng.choice(_VOICES['variants'])}", rng.randint(135, 185), rng.randint(35, 65))


def held_out_voice(language: str, rng: random.Random) -> Voice:
    """A random voice that no training clip uses."""
    voices = _VOICES["held_out"].get(language, [f"espeak:{language}+f4", f"espeak:{language}+m5"])
    return Voice(rng.choice(voices))


def synthesise(sentence: str, voice: Voice) -> tuple[np.ndarray, list[Phone]]:
    """Speaks a sentence.

    Returns:
        int16 samples at 16 kHz, shape (N,), and the phonemes with their times; none from flite.

    Raises:
        subprocess.CalledProcessError: flite failed.
        ValueError: espeak-ng has no such voice.
    """
    program, _, name = voice.name.partition(":")
    if program == "espeak":
        samples, phones = espeak().speak(sentence, name, voice.words_per_minute, voice.pitch)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = espeak().rate
        return _resampled([frame]), phones
    command = ["flite", "-voice", name, "-t", sentence, "-o", "/dev/stdout"]
    return decode(subprocess.run(command, capture_output=True, check=True).stdout), []


def decode(data: bytes) -> np.ndarray:
    """Decodes any audio to int16 samples at 16 kHz, shape (N,)."""
    with av.open(io.BytesIO(data), mode="r") as container:
        return _resampled(container.decode(audio=0))


def _resampled(frames: Iterable[av.AudioFrame]) -> np.ndarray:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    parts = [part for frame in frames for part in resampler.resample(frame)] + resampler.resample(None)
    return np.concatenate([part.to_ndarray().reshape(-1) for part in parts] or [np.zeros(0, np.int16)])
