# SPDX-License-Identifier: MIT
"""Milliseconds of each stage of `Tracker.step`, beside the reference implementation on the same frames in the same run.

    python benchmarks/speed.py [--reference DIR] [--device cpu] [--quick] [--json FILE]

DIR is a checkout of hkchengrex/XMem; without it only ours is timed. `compact` runs at 240×432 with the bundled weights,
`xmem` at 480×864 with generated weights, the same in both implementations. Ours and the reference take each frame in
turn, so that a change of the machine's speed meets both. The largest difference of their probabilities is printed too.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / 'test')]

from xmem_ros.threads import wait_asleep  # noqa: E402

wait_asleep()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from parity import generated_network  # noqa: E402
from tqdm import tqdm  # noqa: E402

from xmem_ros.demo.scene import RenderedScene  # noqa: E402
from xmem_ros.network.checkpoint import find_weights, load_network  # noqa: E402
from xmem_ros.network.deployment import deployed  # noqa: E402
from xmem_ros.network.model import IMAGE_MEAN, IMAGE_STD, XMemNetwork  # noqa: E402
from xmem_ros.tracker import Tracker, TrackerConfig  # noqa: E402
from xmem_ros.tracker_config import pick_precision  # noqa: E402

PUBLISHED = {
    'mem_every': 5,
    'deep_update_every': -1,
    'enable_long_term': True,
    'enable_long_term_count_usage': True,
    'max_mid_term_frames': 10,
    'min_mid_term_frames': 5,
    'max_long_term_elements': 10_000,
    'num_prototypes': 128,
    'top_k': 30,
    'hidden_dim': 64,
    'key_dim': 64,
    'value_dim': 512,
}


def _without_pretraining(build: Any, pretrained: bool = True, extra_dim: int = 0) -> Any:  # noqa: ARG001
    return build(False, extra_dim)


class Reference:
    """The reference implementation, from a checkout that stays as it is; no ImageNet weights are downloaded."""

    def __init__(self, checkout: Path, network: XMemNetwork, objects: int, device: str):
        if not (checkout / 'inference' / 'inference_core.py').is_file():
            raise SystemExit(f'{checkout}: not a checkout of hkchengrex/XMem (no inference/inference_core.py)')
        sys.path.insert(0, str(checkout))
        from model import resnet  # type: ignore[import-not-found]

        for name in ('resnet18', 'resnet50'):
            build = getattr(resnet, name)
            setattr(resnet, name, partial(_without_pretraining, build))
        from inference.inference_core import InferenceCore  # type: ignore[import-not-found]
        from model.network import XMem  # type: ignore[import-not-found]

        model = XMem(dict(PUBLISHED)).to(device).eval()
        model.load_state_dict(network.state_dict())
        self.core, self.device, self.objects = InferenceCore(model, dict(PUBLISHED)), device, objects
        self.core.set_all_labels(list(range(1, objects + 1)))

    @torch.inference_mode()
    def step(self, frame: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """Track one frame as its evaluation does, from uint8 image to label image; returns probabilities (1+O)×H×W."""
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
        image = (torch.from_numpy(frame).to(self.device).permute(2, 0, 1).float() / 255 - mean) / std
        if labels is None:
            prob = self.core.step(image)
        else:
            masks = torch.stack([torch.from_numpy(labels == v) for v in range(1, self.objects + 1)]).float()
            prob = self.core.step(image, masks.to(self.device), list(range(1, self.objects + 1)))
        prob.argmax(0).to(torch.uint8).cpu().numpy()
        return prob.float().cpu().numpy()


@dataclass
class Timings:
    """Milliseconds of every timed frame."""

    total: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    reference: list[float] = field(default_factory=list)
    difference: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Medians, and the median of the frame-by-frame ratio."""
        out: dict[str, Any] = {'median_ms': statistics.median(self.total), 'frames': len(self.total)}
        out['p95_ms'] = float(np.percentile(self.total, 95))
        # a stage that only memory frames have counts where it ran
        out['stages_ms'] = {
            k: statistics.median([v for v in values if v] or [0.0]) for k, values in self.stages.items()
        }
        if self.reference:
            out['reference_median_ms'] = statistics.median(self.reference)
            out['ratio'] = statistics.median(r / t for r, t in zip(self.reference, self.total, strict=True))
            out['largest_probability_difference'] = self.difference
        return out


def measure(
    name: str, tracker: Tracker, scene: RenderedScene, objects: int, reference: Reference | None, warm_up: int
) -> Timings:
    """Step through the scene, ours and the reference in turn."""
    timings = Timings()
    frame, labels = scene[0]
    masks = {f'object {v}': labels == v for v in range(1, objects + 1)}
    tracker.step(frame, masks)
    if reference:
        reference.step(frame, np.where(labels <= objects, labels, 0))
    for number in tqdm(range(1, len(scene)), desc=name, leave=False):
        frame = scene[number][0]
        begin = time.perf_counter()
        result = tracker.step(frame, probabilities=reference is not None)
        ours = (time.perf_counter() - begin) * 1e3
        other = None
        if reference:
            begin = time.perf_counter()
            expected = reference.step(frame)
            other = (time.perf_counter() - begin) * 1e3
            difference = np.abs(result.probabilities - expected).max()
            timings.difference = max(timings.difference, float(difference) if np.isfinite(difference) else np.inf)
        if number > warm_up:
            timings.total.append(ours)
            for stage, value in result.timings_ms.items():
                timings.stages.setdefault(stage, []).append(value)
            if other is not None:
                timings.reference.append(other)
    return timings


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--reference', type=Path, help='checkout of hkchengrex/XMem to run beside ours')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: %(default)s)')
    parser.add_argument('--precision', default='float32', help='of ours, or auto (default: %(default)s)')
    parser.add_argument('--objects', type=int, nargs='+', default=[1], help='how many objects (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='fewer frames')
    parser.add_argument('--json', type=Path, help='write the figures to this file')
    args = parser.parse_args()
    frames = 13 if args.quick else 31
    rows: list[dict[str, Any]] = []
    for objects in args.objects:
        for name, size in (('compact', (240, 432)), ('xmem', (480, 864))):
            network = load_network(find_weights(name)) if name == 'compact' else generated_network(2)
            reference = None
            if name == 'xmem' and args.reference:
                reference = Reference(args.reference, network, objects, args.device)
            config = TrackerConfig(size=0, precision=args.precision)
            dtype = pick_precision(args.precision, torch.device(args.device))
            tracker = Tracker(deployed(network, dtype), config, args.device)  # as users have it
            scene = RenderedScene(size, frames, max(objects, 1), seed=0)
            row = {'model': name, 'size': f'{size[0]}x{size[1]}', 'objects': objects}
            rows.append(
                row | measure(f'{name}, {objects} objects', tracker, scene, objects, reference, warm_up=2).summary()
            )
    print(
        f'{args.device}, {args.precision}, {torch.get_num_threads()} threads, torch {torch.__version__}, '
        f'{platform.machine()}'
    )
    stages = ['preprocess', 'key', 'match', 'decode', 'value', 'resize', 'postprocess']
    print(f'{"model":8} {"size":>8} {"objects":>7} {"median":>8} {"p95":>8} ' + ' '.join(f'{s:>11}' for s in stages))
    for row in rows:
        cells = ' '.join(f'{row["stages_ms"].get(s, 0):11.1f}' for s in stages)
        print(
            f'{row["model"]:8} {row["size"]:>8} {row["objects"]:7} {row["median_ms"]:8.1f} {row["p95_ms"]:8.1f} {cells}'
        )
        if 'ratio' in row:
            print(
                f'  reference: median {row["reference_median_ms"]:.1f} ms; reference / ours, frame by frame: '
                f'{row["ratio"]:.2f}; largest probability difference {row["largest_probability_difference"]:.1e}'
            )
    print('milliseconds; `value` is the median over memory frames, one in five')
    if args.json:
        args.json.write_text(json.dumps({'device': args.device, 'precision': args.precision, 'rows': rows}, indent=2))
    return 0


if __name__ == '__main__':
    sys.exit(main())
