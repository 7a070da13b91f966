# SPDX-License-Identifier: MIT
"""Checks of an installation: torch, CUDA, ROS, weights, optional packages."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xmem_ros.errors import XMemError
from xmem_ros.recordings.rosbags_version import ROSBAGS, rosbags_trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xmem_ros.weights.official import OfficialWeights

OK, ABSENT, WRONG = 'ok', '-', 'WRONG'

# module → package on PyPI; for optional modules also their purpose
REQUIRED = {
    'numpy': 'numpy',
    'cv2': 'opencv-python-headless',
    'PIL': 'pillow',
    'yaml': 'PyYAML',
    'safetensors': 'safetensors',
    'tqdm': 'tqdm',
}
OPTIONAL = {
    'av': ('reading and writing videos', "'av>=17,<19'"),
    'vos_benchmark': ('scores of xmem-ros evaluate', 'vos-benchmark'),
    'jinja2': ('the report of xmem-ros evaluate', 'jinja2'),
    'aiohttp': ('xmem-ros web', 'aiohttp'),
    'rosbags': ('bags in xmem-ros track and xmem-ros train', f"'{ROSBAGS}'"),
    'pycocotools': ('xmem-ros track --format coco', 'pycocotools'),
    'tensorboard': ('curves of xmem-ros train', 'tensorboard'),
    'torchvision': ('ImageNet weights for xmem-ros train', 'torchvision'),
    'onnxruntime': ('engine onnxruntime; for a GPU install onnxruntime-gpu instead', 'onnxruntime'),
    'onnxscript': ('xmem-ros export', 'onnx onnxscript'),
}
_ROS_TIMEOUT = 60  # s


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    state: str  # OK, ABSENT (an optional part is missing) or WRONG
    subject: str
    text: str
    remedy: str = ''


def examine(seeder: str = '') -> Iterator[Finding]:
    """Run all checks; a check that raises is WRONG and does not stop the others.

    seeder: also check the ONNX models in this folder.
    """
    checks = {
        'Python': _python,
        'packages': _packages,
        'torch': _torch,
        'CUDA': _cuda,
        'bundled weights': _bundled,
        'official weights': _official,
        'ROS 2': _ros,
        'optional packages': _optional,
        'ONNX Runtime': _onnx,
        'seeder': lambda: _seeder(seeder),
    }
    for subject, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # broken packages raise any type
            yield Finding(
                WRONG,
                subject,
                f'the check failed: {type(error).__name__}: {error}',
                'correct the other faults, then run the command again',
            )


def _python() -> Iterator[Finding]:
    supported = sys.version_info[:2] >= (3, 10)
    yield Finding(
        OK if supported else WRONG,
        'Python',
        f'{platform.python_version()}, {sys.executable}, {platform.system()} {platform.machine()}',
        '' if supported else 'use Python 3.10 or newer',
    )


def _packages() -> Iterator[Finding]:
    for module, package in REQUIRED.items():
        problem = _problem(module)
        if problem:
            yield Finding(WRONG, package, problem, f'pip install --upgrade {package}')


def _torch() -> Iterator[Finding]:
    problem = _problem('torch')
    if problem:
        yield Finding(WRONG, 'torch', problem, 'pip install torch; on a Jetson follow docs/jetson_install.md')
        return
    import torch

    version = tuple(int(part) for part in torch.__version__.split('+')[0].split('.')[:2])
    if version < (2, 4):
        yield Finding(WRONG, 'torch', torch.__version__, 'install torch 2.4 or newer')
    else:
        yield Finding(OK, 'torch', f'{torch.__version__}, {torch.get_num_threads()} threads')


def _cuda() -> Iterator[Finding]:
    if _problem('torch'):
        return
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield _cuda_device(index)
        return
    if not _has_nvidia_driver():
        yield Finding(ABSENT, 'CUDA', 'no NVIDIA GPU or driver found; trackers run on the CPU')
    elif torch.version.cuda is None:
        yield Finding(
            WRONG,
            'CUDA',
            f'an NVIDIA driver is installed, but this torch ({torch.__version__}) was built without CUDA',
            'install torch with CUDA; on a Jetson the build for your JetPack, see docs/jetson_install.md',
        )
    else:
        yield Finding(
            WRONG,
            'CUDA',
            f'an NVIDIA driver is installed, but this torch (for CUDA {torch.version.cuda}) finds no GPU',
            'run nvidia-smi; if it lists the GPU, update the driver; in a container, pass the GPU to it',
        )


def _cuda_device(index: int) -> Finding:
    import torch

    name = f'cuda:{index}'
    try:
        properties = torch.cuda.get_device_properties(index)
        ones = torch.ones(64, 64, device=name)
        total = float((ones @ ones).sum())
        if total != 64.0**3:
            return Finding(WRONG, name, f'{properties.name} gives wrong results: {total}', 'try another driver or GPU')
        free, memory = torch.cuda.mem_get_info(index)
    except RuntimeError as error:  # an architecture without kernels in this torch, or a GPU in exclusive use
        return Finding(WRONG, name, str(error).splitlines()[0], 'install a torch that supports this GPU')
    return Finding(OK, name, f'{properties.name}, {free / 1e9:.1f} of {memory / 1e9:.1f} GB free')


def _has_nvidia_driver() -> bool:
    places = ('/proc/driver/nvidia/version', '/dev/nvidia0', '/etc/nv_tegra_release')
    return any(Path(place).exists() for place in places) or shutil.which('nvidia-smi') is not None


def _bundled() -> Iterator[Finding]:
    if _problem('torch') or _problem('safetensors'):
        return
    from xmem_ros.weights.checkpoint import load_network
    from xmem_ros.weights.files import bundled_folder
    from xmem_ros.weights.official import licence_of

    files = sorted(bundled_folder().glob('*.safetensors'))
    if not files:
        yield Finding(WRONG, 'bundled weights', f'{bundled_folder()}: none', 'install the package again')
    for path in files:
        check = partial(load_network, path)
        yield _file_finding(path.stem, path, check, 'install the package again', f'licence {licence_of(path)}')


def _official() -> Iterator[Finding]:
    if _problem('torch'):
        return
    from xmem_ros.weights.files import user_folder
    from xmem_ros.weights.official import OFFICIAL

    for name, weights in OFFICIAL.items():
        path = user_folder() / weights.file
        part = path.with_name(f'{path.name}.part')
        again = f'remove the file, then xmem-ros weights fetch {name}'
        if path.is_file():
            yield _file_finding(name, path, partial(_check_official, weights, path), again)
        elif part.is_file():
            yield Finding(WRONG, name, f'{part}: incomplete', f'xmem-ros weights fetch {name} completes it')
        else:
            yield Finding(ABSENT, name, 'not fetched', f'xmem-ros weights fetch {name}')


def _check_official(weights: OfficialWeights, path: Path) -> None:
    from xmem_ros.weights.fetch import check, read_lock

    check(weights, path, read_lock(), pin=False)


def _file_finding(name: str, path: Path, check: Callable[[], object], remedy: str, detail: str = '') -> Finding:
    try:
        check()
    except (XMemError, OSError) as error:
        return Finding(WRONG, name, str(error), remedy)
    return Finding(OK, name, f'{path}, {detail}' if detail else str(path))


def _ros() -> Iterator[Finding]:
    """Check ROS in child processes, as some wheels of rclpy restart their process."""
    if _run_python('import rclpy') is not None:
        yield Finding(
            ABSENT,
            'ROS 2',
            'rclpy cannot be imported; the library and the command line need no ROS',
            'source the setup.bash of your ROS 2 installation',
        )
        return
    problem = _run_python(
        'from xmem_ros.msg import TrackedObject; from xmem_ros.srv import SeedObjects; TrackedObject()'
    )
    if problem is None:
        distribution = _run_python('import os, sys; sys.exit(os.environ.get("ROS_DISTRO", "unknown distribution"))')
        yield Finding(OK, 'ROS 2', f'{distribution}; the messages are built')
    else:
        yield Finding(
            WRONG,
            'ROS 2',
            f'rclpy is installed, but the messages of xmem_ros are not ({problem})',
            'colcon build --packages-select xmem_ros, then source install/setup.bash; without a workspace: make build, '
            'then . tools/env.sh',
        )


def _run_python(program: str) -> str | None:
    """Run a program; returns None for exit code 0, else the last line of its standard error."""
    try:
        done = subprocess.run(
            [sys.executable, '-c', program], capture_output=True, text=True, timeout=_ROS_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return f'no answer in {_ROS_TIMEOUT} s'
    if not done.returncode:
        return None
    return (done.stderr.strip().splitlines() or [f'exit code {done.returncode}'])[-1]


def _optional() -> Iterator[Finding]:
    for module, (purpose, package) in OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            yield Finding(ABSENT, module, f'not installed; used for {purpose}', f'pip install {package}')
            continue
        problem = rosbags_trouble() if module == 'rosbags' else _problem(module)
        state, text = (WRONG, problem) if problem else (OK, f'for {purpose}')
        yield Finding(state, module, text, f'pip install --upgrade --force-reinstall {package}' if problem else '')


def _onnx() -> Iterator[Finding]:
    """Check which providers of ONNX Runtime work on this machine, and whether the exporter does."""
    if _problem('torch'):
        return
    import torch

    if importlib.util.find_spec('onnxruntime') is not None and not _problem('onnxruntime'):
        import onnxruntime

        offered = onnxruntime.get_available_providers()
        on_gpu = [name.removesuffix('ExecutionProvider') for name in offered if name.startswith(('Tensorrt', 'CUDA'))]
        if on_gpu:
            yield Finding(OK, 'engine onnxruntime', f'on {" and ".join(on_gpu)}')
        elif torch.cuda.is_available():
            yield Finding(
                ABSENT,
                'engine onnxruntime',
                'supports only the CPU, although a GPU is present; a tracker with device cuda refuses it',
                'uninstall onnxruntime, then pip install onnxruntime-gpu; on a Jetson follow docs/jetson_install.md',
            )
    if importlib.util.find_spec('onnxscript') is not None:
        from xmem_ros.engines.onnx_export import exporter_problem

        problem = exporter_problem()
        if problem:
            yield Finding(ABSENT, 'xmem-ros export', problem, 'or export on another machine: docs/jetson.md')


def _seeder(given: str) -> Iterator[Finding]:
    """Segment a bright square with the bundled seeder or with a folder of ONNX models."""
    if _problem('torch'):
        return
    import numpy as np

    from xmem_ros.errors import XMemError
    from xmem_ros.seeding.seeder import BUNDLED, make_seeder

    frame = np.zeros((120, 160, 3), np.uint8)
    frame[40:80, 50:90] = 200
    for name in (BUNDLED, given) if given else (BUNDLED,):
        begun = time.monotonic()
        try:
            seeder = make_seeder(name)
            area = seeder.from_box(frame, (45, 35, 50, 50)).mean()
        except XMemError as error:
            yield Finding(WRONG, 'seeder', str(error), 'install the package again' if name == BUNDLED else '')
            continue
        kind = getattr(seeder, 'kind', name)
        yield Finding(OK, 'seeder', f'{kind}: a mask of {area:.0%} of a test image in {time.monotonic() - begun:.1f} s')


def _problem(module: str) -> str:
    """Return why a module cannot be imported; '' if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # broken packages raise any type
        return f'cannot be imported: {error}'
    return ''
