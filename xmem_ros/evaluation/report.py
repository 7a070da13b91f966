# SPDX-License-Identifier: MIT
"""HTML report of an evaluation: scores, and overlays of the worst sequences, in one file."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from xmem_ros.errors import FrameError, ParameterError
from xmem_ros.evaluation.output import Output, write_text
from xmem_ros.evaluation.settings import FULL, Run
from xmem_ros.media import read_image, read_mask
from xmem_ros.overlay import draw

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from xmem_ros.evaluation.datasets import Sequence
    from xmem_ros.evaluation.settings import Settings

WORST = 5  # sequences
TILES = 4  # frames of each
WIDTH = 420  # px of a tile
_TRUTH = (255, 255, 255)


def check_report() -> None:
    """Raise `ParameterError` unless jinja2 can be imported."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise ParameterError('the report needs jinja2: pip install jinja2') from error


def write_report(path: Path, settings: Settings, output: Path, result: Mapping[str, Any]) -> None:
    """Write the report.

    Raises:
        OutputError: the file cannot be written.
        ParameterError: jinja2 is not installed.
    """
    check_report()
    from jinja2 import Environment

    from xmem_ros.evaluation.runner import sequences_of

    sizes = result['size'] if isinstance(result['size'], list) else [result['size']]
    sequences = {s.name: s for s in sequences_of(settings, Run(0 if sizes[0] == FULL else sizes[0], False))}
    folder = Output(output, settings)
    shown = [
        {
            'name': name,
            'scores': result['sequences'][name],
            'tiles': _tiles(sequences[name], folder.folder_of(sequences[name])),
        }
        for name in worst(result)
    ]
    template = (Path(__file__).parent / 'report.html.j2').read_text()
    title = settings.about.title + (f' {settings.split}' if settings.dataset != 'generic' else '')
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    scored = result['J&F'] is not None
    write_text(path, page.render(result=result, shown=shown, scored=scored, title=title, style=style()))


def style() -> str:
    """Return the style sheet of reports."""
    return (Path(__file__).parent / 'report.css').read_text()


def worst(result: Mapping[str, Any]) -> list[str]:
    """Return the sequences with the lowest J&F, lowest first; without scores, the first ones."""
    scored = {name: scores['J&F'] for name, scores in result['sequences'].items() if scores['J&F'] is not None}
    return sorted(scored, key=lambda name: scored[name])[:WORST] or list(result['sequences'])[:WORST]


def _tiles(sequence: Sequence, folder: Path) -> list[dict[str, str]]:
    """Draw overlays of some frames of a sequence; the last one has the lowest overlap."""
    overlaps = {}
    for stem in sequence.scored:
        truth, mask = sequence.values(sequence.truth[stem]), read_mask(folder / f'{stem}.png')
        overlaps[stem] = _overlap(mask, truth)
    tiles = TILES - bool(overlaps)
    spread = np.linspace(0, len(sequence.written) - 1, min(tiles, len(sequence.written))).round().astype(int)
    stems = [sequence.written[index] for index in spread]
    captions = {stem: f'frame {stem}' for stem in stems}
    if overlaps:
        least = min(overlaps, key=lambda stem: overlaps[stem])
        captions[least] = f'frame {least}, the worst: IoU {100 * overlaps[least]:.0f} %'
    return [{'caption': text, 'image': _tile(sequence, folder, stem)} for stem, text in captions.items()]


def _overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean IoU of two masks H×W uint8 over the values of either."""
    values = (set(np.unique(mask).tolist()) | set(np.unique(truth).tolist())) - {0}
    overlaps = [((mask == v) & (truth == v)).sum() / ((mask == v) | (truth == v)).sum() for v in values]
    return float(np.mean(overlaps)) if overlaps else 1.0


def _tile(sequence: Sequence, folder: Path, stem: str) -> str:
    """Draw a mask in colour and the outline of the ground truth in white; JPEG in base64."""
    mask = read_mask(folder / f'{stem}.png')
    frame = read_image(next(path for path in sequence.frames if path.stem == stem))
    if frame.shape[:2] != mask.shape:
        frame = cv2.resize(frame, mask.shape[::-1], interpolation=cv2.INTER_AREA)
    image = draw(frame, mask, opacity=0.6)
    if stem in sequence.truth:
        truth = sequence.values(sequence.truth[stem])
        for value in set(np.unique(truth).tolist()) - {0}:
            outline, _ = cv2.findContours((truth == value).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(image, outline, -1, _TRUTH, max(mask.shape[1] // WIDTH, 1))
    return picture(image, f'{folder / stem}.png', WIDTH)


def picture(image: np.ndarray, name: str, width: int) -> str:
    """Scale an image H×W×3 uint8 RGB to a width, px; returns a JPEG in base64.

    `name` is for errors.
    """
    height = max(round(width * image.shape[0] / image.shape[1]), 1)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    written, data = cv2.imencode('.jpg', small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not written:
        raise FrameError(f'{name}: its overlay cannot be encoded as JPEG')
    return base64.b64encode(data.tobytes()).decode()
