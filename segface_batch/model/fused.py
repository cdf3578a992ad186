"""A SegFace for inference: one function from pixels to class ids, with everything that is constant computed beforehand.

It computes what `segface.SegFace` does, with the weights fused into fewer operations: batch normalisation into the
convolution before it, the fusion of the maps into their embeddings, the positional encoding into constants, the
projections of the same features into one product.  With `split` the logits of an image are in memory together only
where LaPa's warp needs them: some features at a time are upscaled, scored and given their classes.

B: batch; K: classes; R: side of the image in pixels; N: features, (R/4)^2 of them, row by row; n: some of them; C:
width; I: width inside the cross-attentions.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from segface_batch.model import scores, warp
from segface_batch.model.backbones import Backbone
from segface_batch.model.segface import Attention, SegFace, depth_to_space, normalised, split_heads, upsampled_sum

#: Features that a CPU takes through the linear layers together: what is computed of them stays in its cache, and in
#: buffers that the allocator keeps (larger ones cost a page fault per 4 kB, as much as the arithmetic).
CPU_FEATURES = 2048

#: Rows of an image that are warped back together, for the same reason.
_CPU_ROWS = 64


class FusedSegFace(nn.Module):
    """The function of a `SegFace` in eval mode, whose tensors it shares, for images of one resolution.

    With `split`, linear layers take some features at a time, which is faster on a CPU without a compiler; without,
    all of them, which is faster for compilers and GPUs.
    """

    class_tokens: Tensor
    transformer: Any
    embeddings: Any
    cross_attentions: Any
    upscaling: Any

    @torch.no_grad()
    def __init__(self, network: SegFace, resolution: int, *, split: bool) -> None:
        super().__init__()
        self.split = split
        self.side = resolution // 4
        self.backbone = _fuse_batch_norm(network.backbone)
        decoder: Any = network.face_decoder  # what torch keeps in lists has no type
        self.transformer, self.hypernetwork = decoder.transformer, decoder.output_hypernetwork_mlps
        image_pe = network.pe_layer(self.side, self.side).flatten(0, 1)
        self.register_buffer("class_tokens", decoder.class_tokens())
        embeddings: Any = network.linear_c
        self.embeddings = nn.ModuleList(
            _linear(*embed.as_linear(fuse)) for embed, fuse in zip(embeddings, network.fuse_weights(), strict=True)
        )
        self.cross_attentions = nn.ModuleList(
            FusedCrossAttention(image_pe, layer.cross_attn_token_to_image, layer.cross_attn_image_to_token)
            for layer in self.transformer.layers
        )
        self.cross_attentions.append(FusedCrossAttention(image_pe, self.transformer.final_attn_token_to_image))
        first, norm, gelu, second, gelu_again = decoder.output_upscaling
        first, second = (_linear(*layer.as_linear()) for layer in (first, second))
        self.upscaling = nn.ModuleList((first, norm, gelu, second, gelu_again))
        self.requires_grad_(False)

    def forward(self, pixels: Tensor, there: Tensor | None = None, back: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, R, R, 3) uint8 RGB -> class ids (B, R, R) uint8 and their scores (B, 3, R, R) float32 as `scores.scored`
        has them; grids as for `logits`."""
        parts = self._logits(pixels, there)
        if back is None:
            labels, scored = zip(*map(scores.scored, parts), strict=True)
            return self._joined([part.unsqueeze(1) for part in labels])[:, 0], self._joined([*scored])
        logits = self._joined(parts)
        rows = back.split(_CPU_ROWS, dim=1) if self.split else (back,)
        labels, scored = zip(*(scores.scored(warp.sampled(logits, each).flatten(2)) for each in rows), strict=True)
        side = pixels.shape[1:3]
        return torch.cat(labels, dim=1).unflatten(1, side), torch.cat(scored, dim=2).unflatten(2, side)

    def logits(self, pixels: Tensor, there: Tensor | None = None, back: Tensor | None = None) -> Tensor:
        """The same before that: (B, K, R, R) float32.  `there` and `back` are the grids of `warp.grids`, for LaPa's
        checkpoints."""
        logits = self._joined(self._logits(pixels, there))
        return logits if back is None else warp.sampled(logits, back)

    def _logits(self, pixels: Tensor, there: Tensor | None) -> list[Tensor]:
        """Parts (B, K, 16 n) float32 that together have the 4 x 4 pixels of all N features."""
        inputs = normalised(pixels)
        if there is not None:
            inputs = warp.sampled(inputs, there)
        maps = self.backbone(inputs.to(self.class_tokens.dtype))
        embedded = [
            embed(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for embed, features in zip(self.embeddings, maps, strict=True)
        ]
        fused = upsampled_sum(embedded).permute(0, 2, 3, 1).flatten(1, 2)
        tokens, features = self._attended(list(fused.split(CPU_FEATURES if self.split else fused.shape[1], dim=1)))
        weights = self.hypernetwork(tokens).float()  # B, K, 32
        return [self._upscaled_logits(part, weights) for part in features]

    def _attended(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """`segface.TwoWayTransformer`."""
        tokens = self.class_tokens.expand(len(features[0]), -1, -1)
        *cross_attentions, final = self.cross_attentions
        for layer, attention in zip(self.transformer.layers, cross_attentions, strict=True):
            tokens = layer.self_attention(tokens, self.class_tokens)
            projected = attention(features)
            tokens = layer.norm2(tokens + attention.token_to_image(tokens + self.class_tokens, projected))
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            changes = attention.image_to_token(tokens + self.class_tokens, tokens, projected)
            features = [layer.norm4(part + change) for part, change in zip(features, changes, strict=True)]
        tokens = tokens + final.token_to_image(tokens + self.class_tokens, final(features))
        return self.transformer.norm_final_attn(tokens), features

    def _upscaled_logits(self, features: Tensor, weights: Tensor) -> Tensor:
        """(B, n, C) and (B, K, 32) -> (B, K, 16 n)."""
        first, norm, gelu, second, gelu_again = self.upscaling
        pixels = gelu(norm(first(features).unflatten(-1, (4, -1))))
        pixels = gelu_again(second(pixels)).unflatten(-1, (4, -1))  # B, n, 4, 4, 32
        return weights @ pixels.flatten(1, 3).float().transpose(1, 2)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        """Parts (B, X, 16 n) of X maps -> (B, X, R, R)."""
        features = torch.cat(parts, dim=2).unflatten(2, (self.side, self.side, 2, 2, 2, 2))
        return depth_to_space(features.movedim(1, -1))


class FusedCrossAttention(nn.Module):
    """The two cross-attentions of a block (the last has one), with all projections of the features in one product, to
    which the positional encoding adds a constant."""

    bias: Tensor

    def __init__(self, image_pe: Tensor, to_image: Attention, to_token: Attention | None = None) -> None:
        super().__init__()
        self.to_image, self.to_token = to_image, to_token
        encoded = [to_image.k_proj] if to_token is None else [to_image.k_proj, to_token.q_proj]
        layers = [*encoded, to_image.v_proj]
        self.widths = [layer.out_features for layer in layers]
        self.weight = nn.Parameter(torch.cat([layer.weight for layer in layers]))
        values = to_image.v_proj.bias.expand(len(image_pe), -1)
        self.register_buffer("bias", torch.cat([*(layer(image_pe) for layer in encoded), values], dim=1))

    def forward(self, features: list[Tensor]) -> list[tuple[Tensor, ...]]:
        """Parts (B, n, C) of the features -> for each keys, queries and values, or keys and values: (B, n, I)."""
        biases = self.bias.split([part.shape[1] for part in features])
        projected = [F.linear(part, self.weight) + bias for part, bias in zip(features, biases, strict=True)]
        return [part.split(self.widths, dim=-1) for part in projected]

    def token_to_image(self, tokens: Tensor, projected: list[tuple[Tensor, ...]]) -> Tensor:
        """Queries of tokens (B, K, C) to keys and values of all features -> (B, K, C)."""
        queries = split_heads(self.to_image.q_proj(tokens))
        queries = queries * queries.shape[-1] ** -0.5
        scores = torch.cat([queries @ split_heads(keys).transpose(2, 3) for keys, *_ in projected], dim=-1)
        weights = scores.softmax(-1).split([keys.shape[1] for keys, *_ in projected], dim=-1)
        sums = [weight @ split_heads(values) for weight, (*_, values) in zip(weights, projected, strict=True)]
        attended = sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)
        return self.to_image.out_proj(attended.transpose(1, 2).flatten(2))

    def image_to_token(self, keys: Tensor, values: Tensor, projected: list[tuple[Tensor, ...]]) -> list[Tensor]:
        """Queries of the features to keys and values of tokens (B, K, C) -> for each part (B, n, C)."""
        assert self.to_token is not None
        k, v = split_heads(self.to_token.k_proj(keys)), split_heads(self.to_token.v_proj(values))
        return [
            self.to_token.out_proj(
                F.scaled_dot_product_attention(split_heads(queries), k, v).transpose(1, 2).flatten(2)
            )
            for _, queries, _ in projected
        ]


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def _fuse_batch_norm(network: Backbone) -> Backbone:
    """A copy with the same tensors, where every batch normalisation is fused into the convolution before it."""
    network = copy.deepcopy(network, {id(tensor): tensor for tensor in network.parameters()})
    for module in list(network.modules()):
        before: Any = None
        child: Any
        for name, child in module.named_children():
            if isinstance(before, nn.Conv2d) and isinstance(child, nn.BatchNorm2d):
                assert child.running_mean is not None
                assert child.running_var is not None
                statistics = child.running_mean, child.running_var, child.eps
                before.weight, before.bias = fuse_conv_bn_weights(
                    before.weight, before.bias, *statistics, child.weight, child.bias
                )
                setattr(module, name, getattr(child, "act", nn.Identity()))  # timm's have their activation in them
            before = child
    return network
