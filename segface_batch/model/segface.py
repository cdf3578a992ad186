"""SegFace: a face parsing network with one token per class (arXiv 2412.08647), for inference.

A backbone gives four maps; they are fused into one of a quarter of the resolution.  The decoder is Segment Anything's
(arXiv 2304.02643): the class tokens and the fused features, with a positional encoding of random Fourier features,
attend to each other; then every feature is upscaled to 4 x 4 pixels, and a hypernetwork turns each class token into the
weights that give a pixel its logit for that class.

Attributes outside the backbone are named as in the published files (github.com/Kartik-3004/SegFace, commit 9416628),
so that only the backbone's tensors have to be renamed.

B: batch; K: classes; R: side of the image in pixels; N: features, (R/4)^2 of them, row by row; C: width.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segface_batch.catalog import Checkpoint
from segface_batch.model import warp
from segface_batch.model.backbones import BACKBONES, Backbone

# ImageNet's mean and standard deviation of RGB values from 0 to 1, as in torchvision.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

# Sizes of the official decoder; its two widths are the checkpoint's.
HEADS = 8
_DEPTH = 2
_PIXEL_WIDTH = 32

#: A feature becomes 4 x 4 pixels, by two steps of 2 x 2.
_STRIDE = 4

#: The names of the class tokens in the published files, in the order of the class ids.  In CelebAMask-HQ's, left and
#: right are swapped against the class names; only the order counts.
TOKENS: dict[str, tuple[str, ...]] = {
    "CelebAMask-HQ": (
        *("background", "neck", "face", "cloth", "rightear", "leftear", "rightbro", "leftbro", "righteye", "lefteye"),
        *("nose", "innermouth", "lowerlip", "upperlip", "hair", "glass", "hat", "earring", "necklace"),
    ),
    "LaPa": (
        *("background", "face", "leftbro", "rightbro", "lefteye", "righteye", "nose", "upperlip", "innermouth"),
        *("lowerlip", "hair"),
    ),
}
TOKENS["Helen"] = TOKENS["LaPa"]


def normalised(pixels: Tensor) -> Tensor:
    """(B, R, R, 3) uint8 RGB -> (B, 3, R, R) float32, as in training: (x / 255 - mean) / std."""
    # Divisors are tensors on the device: on CUDA torch multiplies by the reciprocal of a Python number, which rounds
    # differently.
    full, mean, std = (
        torch.tensor(values, dtype=torch.float32, device=pixels.device).view(-1, 1, 1)
        for values in ((255.0,), _MEAN, _STD)
    )
    return (pixels.permute(0, 3, 1, 2).contiguous().float() / full - mean) / std


class SegFace(nn.Module):
    """The network of one checkpoint, with random weights; `weights.load` gives the trained one."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        row = BACKBONES[checkpoint.backbone]
        self.aligned = checkpoint.dataset.landmarks == "five"
        self.backbone = Backbone(row, checkpoint.resolution)
        width = checkpoint.width
        self.linear_c = nn.ModuleList(LinearEmbedding(channels, width) for channels in row.channels)
        self.linear_fuse = nn.Conv2d(len(row.channels) * width, width, kernel_size=1, bias=False)
        self.pe_layer = PositionEmbeddingRandom(width)
        self.face_decoder = FaceDecoder(TOKENS[checkpoint.dataset.name], width, checkpoint.mlp_width)

    def forward(self, pixels: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Logits (B, K, R, R) of `normalised` pixels (B, 3, R, R).

        LaPa's checkpoints need `landmarks`, (B, 5, 2) in pixels: the eyes, nose tip and mouth corners, left before
        right as seen in the image.  The others ignore them.
        """
        if not self.aligned:
            return depth_to_space(self._logits(pixels))
        there, back = self._grids(pixels, landmarks)
        return warp.sampled(depth_to_space(self._logits(warp.sampled(pixels, there))), back)

    def classes(self, pixels: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Class ids (B, R, R) uint8: the argmax of `forward`."""
        if self.aligned:
            return self.forward(pixels, landmarks).argmax(dim=1).to(torch.uint8)
        # Before depth_to_space the classes lie side by side in memory: argmax there is several times faster.
        labels = self._logits(pixels).argmax(dim=-1, keepdim=True).to(torch.uint8)
        return depth_to_space(labels).squeeze(1)

    def fuse(self, maps: list[Tensor]) -> Tensor:
        """Four maps (B, C, H, W) -> fused features (B, R/4, R/4, C).

        The paper embeds each map in C channels, upsamples all to the first one's size, concatenates them and fuses the
        4C channels to C by a 1 x 1 convolution.  Upsampling and a linear map per pixel commute, so each map is embedded
        and fused at its own size: the same sum for a third of the work, without the 4C channels.
        """
        embedded = [embed(*pair) for embed, *pair in zip(self.linear_c, maps, self.fuse_weights(), strict=True)]
        return upsampled_sum(embedded).permute(0, 2, 3, 1)

    def fuse_weights(self) -> tuple[Tensor, ...]:
        """The part of `linear_fuse` that applies to each map: matrices (C, C)."""
        # The convolution's input has the deepest map first.
        return self.linear_fuse.weight.flatten(1).chunk(len(self.linear_c), dim=1)[::-1]

    def _logits(self, pixels: Tensor) -> Tensor:
        """(B, R/4, R/4, 2, 2, 2, 2, K); see `depth_to_space`."""
        fused = self.fuse(self.backbone(pixels))
        height, width = fused.shape[1:3]
        return self.face_decoder(fused, self.pe_layer(height, width))

    def _grids(self, pixels: Tensor, landmarks: Tensor | None) -> tuple[Tensor, Tensor]:
        if landmarks is None:
            raise ValueError("this checkpoint straightens faces before parsing: it needs landmarks (B, 5, 2)")
        return warp.grids(landmarks.to(pixels.device), pixels.shape[-1])


def upsampled_sum(maps: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, H, W) of several sizes -> their sum at the size of the first one, the largest."""
    first, *others = maps
    size = first.shape[2:]
    for number, features in enumerate(others):
        if features.shape[2:] != size:
            features = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
        first = first.add_(features) if number else first + features
    return first


def depth_to_space(values: Tensor) -> Tensor:
    """(B, H, W, 2, 2, 2, 2, K) -> (B, K, 4H, 4W): each feature's two upscalings, as (row, column), become pixels."""
    batch, height, width, *_, k = values.shape
    values = values.permute(0, 7, 1, 3, 5, 2, 4, 6)  # B, K, H, 2, 2, W, 2, 2
    return values.reshape(batch, k, _STRIDE * height, _STRIDE * width)


class LinearEmbedding(nn.Module):
    """One backbone map in the width of the decoder, and its part of the fusion (`MLP` in SegFace and SegFormer,
    although it is one linear layer)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, width)

    def forward(self, features: Tensor, fuse: Tensor) -> Tensor:
        """(B, C', H, W) and one of `SegFace.fuse_weights` (C, C) -> (B, C, H, W), by one product."""
        return F.linear(features.permute(0, 2, 3, 1), *self.as_linear(fuse)).permute(0, 3, 1, 2)

    def as_linear(self, fuse: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (C, C') and bias (C,) of embedding and fusion as one linear layer."""
        return fuse @ self.proj.weight, fuse @ self.proj.bias


class PositionEmbeddingRandom(nn.Module):
    """Positional encoding by random Fourier features (Segment Anything's class of that name)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, width // 2))

    def forward(self, height: int, width: int) -> Tensor:
        """(H, W, C): sines, then cosines, for the middle of every feature."""
        matrix = self.positional_encoding_gaussian_matrix
        y, x = (
            (torch.arange(side, device=matrix.device, dtype=matrix.dtype) + 0.5) / side * 2 - 1
            for side in (height, width)
        )
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        angles = 2 * math.pi * (points @ matrix)
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class FaceDecoder(nn.Module):
    """Fused features and their positional encoding -> the logits of every pixel."""

    def __init__(self, tokens: tuple[str, ...], width: int, mlp_width: int) -> None:
        super().__init__()
        self.token_names = tuple(f"{name}_token" for name in tokens)
        for name in self.token_names:
            self.add_module(name, nn.Embedding(1, width))
        self.transformer = TwoWayTransformer(width, mlp_width)
        self.output_upscaling = nn.Sequential(
            ConvTranspose2x2(width, 2 * _PIXEL_WIDTH),
            nn.LayerNorm(2 * _PIXEL_WIDTH, eps=1e-6),  # Segment Anything's LayerNorm2d
            nn.GELU(),
            ConvTranspose2x2(2 * _PIXEL_WIDTH, _PIXEL_WIDTH),
            nn.GELU(),
        )
        self.output_hypernetwork_mlps = HypernetworkMLP(width)

    def forward(self, fused: Tensor, image_pe: Tensor) -> Tensor:
        """(B, H, W, C) and (H, W, C) -> (B, H, W, 2, 2, 2, 2, K); see `depth_to_space`."""
        tokens, features = self.transformer(self.class_tokens(), fused.flatten(1, 2), image_pe.flatten(0, 1))
        pixels = self.output_upscaling(features)  # B, N, 2, 2, 2, 2, 32
        hyper = self.output_hypernetwork_mlps(tokens)  # B, K, 32
        logits = pixels.flatten(1, -2) @ hyper.transpose(1, 2)
        return logits.unflatten(1, (*fused.shape[1:3], 2, 2, 2, 2))

    def class_tokens(self) -> Tensor:
        """(K, C), in the order of the class ids."""
        return torch.cat([self.get_parameter(f"{name}.weight") for name in self.token_names])


class TwoWayTransformer(nn.Module):
    """Class tokens and image features attend to each other, as in Segment Anything."""

    def __init__(self, width: int, mlp_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayAttentionBlock(width, mlp_width, first=depth == 0) for depth in range(_DEPTH))
        self.final_attn_token_to_image = Attention(width, width // 2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, class_tokens: Tensor, features: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        """(K, C), (B, N, C), (N, C) -> tokens (B, K, C) and features (B, N, C)."""
        tokens = class_tokens.expand(len(features), -1, -1)
        for layer in self.layers:
            tokens, features = layer(tokens, features, class_tokens, image_pe)
        tokens = tokens + self.final_attn_token_to_image(tokens + class_tokens, features + image_pe, features)
        return self.norm_final_attn(tokens), features


class TwoWayAttentionBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP on tokens, image to tokens.  The class tokens are their own
    positional encoding."""

    def __init__(self, width: int, mlp_width: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, width // 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(lin1=nn.Linear(width, mlp_width), act=nn.ReLU(), lin2=nn.Linear(mlp_width, width))
        )
        self.norm3 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, width // 2)
        self.norm4 = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, features: Tensor, class_tokens: Tensor, image_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, K, C), (B, N, C), (K, C), (N, C) -> tokens (B, K, C) and features (B, N, C)."""
        tokens = self.self_attention(tokens, class_tokens)
        encoded = features + image_pe
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + class_tokens, encoded, features))
        tokens = self.norm3(tokens + self.mlp(tokens))
        features = self.norm4(features + self.cross_attn_image_to_token(encoded, tokens + class_tokens, tokens))
        return tokens, features

    def self_attention(self, tokens: Tensor, class_tokens: Tensor) -> Tensor:
        """(B, K, C) -> the same after self-attention, residual and norm."""
        if self.first:
            return self.norm1(self.self_attn(tokens, tokens, tokens))
        encoded = tokens + class_tokens
        return self.norm1(tokens + self.self_attn(encoded, encoded, tokens))


class Attention(nn.Module):
    """Multi-head attention, whose inner width may be smaller (Segment Anything's)."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, inner_width)
        self.k_proj = nn.Linear(width, inner_width)
        self.v_proj = nn.Linear(width, inner_width)
        self.out_proj = nn.Linear(inner_width, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, Q, C), (B, S, C), (B, S, C) -> (B, Q, C)."""
        q, k, v = map(split_heads, (self.q_proj(queries), self.k_proj(keys), self.v_proj(values)))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def split_heads(values: Tensor) -> Tensor:
    """(B, S, width) -> (B, heads, S, width of a head)."""
    return values.unflatten(-1, (HEADS, -1)).transpose(1, 2)


class ConvTranspose2x2(nn.ConvTranspose2d):
    """A transposed convolution whose kernel is its stride: every feature becomes 2 x 2, independent of its neighbours.

    So it is a linear layer on each feature, and the results are put in their places at the end, by `depth_to_space`.
    """

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__(width, out_width, kernel_size=2, stride=2)

    def forward(self, features: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(..., C) -> (..., 2, 2, C'): rows, then columns."""
        return F.linear(features, *self.as_linear()).unflatten(-1, (2, 2, -1))

    def as_linear(self) -> tuple[Tensor, Tensor]:
        """Weight (4 C', C) and bias (4 C',) of that linear layer."""
        assert self.bias is not None
        return self.weight.permute(2, 3, 1, 0).flatten(0, 2), self.bias.repeat(4)


class HypernetworkMLP(nn.Module):
    """Class tokens (B, K, C) -> the weights (B, K, 32) of each class's logit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, _PIXEL_WIDTH)))

    def forward(self, tokens: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(tokens)))))
