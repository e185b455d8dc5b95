"""A media file in, 16 kHz mono `Audio` out, decoded in a locked-down child process."""

from pathlib import Path

from models.types import Audio


def decode_file(path: Path, *, max_duration: float | None = None, timeout: float = 300.0) -> Audio:
    """Decodes any common container and codec.

    Args:
        path: The file.
        max_duration: Most seconds of audio to accept; None for no limit.
        timeout: Most seconds of wall-clock and of CPU time to spend.

    Raises:
        NotAudioError: No audio stream was found.
        CorruptAudioError: There is audio, but it cannot be decoded.
        AudioTooLongError: Longer than ``max_duration``.
        AudioTooShortError: Shorter than one analysis frame.
    """
    raise NotImplementedError
