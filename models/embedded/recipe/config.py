"""One recipe configuration, read from YAML: what to synthesise, how large a model, how long to train."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What the model hears.

    Attributes:
        languages: ISO 639-1 codes spoken in the training set.
        num_train: Synthesised training clips per language.
        num_test: Synthesised clips per language and test set (dev, test, held-out voices).
        human_repeat: How often an epoch sees each human recording.
        max_chars: Longest sentence used, in characters.
        seed: Seed of every choice made while preparing.
    """

    languages: tuple[str, ...]
    num_train: int
    num_test: int
    human_repeat: int = 4
    max_chars: int = 90
    seed: int = 20261123


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Dimensions shared by the CTC model and the recogniser; see the classes of `models.fastconformer`."""

    vocab_size: int = 3072
    num_mels: int = 80
    d_model: int = 192
    num_heads: int = 4
    encoder_layers: int = 8
    subsampling_channels: int = 64
    decoder_layers: int = 4
    dropout: float = 0.1


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """One training run.

    Attributes:
        steps: Optimiser steps in all.
        batch_seconds: Audio per step, padding not counted.
        learning_rate: Peak of the schedule.
        warmup_steps: Steps of linear warm-up, then cosine decay to a hundredth.
        checkpoint_minutes: Time between checkpoints.
        averaged: Share of the run, at its end, over which weights are averaged exponentially.
    """

    steps: int
    batch_seconds: float
    learning_rate: float
    warmup_steps: int
    checkpoint_minutes: float = 4.0
    averaged: float = 0.1


@dataclass(frozen=True, slots=True)
class RecipeConfig:
    """Everything that one run of the recipe needs beside its source folder."""

    name: str
    data: DataConfig
    ctc: TrainingConfig
    aed: TrainingConfig
    model: ModelConfig = field(default_factory=ModelConfig)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a YAML file whose sections are named like this class's attributes."""
        raw: dict[str, Any] = yaml.safe_load(path.read_text())
        data = raw["data"] | {"languages": tuple(raw["data"]["languages"])}
        return cls(
            name=raw["name"],
            data=DataConfig(**data),
            ctc=TrainingConfig(**raw["ctc"]),
            aed=TrainingConfig(**raw["aed"]),
            model=ModelConfig(**raw.get("model", {})),
        )
