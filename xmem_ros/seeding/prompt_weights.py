# SPDX-License-Identifier: MIT
"""Weights of the prompt network on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save

from xmem_ros import atomic
from xmem_ros.errors import OutputError, WeightsError
from xmem_ros.seeding.prompt_network import PromptNetwork
from xmem_ros.weights.checkpoint import read_state_dict


def load_prompt_network(path: Path) -> PromptNetwork:
    """Load a prompt network in evaluation mode, float32, on the CPU; raises `WeightsError`."""
    state = {name: t.float() if t.is_floating_point() else t for name, t in read_state_dict(path).items()}
    with torch.device('meta'):
        network = PromptNetwork()
    expected = network.state_dict()
    wrong = set(expected) ^ set(state)
    wrong |= {name for name in set(expected) & set(state) if expected[name].shape != state[name].shape}
    if wrong:
        raise WeightsError(f'{path}: not the weights of a prompt network: its entry {min(wrong)} differs')
    network.load_state_dict(state, assign=True)
    return network.eval()


def save_prompt_network(network: PromptNetwork, path: Path) -> None:
    """Write the weights as float16; batch-norm statistics stay float32. Raises `OutputError`."""
    state = {}
    for name, tensor in network.state_dict().items():
        small = tensor.is_floating_point() and 'running_' not in name
        state[name] = tensor.detach().to('cpu', torch.float16 if small else tensor.dtype).contiguous()
    try:
        atomic.write_bytes(path, save(state))
    except OSError as error:
        raise OutputError(f'{path}: weights cannot be written ({error.strerror}); name another file') from error
