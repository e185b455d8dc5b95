"""A media file in, 16 kHz mono `Audio` out, decoded in a locked-down child process.

The child, `models.audio.decoder_child`, says what it may do and how it mixes channels down. This half hands it an open
file and reads what comes out, never more than was asked for and never longer than allowed.
"""

import math
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import AudioError, AudioTooLongError, AudioTooShortError, CorruptAudioError, NotAudioError
from models.types import SAMPLE_RATE, Audio

# Shorter audio, in seconds, holds not even one analysis window of a model.
MIN_DURATION = 0.02

BYTES_PER_SAMPLE = 4

# Most that is read from the child at once: the capacity of a pipe.
BLOCK_BYTES = 1 << 16

NO_LIMIT = -1
TOO_SLOW = "decoding the file takes too long"

_CHILD = Path(__file__).with_name("decoder_child.py")

# What the child inherits: what it takes to find Python's and FFmpeg's libraries, and no secrets.
_INHERITED = ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")

_REFUSALS: dict[str, type[AudioError]] = {
    "not-audio": NotAudioError,
    "corrupt": CorruptAudioError,
    "too-long": AudioTooLongError,
}


def decode_file(path: Path, *, max_duration: float | None = None, timeout: float = 300.0) -> Audio:
    """Decodes any common container and codec, with or without video, at any rate and number of channels.

    The best audio stream is taken (FFmpeg's choice: the default one, then by bit rate) and mixed down to mono.
    Silence fills holes in its timestamps, so that times are true to the file. A file may end early: what can be decoded
    counts. Samples are clipped to [-1, 1], and single NaN or infinite ones become silence.

    Blocks the calling thread; any number of threads may call it. Every call starts one process, and holds
    up to 64 KB of memory per second of audio.

    Args:
        path: The file; it may hold anything.
        max_duration: Most seconds of audio to accept; None for no limit, with files that are trusted.
        timeout: Most seconds to spend, by the clock and of CPU time.

    Raises:
        NotAudioError: The file is empty, is of no known format, or has no audio stream.
        CorruptAudioError: There is audio, but it cannot be decoded, or not within the limits on time and memory.
        AudioTooLongError: More than ``max_duration``; noticed while decoding, whatever the file says of itself.
        AudioTooShortError: Less than `MIN_DURATION`.
        OSError: The file cannot be opened.
    """
    deadline = time.monotonic() + timeout
    max_samples = NO_LIMIT if max_duration is None else max(0, int(max_duration * SAMPLE_RATE))
    with _open(path) as descriptor:
        pcm = _run_child(descriptor, max_samples, deadline)
    samples = np.frombuffer(pcm, dtype=np.float32)
    if len(samples) < MIN_DURATION * SAMPLE_RATE:
        raise AudioTooShortError(f"the audio is {len(samples) / SAMPLE_RATE:.3f} s long, less than {MIN_DURATION} s")
    return Audio(_cleaned(samples))


@contextmanager
def _open(path: Path) -> Iterator[int]:
    """Opens a regular file; anything else could block, or never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotAudioError("this is not a regular file")
        if status.st_size == 0:
            raise NotAudioError("the file is empty")
        yield descriptor
    finally:
        os.close(descriptor)


def _run_child(descriptor: int, max_samples: int, deadline: float) -> bytearray:
    """Decodes an open file in a new process and returns its output, raw float32."""
    # The CPU limit is a backstop for a parent that cannot watch the clock any more.
    cpu_seconds = max(1, math.ceil(deadline - time.monotonic()))
    # -P: the folder of the script is no place to import from. -s: nor is the user's.
    command = [sys.executable, "-P", "-s", str(_CHILD), str(max_samples), str(cpu_seconds)]
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    with subprocess.Popen(
        command,
        stdin=descriptor,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd="/",
        # A Ctrl-C at the terminal is for the server, which may want to finish what it has begun.
        start_new_session=True,
    ) as child:
        try:
            pcm = _read(child, max_samples, deadline)
            status = child.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise CorruptAudioError(TOO_SLOW) from None
        finally:
            child.kill()
        if status != 0:
            raise _refusal(status, _last_line(child))
    return pcm


def _read(child: "subprocess.Popen[bytes]", max_samples: int, deadline: float) -> bytearray:
    """Reads the child's output to its end.

    Raises:
        AudioTooLongError: It is more than was asked for: the child itself has gone wrong.
        TimeoutError: The deadline has passed.
    """
    pcm = bytearray()
    output = child.stdout.fileno() if child.stdout else -1
    poller = select.poll()
    poller.register(output, select.POLLIN)
    while True:
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not poller.poll(remaining * 1000):
            raise TimeoutError
        block = os.read(output, BLOCK_BYTES)
        if not block:
            return pcm
        pcm += block
        if max_samples != NO_LIMIT and len(pcm) > max_samples * BYTES_PER_SAMPLE:
            raise AudioTooLongError("the audio is longer than the limit")


def _last_line(child: "subprocess.Popen[bytes]") -> str:
    """The last line of the report of a child that has ended; it may write no more than a pipe holds."""
    report = child.stderr.read(BLOCK_BYTES) if child.stderr else b""
    return report.decode(errors="replace").strip().rpartition("\n")[2]


def _refusal(status: int, report: str) -> AudioError:
    """The error for a child that ended with ``status``, not 0: negative for a signal."""
    kind, _, message = report.partition(": ")
    if kind in _REFUSALS:
        return _REFUSALS[kind](message)
    if status == -signal.SIGXCPU:
        return CorruptAudioError(TOO_SLOW)
    reason = f"signal {-status}" if status < 0 else report or f"exit status {status}"
    return CorruptAudioError(f"the decoder failed on the file ({reason})")


def _cleaned(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Float files may hold anything: clips what is too loud and silences what is not a number, in place.

    Raises:
        CorruptAudioError: Most samples are not numbers.
    """
    finite = np.isfinite(samples)
    if not finite.all():
        if 2 * np.count_nonzero(finite) < len(samples):
            raise CorruptAudioError("most of the samples are not numbers")
        samples[~finite] = 0.0
    return np.clip(samples, -1.0, 1.0, out=samples)
