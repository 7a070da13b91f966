# SPDX-License-Identifier: MIT
"""Files that the Dockerfiles take from the checkout. No image is built here."""

from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = ('package.xml', 'CMakeLists.txt', 'LICENSE', 'tools/executable.in')
FOLDERS = ('msg', 'srv', 'config', 'launch', 'xmem_ros')


def ignored(path: str) -> bool:
    lines = (ROOT / '.dockerignore').read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith('#')]
    parts = [path, *(str(parent) for parent in Path(path).parents)]
    return any(fnmatch(part, pattern.removeprefix('**/')) for part in parts for pattern in patterns)


def instructions(file: Path) -> list[str]:
    text = '\n'.join(line for line in file.read_text().splitlines() if not line.startswith('#'))
    return [line for line in text.replace('\\\n', ' ').splitlines() if line]


@pytest.mark.parametrize('name', FILES + FOLDERS)
def test_files_that_colcon_needs_are_copied_into_the_image(name):
    assert (ROOT / name).exists()
    assert not ignored(name)
    assert ignored('.venv/lib') and ignored('build') and ignored('.git')


@pytest.mark.parametrize('file', sorted((ROOT / 'docker').glob('*.Dockerfile')), ids=lambda file: file.stem)
def test_files_named_in_a_dockerfile_exist(file):
    lines = instructions(file)
    copied = [line.split()[1] for line in lines if line.startswith('COPY')]
    assert '.' in copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source == '.' or not ignored(source), source
    (command,) = (yaml.safe_load(line.removeprefix('CMD')) for line in lines if line.startswith('CMD'))
    launch, parameters = command[3], command[4].partition('share/xmem_ros/')[2]
    assert (ROOT / 'launch' / launch).is_file()
    assert (ROOT / parameters).is_file()
