"""Stand-alone self-attention (Ramachandran et al., NeurIPS 2019, https://arxiv.org/abs/1906.05909)."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..compat.openmmlab import MODELS
from ..functional.involution import involution2d
from ..functional.local_attention import neighbour_products
from .conv_arguments import check_divisor, check_positive_int
from .involution import PositionKernelConv2d
from .static_conv import StaticConv2d

torch.fx.wrap('involution2d')
torch.fx.wrap('neighbour_products')


class RelativeEmbedding(nn.Module):
    """r: what relative rows and columns add to the logits of queries, and its parameters.

    Args:
        heads (int): groups of channels.
        channels (int): of a head, an even number: half for rows, half for columns.
        kernel_size (tuple[int, int]): of the window.

    Shape:
        input Tensor[batch, heads · channels, height, width],
        output Tensor[batch, heads, kernel_height, kernel_width, height, width]
    """

    def __init__(self, heads: int, channels: int, kernel_size: tuple[int, int]) -> None:
        super().__init__()
        self.rows, self.columns = (nn.Parameter(torch.empty(heads, channels // 2, size)) for size in kernel_size)
        self.init_weights()

    def init_weights(self) -> None:
        """Normal, divided by the fourth root of a head's channels."""
        for embedding in (self.rows, self.columns):
            nn.init.normal_(embedding, std=(2 * embedding.shape[1])**-0.25)

    def forward(self, query: Tensor) -> Tensor:
        by_row, by_column = query.unflatten(1, (self.rows.shape[0], 2, -1)).unbind(2)
        return torch.einsum('bnchw,nck->bnkhw', by_row, self.rows)[:, :, :, None] \
            + torch.einsum('bnchw,nck->bnkhw', by_column, self.columns)[:, :, None]


@MODELS.register_module()
class StandAloneSelfAttention2d(PositionKernelConv2d):
    r"""Values added up by the attention of a position to its neighbours (Stand-alone self-attention, Eq. 3).

    .. math:: y_i = \sum_{j \in R(i)} \mathrm{softmax}_j(q_i^⊤ k_j + q_i^⊤ r_{j - i}) \, v_j

    q, k, v are 1×1 convolutions without bias, of all channels: the text has one for each head's part alone, but the
    1.3M that k has by the paper's Table 6 are those of all. Each head has a part of the channels. r has an embedding of
    the relative row in the first half of a head's channels and one of the relative column in the others. Beyond the
    map's edge are zeros. At stride s > 1, the result is averaged over s×s, as in the paper; those at the edge over the
    pixels that there are.

    Args:
        in_channels, out_channels (int): C, both the same; a multiple of 2 · ``heads``.
        kernel_size (int | tuple[int, int]): odd. Default: 7.
        stride, dilation, bias, device, dtype: as in :class:`torch.nn.Conv2d`; ``bias`` is added to the result
            and is not in the paper.
        padding (int | tuple[int, int] | str, optional): dilation · (kernel_size − 1) / 2, which is the default.
        groups (int): 1.
        padding_mode (str): 'zeros', 'reflect', 'replicate' or 'circular'. Default: 'zeros'.
        heads (int): groups of channels with an attention of their own. Default: 8.

    Shape:
        input Tensor[batch, C, height, width], output Tensor[batch, C, ⌈height / stride⌉, ⌈width / stride⌉]

    Raises:
        ValueError: an argument is not one of the above; the message names it and what it accepts.

    Example:
        >>> StandAloneSelfAttention2d(32, 32, 7, stride=2, bias=False)(torch.randn(2, 32, 15, 14)).shape
        torch.Size([2, 32, 8, 7])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int] = 7,
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] | None = None,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None, heads: int = 8) -> None:
        super().__init__()
        self._init_size_keeping_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                          padding_mode)
        check_positive_int('heads', heads)
        if in_channels % (2 * heads):
            raise ValueError(f'heads must leave each an even number of in_channels={in_channels}, but is {heads}')
        self.heads = heads
        self._init_bias(bias)
        self.query, self.key, self.value = (StaticConv2d(in_channels, in_channels, 1, bias=False) for _ in range(3))
        self.embedding = RelativeEmbedding(heads, in_channels // heads, self.kernel_size)
        self.pool = self._make_stride_pool()
        self.init_weights()
        self._place(device, dtype)

    def init_weights(self) -> None:
        """Normal, so that q, k and v have the variance of what they are computed from and, but for k and r, which are
        divided by the fourth root of a head's channels, softmax is not saturated; bias 0."""
        channels = self.in_channels // self.heads
        for conv, gain in ((self.query, channels**-0.25), (self.key, channels**-0.25), (self.value, 1.)):
            nn.init.normal_(conv.weight, std=gain * self.in_channels**-0.5)
        self.embedding.init_weights()
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def compute_kernels(self, x: Tensor) -> Tensor:
        """The attention of features, which adds up to 1 over a window; of every position, whatever the stride.

        Args:
            x (Tensor[batch, C, height, width]): features.

        Returns:
            Tensor[batch, heads, kernel_height, kernel_width, height, width]
        """
        query, (key, padding) = self.query(x), self._pad(self.key(x))
        logits = neighbour_products(query, key, self.heads, self.kernel_size, stride=(1, 1), padding=padding,
                                    dilation=self.dilation).unflatten(2, self.kernel_size)
        return (logits + self.embedding(query)).flatten(2, 3).softmax(2).unflatten(2, self.kernel_size)

    def compute_values(self, x: Tensor) -> Tensor:
        """v, Tensor[batch, C, height, width]."""
        return self.value(x)

    def aggregate(self, values: Tensor, kernels: Tensor, padding: tuple[int, int]) -> Tensor:
        """Their sums, averaged over the stride."""
        return self.pool(involution2d(values, kernels, padding=padding, dilation=self.dilation))

    def attention_modules(self) -> list[nn.Module]:
        """All but the values."""
        return [self.query, self.key, self.embedding]

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, heads={self.heads}'


class AttentionStem(nn.Module):
    r"""Self-attention within blocks of the image, with values that know where they stand (Stand-alone self-attention,
    Section 3.2 and Eq. 8 and 9), in place of ResNet's first convolution.

    .. math:: v_j = \sum_m \mathrm{softmax}_m((r_{row(j)} + c_{col(j)})^⊤ ν_m) \, W_m x_j

    Rows and columns are counted in a block, which does not overlap with others. A map whose size is no multiple of a
    block's is continued by its edge.

    Args:
        in_channels (int): channels of the image.
        out_channels (int): a multiple of ``heads``.
        block_size (int): height and width of the blocks. Default: 4.
        heads (int): groups of channels with an attention of their own; all share the mixture. Default: 4 (A.1).
        mixtures (int): m, matrices of the values, on whose number the paper is silent. Default: 4.

    Shape:
        input Tensor[batch, in_channels, height, width], output Tensor[batch, out_channels, height, width], both sizes
        rounded up to a multiple of ``block_size``

    Raises:
        ValueError: an argument is not one of the above.
    """

    def __init__(self, in_channels: int, out_channels: int, block_size: int = 4, heads: int = 4,
                 mixtures: int = 4) -> None:
        super().__init__()
        for name, value in (('in_channels', in_channels), ('out_channels', out_channels), ('block_size', block_size),
                            ('mixtures', mixtures)):
            check_positive_int(name, value)
        check_divisor('heads', heads, 'out_channels', out_channels)
        self.out_channels = out_channels
        self.block_size = block_size
        self.heads = heads
        self.mixtures = mixtures
        self.query, self.key = (StaticConv2d(in_channels, out_channels, 1, bias=False) for _ in range(2))
        self.value = StaticConv2d(in_channels, mixtures * out_channels, 1, bias=False)
        self.rows, self.columns = (nn.Parameter(torch.empty(out_channels, block_size)) for _ in range(2))
        self.mixing = nn.Parameter(torch.empty(mixtures, out_channels))
        self.init_weights()

    def init_weights(self) -> None:
        """Kaiming-normal by fan-in; embeddings normal, with a variance of their products of about 1."""
        for conv in (self.query, self.key, self.value):
            nn.init.kaiming_normal_(conv.weight, nonlinearity='linear')
        for embedding in (self.rows, self.columns, self.mixing):
            nn.init.normal_(embedding, std=self.out_channels**-0.25)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, -x.shape[3] % self.block_size, 0, -x.shape[2] % self.block_size), mode='replicate')
        query, key, value = (self._blocks(conv(x)) for conv in (self.query, self.key, self.value))
        places = (self.rows[:, :, None] + self.columns[:, None]).flatten(1)
        mixture = (self.mixing @ places).softmax(0)
        value = (value.unflatten(3, (self.mixtures, -1)) * mixture[:, None].to(value.dtype)).sum(3)
        query, key, value = (part.unflatten(3, (self.heads, -1)) for part in (query, key, value))
        attention = (query.transpose(4, 5) @ key).softmax(5)
        y = (value @ attention.transpose(4, 5)).flatten(3, 4).unflatten(4, (self.block_size, self.block_size))
        # by sizes: behind two `unflatten`s and a `flatten`, an ONNX exporter takes the map's size for a constant
        return y.permute(0, 3, 1, 4, 2, 5).reshape(x.shape[0], self.out_channels, *x.shape[2:])

    def _blocks(self, x: Tensor) -> Tensor:
        """As Tensor[batch, rows of blocks, columns of blocks, channels, elements of a block]."""
        x = x.unflatten(3, (-1, self.block_size)).unflatten(2, (-1, self.block_size))
        return x.permute(0, 2, 4, 1, 3, 5).flatten(4)

    def attention_modules(self) -> list[nn.Module]:
        """Queries and keys."""
        return [self.query, self.key]
