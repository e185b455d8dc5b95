"""The recipe of canary-mini, at a size that trains in seconds."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.embedded.recipe import bundle, evaluate, text, train
from models.embedded.recipe.batches import AudioBatch, Span, TrainingBatches
from models.embedded.recipe.config import RecipeConfig, TrainingConfig
from models.embedded.recipe.prepare import Clip
from models.types import SAMPLE_RATE

SAID = ["How now, brown cow?", "She sells sea shells.", "Pack my box!", "The quick brown fox jumps."]


@pytest.fixture
def work(tmp_path: Path, bpe_model: bytes) -> Path:
    """A prepared folder: tones instead of speech."""
    (tmp_path / "tokenizer.model").write_bytes(bpe_model)
    rng = np.random.default_rng(0)
    clips, samples = [], []
    for index in range(24):
        length = int(rng.integers(SAMPLE_RATE, 2 * SAMPLE_RATE))
        tone = 8000 * np.sin(2 * np.pi * (200 + 40 * index) * np.arange(length) / SAMPLE_RATE)
        split = "train" if index < 16 else "test"
        phones = [("a", 0.0), ("b", 0.5)] if index % 2 else []
        kind = "synthetic" if index % 4 else "human"
        clip = Clip(sum(map(len, samples)), length, SAID[index % 4], "en", "tone:1", kind, split, phones)
        clips.append(json.dumps(dataclasses.asdict(clip)))
        samples.append(tone.astype(np.int16))
    np.concatenate(samples).tofile(tmp_path / "clips.i16")
    (tmp_path / "clips.jsonl").write_text("\n".join(clips))
    return tmp_path


@pytest.fixture
def small(recipe_config: RecipeConfig) -> RecipeConfig:
    schedule = TrainingConfig(steps=2, batch_seconds=8, learning_rate=1e-3, warmup_steps=1)
    return dataclasses.replace(recipe_config, ctc=schedule, aed=schedule)


def test_near_copies_are_in_one_split() -> None:
    assert text.split_of("How now, brown cow?") == text.split_of("how now brown cow")


def test_splits_have_their_shares() -> None:
    splits = [text.split_of(f"sentence {number}") for number in range(4000)]
    assert 0.02 < splits.count("test") / 4000 < 0.04
    assert 0.02 < splits.count("dev") / 4000 < 0.04


def test_punctuation_goes_and_words_stay() -> None:
    assert text.without_punctuation("Don't! A well-known -- 'fact'.") == "don't a well-known fact"


def test_phonemes_fill_their_frames_and_nothing_else() -> None:
    span = Span("ab", end=SAMPLE_RATE // 2, phones=[("a", 0.1), ("b", 0.3)])
    batch = AudioBatch(torch.zeros(1, SAMPLE_RATE), torch.tensor([SAMPLE_RATE]), [[span]], ["en"])
    labels = train.phone_labels(batch, {"a": 0, "b": 1}, num_frames=10, frame_s=0.1)
    assert labels.tolist() == [[-1, 0, 0, 1, 1, -1, -1, -1, -1, -1]]


def test_no_test_clip_is_in_a_training_batch(work: Path) -> None:
    lines = (work / "clips.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["text"] = row["split"]
    (work / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)))
    batches = iter(TrainingBatches(work, 8.0, human_repeat=2, seed=1))
    said = {word for _ in range(30) for words in next(batches).texts for word in words.split()}
    assert said == {"train"}


def test_batches_keep_to_their_size(work: Path) -> None:
    batches = iter(TrainingBatches(work, 8.0, human_repeat=1, seed=1))
    for _ in range(20):
        batch = next(batches)
        assert batch.samples.shape[0] * batch.samples.shape[1] <= 12 * SAMPLE_RATE
        assert batch.num_samples.max() <= batch.samples.shape[1]


@pytest.mark.slow
def test_a_run_makes_a_bundle_that_transcribes_and_can_be_continued(small: RecipeConfig, work: Path) -> None:
    target = work / "canary-tiny.nemo"
    train.train_ctc(small, work, "cpu")
    train.train_aed(small, work, "cpu")
    bundle.bundle(small, work, target)
    rows = evaluate.evaluate(work, target)
    assert [(row.lang, row.kind, row.clips) for row in rows] == [("en", "human: tone", 2), ("en", "synthetic", 6)]
    assert "| en | synthetic | 6 |" in (work / "evaluation-test.md").read_text()

    before = torch.load(work / "aed.pt", weights_only=True)
    train.train_aed(small, work, "cpu")
    assert torch.load(work / "aed.pt", weights_only=True)["step"] == before["step"] == 2
    (work / "ctc.pt").unlink()
    (work / "aed.pt").unlink()
    train.train_ctc(small, work, "cpu", start_from=target)
    train.train_aed(small, work, "cpu", start_from=target)
    after = torch.load(work / "aed.pt", weights_only=True)
    moved = (after["averaged"]["canary.decoder.head.weight"] - before["averaged"]["canary.decoder.head.weight"]).abs()
    assert moved.max() < 0.05  # two small steps away, not begun anew
