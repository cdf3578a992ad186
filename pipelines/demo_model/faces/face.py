"""A face from a seed: a photo-like image, the class of every pixel, and five landmarks."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from pipelines.demo_model.faces import clothes, facial_hair, hair, skin, strands, surroundings, wear
from pipelines.demo_model.faces.fields import Noise
from pipelines.demo_model.faces.hat import random_hat
from pipelines.demo_model.faces.head import Head
from pipelines.demo_model.faces.light import Light
from pipelines.demo_model.faces.photo import develop, most_frequent
from pipelines.demo_model.faces.reach import Reach
from pipelines.demo_model.faces.scene import Canvas, Scene
from pipelines.demo_model.faces.surface import Surface, mesh_in_view
from pipelines.demo_model.faces.view import Camera, Pose

#: Rows and columns of the canvas for one of the image.
OVERSAMPLING = 2

#: Sigma of the background's widest blur, canvas pixels.
BACKGROUND_BLUR = 14


@dataclass(frozen=True)
class Face:
    """S is the side of the image."""

    image: np.ndarray  # (S, S, 3) uint8 sRGB
    labels: np.ndarray  # (S, S) uint8 class ids of CelebAMask-HQ
    landmarks: np.ndarray  # (5, 2) float32 x, y: eyes, nose tip, mouth corners, those at the left of the image first
    scene: Scene  # what was drawn, and from where


@functools.cache
def _head() -> Head:
    return Head()


def render(seed: int, side: int) -> Face:
    """The face of a seed, side pixels high and wide; at every side the same person in the same place.

    What is drawn first is decided first: the order of the steps is part of what a seed means.
    """
    rng, head = np.random.default_rng(seed), _head()
    canvas_side = side * OVERSAMPLING
    noise = Noise(rng)
    person = head.random_person(rng)
    reach = Reach(person, head.body)
    own_hair = hair.grow(rng, head, person, reach)
    with_hat, with_glasses = rng.random() < 0.26, rng.random() < 0.28
    with_earrings = rng.random() < (0.5 if person.female else 0.12)
    with_necklace = rng.random() < (0.42 if person.female else 0.14)
    hat = random_hat(rng, person, own_hair, reach) if with_hat else None
    pose = Pose(rng, person)
    camera = Camera(rng, person, pose, canvas_side)
    light = Light(rng)

    turned = pose(person.vertices)
    mesh = mesh_in_view(head, turned, hat, pose, camera)
    count = len(mesh.vertices)
    in_view = np.zeros((0, strands.SHADOW_STEP, 3), np.float32)
    if own_hair.strands is not None:
        in_view = camera.view(pose(own_hair.strands)).astype(np.float32)
    visible = light.visible(mesh.vertices, mesh.triangles, in_view[:, :: strands.SHADOW_STEP].reshape(-1, 3))
    visible[: len(head.rest)] = head.smoothed(visible[: len(head.rest)])
    irradiance, hard_irradiance = light.on_skin(mesh.normals, visible[:count])

    depth = np.zeros((canvas_side, canvas_side), np.float32)
    surface = Surface(mesh, head, camera, depth, irradiance, hard_irradiance, noise)
    complexion = skin.paint_skin(rng, surface, person.female)
    scalp, above_hairline = skin.label_skin(surface, own_hair.receded)
    skin.paint_mouth(rng, surface, complexion, person.female)
    beard = facial_hair.Beard(rng, own_hair, person.female)
    beard.paint(surface)
    brows = facial_hair.Brows(rng, own_hair, beard, complexion, person.female)
    brows.paint(surface)
    skin.paint_scalp(rng, surface, own_hair, scalp, above_hairline)
    skin.paint_eyes(rng, surface, mesh, head, noise, camera.rotation @ pose.rotation)
    cloth = clothes.paint_clothes(rng, surface, light.key)
    clothes.paint_hat(rng, surface)
    skin.roughen(rng, surface, complexion, surface.body & ~cloth, person.old)
    lit = surface.at_pixels(visible[:count, light.brightest])
    color = surface.albedo * surface.irradiance
    color += light.highlights(surface.normal, lit, surface.shine, surface.sharpness)

    image = surroundings.random_background(rng, canvas_side, BACKGROUND_BLUR)
    labels = np.zeros(depth.shape, np.uint8)
    image[surface.covered], labels[surface.covered] = color, surface.labels
    canvas = Canvas(image, labels, depth, np.zeros_like(depth))
    scene = Scene(rng, head, person, own_hair, reach, hat, pose, camera, light, canvas)
    strands.draw_lashes(scene, mesh.vertices)
    gloss = rng.uniform(0.1, 1.0)
    brows.draw(scene, turned, hard_irradiance)
    beard.draw(scene, turned, hard_irradiance)
    if own_hair.strands is not None:
        strands.draw_hair(scene, in_view, visible[count:], hat.hidden if hat else None, gloss)
    if with_earrings:
        wear.draw_earrings(scene)
    if with_necklace:
        wear.draw_necklace(scene)
    if with_glasses:
        wear.draw_glasses(scene)
    if rng.random() < 0.14:
        surroundings.draw_something_in_front(scene, complexion.color)
    photo = develop(rng, canvas, complexion.color, side)
    return Face(photo, most_frequent(canvas.labels, side), _landmarks(scene), scene)


def _landmarks(scene: Scene) -> np.ndarray:
    """(5, 2) float32 pixels of the image."""
    head, person, vertices = scene.head, scene.person, scene.person.vertices
    rest = head.rest[head.body]
    nose = head.body[np.argmax(np.where(np.abs(rest[:, 1] - 6.92) < 0.12, rest[:, 2], -9))]
    lips = head.lip_vertices
    left, right = lips[np.argmin(head.rest[lips, 0])], lips[np.argmax(head.rest[lips, 0])]
    before = [0, 0, 0.1]  # from the middle of an eye to its surface
    eyes = [person.eye_left + before, person.eye_right + before]
    places = np.stack([*eyes, vertices[nose], vertices[left], vertices[right]])
    return scene.camera.project(scene.camera.view(scene.pose.skull(places)))[0] / OVERSAMPLING
