# SPDX-License-Identifier: MIT
"""Results as JUnit XML, for CI servers."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from xmem_ros.outside_text import for_xml
from xmem_ros.regress.figures import formatted
from xmem_ros.regress.files import write_file
from xmem_ros.regress.results import ERROR, UNMET, Result


def write_junit(path: Path, suite: str, results: Sequence[Result]) -> None:
    """Write a test suite with one test for each case; raises `OutputError`."""
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
    tests = ET.SubElement(root, 'testsuite', {name: for_xml(text) for name, text in attributes.items()})
    for result in results:
        test = ET.SubElement(
            tests, 'testcase', classname=for_xml(suite), name=for_xml(result.name), time=f'{result.seconds:.3f}'
        )
        if result.state in (UNMET, ERROR):
            kind = 'error' if result.state == ERROR else 'failure'
            fault = ET.SubElement(test, kind, type=kind, message=for_xml('; '.join(result.faults)))
            fault.text = for_xml('\n'.join(result.faults))
        lines = [f'{name}: {formatted(name, value)}' for name, value in result.figures.items()]
        ET.SubElement(test, 'system-out').text = for_xml('\n'.join([*lines, *result.notes]))
    ET.indent(root)
    write_file(path, f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n')
