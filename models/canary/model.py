"""Canary's network: padded waveforms in, encoder states and next-token logits out."""

from dataclasses import dataclass

from torch import Tensor, nn

from models.canary.decoder import DecoderConfig, TransformerDecoder
from models.fastconformer.encoder import EncoderConfig, FastConformer
from models.fastconformer.features import FeatureConfig, LogMel


@dataclass(frozen=True, slots=True)
class CanaryConfig:
    """Dimensions of a Canary model."""

    features: FeatureConfig
    encoder: EncoderConfig
    decoder: DecoderConfig

    @property
    def frame_s(self) -> float:
        """Duration of one encoder state in seconds."""
        return self.features.hop_s * self.encoder.subsampling_factor


class CanaryModel(nn.Module):
    """FastConformer encoder, a projection where the widths differ, Transformer decoder."""

    def __init__(self, config: CanaryConfig) -> None:
        super().__init__()
        self.config = config
        self.log_mel = LogMel(config.features)
        self.encoder = FastConformer(config.encoder)
        same_width = config.encoder.d_model == config.decoder.d_model
        self.projection = nn.Identity() if same_width else nn.Linear(config.encoder.d_model, config.decoder.d_model)
        self.decoder = TransformerDecoder(config.decoder)

    def encode(self, samples: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes waveforms.

        Args:
            samples: Waveforms at 16 kHz, zero-padded, shape (B, N).
            num_samples: Valid samples of each row, shape (B,).

        Returns:
            States, shape (B, T, d_model of the decoder), and the valid states of each row, shape (B,).
        """
        features, num_frames = self.log_mel(samples, num_samples)
        states, lengths = self.encoder(features.to(self.decoder.head.weight.dtype), num_frames)
        return self.projection(states), lengths
