# SPDX-License-Identifier: MIT
"""Links of the pages that `make docs` does not build, and figures that pages repeat."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ['README.md', 'CONTRIBUTING.md', 'xmem_ros/weights/compact.md', 'xmem_ros/weights/compact-permissive.md']


def local_links(text: str) -> list[str]:
    """Targets of Markdown links and images that are files, without their anchors."""
    targets = re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', text)
    return [target.partition('#')[0] for pair in targets for target in pair if target and '://' not in target]


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_to_files_of_the_checkout(page):
    links = local_links((ROOT / page).read_text())
    assert links
    assert [link for link in links if link and not ((ROOT / page).parent / link).exists()] == []


def test_every_page_of_the_documentation_is_in_the_index_of_the_readme():
    listed = set(local_links((ROOT / 'README.md').read_text()))
    own = {'api.md', 'contributing.md'}  # parts of the site alone
    pages = {f'docs/{path.name}' for path in (ROOT / 'docs').glob('*.md') if path.name not in own}
    assert pages - listed == set()


def test_the_readme_has_at_most_1000_words():
    """At most 1000 words: tables of topics, arguments and parameters are in docs/."""
    assert len((ROOT / 'README.md').read_text().split()) <= 1000


def imported_rooms(folder: Path) -> set[str]:
    """The folders of xmem_ros that the modules of one of them import."""
    modules = set()
    for file in folder.rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules |= {node.module, *(f'{node.module}.{alias.name}' for alias in node.names)}
    rooms = {name.split('.')[1] for name in modules if name.startswith('xmem_ros.')}
    return {room for room in rooms - {folder.name} if (folder.parent / room).is_dir()}


def test_subpackages_import_only_those_listed_in_the_design_document():
    rows = re.findall(
        r'^\| `(\w+)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$', (ROOT / 'docs' / 'design.md').read_text(), re.MULTILINE
    )
    allowed = {room: set(re.findall(r'`(\w+)`', rooms)) for room, rooms in rows}
    rooms = {path.parent.name for path in (ROOT / 'xmem_ros').glob('*/__init__.py')}
    assert rooms <= set(allowed)
    allowed['cli'] = rooms - allowed['cli']  # whose row has the exceptions
    found = {room: imported_rooms(ROOT / 'xmem_ros' / room) for room in rooms}
    assert {room: found[room] - allowed[room] for room in rooms if found[room] - allowed[room]} == {}


def test_imports_between_subpackages_have_no_cycles():
    rooms = {path.parent.name for path in (ROOT / 'xmem_ros').glob('*/__init__.py')}
    found = {room: imported_rooms(ROOT / 'xmem_ros' / room) for room in rooms}
    while free := {room for room in found if not found[room] & set(found)}:
        found = {room: found[room] for room in set(found) - free}
    assert found == {}
