"""The FastConformer encoder: log-mel features in, one vector per 80 ms out.

Written from the architecture of Rekesh et al. 2023 (arXiv 2305.05084) with the module names of NeMo's
``ConformerEncoder``, so that NeMo state dicts load without renaming. Relative positions after
Dai et al. 2019 (arXiv 1901.02860), section 3.3.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SUBSAMPLING_KERNEL = 3
_SUBSAMPLING_STRIDE = 2
_MAX_WAVELENGTH = 10_000.0


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Dimensions of a FastConformer encoder.

    Attributes:
        num_mels: Bands of the input features.
        num_layers: Conformer blocks.
        d_model: Width of the blocks.
        num_heads: Attention heads.
        ff_expansion: Inner width of the feed-forward modules over ``d_model``.
        conv_kernel: Kernel of the depthwise convolution, in encoder frames.
        subsampling_factor: Input frames per output frame, a power of two.
        subsampling_channels: Channels of the subsampling convolutions.
        use_bias: Whether linear and convolution layers of the blocks have biases.
        scale_input: Whether block input is multiplied by sqrt(d_model).
        dropout: Dropout while training.
    """

    num_mels: int
    num_layers: int
    d_model: int
    num_heads: int
    ff_expansion: int = 4
    conv_kernel: int = 9
    subsampling_factor: int = 8
    subsampling_channels: int = 256
    use_bias: bool = True
    scale_input: bool = False
    dropout: float = 0.1

    @classmethod
    def from_nemo(cls, config: dict[str, Any]) -> Self:
        """Reads the ``encoder`` section of a NeMo model config.

        Raises:
            ValueError: The section asks for a variant that this encoder does not implement.
        """
        _refuse_unsupported(config)
        channels = config.get("subsampling_conv_channels", -1)
        return cls(
            num_mels=config["feat_in"],
            num_layers=config["n_layers"],
            d_model=config["d_model"],
            num_heads=config["n_heads"],
            ff_expansion=config.get("ff_expansion_factor", 4),
            conv_kernel=config["conv_kernel_size"],
            subsampling_factor=config["subsampling_factor"],
            subsampling_channels=config["d_model"] if channels == -1 else channels,
            use_bias=config.get("use_bias", True),
            scale_input=config.get("xscaling", True),
            dropout=config.get("dropout", 0.1),
        )


# The one value of each NeMo encoder option that is implemented (missing means NeMo's default).
_SUPPORTED = {
    "subsampling": ("dw_striding",),
    "self_attention_model": ("rel_pos", None),
    "conv_norm_type": ("batch_norm", None),
    "untie_biases": (True, None),
    "causal_downsampling": (False, None),
    "conv_context_size": (None,),
    "att_context_style": ("regular", None),
    "reduction": (None,),
    "feat_out": (-1, None),
}


def _refuse_unsupported(config: dict[str, Any]) -> None:
    for option, values in _SUPPORTED.items():
        if config.get(option) not in values:
            raise ValueError(f"encoder option {option}={config.get(option)!r} is not supported")
    context = config.get("att_context_size")
    if context is not None and list(context) != [-1, -1]:
        raise ValueError(f"encoder option att_context_size={context!r} is not supported")


class FastConformer(nn.Module):
    """FastConformer encoder with full-context relative-position attention."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.pre_encode = Subsampling(config)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_layers))

    def forward(self, features: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes features.

        Args:
            features: Shape (B, num_mels, T), zero beyond each row's end.
            num_frames: Valid frames of each row, shape (B,).

        Returns:
            States, shape (B, ceil(T / subsampling_factor), d_model), and the valid number of them per
            row, shape (B,). States beyond a row's end are undefined.
        """
        x, lengths = self.pre_encode(features.transpose(1, 2), num_frames)
        if self.config.scale_input:
            x = x * math.sqrt(self.config.d_model)
        x = F.dropout(x, self.config.dropout, self.training)
        valid = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # (B, T)
        positions = relative_positions(x.shape[1], self.config.d_model, x.device).to(x.dtype)
        for layer in self.layers:
            x = layer(x, positions, valid)
        return x, lengths


class Subsampling(nn.Module):
    """Strided depthwise-separable convolutions over time and frequency, then a projection."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        channels = config.subsampling_channels
        num_stages = int(math.log2(config.subsampling_factor))
        stride: dict[str, Any] = {"kernel_size": _SUBSAMPLING_KERNEL, "stride": _SUBSAMPLING_STRIDE, "padding": 1}
        stages: list[nn.Module] = [nn.Conv2d(1, channels, **stride), nn.ReLU(inplace=True)]
        for _ in range(num_stages - 1):
            stages += [
                nn.Conv2d(channels, channels, groups=channels, **stride),
                nn.Conv2d(channels, channels, kernel_size=1),
                nn.ReLU(inplace=True),
            ]
        self.conv = nn.Sequential(*stages)
        bands = config.num_mels
        for _ in range(num_stages):
            bands = (bands - 1) // _SUBSAMPLING_STRIDE + 1
        self.out = nn.Linear(channels * bands, config.d_model)

    def forward(self, features: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Subsamples (B, T, num_mels) to (B, T / factor, d_model), masking padding at every stage.

        Without the masks a clip's last frames would depend on how far its batch is padded.
        """
        x, lengths = features.unsqueeze(1), num_frames  # (B, 1, T, F)
        mask = _frame_mask(x, lengths)
        for layer in self.conv:
            x = layer(x * mask)
            if isinstance(layer, nn.Conv2d) and layer.stride[0] > 1:
                lengths = (lengths - 1) // _SUBSAMPLING_STRIDE + 1
                mask = _frame_mask(x, lengths)
        x = x * mask
        batch, _, time, _ = x.shape
        return self.out(x.transpose(1, 2).reshape(batch, time, -1)), lengths


def _frame_mask(x: Tensor, lengths: Tensor) -> Tensor:
    """1 for valid frames and 0 for padding, broadcastable to (B, C, T, F)."""
    valid = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
    return valid[:, None, :, None].to(x.dtype)


def relative_positions(num_frames: int, d_model: int, device: torch.device) -> Tensor:
    """Sinusoids for the distances num_frames - 1 down to -(num_frames - 1), shape (2T - 1, d_model)."""
    distance = torch.arange(num_frames - 1, -num_frames, -1, dtype=torch.float32, device=device)
    frequency = torch.exp(
        torch.arange(0, d_model, 2, dtype=torch.float32, device=device) * -(math.log(_MAX_WAVELENGTH) / d_model)
    )
    angle = distance[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


class ConformerLayer(nn.Module):
    """Half feed-forward, self-attention, convolution, half feed-forward, layer norm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.norm_feed_forward1 = nn.LayerNorm(config.d_model)
        self.feed_forward1 = FeedForward(config)
        self.norm_self_att = nn.LayerNorm(config.d_model)
        self.self_attn = RelativeAttention(config)
        self.norm_conv = nn.LayerNorm(config.d_model)
        self.conv = ConvolutionModule(config)
        self.norm_feed_forward2 = nn.LayerNorm(config.d_model)
        self.feed_forward2 = FeedForward(config)
        self.norm_out = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor) -> Tensor:
        """One block over (B, T, d_model); ``valid`` is (B, T)."""
        x = x + 0.5 * self._drop(self.feed_forward1(self.norm_feed_forward1(x)))
        x = x + self._drop(self.self_attn(self.norm_self_att(x), positions, valid))
        x = x + self._drop(self.conv(self.norm_conv(x), valid))
        x = x + 0.5 * self._drop(self.feed_forward2(self.norm_feed_forward2(x)))
        return self.norm_out(x)  # type: ignore[no-any-return]

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class FeedForward(nn.Module):
    """Linear, Swish, linear."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        inner = config.d_model * config.ff_expansion
        self.dropout = config.dropout
        self.linear1 = nn.Linear(config.d_model, inner, bias=config.use_bias)
        self.linear2 = nn.Linear(inner, config.d_model, bias=config.use_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, d_model) to the same shape."""
        return self.linear2(F.dropout(F.silu(self.linear1(x)), self.dropout, self.training))  # type: ignore[no-any-return]


class RelativeAttention(nn.Module):
    """Multi-head self-attention with Transformer-XL relative positions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width, bias = config.d_model, config.use_bias
        self.num_heads, self.head_dim = config.num_heads, width // config.num_heads
        self.linear_q = nn.Linear(width, width, bias=bias)
        self.linear_k = nn.Linear(width, width, bias=bias)
        self.linear_v = nn.Linear(width, width, bias=bias)
        self.linear_out = nn.Linear(width, width, bias=bias)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))
        self.pos_bias_v = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor) -> Tensor:
        """Attends over the valid frames of (B, T, d_model)."""
        batch, time, _ = x.shape
        query, key, value = (
            linear(x).view(batch, time, self.num_heads, self.head_dim)
            for linear in (self.linear_q, self.linear_k, self.linear_v)
        )
        distance = self.linear_pos(positions).view(-1, self.num_heads, self.head_dim)  # (2T - 1, H, D)
        by_distance = torch.einsum("bthd,phd->bhtp", query + self.pos_bias_v, distance)
        scores = _shift_to_keys(by_distance) / math.sqrt(self.head_dim)
        scores = scores.masked_fill(~valid[:, None, None, :], -10_000.0)
        context = F.scaled_dot_product_attention(
            (query + self.pos_bias_u).transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=scores,
        )
        return self.linear_out(context.transpose(1, 2).reshape(batch, time, -1))  # type: ignore[no-any-return]


def _shift_to_keys(scores: Tensor) -> Tensor:
    """Reindexes scores by distance, (B, H, T, 2T - 1), to scores by key, (B, H, T, T).

    Row i holds distances T-1 .. -(T-1); key j of query i lies at distance i - j, column T - 1 - i + j.
    A padded view does this without a gather (appendix B of arXiv 1901.02860).
    """
    batch, heads, time, columns = scores.shape
    padded = F.pad(scores, (1, 0)).view(batch, heads, columns + 1, time)
    return padded[:, :, 1:].reshape(batch, heads, time, columns)[..., :time]


class ConvolutionModule(nn.Module):
    """Pointwise GLU, depthwise convolution, batch norm, Swish, pointwise."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width, kernel, bias = config.d_model, config.conv_kernel, config.use_bias
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1, bias=bias)
        self.depthwise_conv = nn.Conv1d(width, width, kernel, padding=(kernel - 1) // 2, groups=width, bias=bias)
        self.batch_norm = nn.BatchNorm1d(width)
        self.pointwise_conv2 = nn.Conv1d(width, width, 1, bias=bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Convolves (B, T, d_model) over time, padding masked."""
        x = F.glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1)
        x = x.masked_fill(~valid[:, None, :], 0.0)
        x = F.silu(self.batch_norm(self.depthwise_conv(x)))
        return self.pointwise_conv2(x).transpose(1, 2)  # type: ignore[no-any-return]
