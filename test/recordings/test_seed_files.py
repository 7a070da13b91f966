# SPDX-License-Identifier: MIT
"""Seeds on the command line and in files, and their errors."""

from __future__ import annotations

import numpy as np
import pytest
from needs import require

require('rosbags.rosbag2')

from scene_files import save_mask

from xmem_ros.conversions.seeds import BOX, MASK, POINTS
from xmem_ros.errors import ParameterError, SeedError
from xmem_ros.parameters.docs import track_yaml
from xmem_ros.parameters.table import Parameters
from xmem_ros.parameters.yaml_file import read_parameters
from xmem_ros.recordings.seed_files import ImageReference, SeedReader, parse_box, parse_image_reference

FILE = """
- frame: 0
  objects:
  - {name: cup, box: [10, 20, 30, 40]}
  - {name: pen, id: 7, points: [[5, 6.5]], beside: [[1, 2], [3, 4]]}
- stamp: 1700000000.123456789
  labels: masks/first.png
  names: {2: duck}
- frame: 40
  remove: [cup, 9]
  objects:
  - {correct: pen, mask: masks/better.png, name: pencil}
"""


@pytest.fixture
def folder(tmp_path):
    labels = np.zeros((8, 8), np.uint8)
    labels[1:3, 1:3], labels[5:7, 5:7] = 2, 90
    save_mask(tmp_path / 'masks' / 'first.png', labels)
    save_mask(tmp_path / 'masks' / 'better.png', np.where(labels == 2, 255, 0).astype(np.uint8))
    save_mask(tmp_path / 'masks' / 'empty.png', np.zeros((8, 8), np.uint8))
    return tmp_path


def read(folder, text):
    path = folder / 'seeds.yaml'
    path.write_text(text)
    reader = SeedReader()
    reader.add_file(path)
    return reader.plan


def test_a_seed_file_can_contain_every_kind_of_seed_for_any_image(folder):
    first, second, removal, last = read(folder, FILE)
    assert (first.index, first.ids) == (0, (1, 7))
    cup, pen = first.seeds
    assert (cup.kind, cup.name, cup.box.x_offset, cup.box.height) == (BOX, 'cup', 10, 40)
    assert (pen.kind, pen.points[0].y, pen.point_labels.tolist()) == (POINTS, 6.5, [1, 0, 0])
    assert (second.stamp_ns, second.ids, second.values) == (1_700_000_000_123_456_789, (8, 9), (2, 90))
    assert [(seed.kind, seed.name) for seed in second.seeds] == [(MASK, 'duck'), (MASK, '90')]
    assert (removal.index, removal.removed) == (40, (1, 9))
    assert (last.ids, last.seeds[0].id, last.seeds[0].name) == ((7,), 7, 'pencil')
    assert last.seeds[0].mask.data.sum() == 4, 'the object has four pixels'


@pytest.mark.parametrize(
    ('text', 'fault'),
    [
        ('', 'must be a list of entries'),
        ('frame: 0', 'must be a list of entries'),
        ('- [1, 2', 'not usable YAML: line 1, column 3'),
        ('- 3', 'entry 1: .* must be a mapping with keys frame'),
        ('- {frame: 0, object: []}', "unknown key 'object'"),
        ('- {objects: []}', 'give either frame'),
        ('- {frame: 0, stamp: 1.5, remove: [1]}', 'give either frame'),
        ('- {frame: 0}', 'the entry is empty'),
        ('- {frame: -1, remove: [1]}', "frame is '-1'; it must be a whole number from 0"),
        ('- {stamp: soon, remove: [1]}', "'soon' is not an image"),
        ('- {stamp: 1.0000000001, remove: [1]}', 'is not an image'),
        ('- {frame: 0, names: {1: a}, objects: [{box: [1, 2, 3, 4]}]}', 'names belongs to labels'),
        ('- {frame: 0, labels: masks/first.png, names: {3: a}}', 'no object has the value 3; it has 2, 90'),
        ('- {frame: 0, labels: masks/absent.png}', 'absent.png: no such mask'),
        ('- {frame: 0, labels: masks/empty.png}', 'the mask shows no object'),
        ('- {frame: 0, objects: [{mask: masks/empty.png}]}', 'the mask shows no object'),
        ('- {frame: 0, objects: [{name: cup}]}', 'one of mask, box and points'),
        ('- {frame: 0, objects: [{box: [1, 2, 3]}]}', r'box must be \[x, y, width, height\]'),
        ('- {frame: 0, objects: [{box: [1, 2, 3, x]}]}', "box is 'x'"),
        ('- {frame: 0, objects: [{points: [[1, nan]]}]}', 'is not a point'),
        ('- {frame: 0, objects: [{box: [1, 2, 3, 4], beside: [[1, 2]]}]}', 'belongs to points'),
        ('- {frame: 0, objects: [{correct: cup, box: [1, 2, 3, 4]}]}', "no object has the name or id 'cup'.* none"),
        ('- {frame: 0, remove: [cup]}', "no object has the name or id 'cup'"),
        ('- {frame: 0, objects: [{id: 1, box: [1, 2, 3, 4]}, {id: 1, box: [1, 2, 3, 4]}]}', 'the id 1 is taken'),
        (
            '- {frame: 0, objects: [{name: a, box: [1, 2, 3, 4]}, {name: a, box: [1, 2, 3, 4]}]}\n'
            '- {frame: 1, remove: [a]}',
            "entry 2: remove: several objects have the name 'a'.* a \\(id 1\\), a \\(id 2\\)",
        ),
    ],
)
def test_faults_in_a_seed_file_are_named_with_their_entry(folder, text, fault):
    with pytest.raises(SeedError, match=rf'(?s)seeds.yaml.*{fault}'):
        read(folder, text)


def test_masks_of_a_plan_are_bounded_together(folder, monkeypatch):
    """A small file can name the same mask many times and so require gigabytes."""
    save_mask(folder / 'big.png', np.kron(np.arange(40, dtype=np.uint8).reshape(4, 10), np.ones((10, 10), np.uint8)))
    save_mask(folder / 'one.png', np.ones((40, 100), np.uint8))
    monkeypatch.setattr('xmem_ros.media.MAX_MASK_BYTES', 10 * 40 * 100)
    with pytest.raises(SeedError, match=r'seeds.yaml, entry 1: .*big.png: the masks take'):
        read(folder, '- {frame: 0, labels: big.png}')
    for item in ('labels: one.png', 'objects: [{mask: one.png}]'):
        entries = [f'- {{frame: {index}, {item}}}' for index in range(11)]
        assert len(read(folder, '\n'.join(entries[:10]))) == 10
        with pytest.raises(SeedError, match='entry 11: .*the masks take'):
            read(folder, '\n'.join(entries))


def test_images_are_given_by_index_or_stamp():
    assert parse_image_reference('12') == ImageReference(12, None)
    assert parse_image_reference('1700000000.25') == ImageReference(None, 1_700_000_000_250_000_000)
    for text in ('', 'first', '-1', '1e400', 'nan', '0.0'):
        with pytest.raises(SeedError, match='is not an image'):
            parse_image_reference(text)


def test_boxes_have_four_numbers_and_an_optional_name():
    assert parse_box('cup=1,2,30,40') == ('cup', (1, 2, 30, 40))
    assert parse_box('1,2,30,40') == ('', (1, 2, 30, 40))
    for text in ('cup', 'cup=1,2,3', '1,2,3,-4', '1,2,3,x'):
        with pytest.raises(SeedError, match='is not a box'):
            parse_box(text)


# --- parameters of the node


def test_the_parameter_file_of_the_package_holds_the_defaults(tmp_path):
    (tmp_path / 'track.yaml').write_text(track_yaml())
    assert read_parameters(tmp_path / 'track.yaml') == Parameters()


def test_the_sections_of_a_node_apply_and_later_ones_override_earlier_ones(tmp_path):
    path = tmp_path / 'p.yaml'
    path.write_text(
        '/**:\n  ros__parameters: {use_sim_time: true, min_area: 3, memory: {top_k: 9}}\n'
        '/front:\n  xmem:\n    ros__parameters: {min_area: 5}\n'
        '/rear/xmem:\n  ros__parameters: {min_area: 7}\n'
    )
    assert read_parameters(path, '/front/xmem').min_area == 5
    assert read_parameters(path, '/rear/xmem').min_area == 7
    assert read_parameters(path, '/xmem').min_area == 3
    assert read_parameters(path, '/xmem').memory.top_k == 9
    for pattern, node, value in [('/*/xmem', '/front/xmem', 8), ('/*/xmem', '/xmem', 3), ('/**/xmem', '/xmem', 8)]:
        path.write_text(f'/**: {{ros__parameters: {{min_area: 3}}}}\n{pattern}: {{ros__parameters: {{min_area: 8}}}}\n')
        assert read_parameters(path, node).min_area == value


def test_parameters_of_other_nodes_in_a_file_are_left_out_with_a_warning(tmp_path, caplog):
    path = tmp_path / 'robot.yaml'
    path.write_text('/**: {ros__parameters: {robot_name: r2, min_aera: 3, min_area: 5, camera: {fps: 30}}}')
    assert read_parameters(path).min_area == 5
    assert "robot.yaml: ignored, because strict_parameters is false: unknown parameter 'min_aera'" in caplog.text
    assert "(did you mean 'min_area'?), unknown parameter 'robot_name'" in caplog.text


@pytest.mark.parametrize(
    ('text', 'fault'),
    [
        ('[1', 'not usable YAML: line 1'),
        ('3', 'not a parameter file: it needs'),
        (
            'xmem: {ros__parameters: {min_aera: 3, strict_parameters: true}}',
            "unknown parameter 'min_aera'.*did you mean 'min_area'",
        ),
        ('xmem: {ros__parameters: {min_area: lots}}', "min_area is 'lots'; it must be a whole number"),
        ('/front/xmem: {ros__parameters: {min_area: 3}}', 'no section for the node /xmem; sections: /front/xmem'),
    ],
)
def test_faults_in_a_parameter_file_are_named(tmp_path, text, fault):
    path = tmp_path / 'p.yaml'
    path.write_text(text)
    with pytest.raises(ParameterError, match=rf'p.yaml: .*{fault}'):
        read_parameters(path)
    with pytest.raises(ParameterError, match='no such parameter file'):
        read_parameters(tmp_path / 'absent.yaml')
