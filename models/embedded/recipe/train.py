"""Trains the CTC model, then the recogniser together with it, over one encoder.

In: the work folder that `prepare` filled. Out: `ctc.pt` and `aed.pt` in it, rewritten every few minutes;
a run that was cut off goes on from there.
"""

import logging
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from models.alignment.checkpoint import load_aligner_model
from models.alignment.ctc import CtcConfig, CtcModel
from models.canary.checkpoint import load_canary
from models.canary.decoder import DecoderConfig
from models.canary.model import CanaryConfig, CanaryModel
from models.canary.prompt import END_OF_TEXT, canary2_prompt
from models.embedded.recipe.batches import AudioBatch, TrainingBatches
from models.embedded.recipe.config import ModelConfig, RecipeConfig, TrainingConfig
from models.embedded.recipe.text import without_punctuation
from models.fastconformer.encoder import EncoderConfig
from models.fastconformer.features import FeatureConfig
from models.nemo_file import NemoFile
from models.types import SAMPLE_RATE

log = logging.getLogger(__name__)

_WEIGHT_DECAY = 1e-3
_GRADIENT_NORM = 1.0
_LABEL_SMOOTHING = 0.1
_NOPNC_SHARE = 0.15
_PHONE_FRAMES = 4
_CTC_WEIGHT = 0.5
_UNKNOWN = -1
_DECODER_MAX_LENGTH = 512
_EMA_DECAY = 0.998


def ctc_config(model: ModelConfig) -> CtcConfig:
    """Dimensions of the auxiliary CTC model."""
    return CtcConfig(FeatureConfig(num_mels=model.num_mels), _encoder_config(model), model.vocab_size)


def canary_config(model: ModelConfig) -> CanaryConfig:
    """Dimensions of the recogniser."""
    decoder = DecoderConfig(
        vocab_size=8 * math.ceil(model.vocab_size / 8),
        num_layers=model.decoder_layers,
        d_model=model.d_model,
        d_inner=4 * model.d_model,
        num_heads=model.num_heads,
        max_length=_DECODER_MAX_LENGTH,
        dropout=model.dropout,
    )
    return CanaryConfig(FeatureConfig(num_mels=model.num_mels), _encoder_config(model), decoder)


def _encoder_config(model: ModelConfig) -> EncoderConfig:
    return EncoderConfig(
        num_mels=model.num_mels,
        num_layers=model.encoder_layers,
        d_model=model.d_model,
        num_heads=model.num_heads,
        subsampling_channels=model.subsampling_channels,
        dropout=model.dropout,
    )


def train_ctc(config: RecipeConfig, work: Path, device: str, start_from: Path | None = None) -> None:
    """Trains the CTC model to ``work/ctc.pt``; ``start_from`` is a bundle whose aligner it continues."""
    torch.manual_seed(config.data.seed)
    pieces = _tokenizer(work)
    data = TrainingBatches(work, config.ctc.batch_seconds, config.data.human_repeat, config.data.seed)
    model = CtcModel(ctc_config(config.model))
    if start_from is not None:
        with NemoFile.open(start_from) as bundle:
            model.load_state_dict(load_aligner_model(bundle, torch.device("cpu"), torch.float32).state_dict())
    learner = _CtcLearner(model, data.phones).to(device)

    def loss_of(batch: AudioBatch, _step: int) -> Tensor:
        states, lengths = learner.encode(batch)
        return learner.loss(batch, pieces, states, lengths)

    _run(learner, loss_of, data, config.ctc, work / "ctc.pt")


class _CtcLearner(nn.Module):
    """The CTC model with a second head that tells phonemes, for training only.

    CTC alone spends most of a short training in finding any alignment at all. Synthesised clips come with one: the
    times of their phonemes. A frame of 80 ms is longer than a phoneme, so the head tells several for each.
    """

    def __init__(self, model: CtcModel, phones: list[str]) -> None:
        super().__init__()
        self.model = model
        self.phones = nn.Linear(model.config.encoder.d_model, _PHONE_FRAMES * len(phones))
        self._index = {name: index for index, name in enumerate(phones)}

    def encode(self, batch: AudioBatch) -> tuple[Tensor, Tensor]:
        """Encoder states (B, T, d_model) and their valid number (B,)."""
        device = self.phones.weight.device
        features, num_frames = self.model.log_mel(batch.samples.to(device), batch.num_samples.to(device))
        return self.model.encoder(_spec_augmented(features), num_frames)  # type: ignore[no-any-return]

    def loss(
        self, batch: AudioBatch, pieces: sentencepiece.SentencePieceProcessor, states: Tensor, lengths: Tensor
    ) -> Tensor:
        """CTC loss per token, plus cross-entropy per frame of the phonemes where they are known."""
        loss = _ctc_loss(self.model.score_states(states), lengths, pieces.encode(batch.texts))
        num_frames = states.shape[1] * _PHONE_FRAMES
        sounds = phone_labels(batch, self._index, num_frames, self.model.config.frame_s / _PHONE_FRAMES)
        if (sounds != _UNKNOWN).any():
            logits = self.phones(states).float().view(len(states), num_frames, -1).transpose(1, 2)
            loss = loss + F.cross_entropy(logits, sounds.to(states.device), ignore_index=_UNKNOWN)
        return loss


def phone_labels(batch: AudioBatch, phones: dict[str, int], num_frames: int, frame_s: float) -> Tensor:
    """The phoneme that sounds in each frame, `_UNKNOWN` where no clip tells, shape (B, num_frames)."""
    labels = torch.full((len(batch.spans), num_frames), _UNKNOWN)
    for row, spans in enumerate(batch.spans):
        for span in spans:
            ends = [start for _, start in span.phones[1:]] + [span.end / SAMPLE_RATE]
            for (name, start), end in zip(span.phones, ends, strict=False):
                labels[row, round(start / frame_s) : round(end / frame_s)] = phones[name]
    return labels


def _ctc_loss(log_probs: Tensor, lengths: Tensor, targets: list[list[int]]) -> Tensor:
    """CTC loss per target unit; the blank is the last class."""
    sizes = torch.tensor([len(target) for target in targets], device=log_probs.device)
    padded = nn.utils.rnn.pad_sequence([torch.tensor(t, dtype=torch.long) for t in targets], batch_first=True)
    losses = F.ctc_loss(
        log_probs.transpose(0, 1),
        padded.to(log_probs.device),
        lengths,
        sizes,
        blank=log_probs.shape[-1] - 1,
        reduction="none",
        zero_infinity=True,
    )
    return losses.sum() / sizes.sum().clamp(min=1)  # a batch may be noise alone


def train_aed(config: RecipeConfig, work: Path, device: str, start_from: Path | None = None) -> None:
    """Trains recogniser and CTC model together to ``work/aed.pt``, over one encoder.

    The CTC model starts as that of ``work/ctc.pt``. Its losses go on beside the decoder's: both learn faster with one
    encoder than each with its own (Watanabe et al. 2017), and the bundle's aligner is the better for it. The decoder
    starts as that of the bundle ``start_from``, if there is one.
    """
    torch.manual_seed(config.data.seed + 1)
    pieces = _tokenizer(work)
    data = TrainingBatches(work, config.aed.batch_seconds, config.data.human_repeat, config.data.seed + 1)
    learner = Hybrid(config.model, data.phones)
    learner.ctc.load_state_dict(torch.load(work / "ctc.pt", weights_only=True, map_location="cpu")["averaged"])
    if start_from is not None:
        with NemoFile.open(start_from) as bundle:
            trained = load_canary(bundle, config.model.vocab_size, torch.device("cpu"), torch.float32)
        learner.canary.decoder.load_state_dict(trained.decoder.state_dict())
    learner.to(device)

    def loss_of(batch: AudioBatch, step: int) -> Tensor:
        states, lengths = learner.ctc.encode(batch)
        inputs, targets = _decoder_targets(pieces, batch, step)
        logits = learner.canary.decoder(inputs.to(device), states, lengths)
        loss = F.cross_entropy(
            logits.float().transpose(1, 2), targets.to(device), ignore_index=_UNKNOWN, label_smoothing=_LABEL_SMOOTHING
        )
        return loss + _CTC_WEIGHT * learner.ctc.loss(batch, pieces, states, lengths)

    _run(learner, loss_of, data, config.aed, work / "aed.pt")


class Hybrid(nn.Module):
    """Recogniser and CTC model that share one encoder.

    Attributes:
        ctc: The CTC model (its attribute ``model``) with its head for phonemes.
        canary: The recogniser.
    """

    def __init__(self, model: ModelConfig, phones: list[str]) -> None:
        super().__init__()
        self.ctc = _CtcLearner(CtcModel(ctc_config(model)), phones)
        self.canary = CanaryModel(canary_config(model))
        self.canary.encoder = self.ctc.model.encoder
        _initialise(self.canary.decoder)


def _tokenizer(work: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(work / "tokenizer.model"))


def _initialise(decoder: nn.Module) -> None:
    """Normal with deviation d^-0.5 for matrices, as NeMo initialises its decoders."""
    for module in decoder.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=module.weight.shape[-1] ** -0.5)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def _spec_augmented(features: Tensor) -> Tensor:
    """Zeroes a band of up to a sixteenth of the mels and stretches of up to 2.5 % of the time (Park et al. 2019)."""
    batch, mels, frames = features.shape
    mask = torch.ones_like(features)
    for row in range(batch):
        width = random.randint(0, mels // 16)
        low = random.randint(0, mels - width)
        mask[row, low : low + width] = 0
        for _ in range(1 + frames // 400):
            width = random.randint(0, max(1, min(25, frames // 40)))
            first = random.randint(0, frames - width)
            mask[row, :, first : first + width] = 0
    return features * mask


def _decoder_targets(
    pieces: sentencepiece.SentencePieceProcessor, batch: AudioBatch, step: int
) -> tuple[Tensor, Tensor]:
    """Decoder inputs (prompt and text) and targets (text and end; `_UNKNOWN` where nothing is asked), both (B, L)."""
    rng = random.Random(step)
    end = pieces.piece_to_id(END_OF_TEXT)
    inputs, targets = [], []
    for text, lang in zip(batch.texts, batch.langs, strict=True):
        pnc = rng.random() >= _NOPNC_SHARE
        prompt = pieces.encode(canary2_prompt(lang, lang, pnc=pnc))
        answer = pieces.encode(text if pnc else without_punctuation(text))
        inputs.append(torch.tensor(prompt + answer))
        targets.append(torch.tensor([_UNKNOWN] * (len(prompt) - 1) + answer + [end]))
    pad = nn.utils.rnn.pad_sequence
    return pad(inputs, batch_first=True), pad(targets, batch_first=True, padding_value=_UNKNOWN)


def _run(
    learner: nn.Module,
    loss_of: Callable[[AudioBatch, int], Tensor],
    data: TrainingBatches,
    schedule: TrainingConfig,
    path: Path,
) -> None:
    """The training loop: resume, step, average, save."""
    optimiser = torch.optim.AdamW(
        learner.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=_WEIGHT_DECAY
    )
    averaged, step = _resume(learner, optimiser, path)
    device = next(learner.parameters()).device.type
    data.seed += step
    # One process prepares batches while the other learns from them.
    batches = iter(DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=4))
    learner.train()
    saved = reported = time.monotonic()
    seconds, total = 0.0, 0.0
    while step < schedule.steps:
        batch = next(batches)
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate * _rate(step, schedule)
        with torch.autocast(device, torch.bfloat16):
            loss = loss_of(batch, step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), _GRADIENT_NORM)
        optimiser.step()
        step += 1
        _average(averaged, learner, step, schedule)
        seconds, total = seconds + float(batch.num_samples.sum()) / SAMPLE_RATE, total + loss.item()
        if step % 25 == 0:
            elapsed = time.monotonic() - reported
            log.info("%s step %d loss %.3f, %.0f audio s/s", path.stem, step, total / 25, seconds / elapsed)
            reported, seconds, total = time.monotonic(), 0.0, 0.0
        if time.monotonic() - saved > 60 * schedule.checkpoint_minutes or step == schedule.steps:
            _save(learner, optimiser, averaged, step, path)
            saved = time.monotonic()


def _rate(step: int, schedule: TrainingConfig) -> float:
    """Linear warm-up, then cosine decay from 1 to 0.01."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    progress = (step - schedule.warmup_steps) / max(1, schedule.steps - schedule.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def _average(averaged: dict[str, Tensor], learner: nn.Module, step: int, schedule: TrainingConfig) -> None:
    """Exponential average of the weights in the last part of the run; before it, a copy."""
    decay = _EMA_DECAY if step > schedule.steps * (1 - schedule.averaged) else 0.0
    for name, value in learner.state_dict().items():
        if value.is_floating_point():
            averaged[name].lerp_(value, 1 - decay)
        else:
            averaged[name].copy_(value)


def _save(learner: nn.Module, optimiser: Any, averaged: dict[str, Tensor], step: int, path: Path) -> None:
    state = {"learner": learner.state_dict(), "optimiser": optimiser.state_dict(), "averaged": averaged, "step": step}
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.rename(path)
    log.info("saved %s at step %d", path.name, step)


def _resume(learner: nn.Module, optimiser: Any, path: Path) -> tuple[dict[str, Tensor], int]:
    if not path.exists():
        return {name: value.clone() for name, value in learner.state_dict().items()}, 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    learner.load_state_dict(state["learner"])
    optimiser.load_state_dict(state["optimiser"])
    log.info("going on from step %d", state["step"])
    return state["averaged"], state["step"]
