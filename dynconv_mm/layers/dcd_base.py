"""What DCD's convolution and classifier share: the dynamic branch, and the fusion of latent channels by Φ(x).

Revisiting Dynamic Convolution via Matrix Decomposition (Li et al., ICLR 2021, https://arxiv.org/abs/2103.08756).
"""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..functional.attention import normalize_hidden
from ..functional.operator import check_dtype
from ..functional.sample_conv import sample_conv2d
from .attention_norm import build_attention_norm

torch.fx.wrap('sample_conv2d')


class StaticMatrix(nn.Module):
    """A matrix or kernel that does not depend on the input: W₀, P, Q, R, or an FC without bias.

    It is no ``Conv2d`` or ``Linear`` by class, so that ``init_cfg=dict(layer=['Conv2d', 'Linear'])`` of a parent
    leaves it alone. Called, it is the FC or the convolution, and without features the weight itself.

    Args:
        *shape (int): of the weight, output channels first.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self._is_matrix = len(shape) == 2
        self.init_weights()

    def init_weights(self) -> None:
        """As torch initialises an FC; kernels Kaiming-normal by fan-out."""
        if self._is_matrix:
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        else:
            nn.init.kaiming_normal_(self.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x: Tensor | None = None, bias: Tensor | None = None, **geometry) -> Tensor:
        if x is None:
            return self.weight
        check_dtype(x, self.weight)
        return F.linear(x, self.weight, bias) if self._is_matrix else F.conv2d(x, self.weight, bias, **geometry)

    def extra_repr(self) -> str:
        return ', '.join(map(str, self.weight.shape))


class SelfGate(nn.Module):
    """z · hsig(FC(z)), the non-linearity of the released build's dynamic branch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(StaticMatrix(channels, channels))

    def forward(self, z: Tensor) -> Tensor:
        return z * hard_sigmoid(self.fc(z))


def hard_sigmoid(z: Tensor) -> Tensor:
    """DCD's hsig: from 0 to 2, and 1 at 0."""
    return F.relu6(z + 3) / 3  # the gradient of F.hardsigmoid has the precision of float32 in float64 too


class DCDBase(nn.Module):
    """Base of DCD's layers: Λ(x) and Φ(x) from pooled features, and what Φ does to latent channels.

    Modules and their names are the released code's: ``fc``, ``fc_scale`` (Λ), ``fc_phi`` (Φ), ``bn1``, ``bn2``,
    and Q and P under a prefix that differs from layer to layer.
    """

    def _init_fusion(self, pooled_features: int, hidden_channels: int, out_channels: int, latent_channels: int, *,
                     taps: int = 1, blocks: int = 1, channel_attention: bool = True, norm_cfg: dict | None = None,
                     gate: bool = True) -> None:
        """Build the dynamic branch.

        Args:
            pooled_features (int): values of a sample that the branch sees.
            hidden_channels (int): s, the width behind the first FC.
            out_channels (int): size of the diagonal of Λ.
            latent_channels (int): L; 0 is no Φ.
            taps (int): L_k, latent kernel elements that Φ fuses with the channels (Eq. 9).
            blocks (int): B, diagonal blocks of the residual (Eq. 7).
            channel_attention (bool): whether there is Λ.
            norm_cfg (dict, optional): of the norms around Φ, which also give it a shortcut (released build).
            gate (bool): the non-linearity is a :class:`SelfGate` (released build), else ReLU.
        """
        self.latent_channels = latent_channels
        self.blocks = blocks
        self.fc = self.fc_scale = self.fc_phi = self.bn1 = self.bn2 = None
        if channel_attention or latent_channels:
            self.fc = nn.Sequential(StaticMatrix(hidden_channels, pooled_features),
                                    SelfGate(hidden_channels) if gate else nn.ReLU())
        if channel_attention:
            self.fc_scale = StaticMatrix(out_channels, hidden_channels)
        if latent_channels:
            self.fc_phi = StaticMatrix(blocks * latent_channels * latent_channels * taps, hidden_channels)
            if norm_cfg is not None:
                self.bn1 = build_attention_norm(norm_cfg, blocks * latent_channels, maps=True)
                self.bn2 = build_attention_norm(norm_cfg, blocks * latent_channels, maps=True)

    def _init_matrices(self) -> None:
        """Initialise all matrices anew."""
        for module in self.modules():
            if isinstance(module, StaticMatrix):
                module.init_weights()

    def static_matrix(self) -> nn.Module:
        """What holds W₀."""
        raise NotImplementedError

    def expansion(self) -> StaticMatrix | None:
        """What holds P; None without a residual."""
        raise NotImplementedError

    def neutralize_attention(self) -> float:
        """Let W(x) be W₀ for every input, and yet all parts learn.

        Λ is 1, as the FC before hsig is 0; P is 0, so that there is no residual. Φ and Q stay as they are: with Φ = 0
        the shortcut past it would leave PQᵀ, and Q = 0 would give batch norm a constant, whose gradients it blows up.

        Returns:
            float: 1, as of :meth:`MixtureConv2d.neutralize_attention`.
        """
        for matrix in (self.fc_scale, self.expansion()):
            if matrix is not None:
                nn.init.zeros_(matrix.weight)
        return 1.

    def _coefficients(self, pooled: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The diagonal of Λ, Tensor[batch, out_channels], and Φ, Tensor[batch, blocks, L, L·taps], of pooled
        features Tensor[batch, pooled_features]."""
        if self.fc is None:
            return None, None
        hidden = self.fc(pooled)
        scale = None if self.fc_scale is None else hard_sigmoid(self.fc_scale(hidden))
        if self.fc_phi is None:
            return scale, None
        return scale, self.fc_phi(hidden).unflatten(1, (self.blocks, self.latent_channels, -1))

    def _fuse(self, latent: Tensor, phi: Tensor) -> Tensor:
        """Φ Qᵀx of Qᵀx, one product a sample of the few latent channels.

        Args:
            latent (Tensor[batch, blocks·L·taps, height, width]): Qᵀx.
            phi (Tensor[batch, blocks, L, L·taps]): Φ.

        Returns:
            Tensor[batch, blocks·L, height, width]
        """
        if self.bn1 is not None:
            latent = normalize_hidden(self.bn1, latent)
        fused = sample_conv2d(latent, phi.flatten(1, 2)[..., None, None], groups=self.blocks)
        return fused if self.bn2 is None else normalize_hidden(self.bn2, fused) + latent
