# SPDX-License-Identifier: MIT
"""Compare the tracker with results of the reference implementation of XMem.

    python test/parity.py CASE.npz [CASE.npz …]

A case holds frames, the first frame's labels, and the reference's settings, probabilities and
memory sizes. Both implementations generate the same weights from a seed. Frames are padded, never
resized. Prints the largest difference in probability and whether the memory sizes are equal. Exits
with 1 if the difference exceeds 1e-3 or the sizes differ.
"""

import functools
import json
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xmem_ros.engines.deployment import deployed
from xmem_ros.memory.config import MemoryConfig
from xmem_ros.network.config import XMEM
from xmem_ros.network.model import XMemNetwork
from xmem_ros.tracker import Tracker, TrackerConfig

LARGEST_DIFFERENCE = 1e-3


def weight(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Generate an entry of the state dict.

    It is noise from the entry's name and the seed, scaled to preserve the size of activations.
    """
    if name.endswith('num_batches_tracked'):
        return np.zeros(shape, np.int64)
    key = [zlib.crc32(name.encode()), seed]
    noise = np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, dtype=np.float32)
    if name.endswith('running_var'):
        return 1 + 0.1 * np.abs(noise)
    if name.endswith('running_mean') or name.endswith('bias'):
        return 0.1 * noise
    if noise.ndim == 1:
        return 1 + 0.1 * noise
    gain = {'decoder.pred.weight': 2.0, 'key_proj.key_proj.weight': 0.35, 'key_proj.d_proj.weight': 0.35}.get(name, 1.0)
    return noise * np.float32(gain / np.sqrt(np.prod(shape[1:])))


def generated_network(seed: int) -> XMemNetwork:
    """Make the full-size network with weights generated from `seed`."""
    with torch.device('meta'):  # initial values would take seconds
        network = XMemNetwork(XMEM)
    state = {name: torch.from_numpy(weight(name, tuple(t.shape), seed)) for name, t in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    return network.eval()


@functools.lru_cache(maxsize=1)  # a gigabyte
def network_in_use(seed: int, device: str) -> torch.nn.Module:
    """Make the generated network as a tracker runs it; kept for further cases with this seed."""
    return deployed(generated_network(seed), device=device)


def reference_settings(config: dict[str, int | bool]) -> TrackerConfig:
    """Convert the settings of the reference to a TrackerConfig."""
    return TrackerConfig(
        size=0,
        precision='float32',
        memory_every=int(config['mem_every']),
        memory=MemoryConfig(
            max_working_frames=int(config['max_mid_term_frames']),
            min_working_frames=int(config['min_mid_term_frames']),
            long_term=bool(config['enable_long_term']),
            long_term_elements=int(config['max_long_term_elements']),
            prototypes=int(config['num_prototypes']),
            top_k=int(config['top_k']),
        ).published(),
    )


@dataclass
class Parity:
    """Result of one case."""

    largest: float
    mean: float
    sizes_agree: bool
    frames: int

    @property
    def ok(self) -> bool:
        """Whether the case passes."""
        return self.largest <= LARGEST_DIFFERENCE and self.sizes_agree


def compare(path: Path, device: str = 'cpu', frames: int | None = None) -> Parity:
    """Run the tracker on the first frames of a case; None: on all."""
    with np.load(path) as case:
        images, first, expected = case['images'], case['first_labels'], case['probabilities']
        sizes, every = case['store_sizes'], int(case['saved_every'])
        settings, seed = reference_settings(json.loads(str(case['config']))), int(case['seed'])
    tracker = Tracker(network_in_use(seed, device), settings, device)
    masks = {f'object {value}': first == value for value in range(1, first.max() + 1)}
    largest, total, agree = 0.0, [], True
    for number, image in enumerate(images[:frames]):
        result = tracker.step(image, masks if number == 0 else (), probabilities=True)
        elements = tracker.memory_elements
        agree &= [elements['working'], elements['long_term']] == sizes[number].tolist()
        if number % every == 0:
            difference = np.abs(result.probabilities - expected[number // every].astype(np.float32))
            # a NaN would vanish in max()
            largest = max(largest, float(difference.max()) if np.isfinite(difference).all() else np.inf)
            total.append(float(difference.mean()))
    return Parity(largest, float(np.mean(total)), agree, number + 1)


def main(paths: list[str]) -> int:
    """Compare every case and print a line for each."""
    if not paths:
        print(__doc__)
        return 2
    failed = 0
    print(f'{"case":20} {"frames":>6} {"largest":>10} {"mean":>10}  store sizes')
    for name in paths:
        result = compare(Path(name))
        failed += not result.ok
        sizes = 'equal' if result.sizes_agree else 'DIFFERENT'
        verdict = '' if result.ok else '   FAILED'
        print(
            f'{Path(name).stem:20} {result.frames:6} {result.largest:10.2e} {result.mean:10.2e}  {sizes}{verdict}',
            flush=True,
        )
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
