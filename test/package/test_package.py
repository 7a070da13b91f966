# SPDX-License-Identifier: MIT
"""The package as it is installed: interfaces, manifests, modules, executables."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from needs import require

ROOT = Path(__file__).resolve().parents[2]

OUTCOME = {'success': 'boolean', 'message': 'string', 'error_code': 'uint16'}  # of every service
INTERFACES = {
    'msg.TrackedObject': {
        'id': 'uint32',
        'label': 'uint8',
        'name': 'string',
        'state': 'uint8',
        'score': 'float',
        'box': 'sensor_msgs/RegionOfInterest',
        'area': 'uint32',
        'centroid_x': 'float',
        'centroid_y': 'float',
        'time_since_seed': 'builtin_interfaces/Duration',
        'time_since_seen': 'builtin_interfaces/Duration',
        'frames_since_seed': 'uint32',
        'frames_since_seen': 'uint32',
    },
    'msg.TrackedObjectStamped': {'header': 'std_msgs/Header', 'object': 'xmem_ros/TrackedObject'},
    'msg.TrackedObjectArray': {
        'header': 'std_msgs/Header',
        'objects': 'sequence<xmem_ros/TrackedObject>',
        'processing_time': 'builtin_interfaces/Duration',
    },
    'msg.Seed': {
        'id': 'uint32',
        'name': 'string',
        'kind': 'uint8',
        'mask': 'sensor_msgs/Image',
        'box': 'sensor_msgs/RegionOfInterest',
        'points': 'sequence<geometry_msgs/Point32>',
        'point_labels': 'sequence<int8>',
    },
    'msg.AcceptedSeeds': {
        'header': 'std_msgs/Header',
        'seeds': 'sequence<xmem_ros/Seed>',
        'ids': 'sequence<uint32>',
        'labels': 'sequence<uint8>',
    },
    'msg.TrackingEvent': {
        'header': 'std_msgs/Header',
        'kind': 'uint8',
        'session': 'uint32',
        'sequence': 'uint32',
        'after': 'builtin_interfaces/Time',
        'seeds': 'sequence<xmem_ros/Seed>',
        'ids': 'sequence<uint32>',
        'labels': 'sequence<uint8>',
        'file': 'string',
        'sha256': 'string',
    },
    'srv.SeedObjects_Request': {'header': 'std_msgs/Header', 'seeds': 'sequence<xmem_ros/Seed>'},
    'srv.SeedObjects_Response': {
        **OUTCOME,
        'ids': 'sequence<uint32>',
        'labels': 'sequence<uint8>',
        'stamp': 'builtin_interfaces/Time',
    },
    'msg.ObjectMotion': {
        'id': 'uint32',
        'label': 'uint8',
        'name': 'string',
        'state': 'uint8',
        'measured': 'boolean',
        'position': 'geometry_msgs/Point',
        'velocity': 'geometry_msgs/Vector3',
        'size': 'geometry_msgs/Vector3',
        'covariance': 'double[36]',
    },
    'msg.ObjectMotionArray': {'header': 'std_msgs/Header', 'motions': 'sequence<xmem_ros/ObjectMotion>'},
    'srv.GetMask_Request': {'id': 'uint32', 'name': 'string', 'target_frame': 'string'},
    'srv.GetMask_Response': {
        **OUTCOME,
        'header': 'std_msgs/Header',
        'object': 'xmem_ros/TrackedObject',
        'mask': 'sensor_msgs/Image',
        'image': 'sensor_msgs/Image',
        'has_depth': 'boolean',
        'cloud': 'sensor_msgs/PointCloud2',
        'box': 'geometry_msgs/PoseStamped',
        'box_size': 'geometry_msgs/Vector3',
    },
    'action.WaitVisible_Goal': {
        'id': 'uint32',
        'name': 'string',
        'min_score': 'float',
        'timeout': 'builtin_interfaces/Duration',
    },
    'action.WaitVisible_Result': {**OUTCOME, 'header': 'std_msgs/Header', 'object': 'xmem_ros/TrackedObject'},
    'action.WaitVisible_Feedback': {
        'header': 'std_msgs/Header',
        'known': 'boolean',
        'object': 'xmem_ros/TrackedObject',
    },
    'srv.PreviewSeed_Request': {'header': 'std_msgs/Header', 'seed': 'xmem_ros/Seed'},
    'srv.PreviewSeed_Response': {
        **OUTCOME,
        'masks': 'sequence<sensor_msgs/Image>',
        'qualities': 'sequence<float>',
        'stamp': 'builtin_interfaces/Time',
    },
    'srv.RemoveObjects_Request': {'ids': 'sequence<uint32>', 'all': 'boolean'},
    'srv.RemoveObjects_Response': {**OUTCOME, 'removed': 'sequence<uint32>'},
    'srv.ResetTracker_Request': {},
    'srv.ResetTracker_Response': {**OUTCOME, 'removed': 'sequence<uint32>'},
    'srv.HoldImage_Request': {'header': 'std_msgs/Header'},
    'srv.HoldImage_Response': {
        **OUTCOME,
        'stamp': 'builtin_interfaces/Time',
        'duration': 'builtin_interfaces/Duration',
        'oldest': 'builtin_interfaces/Time',
        'newest': 'builtin_interfaces/Time',
    },
    'srv.SaveMemory_Request': {'name': 'string'},
    'srv.SaveMemory_Response': {**OUTCOME, 'path': 'string', 'size': 'uint64', 'ids': 'sequence<uint32>'},
    'srv.LoadMemory_Request': {'name': 'string'},
    'srv.LoadMemory_Response': {
        **OUTCOME,
        'path': 'string',
        'ids': 'sequence<uint32>',
        'labels': 'sequence<uint8>',
    },
}
SERVICES = sorted({name.partition('.')[2].partition('_')[0] for name in INTERFACES if name.startswith('srv.')})

CONSTANTS = {
    'TrackedObject': {'NEW': 0, 'TRACKED': 1, 'OCCLUDED': 2, 'LOST': 3},
    'Seed': {'MASK': 0, 'BOX': 1, 'POINTS': 2, 'LABELS': 3},
    'TrackingEvent': {'START': 0, 'SEED': 1, 'REMOVE': 2, 'RESET': 3, 'LOAD': 4},
}

EXECUTABLES = ['xmem_node', 'scene_camera', 'xmem-ros']


@pytest.fixture(scope='module')
def prefix() -> Path:
    """The install space that `make build` or colcon made."""
    packages = pytest.importorskip('ament_index_python.packages', reason='ROS 2 is not on the path')
    return Path(packages.get_package_prefix('xmem_ros'))


def interface(name: str) -> type:
    """Return a generated class: `msg.Seed`, `srv.SeedObjects_Request`."""
    require('rclpy')
    import xmem_ros.action
    import xmem_ros.msg
    import xmem_ros.srv

    module, class_name = name.split('.')
    if module == 'msg':
        return getattr(xmem_ros.msg, class_name)
    service, part = class_name.split('_')
    return getattr(getattr(getattr(xmem_ros, module), service), part)


@pytest.mark.parametrize('name', INTERFACES)
def test_interfaces_have_the_fields_that_users_rely_on(name: str) -> None:
    assert interface(name).get_fields_and_field_types() == INTERFACES[name]


@pytest.mark.parametrize('name', CONSTANTS)
def test_constants_have_the_values_in_recorded_bags(name: str) -> None:
    message = interface(f'msg.{name}')
    assert {constant: getattr(message, constant) for constant in CONSTANTS[name]} == CONSTANTS[name]


def test_every_interface_of_the_package_is_covered_here() -> None:
    messages = {path.stem for path in ROOT.glob('msg/*.msg')}
    assert messages == {name.partition('.')[2] for name in INTERFACES if name.startswith('msg.')}
    assert sorted(path.stem for path in ROOT.glob('srv/*.srv')) == SERVICES
    actions = {name.partition('.')[2].partition('_')[0] for name in INTERFACES if name.startswith('action.')}
    assert {path.stem for path in ROOT.glob('action/*.action')} == actions


@pytest.mark.parametrize('name', SERVICES)
def test_error_codes_of_a_service_equal_those_of_python(name: str) -> None:
    from xmem_ros.errors import ErrorCode

    response = interface(f'srv.{name}_Response')
    text = (ROOT / 'srv' / f'{name}.srv').read_text()
    codes = {code: getattr(response, code) for code in re.findall(r'^uint16 ([A-Z_]+)=', text, re.MULTILINE)}
    assert {'NONE', 'INTERNAL', 'NOT_ACTIVE', 'NODE_FAULT'} <= set(codes)
    assert codes == {code: ErrorCode[code] for code in codes}


def test_every_error_code_is_used_by_a_service() -> None:
    from xmem_ros.errors import ErrorCode

    text = ''.join(path.read_text() for path in ROOT.glob('srv/*.srv'))
    assert set(re.findall(r'^uint16 ([A-Z_]+)=', text, re.MULTILINE)) == set(ErrorCode.__members__)


def test_states_of_tracker_and_message_agree() -> None:
    from xmem_ros.tracker import ObjectState

    assert {state.name: state.value for state in ObjectState} == CONSTANTS['TrackedObject']


def test_every_field_of_an_interface_is_documented() -> None:
    for path in [*ROOT.glob('msg/*.msg'), *ROOT.glob('srv/*.srv'), *ROOT.glob('action/*.action')]:
        assert path.read_text().startswith('# '), f'{path.name} does not say what it is'
    missing = []
    for path in ROOT.glob('msg/*.msg'):
        explained = False
        for line in path.read_text().splitlines():
            if line.startswith('#'):
                explained = True
            elif not line:
                explained = False
            elif not explained:
                missing.append(f'{path.name}: {line}')
    assert not missing


def test_versions_of_both_builds_agree() -> None:
    package = ET.parse(ROOT / 'package.xml').getroot()
    pyproject = (ROOT / 'pyproject.toml').read_text()
    version = re.search(r'^version = "(.+)"$', pyproject, re.MULTILINE)
    assert version
    assert version[1] == package.findtext('version')
    changelog = (ROOT / 'CHANGELOG.rst').read_text()
    assert re.search(rf'^{re.escape(version[1])} \(', changelog, re.MULTILINE)


def test_the_licence_of_the_weights_is_declared_beside_that_of_the_code() -> None:
    licenses = [element.text for element in ET.parse(ROOT / 'package.xml').getroot().iter('license')]
    assert licenses == ['MIT', 'CC-BY-NC-4.0']


def test_torch_is_not_a_rosdep_key() -> None:
    package = ET.parse(ROOT / 'package.xml').getroot()
    keys = [element.text or '' for element in package if element.tag.endswith('depend')]
    assert not [key for key in keys if 'torch' in key]


def python(code: str, python_path: list[Path]) -> str:
    """Run code in a new interpreter outside the checkout; return its output.

    python_path: folders on the search path.
    """
    env = os.environ | {'PYTHONPATH': os.pathsep.join([*map(str, python_path), *ros_paths()])}
    # -c puts the working folder on the path, and / holds no modules.
    result = subprocess.run(
        [sys.executable, '-c', code], env=env, cwd='/', capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def ros_paths() -> list[str]:
    """Return the module folders of a sourced ROS 2: PYTHONPATH without those of this package."""
    paths = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    return [path for path in paths if path and not (Path(path) / 'xmem_ros').is_dir()]


def modules_folder(prefix: Path) -> Path:
    (found,) = prefix.glob('**/*-packages/xmem_ros/msg/__init__.py')
    return found.parent.parent.parent


def test_the_installed_package_has_messages_and_modules(prefix: Path) -> None:
    code = (
        'import xmem_ros.errors, xmem_ros.network, xmem_ros.tracker\n'
        'from xmem_ros.msg import TrackedObject\n'
        'from xmem_ros.srv import SeedObjects\n'
        'print(xmem_ros.errors.__file__)'
    )
    folder = modules_folder(prefix)
    assert python(code, [folder]) == str(folder / 'xmem_ros' / 'errors.py')


def test_the_checkout_and_the_generated_messages_are_one_package(prefix: Path) -> None:
    code = (
        'import xmem_ros.errors\n'
        'from xmem_ros.msg import TrackedObject\n'
        'from xmem_ros.srv import SeedObjects\n'
        'print(xmem_ros.errors.__file__)'
    )
    assert python(code, [ROOT, modules_folder(prefix)]) == str(ROOT / 'xmem_ros' / 'errors.py')


def test_every_module_is_installed(prefix: Path) -> None:
    folder = modules_folder(prefix) / 'xmem_ros'
    modules = {path.relative_to(ROOT / 'xmem_ros') for path in (ROOT / 'xmem_ros').rglob('*.py')}
    missing = [str(module) for module in sorted(modules) if not (folder / module).is_file()]
    assert not missing, 'run make build'


def test_the_generated_package_keeps_its_own_init(prefix: Path) -> None:
    ours = (ROOT / 'xmem_ros' / '__init__.py').read_text()
    assert (modules_folder(prefix) / 'xmem_ros' / '__init__.py').read_text() != ours


def test_weights_configuration_launch_file_and_examples_are_installed(prefix: Path) -> None:
    assert (prefix / 'share/xmem_ros/config/track.yaml').is_file()
    assert (prefix / 'share/xmem_ros/launch/track.launch.py').is_file()
    assert (prefix / 'share/xmem_ros/examples/follow.py').is_file()
    assert (modules_folder(prefix) / 'xmem_ros/web/static/index.html').is_file()
    assert list((modules_folder(prefix) / 'xmem_ros/weights').glob('*.safetensors'))


@pytest.mark.parametrize('name', EXECUTABLES)
def test_executables_run_under_the_interpreter_that_built_them(prefix: Path, name: str) -> None:
    executable = prefix / 'lib' / 'xmem_ros' / name
    assert os.access(executable, os.X_OK)
    interpreter = re.search(r"^'''exec' '(.+?)'", executable.read_text(), re.MULTILINE)
    assert interpreter
    assert Path(interpreter[1]).parent == Path(sys.executable).parent


def test_the_command_line_prints_its_help(prefix: Path) -> None:
    result = subprocess.run(
        [prefix / 'lib/xmem_ros/xmem-ros', '--help'], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert 'evaluate' in result.stdout


def test_a_tracker_needs_no_ros_and_starts_without_slow_modules_of_torch() -> None:
    code = (
        'import sys\n'
        'import xmem_ros.seeding, xmem_ros.cli.main\n'
        'from xmem_ros.tracker import Tracker\n'
        'Tracker.from_weights("compact", device="cpu")\n'
        'names = {"rclpy", "sensor_msgs", "cv_bridge", "torchvision", "torch._dynamo", "sympy"}\n'
        'print(sorted(names & set(sys.modules)))'
    )
    assert python(code, [ROOT]) == '[]'


def test_checks_before_tracking_do_not_import_torch() -> None:
    code = (
        'import sys\n'
        'import xmem_ros.cli.main, xmem_ros.parameters.table, xmem_ros.weights.files, xmem_ros.offline.destination\n'
        'import xmem_ros.recordings.seed_plan, xmem_ros.regress.run, xmem_ros.evaluation.datasets\n'
        'print("torch" in sys.modules)'
    )
    assert python(code, [ROOT]) == 'False'
