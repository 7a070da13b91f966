# SPDX-License-Identifier: MIT
"""Inputs that are not read, or read in part: a maker for each row of docs/inputs.md."""

from __future__ import annotations

import struct

import numpy as np
from bag_files import image_items, scene, stamp_of, write_bag, write_chunks
from PIL import Image
from video_files import disc, packets, write_video

from inputs.damage import SIZE
from xmem_ros.recordings import typestore

# --- videos


def damaged_frame(folder):
    path = write_video(folder / 'a.mp4')
    data = bytearray(path.read_bytes())
    place, size, _, _ = packets(path)[3]
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    return path


def cut(path, at):
    path.write_bytes(path.read_bytes()[:at])
    return path


def cut_video(folder):
    path = write_video(folder / 'a.mp4', 'mpeg4')
    return cut(path, packets(path)[12][0])


def cut_stream(folder):
    path = write_video(folder / 'a.ts')
    return cut(path, packets(path)[12][0] + 100)


def video_without_index(folder):
    path = write_video(folder / 'a.mov', 'mpeg4')
    return cut(path, path.stat().st_size // 2)


def late_stream(folder):
    path = write_video(folder / 'a.ts')
    path.write_bytes(path.read_bytes()[packets(path)[3][0] :])
    return path


def edited(folder, box, layout, offset, change):
    """Change a number in a box of an MP4; its offset counts from the box's kind."""
    path = write_video(folder / 'a.mp4')
    data = bytearray(path.read_bytes())
    place = data.index(box) + offset
    struct.pack_into(layout, data, place, change(struct.unpack_from(layout, data, place)[0]))
    path.write_bytes(data)
    return path


def odd_rotation(folder):
    return edited(folder, b'tkhd', '>i', 44 + 4, lambda _: 12345)


def not_a_video(folder):
    (folder / 'a.mp4').write_bytes(b'no video')
    return folder / 'a.mp4'


def deep_video(folder):
    return write_video(folder / 'a.mp4', pixels='yuv420p10le')


# --- folders


def pictures(folder):
    made = folder / 'pictures'
    made.mkdir()
    for index in range(12):
        Image.fromarray(disc(index, SIZE)).save(made / f'{index}.png')
    return made


def with_damaged_picture(folder):
    made = pictures(folder)
    cut(made / '3.png', 300)
    return made


def with_larger_picture(folder):
    made = pictures(folder)
    Image.fromarray(disc(3)).save(made / '3.png')
    return made


def with_notes(folder):
    made = pictures(folder)
    (made / 'notes.txt').write_text('no picture')
    return made


def with_two_of_a_name(folder):
    made = pictures(folder)
    Image.fromarray(disc(3, SIZE)).save(made / '3.jpg')
    return made


def empty_folder(folder):
    (folder / 'empty').mkdir()
    return folder / 'empty'


# --- bags


def cut_bag(folder):
    items = image_items(scene(8))
    return cut(write_chunks(folder / 'a.mcap', items), 5 * len(typestore.serialize(items[0][2])))


def damaged_chunk(folder, *, indexed=True):
    path = write_chunks(folder / 'a.mcap', image_items(scene(8)), indexed=indexed)
    data = bytearray(path.read_bytes())
    data[len(data) - len(data) // 4] ^= 1
    path.write_bytes(data)
    return path


def damaged_database(folder):
    path = write_bag(folder / 'bag', image_items(scene(20)), storage='sqlite3')
    return cut(path / 'bag.db3', 200_000)


def cut_compressed(folder):
    chance = np.random.default_rng(0)
    frames = [(chance.integers(0, 255, (*SIZE, 3), np.uint8), None) for _ in range(100)]
    path = write_bag(folder / 'bag', image_items(frames), compression='file')
    return cut(next(path.glob('*.zstd')), 1_500_000)


def changed_metadata(folder, change):
    path = write_bag(folder / 'bag', image_items(scene(8)))
    file = path / 'metadata.yaml'
    file.write_text(change(file.read_text()))
    return path


def without_metadata(folder):
    path = write_bag(folder / 'bag', image_items(scene(8)))
    (path / 'metadata.yaml').unlink()
    return path


def with_items(folder, change, *, compressed=False):
    items = image_items(scene(8), compressed=compressed)
    items[3] = change(items[3])
    return write_bag(folder / 'bag', items)


def damaged_jpeg(item):
    item[2].data = item[2].data.copy()
    item[2].data[20:] = 0
    return item


def other_message(item):
    return (*item[:2], (typestore.IMAGE, typestore.serialize(item[2])[:500]))


def two_topics(folder):
    return write_bag(folder / 'bag', [*image_items(scene(4)), *image_items(scene(4), '/other/image_raw')])


def no_images(folder):
    info = typestore.make('std_msgs/msg/String', data='')
    return write_bag(folder / 'bag', [('/text', stamp_of(0), info)])


def named(folder, name):
    (folder / name).write_bytes(b'nothing')
    return folder / name


# --- masks


def mask(folder, pixels):
    Image.fromarray(pixels).save(folder / 'mask.png')
    return folder / 'mask.png'


def soft(folder):
    rows, columns = np.mgrid[:96, :128]
    return mask(folder, np.clip(900 - 20 * np.hypot(rows - 48, columns - 64), 0, 255).astype(np.uint8))


def ramp(folder):
    return mask(folder, np.tile(np.arange(128, dtype=np.uint8), (96, 1)))


def coloured(folder):
    return mask(folder, disc(3) // np.array([1, 2, 3], np.uint8))


LOCAL = {
    'Videos: frame that is lost, damaged, or predicted from such a frame': damaged_frame,
    'Videos: end of a video that was cut off': cut_video,
    'Videos: end of an MPEG-TS that was cut off': cut_stream,
    'Videos: MP4 that was cut off before its index': video_without_index,
    'Videos: frames before the first keyframe of a stream': late_stream,
    'Videos: damaged times of display in an MP4': lambda to: edited(to, b'ctts', '>I', 16, lambda ticks: ticks + 100),
    'Videos: damaged time base of an MP4': lambda to: edited(to, b'mdhd', '>I', 16, lambda ticks: ticks * 1000),
    'Videos: frames outside the edit list of an MP4': lambda to: edited(
        to, b'elst', '>i', 16, lambda ticks: ticks + 8 * 512
    ),
    'Videos: rotation that is no quarter turn': odd_rotation,
    'Videos: file that is no video, or of an unknown codec': not_a_video,
    'Folders: picture that is damaged or cut off': with_damaged_picture,
    'Folders: picture of another size than the first': with_larger_picture,
    'Folders: order of the characters in the names': pictures,
    'Folders: files that are no pictures': with_notes,
    'Folders: pictures that differ only in the suffix': with_two_of_a_name,
    'Folders: folder without pictures': empty_folder,
    'Bags: end of an mcap file that was cut off': cut_bag,
    'Bags: images in a damaged chunk': damaged_chunk,
    'Bags: images from a damaged chunk on, if no message index follows it, or from a damaged row of a database on': (
        lambda to: damaged_chunk(to, indexed=False)
    ),
    'Bags: damaged part of a database': damaged_database,
    'Bags: end of a compressed file that was cut off': cut_compressed,
    'Bags: images that `metadata.yaml` counts, but no file has': lambda to: changed_metadata(
        to, lambda text: text.replace('message_count: 8', 'message_count: 9')
    ),
    'Bags: missing `metadata.yaml`': without_metadata,
    'Bags: unusable `metadata.yaml`': lambda to: changed_metadata(to, lambda _: 'nothing: 1'),
    'Bags: file that is missing': lambda to: changed_metadata(
        to, lambda text: text.replace('- bag.mcap', '- bag.mcap\n  - bag_1.mcap')
    ),
    'Bags: message that is no image': lambda to: with_items(to, other_message),
    'Bags: image that cannot be decoded': lambda to: with_items(to, damaged_jpeg, compressed=True),
    'Bags: other image topics': two_topics,
    'Bags: bag without images': no_images,
    'Bags: bag without a readable message': lambda to: named(to, 'a.mcap'),
    'Bags: ROS 1 bag': lambda to: named(to, 'a.bag'),
    'Masks and seeds: soft edges of one object': soft,
    'Masks and seeds: soft edges between objects, grey ramps, photographs': ramp,
    'Masks and seeds: colour image': coloured,
    'Masks and seeds: values above 255': lambda to: mask(to, np.arange(96 * 128, dtype=np.uint16).reshape(96, 128)),
    'Masks and seeds: damaged mask file': lambda to: named(to, 'mask.png'),
}
