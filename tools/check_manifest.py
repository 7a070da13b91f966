# SPDX-License-Identifier: MIT
"""Check package.xml, and its version in pyproject.toml and CITATION.cff. Part of `make lint`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def faults() -> list[str]:
    """Return the faults, one sentence each."""
    from catkin_pkg.package import InvalidPackage, parse_package

    warnings: list[str] = []
    try:
        package = parse_package(ROOT, warnings=warnings)
    except InvalidPackage as error:
        return [f'package.xml: {error}']
    found = [f'package.xml: {warning}' for warning in warnings]

    # Without a TOML parser, which Python 3.10 lacks.
    for name, pattern in (('pyproject.toml', r'^version = "(.+)"$'), ('CITATION.cff', r'^version: (.+)$')):
        match = re.search(pattern, (ROOT / name).read_text(), re.MULTILINE)
        if match is None or match[1] != package.version:
            found.append(f'package.xml says version {package.version}, {name} {match and match[1]}')

    if xmllint := shutil.which('xmllint'):
        # Well-formedness only; the schema would need a download.
        result = subprocess.run([xmllint, '--noout', ROOT / 'package.xml'], capture_output=True, text=True, check=False)
        if result.returncode:
            found.append(f'package.xml: {result.stderr.strip()}')
    return found


def main() -> int:
    found = faults()
    for fault in found:
        print(fault, file=sys.stderr)
    if not found:
        print('package.xml is valid; pyproject.toml and CITATION.cff have its version')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
