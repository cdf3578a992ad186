"""Hair as strands: where they grow, how a style combs, cuts and curls them, on the head before it is turned.

S strands of K points.  Every draw of a style is made whatever the style, so that a table of styles can be read as one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from pipelines.demo_model.faces.colors import HAIR_COLORS
from pipelines.demo_model.faces.fields import column, smoothstep, unit
from pipelines.demo_model.faces.head import AXIS_Z, BODY, EYES_Y, Head, Person, hairline
from pipelines.demo_model.faces.reach import Reach

STYLES = ("bald", "buzz", "short", "medium", "long", "curly", "tied")
_FEMALE = (0.01, 0.01, 0.12, 0.24, 0.36, 0.12, 0.14)
_MALE = (0.08, 0.14, 0.46, 0.12, 0.06, 0.12, 0.02)

#: Strands by style; thicker ones where there are fewer.
_STRANDS = {"buzz": 9000, "short": 5000, "medium": 4500, "long": 5000, "curly": 5000, "tied": 4000}

#: Length, dm; "tied" is as long as the way to the knot.
_LENGTH = {"buzz": (0.04, 0.14), "short": (0.25, 0.75), "medium": (0.9, 1.9), "long": (2.0, 4.2), "curly": (0.35, 1.6)}

#: How strongly strands bend downwards, per dm.
_GRAVITY = {"short": (0.5, 1.6), "medium": (1.2, 3), "long": (1.6, 4), "curly": (0, 1.2)}

#: Points of a strand; those not named have 18.
_POINTS = {"buzz": 6, "short": 10}

#: Strands of a ponytail or a bun.
_KNOT_STRANDS = 900


@dataclass(frozen=True)
class Hair:
    """The hair of one person; a bald one still has a hairline and the colour of brows and beard."""

    style: str
    color: np.ndarray  # (3,) linear
    receded: float  # dm
    strands: np.ndarray | None  # (S, K, 3) float32, dm, None for a bald head
    clump: np.ndarray  # (S, 3) random numbers that neighbouring strands share

    @property
    def bald(self) -> bool:
        return self.strands is None


def grow(rng: np.random.Generator, head: Head, person: Person, reach: Reach) -> Hair:
    style = str(rng.choice(STYLES, p=_FEMALE if person.female else _MALE))
    bare = 0.0 if person.female else max(0, rng.normal(0.03, 0.08)) + 0.12 * person.old * rng.random()
    receded = rng.normal(0, 0.03) + bare
    color = _random_color(rng, person.old)
    if style == "bald":
        return Hair(style, color, receded, None, np.zeros((0, 3)))
    strands, clump = _Growth(rng, head, person, reach, style, receded).strands()
    return Hair(style, color, receded, strands.astype(np.float32), clump)


def _random_color(rng: np.random.Generator, old: float) -> np.ndarray:
    natural = HAIR_COLORS[rng.integers(0, len(HAIR_COLORS) - 2)]
    color = natural * rng.uniform(0.8, 1.25) if rng.random() < 0.9 else rng.uniform(0.01, 0.6, 3)
    if old > 0.3 and rng.random() < 0.6:
        t = rng.uniform(0.3, 1)
        color = color * (1 - t) + HAIR_COLORS[rng.integers(9, 11)] * t
    return color


def roots(
    rng: np.random.Generator, head: Head, person: Person, triangles: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Random places on the triangles of a mask (T,): (count, 3) places, normals and places at rest; None for none."""
    corners = head.triangles[triangles]
    if len(corners) == 0:
        return None
    at = person.vertices[corners]
    area = np.linalg.norm(np.cross(at[:, 1] - at[:, 0], at[:, 2] - at[:, 0]), axis=1)
    chosen = rng.choice(len(corners), count, p=area / area.sum())
    uv = rng.random((count, 2))
    outside = uv.sum(1) > 1
    uv[outside] = 1 - uv[outside]
    weights = np.stack([1 - uv.sum(1), uv[:, 0], uv[:, 1]], 1).astype(np.float32)

    def mixed(values: np.ndarray) -> np.ndarray:
        return (values[corners[chosen]] * weights[:, :, None]).sum(1)

    return mixed(person.vertices), unit(mixed(person.normals)), mixed(head.rest)


class _Growth:
    """The steps from roots to strands; their order is the order of the random draws."""

    def __init__(
        self, rng: np.random.Generator, head: Head, person: Person, reach: Reach, style: str, receded: float
    ) -> None:
        self.rng, self.person, self.reach, self.style = rng, person, reach, style
        self.points = _POINTS.get(style, 18)
        above = hairline(head.rest, receded)
        scalp = (above[head.triangles].min(1) > -0.02) & (head.part == BODY)
        scalp &= head.vertex_ear[head.triangles].max(1) < 0.3
        rooted = roots(rng, head, person, scalp, _STRANDS[style])
        assert rooted is not None  # the crown is above every hairline
        self.roots, self.normals, self.rest = rooted
        self.count = len(self.roots)

    def strands(self) -> tuple[np.ndarray, np.ndarray]:
        """(S, K, 3) strands and (S, 3) what their clumps share."""
        rng, style, count = self.rng, self.style, self.count
        lengths = {name: rng.uniform(*limits) for name, limits in _LENGTH.items()}
        angle = np.degrees(np.arctan2(self.rest[:, 0], self.rest[:, 2] - AXIS_Z))
        front = np.exp(-((angle / 45) ** 2)) * smoothstep(7.5, 7.9, self.rest[:, 1])
        side = 1 - smoothstep(7.5, 8.1, self.rest[:, 1])
        parting = rng.choice([0, rng.uniform(0.15, 0.45), -rng.uniform(0.15, 0.45)])
        combed = str(rng.choice(["part", "back", "fringe"], p=[0.55, 0.25, 0.2]))
        comb = self._comb(parting, combed, front, side)

        # Clumps: the strands nearest to one of some leaders share its three random numbers.
        leaders = max(60, count // rng.integers(18, 60))
        leader = rng.choice(count, leaders, replace=False)
        nearest = KDTree(self.roots[leader]).query(self.roots)[1]
        clump = rng.standard_normal((leaders, 3))[nearest]
        comb += 0.22 * clump + 0.10 * rng.standard_normal((count, 3))
        along = unit(comb - (comb * self.normals).sum(1, keepdims=True) * self.normals, 1e-6)
        if style in ("short", "medium", "long"):
            lift = rng.uniform(0.15, 0.8)
        else:
            lift = {"tied": 0.15, "curly": 1.6, "buzz": 0.8}[style]
        direction = unit(along + lift * self.normals + 0.05 * rng.standard_normal((count, 3)))

        length = lengths.get(style, 1.0) * np.exp(0.10 * clump[:, 0] + 0.06 * rng.standard_normal(count))
        if style == "short":
            length *= np.where(side > 0.5, rng.uniform(0.25, 1.0), 1.0)
        if combed == "fringe" and style != "tied":
            fringe = rng.uniform(0.35, 0.62) * np.exp(0.08 * rng.standard_normal(count))
            length = np.where(front > 0.35, np.minimum(length, fringe), length)
        volume = rng.uniform(0.05, 0.2) if style == "curly" else rng.uniform(0.02, 0.14)
        clearance = volume * rng.random(count) + 0.012
        gravity = {name: rng.uniform(*limits) for name, limits in _GRAVITY.items()}.get(style, 0)
        if combed == "fringe":
            off_face = rng.uniform(0, 1)
        else:
            off_face = rng.uniform(0.6, 1.6) if rng.random() < 0.85 else rng.uniform(0, 0.5)
        knot, knot_radius, ponytail = None, 0.0, False
        if style == "tied":
            knot = self.reach.middle + np.array([0, rng.uniform(-0.35, 0.6), -1.0])
            knot_radius, ponytail = rng.uniform(0.25, 0.5), rng.random() < 0.55
            length = np.linalg.norm(knot - self.roots, axis=1) * 1.15

        strands, direction = self._walk(direction, length, clearance, gravity, off_face, parting, knot)
        t = np.linspace(0, 1, self.points)[None, :, None]
        gathered = rng.uniform(0, 0.6) * (0 if style in ("buzz", "tied") else 1)
        to_leader = (self.roots - self.roots[leader][nearest])[:, None] * 0.6
        strands = strands * (1 - gathered * t) + (strands[leader][nearest] + to_leader) * gathered * t
        strands = self._waved(strands, direction, length, clump)
        if knot is not None:
            more = self._ponytail(knot) if ponytail else self._bun(knot, knot_radius)
            strands = np.concatenate([strands, more])
            clump = np.concatenate([clump, rng.standard_normal((_KNOT_STRANDS, 3))])
        return strands, clump

    def _comb(self, parting: float, combed: str, front: np.ndarray, side: np.ndarray) -> np.ndarray:
        """(S, 3) where each strand is combed to: away from the parting, backwards, or forwards into a fringe."""
        sideways = np.tanh((self.rest[:, 0] - parting) / 0.12)
        zero = np.zeros(self.count)
        comb = np.stack([sideways, zero, np.full(self.count, self.rng.uniform(-0.7, 0.1))], 1)
        if combed == "back" or self.style == "tied":
            comb = np.stack([0.25 * sideways, zero + 0.1, zero - 1], 1)
        if combed == "fringe":
            comb = np.stack([0.35 * sideways, zero, zero + 0.25], 1)
            comb[:, 2] += front * 1.0
            comb[:, 2] -= (1 - front) * 0.5
        return comb + column(side) * np.array([0, -0.7, 0])

    def _walk(
        self,
        direction: np.ndarray,
        length: np.ndarray,
        clearance: np.ndarray,
        gravity: float,
        off_face: float,
        parting: float,
        knot: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(S, K, 3) points from the roots on, falling or drawn to the knot, outside of the head; last directions."""
        point, points = self.roots.copy(), [self.roots]
        steps = self.points - 1
        for k in range(steps):
            step = column(length / steps)
            if knot is not None:
                direction = direction * (1 - 0.35) + unit(knot - point, 1e-6) * 0.35 * (1 + k / steps)
            else:
                weight = 0.35 if self.style == "short" else 0.8
                direction = direction + gravity * step * np.array([0, -1.0, 0]) * weight
            direction = unit(direction, 1e-6)
            following = point + direction * step
            # Hair that would fall over the face is moved aside and back.
            y = following[:, 1] - self.person.eyes[1] + EYES_Y
            before_face = smoothstep(0.75, 1.05, following[:, 2]) * smoothstep(7.75, 7.45, y) * off_face
            following[:, 0] += np.where(following[:, 0] > parting, 1, -1) * before_face * step[:, 0] * 1.1
            following[:, 2] -= before_face * step[:, 0] * 0.5
            following = self.reach.pushed_out(following, clearance * np.minimum(1, (k + 1) / 4))
            direction = unit(following - point, 1e-6)
            point = following
            points.append(point)
        return np.stack(points, 1), direction

    def _waved(self, strands: np.ndarray, direction: np.ndarray, length: np.ndarray, clump: np.ndarray) -> np.ndarray:
        """The strands with waves or curls around the last direction, in phase within a clump."""
        rng = self.rng
        # amplitude, dm, and waves per 2 dm
        wave = {
            "buzz": (0, 1),
            "short": (rng.uniform(0, 0.03), rng.uniform(4, 10)),
            "medium": (rng.choice([0, rng.uniform(0.02, 0.08)]), rng.uniform(2, 7)),
            "long": (rng.choice([0, rng.uniform(0.02, 0.1)]), rng.uniform(1.5, 6)),
            "curly": (rng.uniform(0.04, 0.12), rng.uniform(6, 16)),
            "tied": (rng.uniform(0, 0.01), 3),
        }
        amplitude, frequency = wave[self.style]
        if amplitude == 0:
            return strands
        way = (column(length) * np.linspace(0, 1, self.points))[:, :, None]
        phase = (6.28 * clump[:, 1:2] + 0.35 * rng.standard_normal((self.count, 1)))[:, :, None]
        across = unit(np.cross(direction, [0.3, 0.2, 1.0]), 1e-6)
        upwards = np.cross(direction, across)
        turn = frequency * 6.28 * way * 0.5 + phase
        circle = np.sin(turn) * across[:, None] + np.cos(turn) * upwards[:, None]
        return strands + amplitude * np.minimum(1, way * 4) * circle

    def _ponytail(self, knot: np.ndarray) -> np.ndarray:
        rng = self.rng
        point = knot + 0.12 * rng.standard_normal((_KNOT_STRANDS, 3))
        direction = np.array([rng.normal(0, 0.5), -0.3, -0.6]) + 0.25 * rng.standard_normal((_KNOT_STRANDS, 3))
        points, length = [point], rng.uniform(1.2, 2.8)
        for _ in range(self.points - 1):
            direction = unit(direction + np.array([0, -0.25, 0]))
            clearance = 0.05 + 0.2 * rng.random(_KNOT_STRANDS)
            point = self.reach.pushed_out(point + direction * length / self.points, clearance)
            points.append(point)
        return np.stack(points, 1)

    def _bun(self, knot: np.ndarray, radius: float) -> np.ndarray:
        """Arcs of great circles on a ball."""
        rng = self.rng
        start = unit(rng.standard_normal((_KNOT_STRANDS, 3)))
        end = unit(np.cross(start, rng.standard_normal((_KNOT_STRANDS, 3))))
        angle = np.linspace(0, 1.6, self.points)[None, :, None]
        distance = radius * (0.9 + 0.1 * rng.random((_KNOT_STRANDS, 1, 1)))
        arcs = start[:, None] * np.cos(angle) + end[:, None] * np.sin(angle)
        return knot + np.array([0, 0, -0.15]) + distance * arcs
