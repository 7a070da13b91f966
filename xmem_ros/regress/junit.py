# SPDX-License-Identifier: MIT
"""Results as JUnit XML, which CI servers read. So few elements need no library beyond Python's own."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from xmem_ros.regress.figures import written
from xmem_ros.regress.files import write_file
from xmem_ros.regress.results import ERROR, UNMET, Result

_NOT_XML = re.compile('[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]')  # XML 1.0, production 2


def write_junit(path: Path, suite: str, results: Sequence[Result]) -> None:
    """Write a test suite with a test for each case; raises `OutputError`."""
    states = [result.state for result in results]
    root = ET.Element('testsuites', name='xmem-ros regress')
    attributes = {
        'name': suite,
        'tests': str(len(results)),
        'failures': str(states.count(UNMET)),
        'errors': str(states.count(ERROR)),
        'skipped': '0',
        'time': f'{sum(result.seconds for result in results):.3f}',
    }
    tests = ET.SubElement(root, 'testsuite', {name: _clean(text) for name, text in attributes.items()})
    for result in results:
        test = ET.SubElement(
            tests, 'testcase', classname=_clean(suite), name=_clean(result.name), time=f'{result.seconds:.3f}'
        )
        if result.state in (UNMET, ERROR):
            kind = 'error' if result.state == ERROR else 'failure'
            fault = ET.SubElement(test, kind, type=kind, message=_clean('; '.join(result.faults)))
            fault.text = _clean('\n'.join(result.faults))
        lines = [f'{name}: {written(name, value)}' for name, value in result.figures.items()]
        ET.SubElement(test, 'system-out').text = _clean('\n'.join([*lines, *result.notes]))
    ET.indent(root)
    write_file(path, f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n')


def _clean(text: str) -> str:
    """Without characters that XML cannot hold."""
    return _NOT_XML.sub('\ufffd', text)
