"""Canary checkpoints: a NeMo bundle in, a `CanaryModel` ready to decode out; and its weights under NeMo's names."""

from typing import Any

import torch
from torch import Tensor

from models.canary.decoder import DecoderConfig
from models.canary.model import CanaryConfig, CanaryModel
from models.errors import CheckpointError
from models.fastconformer.encoder import EncoderConfig
from models.fastconformer.features import FeatureConfig
from models.nemo_file import MODEL_CONFIG, MODEL_WEIGHTS, Names, NemoFile, assign, renamed

# What NeMo calls the weights, and what they are called here.
NAMES: Names = (
    ("preprocessor.featurizer.", "log_mel."),
    ("encoder_decoder_proj.", "projection."),
    ("transf_decoder._embedding.position_embedding.pos_enc", "decoder.embedding.pos_enc"),
    ("transf_decoder._embedding.", "decoder.embedding."),
    ("log_softmax.mlp.layer0.", "decoder.head."),
    ("transf_decoder._decoder.", "decoder."),
)
_TARGET = "EncDecMultiTaskModel"
# In bundles whose decoder was configured with token types; Canary has one type, and NeMo never adds it.
_UNUSED = "transf_decoder._embedding.token_type_embedding."


def read_config(config: dict[str, Any], vocab_size: int, source: str) -> CanaryConfig:
    """Reads the dimensions of a Canary from a NeMo model configuration.

    Args:
        config: The whole configuration.
        vocab_size: Size of the tokenizer.
        source: The bundle, for messages.

    Raises:
        CheckpointError: It is of another class of model, of a variant that is not implemented, or incomplete.
    """
    target = str(config.get("target"))
    if not target.endswith(_TARGET):
        raise CheckpointError(f"{source}: holds a {target.rsplit('.', 1)[-1]}, not a Canary ({_TARGET})")
    try:
        if (config.get("transf_encoder") or {}).get("num_layers", 0) > 0:
            raise ValueError("a Transformer encoder behind the FastConformer is not supported")
        if config["head"].get("num_layers", 1) != 1:
            raise ValueError("a head of several layers is not supported")
        decoder = config["transf_decoder"]
        final_norm = {"pre_ln_final_layer_norm": decoder.get("pre_ln_final_layer_norm")}
        return CanaryConfig(
            FeatureConfig.from_nemo(config["preprocessor"]),
            EncoderConfig.from_nemo(config["encoder"]),
            DecoderConfig.from_nemo(decoder["config_dict"] | final_norm, vocab_size),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{source}: {MODEL_CONFIG} lacks {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from error


def load_canary(bundle: NemoFile, vocab_size: int, device: torch.device, dtype: torch.dtype) -> CanaryModel:
    """Builds the recogniser of a bundle, in evaluation mode.

    Args:
        bundle: An open bundle.
        vocab_size: Size of its tokenizer.
        device: Where the weights go.
        dtype: What they are converted to, whatever they are stored as; features stay in float32.

    Raises:
        CheckpointError: The bundle is of another kind, or its weights do not fit its configuration.
    """
    config = read_config(bundle.config(), vocab_size, str(bundle.path))
    with torch.device("meta"):
        model = CanaryModel(config)
    state = {name: value for name, value in bundle.weights().items() if not name.startswith(_UNUSED)}
    assign(model, renamed(state, NAMES), device, dtype, f"{bundle.path}: {MODEL_WEIGHTS}")
    model.decoder.tie()
    return model


def nemo_weights(model: CanaryModel) -> dict[str, Tensor]:
    """The weights of a recogniser under NeMo's names."""
    return renamed(model.state_dict(), NAMES, to_nemo=True)
