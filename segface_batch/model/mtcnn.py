"""MTCNN: finds faces and their five landmarks in a photograph of any size.

Zhang et al. 2016 (arXiv 1604.02878), "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks": a net of twelve pixels slides over a pyramid of the image, two larger ones look again at what it found.
The weights (assets/mtcnn.safetensors, 495,850 parameters in float16) are those of facenet-pytorch 2.6.0 (MIT; see
NOTICE); pipelines/convert_mtcnn.py made the file.

N: candidates; H, W: an image in pixels.
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

#: Sides of what the three nets look at, in pixels.
_PROPOSE, _REFINE, _LOCATE = 12, 24, 48

#: The proposing net looks at a window every two pixels.
_STRIDE = 2

#: One level of the pyramid to the next, and least scores of the three nets (the authors' values).
_SHRINK, _LEAST = 0.709, (0.6, 0.7, 0.7)

#: Overlaps above which the lower score goes: among the proposals of a level, of all levels, and in the end, where it
#: is the share of the smaller box.
_OF_A_LEVEL, _OF_ALL, _OF_THE_SMALLER = 0.5, 0.7, 0.7

#: Crops that go through a net together; a crowd has thousands of candidates.
_BATCH = 256


class _Proposals(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, H, W) -> score (H', W') and shift of the box's sides (4, H', W'), in sides of the window."""
        x = self.pool(self.prelu1(self.conv1(x)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_1(x).softmax(1)[0, 1], self.conv4_2(x)[0]


class _Refinement(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 24, 24) -> scores (N,) and shifts (N, 4)."""
        x = self.pool(self.prelu1(self.conv1(x)))
        x = self.pool(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x)).permute(0, 3, 2, 1).flatten(1)
        x = self.prelu4(self.dense4(x))
        return self.dense5_1(x).softmax(1)[:, 1], self.dense5_2(x)


class _Output(nn.Module):
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
        """(N, 3, 48, 48) -> scores (N,), shifts (N, 4), and five x then five y (N, 10) in sides of the box."""
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
        self.pnet, self.rnet, self.onet = _Proposals(), _Refinement(), _Output()
        self.load_state_dict(load_file(WEIGHTS))
        self.float().eval().requires_grad_(False)

    @torch.inference_mode()
    def detect(self, image: Image.Image) -> Faces:
        """An upright RGB image -> its faces, the largest first."""
        boxes = self._proposals(image)
        if len(boxes):
            scores, shifts = self._looked_at(self.rnet, image, boxes, _REFINE)
            enough = (scores > _LEAST[1]).nonzero().squeeze(1)
            kept = enough[nms(boxes[enough], scores[enough], _OF_ALL)]
            boxes = _squares(_shifted(boxes[kept], shifts[kept]))
        if not len(boxes):
            return NO_FACES
        faces = self._located(image, boxes)
        faces = faces.at(faces.scores >= max(_LEAST[2], self.min_score))
        faces = faces.at(_apart(faces.boxes, faces.scores))
        return faces.at((faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1) >= self.min_face).largest()

    @torch.inference_mode()
    def locate(self, image: Image.Image, boxes: np.ndarray) -> Faces:
        """The faces in given boxes (N, 4), one for each, with the landmarks and the score of the last net, however low
        that is.  It looks twice: at the square around a box, then where it has seen the face in it."""
        first = self._located(image, _squares(torch.from_numpy(boxes).to(self._device())))
        again = self._located(image, _squares(torch.from_numpy(first.boxes).to(self._device())))
        return Faces(boxes, again.scores, again.landmarks)

    def _located(self, image: Image.Image, squares: Tensor) -> Faces:
        """What the last net sees in squares (N, 4) of the image."""
        scores, shifts, points = self._looked_at(self.onet, image, squares, _LOCATE)
        sides = squares[:, 2:] - squares[:, :2] + 1
        landmarks = points.view(-1, 2, 5).transpose(1, 2) * sides[:, None] + squares[:, None, :2] - 1
        return Faces(_shifted(squares, shifts).cpu().numpy(), scores.cpu().numpy(), landmarks.cpu().numpy())

    def _proposals(self, image: Image.Image) -> Tensor:
        """(N, 4) squares that the first net takes for faces."""
        scale, found = _PROPOSE / self.min_face, []
        while min(image.size) * scale >= _PROPOSE:
            size = int(image.width * scale + 1), int(image.height * scale + 1)
            # A level is made from the one before, so that a large photograph is read once.
            level = (found[-1][0] if found else image).resize(size, Image.Resampling.BOX)
            found.append((level, self._of_a_level(self._tensor([level]), scale)))
            scale *= _SHRINK
        if not found:
            return torch.empty(0, 4, device=self._device())
        boxes, scores, shifts = (torch.cat(parts) for parts in zip(*(level for _, level in found), strict=True))
        kept = nms(boxes, scores, _OF_ALL)
        boxes, shifts = boxes[kept], shifts[kept]
        return _squares(boxes + shifts * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2))

    def _of_a_level(self, level: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Windows (N, 4) in pixels of the image, scores (N,), shifts (N, 4)."""
        scores, shifts = self.pnet(level)
        rows, columns = (scores > _LEAST[0]).nonzero(as_tuple=True)
        corners = torch.stack([columns, rows], 1) * _STRIDE + 1
        windows = (torch.cat([corners, corners + _PROPOSE - 1], 1) / scale).floor()
        kept = nms(windows, scores[rows, columns], _OF_A_LEVEL)
        rows, columns = rows[kept], columns[kept]
        return windows[kept], scores[rows, columns], shifts[:, rows, columns].T

    def _looked_at(self, net: nn.Module, image: Image.Image, boxes: Tensor, side: int) -> list[Tensor]:
        """What a net says of the squares of the image; outside it is black."""
        corners = boxes.round().int()
        corners[:, 2:] = torch.maximum(corners[:, 2:], corners[:, :2] + 1)
        answers = []
        for some in corners.split(_BATCH):
            crops = [image.crop(tuple(box)).resize((side, side), Image.Resampling.BOX) for box in some.tolist()]
            answers.append(net(self._tensor(crops)))
        return [torch.cat(parts) for parts in zip(*answers, strict=True)]

    def _tensor(self, images: list[Image.Image]) -> Tensor:
        """Images of one size -> (N, 3, H, W) as the nets were trained."""
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).to(self._device())
        return (pixels.permute(0, 3, 1, 2).float() - 127.5) / 128

    def _device(self) -> torch.device:
        return self.pnet.conv1.weight.device


def _squares(boxes: Tensor) -> Tensor:
    """The squares around the middles of boxes (N, 4), as wide as their longer sides."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([middle - half, middle + half], 1)


def _shifted(boxes: Tensor, shifts: Tensor) -> Tensor:
    """Boxes (N, 4) with every side moved by the second or third net's shift."""
    return boxes + shifts * (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)


def _apart(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Indices of the boxes that no better one covers, by the share of the smaller box."""
    areas, kept = np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1), []
    todo = np.argsort(-scores, kind="stable")
    while len(todo):
        best, kept = todo[0], [*kept, todo[0]]
        low, high = np.maximum(boxes[todo, :2], boxes[best, :2]), np.minimum(boxes[todo, 2:], boxes[best, 2:])
        common = np.prod(np.maximum(high - low + 1, 0), axis=1)
        todo = todo[common / np.minimum(areas[todo], areas[best]) <= _OF_THE_SMALLER]
    return np.array(kept, int)
