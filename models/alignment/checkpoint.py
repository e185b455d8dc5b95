"""The auxiliary CTC model of a Canary bundle: the bundle in, a `CtcModel` out; and its weights under NeMo's names."""

from typing import Any

import torch
from torch import Tensor

from models.alignment.ctc import CtcConfig, CtcModel
from models.errors import CheckpointError
from models.fastconformer.encoder import EncoderConfig
from models.fastconformer.features import FeatureConfig
from models.nemo_file import Names, NemoFile, assign, renamed

ALIGNER_CONFIG = "timestamps_asr_model_config.yaml"
ALIGNER_WEIGHTS = "timestamps_asr_model_weights.ckpt"

# What NeMo calls the weights, and what they are called here.
NAMES: Names = (
    ("preprocessor.featurizer.", "log_mel."),
    ("decoder.decoder_layers.0.", "head."),
)
_TARGET = "EncDecCTCModelBPE"


def read_config(config: dict[str, Any], source: str) -> CtcConfig:
    """Reads the dimensions of the aligner from its NeMo configuration.

    Raises:
        CheckpointError: It is of another class of model, of a variant that is not implemented, or incomplete.
    """
    target = str(config.get("target"))
    if not target.endswith(_TARGET):
        raise CheckpointError(f"{source}: its aligner is a {target.rsplit('.', 1)[-1]}, not a CTC model ({_TARGET})")
    try:
        return CtcConfig(
            FeatureConfig.from_nemo(config["preprocessor"]),
            EncoderConfig.from_nemo(config["encoder"]),
            config["decoder"]["num_classes"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{source}: {ALIGNER_CONFIG} lacks {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from error


def load_aligner_model(bundle: NemoFile, device: torch.device, dtype: torch.dtype) -> CtcModel:
    """Builds the aligner of a bundle, in evaluation mode.

    Args:
        bundle: An open bundle.
        device: Where the weights go.
        dtype: What they are converted to, whatever they are stored as; features stay in float32.

    Raises:
        CheckpointError: The bundle has no aligner, or one of another kind, or its weights do not fit.
    """
    if ALIGNER_CONFIG not in bundle or ALIGNER_WEIGHTS not in bundle:
        raise CheckpointError(
            f"{bundle.path}: has no aligner ({ALIGNER_CONFIG} and {ALIGNER_WEIGHTS}), so it cannot time its text; "
            "timestamps=False (--no-timestamps) serves it without"
        )
    config = read_config(bundle.config(ALIGNER_CONFIG), str(bundle.path))
    with torch.device("meta"):
        model = CtcModel(config)
    state = renamed(bundle.weights(ALIGNER_WEIGHTS), NAMES)
    assign(model, state, device, dtype, f"{bundle.path}: {ALIGNER_WEIGHTS}")
    return model


def nemo_weights(model: CtcModel) -> dict[str, Tensor]:
    """The weights of an aligner under NeMo's names."""
    return renamed(model.state_dict(), NAMES, to_nemo=True)
