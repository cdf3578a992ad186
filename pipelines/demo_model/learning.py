"""How a SegFace network learns from pairs of images and label maps: the pairs, the loss, and one epoch.

The loss and the optimiser are SegFace's: half cross-entropy and half Dice, AdamW (arXiv 2412.08647).  A running average
of the weights is what a training ends with.

B: batch, K: classes, R: resolution.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from segface_batch.catalog import Checkpoint
from segface_batch.curate.evaluate import counted_pairs, f1
from segface_batch.images.crop import Crop, crop_image
from segface_batch.model.segface import SegFace, normalised

#: How much of the average stays at each step: about the last two hundred steps count.
EMA_DECAY = 0.995

#: Steps over which the learning rate grows from a hundredth to the whole.
WARM_UP = 100

#: Spread of the logarithm of each colour channel's gain, which stands for coloured light.
COLOR_CAST = 0.1

#: Longest gradient, so that one odd batch cannot spoil a run.
CLIP = 1.0

#: Names of classes that change places in a mirrored image, "l" for "r" or "r" for "l" before each.
_SIDED = ("_ear", "_brow", "_eye", "b", "e")


class Faces(Dataset):
    """The pairs of a folder, cropped as the checkpoint wants them: pixels (R, R, 3) uint8, labels (R, R) uint8, and
    landmarks (5, 2) float32, zeros where it takes none.

    With `varied` each is recoloured, turned, scaled and mirrored at random; faces with landmarks only recoloured.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint, varied: bool = False) -> None:
        self.folder, self.checkpoint, self.varied = folder, checkpoint, varied
        self.names = sorted(path.stem for path in (folder / "labels").glob("*.png"))
        self.images = {path.stem: path for path in (folder / "images").glob("*.*")}
        lacking = [name for name in self.names if name not in self.images]
        if not self.names or lacking:
            what = f"images/{lacking[0]}.jpg or .png" if lacking else "labels/*.png"
            raise FileNotFoundError(f"'{folder}' lacks {what}; give pairs images/NAME.jpg and labels/NAME.png")
        self.mirrored = mirrored_classes(checkpoint.dataset.class_names)
        blurred = v2.RandomApply([v2.GaussianBlur(5, (0.3, 1.5))], 0.15)
        self.recolored = v2.Compose([v2.ColorJitter(0.35, 0.35, 0.35), v2.RandomGrayscale(0.05), blurred])
        self.moved = v2.RandomAffine(
            (-15, 15), (0.08, 0.08), (0.8, 1.3), 6, interpolation=v2.InterpolationMode.BILINEAR
        )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        name, points = self.names[index], None
        if self.checkpoint.dataset.landmarks:
            points = np.loadtxt(self.folder / "landmarks" / f"{name}.txt", skiprows=1)
        with Image.open(self.images[name]) as image:
            crop, size = crop_image(image.convert("RGB"), self.checkpoint, points), image.size
        pixels = tv_tensors.Image(torch.from_numpy(crop.pixels.copy()).permute(2, 0, 1))
        labels = tv_tensors.Mask(torch.from_numpy(self.truth(name, crop, size)))
        if self.varied:
            pixels = self.recolored(pixels)
            if crop.landmarks is None:
                pixels, labels = self.moved(pixels, labels)
                if torch.rand(()) < 0.5:
                    pixels, labels = pixels.flip(-1), self.mirrored[labels.flip(-1).long()]
        landmarks = torch.zeros(5, 2) if crop.landmarks is None else torch.from_numpy(crop.landmarks)
        return pixels.as_subclass(Tensor).permute(1, 2, 0), labels.as_subclass(Tensor), landmarks

    def truth(self, name: str, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        """(R, R) uint8: the label map in the crop of an image of that (width, height); it may be another size itself,
        as CelebAMask-HQ's are.  ValueError for what is no label map of the image."""
        path = self.folder / "labels" / f"{name}.png"
        with Image.open(path) as labels:
            if labels.mode not in ("L", "P") or labels.width * size[1] != labels.height * size[0]:
                raise ValueError(f"{path} is no 8-bit map of class ids of the same proportions as its image")
            scale, (left, top, right, bottom) = labels.width / size[0], crop.box
            box = (left * scale, top * scale, right * scale, bottom * scale)
            found = np.array(labels.resize(crop.pixels.shape[1::-1], Image.Resampling.NEAREST, box))
        last = len(self.mirrored) - 1
        if found.max() > last:
            raise ValueError(f"{path} has the class id {found.max()}; {self.checkpoint.name} knows 0 to {last}")
        return found


def mirrored_classes(names: Sequence[str]) -> Tensor:
    """(K,) uint8: the class that each becomes in a mirrored image; left and right change places."""
    other = {f"{side}{part}": f"{'lr'[side == 'l']}{part}" for side in "lr" for part in _SIDED}
    return torch.tensor([names.index(other.get(name, name)) for name in names], dtype=torch.uint8)


def rarity(faces: Faces, power: float) -> Tensor:
    """(K,) float32: what a pixel of each class counts in the cross-entropy, its share of all pixels to the power of
    -`power`, on average 1 over the pixels; with the power 0 all count alike, as SegFace's do."""
    count = len(faces.mirrored)
    pixels = np.zeros(count, np.int64)
    for name in faces.names if power else []:
        with Image.open(faces.folder / "labels" / f"{name}.png") as labels:
            pixels += np.bincount(np.asarray(labels).ravel(), minlength=count)[:count]
    share = torch.from_numpy(np.maximum(pixels, 1) / np.maximum(pixels, 1).sum())
    weights = share**-power
    return (weights / (weights * share).sum()).float() if power else torch.ones(count)


def loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Logits (B, K, R, R), class ids (B, R, R) and what a pixel of each class counts (K,) -> half cross-entropy, half
    Dice over the batch, mean of classes."""
    count = logits.shape[1]
    logs = logits.permute(0, 2, 3, 1).reshape(-1, count).float().log_softmax(dim=1)
    truth = labels.reshape(-1).long()
    hits = logs.gather(1, truth[:, None]).squeeze(1)
    shared = torch.zeros(count, device=logs.device).index_add(0, truth, hits.exp())
    sizes = logs.exp().sum(dim=0) + torch.bincount(truth, minlength=count)
    return 0.5 * -(hits * weights[truth]).mean() + 0.5 * (1 - ((2 * shared + 1) / (sizes + 1)).mean())


def measured(network: SegFace, faces: Faces, batch_size: int) -> dict[str, float]:
    """F1 by class over the pixels of all faces."""
    names = faces.checkpoint.dataset.class_names
    device = next(network.parameters()).device
    confusion = np.zeros((len(names), len(names)), np.int64)
    network.eval()
    with torch.inference_mode():
        for pixels, labels, landmarks in DataLoader(faces, batch_size):
            found = network.classes(normalised(pixels.to(device)), landmarks.to(device)).cpu().numpy()
            confusion += counted_pairs(labels.numpy(), found, len(names))
    return dict(zip(names, map(float, f1(confusion)), strict=True))


@dataclass(frozen=True)
class Training:
    """What a run carries from epoch to epoch."""

    network: SegFace
    average: AveragedModel
    optimizer: AdamW
    schedule: SequentialLR

    @classmethod
    def of(cls, network: SegFace, settings: argparse.Namespace, steps_per_epoch: int) -> Training:
        optimizer = AdamW(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        steps = steps_per_epoch * settings.epochs
        warm_up = max(1, min(WARM_UP, steps // 10))
        falling = (
            MultiStepLR(optimizer, [epoch * steps_per_epoch - warm_up for epoch in settings.milestones])
            if settings.milestones
            else CosineAnnealingLR(optimizer, max(1, steps - warm_up))
        )
        schedule = SequentialLR(optimizer, [LinearLR(optimizer, 0.01, total_iters=warm_up), falling], [warm_up])
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
        return cls(network, average, optimizer, schedule)

    def parts(self) -> dict[str, AveragedModel | SegFace | AdamW | SequentialLR]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def epoch(self, forward: nn.Module, loader: DataLoader, weights: Tensor) -> float:
        """Once through all faces; the mean loss."""
        self.network.train()
        device, total = next(self.network.parameters()).device, 0.0
        for pixels, labels, landmarks in loader:
            inputs = normalised(pixels.to(device))
            inputs *= (COLOR_CAST * torch.randn(len(inputs), 3, 1, 1, device=device)).exp()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = forward(inputs, landmarks.to(device))
            error = loss(logits, labels.to(device), weights)
            self.optimizer.zero_grad(set_to_none=True)
            error.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
            self.optimizer.step()
            self.schedule.step()
            self.average.update_parameters(self.network)
            total += float(error.detach())
        return total / len(loader)
