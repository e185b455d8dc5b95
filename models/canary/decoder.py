"""Canary's Transformer decoder: token ids and encoder states in, next-token logits out.

Two ways through the same weights: `TransformerDecoder.forward` scores whole sequences (training), and
`TransformerDecoder.step` extends sequences token by token over a `DecoderCache`, which holds what never
changes: the keys and values of past tokens, and those of the encoder states, projected once.

The mathematics are those of NeMo's ``TransformerDecoder`` (pre-LN), whose weights load here under the
names in `models.canary.checkpoint.NAMES`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Dimensions of a Canary decoder.

    Attributes:
        vocab_size: Classes of the head: the tokenizer's size rounded up to a multiple of eight.
        num_layers: Transformer layers.
        d_model: Width.
        d_inner: Width of the feed-forward modules.
        num_heads: Attention heads.
        max_length: Longest sequence, prompt included, in tokens.
        dropout: Dropout while training.
    """

    vocab_size: int
    num_layers: int
    d_model: int
    d_inner: int
    num_heads: int
    max_length: int
    dropout: float = 0.1

    @classmethod
    def from_nemo(cls, config: dict[str, Any], vocab_size: int) -> Self:
        """Reads the ``transf_decoder.config_dict`` section of a NeMo model config.

        Raises:
            ValueError: The section asks for a variant that this decoder does not implement.
        """
        supported = {
            "pre_ln": (True,),
            "pre_ln_final_layer_norm": (True, None),
            "hidden_act": ("relu", None),
            "learn_positional_encodings": (False, None),
        }
        for option, values in supported.items():
            if config.get(option) not in values:
                raise ValueError(f"decoder option {option}={config.get(option)!r} is not supported")
        return cls(
            vocab_size=8 * math.ceil(vocab_size / 8),
            num_layers=config["num_layers"],
            d_model=config["hidden_size"],
            d_inner=config["inner_size"],
            num_heads=config["num_attention_heads"],
            max_length=config.get("max_sequence_length", 512),
            dropout=config.get("ffn_dropout", 0.0),
        )


class DecoderCache:
    """Keys and values of a batch that is being decoded.

    Rows are independent: each has its own number of tokens and of encoder frames.

    Attributes:
        self_keys: Per layer, shape (B, num_heads, capacity, head_dim); so `self_values`.
        cross_keys: Per layer, shape (B, num_heads, T, head_dim); so `cross_values`.
        cross_mask: True where a row has an encoder frame, shape (B, 1, 1, T).
        lengths: Tokens held by each row, shape (B,).
    """

    def __init__(
        self,
        cross: list[tuple[Tensor, Tensor]],
        num_states: Tensor,
        capacity: int,
    ) -> None:
        keys, _ = cross[0]
        batch, heads, time, head_dim = keys.shape
        self.cross_keys = [key for key, _ in cross]
        self.cross_values = [value for _, value in cross]
        self.cross_mask = (torch.arange(time, device=keys.device) < num_states[:, None])[:, None, None]
        self.self_keys = [keys.new_zeros(batch, heads, capacity, head_dim) for _ in cross]
        self.self_values = [torch.zeros_like(empty) for empty in self.self_keys]
        self.lengths = torch.zeros(batch, dtype=torch.long, device=keys.device)

    def keep(self, rows: Tensor) -> None:
        """Keeps only the given rows (indices), in the given order; the others' memory is freed."""
        self.cross_mask, self.lengths = self.cross_mask[rows], self.lengths[rows]
        for tensors in (self.cross_keys, self.cross_values, self.self_keys, self.self_values):
            tensors[:] = [tensor[rows] for tensor in tensors]


class TransformerDecoder(nn.Module):
    """Embedding, pre-LN Transformer layers with cross-attention, linear head over the embedding's own weight."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = TokenEmbedding(config)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size)
        self.tie()

    def tie(self) -> None:
        """Makes head and embedding one parameter, as NeMo does whenever it builds or restores a Canary.

        Weights trained apart would come out of NeMo as another model. To be called again after weights are assigned
        instead of copied; the head's win, because NeMo loads them last.
        """
        self.embedding.token_embedding.weight = self.head.weight

    def forward(self, tokens: Tensor, states: Tensor, num_states: Tensor) -> Tensor:
        """Scores whole sequences.

        Args:
            tokens: Token ids, right-padded with anything, shape (B, L).
            states: Encoder states, shape (B, T, d_model).
            num_states: Valid encoder states of each row, shape (B,).

        Returns:
            Logits of the token after each position, shape (B, L, vocab_size).
        """
        batch, length = tokens.shape
        cache = DecoderCache(self.project(states), num_states, capacity=0)
        positions = torch.arange(length, device=tokens.device).expand(batch, length)
        causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        x = self.embedding(tokens, positions)
        for index, layer in enumerate(self._blocks()):
            key, value = layer.first_sub_layer.project(layer.layer_norm_1(x))
            x = layer(x, key, value, causal, cache.cross_keys[index], cache.cross_values[index], cache.cross_mask)
        return self.head(self.final_layer_norm(x))  # type: ignore[no-any-return]

    def project(self, states: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of encoder states (B, T, d_model) for every layer's cross-attention."""
        return [layer.second_sub_layer.project(states) for layer in self._blocks()]

    def _blocks(self) -> Iterator["DecoderLayer"]:
        return cast(Iterator[DecoderLayer], iter(self.layers))

    def step(self, tokens: Tensor, num_tokens: Tensor, cache: DecoderCache) -> Tensor:
        """Appends tokens to every row and scores what follows.

        Args:
            tokens: New token ids, right-padded, shape (B, L): the prompt first, then one at a time.
            num_tokens: Valid new tokens of each row, shape (B,).
            cache: The rows' state; extended in place.

        Returns:
            Logits of the token after each row's last new token, shape (B, vocab_size).
        """
        rows = torch.arange(tokens.shape[0], device=tokens.device)
        positions = cache.lengths[:, None] + torch.arange(tokens.shape[1], device=tokens.device)  # (B, L)
        used = int(positions[:, -1].max()) + 1
        visible = (torch.arange(used, device=tokens.device) <= positions[..., None])[:, None]  # (B, 1, L, used)
        x = self.embedding(tokens, positions)
        for index, layer in enumerate(self._blocks()):
            key, value = layer.first_sub_layer.project(layer.layer_norm_1(x))
            # Index puts of (B, L) put the heads last: (B, L, num_heads, head_dim).
            cache.self_keys[index][rows[:, None], :, positions] = key.transpose(1, 2)
            cache.self_values[index][rows[:, None], :, positions] = value.transpose(1, 2)
            x = layer(
                x,
                cache.self_keys[index][:, :, :used],
                cache.self_values[index][:, :, :used],
                visible,
                cache.cross_keys[index],
                cache.cross_values[index],
                cache.cross_mask,
            )
        cache.lengths = cache.lengths + num_tokens
        return self.head(self.final_layer_norm(x[rows, num_tokens - 1]))  # type: ignore[no-any-return]


class TokenEmbedding(nn.Module):
    """Token plus fixed sinusoidal position, layer norm."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        # Not filled: `TransformerDecoder.tie` puts the head's weight in. (Filling it on the meta device, where weights
        # are only laid out, makes PyTorch import its compiler, which takes longer than loading the model.)
        empty = torch.empty(config.vocab_size, config.d_model)
        self.token_embedding = nn.Embedding.from_pretrained(empty, freeze=False)
        with torch.device("cpu"):  # for the same reason always computed for real
            self.register_buffer("pos_enc", sinusoids(config.max_length, config.d_model))
        self.pos_enc: Tensor
        self.layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Embeds token ids (B, L) at positions (B, L) to (B, L, d_model)."""
        x = self.layer_norm(self.token_embedding(tokens) + self.pos_enc[positions])
        return F.dropout(x, self.dropout, self.training)


def sinusoids(length: int, width: int) -> Tensor:
    """Position table of Vaswani et al. 2017, section 3.5, over sqrt(width) as NeMo stores it: (length, width)."""
    frequency = torch.exp(torch.arange(0.0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(0.0, length)[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1) / math.sqrt(width)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward, each after a layer norm and with a residual."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.layer_norm_1 = nn.LayerNorm(config.d_model)
        self.first_sub_layer = Attention(config)
        self.layer_norm_2 = nn.LayerNorm(config.d_model)
        self.second_sub_layer = Attention(config)
        self.layer_norm_3 = nn.LayerNorm(config.d_model)
        self.third_sub_layer = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        self_key: Tensor,
        self_value: Tensor,
        self_mask: Tensor,
        cross_key: Tensor,
        cross_value: Tensor,
        cross_mask: Tensor,
    ) -> Tensor:
        """One layer over (B, L, d_model); keys, values and masks are ready for attention."""
        x = x + self._drop(self.first_sub_layer(self.layer_norm_1(x), self_key, self_value, self_mask))
        x = x + self._drop(self.second_sub_layer(self.layer_norm_2(x), cross_key, cross_value, cross_mask))
        return x + self._drop(self.third_sub_layer(self.layer_norm_3(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention over given keys and values."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.d_model // config.num_heads
        self.query_net = nn.Linear(config.d_model, config.d_model)
        self.key_net = nn.Linear(config.d_model, config.d_model)
        self.value_net = nn.Linear(config.d_model, config.d_model)
        self.out_projection = nn.Linear(config.d_model, config.d_model)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of (B, T, d_model), each (B, num_heads, T, head_dim)."""
        return self._split(self.key_net(x)), self._split(self.value_net(x))

    def forward(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attends from (B, L, d_model); ``mask`` is True where attention is allowed."""
        context = F.scaled_dot_product_attention(self._split(self.query_net(x)), key, value, attn_mask=mask)
        return self.out_projection(context.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        return x.view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)


class FeedForward(nn.Module):
    """Linear, ReLU, linear."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.dense_in = nn.Linear(config.d_model, config.d_inner)
        self.dense_out = nn.Linear(config.d_inner, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, L, d_model) to the same shape."""
        return self.dense_out(F.relu(self.dense_in(x)))  # type: ignore[no-any-return]
