"""The loops over pixels, vertices and strands, compiled by numba: z-buffers, ribbons, look-ups, value noise.

They know nothing of faces.  A screen position is (x, y) in pixels, y downwards, the centre of the first pixel at 0.5;
an inverse depth is 1 / dm, bigger is nearer.  V vertices, T triangles, S strands of K points, N any places.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

#: Strand segments longer than this many pixels come from points beside or behind the camera: they are left out.
LONGEST_SEGMENT = 200.0

#: The label of what is drawn without one, such as a beard: the pixel keeps the label of what lies beneath.
NO_LABEL = 255


@njit(cache=True, fastmath=True)
def triangles(xy, inverse_depth, corners, depth, hit, weights):
    """Draws triangles with a z-buffer.

    xy (V, 2), inverse_depth (V,), corners (T, 3) vertex numbers; changes depth (H, W) inverse depth, hit (H, W) the
    nearest triangle's number, weights (H, W, 3) its barycentrics, perspective-correct.
    """
    height, width = depth.shape
    for t in range(corners.shape[0]):
        a, b, c = corners[t, 0], corners[t, 1], corners[t, 2]
        x0, y0, x1, y1, x2, y2 = xy[a, 0], xy[a, 1], xy[b, 0], xy[b, 1], xy[c, 0], xy[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        left = max(0, math.ceil(min(x0, x1, x2) - 0.5))
        right = min(width - 1, math.floor(max(x0, x1, x2) - 0.5))
        top = max(0, math.ceil(min(y0, y1, y2) - 0.5))
        bottom = min(height - 1, math.floor(max(y0, y1, y2) - 0.5))
        inverse = 1.0 / area
        for y in range(top, bottom + 1):
            py = y + 0.5
            for x in range(left, right + 1):
                px = x + 0.5
                w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) * inverse
                w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) * inverse
                w2 = 1.0 - w0 - w1
                if w0 < -1e-6 or w1 < -1e-6 or w2 < -1e-6:
                    continue
                z = w0 * inverse_depth[a] + w1 * inverse_depth[b] + w2 * inverse_depth[c]
                if z > depth[y, x]:
                    depth[y, x] = z
                    hit[y, x] = t
                    weights[y, x, 0] = w0 * inverse_depth[a] / z
                    weights[y, x, 1] = w1 * inverse_depth[b] / z
                    weights[y, x, 2] = w2 * inverse_depth[c] / z


@njit(cache=True, fastmath=True)
def triangle_heights(xy, height, corners, highest):
    """Parallel projection: raises highest (n, n) to the triangles that lie over each cell; xy (V, 2), height (V,)."""
    n = highest.shape[0]
    for t in range(corners.shape[0]):
        a, b, c = corners[t, 0], corners[t, 1], corners[t, 2]
        x0, y0, x1, y1, x2, y2 = xy[a, 0], xy[a, 1], xy[b, 0], xy[b, 1], xy[c, 0], xy[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        left = max(0, math.ceil(min(x0, x1, x2) - 0.5))
        right = min(n - 1, math.floor(max(x0, x1, x2) - 0.5))
        top = max(0, math.ceil(min(y0, y1, y2) - 0.5))
        bottom = min(n - 1, math.floor(max(y0, y1, y2) - 0.5))
        inverse = 1.0 / area
        for y in range(top, bottom + 1):
            py = y + 0.5
            for x in range(left, right + 1):
                px = x + 0.5
                w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) * inverse
                w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) * inverse
                w2 = 1.0 - w0 - w1
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                z = w0 * height[a] + w1 * height[b] + w2 * height[c]
                if z > highest[y, x]:
                    highest[y, x] = z


@njit(cache=True, fastmath=True)
def point_heights(xy, height, highest):
    """Raises highest (n, n) to the points that lie over each cell; xy (N, 2), height (N,)."""
    n = highest.shape[0]
    for i in range(xy.shape[0]):
        x = int(xy[i, 0])
        y = int(xy[i, 1])
        if x >= 0 and y >= 0 and x < n and y < n and height[i] > highest[y, x]:
            highest[y, x] = height[i]


@njit(cache=True, fastmath=True)
def ribbons(xy, inverse_depth, color, width, depth, image, labels, coverage, label):
    """Draws strands with soft edges, as discs along their segments, where they are nearer than the z-buffer.

    xy (S, K, 2), inverse_depth (S, K), color (S, K, 3) linear, width (S, K) in pixels; changes depth, image, coverage
    (all (H, W, ...)), and labels where more than half of the pixel is covered, unless label is NO_LABEL.
    """
    rows, columns = depth.shape
    for s in range(xy.shape[0]):
        for k in range(xy.shape[1] - 1):
            x0, y0, x1, y1 = xy[s, k, 0], xy[s, k, 1], xy[s, k + 1, 0], xy[s, k + 1, 1]
            dx = x1 - x0
            dy = y1 - y0
            length = math.sqrt(dx * dx + dy * dy)
            if not (length < LONGEST_SEGMENT):
                continue
            if (x0 < -4 and x1 < -4) or (x0 > columns + 4 and x1 > columns + 4):
                continue
            if (y0 < -4 and y1 < -4) or (y0 > rows + 4 and y1 > rows + 4):
                continue
            steps = int(length / max(0.6, 0.3 * width[s, k])) + 1
            for step in range(steps):
                t = step / steps
                x = x0 + t * dx
                y = y0 + t * dy
                z = inverse_depth[s, k] + (inverse_depth[s, k + 1] - inverse_depth[s, k]) * t
                r = (width[s, k] + (width[s, k + 1] - width[s, k]) * t) * 0.5
                if r <= 0.01:
                    continue
                left = max(0, int(x - r))
                right = min(columns - 1, int(x + r))
                top = max(0, int(y - r))
                bottom = min(rows - 1, int(y + r))
                for row in range(top, bottom + 1):
                    for column in range(left, right + 1):
                        off_x = column + 0.5 - x
                        off_y = row + 0.5 - y
                        a = r + 0.5 - math.sqrt(off_x * off_x + off_y * off_y)
                        if a <= 0:
                            continue
                        if a > 1:
                            a = 1.0
                        if r < 0.5:
                            a *= 2 * r
                        if z > depth[row, column]:
                            for c in range(3):
                                here = color[s, k, c] + (color[s, k + 1, c] - color[s, k, c]) * t
                                image[row, column, c] += a * (here - image[row, column, c])
                            coverage[row, column] = 1 - (1 - coverage[row, column]) * (1 - a)
                            if label != NO_LABEL and coverage[row, column] > 0.5:
                                labels[row, column] = label
                            if a > 0.6:
                                depth[row, column] = z


@njit(cache=True, fastmath=True)
def at_pixels(values, corners, hit, weights):
    """(V, C) values of vertices -> (N, C) float64 of pixels, by their triangle hit (N,) and barycentrics (N, 3)."""
    n, channels = len(hit), values.shape[1]
    mixed = np.empty((n, channels))
    for i in range(n):
        p, q, r = corners[hit[i], 0], corners[hit[i], 1], corners[hit[i], 2]
        for k in range(channels):
            mixed[i, k] = values[p, k] * weights[i, 0] + values[q, k] * weights[i, 1] + values[r, k] * weights[i, 2]
    return mixed


@njit(cache=True, fastmath=True)
def bilinear(table, y, x):
    """(N,) float32 of table (H, W) at rows y and columns x; places outside take the nearest edge."""
    height, width = table.shape
    found = np.empty(len(y), np.float32)
    for i in range(len(y)):
        yy = min(max(y[i], 0.0), height - 1.0)
        xx = min(max(x[i], 0.0), width - 1.0)
        y0 = int(yy)
        x0 = int(xx)
        y1 = min(y0 + 1, height - 1)
        x1 = min(x0 + 1, width - 1)
        v = yy - y0
        u = xx - x0
        found[i] = (table[y0, x0] * (1 - u) + table[y0, x1] * u) * (1 - v) + (
            table[y1, x0] * (1 - u) + table[y1, x1] * u
        ) * v
    return found


@njit(cache=True, fastmath=True)
def value_noise(cube, places, frequency, octaves):
    """(N,) float32 at places (N, 3): the cube of random numbers, repeated without end and smoothed.

    Every octave is twice as fine and half as strong as the one before.
    """
    n = cube.shape[0]
    noise = np.zeros(len(places), np.float32)
    for i in range(len(places)):
        strength = 1.0
        scale = frequency
        total = 0.0
        for _ in range(octaves):
            x, y, z = places[i, 0] * scale, places[i, 1] * scale, places[i, 2] * scale
            x0, y0, z0 = math.floor(x), math.floor(y), math.floor(z)
            u, v, w = x - x0, y - y0, z - z0
            i0, j0, k0 = int(x0) % n, int(y0) % n, int(z0) % n
            i1, j1, k1 = (i0 + 1) % n, (j0 + 1) % n, (k0 + 1) % n
            c0 = (cube[i0, j0, k0] * (1 - w) + cube[i0, j0, k1] * w) * (1 - v) + (
                cube[i0, j1, k0] * (1 - w) + cube[i0, j1, k1] * w
            ) * v
            c1 = (cube[i1, j0, k0] * (1 - w) + cube[i1, j0, k1] * w) * (1 - v) + (
                cube[i1, j1, k0] * (1 - w) + cube[i1, j1, k1] * w
            ) * v
            total += strength * (c0 * (1 - u) + c1 * u)
            strength *= 0.5
            scale *= 2
        noise[i] = total
    return noise
