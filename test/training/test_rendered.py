# SPDX-License-Identifier: MIT
"""Rendered videos: exact masks, reproducibility, and resumed runs."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.training.footage import FootageError, read_videos
from xmem_ros.training.rendered import Mesh, render

pytest.importorskip('pybullet')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('pictures')
    for number in range(3):
        cv2.imwrite(str(folder / f'{number}.png'), RenderedScene((96, 144), 2, 2, seed=number)[0][0])
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def test_rendered_videos_are_footage_with_moving_objects(pictures: Path, tmp_path: Path) -> None:
    render(tmp_path, [pictures], 3, frames=4, size=(64, 112), seed=1)
    videos = read_videos(tmp_path, 256)
    assert [len(video.frames) for video in videos] == [4, 4, 4]
    assert all(video.labels[0].any() for video in videos)
    assert all(not np.array_equal(video.labels[0], video.labels[3]) for video in videos)


def test_a_resumed_run_writes_the_same_files(pictures: Path, tmp_path: Path) -> None:
    render(tmp_path / 'whole', [pictures], 2, frames=2, size=(64, 112))
    render(tmp_path / 'parts', [pictures], 1, frames=2, size=(64, 112))
    # as left by a run killed in the second video, between images and masks
    left = tmp_path / 'parts' / 'JPEGImages' / 'rendered_0_00001'
    shutil.copytree(tmp_path / 'whole' / 'JPEGImages' / 'rendered_0_00001', left)
    first = next((tmp_path / 'parts' / 'JPEGImages').rglob('*.jpg'))
    written = first.stat().st_mtime_ns
    render(tmp_path / 'parts', [pictures], 2, frames=2, size=(64, 112))
    assert files_of(tmp_path / 'parts') == files_of(tmp_path / 'whole')
    assert first.stat().st_mtime_ns == written


def test_links_in_the_output_folder_are_refused(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'JPEGImages').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(FootageError, match='a symbolic link, which is not followed'):
        render(tmp_path / 'out', [pictures], 1, frames=2, size=(64, 112))
    assert not any((tmp_path / 'elsewhere').iterdir())


def test_a_texture_is_continuous_at_its_seam(tmp_path: Path) -> None:
    (tmp_path / 'm.obj').write_text(
        'v -1 0.1 0\nv -1 -0.1 0\nv -1 0 1\nv 1 0.1 0\nv 1 -0.1 0\nv 1 0 1\nf 1 2 3\nf 4 5 6\n'
    )
    mesh = Mesh.read(tmp_path / 'm.obj')
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(1)
    across = mesh.coordinates.reshape(-1, 3, 2)[..., 0]
    assert (across.max(1) - across.min(1) < 0.1).all()


def test_a_folder_without_pictures_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FootageError, match='no pictures in these folders'):
        render(tmp_path / 'out', [tmp_path], 1)
