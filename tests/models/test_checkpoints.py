"""Bundles as models: what loads, and what every wrong one is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from models.alignment.checkpoint import ALIGNER_CONFIG, ALIGNER_WEIGHTS
from models.canary.checkpoint import read_config
from models.canary.decoder import DecoderConfig
from models.canary.model import CanaryConfig, CanaryModel
from models.embedded.recipe import bundle as recipe
from models.engine import SpeechEngine, load_engine
from models.errors import CheckpointError, DeviceError, OptionError
from models.fastconformer.encoder import EncoderConfig
from models.fastconformer.features import FeatureConfig
from models.nemo_file import MODEL_CONFIG, MODEL_WEIGHTS, NemoFile, packed_weights, write_bundle

# FIELD: 978 million. The head is the embedding, so 16.8 million of them are stored twice and counted twice.
CANARY_1B_V2 = CanaryConfig(
    FeatureConfig(num_mels=128),
    EncoderConfig(num_mels=128, num_layers=32, d_model=1024, num_heads=8),
    DecoderConfig(vocab_size=16_384, num_layers=8, d_model=1024, d_inner=4096, num_heads=8, max_length=1024),
)

Change = Callable[[dict[str, Any]], object]


def _members(path: Path) -> dict[str, bytes]:
    with NemoFile.open(path) as bundle:
        return {name: bundle.read(name) for name in bundle._members}


@pytest.fixture
def altered(bundle_path: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the bundle with some members replaced, or dropped where None, or its configuration changed."""

    def alter(change: Change | None = None, name: str = MODEL_CONFIG, **replaced: bytes | None) -> Path:
        members: dict[str, bytes | None] = {**_members(bundle_path), **replaced}
        if change is not None:
            config = yaml.safe_load(members[name] or b"")
            change(config)
            members[name] = yaml.safe_dump(config, sort_keys=False).encode()
        target = tmp_path / "altered.nemo"
        write_bundle(target, {name: content for name, content in members.items() if content is not None})
        return target

    return alter


def _refused(path: Path, message: str, **options: Any) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_engine(str(path), device="cpu", **options)
    assert str(path) in str(caught.value)


def test_canary_1b_v2_has_978_million_parameters() -> None:
    with torch.device("meta"):
        model = CanaryModel(CANARY_1B_V2)
    count = sum(p.numel() for _, p in model.named_parameters(remove_duplicate=False))
    assert count == pytest.approx(978e6, rel=0.002)
    assert model.projection.state_dict() == {}


def test_its_configuration_survives_nemo_s_format(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = CanaryModel(CANARY_1B_V2)
    tokenizer = recipe.TokenizerFiles({}, {}, [])
    config = recipe._canary_config(model, tokenizer)
    assert read_config(config, 16_384, "x.nemo") == CANARY_1B_V2
    # The tokenizer's size is rounded up to a multiple of eight.
    assert read_config(config, 16_379, "x.nemo").decoder.vocab_size == 16_384


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loads_in_the_precision_asked_for(bundle_path: Path, dtype: str) -> None:
    engine = load_engine(str(bundle_path), device="cpu", dtype=dtype)
    model = engine._recogniser._model
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
    assert model.log_mel.fb.dtype == torch.float32
    assert model.decoder.head.weight is model.decoder.embedding.token_embedding.weight
    assert not model.training


def test_its_card(bundle_path: Path, flash_path: Path) -> None:
    card = load_engine(str(bundle_path), device="cpu").card
    assert (card.id, card.owner, card.has_aligner, card.max_chunk) == ("canary-mini", "aviary", True, 30.0)
    assert (card.transcribes, card.translates) == ({"en"}, frozenset())
    flash = load_engine(str(flash_path), device="cpu", timestamps=False).card
    assert (flash.id, flash.transcribes, flash.has_aligner) == ("canary-flash", {"en", "de"}, False)


def test_a_bundle_without_an_aligner(flash_path: Path) -> None:
    _refused(flash_path, "has no aligner.*timestamps=False .--no-timestamps. serves it without")


def test_half_an_aligner_is_none(altered: Callable[..., Path]) -> None:
    _refused(altered(**{ALIGNER_WEIGHTS: None}), "has no aligner")


def test_another_class_of_model(altered: Callable[..., Path]) -> None:
    path = altered(lambda config: config.update(target="nemo.collections.tts.models.FastPitchModel"))
    _refused(path, "holds a FastPitchModel, not a Canary")


def test_another_class_of_aligner(altered: Callable[..., Path]) -> None:
    path = altered(lambda config: config.update(target="nemo.x.EncDecRNNTBPEModel"), name=ALIGNER_CONFIG)
    _refused(path, "aligner is a EncDecRNNTBPEModel")
    assert isinstance(load_engine(str(path), device="cpu", timestamps=False), SpeechEngine)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("encoder"), "model_config.yaml lacks 'encoder'"),
        (lambda c: c["transf_decoder"]["config_dict"].pop("hidden_size"), "lacks 'hidden_size'"),
        (lambda c: c.update(encoder=3), "model_config.yaml lacks"),
        (lambda c: c["encoder"].update(subsampling="vggnet"), "encoder option subsampling='vggnet'"),
        (lambda c: c["transf_decoder"]["config_dict"].update(pre_ln=False), "decoder option pre_ln=False"),
        (lambda c: c["transf_decoder"].update(pre_ln_final_layer_norm=False), "pre_ln_final_layer_norm=False"),
        (lambda c: c.update(transf_encoder={"num_layers": 2}), "Transformer encoder behind the FastConformer"),
        (lambda c: c["head"].update(num_layers=2), "head of several layers"),
        (lambda c: c["preprocessor"].update(normalize="all_features"), "preprocessor option normalize='all_features'"),
        (lambda c: c.pop("tokenizer"), "tokenizers of type None"),
        (lambda c: c["tokenizer"].update(model_path="nemo:gone.model"), "there is no gone.model"),
        (lambda c: c["encoder"].update(n_layers=3), "missing: encoder.layers.2."),
        (lambda c: c["encoder"].update(n_layers=1), "unexpected: encoder.layers.1.*and .* more"),
        (lambda c: c["encoder"].update(ff_expansion_factor=2), "of another shape: encoder.layers.0.feed_forward1"),
        (lambda c: c["decoding"]["greedy"].update(max_generation_delta="many"), "max_generation_delta is 'many'"),
    ],
)
def test_wrong_configurations(altered: Callable[..., Path], change: Change, message: str) -> None:
    _refused(altered(change), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("decoder"), "lacks 'decoder'"),
        (lambda c: c["encoder"].update(conv_norm_type="layer_norm"), "encoder option conv_norm_type"),
        (lambda c: c["decoder"].update(num_classes=7), "weights.ckpt: .*of another shape: head.weight, head.bias"),
    ],
)
def test_wrong_aligners(altered: Callable[..., Path], change: Change, message: str) -> None:
    _refused(altered(change, name=ALIGNER_CONFIG), message)


def test_an_absent_or_empty_transformer_encoder_is_fine(altered: Callable[..., Path]) -> None:
    for change in (lambda c: c.pop("transf_encoder"), lambda c: c.update(transf_encoder={"num_layers": 0})):
        assert load_engine(str(altered(change)), device="cpu", timestamps=False).active == 0


def test_unused_token_types_are_ignored(bundle_path: Path, altered: Callable[..., Path]) -> None:
    with NemoFile.open(bundle_path) as bundle:
        state = bundle.weights()
    state["transf_decoder._embedding.token_type_embedding.weight"] = torch.zeros(2, 32)
    assert load_engine(str(altered(**{MODEL_WEIGHTS: packed_weights(state)})), device="cpu").active == 0


def test_a_pinned_hash(bundle_path: Path) -> None:
    _refused(bundle_path, "its sha256 is", sha256="0" * 64)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced(bundle_path: Path) -> None:
    for device in ("cuda", "cuda:3"):
        with pytest.raises(DeviceError, match=f"{device}: this machine has no CUDA devices"):
            load_engine(str(bundle_path), device=device)


@pytest.mark.parametrize(
    "options", [{"device": "tpu-ish"}, {"device": "meta"}, {"dtype": "float16"}, {"dtype": "int8"}, {"device": ""}]
)
def test_unknown_devices_and_precisions(bundle_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="use auto"):
        load_engine(str(bundle_path), **options)


def test_the_recipe_stores_halves_once(bundle_path: Path) -> None:
    with NemoFile.open(bundle_path) as bundle:
        state = bundle.weights()
    head, embedding = "log_softmax.mlp.layer0.weight", "transf_decoder._embedding.token_embedding.weight"
    assert state[head].dtype == torch.float16
    assert state[head].data_ptr() == state[embedding].data_ptr()
    assert state["preprocessor.featurizer.fb"].dtype == torch.float32
