"""Prepares the training data: sentences, synthesised clips, human recordings, tokenizer.

In: the source folder. Out, in the work folder: `clips.i16` (all samples, one after the other),
`clips.jsonl` (a `Clip` a line) and `tokenizer.model`. A second run finds them and does nothing.
"""

import json
import logging
import random
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from models.canary.prompt import SPECIAL_TOKENS
from models.embedded.recipe import synthesis, text
from models.embedded.recipe.config import DataConfig, RecipeConfig
from models.embedded.recipe.synthesis import Voice
from models.languages import LANGUAGES
from models.nemo_file import NemoFile
from models.types import SAMPLE_RATE

log = logging.getLogger(__name__)

# Human sources that are never trained on: new voices for the test table.
HELD_OUT_SOURCES = frozenset({"artikulate"})
_TOKENIZER_SENTENCES = {"en": 12_000}
_TOKENIZER_SENTENCES_OTHER = 3_000


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip in `clips.i16`.

    Attributes:
        start: First sample in the file.
        num_samples: Length in samples.
        text: What is said.
        lang: ISO 639-1 code.
        voice: Synthesiser voice, or human source and speaker.
        kind: "synthetic", "held_out_voice" or "human".
        split: "train", "dev" or "test".
        phones: Phonemes and when each begins, in seconds; only of espeak-ng.
    """

    start: int
    num_samples: int
    text: str
    lang: str
    voice: str
    kind: str
    split: str
    phones: list[tuple[str, float]] = field(default_factory=list)


def load_clips(work: Path) -> tuple[list[Clip], np.ndarray]:
    """The prepared clips and the memory-mapped samples they point into."""
    clips = [Clip(**row) for row in _rows(work / "clips.jsonl")]
    return clips, np.memmap(work / "clips.i16", dtype=np.int16, mode="r")


def prepare(config: RecipeConfig, source: Path, work: Path, start_from: Path | None = None) -> None:
    """Writes the tokenizer and the clips into the work folder, unless they are there.

    The tokenizer is that of the bundle ``start_from``, whose training is to be continued; without one it is trained.
    """
    work.mkdir(parents=True, exist_ok=True)
    if (work / "tokenizer.model").exists():
        log.info("the tokenizer is prepared already")
    elif start_from is not None:
        with NemoFile.open(start_from) as bundle:
            member = bundle.config()["tokenizer"]["model_path"].removeprefix("nemo:")
            (work / "tokenizer.model").write_bytes(bundle.read(member))
    else:
        train_tokenizer(source / "text", work, config.model.vocab_size)
    if (work / "clips.jsonl").exists():
        log.info("clips are prepared already")
        return
    with (
        (work / "clips.i16").open("wb") as samples_file,
        (work / "clips.jsonl.part").open("w", encoding="utf-8") as index_file,
    ):
        start = 0
        for clip, samples in _all_clips(config.data, source):
            if not 0.2 < len(samples) / SAMPLE_RATE < 25:
                continue
            samples.tofile(samples_file)
            placed = asdict(clip) | {"start": start, "num_samples": len(samples)}
            index_file.write(json.dumps(placed, ensure_ascii=False) + "\n")
            start += len(samples)
    (work / "clips.jsonl.part").rename(work / "clips.jsonl")
    log.info("prepared %.1f hours of clips", start / SAMPLE_RATE / 3600)


def _all_clips(config: DataConfig, source: Path) -> Iterator[tuple[Clip, np.ndarray]]:
    for language in config.languages:
        yield from _synthetic_clips(config, source / "text", language)
        log.info("synthesised %s", LANGUAGES[language])
    yield from _human_clips(source / "audio", config.languages)


def _synthetic_clips(config: DataConfig, folder: Path, language: str) -> Iterator[tuple[Clip, np.ndarray]]:
    rng = random.Random(f"{config.seed}-{language}")
    pool = [line for line in text.sentences(folder, language) if text.is_speakable(line, config.max_chars)]
    rng.shuffle(pool)
    jobs: list[tuple[str, Voice, str, str]] = []
    for split, wanted in (("train", config.num_train), ("dev", config.num_test), ("test", config.num_test)):
        chosen = [line for line in pool if text.split_of(line) == split][:wanted]
        jobs += [(line, synthesis.pick_voice(language, rng), "synthetic", split) for line in chosen]
        if split != "train":
            jobs += [(line, synthesis.held_out_voice(language, rng), "held_out_voice", split) for line in chosen]
    with ProcessPoolExecutor() as processes:
        spoken = processes.map(synthesis.synthesise, [job[0] for job in jobs], [job[1] for job in jobs], chunksize=100)
        for (line, voice, kind, split), (samples, phones) in zip(jobs, spoken, strict=True):
            marks = [(phone.name, round(phone.start, 3)) for phone in phones]
            yield Clip(0, 0, line, language, voice.name, kind, split, marks), samples


def _human_clips(folder: Path, languages: tuple[str, ...]) -> Iterator[tuple[Clip, np.ndarray]]:
    """Recordings whose licence allows training; whole sources in `HELD_OUT_SOURCES` become test clips."""
    rows = _rows(folder / "manifest.jsonl")
    wanted = [row for row in rows if row["lang"] in languages and row["use"] == "training"]
    for shard in sorted({row["shard"] for row in wanted}):
        with tarfile.open(folder / shard) as archive:
            for row in (row for row in wanted if row["shard"] == shard):
                samples = synthesis.decode(_member(archive, row["audio_filepath"]))
                split = "test" if row["source"] in HELD_OUT_SOURCES else row["split"]
                voice = f"{row['source']}:{row['speaker']}"
                yield Clip(0, 0, text.clean(row["text"]), row["lang"], voice, "human", split), samples


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    if member is None:
        raise ValueError(f"{name} is not a file of its archive")
    return member.read()


def train_tokenizer(folder: Path, work: Path, vocab_size: int) -> None:
    """Trains one BPE over all 25 languages, Canary's special tokens inside it."""
    lines: list[str] = []
    for language in LANGUAGES:
        rng = random.Random(language)
        found = [line for line in text.sentences(folder, language) if text.split_of(line) == "train"]
        rng.shuffle(found)
        lines += found[: _TOKENIZER_SENTENCES.get(language, _TOKENIZER_SENTENCES_OTHER)]
    for name in ("ntrex.tsv.gz", "flores-dev.tsv.gz"):
        for index in range(len(LANGUAGES)):
            lines += list(text.column(folder / name, index))[1:700]
    corpus = work / "tokenizer.txt"
    corpus.write_text("\n".join(lines), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(work / "tokenizer"),
        model_type="bpe",
        vocab_size=vocab_size,
        character_coverage=0.9999,
        user_defined_symbols=list(SPECIAL_TOKENS),
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        unk_id=0,
        normalization_rule_name="identity",
        byte_fallback=False,
        num_threads=2,
        minloglevel=1,
    )
