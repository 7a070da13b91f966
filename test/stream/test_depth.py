# SPDX-License-Identifier: MIT
"""Location from masks and depth images, without ROS. Truth: a pinhole, x = (u − cx)·z/fx."""

import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from xmem_ros.conversions.images import depth_from_image
from xmem_ros.errors import FrameError
from xmem_ros.stream.depth import Camera, Location, camera_of, locate, scaled_labels

HEIGHT, WIDTH = 240, 320
CAMERA = Camera(300.0, 290.0, 160.0, 118.0, (HEIGHT, WIDTH))
BOX = (100, 60, 80, 50)  # x, y, width, height
LABEL = 3
TRUE_CENTRE = ((139.5 - 160) / 300 * 1.5, (84.5 - 118) / 290 * 1.5, 1.5)
TRUE_SIZE = (79 / 300 * 1.5, 49 / 290 * 1.5)


def labels(box: tuple[int, int, int, int] = BOX) -> np.ndarray:
    x, y, width, height = box
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    image[y : y + height, x : x + width] = LABEL
    return image


def wall(object_at: float = 1.5, background: float = 4.0) -> np.ndarray:
    """Return the depth [m] of a plate in front of a wall."""
    return np.where(labels() > 0, np.float32(object_at), np.float32(background))


def place(depth: np.ndarray, image: np.ndarray | None = None) -> Location | None:
    return locate(depth, labels() if image is None else image, LABEL, BOX, CAMERA)


def assert_the_plate(found: Location | None, tolerance: float = 0.02, rim: int = 2) -> None:
    """The rim [px], 5 mm a pixel at 1.5 m, and the outermost 2 % on each side are left out."""
    assert found is not None
    assert found.position == pytest.approx(TRUE_CENTRE, abs=tolerance)
    assert found.centre == pytest.approx(TRUE_CENTRE, abs=tolerance)
    expected = [0.96 * (size - 2 * rim * 1.5 / 295) for size in TRUE_SIZE]
    assert found.size[:2] == pytest.approx(expected, abs=0.02)
    assert found.size[2] < tolerance


def test_a_plate_is_located_by_the_pinhole_model_for_depth_in_m_and_in_mm() -> None:
    assert_the_plate(place(wall()), 0.003)
    assert_the_plate(place((wall() * 1000).astype(np.uint16)), 0.003)


@pytest.mark.parametrize('hole', [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_invalid_depths_of_every_kind_are_ignored(hole: float) -> None:
    depth = wall()
    depth[np.random.default_rng(0).random(depth.shape) < 0.7] = hole
    assert_the_plate(place(depth))


def test_mixed_depths_at_the_rim_and_a_spilling_mask_do_not_move_the_location() -> None:
    depth = wall()
    plate, around = (depth < 2).astype(np.uint8), np.ones((5, 5))
    edge = cv2.dilate(plate, around) - cv2.erode(plate, around)
    depth[edge > 0] = 2.7  # between plate and wall
    assert_the_plate(place(depth))
    spilt = wall()
    spilt[60:110, 160:180] = 4.0  # a quarter of the mask shows the wall
    found = place(spilt)
    assert found is not None
    assert found.position[2] == pytest.approx(1.5)
    assert found.centre[2] == pytest.approx(1.5)
    assert found.size[2] < 0.01


def test_a_slanted_plate_keeps_its_extent_in_depth() -> None:
    """From 1.2 m on the left to 1.8 m on the right; no part is an outlier."""
    depth = wall()
    depth[60:110, 100:180] = np.linspace(1.2, 1.8, 80, dtype=np.float32)
    found = place(depth)
    assert found is not None
    assert found.position[2] == pytest.approx(1.5, abs=0.01)
    assert found.size[2] == pytest.approx(0.6, abs=0.06)


def test_a_mask_without_depth_has_no_location() -> None:
    depth = wall()
    depth[labels() > 0] = np.nan
    assert place(depth) is None
    assert place(np.zeros((HEIGHT, WIDTH), np.uint16)) is None
    assert place(wall(), np.zeros((HEIGHT, WIDTH), np.uint8)) is None


def test_a_mask_too_thin_for_erosion_is_used_whole() -> None:
    thin = (100, 60, 3, 50)
    found = locate(wall(), labels(thin), LABEL, thin, CAMERA)
    assert found is not None
    assert found.position == pytest.approx(((101 - 160) / 300 * 1.5, TRUE_CENTRE[1], 1.5), abs=0.003)


def test_a_box_across_the_border_is_clipped_to_the_image() -> None:
    corner = (WIDTH - 20, HEIGHT - 10, 20, 10)
    found = locate(np.full((HEIGHT, WIDTH), 2000, np.uint16), labels(corner), LABEL, corner, CAMERA)
    assert found is not None
    assert found.position[2] == pytest.approx(2.0)
    # the border of the image is not an edge of the object, so it is not eroded
    assert found.centre[0] + found.size[0] / 2 == pytest.approx((WIDTH - 1 - 160) / 300 * 2, abs=0.01)


def test_depth_of_half_the_size_gives_the_same_location() -> None:
    half = (HEIGHT // 2, WIDTH // 2)
    depth = cv2.resize(wall(), half[::-1], interpolation=cv2.INTER_NEAREST)
    found = locate(depth, scaled_labels(labels(), half), LABEL, [value / 2 for value in BOX], CAMERA.scaled(half))
    assert_the_plate(found, rim=4)


def test_depth_of_another_aspect_ratio_is_refused() -> None:
    with pytest.raises(FrameError, match='320×200 and the image 320×240'):
        scaled_labels(labels(), (200, 320))
    with pytest.raises(FrameError, match='320×200 and its camera_info 320×240'):
        CAMERA.scaled((200, 320))


def info(**changes: object) -> SimpleNamespace:
    p = [300.0, 0, 160, 0, 0, 290, 118, 0, 0, 0, 1, 0]
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    values = {'height': HEIGHT, 'width': WIDTH, 'p': p, 'k': [0.0] * 9, 'roi': roi, 'binning_x': 0, 'binning_y': 0}
    return SimpleNamespace(**{**values, **changes})


def test_a_camera_is_read_with_its_region_of_interest_and_binning() -> None:
    assert camera_of(info()) == CAMERA
    assert camera_of(info(p=[0.0] * 12, k=[300.0, 0, 160, 0, 290, 118, 0, 0, 1])) == CAMERA
    roi = SimpleNamespace(x_offset=40, y_offset=20, width=200, height=100)
    assert camera_of(info(roi=roi, binning_x=2, binning_y=2)) == Camera(150, 145, 60, 49, (50, 100))


@pytest.mark.parametrize('p', [[0.0] * 12, [float('nan'), 0, 160, 0, 0, 290, 118, 0, 0, 0, 1, 0]])
def test_a_camera_without_calibration_is_refused(p: list[float]) -> None:
    with pytest.raises(FrameError, match='calibrated camera'):
        camera_of(info(p=p))


def message(pixels: np.ndarray, encoding_: str, **changes: object) -> SimpleNamespace:
    values = {
        'height': pixels.shape[0],
        'width': pixels.shape[1],
        'encoding': encoding_,
        'step': pixels.shape[1] * pixels.itemsize,
        'is_bigendian': 0,
        'data': array.array('B', pixels.tobytes()),
    }
    return SimpleNamespace(**{**values, **changes})


@pytest.mark.parametrize(('encoding', 'kind'), [('16UC1', '<u2'), ('mono16', '<u2'), ('32FC1', '<f4')])
def test_depth_images_are_read_in_either_byte_order_and_with_padded_rows(encoding: str, kind: str) -> None:
    truth = np.array([[0, 1500, 65535], [7, 256, 12]]).astype(kind)
    for dtype, big in ((kind, 0), (kind.replace('<', '>'), 1)):
        padded = np.zeros((2, 5), dtype)
        padded[:, :3] = truth
        read = depth_from_image(message(padded, encoding, width=3, is_bigendian=big))
        assert np.array_equal(read, truth)
        assert read.dtype == (np.float32 if encoding == '32FC1' else np.uint16)


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'encoding': 'rgb8'}, "'rgb8' cannot be read; send depth as 16UC1 in mm or as 32FC1 in m"),
        ({'data': array.array('B', b'\0' * 5)}, 'cut off'),
        ({'step': 3}, 'set step'),
        ({'height': 0}, 'it has no pixels'),
    ],
)
def test_an_invalid_depth_image_is_refused(changes: dict, says: str) -> None:
    with pytest.raises(FrameError, match=says):
        depth_from_image(message(np.zeros((2, 3), np.uint16), '16UC1', **changes))
