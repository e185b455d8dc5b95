"""What can go wrong in the speech library.

    AviaryError
    ├── CheckpointError (ValueError)         a checkpoint is missing, broken or of another kind
    ├── UnknownModelError (LookupError)      no model goes by that name
    ├── AudioError (ValueError)              the bytes are not usable audio
    │   ├── NotAudioError                    no audio stream was found in them
    │   ├── CorruptAudioError                there is audio, but it cannot be decoded
    │   ├── AudioTooLongError                longer than the limit
    │   └── AudioTooShortError               shorter than one analysis frame
    ├── LanguageError (ValueError)           the model does not do that language or pair
    ├── OptionError (ValueError)             a decoding option is out of range or unknown
    ├── DeviceError (RuntimeError)           the requested device is not there
    └── EngineError (RuntimeError)           the engine failed on this utterance

Every error inherits from `AviaryError` and from the built-in that callers without Aviary would expect.
The message is written for the person who made the request.
"""


class AviaryError(Exception):
    """Base of all errors that Aviary raises on purpose."""


class CheckpointError(AviaryError, ValueError):
    """A checkpoint file is missing, broken, truncated or of another kind; the message names the file."""


class UnknownModelError(AviaryError, LookupError):
    """No model goes by that name."""


class AudioError(AviaryError, ValueError):
    """The bytes are not usable audio."""


class NotAudioError(AudioError):
    """No audio stream was found."""


class CorruptAudioError(AudioError):
    """There is an audio stream, but it cannot be decoded."""


class AudioTooLongError(AudioError):
    """The audio is longer than the limit."""


class AudioTooShortError(AudioError):
    """The audio is shorter than one analysis frame."""


class LanguageError(AviaryError, ValueError):
    """The model does not do that language or pair of languages."""


class OptionError(AviaryError, ValueError):
    """A decoding option is unknown or out of range."""


class DeviceError(AviaryError, RuntimeError):
    """The requested device or precision is not available on this machine."""


class EngineError(AviaryError, RuntimeError):
    """The engine failed on this utterance."""
