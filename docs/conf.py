# SPDX-License-Identifier: MIT
"""Sphinx configuration for `make docs` and rosdoc2; rosdoc2 executes it in a copy of docs/."""

import dataclasses
import importlib.util
import inspect
import os
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import _MockObject

SOURCE = Path(__file__).resolve().parent


def checkout() -> Path:
    """Find the package's root, above this file or above the folder in which rosdoc2 was started.

    The latter is read from PWD, because Sphinx changes the working folder.
    """
    start = Path(os.environ.get('PWD', '.')).resolve()
    for folder in (*SOURCE.parents, start, *start.parents):
        if (folder / 'xmem_ros' / 'tracker').exists() or (folder / 'xmem_ros' / 'tracker.py').exists():
            return folder
    return SOURCE.parent


ROOT = checkout()
sys.path.insert(0, os.fspath(ROOT))

project = 'xmem_ros'
author = 'xmem_ros maintainers'
project_copyright = f'{author}, MIT licence'
if (ROOT / 'package.xml').is_file():
    release = version = ET.parse(ROOT / 'package.xml').findtext('version') or ''  # noqa: S314  # our own

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
if importlib.util.find_spec('sphinx_copybutton'):  # not on the build farm of ROS
    extensions.append('sphinx_copybutton')
source_suffix = {'.md': 'markdown', '.rst': 'restructuredtext'}
exclude_patterns = ['results', 'modules.rst', 'xmem_ros.rst', 'xmem_ros.*.rst']  # rosdoc2 lists all modules; see api.md
ROSDOC2 = (SOURCE / 'standards.rst').is_file()
if ROSDOC2:
    exclude_patterns += ['contributing.md', 'changelog.rst']  # rosdoc2 generates these pages itself

# Heading anchors as on GitHub: page.md#a-heading.
myst_heading_anchors = 4
myst_enable_extensions = ['colon_fence']

# `name` in a docstring is code.
default_role = 'code'
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_default_options = {'show-inheritance': True}
napoleon_numpy_docstring = False
_OPTIONAL = [
    'aiohttp', 'onnxruntime', 'rclpy', 'rosbags', 'safetensors', 'torch', 'torchvision',
]  # fmt: skip
_MESSAGES = [
    'builtin_interfaces', 'diagnostic_msgs', 'geometry_msgs', 'lifecycle_msgs', 'rcl_interfaces', 'rosgraph_msgs',
    'sensor_msgs', 'std_msgs', 'std_srvs', 'xmem_ros.msg', 'xmem_ros.srv',
]  # fmt: skip


def _missing(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is None
    except ImportError:
        return True


# The reference is also built without torch or ROS. Annotations join mocked types by |.
_MockObject.__or__ = _MockObject.__ror__ = lambda self, _: self
autodoc_mock_imports = [name for name in (*_OPTIONAL, *_MESSAGES) if _missing(name)]

html_theme = 'furo'
html_title = 'xmem_ros'
html_show_sphinx = False

# Otherwise rosdoc2 replaces the list of mocked imports by one without torch.
rosdoc2_settings = {'enable_autodoc': False, 'enable_intersphinx': False}
rosdoc2_settings['automatically_extend_intersphinx_mapping'] = False


def _list_pages_of_rosdoc2(_: Sphinx, name: str, source: list[str]) -> None:
    if name == 'index':
        pages = 'standards', 'interfaces/message_definitions', 'interfaces/service_definitions'
        source[0] = source[0].replace('   contributing\n   changelog\n', ''.join(f'   {page}\n' for page in pages))
        source[0] = source[0].replace(':doc:`contributing`', ':doc:`standards`')


def _describe_fields(*args: Any) -> None:
    """Describe the fields of a dataclass by their trailing comments."""
    _, what, _, item, _, lines = args
    if what == 'class' and dataclasses.is_dataclass(item):
        for name, comment in re.findall(r'^    (\w+): .*?  # (.+)$', inspect.getsource(item), re.MULTILINE):
            lines += [''] if not lines or lines[-1][:6] != ':ivar ' else []
            lines.append(f':ivar {name}: ' + re.sub(r'([*|_])', r'\\\1', comment))


def setup(app: Sphinx) -> None:
    """Connect the handlers."""
    app.connect('autodoc-process-docstring', _describe_fields)
    if ROSDOC2:
        app.connect('source-read', _list_pages_of_rosdoc2)
