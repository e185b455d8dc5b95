"""espeak-ng through its library, which tells when each phoneme sounds; its program does not.

The library keeps one voice per process: use a process per speaker, not a thread.
"""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

# From espeak-ng's speak_lib.h.
_OUTPUT_SYNCHRONOUS = 2
_OPTION_PHONEME_EVENTS = 1
_EVENT_LIST_END = 0
_EVENT_PHONEME = 7
_PARAMETER_RATE = 1
_PARAMETER_PITCH = 3
_POSITION_CHARACTER = 1
_CHARS_UTF8 = 1
_BUFFER_MS = 500


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True, slots=True)
class Phone:
    """A phoneme in espeak-ng's notation and when it begins, in seconds."""

    name: str
    start: float


class Espeak:
    """The library, once per process; see `espeak`."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self.rate = self._library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, _BUFFER_MS, None, _OPTION_PHONEME_EVENTS)
        if self.rate <= 0:
            raise RuntimeError("espeak-ng has no voice data")
        self._blocks: list[bytes] = []
        self._phones: list[Phone] = []
        self._callback = _Callback(self._collect)  # kept: the library holds no reference
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, sentence: str, voice: str, words_per_minute: int, pitch: int) -> tuple[np.ndarray, list[Phone]]:
        """Speaks a sentence.

        Returns:
            int16 samples at `rate`, shape (N,), and the phonemes in order; pauses are phonemes named "_".

        Raises:
            ValueError: There is no such voice.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        self._library.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0)
        self._library.espeak_SetParameter(_PARAMETER_PITCH, pitch, 0)
        self._blocks, self._phones = [], []
        text = sentence.encode()
        self._library.espeak_Synth(text, len(text) + 1, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
        return np.frombuffer(b"".join(self._blocks), np.int16), self._phones

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if count > 0 and samples:
            self._blocks.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while events[index].type != _EVENT_LIST_END:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                name = event.id.string.decode(errors="replace").rstrip(":-")
                self._phones.append(Phone(name or "_", event.audio_position / 1000))
            index += 1
        return 0


@cache
def espeak() -> Espeak:
    """The library of this process."""
    return Espeak()
