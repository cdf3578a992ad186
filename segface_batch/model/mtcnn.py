"""MTCNN: a detector of faces and their five landmarks in photographs of any size.

Zhang et al. 2016 (arXiv 1604.02878), "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks": P-Net slides over an image pyramid and proposes windows, R-Net refines them, O-Net gives box, score and
landmarks.
The weights (assets/mtcnn.safetensors, 495,850 parameters in float16) are those of facenet-pytorch 2.6.0 (MIT; see
NOTICE); pipelines/convert_mtcnn.py made the file.

N: candidates, each with a score and four offsets by which box regression moves its sides; H, W: an image in pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from segface_batch.images.faces import NO_FACES, Faces
from segface_batch.model.imports import compiler_on_demand

with compiler_on_demand():
    from torchvision.ops import nms

WEIGHTS = Path(__file__).parents[1] / "assets" / "mtcnn.safetensors"

#: Sides of the inputs of P-Net, R-Net and O-Net in pixels.
_PNET_SIDE, _RNET_SIDE, _ONET_SIDE = 12, 24, 48

#: P-Net's windows are two pixels apart.
_STRIDE = 2

#: Scale from one level of the pyramid to the next, and the least scores of the three nets (the authors' values).
_SCALE_STEP, _MIN_SCORES = 0.709, (0.6, 0.7, 0.7)

#: Non-maximum suppression, overlaps above which the lower score goes: IoU among P-Net's windows of a level, IoU of all
#: levels and of R-Net's boxes, and the share of the smaller box among O-Net's boxes.
_LEVEL_IOU, _MAX_IOU, _MAX_SHARE = 0.5, 0.7, 0.7

#: Crops that a net gets at once; a crowd has thousands of candidates.
_BATCH = 256


class PNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, H, W) -> scores (H', W') and offsets (4, H', W') in sides of the window."""
        x = self.pool(self.prelu1(self.conv1(x)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_1(x).softmax(1)[0, 1], self.conv4_2(x)[0]


class RNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 24, 24) -> scores (N,) and offsets (N, 4) in sides of the box."""
        x = self.pool(self.prelu1(self.conv1(x)))
        x = self.pool(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x)).permute(0, 3, 2, 1).flatten(1)
        x = self.prelu4(self.dense4(x))
        return self.dense5_1(x).softmax(1)[:, 1], self.dense5_2(x)


class ONet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)
        self.pool, self.last_pool = nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(2, 2, ceil_mode=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3, 48, 48) -> scores (N,), offsets (N, 4), and five x then five y (N, 10), in sides of the box."""
        x = self.pool(self.prelu1(self.conv1(x)))
        x = self.pool(self.prelu2(self.conv2(x)))
        x = self.last_pool(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.conv4(x)).permute(0, 3, 2, 1).flatten(1)
        x = self.prelu5(self.dense5(x))
        return self.dense6_1(x).softmax(1)[:, 1], self.dense6_2(x), self.dense6_3(x)


class Mtcnn(nn.Module):
    """Faces whose boxes are at least `min_face` pixels high or wide, found with a score of at least `min_score`."""

    def __init__(self, *, min_face: int = 40, min_score: float = 0.95) -> None:
        super().__init__()
        self.min_face, self.min_score = min_face, min_score
        self.pnet, self.rnet, self.onet = PNet(), RNet(), ONet()
        self.load_state_dict(load_file(WEIGHTS))
        self.float().eval().requires_grad_(False)

    @torch.inference_mode()
    def detect(self, image: Image.Image) -> Faces:
        """An upright RGB image -> its faces, the largest first."""
        boxes = self._propose(image)
        if len(boxes):
            scores, offsets = self._run(self.rnet, image, boxes, _RNET_SIDE)
            likely = (scores > _MIN_SCORES[1]).nonzero().squeeze(1)
            kept = likely[nms(boxes[likely], scores[likely], _MAX_IOU)]
            boxes = _squares(_regressed(boxes[kept], offsets[kept]))
        if not len(boxes):
            return NO_FACES
        faces = self._output(image, boxes)
        faces = faces.at(faces.scores >= max(_MIN_SCORES[2], self.min_score))
        faces = faces.at(_nms_by_share(faces.boxes, faces.scores))
        return faces.at((faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1) >= self.min_face).largest()

    @torch.inference_mode()
    def locate(self, image: Image.Image, boxes: np.ndarray) -> Faces:
        """One face for each given box (N, 4), with the landmarks and the score of O-Net, however low that is.

        O-Net runs twice: on the square around the given box, then on the square around the box that it found there.
        """
        first = self._output(image, _squares(torch.from_numpy(boxes).to(self._device())))
        again = self._output(image, _squares(torch.from_numpy(first.boxes).to(self._device())))
        return Faces(boxes, again.scores, again.landmarks)

    def _output(self, image: Image.Image, squares: Tensor) -> Faces:
        """O-Net's faces in squares (N, 4) of the image, one for each."""
        scores, offsets, points = self._run(self.onet, image, squares, _ONET_SIDE)
        sides = squares[:, 2:] - squares[:, :2] + 1
        landmarks = points.view(-1, 2, 5).transpose(1, 2) * sides[:, None] + squares[:, None, :2] - 1
        return Faces(_regressed(squares, offsets).cpu().numpy(), scores.cpu().numpy(), landmarks.cpu().numpy())

    def _propose(self, image: Image.Image) -> Tensor:
        """P-Net's candidates on all levels of the pyramid: squares (N, 4)."""
        scale, found = _PNET_SIDE / self.min_face, []
        while min(image.size) * scale >= _PNET_SIDE:
            size = int(image.width * scale + 1), int(image.height * scale + 1)
            # A level is made from the one before, so that a large photograph is read once.
            level = (found[-1][0] if found else image).resize(size, Image.Resampling.BOX)
            found.append((level, self._propose_on_level(self._tensor([level]), scale)))
            scale *= _SCALE_STEP
        if not found:
            return torch.empty(0, 4, device=self._device())
        boxes, scores, offsets = (torch.cat(parts) for parts in zip(*(level for _, level in found), strict=True))
        kept = nms(boxes, scores, _MAX_IOU)
        boxes, offsets = boxes[kept], offsets[kept]
        return _squares(boxes + offsets * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2))

    def _propose_on_level(self, level: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Windows (N, 4) in pixels of the image, scores (N,), offsets (N, 4)."""
        scores, offsets = self.pnet(level)
        rows, columns = (scores > _MIN_SCORES[0]).nonzero(as_tuple=True)
        corners = torch.stack([columns, rows], 1) * _STRIDE + 1
        windows = (torch.cat([corners, corners + _PNET_SIDE - 1], 1) / scale).floor()
        kept = nms(windows, scores[rows, columns], _LEVEL_IOU)
        rows, columns = rows[kept], columns[kept]
        return windows[kept], scores[rows, columns], offsets[:, rows, columns].T

    def _run(self, net: nn.Module, image: Image.Image, boxes: Tensor, side: int) -> list[Tensor]:
        """A net's outputs for the boxes (N, 4), each scaled to a square of `side`; outside the image is black."""
        corners = boxes.round().int()
        corners[:, 2:] = torch.maximum(corners[:, 2:], corners[:, :2] + 1)
        outputs = []
        for some in corners.split(_BATCH):
            crops = [image.crop(tuple(box)).resize((side, side), Image.Resampling.BOX) for box in some.tolist()]
            outputs.append(net(self._tensor(crops)))
        return [torch.cat(parts) for parts in zip(*outputs, strict=True)]

    def _tensor(self, images: list[Image.Image]) -> Tensor:
        """Images of one size -> (N, 3, H, W) float32 from -1 to 1, as in training."""
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).to(self._device())
        return (pixels.permute(0, 3, 1, 2).float() - 127.5) / 128

    def _device(self) -> torch.device:
        return self.pnet.conv1.weight.device


def _squares(boxes: Tensor) -> Tensor:
    """The squares around the middles of boxes (N, 4), as wide as their longer sides."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([middle - half, middle + half], 1)


def _regressed(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Boxes (N, 4) moved by R-Net's or O-Net's offsets."""
    return boxes + offsets * (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)


def _nms_by_share(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Non-maximum suppression where overlap is the share of the smaller box -> indices of the boxes that stay."""
    areas, kept = np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1), []
    todo = np.argsort(-scores, kind="stable")
    while len(todo):
        best, kept = todo[0], [*kept, todo[0]]
        low, high = np.maximum(boxes[todo, :2], boxes[best, :2]), np.minimum(boxes[todo, 2:], boxes[best, 2:])
        common = np.prod(np.maximum(high - low + 1, 0), axis=1)
        todo = todo[common / np.minimum(areas[todo], areas[best]) <= _MAX_SHARE]
    return np.array(kept, int)
