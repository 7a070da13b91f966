# SPDX-License-Identifier: MIT
"""Rendered videos with exact masks: textured meshes fly and tumble in front of a moving camera.

    python -m xmem_ros.training.rendered OUT --pictures DATA/static/coco/images … --videos 100

Writes OUT/JPEGImages/SEQ and OUT/Annotations/SEQ, for the key `videos` of a training run. A video
depends on --seed and its number alone and is written atomically, so the same command resumes an
interrupted run. Meshes, physics and renderer come from pybullet, part of the extra `training`.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xmem_ros.media import image_files, read_image, write_labels
from xmem_ros.progress import Bar
from xmem_ros.training.footage import FootageError

MESHES = 1000  # in random_urdfs of pybullet_data
TEXTURE = 256  # px, side
STEPS = 8  # physics steps per frame
FIELD_OF_VIEW = 50.0  # degrees, vertical
REACH = 2.5  # m, mean distance from the camera to the scene's centre


@dataclass(frozen=True)
class Mesh:
    """Triangle mesh without shared vertices, so that edges are sharp."""

    vertices: np.ndarray  # 3F×3, centred, radius 1
    normals: np.ndarray  # 3F×3
    coordinates: np.ndarray  # 3F×2, texture coordinates

    @classmethod
    def read(cls, path: Path) -> Mesh:
        """Read the triangles of an OBJ file; texture coordinates are spherical."""
        lines = [line.split() for line in path.read_text().splitlines()]
        points = np.array([line[1:4] for line in lines if line[:1] == ['v']], float)
        faces = [[int(part.split('/')[0]) - 1 for part in line[1:4]] for line in lines if line[:1] == ['f']]
        points -= (points.max(0) + points.min(0)) / 2
        points /= np.linalg.norm(points, axis=1).max()
        vertices = points[faces]
        normals = np.cross(vertices[:, 1] - vertices[:, 0], vertices[:, 2] - vertices[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        around = np.arctan2(vertices[..., 1], vertices[..., 0]) / (2 * math.pi) + 0.5
        # otherwise a triangle across the seam would show the whole texture
        around += (around < np.max(around, 1, keepdims=True) - 0.5).astype(float)
        up = np.arccos(np.clip(vertices[..., 2] / np.maximum(np.linalg.norm(vertices, axis=2), 1e-9), -1, 1)) / math.pi
        coordinates = np.stack([around, up], -1)
        return cls(vertices.reshape(-1, 3), np.repeat(normals, 3, 0), coordinates.reshape(-1, 2))


class Scene:
    """Objects, camera and light of one video; call `frame` for all numbers in ascending order."""

    def __init__(
        self, client: Any, seed: tuple[int, int], pictures: list[Path], size: tuple[int, int], frames: int, folder: Path
    ):
        import pybullet_data

        self.client, self.pictures, self.size, self.frames = client, pictures, size, frames
        self.rng = np.random.default_rng(seed)
        self.folder = folder  # for texture files, from which pybullet reads
        self.meshes = Path(pybullet_data.getDataPath()) / 'random_urdfs'
        client.resetSimulation()
        client.setGravity(0, 0, self.rng.choice([0.0, -2.0, -6.0]))
        client.setTimeStep(1 / (24 * STEPS))
        floor = client.createCollisionShape(client.GEOM_BOX, halfExtents=[20, 20, 0.5])
        client.createMultiBody(0, floor, basePosition=[0, 0, -1.2])
        self.backdrop = self._backdrop()
        self.bodies = [self._body() for _ in range(int(self.rng.integers(1, 6)))]
        self.camera = self.rng.normal(0, 1, (4, 2)) * [[0.5, 0.25], [0.3, 0.2], [0.25, 0.12], [0.3, 0.1]]
        self.zoom = self.rng.uniform(-1, 1) * math.log(2.5)  # change of log distance over the video
        self.light = self.rng.normal(0, 1, (2, 3))
        self.level = self.rng.uniform(0.5, 1.0), self.rng.uniform(-0.3, 0.3)
        self.blur = self.rng.random() < 0.4
        self.earlier: np.ndarray | None = None  # previous viewing direction, px

    def _picture(self) -> np.ndarray:
        return read_image(self.pictures[int(self.rng.integers(len(self.pictures)))])

    def _backdrop(self) -> np.ndarray:
        """Tile a mirrored picture over three times the width and height of the view."""
        picture = self._picture()
        scale = 1.5 * max(self.size[0] / picture.shape[0], self.size[1] / picture.shape[1])
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        rows, columns = (-(-3 * side // have) for side, have in zip(self.size, picture.shape[:2], strict=True))
        both = np.hstack([picture, picture[:, ::-1]] * (columns // 2 + 1))
        return np.vstack([both, both[::-1]] * (rows // 2 + 1))

    def _body(self) -> int:
        client, rng = self.client, self.rng
        number = int(rng.integers(MESHES))
        mesh = Mesh.read(self.meshes / f'{number:03}' / f'{number:03}.obj')
        stretch = np.exp(rng.normal(0, 0.25, 3)) * math.exp(rng.uniform(math.log(0.12), math.log(0.55)))
        vertices = mesh.vertices * stretch
        shape = client.createVisualShape(
            client.GEOM_MESH,
            vertices=vertices.tolist(),
            indices=list(range(len(vertices))),
            uvs=(mesh.coordinates * rng.choice([1, 2])).tolist(),
            normals=mesh.normals.tolist(),
            rgbaColor=[1, 1, 1, 1],
            specularColor=(np.ones(3) * rng.uniform(0, 0.6)).tolist(),
        )
        hull = client.createCollisionShape(client.GEOM_SPHERE, radius=float(stretch.min()))
        place = [rng.normal(0, 0.6), rng.uniform(-1.2, 1.2), rng.uniform(-0.5, 0.8)]
        turned = rng.normal(0, 1, 4)
        body = client.createMultiBody(1.0, hull, shape, place, (turned / np.linalg.norm(turned)).tolist())
        client.resetBaseVelocity(
            body, (rng.normal(0, 1, 3) * [0.5, 0.9, 0.8]).tolist(), (rng.normal(0, 1, 3) * rng.uniform(0, 3)).tolist()
        )
        client.changeDynamics(body, -1, restitution=0.7, rollingFriction=0.001, linearDamping=0, angularDamping=0)
        texture = self.folder / 'texture.png'
        picture = self._picture()
        side = int(min(picture.shape[:2]) * rng.uniform(0.4, 1.0))
        top, left = (int(rng.integers(have - side + 1)) for have in picture.shape[:2])
        picture = cv2.resize(picture[top : top + side, left : left + side], (TEXTURE, TEXTURE))
        cv2.imwrite(str(texture), picture[:, :, ::-1])
        client.changeVisualShape(body, -1, textureUniqueId=client.loadTexture(str(texture)))
        return body

    def frame(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Render the next frame: H×W×3 uint8 RGB and H×W uint8 labels, o+1 for object o."""
        for _ in range(STEPS if number else 0):
            self.client.stepSimulation()
        height, width = self.size
        time = number / max(self.frames - 1, 1)
        wave = 2 * math.pi * time
        swing, look, drift, shake = self.camera
        yaw, pitch = swing * math.sin(wave) + drift * 2 * (time - 0.5)
        distance = REACH * math.exp(self.zoom * (time - 0.5))
        eye = distance * np.array([math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), math.sin(pitch)])
        aside = look * math.sin(wave + 1) + shake * 0.1 * math.sin(9 * wave)
        target = [0.0, float(aside[0]), float(aside[1])]
        view = self.client.computeViewMatrix(eye.tolist(), target, [0, 0, 1])
        projection = self.client.computeProjectionMatrixFOV(FIELD_OF_VIEW, width / height, 0.1, 30)
        start, end = self.light
        light = (1 - time) * start + time * end + np.array([1.5, 0, 1.5])
        _, _, rgb, _, bodies = self.client.getCameraImage(
            width,
            height,
            view,
            projection,
            lightDirection=light.tolist(),
            lightAmbientCoeff=0.55,
            lightDiffuseCoeff=0.45,
            shadow=0,
            renderer=self.client.ER_TINY_RENDERER,
        )
        rgb = np.asarray(rgb, np.uint8).reshape(height, width, 4)[:, :, :3]
        labels = np.zeros((height, width), np.uint8)
        for label, body in enumerate(self.bodies, 1):
            labels[np.asarray(bodies).reshape(height, width) == body] = label
        image = self._composed(rgb, labels, np.array([yaw, pitch]), aside)
        level = self.level[0] + self.level[1] * time
        return np.clip(image * level / 0.75, 0, 255).astype(np.uint8), labels

    def _composed(self, rgb: np.ndarray, labels: np.ndarray, angles: np.ndarray, aside: np.ndarray) -> np.ndarray:
        """Compose objects and backdrop, with soft edges and motion blur of the camera."""
        height, width = self.size
        focal = height / (2 * math.tan(math.radians(FIELD_OF_VIEW / 2)))
        look = (angles - np.arctan(aside / REACH)) * focal * [-1, 1]  # px to the right and up
        free = np.array([self.backdrop.shape[1] - width, self.backdrop.shape[0] - height])
        left, top = np.clip(free / 2 + look * [1, -1], 0, free).astype(int)
        backdrop = self.backdrop[top : top + height, left : left + width]
        alpha = cv2.GaussianBlur((labels > 0).astype(np.float32), (3, 3), 0)[:, :, None]
        image = rgb * alpha + backdrop * (1 - alpha)
        moved = 0.0 if self.earlier is None else float(np.linalg.norm(look - self.earlier))
        self.earlier = look
        length = min(int(moved / 2), 9)
        return cv2.blur(image, (length, 1)) if self.blur and length > 1 else image


def render(
    out: Path, pictures: list[Path], videos: int, *, frames: int = 24, size: tuple[int, int] = (240, 432), seed: int = 0
) -> None:
    """Write the videos that do not exist yet; raises `FootageError`."""
    try:
        import pybullet
        from pybullet_utils.bullet_client import BulletClient
    except ImportError as error:
        raise FootageError('rendering needs pybullet, which is not installed: pip install pybullet') from error
    files = [path for folder in pictures for path in image_files(folder)]
    if not files:
        raise FootageError(
            f'{", ".join(map(str, pictures))}: no pictures in these folders, to use as textures and backgrounds'
        )
    client = BulletClient(pybullet.DIRECT)
    try:
        for number in Bar(range(videos), desc=f'rendering to {out}', unit='video'):
            name = f'rendered_{seed}_{number:05}'
            # the folder of masks is renamed last
            if not (out / 'Annotations' / name).is_dir():
                _write(out, name, lambda part, n=number: Scene(client, (seed, n), files, size, frames, part), frames)
    finally:
        client.disconnect()


def _write(out: Path, name: str, make: Any, frames: int) -> None:
    targets = {'images': out / 'JPEGImages', 'masks': out / 'Annotations'}
    for target in targets.values():
        if target.is_symlink():
            raise FootageError(f'{target}: a symbolic link, which is not followed; move it away')
        target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{name}.', dir=out) as folder:
        part = Path(folder)
        for kind in targets:
            (part / kind).mkdir()
        scene = make(part)
        for number in range(frames):
            image, labels = scene.frame(number)
            cv2.imwrite(str(part / 'images' / f'{number:05}.jpg'), image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
            write_labels(part / 'masks' / f'{number:05}.png', labels)
        for kind, target in targets.items():
            # a run that was killed between the two has left the same images
            if not (target / name).exists():
                (part / kind).rename(target / name)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder for the videos')
    parser.add_argument('--pictures', type=Path, nargs='+', required=True, help='folders of pictures')
    parser.add_argument('--videos', type=int, default=100, help='(default: %(default)s)')
    parser.add_argument('--frames', type=int, default=24, help='of each video (default: %(default)s)')
    parser.add_argument('--size', type=int, nargs=2, default=(240, 432), metavar=('HEIGHT', 'WIDTH'), help='px')
    parser.add_argument('--seed', type=int, default=0, help='(default: %(default)s)')
    args = parser.parse_args()
    render(args.out, args.pictures, args.videos, frames=args.frames, size=tuple(args.size), seed=args.seed)


if __name__ == '__main__':
    main()
