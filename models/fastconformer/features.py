"""Log-mel features: padded waveforms in, per-feature normalised log-mel spectrograms out.

Parameter names and values follow NeMo's ``AudioToMelSpectrogramPreprocessor``, so that its
checkpoints load as they are: the window and the filterbank are buffers of the checkpoint.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

# Added before the logarithm and to the standard deviation: NeMo's `log_zero_guard_value` and `CONSTANT`.
LOG_GUARD = 2.0**-24
STD_GUARD = 1e-5
# The values of NeMo's options that are implemented (missing means NeMo's default).
_SUPPORTED = {
    "normalize": ("per_feature", None),
    "window": ("hann", None),
    "log": (True, None),
    "frame_splicing": (1, None),
    "mag_power": (2.0, None),
    "exact_pad": (False, None),
    "lowfreq": (0, None),
}


@dataclass(frozen=True, slots=True)
class FeatureConfig:
    """What the front end computes.

    Attributes:
        sample_rate: Samples per second of the input.
        num_mels: Mel bands.
        window_s: Window length in seconds.
        hop_s: Hop length in seconds.
        n_fft: FFT size in samples.
        preemphasis: Coefficient of the first-order high-pass filter applied first.
    """

    sample_rate: int = 16_000
    num_mels: int = 128
    window_s: float = 0.025
    hop_s: float = 0.01
    n_fft: int = 512
    preemphasis: float = 0.97

    @classmethod
    def from_nemo(cls, config: dict[str, Any]) -> Self:
        """Reads the ``preprocessor`` section of a NeMo model config.

        Raises:
            ValueError: The section asks for a variant that is not implemented.
        """
        for option, values in _SUPPORTED.items():
            if config.get(option) not in values:
                raise ValueError(f"preprocessor option {option}={config.get(option)!r} is not supported")
        return cls(
            sample_rate=config.get("sample_rate", 16_000),
            num_mels=config["features"],
            window_s=config["window_size"],
            hop_s=config["window_stride"],
            n_fft=config.get("n_fft") or 512,
            preemphasis=config.get("preemph", 0.97),
        )

    @property
    def hop_length(self) -> int:
        """Hop length in samples."""
        return round(self.hop_s * self.sample_rate)

    @property
    def window_length(self) -> int:
        """Window length in samples."""
        return round(self.window_s * self.sample_rate)


class LogMel(nn.Module):
    """Waveform to log-mel, each band normalised over the valid frames of its own clip."""

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        # Always computed for real, so that a model whose weights are not there yet ("meta") can be laid out.
        with torch.device("cpu"):
            window = torch.hann_window(config.window_length, periodic=False)
            banks = melscale_fbanks(
                n_freqs=config.n_fft // 2 + 1,
                f_min=0.0,
                f_max=config.sample_rate / 2,
                n_mels=config.num_mels,
                sample_rate=config.sample_rate,
                norm="slaney",
                mel_scale="slaney",
            )
        self.register_buffer("window", window)
        self.register_buffer("fb", banks.T.unsqueeze(0).contiguous())
        self.window: Tensor
        self.fb: Tensor

    @torch.no_grad()
    def forward(self, samples: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Computes normalised features.

        Args:
            samples: Float waveforms, zero-padded, shape (B, N).
            num_samples: Valid samples of each row, shape (B,).

        Returns:
            Features, zero beyond each row's end, shape (B, num_mels, T), and the number of valid
            frames of each row, shape (B,).
        """
        num_frames = num_samples // self.config.hop_length
        # The spectrum is taken in float32 whatever the model runs in: half precision overflows here.
        mel = self._log_mel(samples.float(), num_samples)
        valid = torch.arange(mel.shape[-1], device=mel.device) < num_frames[:, None]  # (B, T)
        return _normalise(mel, valid[:, None, :]), num_frames

    def _log_mel(self, samples: Tensor, num_samples: Tensor) -> Tensor:
        emphasised = torch.cat((samples[:, :1], samples[:, 1:] - self.config.preemphasis * samples[:, :-1]), dim=1)
        inside = torch.arange(samples.shape[1], device=samples.device) < num_samples[:, None]
        spectrum = torch.stft(
            emphasised.masked_fill(~inside, 0.0),
            n_fft=self.config.n_fft,
            hop_length=self.config.hop_length,
            win_length=self.config.window_length,
            window=self.window.float(),
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        power = torch.view_as_real(spectrum).pow(2).sum(-1)  # (B, n_fft / 2 + 1, T)
        return torch.log(self.fb.float() @ power + LOG_GUARD)


def _normalise(mel: Tensor, valid: Tensor) -> Tensor:
    """Zero mean and unit deviation per band over valid frames; invalid frames become zero."""
    count = valid.sum(-1, keepdim=True)
    mean = mel.masked_fill(~valid, 0.0).sum(-1, keepdim=True) / count
    centred = (mel - mean).masked_fill(~valid, 0.0)
    deviation = (centred.pow(2).sum(-1, keepdim=True) / (count - 1)).sqrt()
    return centred / (deviation.nan_to_num(0.0, posinf=0.0) + STD_GUARD)
