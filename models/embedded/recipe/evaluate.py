"""Measures a bundle on the prepared test clips: word and character error rates per test set and language.

In: a work folder that `prepare` filled and a bundle. Out: rows, and a Markdown table of them. The clips go
through the engine that serves them, greedy, one prompt language each; nothing but the audio is passed on.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import jiwer
import numpy as np
import torch

from models.embedded.recipe.batches import coloured_noise
from models.embedded.recipe.prepare import Clip, load_clips
from models.embedded.recipe.text import without_punctuation
from models.engine import Engine, load_engine
from models.errors import EngineError
from models.types import SAMPLE_RATE, Audio, Chunk, DecodingOptions, Utterance

_BATCH = 16
_NON_SPEECH_CLIPS = 60
_NON_SPEECH_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Row:
    """Error rates of one test set.

    Attributes:
        lang: ISO 639-1 code.
        kind: Which test set: see `Clip`; for human clips with the source.
        clips: How many.
        wer: Word error rate, case and punctuation ignored.
        cer: Character error rate, likewise.
        wer_written: Word error rate of the text as written, case and punctuation counted.
    """

    lang: str
    kind: str
    clips: int
    wer: float
    cer: float
    wer_written: float


def evaluate(work: Path, bundle: Path, split: str = "test") -> list[Row]:
    """Measures the bundle on one split; writes ``evaluation-<split>.json`` and ``.md`` into the work folder."""
    engine = load_engine(str(bundle), device="auto", dtype="float32", timestamps=False)
    clips, samples = load_clips(work)
    chosen = sorted((clip for clip in clips if clip.split == split), key=lambda clip: (clip.lang, _kind(clip)))
    rows = []
    for (lang, kind), group in groupby(chosen, key=lambda clip: (clip.lang, _kind(clip))):
        tests = list(group)
        heard = transcribe(engine, [(_audio(clip, samples), lang) for clip in tests])
        rows.append(_row(lang, kind, [clip.text for clip in tests], heard))
    characters = _characters_a_minute_on_noise(engine)
    report = {"rows": [asdict(row) for row in rows], "non_speech_characters_a_minute": characters}
    (work / f"evaluation-{split}.json").write_text(json.dumps(report, indent=1))
    (work / f"evaluation-{split}.md").write_text(table(rows, characters))
    return rows


def table(rows: list[Row], characters: float) -> str:
    """The rows as a Markdown table, and the characters a minute on noise below it."""
    lines = ["| language | test set | clips | WER | CER | WER as written |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row.lang} | {row.kind} | {row.clips} | {row.wer:.1%} | {row.cer:.1%} | {row.wer_written:.1%} |"
        for row in rows
    ]
    return "\n".join(lines) + f"\n\nCharacters a minute on generated noise: {characters:.1f}\n"


def transcribe(engine: Engine, clips: list[tuple[Audio, str]]) -> list[str]:
    """Transcribes clips in their own languages, a few at a time."""
    texts: dict[int, str] = {}
    for first in range(0, len(clips), _BATCH):
        batch = [
            (ticket, Utterance(Chunk(audio), DecodingOptions(lang, lang, timestamps=False)))
            for ticket, (audio, lang) in enumerate(clips[first : first + _BATCH], start=first)
        ]
        engine.admit(batch)
        while engine.active:
            for ticket, outcome in engine.step():
                if isinstance(outcome, EngineError):
                    raise outcome
                texts[ticket] = outcome.text
    return [texts[ticket] for ticket in range(len(clips))]


def _kind(clip: Clip) -> str:
    return f"human: {clip.voice.split(':')[0]}" if clip.kind == "human" else clip.kind


def _audio(clip: Clip, samples: np.ndarray) -> Audio:
    return Audio(samples[clip.start : clip.start + clip.num_samples].astype(np.float32) / np.float32(32768))


def _row(lang: str, kind: str, said: list[str], heard: list[str]) -> Row:
    plain = [(without_punctuation(a), without_punctuation(b)) for a, b in zip(said, heard, strict=True)]
    references, hypotheses = [a for a, _ in plain], [b for _, b in plain]
    return Row(
        lang=lang,
        kind=kind,
        clips=len(said),
        wer=jiwer.wer(references, hypotheses),
        cer=jiwer.cer(references, hypotheses),
        wer_written=jiwer.wer(said, heard),
    )


def _characters_a_minute_on_noise(engine: Engine) -> float:
    texts = transcribe(engine, [(audio, next(iter(sorted(engine.card.transcribes)))) for audio in _noises()])
    return sum(map(len, texts)) / (_NON_SPEECH_CLIPS * _NON_SPEECH_SECONDS / 60)


def _noises() -> Iterator[Audio]:
    """Silence, coloured noise and hum at many levels, other seeds than training."""
    torch.manual_seed(7)
    rng = random.Random(7)
    length = _NON_SPEECH_SECONDS * SAMPLE_RATE
    time = torch.arange(length) / SAMPLE_RATE
    for index in range(_NON_SPEECH_CLIPS):
        level = 10 ** rng.uniform(-4, -0.7)
        wave = coloured_noise(length, rng) * level
        if index % 4 == 1:
            wave = wave * 0.1 + level * torch.sin(2 * torch.pi * rng.uniform(50, 1000) * time)
        if index % 12 == 0:
            wave = torch.zeros(length)
        yield Audio(wave.clamp(-1, 1).float().numpy())
