# SPDX-License-Identifier: MIT
"""ONNX models of the network, and a tracker that runs on them."""

import dataclasses
import json
import logging
import shutil
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from needs import require
from tiny_networks import TINY_JOINED

from xmem_ros.cli.main import main
from xmem_ros.demo.scene import RenderedScene
from xmem_ros.engines import onnx_export, onnx_files
from xmem_ros.engines.built_engines import note_built
from xmem_ros.engines.onnx_files import ExportKey, find_models
from xmem_ros.engines.onnx_runtime import (
    CPU,
    CUDA,
    TENSORRT,
    OnnxNetwork,
    _make_folder,
    _Model,
    engine_cache,
    pick_providers,
    provider_options,
)
from xmem_ros.engines.onnx_session import build_engines
from xmem_ros.errors import DeviceError, EngineError, OutputError, ParameterError
from xmem_ros.network.model import XMemNetwork
from xmem_ros.tracker import Tracker, TrackerConfig
from xmem_ros.tracker.oom_recovery import is_out_of_memory
from xmem_ros.weights.checkpoint import fingerprint, load_network
from xmem_ros.weights.files import find_weights

require('onnxruntime', 'onnxscript')

SIZE = (96, 160)
LARGEST_DIFFERENCE = 1e-3  # between the probabilities of the two engines


@pytest.fixture(scope='module', autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory):
    """Yield a folder in place of the user's cache, shared by all tests of this file."""
    folder = tmp_path_factory.mktemp('onnx')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XMEM_ROS_ONNX', str(folder))
        yield folder


def trackers(**config) -> list[Tracker]:
    return [
        Tracker.from_weights(
            'compact', device='cpu', config=TrackerConfig(size=0, precision='float32', engine=engine, **config)
        )
        for engine in ('torch', 'onnxruntime')
    ]


def compare(both: list[Tracker], frame: np.ndarray, masks=()) -> float:
    ours, theirs = (tracker.step(frame, masks, probabilities=True) for tracker in both)
    assert [item.id for item in ours.objects] == [item.id for item in theirs.objects]
    return float(np.abs(ours.probabilities - theirs.probabilities).max())


@pytest.mark.parametrize('objects', [1, 3])
def test_both_engines_give_the_same_probabilities(objects: int) -> None:
    scene = RenderedScene(SIZE, 12, 3, seed=0)  # memory is written twice more
    both = trackers()
    frame, labels = scene[0]
    largest = compare(both, frame, {str(v): labels == v for v in range(1, objects + 1)})
    for number in range(1, 12):
        largest = max(largest, compare(both, scene[number][0]))
    assert both[0].memory_elements == both[1].memory_elements
    assert largest <= LARGEST_DIFFERENCE


def test_both_engines_agree_while_objects_are_added_and_removed() -> None:
    scene = RenderedScene(SIZE, 14, 6, seed=0)
    both = trackers(max_objects=6)
    frame, labels = scene[0]
    largest = compare(both, frame, {'1': labels == 1})
    for number in range(1, 14):
        masks = {}
        frame, labels = scene[number]
        if number in (2, 4, 6, 8):  # 2, 3, 4 and 5 objects: in buckets of 2, 4, 4 and 8
            masks = {str(number): labels == number // 2 + 1}
        if number == 10:
            for tracker in both:
                tracker.remove([1, 3, 4])
        largest = max(largest, compare(both, frame, masks))
    assert len(both[0].objects) == 2
    assert largest <= LARGEST_DIFFERENCE


def test_more_objects_than_the_largest_bucket_are_split_into_parts(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trackers()[1].prepare(SIZE)
    shutil.copytree(models, tmp_path / 'onnx')
    monkeypatch.setenv('XMEM_ROS_ONNX', str(tmp_path / 'onnx'))
    (manifest,) = (tmp_path / 'onnx').glob('*/manifest.json')
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), 'objects': [2]}))
    scene = RenderedScene(SIZE, 7, 5, seed=0)
    both = trackers()
    frame, labels = scene[0]
    largest = compare(both, frame, {str(v): labels == v for v in range(1, 6)})
    for number in range(1, 7):
        largest = max(largest, compare(both, scene[number][0]))
    assert largest <= LARGEST_DIFFERENCE


def test_models_are_exported_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = RenderedScene(SIZE, 2, 2, seed=0)
    tracker = trackers()[1]
    tracker.seed(scene[0][0], {'it': scene[0][1] == 1})
    key = ExportKey(tracker.fingerprint, *SIZE, 'float32')
    assert find_models(key) == models / key.folder

    def fail(*args, **kwargs) -> None:
        raise AssertionError('exported again')

    monkeypatch.setattr('xmem_ros.engines.onnx_runtime.export', fail)
    again = trackers()[1]
    again.seed(scene[0][0], {'it': scene[0][1] == 1})
    assert again.step(scene[1][0]).labels.any()


@pytest.fixture(scope='module')
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of half-precision models that `xmem-ros export` wrote."""
    folder = tmp_path_factory.mktemp('exported')
    options = ['--size', '100', '150', '--shorter-side', '64', '--objects', '2', '1', '--precision', 'float16']
    assert main(['export', '--onnx', str(folder), *options]) == 0
    return folder


def test_a_tracker_loads_the_models_of_the_export_command(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder,) = exported.iterdir()
    manifest = json.loads((folder / 'manifest.json').read_text())
    assert (manifest['height'], manifest['width'], manifest['precision']) == (64, 96, 'float16')
    assert manifest['objects'] == [1, 2]
    assert manifest['opset'] == onnx_export.OPSET
    assert manifest['weights'] == fingerprint(load_network(find_weights('compact')).state_dict())
    assert set(manifest['models']) == {'key_encoder', 'value_encoder', 'decoder'}
    monkeypatch.setenv('XMEM_ROS_ONNX', str(exported))
    monkeypatch.setattr('xmem_ros.engines.onnx_runtime.export', None)
    config = TrackerConfig(size=64, precision='float16', engine='onnxruntime')
    tracker = Tracker.from_weights('compact', device='cpu', config=config)
    mask = np.zeros((100, 150), bool)
    mask[20:60, 30:80] = True
    assert tracker.seed(np.full((100, 150, 3), 90, np.uint8), {'it': mask}) == [1]


def test_half_precision_models_give_nearly_the_same_masks(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XMEM_ROS_ONNX', str(exported))
    scene = RenderedScene((64, 96), 7, 2, seed=0)
    both = [
        Tracker.from_weights('compact', device='cpu', config=TrackerConfig(size=0, precision=kind, engine=engine))
        for kind, engine in (('float32', 'torch'), ('float16', 'onnxruntime'))
    ]
    frame, labels = scene[0]
    assert compare(both, frame, {'a': labels == 1}) < 0.05
    for number in range(1, 7):
        ours, theirs = (tracker.step(scene[number][0]).labels for tracker in both)
        assert np.mean(ours != theirs) < 0.01


def test_a_truncated_model_is_exported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """The network has two trunks whose features are added, and no sensory memory."""
    monkeypatch.setenv('XMEM_ROS_ONNX', str(tmp_path))
    torch.manual_seed(0)
    network = XMemNetwork(dataclasses.replace(TINY_JOINED, sensory_dim=0, sensory_mid=0)).eval()
    key = ExportKey(fingerprint(network.state_dict()), 64, 96, 'float32')
    folder = tmp_path / key.folder
    folder.mkdir()
    (folder / 'decoder.onnx').write_bytes(b'a whole model')
    onnx_files.write_manifest(
        folder, key, {'decoder': {'file': 'decoder.onnx'}}, objects=[1], exported_by=onnx_files.TRACKER
    )
    (folder / 'decoder.onnx').write_bytes(b'a whole')
    scene = RenderedScene((64, 96), 3, 2, seed=0)
    both = [
        Tracker(network, TrackerConfig(size=0, precision='float32', engine=engine), 'cpu')
        for engine in ('torch', 'onnxruntime')
    ]
    largest = compare(both, scene[0][0], {'a': scene[0][1] == 1})
    largest = max(largest, compare(both, scene[1][0]), compare(both, scene[2][0]))
    assert largest <= LARGEST_DIFFERENCE
    assert 'decoder.onnx has 7 bytes instead of 13' in caplog.text
    assert find_models(key) == folder


def test_a_saved_state_of_one_engine_loads_into_the_other() -> None:
    scene = RenderedScene(SIZE, 4, 2, seed=0)
    ours, theirs = trackers()
    ours.seed(scene[0][0], {'it': scene[0][1] == 1})
    ours.step(scene[1][0])
    assert theirs.import_state(ours.export_state()) == [1]
    assert compare([ours, theirs], scene[2][0]) <= LARGEST_DIFFERENCE


def test_the_best_available_provider_is_chosen() -> None:
    gpu, cpu = torch.device('cuda', 1), torch.device('cpu')
    assert pick_providers([TENSORRT, CUDA, CPU], gpu) == [TENSORRT, CUDA, CPU]
    assert pick_providers([CUDA, CPU], gpu) == [CUDA, CPU]
    assert pick_providers([TENSORRT, CUDA, CPU], cpu) == [CPU]
    with pytest.raises(EngineError, match='onnxruntime-gpu'):
        pick_providers([CPU], gpu)
    options = provider_options(TENSORRT, gpu, Path('cache'), 'float16')
    assert options['device_id'] == 1
    assert options['trt_fp16_enable'] is True
    assert options['trt_engine_cache_path'] == 'cache'


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(EngineError, match='pip install onnxruntime'):
        trackers()
    monkeypatch.undo()
    monkeypatch.setenv('XMEM_ROS_ONNX', str(tmp_path))
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    scene = RenderedScene(SIZE, 1, 2, seed=0)
    tracker = trackers()[1]
    with pytest.raises(EngineError, match='pip install onnx onnxscript'):
        tracker.seed(scene[0][0], {'it': scene[0][1] == 1})
    assert tracker.objects == []


def test_unknown_engines_and_unsupported_precisions_are_refused() -> None:
    with pytest.raises(ParameterError, match='torch or onnxruntime'):
        TrackerConfig(engine='tflite')
    with pytest.raises(ParameterError, match='float16 or float32'):
        TrackerConfig(engine='onnxruntime', precision='bfloat16')


def test_each_number_of_objects_has_its_own_engine_cache() -> None:
    assert len({engine_cache(Path('models/decoder.onnx'), objects) for objects in (1, 2, 4)}) == 3
    assert engine_cache(Path('models/decoder.onnx'), 1) != engine_cache(Path('models/value_encoder.onnx'), 1)


def test_an_out_of_memory_error_of_onnxruntime_is_recognised() -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    assert is_out_of_memory(
        Fail('bfc_arena.cc:360: Failed to allocate memory for requested buffer of size 34359738368')
    )
    assert not is_out_of_memory(Fail('no such node'))


def test_export_refuses_a_torch_that_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch, '__version__', '2.4.1+cpu')
    assert main(['export', '--onnx', str(tmp_path / 'new')]) == 2
    said = capsys.readouterr().err
    assert 'needs torch 2.5 or newer' in said
    assert 'this is torch 2.4.1+cpu' in said
    assert not (tmp_path / 'new').exists()
    monkeypatch.setattr(torch, '__version__', '2.5.0a0+872d972e41.nv24.08')  # a version string of a vendor's wheel
    assert onnx_export.exporter_problem() == ''


def test_an_unwritable_export_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'file').touch()
    assert main(['export', '--onnx', str(tmp_path / 'file'), '--size', '64', '96', '--shorter-side', '64']) == 2
    assert 'exported models cannot be written (' in capsys.readouterr().err


def test_prepared_models_are_not_loaded_again(models: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    caplog.set_level(logging.INFO, 'xmem_ros')
    scene = RenderedScene(SIZE, 6, 3, seed=0)

    def fail(*args) -> None:
        raise AssertionError('loaded again')

    for size in (SIZE, None):  # given; then found as the most recently used size
        caplog.clear()
        tracker = trackers(max_objects=3)[1]
        tracker.prepare(size)
        assert 'loaded ONNX models for images of 96×160 px and 1, 2, 4 objects in' in caplog.text
        with monkeypatch.context() as patch:
            patch.setattr('xmem_ros.engines.onnx_runtime._Model._new_session', fail)
            for number in range(3):
                frame, labels = scene[number]
                tracker.step(frame, {str(number): labels == number + 1})
            assert tracker.step(scene[3][0]).labels.any()
    assert len(tracker.objects) == 3
    trackers()[0].prepare(SIZE)  # torch has nothing to prepare


def test_the_log_names_each_tensorrt_engine_and_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    class Session:
        def __init__(self, *_, providers):
            self.providers = [name for name, _ in providers]

        def get_providers(self):
            return self.providers

    class Runtime:
        InferenceSession = Session
        SessionOptions = MagicMock

        @staticmethod
        def get_available_providers():
            return [TENSORRT, CUDA, CPU]

    caplog.set_level(logging.INFO, 'xmem_ros')
    monkeypatch.setenv('XMEM_ROS_WEIGHTS', str(tmp_path / 'user'))
    monkeypatch.setattr('xmem_ros.engines.onnx_runtime._runtime', lambda: Runtime)

    def load() -> None:
        _Model(tmp_path / 'decoder.onnx', torch.device('cuda', 0), 'float16', SIZE)._new_session(2, '3 of 7')

    load()
    assert 'TensorRT is building decoder at 96×160 px, 2 objects (3 of 7); this takes minutes' in caplog.text
    assert 'decoder at 96×160 px, 2 objects: loaded in' in caplog.text
    caplog.clear()
    (tmp_path / 'decoder-2' / 'kept.engine').touch()
    note_built(tmp_path / 'decoder-2')
    load()
    assert caplog.text == ''


def test_engines_are_built_in_a_process_of_their_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from onnx import TensorProto, helper, save

    shape = ['objects', 4]
    given, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ('given', 'out'))
    graph = helper.make_graph([helper.make_node('Relu', ['given'], ['out'])], 'relu', [given], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    save(model, tmp_path / 'relu.onnx')
    arguments = {'objects': 2, 'axis': 'objects', 'threads': 1, 'providers': [('CPUExecutionProvider', {})]}
    assert build_engines(model=str(tmp_path / 'relu.onnx'), **arguments)
    assert caplog.text == ''
    assert not build_engines(model=str(tmp_path / 'none.onnx'), **arguments)
    assert 'none.onnx' in caplog.text


def test_an_engine_cache_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(OutputError, match='cannot be created for TensorRT engines'):
        _make_folder(tmp_path / 'file' / 'decoder-2')


def test_a_model_that_onnxruntime_cannot_load_is_named(tmp_path: Path) -> None:
    (tmp_path / 'decoder.onnx').write_bytes(b'not a model')
    with pytest.raises(EngineError, match='cannot load .*decoder.onnx.*install a newer one, or remove'):
        _Model(tmp_path / 'decoder.onnx', torch.device('cpu'), 'float32', SIZE)._new_session(1, '')


def test_a_network_for_another_device_or_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_network(find_weights('compact'))

    def made_for(device: str, precision: str) -> OnnxNetwork:
        return OnnxNetwork(network.config, 'weights', lambda: network, torch.device(device), precision)

    fitting = TrackerConfig(engine='onnxruntime', precision='float16')
    Tracker(made_for('cpu', 'float16'), fitting, 'cpu')
    with pytest.raises(ParameterError, match="float16, but .* float32: set precision='float32'"):
        Tracker(made_for('cpu', 'float32'), fitting, 'cpu')
    with pytest.raises(ParameterError, match="set engine='onnxruntime'"):
        Tracker(made_for('cpu', 'float32'), TrackerConfig(precision='float32'), 'cpu')
    with monkeypatch.context() as patch:
        patch.setattr('xmem_ros.engines.onnx_runtime.pick_providers', lambda *_: [CUDA, CPU])
        elsewhere = made_for('cuda:1', 'float16')
    with pytest.raises(DeviceError, match="device is cpu, but .* made for cuda:1: set device='cuda:1'"):
        Tracker(elsewhere, fitting, 'cpu')


def test_the_models_of_one_size_per_camera_stay_loaded(monkeypatch, tmp_path):
    from xmem_ros.engines import onnx_runtime as onnx_engine
    from xmem_ros.tracker.engine import Engines

    made = []

    class Loaded:
        def __init__(self, *given):
            made.append(given[-1])

    folder = tmp_path
    model = {'file': 'decoder.onnx', 'bytes': 1, 'sha256': '0' * 64}
    size = {'format': 1, 'height': 240, 'width': 320, 'precision': 'float32'}
    manifest = {**size, 'weights': '0' * 64, 'objects': [1], 'models': {'decoder': model}}
    (folder / onnx_files.MANIFEST).write_text(json.dumps(manifest))
    monkeypatch.setattr(onnx_engine, '_Model', Loaded)
    monkeypatch.setattr(onnx_engine, 'find_models', lambda key: folder)
    monkeypatch.setattr(onnx_engine, 'note_use', lambda folder: None)
    config = TrackerConfig(engine='onnxruntime')
    trackers = [
        Tracker.from_weights('compact', device='cpu', config=config, engines=engines)
        for engines in [Engines(3)]
        for _ in range(3)
    ]
    network = trackers[0].network
    sizes = [(240, 320), (240, 432), (240, 384)]
    for _ in range(3):
        for size in sizes:
            network._models(*size)
    assert made == sizes
    network._models(480, 640)
    network._models(*sizes[0])  # used long ago, but there is room for four
    network._models(96, 96)
    network._models(*sizes[0])  # used last but one, so it is still loaded
    assert made == [*sizes, (480, 640), (96, 96)]
