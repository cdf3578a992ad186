"""Ten masks of rectangles, and every statistic of them worked out by hand.

All are of CelebAMask-HQ's classes, 40 x 40 pixels unless they say otherwise.  FRONTAL, from which most are made:

    row  4 to  8   hair, 24 wide                      rows 16 to 18   two eyes of 4 x 2, centroids (16, 17) and (24, 17)
    row  8 to 34   skin, 20 wide                      rows 18 to 24   a nose of 4 x 6, centroid (20, 21)
    row 13 to 14   two brows of 5 x 1                 rows 27 to 31   lips of 8 x 1 around a mouth of 8 x 2
    row 34 to 40   neck, 10 wide, over cloth from row 38

So D = 8; the middle between the eyes is (20, 17), the chin (20, 34), and T = 17.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segface_batch.catalog import CELEBAMASK_HQ
from segface_batch.images.masks import OUTSIDE

NAMES = CELEBAMASK_HQ.class_names

#: class, left, top, right, bottom; later ones lie over earlier ones.
Rectangle = tuple[str, int, int, int, int]

SKIN, HAIR = ("skin", 10, 8, 30, 34), ("hair", 8, 4, 32, 8)
BROWS = (("l_brow", 13, 13, 18, 14), ("r_brow", 22, 13, 27, 14))
EYES = (("l_eye", 14, 16, 18, 18), ("r_eye", 22, 16, 26, 18))
NOSE = ("nose", 18, 18, 22, 24)
LIPS = (("u_lip", 16, 27, 24, 28), ("l_lip", 16, 30, 24, 31))
MOUTH = ("mouth", 16, 28, 24, 30)
BUST = (("cloth", 5, 38, 35, 40), ("neck", 15, 34, 25, 40))
FRONTAL = (HAIR, SKIN, *BROWS, *EYES, NOSE, *LIPS, MOUTH, *BUST)

#: px, left, top, right, bottom, x, y, components, largest, sides.
Shape = tuple[int, int, int, int, int, float, float, int, int, int]

SHAPES: dict[str, Shape] = {
    # 1600 - 96 hair - 520 within the rectangle of skin - 60 neck - 40 cloth; sum of y: 1600 x 20 - 96 x 6 - 520 x 21
    # - 60 x 37 - 40 x 39.
    "background": (884, 0, 0, 40, 40, 20, 16724 / 884, 1, 884, 15),
    "neck": (60, 15, 34, 25, 40, 20, 37, 1, 60, 8),
    # Sum of y: 520 x 21 - 10 x 13.5 brows - 16 x 17 eyes - 24 x 21 nose - 8 x 27.5 - 8 x 30.5 lips - 16 x 29 mouth.
    "skin": (438, 10, 8, 30, 34, 20, 9081 / 438, 1, 438, 0),
    "cloth": (40, 5, 38, 35, 40, 20, 39, 2, 20, 8),
    "l_brow": (5, 13, 13, 18, 14, 15.5, 13.5, 1, 5, 0),
    "r_brow": (5, 22, 13, 27, 14, 24.5, 13.5, 1, 5, 0),
    "l_eye": (8, 14, 16, 18, 18, 16, 17, 1, 8, 0),
    "r_eye": (8, 22, 16, 26, 18, 24, 17, 1, 8, 0),
    "nose": (24, 18, 18, 22, 24, 20, 21, 1, 24, 0),
    "mouth": (16, 16, 28, 24, 30, 20, 29, 1, 16, 0),
    "l_lip": (8, 16, 30, 24, 31, 20, 30.5, 1, 8, 0),
    "u_lip": (8, 16, 27, 24, 28, 20, 27.5, 1, 8, 0),
    "hair": (96, 8, 4, 32, 8, 20, 6, 1, 96, 0),
}

MEASURES: dict[str, float | None] = {
    "face_px": 520,  # all of the rectangle of skin
    "eye_dist": 8,
    "roll": 0,
    "yaw_proxy": 0,
    "margin_left": 20 / 8,
    "margin_right": 20 / 8,
    "margin_above": 17 / 17,
    "margin_below": 23 / 17,
    "head_size": 17 / 40,
    "eye_open_left": 2 / 17,
    "eye_open_right": 2 / 17,
    "mouth_open": 2 / 17,
    "head_cover": 0,
    "hair_over_face": 0,
    "eyes_covered": 0,
    "mouth_covered": 0,
    "swapped": 0,
}

#: What needs both eyes.
NO_EYES: dict[str, float | None] = dict.fromkeys(
    (
        "eye_dist", "roll", "margin_left", "margin_right", "margin_above", "margin_below", "head_size",
        "eye_open_left", "eye_open_right", "mouth_open", "eyes_covered",
    )
)  # fmt: skip


@dataclass(frozen=True)
class HandMade:
    """A mask; its statistics are those of FRONTAL but for `measures` and `shapes` (None: no pixel of the class)."""

    name: str
    rectangles: tuple[Rectangle, ...]
    measures: dict[str, float | None] = field(default_factory=dict)
    shapes: dict[str, Shape | None] = field(default_factory=dict)
    transform: tuple[tuple[float, float, float], tuple[float, float, float]] = ((1, 0, 0), (0, 1, 0))
    size: tuple[int, int] = (40, 40)
    outside: tuple[int, int, int, int] | None = None

    @property
    def labels(self) -> np.ndarray:
        labels = np.zeros((40, 40), np.uint8)
        for name, left, top, right, bottom in self.rectangles:
            labels[top:bottom, left:right] = NAMES.index(name)
        if self.outside is not None:
            left, top, right, bottom = self.outside
            labels[top:bottom, left:right] = OUTSIDE
        return labels

    def expected(self) -> dict[str, Any]:
        """The value of every column that does not come from the network or from the pixels of a crop."""
        shapes = {name: shape for name, shape in (SHAPES | self.shapes).items() if shape is not None}
        pixels = sum(shape[0] for shape in shapes.values())
        found: dict[str, Any] = {"mask_pixels": pixels, "mask_width": 40, "mask_height": 40}
        for name in NAMES:
            px, left, top, right, bottom, x, y, components, largest, sides = shapes.get(
                name, (0, None, None, None, None, None, None, 0, 0, 0)
            )
            found |= {f"px_{name}": px, f"frac_{name}": px / pixels, f"sides_{name}": sides}
            found |= {f"left_{name}": left, f"top_{name}": top, f"right_{name}": right, f"bottom_{name}": bottom}
            found |= {f"x_{name}": x, f"y_{name}": y, f"components_{name}": components, f"largest_{name}": largest}
        return found | MEASURES | self.measures


HAND_MADE = (
    HandMade("frontal", FRONTAL),
    # The eyes' names are the other way round, and the right one in the picture is a row lower: roll = atan(1 / 8).
    # The middle is (20, 17.5), D = sqrt(65), T = 16.5.
    HandMade(
        "eyes named the other way round",
        (HAIR, SKIN, *BROWS, ("r_eye", 14, 16, 18, 18), ("l_eye", 22, 17, 26, 19), NOSE, *LIPS, MOUTH, *BUST),
        {
            "swapped": 2,
            "eye_dist": 65**0.5,
            "roll": 7.125016348901798,
            "margin_left": 20 / 65**0.5,
            "margin_right": 20 / 65**0.5,
            "margin_above": 17.5 / 16.5,
            "margin_below": 22.5 / 16.5,
            "head_size": 16.5 / 40,
            "eye_open_left": 2 / 16.5,
            "eye_open_right": 2 / 16.5,
            "mouth_open": 2 / 16.5,
        },
        {
            "r_eye": (8, 14, 16, 18, 18, 16, 17, 1, 8, 0),
            "l_eye": (8, 22, 17, 26, 19, 24, 18, 1, 8, 0),
            "skin": (438, 10, 8, 30, 34, 20, 9073 / 438, 1, 438, 0),  # 8 px of the eye one row lower
        },
    ),
    # The nose's centroid is at x = 16, and no brows.
    HandMade(
        "turned to the left",
        (HAIR, SKIN, EYES[0], EYES[1], ("nose", 14, 20, 18, 24), *LIPS, MOUTH, *BUST),
        {
            # Skin: 520 - 16 eyes - 16 nose - 32 mouth = 456.  Left of x = 16: 6 x 26 = 156, less half of the left eye
            # (4) and half of the nose (8) = 144.  Right: 312.
            "yaw_proxy": (312 - 144) / 456,
        },
        {
            "l_brow": None,
            "r_brow": None,
            "nose": (16, 14, 20, 18, 24, 16, 22, 1, 16, 0),
            # Sum of x: 520 x 20 - 8 x 16 - 8 x 24 - 16 x 16 - 32 x 20 = 9184.  Of y: 520 x 21 - 16 x 17 - 16 x 22
            # - 32 x 29 = 9368.
            "skin": (456, 10, 8, 30, 34, 9184 / 456, 9368 / 456, 1, 456, 0),
        },
    ),
    # A closed mouth: the lips meet, nothing is between them.
    HandMade(
        "closed mouth",
        (HAIR, SKIN, *BROWS, *EYES, NOSE, ("u_lip", 16, 28, 24, 29), ("l_lip", 16, 29, 24, 30), *BUST),
        {"mouth_open": 0},
        {
            "mouth": None,
            "u_lip": (8, 16, 28, 24, 29, 20, 28.5, 1, 8, 0),
            "l_lip": (8, 16, 29, 24, 30, 20, 29.5, 1, 8, 0),
            # 16 px of the mouth are skin's now; sum of y: 9081 + 16 x 29.
            "skin": (454, 10, 8, 30, 34, 20, 9545 / 454, 1, 454, 0),
        },
    ),
    # The left eye is covered by hair, which hangs over the face in rows 8 to 24: 6 of 20 columns.
    HandMade(
        "hair over an eye",
        (HAIR, SKIN, *BROWS, *EYES, NOSE, *LIPS, MOUTH, *BUST, ("hair", 12, 8, 18, 24)),
        {
            **NO_EYES,
            "face_px": 520 - 96,
            "hair_over_face": 96 / 520,
            # Skin left of x = 20: 260 - 5 brow - 8 eye - 12 nose - 16 mouth = 219, less 96 of hair but for the 5 of
            # brow and 8 of eye = 136; right 219.
            "yaw_proxy": (219 - 136) / 355,
        },
        {
            "l_brow": None,
            "l_eye": None,
            "hair": (192, 8, 4, 32, 24, (96 * 20 + 96 * 15) / 192, (96 * 6 + 96 * 16) / 192, 1, 192, 0),
            # Sum of x: 438 x 20 - (96 x 15 - 5 x 15.5 - 8 x 16) = 7525.5; of y: 9081 - (96 x 16 - 5 x 13.5 - 8 x 17).
            "skin": (355, 10, 8, 30, 34, 7525.5 / 355, 7748.5 / 355, 1, 355, 0),
        },
    ),
    # Glasses swallow both eyes.
    HandMade(
        "glasses",
        (HAIR, SKIN, *BROWS, *EYES, NOSE, *LIPS, MOUTH, *BUST, ("eye_g", 13, 15, 27, 18)),
        NO_EYES,
        {
            "l_eye": None,
            "r_eye": None,
            "eye_g": (42, 13, 15, 27, 18, 20, 16.5, 1, 42, 0),
            # 42 px of glasses lie over 16 of eyes and 26 of skin: sum of y 9081 - (42 x 16.5 - 16 x 17).
            "skin": (412, 10, 8, 30, 34, 20, 8660 / 412, 1, 412, 0),
        },
    ),
    # A hat over hair and forehead, touching the upper edge; 24 x 10 of the upper 20 rows are its.
    HandMade(
        "hat",
        (*FRONTAL, ("hat", 8, 0, 32, 10)),
        {"face_px": 480, "head_cover": 240 / 800},
        {
            "hat": (240, 8, 0, 32, 10, 20, 5, 1, 240, 2),
            "hair": None,
            # 40 px of skin are gone, from rows 8 and 9: 9081 - 40 x 9.
            "skin": (398, 10, 8 + 2, 30, 34, 20, 8721 / 398, 1, 398, 0),
            # 24 x 4 px above the hair and 8 px beside the forehead are gone; left and right are no longer connected.
            "background": (780, 0, 0, 40, 40, 20, (16724 - 96 * 2 - 8 * 9) / 780, 2, 390, 15),
        },
    ),
    # The crop is half as large as the image, 3 times as high as wide per pixel, and lies at (10, 5).
    # Eyes at (42, 56) and (58, 56): D = 16.  Chin at (50, 107): T = 51.  Heights are tripled.
    HandMade(
        "stretched image",
        FRONTAL,
        {
            "eye_dist": 16,
            "margin_left": 50 / 16,
            "margin_right": (120 - 50) / 16,
            "margin_above": 56 / 51,
            "margin_below": (150 - 56) / 51,
            "head_size": 51 / 150,
            "eye_open_left": 6 / 51,
            "eye_open_right": 6 / 51,
            "mouth_open": 6 / 51,
        },
        transform=((2, 0, 10), (0, 3, 5)),
        size=(120, 150),
    ),
    # The right 10 columns are not in the crop: 400 px, of which 8 hair, 10 cloth and 382 background.
    HandMade(
        "beyond the crop",
        FRONTAL,
        shapes={
            # Sum of x: 884 x 20 - (400 x 35 - 8 x 31 - 10 x 32.5); of y: 16724 - (400 x 20 - 8 x 6 - 10 x 39).  20 px
            # right of the neck are a piece of their own.
            "background": (502, 0, 0, 30, 40, 4253 / 502, 9162 / 502, 2, 482, 11),
            "hair": (88, 8, 4, 30, 8, 19, 6, 1, 88, 0),
            "cloth": (30, 5, 38, 30, 40, (20 * 10 + 10 * 27.5) / 30, 39, 2, 20, 8),
        },
        outside=(30, 0, 40, 40),
    ),
    # No face at all.
    HandMade(
        "nothing",
        (),
        {**dict.fromkeys(MEASURES), "face_px": 0, "head_cover": 0, "swapped": 0},
        {**dict.fromkeys(NAMES), "background": (1600, 0, 0, 40, 40, 20, 20, 1, 1600, 15)},
    ),
)
