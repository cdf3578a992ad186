"""SegFace: a face parsing network with one token per class (arXiv 2412.08647), for inference.

A backbone gives four maps; they are fused into one of a quarter of the resolution.  The decoder is Segment Anything's
(arXiv 2304.02643): the class tokens and the fused features, which know their place by a Fourier code, attend to each
other; then every feature is unfolded into 4 x 4 pixels, and a small MLP turns each class token into the weights that
score a pixel for that class.

Modules outside the backbone carry the names of the published files (github.com/Kartik-3004/SegFace, commit 9416628),
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

# ImageNet's mean and standard deviation of RGB values from 0 to 1, the usual ones of torchvision.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

# Sizes of the official decoder; its two widths are the checkpoint's.
HEADS = 8
_DEPTH = 2
_PIXEL_WIDTH = 32

#: A feature becomes 4 x 4 pixels, by two steps of 2 x 2.
_STRIDE = 4

#: The names of the class tokens in the published files, in the order of the class ids.  In CelebAMask-HQ they have left
#: and right the other way round than the class names; the order is what counts.
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
    """(B, R, R, 3) uint8 RGB -> (B, 3, R, R) float32, as the networks were trained: (x / 255 - mean) / std."""
    # Divisors are tensors on the device: torch multiplies by the reciprocal of a Python number on CUDA, and rounds
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
        self.linear_c = nn.ModuleList(Projection(channels, width) for channels in row.channels)
        self.linear_fuse = nn.Conv2d(len(row.channels) * width, width, kernel_size=1, bias=False)
        self.pe_layer = PositionCode(width)
        self.face_decoder = FaceDecoder(TOKENS[checkpoint.dataset.name], width, checkpoint.mlp_width)

    def forward(self, pixels: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Logits (B, K, R, R) of `normalised` pixels (B, 3, R, R).

        LaPa's checkpoints need `landmarks`, (B, 5, 2) in pixels: the eyes, nose tip and mouth corners, left before
        right as seen in the image.  The others ignore them.
        """
        if not self.aligned:
            return unfolded(self._scores(pixels))
        there, back = self._grids(pixels, landmarks)
        return warp.sampled(unfolded(self._scores(warp.sampled(pixels, there))), back)

    def classes(self, pixels: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Class ids (B, R, R) uint8: the argmax of `forward`."""
        if self.aligned:
            return self.forward(pixels, landmarks).argmax(dim=1).to(torch.uint8)
        # Before unfolding, the classes lie side by side in memory: argmax there is several times faster.
        labels = self._scores(pixels).argmax(dim=-1, keepdim=True).to(torch.uint8)
        return unfolded(labels).squeeze(1)

    def fuse(self, maps: list[Tensor]) -> Tensor:
        """Four maps (B, C, H, W) -> fused features (B, R/4, R/4, C).

        The paper projects each map to C, enlarges all to the first one's size and mixes the joined 4C channels down to
        C.  A product per pixel and an enlargement may change places, so each map is projected and mixed at its own
        size: the same sum for a third of the work and without the joined channels.
        """
        mixed = [project(*pair) for project, *pair in zip(self.linear_c, maps, self.mixes(), strict=True)]
        return enlarged_sum(mixed).permute(0, 2, 3, 1)

    def mixes(self) -> tuple[Tensor, ...]:
        """What the fusion makes of each projected map: matrices (C, C)."""
        # The deepest map comes first.
        return self.linear_fuse.weight.flatten(1).chunk(len(self.linear_c), dim=1)[::-1]

    def _scores(self, pixels: Tensor) -> Tensor:
        """(B, R/4, R/4, 2, 2, 2, 2, K); see `unfolded`."""
        fused = self.fuse(self.backbone(pixels))
        height, width = fused.shape[1:3]
        return self.face_decoder(fused, self.pe_layer(height, width))

    def _grids(self, pixels: Tensor, landmarks: Tensor | None) -> tuple[Tensor, Tensor]:
        if landmarks is None:
            raise ValueError("this checkpoint straightens faces before parsing: it needs landmarks (B, 5, 2)")
        return warp.grids(landmarks.to(pixels.device), pixels.shape[-1])


def enlarged_sum(maps: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, H, W) of several sizes -> their sum at the size of the first one, the largest."""
    first, *others = maps
    size = first.shape[2:]
    for number, features in enumerate(others):
        if features.shape[2:] != size:
            features = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
        first = first.add_(features) if number else first + features
    return first


def unfolded(values: Tensor) -> Tensor:
    """(B, H, W, 2, 2, 2, 2, K) -> (B, K, 4H, 4W): the two 2 x 2 steps of each feature, as (row, column) pairs."""
    batch, height, width, *_, k = values.shape
    values = values.permute(0, 7, 1, 3, 5, 2, 4, 6)  # B, K, H, 2, 2, W, 2, 2
    return values.reshape(batch, k, _STRIDE * height, _STRIDE * width)


class Projection(nn.Module):
    """One backbone map to the width of the decoder, and what the fusion makes of it."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, width)

    def forward(self, features: Tensor, mix: Tensor) -> Tensor:
        """(B, C', H, W) and the map's part of the fusion (C, C) -> (B, C, H, W): both products in one."""
        return F.linear(features.permute(0, 2, 3, 1), *self.product(mix)).permute(0, 3, 1, 2)

    def product(self, mix: Tensor) -> tuple[Tensor, Tensor]:
        """The matrix (C, C') and bias (C,) of both products."""
        return mix @ self.proj.weight, mix @ self.proj.bias


class PositionCode(nn.Module):
    """Random Fourier features of a place in the image (Segment Anything's PositionEmbeddingRandom)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, width // 2))

    def forward(self, height: int, width: int) -> Tensor:
        """(H, W, C): sines, then cosines, of the middle of every feature."""
        matrix = self.positional_encoding_gaussian_matrix
        y, x = (
            (torch.arange(side, device=matrix.device, dtype=matrix.dtype) + 0.5) / side * 2 - 1
            for side in (height, width)
        )
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        angles = 2 * math.pi * (places @ matrix)
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class FaceDecoder(nn.Module):
    """Fused features and position code -> scores of every pixel for every class."""

    def __init__(self, tokens: tuple[str, ...], width: int, mlp_width: int) -> None:
        super().__init__()
        self.token_names = tuple(f"{name}_token" for name in tokens)
        for name in self.token_names:
            self.add_module(name, nn.Embedding(1, width))
        self.transformer = TwoWayTransformer(width, mlp_width)
        self.output_upscaling = nn.Sequential(
            Upscaling(width, 2 * _PIXEL_WIDTH),
            nn.LayerNorm(2 * _PIXEL_WIDTH, eps=1e-6),  # Segment Anything's LayerNorm2d
            nn.GELU(),
            Upscaling(2 * _PIXEL_WIDTH, _PIXEL_WIDTH),
            nn.GELU(),
        )
        self.output_hypernetwork_mlps = Hypernetwork(width)

    def forward(self, fused: Tensor, code: Tensor) -> Tensor:
        """(B, H, W, C) and (H, W, C) -> (B, H, W, 2, 2, 2, 2, K); see `unfolded`."""
        tokens, features = self.transformer(self.class_tokens(), fused.flatten(1, 2), code.flatten(0, 1))
        pixels = self.output_upscaling(features)  # B, N, 2, 2, 2, 2, 32
        hyper = self.output_hypernetwork_mlps(tokens)  # B, K, 32
        scores = pixels.flatten(1, -2) @ hyper.transpose(1, 2)
        return scores.unflatten(1, (*fused.shape[1:3], 2, 2, 2, 2))

    def class_tokens(self) -> Tensor:
        """(K, C), in the order of the class ids."""
        return torch.cat([self.get_parameter(f"{name}.weight") for name in self.token_names])


class TwoWayTransformer(nn.Module):
    """Class tokens and image features attend to each other (Segment Anything's TwoWayTransformer)."""

    def __init__(self, width: int, mlp_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(width, mlp_width, first=depth == 0) for depth in range(_DEPTH))
        self.final_attn_token_to_image = Attention(width, width // 2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, class_tokens: Tensor, features: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """(K, C), (B, N, C), (N, C) -> tokens (B, K, C) and features (B, N, C)."""
        tokens = class_tokens.expand(len(features), -1, -1)
        for layer in self.layers:
            tokens, features = layer(tokens, features, class_tokens, code)
        tokens = tokens + self.final_attn_token_to_image(tokens + class_tokens, features + code, features)
        return self.norm_final_attn(tokens), features


class TwoWayBlock(nn.Module):
    """Tokens to tokens, tokens to image, MLP on tokens, image to tokens.  The class tokens are their own position."""

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

    def forward(self, tokens: Tensor, features: Tensor, class_tokens: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.among_tokens(tokens, class_tokens)
        placed_features = features + code
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + class_tokens, placed_features, features))
        tokens = self.norm3(tokens + self.mlp(tokens))
        features = self.norm4(features + self.cross_attn_image_to_token(placed_features, tokens + class_tokens, tokens))
        return tokens, features

    def among_tokens(self, tokens: Tensor, class_tokens: Tensor) -> Tensor:
        """(B, K, C) -> the same after self-attention."""
        if self.first:
            return self.norm1(self.self_attn(tokens, tokens, tokens))
        placed = tokens + class_tokens
        return self.norm1(tokens + self.self_attn(placed, placed, tokens))


class Attention(nn.Module):
    """Multi-head attention, inside of which the width may be smaller."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, inner_width)
        self.k_proj = nn.Linear(width, inner_width)
        self.v_proj = nn.Linear(width, inner_width)
        self.out_proj = nn.Linear(inner_width, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, Q, C), (B, S, C), (B, S, C) -> (B, Q, C)."""
        q, k, v = map(heads, (self.q_proj(queries), self.k_proj(keys), self.v_proj(values)))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def heads(values: Tensor) -> Tensor:
    """(B, S, width) -> (B, heads, S, width of a head)."""
    return values.unflatten(-1, (HEADS, -1)).transpose(1, 2)


class Upscaling(nn.ConvTranspose2d):
    """A transposed convolution whose kernel is its stride: every feature becomes 2 x 2, without its neighbours.

    So it is one matrix product per feature, and where the results lie in the image need not be known until the end.
    """

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__(width, out_width, kernel_size=2, stride=2)

    def forward(self, features: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(..., C) -> (..., 2, 2, C'): rows, then columns."""
        return F.linear(features, *self.product()).unflatten(-1, (2, 2, -1))

    def product(self) -> tuple[Tensor, Tensor]:
        """The matrix (4 C', C) and bias (4 C',) of that product."""
        assert self.bias is not None
        return self.weight.permute(2, 3, 1, 0).flatten(0, 2), self.bias.repeat(4)


class Hypernetwork(nn.Module):
    """Class tokens (B, K, C) -> the weights (B, K, 32) that score a pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, _PIXEL_WIDTH)))

    def forward(self, tokens: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(tokens)))))
