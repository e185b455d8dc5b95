"""Packs trained weights as a NeMo bundle: `aed.pt` and the tokenizer in, a `.nemo` file out.

The file restores in NeMo 3.0.0 (``EncDecMultiTaskModel.restore_from``) with its aligner as ``timestamps_asr_model``,
and loads here. Weights are stored in half precision; buffers (features, positions, batch-norm statistics) as they are.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor, nn

from models.alignment.checkpoint import ALIGNER_CONFIG, ALIGNER_WEIGHTS
from models.alignment.checkpoint import nemo_weights as aligner_weights
from models.alignment.ctc import CtcModel
from models.canary.checkpoint import nemo_weights as canary_weights
from models.canary.decoder import DecoderConfig
from models.canary.model import CanaryModel
from models.embedded.recipe.config import RecipeConfig
from models.embedded.recipe.train import canary_config, ctc_config
from models.fastconformer.encoder import EncoderConfig
from models.fastconformer.features import FeatureConfig
from models.nemo_file import MODEL_CONFIG, MODEL_WEIGHTS, artifact_name, packed_config, packed_weights, write_bundle

log = logging.getLogger(__name__)

_MAX_CHUNK = 30.0  # seconds; training items are shorter
# Tokens that may be written beyond one per encoder frame: NeMo's own recipe.
_GENERATION_DELTA = 50


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """A tokenizer as a bundle holds it.

    Attributes:
        section: The ``tokenizer`` section of the configuration.
        files: Contents by member name.
        vocabulary: All pieces, in the order of their ids.
    """

    section: dict[str, Any]
    files: dict[str, bytes]
    vocabulary: list[str]


def bundle(config: RecipeConfig, work: Path, target: Path) -> None:
    """Packs the averaged weights of a finished run.

    Args:
        config: The recipe that was run.
        work: Its folder, with `aed.pt` and `tokenizer.model`.
        target: The bundle to write.
    """
    aligner, canary = CtcModel(ctc_config(config.model)), CanaryModel(canary_config(config.model))
    averaged = torch.load(work / "aed.pt", weights_only=True, map_location="cpu")["averaged"]
    for model, prefix in ((aligner, "ctc.model."), (canary, "canary.")):
        own = {name.removeprefix(prefix): value for name, value in averaged.items() if name.startswith(prefix)}
        model.load_state_dict(own)
    languages = list(config.data.languages)
    aviary = {
        "id": f"canary-{config.name}",
        "owner": "aviary",
        "transcribes": languages,
        "translates": [],
        "max_chunk": _MAX_CHUNK,
    }
    tokenizer = bpe_files((work / "tokenizer.model").read_bytes())
    members = canary_members(canary, tokenizer, aviary) | aligner_members(aligner, tokenizer)
    write_bundle(target, members)
    log.info("wrote %s, %.1f MB", target, target.stat().st_size / 1e6)


def bpe_files(model: bytes) -> TokenizerFiles:
    """The files and the section of a single tokenizer with the special tokens inside it."""
    vocabulary, files, section = _sentencepiece_files(model)
    # NeMo's class for it takes end of text and padding from Canary's special tokens.
    custom = {"_target_": "nemo.collections.common.tokenizers.canary_tokenizer.CanaryBPETokenizer"}
    return TokenizerFiles(section | {"custom_tokenizer": custom}, files, vocabulary)


def aggregate_files(models: Mapping[str, bytes]) -> TokenizerFiles:
    """The files and the section of several tokenizers laid end to end, "spl_tokens" among them."""
    files: dict[str, bytes] = {}
    vocabulary: list[str] = []
    langs = {}
    for lang, model in models.items():
        pieces, own_files, langs[lang] = _sentencepiece_files(model)
        files |= own_files
        vocabulary += pieces
    custom = {"_target_": "nemo.collections.common.tokenizers.canary_tokenizer.CanaryTokenizer", "tokenizers": None}
    section = {"dir": None, "type": "agg", "langs": langs, "custom_tokenizer": custom}
    return TokenizerFiles(section, files, vocabulary)


def _sentencepiece_files(model: bytes) -> tuple[list[str], dict[str, bytes], dict[str, Any]]:
    """Vocabulary, files and configuration of one SentencePiece model."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    size: int = processor.get_piece_size()
    pieces: list[str] = [processor.id_to_piece(index) for index in range(size)]
    listing = "\n".join(f"{piece}\t{processor.get_score(index)}" for index, piece in enumerate(pieces))
    contents = {
        "model_path": ("tokenizer.model", model),
        "vocab_path": ("vocab.txt", "\n".join(pieces).encode()),
        "spe_tokenizer_vocab": ("tokenizer.vocab", listing.encode()),
    }
    named = {option: (artifact_name(content, name), content) for option, (name, content) in contents.items()}
    files = dict(named.values())
    return pieces, files, {"dir": None, "type": "bpe"} | {option: f"nemo:{name}" for option, (name, _) in named.items()}


def canary_members(canary: CanaryModel, tokenizer: TokenizerFiles, aviary: Mapping[str, Any]) -> dict[str, bytes]:
    """The members of a bundle that make up the recogniser.

    Args:
        canary: Its weights and dimensions.
        tokenizer: Its tokenizer.
        aviary: The section that tells Aviary what the model can do; empty for none.
    """
    config = _canary_config(canary, tokenizer) | ({"aviary": dict(aviary)} if aviary else {})
    weights = packed_weights(_halved(canary, canary_weights(canary)))
    return {MODEL_CONFIG: packed_config(config), MODEL_WEIGHTS: weights} | tokenizer.files


def aligner_members(aligner: CtcModel, tokenizer: TokenizerFiles) -> dict[str, bytes]:
    """The members of a bundle that make up its aligner; its tokenizer is the recogniser's."""
    weights = packed_weights(_halved(aligner, aligner_weights(aligner)))
    return {ALIGNER_CONFIG: packed_config(_aligner_config(aligner, tokenizer)), ALIGNER_WEIGHTS: weights}


def _halved(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters in float16, each shared tensor once; buffers as they are."""
    buffers = {buffer.data_ptr() for buffer in model.buffers()}
    halves: dict[int, Tensor] = {}
    for value in state.values():
        halves[value.data_ptr()] = value if value.data_ptr() in buffers else value.half()
    return {name: halves[value.data_ptr()] for name, value in state.items()}


def _canary_config(canary: CanaryModel, tokenizer: TokenizerFiles) -> dict[str, Any]:
    config = canary.config
    d_model, vocab_size = config.decoder.d_model, config.decoder.vocab_size
    return {
        "target": "nemo.collections.asr.models.aed_multitask_models.EncDecMultiTaskModel",
        "nemo_version": "3.0.0",
        "sample_rate": config.features.sample_rate,
        "prompt_format": "canary2",
        "prompt_defaults": [
            {
                "role": "user",
                "slots": {
                    "decodercontext": "",
                    "source_lang": "<|en|>",
                    "target_lang": "<|en|>",
                    "emotion": "<|emo:undefined|>",
                    "pnc": "<|pnc|>",
                    "itn": "<|noitn|>",
                    "timestamp": "<|notimestamp|>",
                    "diarize": "<|nodiarize|>",
                },
            },
            {"role": "user_partial", "slots": {"decodercontext": ""}},
        ],
        "model_defaults": {
            "asr_enc_hidden": config.encoder.d_model,
            "lm_enc_hidden": d_model,
            "lm_dec_hidden": d_model,
        },
        "tokenizer": tokenizer.section,
        "preprocessor": _preprocessor_section(config.features),
        "encoder": _encoder_section(config.encoder),
        "transf_encoder": None,
        "transf_decoder": _decoder_section(config.decoder),
        "head": {
            "_target_": "nemo.collections.asr.parts.submodules.token_classifier.TokenClassifier",
            "num_layers": 1,
            "activation": "relu",
            "log_softmax": True,
            "hidden_size": d_model,
            "num_classes": vocab_size,
            "dropout": 0.0,
            "use_transformer_init": True,
        },
        "decoding": {
            "strategy": "greedy",
            "greedy": {"temperature": None, "max_generation_delta": _GENERATION_DELTA, "n_samples": 1},
            "beam": {"beam_size": 1, "max_generation_delta": _GENERATION_DELTA},
        },
        "loss": {
            "_target_": "nemo.collections.common.losses.smoothed_cross_entropy.SmoothedCrossEntropyLoss",
            "label_smoothing": 0.0,
            "pad_id": None,
        },
    }


def _aligner_config(aligner: CtcModel, tokenizer: TokenizerFiles) -> dict[str, Any]:
    config = aligner.config
    return {
        "target": "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE",
        "nemo_version": "3.0.0",
        "sample_rate": config.features.sample_rate,
        "tokenizer": tokenizer.section,
        "preprocessor": _preprocessor_section(config.features),
        "encoder": _encoder_section(config.encoder),
        "decoder": {
            "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
            "feat_in": config.encoder.d_model,
            "num_classes": config.vocab_size,
            "vocabulary": tokenizer.vocabulary,
        },
        "decoding": {"strategy": "greedy_batch"},
    }


def _preprocessor_section(features: FeatureConfig) -> dict[str, Any]:
    return {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
        "sample_rate": features.sample_rate,
        "normalize": "per_feature",
        "window_size": features.window_s,
        "window_stride": features.hop_s,
        "window": "hann",
        "features": features.num_mels,
        "n_fft": features.n_fft,
        "preemph": features.preemphasis,
        "log": True,
        "frame_splicing": 1,
        "dither": 1e-5,
        "pad_to": 0,
        "pad_value": 0.0,
    }


def _encoder_section(encoder: EncoderConfig) -> dict[str, Any]:
    return {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder",
        "feat_in": encoder.num_mels,
        "feat_out": -1,
        "n_layers": encoder.num_layers,
        "d_model": encoder.d_model,
        "use_bias": encoder.use_bias,
        "subsampling": "dw_striding",
        "subsampling_factor": encoder.subsampling_factor,
        "subsampling_conv_channels": encoder.subsampling_channels,
        "causal_downsampling": False,
        "ff_expansion_factor": encoder.ff_expansion,
        "self_attention_model": "rel_pos",
        "n_heads": encoder.num_heads,
        "att_context_size": [-1, -1],
        "att_context_style": "regular",
        "xscaling": encoder.scale_input,
        "untie_biases": True,
        "pos_emb_max_len": 5000,
        "conv_kernel_size": encoder.conv_kernel,
        "conv_norm_type": "batch_norm",
        "conv_context_size": None,
        "dropout": encoder.dropout,
        "dropout_pre_encoder": encoder.dropout,
        "dropout_emb": 0.0,
        "dropout_att": encoder.dropout,
    }


def _decoder_section(decoder: DecoderConfig) -> dict[str, Any]:
    return {
        "_target_": "nemo.collections.asr.modules.transformer.get_nemo_transformer",
        "model_name": None,
        "pretrained": False,
        "encoder": None,
        "pre_ln_final_layer_norm": True,
        "config_dict": {
            "max_sequence_length": decoder.max_length,
            "num_token_types": 0,
            "embedding_dropout": decoder.dropout,
            "learn_positional_encodings": False,
            "hidden_size": decoder.d_model,
            "inner_size": decoder.d_inner,
            "num_layers": decoder.num_layers,
            "num_attention_heads": decoder.num_heads,
            "ffn_dropout": decoder.dropout,
            "attn_score_dropout": 0.0,
            "attn_layer_dropout": decoder.dropout,
            "hidden_act": "relu",
            "pre_ln": True,
            "vocab_size": decoder.vocab_size,
        },
    }
