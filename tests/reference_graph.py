"""The published graph as the official code runs it: the same operations in the same order, eagerly, in float32.

What it costs is the baseline of pipelines/benchmarks/network.py.  The operations are those of SegFace's models and of
its inference script (github.com/Kartik-3004/SegFace, commit 9416628) and of Segment Anything's decoder; the tensors are
those of a loaded `segface.SegFace`, and so is the backbone, which gives the same maps as torchvision's, bit by bit.

B: batch; K: classes; R: side of the image; C: channels; H, W: R/4.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segface_batch.catalog import Checkpoint
from segface_batch.model import warp
from segface_batch.model.segface import HEADS, Attention, SegFace


class ReferenceGraph:
    """Pixels to class ids as the official evaluation computes them."""

    def __init__(self, checkpoint: Checkpoint, network: SegFace) -> None:
        self.network: Any = network  # what torch keeps in lists has no type
        # Helen's model decodes twice and throws the first result away.
        self.decodings = 2 if checkpoint.dataset.name == "Helen" else 1

    @torch.inference_mode()
    def classes(self, pixels: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Normalised (B, 3, R, R) float32 -> (B, R, R) int64."""
        logits = F.interpolate(self.logits(pixels, landmarks), size=pixels.shape[2:], mode="bilinear")
        return logits.softmax(dim=1).argmax(dim=1)

    @torch.inference_mode()
    def logits(self, pixels: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """(B, K, R, R) float32."""
        back = None
        if landmarks is not None:
            there, back = warp.grids(landmarks, pixels.shape[-1])
            pixels = warp.sampled(pixels, there)
        fused = self._fused(self.network.backbone(pixels))
        for _ in range(self.decodings - 1):
            self._decoded(fused)
        logits = self._decoded(fused)
        return logits if back is None else warp.sampled(logits, back)

    def _fused(self, maps: list[Tensor]) -> Tensor:
        size = maps[0].shape[2:]
        projected = []
        for features, layer in zip(maps, self.network.linear_c, strict=True):
            values = layer.proj(features.flatten(2).transpose(1, 2))
            values = values.transpose(1, 2).reshape(len(features), -1, *features.shape[2:])
            projected.append(F.interpolate(values, size=size, mode="bilinear", align_corners=False))
        return self.network.linear_fuse(torch.cat(projected[::-1], dim=1))

    def _decoded(self, fused: Tensor) -> Tensor:
        decoder = self.network.face_decoder
        batch, channels, height, width = fused.shape
        tokens = decoder.class_tokens().unsqueeze(0).expand(batch, -1, -1)
        code = self.network.pe_layer(height, width).permute(2, 0, 1)[None].repeat_interleave(batch, dim=0)
        tokens, features = self._attended(tokens, fused.flatten(2).permute(0, 2, 1), code.flatten(2).permute(0, 2, 1))
        image = features.transpose(1, 2).view(batch, channels, height, width)
        first, norm, gelu, second, gelu_again = decoder.output_upscaling
        image = F.conv_transpose2d(image, first.weight, first.bias, stride=2)
        mean = image.mean(1, keepdim=True)
        variance = (image - mean).pow(2).mean(1, keepdim=True)
        image = (image - mean) / torch.sqrt(variance + norm.eps)
        image = gelu(norm.weight[:, None, None] * image + norm.bias[:, None, None])
        image = gelu_again(F.conv_transpose2d(image, second.weight, second.bias, stride=2))
        hyper = decoder.output_hypernetwork_mlps(tokens)
        batch, channels, height, width = image.shape
        return (hyper @ image.view(batch, channels, height * width)).view(batch, -1, height, width)

    def _attended(self, point: Tensor, image: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        transformer, tokens = self.network.face_decoder.transformer, point
        for layer in transformer.layers:
            if layer.first:
                tokens = _attention(layer.self_attn, tokens, tokens, tokens)
            else:
                placed = tokens + point
                tokens = tokens + _attention(layer.self_attn, placed, placed, tokens)
            tokens = layer.norm1(tokens)
            tokens = tokens + _attention(layer.cross_attn_token_to_image, tokens + point, image + code, image)
            tokens = layer.norm2(tokens)
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            image = image + _attention(layer.cross_attn_image_to_token, image + code, tokens + point, tokens)
            image = layer.norm4(image)
        tokens = tokens + _attention(transformer.final_attn_token_to_image, tokens + point, image + code, image)
        return transformer.norm_final_attn(tokens), image


def _attention(layer: Attention, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    q, k, v = (
        x.reshape(*x.shape[:2], HEADS, -1).transpose(1, 2)
        for x in (layer.q_proj(queries), layer.k_proj(keys), layer.v_proj(values))
    )
    shares = torch.softmax(q @ k.permute(0, 1, 3, 2) / math.sqrt(q.shape[-1]), dim=-1)
    found = (shares @ v).transpose(1, 2)
    return layer.out_proj(found.reshape(*found.shape[:2], -1))
