# SPDX-License-Identifier: MIT
"""config/fastdds.xml is used: by both names of its variable, and by Fast DDS itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from needs import require

from xmem_ros.node.middleware import PROFILE_VARIABLES, profile_environment

ROOT = Path(__file__).resolve().parents[2]
PROFILE = str(ROOT / 'config' / 'fastdds.xml')


@pytest.mark.parametrize('distribution', ['humble', 'jazzy'])
def test_both_names_of_the_variable_are_set_with_fast_dds_2(distribution):
    assert profile_environment(ROOT, {'ROS_DISTRO': distribution}) == dict.fromkeys(PROFILE_VARIABLES, PROFILE)


@pytest.mark.parametrize('distribution', ['kilted', 'rolling'])
def test_the_new_name_alone_is_set_with_fast_dds_3(distribution):
    assert profile_environment(ROOT, {'ROS_DISTRO': distribution}) == {PROFILE_VARIABLES[0]: PROFILE}


@pytest.mark.parametrize('name', [*PROFILE_VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS'])
@pytest.mark.parametrize('value', ['', '/their/own.xml'])
def test_what_the_user_has_chosen_stays(name, value):
    assert profile_environment(ROOT, {'ROS_DISTRO': 'jazzy', name: value}) == {}


@pytest.mark.parametrize('name', ['docs/troubleshooting.md', 'docs/robustness.md', 'docker/entrypoint.sh'])
def test_whoever_exports_one_name_exports_both(name):
    text = (ROOT / name).read_text()
    assert all(f'export {variable}=' in text for variable in PROFILE_VARIABLES)


@pytest.mark.parametrize(
    ('given', 'profiles'),
    [
        ({}, ['/ws/install/xmem_ros/share/xmem_ros/config/fastdds.xml'] * 2),
        ({PROFILE_VARIABLES[0]: '/own.xml'}, ['/own.xml', '/own.xml']),
    ],
)
def test_the_container_exports_both_names(given, profiles):
    lines = (ROOT / 'docker' / 'entrypoint.sh').read_text().splitlines()
    script = '\n'.join(line for line in lines if not line.startswith(('source', 'exec')))
    script += '\n' + '\n'.join(f'echo "${name}"' for name in PROFILE_VARIABLES)
    clean = {key: value for key, value in os.environ.items() if key not in PROFILE_VARIABLES}
    shown = subprocess.run(['bash', '-c', script], env={**clean, **given}, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == profiles


def test_fast_dds_loads_the_profile_once_by_the_names_that_are_set(tmp_path):
    """Fast DDS says so if it does not understand the file, and only if it reads it."""
    require('rclpy')
    broken = tmp_path / 'profile.xml'
    broken.write_text(Path(PROFILE).read_text().replace('<type>SHM</type>', '<type>NO SUCH TRANSPORT</type>'))
    program = 'import rclpy; rclpy.init(); rclpy.create_node("one"); rclpy.shutdown()'
    clean = {key: value for key, value in os.environ.items() if key not in PROFILE_VARIABLES}

    def errors(path: Path | str) -> str:
        names = profile_environment(ROOT, {'ROS_DISTRO': os.environ.get('ROS_DISTRO', '')})
        environment = clean | dict.fromkeys(names, str(path))
        return subprocess.run(
            [sys.executable, '-c', program], env=environment, capture_output=True, text=True, timeout=60
        ).stderr

    if os.environ.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp') != 'rmw_fastrtps_cpp':
        pytest.skip('another middleware than Fast DDS')
    assert 'XML' not in errors(PROFILE)
    assert 'XMLPARSER' in errors(broken)
