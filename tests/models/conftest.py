"""Small bundles of the same shape as the real ones, with random weights that write lively texts."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from torch import nn

from models.alignment.ctc import CtcModel
from models.canary.decoder import DecoderConfig
from models.canary.model import CanaryConfig, CanaryModel
from models.canary.prompt import END_OF_TEXT, SPECIAL_TOKENS
from models.embedded.recipe import bundle as recipe
from models.embedded.recipe import train
from models.embedded.recipe.config import DataConfig, ModelConfig, RecipeConfig, TrainingConfig
from models.fastconformer.encoder import EncoderConfig
from models.fastconformer.features import FeatureConfig
from models.nemo_file import write_bundle
from models.tokenizer import AggregateTokenizer, BpeTokenizer
from models.types import SAMPLE_RATE, Audio, Chunk, DecodingOptions, Utterance

_VOCAB_SIZE = 155
_SENTENCES = """The quick brown fox jumps over the lazy dog. Pack my box with five dozen jugs of liquid soap!
Voix ambiguë d'un cœur qui au zéphyr préfère les jattes de kiwis. Falsches Üben von Xylophonmusik quält jeden.
El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia y frío. How now, brown cow? She sells sea shells."""


def _trained(text: str, **options: object) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()),
        model_writer=model,
        model_type="bpe",
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        unk_id=0,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def bpe_model() -> bytes:
    """A tokenizer like canary-1b-v2's."""
    return _trained(_SENTENCES, vocab_size=_VOCAB_SIZE, user_defined_symbols=list(SPECIAL_TOKENS))


@pytest.fixture(scope="session")
def aggregate_models() -> dict[str, bytes]:
    """Tokenizers like canary-1b-flash's: special tokens first, then languages."""
    special = _trained(
        "\n".join(SPECIAL_TOKENS), vocab_size=len(SPECIAL_TOKENS) + 2, user_defined_symbols=list(SPECIAL_TOKENS)
    )
    english = _trained(_SENTENCES, vocab_size=90)
    return {"spl_tokens": special, "en": english, "de": _trained(_SENTENCES.upper(), vocab_size=80)}


@pytest.fixture(scope="session")
def tokenizer(bpe_model: bytes) -> BpeTokenizer:
    return BpeTokenizer(bpe_model)


@pytest.fixture(scope="session")
def recipe_config() -> RecipeConfig:
    """The recipe of canary-mini with very small dimensions."""
    schedule = TrainingConfig(steps=0, batch_seconds=0, learning_rate=0, warmup_steps=0)
    model = ModelConfig(
        vocab_size=_VOCAB_SIZE,
        num_mels=32,
        d_model=32,
        num_heads=4,
        encoder_layers=2,
        subsampling_channels=16,
        decoder_layers=2,
    )
    return RecipeConfig("mini", DataConfig(("en",), 0, 0), schedule, schedule, model)


@pytest.fixture(scope="session")
def bundle_path(recipe_config: RecipeConfig, bpe_model: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the recipe packs: one tokenizer, encoder and decoder of one width, an aligner, an ``aviary`` section."""
    work = tmp_path_factory.mktemp("work")
    tokenizer = BpeTokenizer(bpe_model)
    torch.manual_seed(50)
    aligner = CtcModel(train.ctc_config(recipe_config.model))
    canary = CanaryModel(train.canary_config(recipe_config.model))
    enliven(canary, tokenizer, end_bias=5.0)
    averaged = {f"ctc.model.{name}": value for name, value in aligner.state_dict().items()}
    averaged |= {f"canary.{name}": value for name, value in canary.state_dict().items()}
    torch.save({"averaged": averaged}, work / "aed.pt")
    (work / "tokenizer.model").write_bytes(bpe_model)
    path = tmp_path_factory.mktemp("bundle") / "canary-tiny.nemo"
    recipe.bundle(recipe_config, work, path)
    return path


@pytest.fixture(scope="session")
def flash_path(aggregate_models: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like canary-1b-flash: aggregate tokenizer, a projection between the widths; no aligner, no ``aviary`` section."""
    tokenizer = AggregateTokenizer(aggregate_models)
    vocab_size = 8 * -(-tokenizer.size // 8)
    encoder = EncoderConfig(32, 2, 48, 4, subsampling_channels=16, use_bias=False, scale_input=True)
    decoder = DecoderConfig(vocab_size, 2, 32, 64, 4, max_length=96)
    torch.manual_seed(21)
    canary = CanaryModel(CanaryConfig(FeatureConfig(num_mels=32), encoder, decoder))
    enliven(canary, tokenizer, end_bias=5.0)
    path = tmp_path_factory.mktemp("flash") / "canary-flash.nemo"
    write_bundle(path, recipe.canary_members(canary, recipe.aggregate_files(aggregate_models), aviary={}))
    return path


def enliven(canary: CanaryModel, tokenizer: BpeTokenizer | AggregateTokenizer, end_bias: float) -> None:
    """Random weights under which texts vary from token to token and from clip to clip, and most end after a while.

    Seeds and biases of the end were picked among a few so that they do.
    """
    decoder = canary.decoder
    with torch.no_grad():
        for module in (*canary.encoder.modules(), *decoder.layers.modules()):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=2 * module.in_features**-0.5)
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
        for module in decoder.layers.modules():
            if isinstance(module, nn.Linear):
                module.weight *= 3
                nn.init.normal_(module.bias, std=0.1)
        for layer in decoder.layers:
            layer.second_sub_layer.query_net.weight *= 3
        decoder.embedding.layer_norm.weight.fill_(0.2)
        decoder.final_layer_norm.weight.normal_()
        decoder.head.weight.normal_(std=0.5)
        decoder.head.bias.normal_(std=0.1)
        decoder.head.bias[tokenizer.special[END_OF_TEXT]] = end_bias
        decoder.head.bias[tokenizer.size :] = -100  # the head is rounded up; NeMo cannot decode such ids


@pytest.fixture(scope="session")
def make_clip() -> Callable[[float], Audio]:
    """Clips of tones that change eight times a second; each length has its own tune."""

    def make(seconds: float) -> Audio:
        count = round(seconds * SAMPLE_RATE)
        rng = np.random.default_rng(round(seconds * 1000))
        frequency = np.repeat(rng.uniform(100, 6000, count // 2000 + 1), 2000)[:count]
        loudness = np.repeat(rng.uniform(0, 0.3, count // 1500 + 1), 1500)[:count]
        tune = loudness * np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE)
        return Audio((tune + rng.normal(0, 0.005, count)).astype(np.float32))

    return make


@pytest.fixture(scope="session")
def utterances(make_clip: Callable[[float], Audio]) -> list[Utterance]:
    """Clips of different lengths, from less than a second to many."""
    options = DecodingOptions("en", "en")
    return [Utterance(Chunk(make_clip(seconds)), options) for seconds in (3.2, 0.4, 7.03, 1.5, 5.0, 0.05)]


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    """The same sums in the same order whatever the machine, and no fight for its cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
