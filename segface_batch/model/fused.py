"""A SegFace ready to label images: one function from pixels to class ids, without work that can be done beforehand.

It computes what `segface.SegFace` does, with the weights folded into fewer operations: batch normalisation into the
convolution before it, the mix of the maps into their projections, the position code into constants, the projections
that read the same features into one product.  The scores of all classes are never held together: some rows of
features at a time are unfolded, scored and given their classes.

B: batch; K: classes; R: side of the image in pixels; N: features, (R/4)^2 of them, row by row; C: width; I: width
inside the attention between tokens and features.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from segface_batch.model import warp
from segface_batch.model.backbones import Backbone
from segface_batch.model.segface import Attention, SegFace, enlarged_sum, heads, normalised, unfolded

#: Features that go through the dense layers of a CPU together: what is computed of them stays in its cache, and in
#: buffers that the allocator keeps (larger ones cost a page fault per 4 kB, as much as the arithmetic).
CPU_FEATURES = 2048

#: Rows of an image that are warped back together, for the same reason.
_CPU_ROWS = 64


class Inference(nn.Module):
    """The function of a `SegFace` in eval mode, whose tensors it shares, for images of one resolution.

    With `split`, dense layers take a few features at a time, as suits a CPU that runs them one after the other;
    without, all of them, as suits compilers and GPUs.
    """

    class_tokens: Tensor
    transformer: Any
    maps: Any
    dense: Any
    upscaling: Any

    @torch.no_grad()
    def __init__(self, network: SegFace, resolution: int, *, split: bool) -> None:
        super().__init__()
        self.split = split
        self.side = resolution // 4
        self.backbone = _without_batch_norm(network.backbone)
        decoder: Any = network.face_decoder  # what torch keeps in lists has no type
        self.transformer, self.hypernetwork = decoder.transformer, decoder.output_hypernetwork_mlps
        code = network.pe_layer(self.side, self.side).flatten(0, 1)
        self.register_buffer("class_tokens", decoder.class_tokens())
        projections: Any = network.linear_c
        self.maps = nn.ModuleList(
            _linear(*project.product(mix)) for project, mix in zip(projections, network.mixes(), strict=True)
        )
        self.dense = nn.ModuleList(
            Dense(code, layer.cross_attn_token_to_image, layer.cross_attn_image_to_token)
            for layer in self.transformer.layers
        )
        self.dense.append(Dense(code, self.transformer.final_attn_token_to_image))
        first, norm, gelu, second, gelu_again = decoder.output_upscaling
        self.upscaling = nn.ModuleList((_linear(*first.product()), norm, gelu, _linear(*second.product()), gelu_again))
        self.requires_grad_(False)

    def forward(self, pixels: Tensor, there: Tensor | None = None, back: Tensor | None = None) -> Tensor:
        """(B, R, R, 3) uint8 RGB -> class ids (B, R, R) uint8; grids as for `logits`."""
        if there is None or back is None:
            labels = [scores.argmax(-1, keepdim=True).to(torch.uint8) for scores in self._scores(pixels, there)]
            return self._unfolded(labels)[:, 0]
        logits = self._unfolded(self._scores(pixels, there))
        parts = back.split(_CPU_ROWS, dim=1) if self.split else (back,)
        return torch.cat([warp.sampled(logits, part).argmax(1).to(torch.uint8) for part in parts], dim=1)

    def logits(self, pixels: Tensor, there: Tensor | None = None, back: Tensor | None = None) -> Tensor:
        """The same before argmax: (B, K, R, R) float32.  `there` and `back` are the grids of `warp.grids`, for
        checkpoints that straighten faces."""
        logits = self._unfolded(self._scores(pixels, there))
        return logits if back is None else warp.sampled(logits, back)

    def _scores(self, pixels: Tensor, there: Tensor | None) -> list[Tensor]:
        """What together is (B, N, 2, 2, 2, 2, K) float32, in parts of N."""
        inputs = normalised(pixels)
        if there is not None:
            inputs = warp.sampled(inputs, there)
        maps = self.backbone(inputs.to(self.class_tokens.dtype))
        mixed = [product(m.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for product, m in zip(self.maps, maps, strict=True)]
        fused = enlarged_sum(mixed).permute(0, 2, 3, 1).flatten(1, 2)
        tokens, features = self._attended(list(fused.split(CPU_FEATURES if self.split else fused.shape[1], dim=1)))
        weights = self.hypernetwork(tokens).float().transpose(1, 2)  # B, 32, K
        return [self._scored(part, weights) for part in features]

    def _attended(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """`segface.TwoWayTransformer`."""
        tokens = self.class_tokens.expand(len(features[0]), -1, -1)
        *dense_layers, final = self.dense
        for layer, dense in zip(self.transformer.layers, dense_layers, strict=True):
            tokens = layer.among_tokens(tokens, self.class_tokens)
            products = dense(features)
            tokens = layer.norm2(tokens + dense.read(tokens + self.class_tokens, products))
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            changes = dense.write(tokens + self.class_tokens, tokens, products)
            features = [layer.norm4(part + change) for part, change in zip(features, changes, strict=True)]
        tokens = tokens + final.read(tokens + self.class_tokens, final(features))
        return self.transformer.norm_final_attn(tokens), features

    def _scored(self, features: Tensor, weights: Tensor) -> Tensor:
        """(B, n, C) and (B, 32, K) -> (B, n, 2, 2, 2, 2, K)."""
        first, norm, gelu, second, gelu_again = self.upscaling
        pixels = gelu(norm(first(features).unflatten(-1, (4, -1))))
        pixels = gelu_again(second(pixels)).unflatten(-1, (4, -1))  # B, n, 4, 4, 32
        return (pixels.flatten(1, 3).float() @ weights).unflatten(1, (-1, 2, 2, 2, 2))

    def _unfolded(self, parts: list[Tensor]) -> Tensor:
        return unfolded(torch.cat(parts, dim=1).unflatten(1, (self.side, self.side)))


class Dense(nn.Module):
    """What attention between tokens and features does to the features: their keys, values and (where the features
    read the tokens too) queries are one product, to which their place adds a constant."""

    place: Tensor

    def __init__(self, code: Tensor, reading: Attention, writing: Attention | None = None) -> None:
        super().__init__()
        self.reading, self.writing = reading, writing
        placed = [reading.k_proj] if writing is None else [reading.k_proj, writing.q_proj]
        layers = [*placed, reading.v_proj]
        self.widths = [layer.out_features for layer in layers]
        self.weight = nn.Parameter(torch.cat([layer.weight for layer in layers]))
        values = reading.v_proj.bias.expand(len(code), -1)
        self.register_buffer("place", torch.cat([*(layer(code) for layer in placed), values], dim=1))

    def forward(self, features: list[Tensor]) -> list[tuple[Tensor, ...]]:
        """Parts (B, n, C) of the features -> for each keys, queries and values, or keys and values: (B, n, I)."""
        places = self.place.split([part.shape[1] for part in features])
        products = [F.linear(part, self.weight) + place for part, place in zip(features, places, strict=True)]
        return [product.split(self.widths, dim=-1) for product in products]

    def read(self, tokens: Tensor, products: list[tuple[Tensor, ...]]) -> Tensor:
        """Tokens (B, K, C) as queries -> what they read from the features, (B, K, C)."""
        queries = heads(self.reading.q_proj(tokens))
        queries = queries * queries.shape[-1] ** -0.5
        scores = torch.cat([queries @ heads(keys).transpose(2, 3) for keys, *_ in products], dim=-1)
        shares = scores.softmax(-1).split([keys.shape[1] for keys, *_ in products], dim=-1)
        read = [share @ heads(values) for share, (*_, values) in zip(shares, products, strict=True)]
        found = read[0] if len(read) == 1 else torch.stack(read).sum(0)
        return self.reading.out_proj(found.transpose(1, 2).flatten(2))

    def write(self, keys: Tensor, values: Tensor, products: list[tuple[Tensor, ...]]) -> list[Tensor]:
        """Tokens (B, K, C) as keys and values -> what each part of the features reads from them, (B, n, C)."""
        assert self.writing is not None
        k, v = heads(self.writing.k_proj(keys)), heads(self.writing.v_proj(values))
        return [
            self.writing.out_proj(F.scaled_dot_product_attention(heads(queries), k, v).transpose(1, 2).flatten(2))
            for _, queries, _ in products
        ]


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def _without_batch_norm(network: Backbone) -> Backbone:
    """A copy with the same tensors, where every batch normalisation is part of the convolution before it."""
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
