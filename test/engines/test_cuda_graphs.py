# SPDX-License-Identifier: MIT
"""CUDA graphs with a stand-in recorder. The graphs themselves need a GPU: test_cuda.py."""

import logging

import numpy as np
import pytest
import torch

from xmem_ros.demo.scene import RenderedScene
from xmem_ros.engines.cuda_graphs import GRAPHS_KEPT, GraphedNetwork
from xmem_ros.tracker import Tracker, TrackerConfig
from xmem_ros.weights.checkpoint import load_network
from xmem_ros.weights.files import find_weights


class Rerun:
    """Stand-in for a graph: calls the function again and writes to its first outputs."""

    def __init__(self):
        self.recorded = 0

    def __call__(self, function, inputs):
        self.recorded += 1
        outputs = function(inputs)
        held = {name: tensor.clone() for name, tensor in outputs.items()}

        def replay():
            for name, tensor in function(inputs).items():
                held[name].copy_(tensor)

        return replay, held


def bundled():
    return load_network(find_weights('compact')).eval().to(memory_format=torch.channels_last)


def follow(network, *, objects, config, frames=8):
    scene = RenderedScene((96, 160), frames, min(objects, 6), seed=0)
    image, labels = scene[0]
    masks = {str(number): labels == number + 1 for number in range(min(objects, 6))}
    for number in range(len(masks), objects):  # beyond the scene's objects: squares of the background
        y, x = divmod(number, 8)
        masks[str(number)] = np.zeros_like(labels, bool)
        masks[str(number)][32 * y : 32 * y + 16, 20 * x : 20 * x + 16] = True
    tracker = Tracker(network, config, 'cpu')
    tracker.step(image, masks)
    return tracker, [tracker.step(scene[number][0], probabilities=True).probabilities for number in range(1, frames)]


@pytest.mark.parametrize('objects', [1, 3, 19])
def test_a_graphed_network_gives_the_probabilities_of_the_plain_one(objects):
    config = TrackerConfig(size=96, precision='float32', max_objects=objects)
    network = bundled()
    record = Rerun()
    _, plain = follow(network, objects=objects, config=config)
    _, graphed = follow(GraphedNetwork(network, record), objects=objects, config=config)
    assert max(np.abs(ours - theirs).max() for ours, theirs in zip(graphed, plain, strict=True)) < 1e-3
    # image, value, decode with and without the sensory update; 19 objects use buckets of 16 and 4
    assert record.recorded == (1 + 2 + 4 if objects == 19 else 1 + 1 + 2)


def test_later_graphs_read_the_features_in_place():
    network = GraphedNetwork(bundled(), Rerun())
    follow(network, objects=1, config=TrackerConfig(size=96, precision='float32', max_objects=1))
    copied = {kind[0].split()[0]: recorded.copied for kind, recorded in network._recorded.items()}
    assert copied == {
        'image': ['image'],
        'decode': ['readout', 'sensory'],
        'value': ['image', 'masks', 'others', 'sensory'],
    }


def test_the_number_of_kept_graphs_is_limited():
    network = GraphedNetwork(bundled(), Rerun())
    with torch.inference_mode():
        for width in range(64, 64 + 16 * (GRAPHS_KEPT + 4), 16):
            image = torch.rand(1, 3, 64, width)
            torch.testing.assert_close(network.encode_image(image).key, network.network.encode_image(image).key)
    assert len(network._recorded) == GRAPHS_KEPT


def test_the_network_runs_without_graphs_if_recording_fails(caplog):
    def fail(function, inputs):
        raise RuntimeError('operation not permitted when stream is capturing')

    network = bundled()
    config = TrackerConfig(size=96, precision='float32', max_objects=2)
    graphed = GraphedNetwork(network, fail)
    with caplog.at_level(logging.WARNING):
        _, ours = follow(graphed, objects=2, config=config)
    _, plain = follow(network, objects=2, config=config)
    assert all(np.array_equal(a, b) for a, b in zip(ours, plain, strict=True))
    assert 'not permitted when stream is capturing' in graphed.fault
    assert [record.getMessage() for record in caplog.records] == [
        f'CUDA graphs cannot be recorded ({graphed.fault}); the network runs without them'
    ]


def test_a_tracker_on_a_cpu_does_not_use_graphs():
    tracker = Tracker.from_weights('compact', device='cpu', config=TrackerConfig(cuda_graphs=True))
    assert not isinstance(tracker.network, GraphedNetwork)
