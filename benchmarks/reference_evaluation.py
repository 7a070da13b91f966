# SPDX-License-Identifier: MIT
r"""The authors' evaluation beside ours on sequences of DAVIS 2016: share of differing pixels.

    make bench RUN=reference_evaluation \
        BENCH='--reference DIR --data DAVIS_VAL --out DIR [--sequences NAME …] [--json F]'

DIR is a checkout of hkchengrex/XMem, which is not modified; stand-ins replace CUDA, hickle and
progressbar. DAVIS_VAL holds JPEGImages/SEQ and Annotations/SEQ at 854×480. Both sides use the same
generated weights at full size. Passes: 480 px, 480 px mirrored, 384 px (from the same files, in
place of full resolution), and the merge of the first and the last. Finished passes are kept, so
that the command can be interrupted and repeated.

The reference scales frames without antialiasing here, as torchvision did for the paper's results.
"""

from __future__ import annotations

import argparse
import json
import pickle
import runpy
import subprocess
import sys
import time
import types
from functools import partial
from pathlib import Path
from typing import Any

from xmem_ros.atomic import write_text
from xmem_ros.threads import wait_asleep

wait_asleep()

import numpy as np
import torch

from xmem_ros.media import read_mask

SCALES = (480, 384)  # px
SEED = 2  # seed of the generated weights
PASSES = {'480p': [], '480p_flip': ['--flip'], '384p': ['--size', '384']}
PUBLISHED_BAR = 0.1  # allowed share of differing pixels, percent


# --- the reference, in its own process


class _Clock:
    """Stand-in for a CUDA event."""

    def __init__(self, enable_timing: bool = False) -> None:  # noqa: ARG002
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: _Clock) -> float:
        return (end.at - self.at) * 1e3


def _dump(value: Any, path: str, **_: Any) -> None:
    with open(path, 'wb') as file:  # noqa: PTH123
        pickle.dump(value, file)


def _load(path: str | Path) -> Any:
    """Load what `_dump` wrote into this command's folder."""
    with open(path, 'rb') as file:  # noqa: PTH123
        return pickle.load(file)  # noqa: S301 -- nobody else writes there


def _untrained(build: Any, pretrained: bool = True, extra_dim: int = 0) -> Any:  # noqa: ARG001
    return build(False, extra_dim)


def run_reference(checkout: Path, script: str, arguments: list[str]) -> None:
    """Run a script of the reference in this process, with stand-ins for its requirements."""
    sys.path.insert(0, str(checkout))
    stand_ins = {
        'progressbar': {'progressbar': lambda items, **_: items},
        'hickle': {'dump': _dump, 'load': _load},
    }
    for name, members in stand_ins.items():
        module = types.ModuleType(name)
        module.__dict__.update(members)
        sys.modules[name] = module
    if not torch.cuda.is_available():
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign,assignment]
        torch.cuda.Event, torch.cuda.synchronize = _Clock, lambda *_: None  # type: ignore[misc,assignment]
        torch.cuda.max_memory_allocated = lambda *_: 0  # type: ignore[assignment]
    import torchvision.transforms as transforms
    from PIL import ImagePalette
    from torch.utils import data

    class Palette(ImagePalette.ImagePalette):  # newer versions of Pillow take only a colour mode
        def __init__(self, mode: str = 'RGB', palette: Any = None) -> None:  # noqa: ARG002
            super().__init__('RGB', palette)

    ImagePalette.ImagePalette = Palette  # type: ignore[misc]

    transforms.Resize = partial(transforms.Resize, antialias=False)  # type: ignore[misc,assignment]
    data.DataLoader = partial(_loader, data.DataLoader)  # type: ignore[misc,assignment]
    if script == 'eval.py':
        from model import resnet  # type: ignore[import-not-found]

        for name in ('resnet18', 'resnet50'):
            setattr(resnet, name, partial(_untrained, getattr(resnet, name)))
    sys.argv = [script, *arguments]
    runpy.run_path(str(checkout / script), run_name='__main__')


def _loader(build: Any, *arguments: Any, num_workers: int = 0, **options: Any) -> Any:  # noqa: ARG001
    return build(*arguments, num_workers=0, **options)


# --- both sides


def lay_out(data: Path, root: Path, names: list[str]) -> Path:
    """Make a DAVIS root of links to the sequences; returns the folder of DAVIS 2016."""
    davis = root / '2016'
    for kind in ('JPEGImages', 'Annotations'):
        for resolution in ('480p', 'Full-Resolution'):
            (davis / kind / resolution).mkdir(parents=True, exist_ok=True)
            for name in names:
                link = davis / kind / resolution / name
                if not link.is_symlink():
                    link.symlink_to((data / kind / name).resolve())
    (davis / 'ImageSets').mkdir(exist_ok=True)
    listing = root / '2017' / 'trainval' / 'ImageSets' / '2016' / 'val.txt'
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text('\n'.join(names) + '\n')
    return davis


def theirs(checkout: Path, davis: Path, weights: Path, out: Path, every: int, *, plain_only: bool) -> float:
    """Run the reference's passes and merge; returns the seconds."""
    begin = time.monotonic()
    for name, options in PASSES.items():
        if plain_only and name != '480p':
            continue
        done = out / f'{name}.done'
        if not done.exists():
            common = ['--model', weights, '--dataset', 'D16', '--d16_path', davis, '--benchmark', '--save_scores']
            common += ['--mem_every', every, '--output', out / name]
            call_reference(checkout, 'eval.py', [*map(str, common), *options])
            done.touch()
    passes = [str(out / f'{size}p') for size in SCALES]
    merge = ['--dataset', 'D', '--list', *passes, '--output', str(out / 'merged'), '--num_proc', '1']
    if not plain_only and not (out / 'merged.done').exists():
        call_reference(checkout, 'merge_multi_scale.py', merge)
        (out / 'merged.done').touch()
    return time.monotonic() - begin


def call_reference(checkout: Path, script: str, arguments: list[str]) -> None:
    """Run a script of the reference in its own process."""
    command = [sys.executable, __file__, '--inside', str(checkout.resolve()), script, *arguments]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f'the reference failed: {" ".join(command)}')


def ours(davis: Path, weights: Path, out: Path, every: int, *, plain_only: bool) -> float:
    """Run the same passes with our evaluation; returns the seconds."""
    from xmem_ros.evaluation.runner import evaluate

    begin = time.monotonic()
    common: dict[str, Any] = {'weights': str(weights), 'precision': 'float32', 'memory_every': every}
    evaluate('davis2016', davis, output=out / '480p', size=480, **common)
    if not plain_only:
        evaluate('davis2016', davis, output=out / '480p_flip', size=480, flip=True, **common)
        evaluate('davis2016', davis, output=out / 'merged', scores=out / 'scores', scales=SCALES, **common)
    return time.monotonic() - begin


def compare_masks(mine: Path, other: Path, names: list[str]) -> dict[str, Any]:
    """Compare PNGs: share of differing pixels in percent, overall and in the worst frame."""
    shares, sizes = [], []
    for name in names:
        files = sorted((other / name).glob('*.png'))
        assert [file.name for file in files] == sorted(file.name for file in (mine / name).glob('*.png'))
        for file in files:
            different = read_mask(mine / name / file.name) != read_mask(file)
            shares.append(100 * float(different.mean()))
            sizes.append(different.size)
    return {
        'frames': len(shares),
        'differing_percent': float(np.average(shares, weights=sizes)),
        'worst_frame_percent': max(shares),
    }


def compare_scores(mine: Path, other: Path, names: list[str]) -> dict[str, Any]:
    """Share of the 8-bit probabilities that differ, in percent, and by how much at most."""
    from xmem_ros.evaluation import probabilities as kept

    differing, total, largest = 0, 0, 0
    for name in names:
        for file in sorted((other / 'Scores' / name).glob('*.hkl')):
            if file.stem == 'backward':
                continue
            planes, _ = kept.read(mine / name / f'{file.stem}.png')
            difference = np.abs(planes.astype(int) - _load(file).astype(int))
            differing, total = differing + int((difference > 0).sum()), total + difference.size
            largest = max(largest, int(difference.max()))
    return {'differing_percent': 100 * differing / total, 'largest_difference': largest}


def main() -> int:
    """Run both sides and compare."""
    if sys.argv[1:2] == ['--inside']:
        run_reference(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--reference', type=Path, required=True, help='checkout of hkchengrex/XMem')
    parser.add_argument('--data', type=Path, required=True, help='folder with JPEGImages/SEQ and Annotations/SEQ')
    parser.add_argument('--sequences', nargs='+', default=['car-shadow', 'libby'], help='(default: %(default)s)')
    parser.add_argument(
        '--memory-every', type=int, default=5, help='frames between memory frames (default: %(default)s)'
    )
    parser.add_argument('--plain-only', action='store_true', help='only at 480 px, not mirrored')
    parser.add_argument('--out', type=Path, required=True, help='folder for all files')
    parser.add_argument('--json', type=Path, help='write the results to this file')
    args = parser.parse_args()
    if not (args.reference / 'eval.py').is_file():
        parser.error(f'{args.reference}: not a checkout of hkchengrex/XMem (no eval.py)')
    from parity import generated_network

    names = sorted(args.sequences)
    davis = lay_out(args.data, args.out / 'data', names)
    weights = args.out / 'generated.pth'
    if not weights.exists():
        torch.save(generated_network(SEED).state_dict(), weights)
    reference, mine = args.out / 'reference', args.out / 'ours'
    reference.mkdir(exist_ok=True)
    plain_only = args.plain_only
    seconds = {
        'ours_s': ours(davis, weights, mine, args.memory_every, plain_only=plain_only),
        'reference_s': theirs(args.reference, davis, weights, reference, args.memory_every, plain_only=plain_only),
    }
    masks = {'plain': compare_masks(mine / '480p', reference / '480p' / 'Annotations', names)}
    scores = {}
    if not plain_only:
        masks['flip'] = compare_masks(mine / '480p_flip', reference / '480p_flip' / 'Annotations', names)
        masks['two_scales'] = compare_masks(mine / 'merged', reference / 'merged', names)
        scores = {
            f'{size}p': compare_scores(mine / 'scores' / f'{size}p', reference / f'{size}p', names) for size in SCALES
        }
    figures = {
        'sequences': names,
        'memory_every': args.memory_every,
        'masks': masks,
        'scores': scores,
        **seconds,
        'threads': torch.get_num_threads(),
    }
    for name, row in masks.items():
        print(
            f'{name}: {row["differing_percent"]:.5f} % of the pixels differ in {row["frames"]} frames, '
            f'{row["worst_frame_percent"]:.4f} % in the worst'
        )
    for name, row in scores.items():
        print(
            f'8-bit probabilities at {name}: {row["differing_percent"]:.4f} % differ, '
            f'by {row["largest_difference"]} at most'
        )
    if args.json:
        write_text(args.json, json.dumps(figures, indent=2) + '\n')
    return int(any(row['differing_percent'] > PUBLISHED_BAR for row in masks.values()))


if __name__ == '__main__':
    sys.exit(main())
