# SPDX-License-Identifier: MIT
"""Names and places of weights. No torch, so that wrong names are refused at once."""

import os
from pathlib import Path

from xmem_ros.checks import checked_path
from xmem_ros.errors import WeightsError, quoted, summary_of
from xmem_ros.weights.official import OFFICIAL, RELEASE, official_name

WEIGHT_SUFFIXES = ('.pth', '.pt', '.safetensors')


def bundled_folder() -> Path:
    """Return the folder of the bundled weights."""
    return Path(__file__).resolve().parent


def user_folder() -> Path:
    """Return the folder of downloaded weights: $XMEM_ROS_WEIGHTS, or xmem_ros in the cache."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return Path(os.environ.get('XMEM_ROS_WEIGHTS') or cache / 'xmem_ros')


def find_weights(name: str | Path) -> Path:
    """Find the file of a name (`compact`) or path; raises `WeightsError` with the alternatives."""
    path = checked_path('weights', name, WeightsError)
    try:
        path = path.expanduser()
        there = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, or the home of an unknown user
        raise WeightsError(
            f'{quoted(str(name))} is not a valid path ({summary_of(error):.80}); give a name or a path of weights'
        ) from error
    if path.suffix or len(path.parts) > 1:
        if not there:
            raise WeightsError(f'{path}: no such weights file; {_choices()}')
        if path.suffix not in WEIGHT_SUFFIXES:
            raise WeightsError(f'{path}: not the suffix of a weights file; {_choices()}')
        return path
    official = official_name(str(name))
    file = OFFICIAL[official].file if official else f'{name}.pth'
    for candidate in (bundled_folder() / f'{name}.safetensors', user_folder() / file):
        if candidate.is_file():
            return candidate
    if official:
        raise WeightsError(
            f'the official weights {official} are not downloaded: run `xmem-ros weights fetch {official}`, or download '
            f'{file} from {RELEASE} and put it into {user_folder()}'
        )
    raise _unknown(str(name))


def check_name(name: str) -> None:
    """Raise `WeightsError` unless this is a known name, or a path with the suffix of weights."""
    path = Path(name)
    known = official_name(name) or (bundled_folder() / f'{name}.safetensors').is_file()
    if not known and path.suffix not in WEIGHT_SUFFIXES and not (user_folder() / f'{name}.pth').is_file():
        raise _unknown(name)


def _unknown(name: str) -> WeightsError:
    return WeightsError(f'unknown weights {quoted(name)}; {_choices()}')


def _choices() -> str:
    """Return the part of an error's text that says what can be given."""
    bundled = ', '.join(sorted(p.stem for p in bundled_folder().glob('*.safetensors'))) or 'none'
    return (
        f'give a name (bundled: {bundled}; official: {", ".join(OFFICIAL)}), or the path of a file that ends in '
        f'{", ".join(WEIGHT_SUFFIXES[:-1])} or {WEIGHT_SUFFIXES[-1]}'
    )
