"""Paint and labels of skin, lips, mouth, scalp and eyes, laid out by the place at rest (dm, see head.py)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.demo_model.faces.colors import IRIS_COLORS, SKIN_TONES, linear
from pipelines.demo_model.faces.fields import Noise, column, smoothstep, unit
from pipelines.demo_model.faces.hair import Hair
from pipelines.demo_model.faces.head import EYE_LEFT_IN_PICTURE, EYE_RIGHT_IN_PICTURE, TEETH, TONGUE, Head, hairline
from pipelines.demo_model.faces.scene import CLASS
from pipelines.demo_model.faces.surface import Mesh, Surface

#: What blood does to light that comes back from skin.
BLOOD = np.array([1.0, 0.72, 0.74])

#: The jaw's lower edge, where face becomes neck: height by z.
_JAW_Z, _JAW_Y = (0.2, 0.45, 0.6, 0.9, 1.2, 1.5), (6.95, 6.80, 6.5, 6.30, 6.20, 6.12)

#: The nose from below to the root: half its width by height.
_NOSE_Y = (6.80, 6.86, 6.95, 7.05, 7.2, 7.33, 7.40)
_NOSE_HALF_WIDTH = (0.10, 0.20, 0.215, 0.14, 0.095, 0.085, 0.06)

#: Height of the line between the lips.
_LIPS_Y = 6.6135


@dataclass(frozen=True)
class Complexion:
    color: np.ndarray  # (3,) linear
    tone: float  # 0 the lightest of SKIN_TONES, 9 the darkest


def paint_skin(rng: np.random.Generator, surface: Surface, female: bool) -> Complexion:
    """Tone, blotches, redder cheeks and nose, darker eye sockets, eye shadow, freckles."""
    darkest = len(SKIN_TONES) - 1
    tone = darkest * rng.beta(1.2, 1.5)
    step = int(tone)
    color = SKIN_TONES[step] * (1 - (tone - step)) + SKIN_TONES[min(darkest, step + 1)] * (tone - step)
    color = color * np.exp(rng.normal(0, 0.05, 3))
    surface.albedo *= color
    surface.albedo *= column(np.exp(0.05 * surface.blotches + rng.uniform(0.01, 0.06) * surface.grain))
    x, y, z = np.abs(surface.rest[:, 0]), surface.rest[:, 1], surface.rest[:, 2]

    def spot(at_x: float, at_y: float, width: float, height: float) -> np.ndarray:
        return np.exp(-(((x - at_x) / width) ** 2) - ((y - at_y) / height) ** 2) * (z > 0.4)

    def tint(weight: np.ndarray, by: np.ndarray) -> None:
        surface.blend(weight, surface.albedo * by)

    flush = rng.uniform(0.1, 0.6)
    tint(flush * np.clip(spot(0.42, 6.95, 0.22, 0.2) + 0.8 * spot(0, 6.88, 0.14, 0.1), 0, 1), BLOOD)
    tint(0.5 * flush * spot(0, 6.35, 0.2, 0.15), BLOOD)
    tint(rng.uniform(0, 0.6) * spot(0.3, 7.14, 0.18, 0.07), np.array([0.75, 0.68, 0.72]))
    tint(rng.uniform(0.1, 0.5) * spot(0.31, 7.36, 0.2, 0.08), np.array([0.8, 0.7, 0.68]))
    if female and rng.random() < 0.35:
        tint(rng.uniform(0.3, 0.9) * spot(0.33, 7.37, 0.2, 0.07), rng.uniform(0.2, 0.9, 3))
    if rng.random() < 0.15:
        freckles = surface.noise(14.0, 1) > 1.25
        surface.albedo[freckles & surface.body & (z > 0.6)] *= np.array([0.75, 0.6, 0.5])
    tint(surface.ear * 0.5, BLOOD)
    return Complexion(color, tone)


def label_skin(surface: Surface, receded: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels neck, face, ears and nose; the scalp (N,) bool and the dm above the hairline (N,)."""
    body, labels = surface.body, surface.labels
    x, y, z = surface.rest.T
    face = body & (y > np.interp(z, _JAW_Z, _JAW_Y)) & (z > 0.05)
    above = hairline(surface.rest, receded)
    scalp = body & (above > 0) & (surface.ear < 0.5)
    labels[body] = CLASS["neck"]
    labels[face] = CLASS["skin"]
    labels[scalp & (y > 6.5)] = CLASS["skin"]
    ear = body & (surface.ear > 0.5)
    labels[ear & (x < 0)] = CLASS["l_ear"]
    labels[ear & (x > 0)] = CLASS["r_ear"]
    lower_end = 6.795 - 0.035 * (np.abs(x) < 0.08)
    nose = face & (y > lower_end) & (y < 7.38) & (np.abs(x) < np.interp(y, _NOSE_Y, _NOSE_HALF_WIDTH)) & (z > 1.2)
    labels[nose] = CLASS["nose"]
    return scalp, above


def paint_mouth(rng: np.random.Generator, surface: Surface, skin: Complexion, female: bool) -> None:
    """Lips, with lipstick at times, the inside of the mouth, teeth and tongue."""
    lip = surface.lip > 0.5
    color = skin.color * np.array([0.85, 0.5, 0.52]) * rng.uniform(0.7, 1.15)
    if female and rng.random() < 0.6:
        lipstick = np.array([rng.uniform(0.45, 0.85), rng.uniform(0.1, 0.45), rng.uniform(0.15, 0.5)])
        color = color * (1 - 0.8) + 0.8 * linear(lipstick)
    weight = np.clip(surface.lip, 0, 1) * rng.uniform(0.5, 1.0)
    surface.blend(weight, color * column(np.exp(0.1 * surface.grain)))
    surface.shine[lip] = rng.uniform(0.03, 0.14)
    surface.labels[lip] = np.where(surface.rest[lip, 1] > _LIPS_Y, CLASS["u_lip"], CLASS["l_lip"])

    surface.albedo[surface.inside_mouth] = np.array([0.25, 0.06, 0.06]) * rng.uniform(0.4, 1.2)
    teeth, tongue = np.isin(surface.part, TEETH), surface.part == TONGUE
    surface.albedo[teeth] = np.array([0.75, 0.70, 0.6]) * rng.uniform(0.6, 1.1)
    surface.albedo[tongue] = [0.5, 0.16, 0.16]
    surface.shine[teeth | tongue] = 0.08
    surface.labels[surface.inside_mouth | teeth | tongue] = CLASS["mouth"]


def paint_scalp(rng: np.random.Generator, surface: Surface, hair: Hair, scalp: np.ndarray, above: np.ndarray) -> None:
    """The scalp (N,) in the shade of its hair, labelled hair; a bald one with a trace of stubble, left skin."""
    if hair.bald:
        if rng.random() < 0.5:
            stubble = surface.noise(20.0, 1) * 0.3 + 0.7
            low = np.interp(surface.rest[:, 1], [7.0, 7.8], [1, 0])
            surface.blend(np.clip(above / 0.1, 0, 1) * scalp * 0.3 * stubble * low, hair.color * 0.4)
        return
    surface.blend(np.clip(above / 0.12 + 0.3, 0, 1) * scalp * (0.6 if hair.style == "buzz" else 0.9), hair.color * 0.5)
    surface.labels[scalp] = CLASS["hair"]


def paint_eyes(
    rng: np.random.Generator, surface: Surface, mesh: Mesh, head: Head, noise: Noise, head_to_view: np.ndarray
) -> None:
    """Whites, irises and pupils around a random gaze; head_to_view (3, 3) turns the head into view."""
    iris = IRIS_COLORS[rng.choice(len(IRIS_COLORS), p=[0.3, 0.3, 0.12, 0.1, 0.1, 0.08])]
    aside, up = np.radians(rng.normal(0, [9, 5]))
    gaze = head_to_view @ np.array([np.sin(aside) * np.cos(up), np.sin(up), np.cos(aside) * np.cos(up)])
    for part, label in ((EYE_RIGHT_IN_PICTURE, CLASS["r_eye"]), (EYE_LEFT_IN_PICTURE, CLASS["l_eye"])):
        eye = surface.part == part
        if not eye.any():
            continue
        ball = mesh.vertices[: len(head.rest)][head.vertex_part == part]
        center = (ball.max(0) + ball.min(0)) / 2
        outwards = unit(surface.position[eye] - center, 1e-9)
        degrees = np.degrees(np.arccos(np.clip(outwards @ gaze, -1, 1)))  # from the middle of the pupil

        color = np.tile(np.array([0.72, 0.66, 0.62]) * rng.uniform(0.75, 1.1), (eye.sum(), 1))
        color *= np.array([1, 0.9, 0.88]) ** column(np.clip((degrees - 40) / 20, 0, 2))
        around = np.arctan2(outwards[:, 0] - gaze[0], outwards[:, 1] - gaze[1]) * 2
        spokes = noise(np.stack([around, degrees * 0, degrees * 0], 1), 2.0, 2)
        in_iris, in_pupil = column(smoothstep(27, 24.5, degrees)), column(smoothstep(11.5, 9.5, degrees))
        color = color * (1 - in_iris) + iris * column(np.exp(0.25 * spokes)) * in_iris
        color *= 1 - 0.6 * column(np.exp(-(((degrees - 25) / 2.5) ** 2)))
        surface.albedo[eye] = color * (1 - in_pupil) + 0.004 * in_pupil
        surface.labels[eye], surface.shine[eye], surface.sharpness[eye] = label, 0.05, 260.0
        surface.normal[eye] = outwards
        under_lid = np.clip((surface.position[eye][:, 1] - center[1]) / 0.1, 0, 1)
        surface.irradiance[eye] = surface.hard_irradiance[eye] * column(1 - 0.35 * under_lid)


def roughen(rng: np.random.Generator, surface: Surface, skin: Complexion, bare: np.ndarray, old: float) -> None:
    """Pores and wrinkles on bare skin (N,), and its shine, less on darker skin."""
    bumps = np.stack([surface.noise(34.0, 2, shift) for shift in (0, 5, 9)], 1)
    surface.bend(bare, bumps * rng.uniform(0.0, 0.07) * (1 + old))
    shine = rng.uniform(0.3, 1.6) * np.interp(skin.tone, [0, len(SKIN_TONES) - 1], [1, 0.55])
    surface.shine[bare & (surface.lip <= 0.5)] *= shine
