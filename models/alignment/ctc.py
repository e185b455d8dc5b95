"""The auxiliary CTC model: padded waveforms in, log-probabilities of tokens per 80 ms out.

The shape of NeMo's ``EncDecCTCModelBPE`` (Parakeet-CTC): FastConformer and one linear layer. The last
class is the blank.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.fastconformer.encoder import EncoderConfig, FastConformer
from models.fastconformer.features import FeatureConfig, LogMel


@dataclass(frozen=True, slots=True)
class CtcConfig:
    """Dimensions of a CTC model; ``vocab_size`` does not count the blank."""

    features: FeatureConfig
    encoder: EncoderConfig
    vocab_size: int

    @property
    def frame_s(self) -> float:
        """Duration of one frame of the output, in seconds."""
        return self.features.hop_s * self.encoder.subsampling_factor


class CtcModel(nn.Module):
    """FastConformer CTC acoustic model."""

    def __init__(self, config: CtcConfig) -> None:
        super().__init__()
        self.config = config
        self.log_mel = LogMel(config.features)
        self.encoder = FastConformer(config.encoder)
        self.head = nn.Conv1d(config.encoder.d_model, config.vocab_size + 1, kernel_size=1)

    @property
    def blank(self) -> int:
        """Index of the blank class."""
        return self.config.vocab_size

    def forward(self, samples: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Scores tokens.

        Args:
            samples: Waveforms at 16 kHz, zero-padded, shape (B, N).
            num_samples: Valid samples of each row, shape (B,).

        Returns:
            Log-probabilities, shape (B, T, vocab_size + 1), and the valid frames of each row, shape (B,).
        """
        features, num_frames = self.log_mel(samples, num_samples)
        states, lengths = self.encoder(features.to(self.head.weight.dtype), num_frames)
        return self.score_states(states), lengths

    def score_states(self, states: Tensor) -> Tensor:
        """Log-probabilities from encoder states (B, T, d_model), shape (B, T, vocab_size + 1)."""
        logits = self.head(states.transpose(1, 2)).transpose(1, 2)
        return torch.log_softmax(logits.float(), dim=-1)
