# SPDX-License-Identifier: MIT
"""The authors' evaluation beside ours on small data sets of every layout: differing masks.

    make bench RUN=reference_protocols BENCH='--reference DIR --out DIR [--json FILE]'

DIR is a checkout of hkchengrex/XMem, which is not modified. The data sets are those of
test/evaluation/test_layouts.py, enlarged because the reference needs 30 memory positions. They have
two objects; in YouTube-VOS the second one appears later. They are too short for a consolidation,
which the reference does wrongly for later objects. Weights are generated, at full size.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from xmem_ros.atomic import write_text
from xmem_ros.threads import wait_asleep

wait_asleep()

import numpy as np
import published_layouts as layouts
import torch
from parity import generated_network
from reference_evaluation import PUBLISHED_BAR, SEED, call_reference

from xmem_ros.evaluation.runner import evaluate
from xmem_ros.media import read_mask

layouts.SIZE = (96, 160)  # px
SMALL = {'size': 112}  # px; 480 would be far larger than the frames
# data set → folder, our options, the reference's arguments, folder of its masks
CASES: dict[str, tuple[str, dict[str, Any], list[str], str]] = {
    'davis2016': ('2016', {}, ['--dataset', 'D16', '--d16_path'], ''),
    'davis2016 at another size': ('2016', SMALL, ['--dataset', 'D16', '--size', '112', '--d16_path'], ''),
    'davis2017': ('2017', {}, ['--dataset', 'D17', '--d17_path'], ''),
    'davis2017 at another size': ('2017', SMALL, ['--dataset', 'D17', '--size', '112', '--d17_path'], ''),
    'davis2017 test-dev': ('2017', {'split': 'test-dev'}, ['--dataset', 'D17', '--split', 'test', '--d17_path'], ''),
    'youtube2018': ('youtube', SMALL, ['--dataset', 'Y18', '--size', '112', '--y18_path'], 'Annotations'),
    'youtube2019': ('youtube', SMALL, ['--dataset', 'Y19', '--size', '112', '--flip', '--y19_path'], 'Annotations'),
    'longvideo1': ('long', {}, ['--dataset', 'LV1', '--lv_path'], ''),
    'longvideo3': ('long', {}, ['--dataset', 'LV3', '--mem_every', '10', '--lv_path'], ''),
    'mose': ('mose', SMALL, ['--dataset', 'G', '--size', '112', '--generic_path'], ''),
}


def lay_out(root: Path) -> None:
    """Write all data sets."""
    layouts.davis(root / '2016', binary=True)
    listing = root / '2017' / 'trainval' / 'ImageSets' / '2016' / 'val.txt'
    for split in ('val', 'test-dev'):
        layouts.davis(root / '2017', split=split)
    listing.parent.mkdir(parents=True)
    listing.write_text('a\n')
    layouts.youtube(root / 'youtube')
    for part in ('long_video', 'long_video_x3'):
        layouts.long_video(root / 'long', part)
    layouts.mose(root / 'mose')


def compare(mine: Path, other: Path) -> dict[str, Any]:
    """Compare file names, and the share of differing pixels in percent."""
    files = {
        folder: sorted(str(path.relative_to(folder)) for path in folder.rglob('*.png')) for folder in (mine, other)
    }
    if files[mine] != files[other]:
        return {'frames': len(files[mine]), 'same_files': False, 'differing_percent': 100.0}
    shares = [float((read_mask(mine / name) != read_mask(other / name)).mean()) for name in files[mine]]
    return {'frames': len(shares), 'same_files': True, 'differing_percent': 100 * float(np.mean(shares))}


def main() -> int:
    """Run both evaluations and compare them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--reference', type=Path, required=True, help='checkout of hkchengrex/XMem')
    parser.add_argument('--out', type=Path, required=True, help='new folder for all files')
    parser.add_argument('--json', type=Path, help='write the results to this file')
    args = parser.parse_args()
    if not (args.reference / 'eval.py').is_file():
        parser.error(f'{args.reference}: not a checkout of hkchengrex/XMem (no eval.py)')
    data, weights = args.out.resolve() / 'data', args.out.resolve() / 'generated.pth'
    lay_out(data)
    torch.save(generated_network(SEED).state_dict(), weights)
    figures = {}
    for name, (folder, options, arguments, masks) in CASES.items():
        dataset = name.split()[0]
        mine, other = (args.out.resolve() / side / name.replace(' ', '_') for side in ('ours', 'theirs'))
        evaluate(
            dataset,
            data / folder,
            output=mine,
            weights=str(weights),
            precision='float32',
            flip='--flip' in arguments,
            progress=False,
            **options,
        )
        root = data / folder / 'valid' if dataset == 'mose' else data / folder
        more = ['--model', str(weights), '--benchmark', '--output', str(other)]
        call_reference(args.reference, 'eval.py', [*arguments, str(root), *more])
        figures[name] = compare(mine / masks, other / masks)
        print(f'{name}: {figures[name]}', flush=True)
    if args.json:
        write_text(args.json, json.dumps(figures, indent=2) + '\n')
    return int(any(row['differing_percent'] > PUBLISHED_BAR for row in figures.values()))


if __name__ == '__main__':
    sys.exit(main())
