"""Synthesised speech: a sentence and a voice in, 16 kHz samples out.

espeak-ng and flite are run as programs (both are Debian packages); their output may be used freely.
Whole voices are kept out of training, so that the tests can ask how the model hears strangers.
"""

import io
import random
import subprocess
from dataclasses import dataclass

import av
import numpy as np

SAMPLE_RATE = 16_000

# espeak-ng: accents of a language, combined with variants that change the timbre.
_ACCENTS = {
    "en": ("en-us", "en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029", "en-us-nyc"),
}
_VARIANTS = tuple(
    [
        "m1",
        "m2",
        "m3",
        "m4",
        "m6",
        "m7",
        "m8",
        "f1",
        "f2",
        "f3",
        "f5",
        "klatt",
        "klatt2",
        "klatt3",
        "klatt4",
        "Alex",
        "Alicia",
        "Andrea",
        "Andy",
        "Annie",
        "Denis",
        "Diogo",
        "Gene",
        "Jacky",
        "Lee",
        "Marco",
        "Mario",
        "Michael",
        "Mike",
        "adam",
        "anika",
        "antonio",
        "aunty",
        "belinda",
        "benjamin",
        "boris",
        "caleb",
        "david",
        "ed",
        "edward",
        "gustave",
        "iven",
        "john",
        "linda",
        "max",
        "michel",
        "miguel",
        "norbert",
        "pablo",
        "paul",
        "pedro",
        "quincy",
        "rob",
        "robert",
        "sandro",
        "shelby",
        "steph",
        "travis",
        "victor",
        "zac",
    ]
)
_FLITE_VOICES = ("kal16", "rms", "slt")
_FLITE_SHARE = 0.3

HELD_OUT = {
    "en": ("espeak:en-gb-x-gbcwmd+m5", "espeak:en-us+f4", "flite:awb"),
}


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
    if language == "en" and rng.random() < _FLITE_SHARE:
        return Voice(f"flite:{rng.choice(_FLITE_VOICES)}")
    accent = rng.choice(_ACCENTS.get(language, (language,)))
    return Voice(f"espeak:{accent}+{rng.choice(_VARIANTS)}", rng.randint(125, 205), rng.randint(25, 75))


def held_out_voice(language: str, rng: random.Random) -> Voice:
    """A random voice that no training clip uses."""
    return Voice(rng.choice(HELD_OUT.get(language, (f"espeak:{language}+f4", f"espeak:{language}+m5"))))


def synthesise(sentence: str, voice: Voice) -> np.ndarray:
    """Speaks a sentence.

    Returns:
        int16 samples at 16 kHz, shape (N,).

    Raises:
        subprocess.CalledProcessError: The synthesiser failed.
    """
    program, _, name = voice.name.partition(":")
    if program == "espeak":
        command = ["espeak-ng", "-v", name, "-s", str(voice.words_per_minute), "-p", str(voice.pitch), "--stdout", "--"]
        wav = subprocess.run([*command, sentence], capture_output=True, check=True).stdout
    else:
        command = ["flite", "-voice", name, "-t", sentence, "-o", "/dev/stdout"]
        wav = subprocess.run(command, capture_output=True, check=True).stdout
    return decode(wav)


def decode(data: bytes) -> np.ndarray:
    """Decodes any audio to int16 samples at 16 kHz, shape (N,)."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    with av.open(io.BytesIO(data)) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames] or [np.zeros(0, np.int16)])
