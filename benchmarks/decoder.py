"""Aviary's greedy decoding against NeMo's, side by side on this machine.

Both get the same random weights (one bundle, loaded by each), the same encoder states and the same prompt, write the
same number of tokens in float32, and must write the same ones. Random weights never end a text, so every row runs to
its limit: that Aviary lets finished rows go does not count here.

The two take turns on one thread, processor time is counted rather than wall time, and the fastest run of each stands:
other work on the machine disturbs little.

    make bench                                  # prints a table
    make bench ARGS="--save"                    # and writes it to benchmarks/results/
"""

import argparse
import datetime
import importlib.metadata
import io
import logging
import math
import os
import platform
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from torch import Tensor

from models.canary.checkpoint import load_canary
from models.canary.decoder import DecoderConfig
from models.canary.decoding import Recogniser
from models.canary.model import CanaryConfig, CanaryModel
from models.canary.prompt import SPECIAL_TOKENS, prompt_ids
from models.embedded.recipe.bundle import bpe_files, canary_members
from models.fastconformer.encoder import EncoderConfig
from models.fastconformer.features import FeatureConfig
from models.nemo_file import NemoFile, write_bundle
from models.tokenizer import BpeTokenizer
from models.types import SAMPLE_RATE, Audio, Chunk, DecodingOptions, Utterance

RESULTS = Path(__file__).parent / "results"
NEW_TOKENS = 50
CLIP_S = 20.0
BATCHES = (1, 4)
REPEATS = 3
SEED = 20261123


Tokens = list[list[int]]
"""Token ids of each row."""


@dataclass(frozen=True, slots=True)
class Case:
    """A decoder to compare; the encoder is the smallest possible, for it is not measured."""

    name: str
    num_layers: int
    d_model: int
    vocab_size: int


CASES = (
    Case("canary-mini", num_layers=4, d_model=192, vocab_size=3072),
    Case("canary-1b-v2", num_layers=8, d_model=1024, vocab_size=16384),
)
"""Decoders of the size of these models."""


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds of processor time that one batch takes."""

    case: Case
    batch: int
    nemo_s: float
    aviary_s: float

    @property
    def row(self) -> str:
        """A line of the table."""
        tokens = self.batch * NEW_TOKENS
        return (
            f"| {self.case.name} | {self.batch} | {self.nemo_s:.2f} s ({tokens / self.nemo_s:.0f}/s) "
            f"| {self.aviary_s:.2f} s ({tokens / self.aviary_s:.0f}/s) | {self.nemo_s / self.aviary_s:.1f}x |"
        )


def main() -> int:
    """Runs all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="write the table to benchmarks/results/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    lines = [
        f"Greedy decoding, {NEW_TOKENS} tokens per row, {CLIP_S:g} s of audio per row, float32, "
        f"processor time on one thread, fastest of {REPEATS} runs",
        "",
        *environment(),
        "",
        "| decoder of the size of | rows | NeMo | Aviary | NeMo / Aviary |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for case in CASES:
        for result in compare(case):
            lines.append(result.row)
            print(result.row, flush=True)
    if arguments.save:
        RESULTS.mkdir(exist_ok=True)
        target = RESULTS / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}-decoder-cpu.md"
        target.write_text("# Decoder\n\n" + "\n".join(lines) + "\n")
        print(f"written to {target}")
    return 0


def environment() -> list[str]:
    """Hardware and versions."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    versions = {name: importlib.metadata.version(name) for name in ("aviary-asr", "nemo-toolkit", "torch")}
    return [
        f"- {cpu.partition(':')[2].strip() or platform.machine()}, {os.cpu_count()} cores, "
        f"load average before the run {os.getloadavg()[0]:.1f}",
        f"- Python {platform.python_version()}, " + ", ".join(f"{name} {value}" for name, value in versions.items()),
    ]


def compare(case: Case) -> Iterator[Result]:
    """Measures one case at every batch size.

    Raises:
        RuntimeError: The two do not write the same tokens.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.nemo"
        write_random_bundle(case, path)
        nemo = load_nemo(path)
        with NemoFile.open(path) as bundle:
            tokenizer = BpeTokenizer(bundle.read(bundle.config()["tokenizer"]["model_path"]))
            canary = load_canary(bundle, tokenizer.size, torch.device("cpu"), torch.float32)
    for batch in BATCHES:
        utterances = noise(batch)
        states, lengths = encode(canary, utterances)
        prompt = prompt_ids(tokenizer, utterances[0].options, max_context=0)
        (ours, aviary_s), (theirs, nemo_s) = fastest(
            partial(decode_aviary, canary, tokenizer, utterances, states, lengths),
            partial(decode_nemo, nemo, prompt, states, lengths),
        )
        if ours != theirs:
            raise RuntimeError(f"{case.name}, {batch} rows: the two do not write the same tokens")
        yield Result(case, batch, nemo_s, aviary_s)


@torch.inference_mode()
def encode(canary: CanaryModel, utterances: list[Utterance]) -> tuple[Tensor, Tensor]:
    """Encoder states of clips of one length, and the valid states of each."""
    samples = torch.from_numpy(np.stack([utterance.chunk.audio.samples for utterance in utterances]))
    return canary.encode(samples, torch.full((len(utterances),), samples.shape[1]))


def decode_aviary(
    canary: CanaryModel, tokenizer: BpeTokenizer, utterances: list[Utterance], states: Tensor, lengths: Tensor
) -> Tokens:
    """Decodes states with Aviary; token ids of each row."""
    canary.encode = lambda *_: (states, lengths)  # type: ignore[method-assign] # encoding is not what is measured
    cohort = Recogniser(canary, tokenizer).start(utterances)
    del canary.encode
    rows: dict[int, list[int]] = {}
    while cohort.indices:
        for index, outcome in cohort.step():
            if isinstance(outcome, Exception):
                raise outcome
            rows[index] = list(outcome.tokens)
    return [rows[index] for index in range(len(utterances))]


def decode_nemo(nemo: Any, prompt: list[int], states: Tensor, lengths: Tensor) -> Tokens:
    """Decodes states with NeMo's `GreedySequenceGenerator`; token ids of each row."""
    nemo.decoding.decoding.greedy_search.max_seq_length = len(prompt) + NEW_TOKENS
    mask = (torch.arange(states.shape[1]) < lengths[:, None]).to(states.dtype)
    prompts = torch.tensor([prompt] * len(states))
    hypotheses = nemo.decoding.decode_predictions_tensor(states, mask, prompts, return_hypotheses=True)
    return [hypothesis.y_sequence.tolist() for hypothesis in hypotheses]


def fastest(*runs: Callable[[], Tokens]) -> list[tuple[Tokens, float]]:
    """What each gives, and the processor seconds of its fastest run after a warm-up; they take turns."""
    tokens = [run() for run in runs]
    times = [math.inf] * len(runs)
    for _ in range(REPEATS):
        for index, run in enumerate(runs):
            start = time.process_time()
            run()
            times[index] = min(times[index], time.process_time() - start)
    return list(zip(tokens, times, strict=True))


def noise(count: int) -> list[Utterance]:
    """Random clips."""
    rng = np.random.default_rng(SEED)
    options = DecodingOptions("en", "en", timestamps=False, max_new_tokens=NEW_TOKENS)
    clips = rng.normal(0, 0.1, (count, int(CLIP_S * SAMPLE_RATE))).astype(np.float32)
    return [Utterance(Chunk(Audio(clip)), options) for clip in clips]


def write_random_bundle(case: Case, path: Path) -> None:
    """A recogniser with random weights, as a bundle."""
    torch.manual_seed(SEED)
    decoder = DecoderConfig(
        case.vocab_size, case.num_layers, case.d_model, 4 * case.d_model, num_heads=8, max_length=1024
    )
    encoder = EncoderConfig(num_mels=80, num_layers=1, d_model=64, num_heads=4, subsampling_channels=16)
    canary = CanaryModel(CanaryConfig(FeatureConfig(num_mels=80), encoder, decoder)).eval()
    write_bundle(path, canary_members(canary, bpe_files(tokenizer_of(case.vocab_size)), aviary={}))


def tokenizer_of(size: int) -> bytes:
    """A SentencePiece model of any size: words that are numbers, and Canary's special tokens."""
    model = io.BytesIO()
    words = [f"w{index}" for index in range(size - len(SPECIAL_TOKENS) - 3)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a"]),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        user_defined_symbols=[*SPECIAL_TOKENS, *words],
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        unk_id=0,
        minloglevel=2,
    )
    return model.getvalue()


def load_nemo(path: Path) -> Any:
    """The bundle in NeMo, with greedy decoding."""
    if not hasattr(tarfile, "data_filter"):
        sys.exit("NeMo 3.0.0 needs Python 3.11.4 or newer to unpack its bundles")
    from nemo.collections.asr.models import EncDecMultiTaskModel
    from nemo.utils import logging as nemo_logging

    nemo_logging.setLevel(logging.ERROR)
    return EncDecMultiTaskModel.restore_from(str(path), map_location=torch.device("cpu")).eval()


if __name__ == "__main__":
    sys.exit(main())
