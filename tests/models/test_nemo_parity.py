"""The same bundles, in NeMo and here: the same prompts, features, states, emissions and tokens, in float32."""

import gc
import logging
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.alignment.checkpoint import load_aligner_model
from models.audio.decode import decode_file
from models.canary.checkpoint import load_canary, nemo_weights
from models.canary.decoding import Recogniser
from models.canary.model import CanaryModel
from models.canary.prompt import canary2_prompt, prompt_ids
from models.nemo_file import NemoFile
from models.tokenizer import AggregateTokenizer, BpeTokenizer, load_tokenizer
from models.types import SAMPLE_RATE, Chunk, DecodingOptions, Hypothesis, Utterance

pytestmark = [pytest.mark.nemo, pytest.mark.slow]

_CPU = torch.device("cpu")
_CLOSE = {"atol": 1e-4, "rtol": 1e-4}
_DELTA = 50  # max_generation_delta of the bundles
_ROOT = Path(__file__).parents[2]
_MINI = _ROOT / "models" / "embedded" / "canary-mini.nemo"
_CLIPS = sorted((_ROOT / "examples" / "audio").glob("*.wav"))

Pair = tuple[Any, CanaryModel, BpeTokenizer | AggregateTokenizer]


@pytest.fixture(scope="session")
def nemo() -> Iterator[Any]:
    """NeMo's class of Canary. It warns while it is imported, and leaves files and sockets for the collector."""
    pytest.importorskip("nemo", reason="NeMo is not installed")
    if not hasattr(tarfile, "data_filter"):
        pytest.skip("NeMo 3.0.0 cannot unpack a bundle on Python before 3.11.4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.captureWarnings(False)
        from nemo.collections.asr.models import EncDecMultiTaskModel

        gc.collect()
        yield EncDecMultiTaskModel


def _pair(nemo: Any, path: Path) -> Pair:
    reference = nemo.restore_from(str(path), map_location="cpu").eval()
    with NemoFile.open(path) as bundle:
        tokenizer = load_tokenizer(bundle.config()["tokenizer"], bundle.read, str(path))
        return reference, load_canary(bundle, tokenizer.size, _CPU, torch.float32), tokenizer


@pytest.fixture(scope="session")
def v2(nemo: Any, bundle_path: Path) -> Pair:
    return _pair(nemo, bundle_path)


@pytest.fixture(scope="session")
def flash(nemo: Any, flash_path: Path) -> Pair:
    return _pair(nemo, flash_path)


@pytest.fixture(params=["v2", "flash"])
def pair(request: pytest.FixtureRequest) -> Pair:
    found: Pair = request.getfixturevalue(request.param)
    return found


def _batch(utterances: list[Utterance]) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded waveforms of the clips that NeMo would not pad to a second, and their lengths."""
    clips = [torch.from_numpy(u.chunk.audio.samples) for u in utterances if u.duration >= 1]
    return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips])


def test_nemo_restores_what_we_write(pair: Pair) -> None:
    reference, model, _ = pair
    ours, theirs = nemo_weights(model), reference.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@torch.inference_mode()
def test_features_and_states_are_the_same(pair: Pair, utterances: list[Utterance]) -> None:
    reference, model, _ = pair
    samples, lengths = _batch(utterances)
    expected, expected_frames = reference.preprocessor(input_signal=samples, length=lengths)
    features, num_frames = model.log_mel(samples, lengths)
    torch.testing.assert_close(num_frames, expected_frames)
    torch.testing.assert_close(features, expected, **_CLOSE)

    _, expected_lengths, expected_states, _ = reference(input_signal=samples, input_signal_length=lengths)
    states, num_states = model.encode(samples, lengths)
    torch.testing.assert_close(num_states, expected_lengths)
    for ours, theirs, length in zip(states, expected_states, num_states, strict=True):
        torch.testing.assert_close(ours[:length], theirs[:length], **_CLOSE)


@torch.inference_mode()
def test_emissions_of_the_aligner_are_the_same(v2: Pair, bundle_path: Path, utterances: list[Utterance]) -> None:
    with NemoFile.open(bundle_path) as bundle:
        aligner = load_aligner_model(bundle, _CPU, torch.float32)
    samples, lengths = _batch(utterances)
    reference = v2[0].timestamps_asr_model
    expected, expected_frames, _ = reference(input_signal=samples, input_signal_length=lengths)
    log_probs, num_frames = aligner(samples, lengths)
    torch.testing.assert_close(num_frames, expected_frames)
    for ours, theirs, length in zip(log_probs, expected, num_frames, strict=True):
        torch.testing.assert_close(ours[:length], theirs[:length], **_CLOSE)


@pytest.mark.parametrize("context", ["", "Hello there, world", "Große Füße ☃"])
@pytest.mark.parametrize(("source", "target", "pnc"), [("en", "en", True), ("de", "en", False), ("en", "de", True)])
def test_prompts_are_the_same(pair: Pair, source: str, target: str, pnc: bool, context: str) -> None:
    reference, _, tokenizer = pair
    slots = {
        "decodercontext": context,
        "emotion": "<|emo:undefined|>",
        "source_lang": source,
        "target_lang": target,
        "pnc": "yes" if pnc else "no",
        "itn": "no",
        "timestamp": "no",
        "diarize": "no",
    }
    expected = reference.prompt.encode_dialog([{"role": "user", "slots": slots}])["context_ids"].tolist()
    options = DecodingOptions(source, target, pnc=pnc, context=context)
    assert prompt_ids(tokenizer, options, max_context=100) == expected
    if isinstance(tokenizer, BpeTokenizer):  # what the recipe trains with
        assert reference.tokenizer.text_to_ids(canary2_prompt(source, target, pnc=pnc, context=context)) == expected


def _decoded(recogniser: Recogniser, utterances: list[Utterance]) -> list[Hypothesis]:
    cohort = recogniser.start(utterances)
    outcomes: dict[int, Any] = {}
    while cohort.indices:
        outcomes.update(cohort.step())
    return [outcomes[index] for index in range(len(utterances))]


def _nemo_decoded(reference: Any, utterances: list[Utterance], prompt: list[int]) -> list[Any]:
    """NeMo's greedy decoding of clips, padded to a second as its own `transcribe` does."""
    clips = [utterance.chunk.audio.samples for utterance in utterances]
    lacking = [max(0, SAMPLE_RATE - len(clip)) for clip in clips]
    waves = [
        torch.from_numpy(np.pad(clip, (pad // 2, pad - pad // 2))) for clip, pad in zip(clips, lacking, strict=True)
    ]
    samples = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    with torch.inference_mode():
        _, _, states, mask = reference(
            input_signal=samples, input_signal_length=torch.tensor([len(wave) for wave in waves])
        )
        prompts = torch.tensor(prompt).expand(len(clips), -1)
        hypotheses: list[Any] = reference.decoding.decode_predictions_tensor(states, mask, prompts, True)
    return hypotheses


def test_greedy_tokens_are_the_same_one_by_one(pair: Pair, utterances: list[Utterance]) -> None:
    reference, model, tokenizer = pair
    recogniser = Recogniser(model, tokenizer, _DELTA)
    prompt = prompt_ids(tokenizer, utterances[0].options, 0)
    written = set()
    for utterance in utterances:
        (ours,) = _decoded(recogniser, [utterance])
        (theirs,) = _nemo_decoded(reference, [utterance], prompt)
        assert list(ours.tokens) == theirs.y_sequence.tolist()
        # NeMo writes special tokens out where a random model emits them; we drop them.
        silent = {*tokenizer.special.values(), *(i for i in ours.tokens if tokenizer.pieces([i]) == ["<unk>"])}
        spoken = [token for token in ours.tokens if token not in silent]
        assert ours.text == reference.tokenizer.ids_to_text(spoken).strip()
        written.add(ours.tokens)
    assert len(written) > len(utterances) / 2, "different clips should give different texts"


def test_greedy_tokens_are_the_same_in_a_batch(pair: Pair, utterances: list[Utterance]) -> None:
    reference, model, tokenizer = pair
    ours = _decoded(Recogniser(model, tokenizer, _DELTA), utterances)
    prompt = prompt_ids(tokenizer, utterances[0].options, 0)
    theirs = _nemo_decoded(reference, utterances, prompt)
    for mine, other in zip(ours, theirs, strict=True):
        # NeMo lets short clips of a batch run on to the limit of the longest.
        assert list(mine.tokens) == other.y_sequence.tolist()[: len(mine.tokens)]
        assert mine.tokens
    longest = max(range(len(ours)), key=lambda index: utterances[index].duration)
    assert list(ours[longest].tokens) == theirs[longest].y_sequence.tolist()


def test_the_shipped_checkpoint_writes_the_same_tokens_on_speech(nemo: Any) -> None:
    reference, model, tokenizer = _pair(nemo, _MINI)
    utterances = [Utterance(Chunk(decode_file(clip)), DecodingOptions("en", "en")) for clip in _CLIPS]
    prompt = prompt_ids(tokenizer, utterances[0].options, 0)
    ours = _decoded(Recogniser(model, tokenizer, _DELTA), utterances)
    assert len(ours) > 1
    for utterance, mine in zip(utterances, ours, strict=True):
        (theirs,) = _nemo_decoded(reference, [utterance], prompt)
        assert list(mine.tokens) == theirs.y_sequence.tolist()
        assert mine.text
