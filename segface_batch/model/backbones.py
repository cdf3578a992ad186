"""The backbones of SegFace: the timm model of each, where its four maps are taken, and its tensors' official names.

The published checkpoints were trained on torchvision's models and have torchvision's tensor names.  timm has the same
networks under other names; `official_name` gives the name in the official file of a timm tensor.  A further timm
backbone is one more row of `BACKBONES`; without `names`, its file has timm's names.

B, C, H, W: batch, channels, height and width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from segface_batch.model.imports import compiler_on_demand

with compiler_on_demand():
    import timm
    from timm.models.swin_transformer import window_partition, window_reverse

#: (pattern in a timm name, replacement) pairs, all applied one after the other; the result is the official name.
Names = tuple[tuple[str, str], ...]

#: torchvision's batch normalisation in MobileNetV3 and EfficientNetV2 (timm's default is 1e-5).
_TORCHVISION_BN_EPS = 1e-3


@dataclass(frozen=True)
class BackboneRow:
    """One backbone.

    `channels` of the maps with strides 4, 8, 16 and 32; `arguments` of `timm.create_model`, where `sized` models get
    `img_size` too; `taps` are arguments of timm's `forward_intermediates`; the modules `without` lie behind the last
    tap and are left out; `patch` changes the timm model in place; `unused` matches tensors of the official file (less
    "backbone.") that no map depends on.
    """

    timm_name: str
    channels: tuple[int, int, int, int]
    taps: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    sized: bool = False
    without: tuple[str, ...] = ()
    patch: Callable[[nn.Module], None] | None = None
    names: Names = ()
    unused: str | None = None


class Backbone(nn.Module):
    """Pixels (B, 3, R, R) -> four maps (B, C, H, W) with strides 4, 8, 16 and 32.  No weights are downloaded."""

    def __init__(self, row: BackboneRow, resolution: int) -> None:
        super().__init__()
        size = {"img_size": resolution} if row.sized else {}
        self.net = timm.create_model(row.timm_name, pretrained=False, num_classes=0, **size, **row.arguments)
        for name in row.without:
            self.net.set_submodule(name, nn.Identity())
        if row.patch is not None:
            row.patch(self.net)
        self.taps = dict(row.taps)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        # EfficientNet has three taps, and its last output is the fourth map; all others have four taps.
        last, maps = self.net.forward_intermediates(pixels, **self.taps)  # pyright: ignore[reportCallIssue]
        return [*maps, last][:4]


class PadThenRollBlock(nn.Module):
    """A timm Swin block whose windows are laid out as in torchvision: pad first, then roll.

    timm rolls first and pads afterwards, which is another function wherever the map is no multiple of the window
    (7 pixels; resolutions 256 and 512).  Tensors and their names are the block's own.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp
        self.window, self.shift = block.window_size, block.shift_size
        self.register_buffer("attn_mask", block.attn_mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = x + self._attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        down, right = self.shift
        x = F.pad(x, (0, 0, 0, -width % self.window[1], 0, -height % self.window[0]))
        padded = x.shape[1:3]
        windows = window_partition(x.roll((-down, -right), (1, 2)), self.window).flatten(1, 2)
        windows = self.attn(windows, mask=self.attn_mask).unflatten(1, self.window)
        x = window_reverse(windows, self.window, *padded).roll((down, right), (1, 2))
        return x[:, :height, :width]


def _pad_then_roll(swin: nn.Module) -> None:
    for stage in swin.layers:  # pyright: ignore[reportGeneralTypeIssues]
        stage.blocks = nn.Sequential(*map(PadThenRollBlock, stage.blocks))


def official_name(row: BackboneRow, timm_name: str) -> str:
    """The name in the official file, less "backbone.", of a tensor of the timm model."""
    for pattern, replacement in row.names:
        timm_name = re.sub(pattern, replacement, timm_name)
    return timm_name


def _stages(prefix: str, blocks: str) -> Names:
    """Four stages of blocks with a downsampling before all but the first, as torchvision numbers them: 1, 2, ... 7."""
    rows = []
    for stage in range(4):
        rows += [
            (rf"^{prefix}\.{stage}\.{blocks}\.", f"0.{2 * stage + 1}."),
            (rf"^{prefix}\.{stage}\.downsample\.", f"0.{2 * stage}."),
        ]
    return tuple(rows)


def _parts(stages: str, parts: Mapping[str, str]) -> Names:
    """The layers inside each block of the `stages` (a character class) of a MobileNet or EfficientNet."""
    return tuple(
        (rf"^(blocks\.[{stages}]\.\d+)\.{re.escape(timm_part)}\.", rf"\1.block.{part}.")
        for timm_part, part in parts.items()
    )


# Layers of a block in torchvision's order: (convolution, its norm), squeeze-and-excite counted as one.
_DEPTHWISE = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1.0", "bn2": "1.1"}
_INVERTED = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2.0", "bn3": "2.1"}
_SQUEEZED = {
    **_INVERTED,
    "se.conv_reduce": "2.fc1",
    "se.conv_expand": "2.fc2",
    "conv_pwl": "3.0",
    "bn3": "3.1",
}
_PLAIN = {"conv": "0.0", "bn1": "0.1"}
_FUSED = {"conv_exp": "0.0", "bn1": "0.1", "conv_pwl": "1.0", "bn2": "1.1"}

#: Blocks per stage of MobileNetV3-Large; torchvision numbers them without stages, from 1.
_MOBILENET_DEPTHS = (1, 2, 3, 4, 2, 3)
_MOBILENET_BLOCKS = [(stage, block) for stage, depth in enumerate(_MOBILENET_DEPTHS) for block in range(depth)]

_SWIN_NAMES: Names = (
    (r"^patch_embed\.proj\.", "0.0.0."),
    (r"^patch_embed\.norm\.", "0.0.2."),
    *_stages("layers", "blocks"),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"\.attn\.[qv]_bias$", ".attn.qkv.bias"),
)
_CONVNEXT_NAMES: Names = (
    (r"^stem\.", "0.0."),
    *_stages("stages", "blocks"),
    (r"\.conv_dw\.", ".block.0."),
    (r"^(0\.\d\.\d+)\.norm\.", r"\1.block.2."),
    (r"\.mlp\.fc1\.", ".block.3."),
    (r"\.mlp\.fc2\.", ".block.5."),
    (r"\.gamma$", ".layer_scale"),
)
_RESNET_NAMES: Names = (
    (r"^conv1\.", "0."),
    (r"^bn1\.", "1."),
    *((rf"^layer{stage}\.", f"{stage + 3}.") for stage in range(1, 5)),
)
_MOBILENET_NAMES: Names = (
    (r"^conv_stem\.", "0.0."),
    (r"^bn1\.", "0.1."),
    (r"^blocks\.6\.0\.conv\.", "16.0."),
    (r"^blocks\.6\.0\.bn1\.", "16.1."),
    *_parts("0", _DEPTHWISE),
    *_parts("13", _INVERTED),
    *_parts("245", _SQUEEZED),
    *((rf"^blocks\.{stage}\.{block}\.", f"{n}.") for n, (stage, block) in enumerate(_MOBILENET_BLOCKS, start=1)),
)
_EFFICIENTNET_NAMES: Names = (
    (r"^conv_stem\.", "0.0."),
    (r"^bn1\.", "0.1."),
    (r"^conv_head\.", "8.0."),
    (r"^bn2\.", "8.1."),
    *_parts("0", _PLAIN),
    *_parts("12", _FUSED),
    *_parts("3456", _SQUEEZED),
    *((rf"^blocks\.{stage}\.", f"{stage + 1}.") for stage in range(7)),
)

#: torchvision's last LayerNorm, and tables that follow from the window size alone.
_SWIN_UNUSED = r"1\.(weight|bias)|.*\.attn\.(relative_position_index|relative_coords_table)"

BACKBONES: dict[str, BackboneRow] = {
    "convnext_base": BackboneRow(
        "convnext_base",
        channels=(128, 256, 512, 1024),
        taps={"indices": (0, 1, 2, 3)},
        without=("head",),
        names=_CONVNEXT_NAMES,
    ),
    "efficientnet": BackboneRow(
        "efficientnetv2_m",
        channels=(48, 80, 176, 1280),
        taps={"indices": (2, 3, 5), "extra_blocks": True},
        arguments={"bn_eps": _TORCHVISION_BN_EPS},
        names=_EFFICIENTNET_NAMES,
    ),
    "mobilenet": BackboneRow(
        "mobilenetv3_large_100",
        channels=(24, 40, 112, 960),
        taps={"indices": (2, 3, 5, 7), "extra_blocks": True},
        arguments={"bn_eps": _TORCHVISION_BN_EPS},
        without=("conv_head",),
        names=_MOBILENET_NAMES,
    ),
    "resnet": BackboneRow(
        "resnet101",
        channels=(256, 512, 1024, 2048),
        taps={"indices": (1, 2, 3, 4)},
        names=_RESNET_NAMES,
    ),
    "swin_base": BackboneRow(
        "swin_base_patch4_window7_224",
        channels=(128, 256, 512, 1024),
        taps={"indices": (0, 1, 2, 3)},
        arguments={"window_size": 7},
        sized=True,
        without=("norm",),
        patch=_pad_then_roll,
        names=_SWIN_NAMES,
        unused=_SWIN_UNUSED,
    ),
    # Window 8 divides every map at 512, so the order of padding and rolling makes no difference here.
    "swinv2_base": BackboneRow(
        "swinv2_base_window8_256",
        channels=(128, 256, 512, 1024),
        taps={"indices": (0, 1, 2, 3)},
        arguments={"window_size": 8},
        sized=True,
        without=("norm",),
        names=_SWIN_NAMES,
        unused=_SWIN_UNUSED,
    ),
    "mobilenet_small": BackboneRow(
        "mobilenetv3_small_100",
        channels=(16, 24, 48, 576),
        taps={"indices": (1, 2, 3, 4)},
        without=("conv_head",),
    ),
}
