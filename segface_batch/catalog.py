"""The SegFace checkpoints, published and embedded, and the class tables they predict, as data.

Sources: the model zoo of github.com/Kartik-3004/SegFace (commit 9416628), its evaluation code for the class
names and their order, arXiv 2412.08647 for the F1 scores.  Standard library only, so that `--help` and a mistyped
name answer at once.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property

#: Hugging Face repository that holds `NAME/model_299.pt` for every checkpoint.
HUB_REPOSITORY = "kartiknarayan/SegFace"

Color = tuple[int, int, int]


@dataclass(frozen=True)
class FaceClass:
    """One class of a data set: its name there, what it covers, its colour (RGB) in drawings, and its `common` name in
    COMMON or PAIRED, "" where it has none.  The two classes of a pair share one."""

    name: str
    meaning: str
    color: Color
    common: str = ""


@dataclass(frozen=True)
class Dataset:
    """A labelled data set: the position of a class in `classes` is its id in every mask.

    `landmarks` says what an image must bring along, besides its pixels, to be cropped as in training:
    "" nothing, "five" the eyes, nose tip and mouth corners (LaPa's warp), "68" the iBUG points (Helen's crop).
    """

    name: str
    classes: tuple[FaceClass, ...]
    landmarks: str

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        return tuple(face_class.name for face_class in self.classes)

    def ids(self, *common: str) -> tuple[int, ...]:
        """The ids of the classes with these common names."""
        return tuple(index for name in common for index in self.by_common.get(name, ()))

    @cached_property
    def by_common(self) -> dict[str, tuple[int, ...]]:
        """The ids of the classes with each common name."""
        found: dict[str, tuple[int, ...]] = {}
        for index, face_class in enumerate(self.classes):
            found[face_class.common] = (*found.get(face_class.common, ()), index)
        return found


#: One vocabulary for all data sets.  Which class of a pair is the left one in the picture only positions tell.
COMMON = (
    "background", "skin", "nose", "mouth", "lip_upper", "lip_lower", "hair", "glasses", "hat", "earring", "necklace",
    "neck", "cloth",
)  # fmt: skip
PAIRED = ("brow", "eye", "ear")

#: What a face is made of: all that is seen of it between hairline, ears and chin.
FACE = ("skin", "brow", "eye", "nose", "mouth", "lip_upper", "lip_lower", "glasses")

#: Class id that means "everything else" in every table; drawings leave it unpainted.
BACKGROUND = 0


def _classes(*rows: tuple[str, str, Color, str]) -> tuple[FaceClass, ...]:
    return tuple(FaceClass(*row) for row in rows)


#: "l_" and "r_" are the data set's own words, and no source says whose left is meant; other tools call the same ids
#: the other way round.  Where the side matters, ask the position of the pixels, not the name.  Each row: name, meaning,
#: colour, common name.
CELEBAMASK_HQ = Dataset(
    "CelebAMask-HQ",
    _classes(
        ("background", "everything else", (0, 0, 0), "background"),
        ("neck", "neck", (226, 170, 122), "neck"),
        ("skin", "face skin", (255, 214, 170), "skin"),
        ("cloth", "clothing", (88, 104, 178), "cloth"),
        ("l_ear", "left ear", (214, 120, 90), "ear"),
        ("r_ear", "right ear", (240, 146, 70), "ear"),
        ("l_brow", "left eyebrow", (120, 72, 32), "brow"),
        ("r_brow", "right eyebrow", (158, 104, 52), "brow"),
        ("l_eye", "left eye", (40, 160, 220), "eye"),
        ("r_eye", "right eye", (20, 110, 190), "eye"),
        ("nose", "nose", (250, 190, 60), "nose"),
        ("mouth", "inside of the mouth, teeth", (255, 255, 255), "mouth"),
        ("l_lip", "lower lip", (196, 40, 70), "lip_lower"),
        ("u_lip", "upper lip", (232, 84, 110), "lip_upper"),
        ("hair", "hair", (102, 60, 150), "hair"),
        ("eye_g", "glasses", (0, 200, 160), "glasses"),
        ("hat", "hat or other head cover", (40, 140, 60), "hat"),
        ("ear_r", "earring", (255, 0, 220), "earring"),
        ("neck_l", "necklace", (200, 230, 0), "necklace"),
    ),
    landmarks="",
)

LAPA = Dataset(
    "LaPa",
    _classes(
        ("background", "everything else", (0, 0, 0), "background"),
        ("face_lr_rr", "face skin with both ears", (255, 214, 170), "skin"),
        ("lb", "left eyebrow", (120, 72, 32), "brow"),
        ("rb", "right eyebrow", (158, 104, 52), "brow"),
        ("le", "left eye", (40, 160, 220), "eye"),
        ("re", "right eye", (20, 110, 190), "eye"),
        ("nose", "nose", (250, 190, 60), "nose"),
        ("ul", "upper lip", (232, 84, 110), "lip_upper"),
        ("im", "inside of the mouth, teeth", (255, 255, 255), "mouth"),
        ("ll", "lower lip", (196, 40, 70), "lip_lower"),
        ("hair", "hair", (102, 60, 150), "hair"),
    ),
    landmarks="five",
)

HELEN = Dataset(
    "Helen",
    _classes(
        ("bg", "everything else", (0, 0, 0), "background"),
        ("face", "face skin", (255, 214, 170), "skin"),
        ("lb", "left eyebrow", (120, 72, 32), "brow"),
        ("rb", "right eyebrow", (158, 104, 52), "brow"),
        ("le", "left eye", (40, 160, 220), "eye"),
        ("re", "right eye", (20, 110, 190), "eye"),
        ("nose", "nose", (250, 190, 60), "nose"),
        ("ulip", "upper lip", (232, 84, 110), "lip_upper"),
        ("imouth", "inside of the mouth, teeth", (255, 255, 255), "mouth"),
        ("llip", "lower lip", (196, 40, 70), "lip_lower"),
        ("hair", "hair", (102, 60, 150), "hair"),
    ),
    landmarks="68",
)


@dataclass(frozen=True)
class Checkpoint:
    """A trained SegFace.

    `backbone` is the paper's name and a key of `model.backbones.BACKBONES`, `resolution` the side of the square
    input in pixels, `f1` the published mean F1 in percent (background excluded), None where none is stated.  `width`
    and `mlp_width` are sizes of the decoder.  An `asset` is a weights file that comes with the package, of a model
    that is not published; the `note` says what whoever chooses it must know.
    """

    name: str
    backbone: str
    resolution: int
    dataset: Dataset
    f1: float | None
    width: int = 256
    mlp_width: int = 2048
    asset: str | None = None
    note: str = ""

    @property
    def hub_file(self) -> str:
        return f"{self.name}/model_299.pt"


CHECKPOINTS: dict[str, Checkpoint] = {
    checkpoint.name: checkpoint
    for checkpoint in (
        Checkpoint("convnext_celeba_512", "convnext_base", 512, CELEBAMASK_HQ, 89.22),
        Checkpoint("efficientnet_celeba_512", "efficientnet", 512, CELEBAMASK_HQ, 88.94),
        Checkpoint("mobilenet_celeba_512", "mobilenet", 512, CELEBAMASK_HQ, 87.91),
        Checkpoint("resnet_celeba_512", "resnet", 512, CELEBAMASK_HQ, 87.50),
        Checkpoint("swinb_celeba_224", "swin_base", 224, CELEBAMASK_HQ, 87.47),
        Checkpoint("swinb_celeba_256", "swin_base", 256, CELEBAMASK_HQ, 87.66),
        Checkpoint("swinb_celeba_448", "swin_base", 448, CELEBAMASK_HQ, 88.77),
        Checkpoint("swinb_celeba_512", "swin_base", 512, CELEBAMASK_HQ, 88.96),
        Checkpoint("swinv2b_celeba_512", "swinv2_base", 512, CELEBAMASK_HQ, 88.73),
        Checkpoint("swinb_lapa_224", "swin_base", 224, LAPA, 92.50),
        Checkpoint("swinb_lapa_256", "swin_base", 256, LAPA, 92.61),
        Checkpoint("swinb_lapa_448", "swin_base", 448, LAPA, 93.03),
        Checkpoint("swinb_lapa_512", "swin_base", 512, LAPA, 93.03),
        Checkpoint("swinb_helen_512", "swin_base", 512, HELEN, None),
        Checkpoint(
            "demo-synthetic",
            "mobilenet_small",
            192,
            CELEBAMASK_HQ,
            None,
            width=128,
            mlp_width=1024,
            asset="demo-synthetic.safetensors",
            note="a small model trained on rendered faces alone; for trying things out, not for data that you keep",
        ),
    )
}

#: Those whose weights the hub has.
PUBLISHED = {name: checkpoint for name, checkpoint in CHECKPOINTS.items() if checkpoint.asset is None}

#: The embedded model, for trying things out: never chosen but by name or by the demo.
DEMO_CHECKPOINT = "demo-synthetic"

#: The published checkpoint with the best F1 on CelebAMask-HQ.
DEFAULT_CHECKPOINT = "convnext_celeba_512"


def find(name: str) -> Checkpoint:
    """The checkpoint of that name; ValueError with the nearest names for any other."""
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    near = difflib.get_close_matches(name, CHECKPOINTS, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of: {', '.join(CHECKPOINTS)}"
    raise ValueError(f"unknown checkpoint '{name}'; {hint} ('segface-batch checkpoints' lists them)")
