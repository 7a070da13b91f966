# SPDX-License-Identifier: MIT
"""The parameter table and the files written from it, without ROS."""

from pathlib import Path

import pytest
import yaml

from xmem_ros.errors import ParameterError
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.parameters import docs as parameter_files
from xmem_ros.parameters.table import Parameters, changed, rules, value_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ('name', 'text'),
    [(parameter_files.YAML, parameter_files.track_yaml()), (parameter_files.DOCS, parameter_files.parameters_md())],
)
def test_written_files_are_up_to_date(name, text):
    assert (ROOT / name).read_text() == text, 'run python -m xmem_ros.parameters.docs --write'


def test_track_yaml_lists_every_parameter_with_its_default():
    shown = yaml.safe_load(parameter_files.track_yaml())['/**']['ros__parameters']
    for group in [name for name, value in shown.items() if isinstance(value, dict)]:
        shown |= {f'{group}.{name}': value for name, value in shown.pop(group).items()}
    defaults = {name: default for name, (default, _) in rules().items()}
    assert shown.keys() == defaults.keys()
    assert changed(Parameters(), shown) == Parameters()
    assert {name: value for name, value in shown.items() if not isinstance(value, list)} == {
        name: default for name, default in defaults.items() if not isinstance(default, tuple)
    }
    assert all(
        type(shown[name]) is (list if type(default) is tuple else type(default)) for name, default in defaults.items()
    )


def test_defaults_are_those_of_the_tracker():
    from xmem_ros.tracker import TrackerConfig

    assert Parameters().memory_config() == MemoryConfig()
    for name in (
        *('precision', 'engine', 'max_objects', 'memory_every'),
        *('min_area', 'min_part_share', 'min_score', 'lost_after'),
    ):
        assert getattr(Parameters(), name) == getattr(TrackerConfig(), name), name


def test_the_jetson_parameter_file_is_valid():
    from xmem_ros.tracker import TrackerConfig

    shown = yaml.safe_load((ROOT / 'config/jetson.yaml').read_text())['/**']['ros__parameters']
    shown |= {f'memory.{name}': value for name, value in shown.pop('memory').items()}
    result = changed(Parameters(), shown)
    assert result.engine == 'onnxruntime'
    assert TrackerConfig(engine=result.engine, precision=result.precision).precision == 'float16'


@pytest.mark.parametrize('value', ['480', '480x', 'x640', '0x640', '480×640', '480x640x3', '-480x640', 'all'])
def test_an_invalid_prepare_size_is_refused(value):
    with pytest.raises(ParameterError, match='known, none, or height x width'):
        changed(Parameters(), {'prepare': value})


def test_a_prepare_size_is_height_and_width():
    assert changed(Parameters(), {'prepare': '480x640'}).prepare_size() == (480, 640)
    assert changed(Parameters(), {'prepare': 'none'}).prepare_size() is None


def test_every_default_is_valid():
    defaults = {name: default for name, (default, _) in rules().items()}
    assert changed(Parameters(), defaults) == Parameters()


def test_values_are_changed_by_dotted_name():
    result = changed(Parameters(), {'size': 360, 'memory.top_k': 50, 'lost_after': 2})
    assert (result.size, result.memory.top_k, result.lost_after) == (360, 50, 2.0)
    assert isinstance(result.lost_after, float)
    assert value_of(result, 'memory.top_k') == 50
    assert Parameters().memory.top_k == 30


def test_empty_texts_are_dropped_from_lists():
    def classes(given):
        return changed(Parameters(), {'seed_detections.classes': given}).seed_detections.classes

    assert classes(['']) == ()
    assert classes(['cup', 'plate']) == ('cup', 'plate')


@pytest.mark.parametrize(
    ('values', 'says'),
    [
        ({'sise': 3}, "unknown parameter 'sise' (did you mean 'size'?)"),
        ({'memory.topk': 3}, "did you mean 'memory.top_k'?"),
        ({'colour': 3}, "unknown parameter 'colour'"),
        ({'size': 'big'}, "size is 'big'; it must be a whole number"),
        ({'size': 1.5}, 'it must be a whole number'),
        ({'size': True}, 'it must be a whole number'),
        ({'min_score': 'low'}, 'it must be a number'),
        ({'min_score': float('nan')}, 'min_score is nan; allowed: 0…1'),
        ({'autostart': 1}, 'it must be true or false'),
        ({'weights': 7}, 'it must be a string'),
        ({'max_objects': 255}, 'max_objects is 255; allowed: 1…254'),
        ({'lost_after': -1.0}, 'lost_after is -1.0; allowed: 0…86400 s'),
        ({'queue': 'some'}, "queue is 'some'; allowed: newest, all"),
        ({'image_transport': 'theora'}, "image_transport is 'theora'; allowed: raw, compressed"),
        ({'seed_detections.classes': 'cup'}, "seed_detections.classes is 'cup'; it must be a list of strings"),
        ({'seed_detections.classes': [1, 2]}, 'it must be a list of strings'),
        ({'memory.min_working_frames': 20}, 'must be below memory.max_working_frames'),
    ],
)
def test_an_invalid_value_is_refused_by_name(values, says):
    with pytest.raises(ParameterError) as raised:
        changed(Parameters(), values)
    assert says in str(raised.value)


def test_every_fault_is_named_at_once():
    with pytest.raises(ParameterError) as raised:
        changed(Parameters(), {'size': 'big', 'colour': 3})
    assert 'size' in str(raised.value)
    assert 'colour' in str(raised.value)
