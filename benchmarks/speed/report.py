# SPDX-License-Identifier: MIT
"""Table and plot of `python -m speed`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

STAGES = ('preprocess', 'key', 'match', 'decode', 'value', 'resize', 'postprocess')


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print two lines per row."""
    print(
        f'{"model":8}{"size":>5}{"obj":>4} {"memory":9}{"precision":>9}{"frames/s":>9}{"median":>8}{"p95":>8}'
        f'{"ref.":>8}{"ratio":>7}{"floor":>7}{"share":>7}{"peak MB":>9}{"largest":>9}{"mean":>9}'
    )
    for row in rows:
        reference = f'{row["reference_ms"]:8.1f}{row["ratio"]:7.2f}' if 'ratio' in row else f'{"–":>8}{"–":>7}'
        print(
            f'{row["model"]:8}{row["size"]:5}{row["objects"]:4} {row["fullness"]:9}{row["precision"]:>9}'
            f'{row["fps"]:9.2f}{row["median_ms"]:8.1f}{row["p95_ms"]:8.1f}{reference}{row["floor_ms"]:7.1f}'
            f'{row["share_of_floor"]:7.0%}{row["peak_mb"]:9.0f}{row["largest_difference"]:9.1e}'
            f'{row["mean_difference"]:9.1e}'
        )
        stages = ', '.join(f'{s} {row["stages_ms"][s]:.1f}' for s in STAGES if s in row['stages_ms'])
        print(f'         {stages}; {row["gflop"]:.0f} GFLOP, {row["gbyte"]:.2f} GB')
    print('milliseconds; `value` where it ran, one frame in five; differences to float32: reduced precision, ours')


def plot(rows: list[dict[str, Any]], file: Path, machine: str) -> None:
    """Plot the stages in milliseconds, beside the reference and the floor."""
    try:
        import matplotlib as mpl
    except ImportError:
        sys.exit("matplotlib is not installed: pip install '.[benchmarks]'")
    mpl.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.55 * len(rows)), layout='constrained')
    names = [f'{r["model"]} {r["size"]} px, {r["objects"]} obj., {r["precision"]}, {r["fullness"]}' for r in rows]
    left = [0.0] * len(rows)
    for stage in STAGES:
        share = 0.2 if stage == 'value' else 1.0  # of frames
        widths = [row['stages_ms'].get(stage, 0.0) * share for row in rows]
        axes.barh(names, widths, left=left, label=stage if share == 1 else f'{stage} ÷ 5', height=0.5)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for number, row in enumerate(rows):
        axes.plot(
            [row['floor_ms']] * 2, [number - 0.35, number + 0.35], color='black', label='floor' if not number else ''
        )
        if 'reference_ms' in row:
            label = 'reference' if not any('reference_ms' in r for r in rows[:number]) else ''
            axes.plot(row['reference_ms'], number, 'x', color='black', label=label)
    axes.invert_yaxis()
    axes.set_xlabel('ms a frame')
    axes.set_title(machine)
    axes.legend(fontsize='small')
    figure.savefig(file)
