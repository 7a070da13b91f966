# SPDX-License-Identifier: MIT
"""Training: losses against hand-computed values, clips, invalid folders, and resumed runs."""

import copy
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore
from torchvision.models import ResNet, resnet18, resnet50

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.errors import ParameterError, WeightsError
from xmem_ros.network.config import COMPACT, COMPACT_LITE
from xmem_ros.network.model import IMAGE_MEAN, IMAGE_STD, XMemNetwork
from xmem_ros.training import config as training_config
from xmem_ros.training.bag import read_bag
from xmem_ros.training.clips import Clips
from xmem_ros.training.config import ClipConfig, TrainingConfig, read_config
from xmem_ros.training.data import read_data
from xmem_ros.training.footage import Budget, Footage, FootageError, read_stills, read_videos, still_labels
from xmem_ros.training.forward import track_clip
from xmem_ros.training.imagenet import starting_network
from xmem_ros.training.loop import Trainer
from xmem_ros.training.losses import bootstrapped_cross_entropy, dice_loss, hardest_share
from xmem_ros.weights.checkpoint import load_network, save_network

CONFIGS_FOLDER = Path(__file__).parents[2] / 'config' / 'training'


NAN = float('nan')


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered scene as a video and as stills, in the layouts of training."""
    root = tmp_path_factory.mktemp('data')
    scene = RenderedScene((96, 144), 12, 2, seed=0)
    for folder in ('video/JPEGImages/scene', 'video/Annotations/scene', 'stills/images', 'stills/masks'):
        (root / folder).mkdir(parents=True)
    for number in range(12):
        frame, labels = scene[number]
        cv2.imwrite(str(root / f'video/JPEGImages/scene/{number:05}.png'), frame[:, :, ::-1])
        cv2.imwrite(str(root / f'video/Annotations/scene/{number:05}.png'), labels)
        if number < 3:
            cv2.imwrite(str(root / f'stills/images/{number}.png'), frame[:, :, ::-1])
            cv2.imwrite(str(root / f'stills/masks/{number}.png'), (labels == 1).astype(np.uint8) * 255)
    return root


def small(**changes: object) -> TrainingConfig:
    clips = ClipConfig(size=48, frames=3)
    config = TrainingConfig(
        videos=('video',), stills=('stills',), clips=clips, iterations=4, batch=2, warmup=1, workers=0, save_every=2
    )
    return dataclasses.replace(config, **changes)


def test_clips_are_made_of_the_smallest_pictures() -> None:
    stills = [
        Footage(f'{size}', [np.full((*size, 3), 90, np.uint8)], [np.ones(size, np.uint8)])
        for size in ((1, 1), (2, 3), (1, 40))
    ]
    config = ClipConfig(size=32, region_share=1.0, patch_share=1.0, paste=1.0, bend=1.0, perspective=1.0, small=1.0)
    clips = Clips([], stills, config, 0, 60)
    for index in range(60):
        assert torch.isfinite(clips[index][0]).all()


def test_clips_hold_the_first_frames_objects_and_repeat(data: Path) -> None:
    clips = Clips(read_videos(data / 'video', 256), read_stills(data / 'stills', 256), ClipConfig(size=48), 5, 20)
    for index in range(20):
        images, labels, valid = clips[index]
        assert images.shape == (3, 3, 48, 48)
        assert labels.shape == (3, 48, 48)
        assert torch.isfinite(images).all()
        assert set(labels.unique().tolist()) <= {0, 1, 2}
        assert [bool((labels[0] == slot).any()) for slot in (1, 2)] == valid.tolist()
    assert all(torch.equal(a, b) for a, b in zip(clips[3], clips[3], strict=True))


def test_objects_can_be_cut_away(data: Path) -> None:
    videos = read_videos(data / 'video', 256)
    videos = videos if len(videos) > 1 else videos + videos[:1]
    other = Footage('other', [np.zeros_like(frame) for frame in videos[0].frames], videos[0].labels)
    always = ClipConfig(size=64, frames=4, still_share=0.0, paste=0.0, absence=1.0, colour=0.0, blur=0.0)
    clips = Clips([videos[0], other], [], always, seed=0, length=20)
    for index in range(20):
        _, labels, _ = clips[index]
        shown = [bool(frame.any()) for frame in labels]
        assert shown[0]
        assert not all(shown)


def test_bootstrapping_takes_the_hardest_pixels() -> None:
    logits = torch.zeros(1, 2, 1, 4)
    logits[0, 1, 0] = torch.tensor([0.0, 10.0, 10.0, 10.0])
    labels = torch.ones(1, 1, 4, dtype=torch.int64)
    assert bootstrapped_cross_entropy(logits, labels, 0.25).item() == pytest.approx(np.log(2), abs=1e-5)
    assert bootstrapped_cross_entropy(logits, labels, 1.0).item() == pytest.approx(np.log(2) / 4, abs=1e-3)
    assert [hardest_share(i, 10, 20, 0.2) for i in (0, 15, 30)] == pytest.approx([1, 0.6, 0.2])


def test_dice_counts_only_objects_that_are_there() -> None:
    prob = torch.zeros(1, 2, 1, 4)
    prob[0, 0, 0, :2] = 1
    labels = torch.tensor([[[1, 1, 0, 0]]])
    assert dice_loss(prob, labels, torch.tensor([[True, False]])).item() == pytest.approx(0)
    shifted = torch.tensor([[[0, 1, 1, 0]]])
    # (2·1 + 1) / (2 + 2 + 1)
    assert dice_loss(prob, shifted, torch.tensor([[True, False]])).item() == pytest.approx(1 - 3 / 5)


def test_a_run_that_was_cut_off_ends_like_one_that_was_not(data: Path, tmp_path: Path) -> None:
    whole = Trainer(small(), data, tmp_path / 'whole')
    whole.run()
    half = Trainer(small(), data, tmp_path / 'half')
    half.data.length = 4  # clips of two iterations: it ends with the checkpoint of the second, as if killed then
    half.run()
    resumed = Trainer(small(), data, tmp_path / 'half')
    assert resumed.iteration == 2
    resumed.run()
    assert resumed.iteration == 4
    for kind in ('network', 'average'):
        states = [getattr(trainer, kind).state_dict() for trainer in (whole, resumed)]
        for name, value in states[0].items():
            assert torch.allclose(value, states[1][name], atol=1e-6), (kind, name)
    lines = [json.loads(line) for line in (tmp_path / 'whole' / 'log.jsonl').read_text().splitlines()]
    assert all(np.isfinite(line['dice']) for line in lines)


def test_faults_in_the_data_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FootageError, match='JPEGImages/SEQ'):
        read_videos(data / 'stills', 256)
    with pytest.raises(FootageError, match='no sequence nothing to leave out; there are scene'):
        read_data(small(leave_out=('nothing',)), data)
    with pytest.raises(FootageError, match=r'nowhere: no such folder; `videos` are relative to --data'):
        read_data(small(videos=('nowhere',)), data)
    for folder in ('images', 'masks'):
        (tmp_path / folder).mkdir()
    (tmp_path / 'images' / 'a.jpg').write_bytes(b'no image')
    with pytest.raises(FootageError, match=r'a\.jpg: an image without a mask; a\.png is missing'):
        read_stills(tmp_path, 256)
    cv2.imwrite(str(tmp_path / 'masks' / 'a.png'), np.zeros((4, 4), np.uint8))
    with pytest.raises(FootageError, match=r'a\.jpg: not a readable image'):
        read_stills(tmp_path, 256)
    with pytest.raises(FootageError, match=r'a\.jpg: not a readable image'):
        read_stills(tmp_path, 256, Budget(0))  # also where it is not kept in memory
    (tmp_path / 'masks' / 'b.png').write_bytes(b'')
    (tmp_path / 'images' / 'a.jpg').unlink()
    with pytest.raises(FootageError, match=r'a\.png: a mask without an image'):
        read_stills(tmp_path, 256)


def test_a_mask_without_its_image_is_named_and_a_frame_without_a_mask_left_out(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / 'video', tmp_path / 'video')
    (tmp_path / 'video/Annotations/scene/00003.png').unlink()
    (video,) = read_videos(tmp_path / 'video', 256)
    assert len(video.frames) == 11
    (tmp_path / 'video/JPEGImages/scene/00005.png').unlink()
    with pytest.raises(FootageError, match=r'00005\.png: a mask without an image'):
        read_videos(tmp_path / 'video', 256)


@pytest.mark.parametrize('inner', ['480p', ''])
@pytest.mark.parametrize('outer', ['train', ''])
def test_layouts_of_the_data_sets(data: Path, tmp_path: Path, inner: str, outer: str) -> None:
    for kind in ('JPEGImages', 'Annotations'):
        shutil.copytree(data / 'video' / kind, tmp_path / outer / kind / inner, dirs_exist_ok=True)
    (video,) = read_videos(tmp_path, 64)
    assert video.name == 'scene'
    assert min(video.frames[0].shape[:2]) == 64
    assert video.labels[0].shape == video.frames[0].shape[:2]
    assert set(np.unique(video.labels[0])) == {0, 1, 2}


def test_pictures_beside_their_masks(data: Path, tmp_path: Path) -> None:
    for number in range(2):
        frame = cv2.imread(str(data / f'stills/images/{number}.png'))
        cv2.imwrite(str(tmp_path / f'{number}.jpg'), frame)
        shutil.copy(data / f'stills/masks/{number}.png', tmp_path / f'{number}.png')
    stills = read_stills(tmp_path, 256)
    assert [still.name for still in stills] == [f'{tmp_path.name}/0', f'{tmp_path.name}/1']
    assert all(still.labels[0].max() == 1 for still in stills)
    (tmp_path / 'class').mkdir()
    for name in ('0.jpg', '0.png'):
        shutil.copy(tmp_path / name, tmp_path / 'class' / name)
    assert len(read_stills(tmp_path, 256)) == 3


@pytest.mark.parametrize(
    ('values', 'expected'),
    [((0, 255), (0, 1)), ((0, 100, 200), (0, 0, 1)), ((0, 1, 2, 255), (0, 1, 2, 0)), ((0, 3, 99, 255), (0, 0, 0, 1))],
)
def test_masks_of_stills(values: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert still_labels(np.array([values], np.uint8)).tolist() == [list(expected)]


def test_void_is_decided_for_the_whole_sequence(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / 'video', tmp_path, dirs_exist_ok=True)
    mask = tmp_path / 'Annotations/scene/00004.png'
    cv2.imwrite(str(mask), np.where(cv2.imread(str(mask), 0) > 0, 255, 0).astype(np.uint8))
    (video,) = read_videos(tmp_path, 256)
    assert not video.labels[4].any()
    for path in mask.parent.iterdir():
        cv2.imwrite(str(path), (cv2.imread(str(path), 0) > 0).astype(np.uint8) * 255)
    (video,) = read_videos(tmp_path, 256)
    assert all(set(np.unique(video.labels[i])) == {0, 1} for i in range(12))
    cv2.imwrite(str(mask), np.full((96, 144), 7, np.uint8))
    with pytest.raises(FootageError, match=r'00004\.png: value 7 in a sequence whose first mask holds only 0 and 255'):
        read_videos(tmp_path, 256)


def test_a_mask_of_another_shape_and_masks_of_no_sequence_are_named(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / 'video', tmp_path, dirs_exist_ok=True)
    cv2.imwrite(str(tmp_path / 'Annotations/scene/00004.png'), np.zeros((20, 300), np.uint8))
    with pytest.raises(FootageError, match=r'00004\.png: the mask is 300×20 px, its image 144×96'):
        read_videos(tmp_path, 256)
    (tmp_path / 'Annotations' / 'other').mkdir()
    with pytest.raises(FootageError, match='other: masks without images'):
        read_videos(tmp_path, 256)


def test_a_cut_short_image_is_named_before_the_first_step(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / 'video', tmp_path / 'video')
    file = tmp_path / 'video/JPEGImages/scene/00007.png'
    file.write_bytes(file.read_bytes()[:-2000])
    for room in (0, 1000):
        with pytest.raises(FootageError, match=r'00007\.png: not a readable image'):
            read_data(small(stills=(), cache_mb=room), tmp_path)


def test_a_subset_names_the_sequences(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / 'video', tmp_path / 'video')
    for kind in ('JPEGImages', 'Annotations'):
        shutil.copytree(tmp_path / 'video' / kind / 'scene', tmp_path / 'video' / kind / 'val')
    (tmp_path / 'train.txt').write_text('scene\n')
    config = small(stills=(), subsets=('train.txt',), strides=(5,), repeat=(2,))
    (video,) = read_data(config, tmp_path).videos
    assert (video.name, video.stride, video.weight) == ('scene', 5, 2)
    (tmp_path / 'train.txt').write_text('scene nothing\n')
    with pytest.raises(FootageError, match='no sequence nothing'):
        read_data(config, tmp_path)


def test_what_is_cut_in_is_of_another_video(data: Path) -> None:
    config = ClipConfig(size=48, frames=3, still_share=0.5, frame_share=1.0, absence=1.0, paste=0.0)
    (video,) = read_videos(data / 'video', 256)
    clips = Clips([video], [], config, 0, 20)
    assert all(frame.any() for index in range(20) for frame in clips[index][1][:1])
    # of one video nothing can be cut in: wherever nothing is labelled the object has moved out
    assert sum(bool(frame.any()) for index in range(20) for frame in clips[index][1]) > 50


@pytest.mark.parametrize(
    'file', sorted((Path(__file__).parents[2] / 'config/training').glob('*.yaml')), ids=lambda p: p.stem
)
def test_the_clips_of_a_preset_are_mostly_picture(file: Path) -> None:
    config = read_config(file, videos=('given',) if file.stem == 'finetune' else None)
    side = config.shorter_side
    white = np.full((side, round(side * 16 / 9), 3), 255, np.uint8)
    label = np.zeros(white.shape[:2], np.uint8)
    label[side // 3 : side // 2, side // 3 : side // 2] = 1
    footage = [Footage(str(i), [white] * 40, [label] * 40) for i in range(2)]
    clip_config = dataclasses.replace(config.clips, colour=0.0, blur=0.0, paste=0.0)
    clips = Clips(footage, footage, clip_config, 0, 40)
    black = np.mean([(clips[i][0].amax(1) < 0).float().mean().item() for i in range(40)])
    assert black < 0.2


def test_footage_on_disk_is_the_same_as_in_memory(data: Path) -> None:
    (kept,), (left,) = read_videos(data / 'video', 64), read_videos(data / 'video', 64, budget=Budget(0))
    assert all(np.array_equal(a, b) for a, b in zip(kept.frames, left.frames, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(kept.labels, left.labels, strict=True))


def test_the_end_of_each_video_can_be_held_back(data: Path) -> None:
    found = read_data(small(hold_back=0.25), data)
    assert len(found.videos[0].frames) == 9
    assert [(held.name, len(held.frames)) for held in found.held] == [('scene (end)', 3)]
    (whole,) = read_videos(data / 'video', 256)
    assert np.array_equal(found.held[0].frames[0], whole.frames[9])


def test_a_labelled_bag_is_a_video(data: Path, tmp_path: Path) -> None:
    (video,) = read_videos(data / 'video', 256)
    write_bag(tmp_path / 'bag', video)
    (bag,) = read_data(small(videos=('bag',), stills=()), tmp_path).videos
    assert len(bag.frames) == len(video.frames) - 1  # the last image has no labels
    assert all(np.array_equal(a, b) for a, b in zip(bag.frames, video.frames, strict=False))
    assert all(np.array_equal(a, b) for a, b in zip(bag.labels, video.labels, strict=False))
    write_bag(tmp_path / 'unlabelled', video, labels=False)
    with pytest.raises(FootageError, match='needs raw images and, on a topic ending in "labels"'):
        read_bag(tmp_path / 'unlabelled', 256)
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / 'metadata.yaml').write_text('no bag')
    with pytest.raises(FootageError, match='not a readable bag'):
        read_bag(tmp_path / 'broken', 256)
    with pytest.raises(FootageError, match='more footage than cache_mb has room for'):
        read_bag(tmp_path / 'bag', 256, Budget(1000))


def test_topics_of_a_bag_that_could_both_be_meant_are_named(data: Path, tmp_path: Path) -> None:
    (video,) = read_videos(data / 'video', 256)
    write_bag(tmp_path / 'bag', video, other='/rear/image')
    with pytest.raises(FootageError, match='/camera/image and /rear/image have the stamps of /xmem/labels'):
        read_bag(tmp_path / 'bag', 256)
    (bag,) = read_bag(tmp_path / 'bag', 256, image_topic='/camera/image')
    assert np.array_equal(bag.frames[0], video.frames[0])


def test_frames_before_the_first_seed_are_no_footage(data: Path, tmp_path: Path) -> None:
    (video,) = read_videos(data / 'video', 256)
    labels = [np.zeros_like(video.labels[0])] * 4 + list(video.labels)[4:]
    write_bag(tmp_path / 'bag', Footage('scene', video.frames, labels))
    (bag,) = read_bag(tmp_path / 'bag', 256)
    assert len(bag.frames) == 7
    assert np.array_equal(bag.frames[0], video.frames[4])


def write_bag(path: Path, video: Footage, *, labels: bool = True, other: str = '') -> None:
    """Write a bag of images at 10 Hz; all but the last have a label image of the same stamp."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    kinds = store.types
    with Writer(path, version=9) as writer:
        image = writer.add_connection('/camera/image', 'sensor_msgs/msg/Image', typestore=store)
        second = writer.add_connection(other, 'sensor_msgs/msg/Image', typestore=store) if other else None
        label = writer.add_connection('/xmem/labels', 'sensor_msgs/msg/Image', typestore=store) if labels else None
        for number, (frame, plane) in enumerate(zip(video.frames, video.labels, strict=True)):
            stamp = kinds['builtin_interfaces/msg/Time'](sec=number // 10, nanosec=number % 10 * 100_000_000)
            header = kinds['std_msgs/msg/Header'](stamp=stamp, frame_id='camera')

            def message(pixels: np.ndarray, encoding: str, header: object = header) -> bytes:
                height, width = pixels.shape[:2]
                made = kinds['sensor_msgs/msg/Image'](
                    header, height, width, encoding, 0, pixels[0].nbytes, np.ascontiguousarray(pixels).reshape(-1)
                )
                return store.serialize_cdr(made, 'sensor_msgs/msg/Image')

            writer.write(image, number * 100_000_000, message(frame, 'rgb8'))
            if second is not None:
                writer.write(second, number * 100_000_000, message(frame[:, ::-1], 'rgb8'))
            if label is not None and number < len(video.frames) - 1:
                writer.write(label, number * 100_000_000 + 50_000_000, message(plane, 'mono8'))


def test_skips_follow_the_curriculum(data: Path) -> None:
    config = ClipConfig(size=48, skips=((0.0, 2), (0.5, 7)))
    clips = Clips(read_videos(data / 'video', 256), [], config, 0, 100)
    assert [clips._max_skip(share) for share in (0, 0.49, 0.5, 1)] == [2, 2, 7, 7]


def test_memory_of_reference_frames_keeps_the_first() -> None:
    torch.manual_seed(0)
    network = XMemNetwork(COMPACT)
    images, first = torch.randn(1, 4, 3, 32, 32), torch.ones(1, 1, 32, 32)
    valid = torch.ones(1, 1, dtype=torch.bool)

    def run(frames: int) -> torch.Tensor:
        with torch.no_grad():
            return track_clip(network.eval(), images, first, valid, 0.0, torch.Generator().manual_seed(1), frames)

    everything, one = run(0), run(1)
    assert torch.equal(everything[:, 0], one[:, 0])  # the first frame is all there is to read
    assert not torch.equal(everything[:, 2], one[:, 2])
    assert torch.equal(everything, run(3))


def test_a_run_that_is_killed_goes_on_with_the_same_curve(data: Path, tmp_path: Path) -> None:
    file = tmp_path / 'run.yaml'
    file.write_text(
        'videos: [video]\nstills: [stills]\niterations: 6\nbatch: 2\nwarmup: 1\nsave_every: 2\nworkers: 1\n'
        'precision: float32\nclips: {size: 48, frames: 3}\n'
    )

    def command(out: str) -> list[str]:
        options = ['--config', str(file), '--data', str(data), '--out', str(tmp_path / out), '--device', 'cpu']
        return [sys.executable, '-m', 'xmem_ros.cli.main', 'train', *options]

    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    subprocess.run(command('whole'), env=environment, check=True, capture_output=True)
    process = subprocess.Popen(
        command('killed'), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    log = tmp_path / 'killed' / 'log.jsonl'
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count('\n') >= 3):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / 'killed' / 'last.pt').exists()
    subprocess.run(command('killed'), env=environment, check=True, capture_output=True)
    curves = [
        [(line['iteration'], line['cross_entropy'], line['dice']) for line in map(json.loads, text.splitlines())]
        for text in ((tmp_path / 'whole' / 'log.jsonl').read_text(), log.read_text())
    ]
    assert [line[0] for line in curves[0]] == [1, 2, 3, 4, 5, 6]
    assert curves[0] == curves[1]


def test_two_processes_train_as_one(data: Path, tmp_path: Path) -> None:
    """Batch norms are fixed, as in `xmem`, so a step does not depend on the number of processes."""
    file = tmp_path / 'run.yaml'
    file.write_text(
        'network: xmem\nvideos: [video]\niterations: 2\nbatch: 2\nwarmup: 0\nsave_every: 2\nworkers: 0\n'
        'learning_rate: 1.0e-4\nprecision: float32\nbootstrap: [10, 20, 0.3]\n'
        'clips: {size: 48, frames: 2, objects: 2, paste: 0.5}\n'
    )
    curves = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        command = ['xmem_ros.cli.main', 'train', '--config', str(file), '--data', str(data), '--out', str(out)]
        launcher = ['-m', 'torch.distributed.run', '--standalone', '--local-addr', '127.0.0.1']
        launcher += ['--nproc-per-node', '2']
        done = subprocess.run(
            [sys.executable, *(launcher if processes == 2 else []), '-m', *command, '--device', 'cpu'],
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (out / 'log.jsonl').read_text().splitlines()]
        assert [line['iteration'] for line in lines] == [1, 2]
        curves.append([(line['cross_entropy'], line['dice'], line['gradient']) for line in lines])
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-3)


def test_a_run_goes_on_only_with_its_own_settings(data: Path, tmp_path: Path) -> None:
    Trainer(small(iterations=2), data, tmp_path).run()
    with pytest.raises(ParameterError, match=r'of a run with other settings \(seed differ\); choose another --out'):
        Trainer(small(iterations=2, seed=1), data, tmp_path)
    again = Trainer(small(iterations=2, workers=1), data, tmp_path)
    assert again.iteration == 2
    (tmp_path / 'last.pt').write_bytes(b'damaged')
    with pytest.raises(WeightsError, match='remove it to begin anew'):
        Trainer(small(iterations=2), data, tmp_path)


HOSTILE = {
    'no dictionary': lambda saved: [1],
    'no settings': lambda saved: {**saved, 'config': 'small'},
    'an iteration that is a text': lambda saved: {**saved, 'iteration': 'last'},
    'an iteration below 0': lambda saved: {**saved, 'iteration': -5},
    'an iteration beyond the last': lambda saved: {**saved, 'iteration': 10**9},
    'a score that is not a number': lambda saved: {**saved, 'best': float('nan')},
    'no weights': lambda saved: {**saved, 'model': None},
    'no entry for weights': lambda saved: {k: v for k, v in saved.items() if k != 'model'},
    'weights that are numbers': lambda saved: {**saved, 'model': dict.fromkeys(saved['model'], 1)},
    'weights that are not finite': lambda saved: {**saved, 'model': {k: v * NAN for k, v in saved['model'].items()}},
    'weights of another shape': lambda saved: {**saved, 'ema': {k: v.flatten() for k, v in saved['ema'].items()}},
    'no average': lambda saved: {**saved, 'averaged': None},
    'no optimizer': lambda saved: {**saved, 'optimizer': {}},
    'an optimizer of another network': lambda saved: {
        **saved,
        'optimizer': {
            **saved['optimizer'],
            'state': {k: {**v, 'exp_avg': torch.zeros(3)} for k, v in saved['optimizer']['state'].items()},
        },
    },
    'no scaler': lambda saved: {k: v for k, v in saved.items() if k != 'scaler'},
}


@pytest.fixture(scope='module')
def finished(data: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('finished')
    Trainer(small(iterations=1), data, out).run()
    return out / 'last.pt'


@pytest.mark.parametrize('name', HOSTILE)
def test_a_checkpoint_that_no_run_wrote_is_refused(data: Path, finished: Path, tmp_path: Path, name: str) -> None:
    saved = torch.load(finished, weights_only=True)
    torch.save(HOSTILE[name](saved), tmp_path / 'last.pt')
    with pytest.raises((WeightsError, ParameterError), match=r'last\.pt'):
        Trainer(small(iterations=1), data, tmp_path)


def test_checkpoints_of_a_run_serve_as_weights(data: Path, tmp_path: Path) -> None:
    trainer = Trainer(small(iterations=2, hold_back=0.25, validate_every=1), data, tmp_path)
    trainer.run()
    average = trainer.averaged_network().state_dict()
    loaded = load_network(tmp_path / 'last.pt').state_dict()
    assert all(torch.equal(loaded[name], average[name]) for name in average)
    scores = [json.loads(line) for line in (tmp_path / 'validation.jsonl').read_text().splitlines()]
    best = torch.load(tmp_path / 'best.pt', weights_only=True)
    assert best['iteration'] == max(scores, key=lambda line: line['mean'])['iteration']
    kept = trainer.best_network().state_dict()
    assert all(torch.equal(kept[name], best['ema'][name]) for name in kept)


def test_fine_tuning_prints_before_and_after(data: Path, tmp_path: Path) -> None:
    preset, config = CONFIGS_FOLDER / 'finetune.yaml', tmp_path / 'smaller.yaml'
    smaller = preset.read_text().replace('size: 192', 'size: 64').replace('batch: 4', 'batch: 2')
    assert smaller.count('size: 64') == smaller.count('batch: 2') == 1
    config.write_text(smaller)
    options = ['--config', str(config), '--videos', str(data / 'video'), '--out', str(tmp_path / 'run')]
    options += ['--iterations', '2', '--device', 'cpu', '--export', str(tmp_path / 'mine.safetensors')]
    done = subprocess.run(
        [sys.executable, '-m', 'xmem_ros.cli.main', 'train', *options], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(('scene (end)', 'mean'))]
    assert [row[0] for row in rows] == ['scene', 'mean']
    assert all(0 < float(value) <= 100 for row in rows for value in row[-2:])
    assert load_network(tmp_path / 'mine.safetensors').config.key_dim == 48
    assert {'last.pt', 'best.pt', 'validation.jsonl'} <= {path.name for path in (tmp_path / 'run').iterdir()}


def test_what_comes_from_imagenet_is_where_it_belongs() -> None:
    key, value = resnet50(), resnet18()
    network = starting_network(key, value).eval()
    image = torch.randn(1, 3, 64, 64)

    def trunk(net: ResNet) -> torch.Tensor:
        x = net.eval().maxpool(net.relu(net.bn1(net.conv1(image))))
        return net.layer3(net.layer2(net.layer1(x)))

    with torch.no_grad():
        assert torch.allclose(network.encode_image(image).features[0], trunk(key), atol=1e-4)
        masks = torch.rand(1, 2, 64, 64)
        assert torch.allclose(network.value_encoder.trunk(torch.cat([image, masks], 1)), trunk(value), atol=1e-4)


def test_a_run_takes_the_shape_of_the_weights_that_it_starts_from(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / 'lite.safetensors'
    save_network(XMemNetwork(COMPACT_LITE), weights)
    settings = small(start_from=str(weights))
    assert Trainer(settings, data, tmp_path / 'run').network.config == COMPACT_LITE
    trainer = Trainer(dataclasses.replace(settings, iterations=2), data, tmp_path / 'run')
    trainer.run()
    weights.unlink()
    assert Trainer(dataclasses.replace(settings, iterations=2), data, tmp_path / 'run').network.config == COMPACT_LITE


def test_frozen_parts_stay_as_they_are(data: Path, tmp_path: Path) -> None:
    trainer = Trainer(small(frozen=('key_encoder', 'decoder.pred')), data, tmp_path / 'run')
    before = copy.deepcopy(trainer.network.state_dict())
    trainer.run()
    moved = {name for name, tensor in trainer.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not [name for name in moved if name.startswith(('key_encoder', 'decoder.pred'))]
    assert [name for name in moved if name.startswith('value_encoder')]
    with pytest.raises(ParameterError, match='no part nothing'):
        Trainer(small(frozen=('nothing',)), data, tmp_path / 'other')


def test_objects_can_grow_within_a_clip(data: Path) -> None:
    stills = read_stills(data / 'stills', 256)
    config = ClipConfig(size=64, still_share=1.0, paste=0.0, zoom=(0.25, 0.25), growth_factor=4.0)

    def change(growth: float) -> float:
        """Return the largest ratio of an object's areas within a clip."""
        clips = Clips([], stills, dataclasses.replace(config, growth=growth), 0, 12)
        areas = [(clip[1] == 1).sum((1, 2)) for clip in clips]
        return max(int(area.max()) / max(int(area.min()), 1) for area in areas)

    assert change(0.0) < 4 < change(1.0)


def test_what_lies_beyond_a_picture_is_black_or_another_picture(data: Path) -> None:
    stills = read_stills(data / 'stills', 256)
    config = ClipConfig(size=64, still_share=1.0, paste=0.0, growth=1.0, growth_factor=9.0, perspective=0.3)
    black = -torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1) / torch.tensor(IMAGE_STD).view(1, 3, 1, 1)

    def share(backdrop: bool) -> float:
        clips = Clips([], stills, dataclasses.replace(config, backdrop=backdrop), 0, 8)
        return float(np.mean([((clip[0] - black).abs().amax(1) < 1e-3).float().mean() for clip in clips]))

    assert share(False) > 0.05 > share(True)


def test_the_documentation_has_every_key() -> None:
    written = (Path(__file__).parents[2] / 'docs' / 'training.md').read_text()
    assert training_config.table() in written, 'python -m xmem_ros.training.config prints what belongs there'


def test_unusual_values_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / 'run.yaml'
    for text, message in (
        ('videos: [a]\niterations: 0\n', 'iterations is 0'),
        ('videos: [a]\nclips: {size: 100}\n', 'multiple of 16'),
        ('videos: [a]\nclips: {paste: 2}\n', r'clips\.paste is 2'),
        ('videos: [a]\nlearning_rate: 1e-4\n', 'write 1.0e-4'),
        ('videos: a\n', 'videos must be a list'),
        ('videos: [a]\nrepeat: [1, 2]\n', 'repeat has 2 entries, videos 1'),
        ('videos: [a]\nprecision: half\n', 'precision is'),
        ('iterations: 5\n', 'neither videos nor stills'),
        ('videos: [a]\nclips: 5\n', 'clips must be keys and values'),
        ('videos: [1]\n', 'videos must be str'),
        ('videos: [a]\nclips: {zoom: [a, b]}\n', r'clips\.zoom must be float'),
        ('videos: [a]\nclips: {skips: [5, 10]}\n', r'clips\.skips must hold pairs'),
        ('videos: [a]\nbootstrap: [0, 1]\n', 'bootstrap is'),
        ('videos: [a]\nrepeat: [0]\n', 'each is at least 1'),
        ('videos: [a]\nseed: -1\n', 'seed is -1'),
        ('videos: [a]\nlearning_rate: -1.0\n', r'learning_rate is -1\.0'),
        ('videos: [a]\nhold_back: 1.0\n', 'hold_back is'),
        ('5: a\n', 'expected keys and values'),
        ('videos: [a\n', 'not usable YAML'),
        ('- a\n', 'expected keys and values'),
    ):
        file.write_text(text)
        with pytest.raises(ParameterError, match=message):
            read_config(file)
    with pytest.raises(ParameterError, match='cannot be read'):
        read_config(tmp_path / 'absent.yaml')


def test_unknown_keys_of_a_run_are_named(tmp_path: Path) -> None:
    file = tmp_path / 'run.yaml'
    file.write_text('iteratons: 5\n')
    with pytest.raises(ParameterError, match='unknown key iteratons'):
        read_config(file)
    file.write_text('clips: {sise: 5}\n')
    with pytest.raises(ParameterError, match=r'unknown key clips\.sise'):
        read_config(file)


@pytest.mark.parametrize('file', sorted(CONFIGS_FOLDER.glob('*.yaml')), ids=lambda path: path.stem)
def test_the_presets_can_be_read(file: Path) -> None:
    config = read_config(file, videos=('given',) if file.stem == 'finetune' else None)
    compact = 'compact_joined' if file.stem == 'compact_joined' else 'compact'
    assert config.network == ('xmem' if file.stem.startswith('xmem') else compact)
