# SPDX-License-Identifier: MIT
"""Commands of the page for previews: parsed, or refused."""

import pytest
from needs import require

require('rclpy', 'xmem_ros.msg', 'aiohttp')

from xmem_ros.client.seeds import Box, Points
from xmem_ros.errors import SeedError
from xmem_ros.web.commands import Acceptance, Preview, command_of

STAMP = {'sec': 7, 'nanosec': 5}
BOX = {'kind': 'box', 'box': [1, 2, 3, 4]}


def test_a_preview_and_its_acceptance_are_parsed():
    asked = {'type': 'preview', 'stamp': STAMP, **BOX}
    assert command_of(asked, None) == Preview(0, Box(1, 2, 3, 4), 7_000_000_005)
    own = {'type': 'preview', 'stamp': STAMP, 'id': 3, 'kind': 'points', 'points': []}
    assert command_of(own, None) == Preview(3, Points(on=()), 7_000_000_005)
    given = {'type': 'accept', 'preview': 6, 'candidate': 1, 'id': 3, 'name': ' mug '}
    assert command_of(given, None) == Acceptance((3, 'mug'), 6, 1)


@pytest.mark.parametrize(
    'command',
    [
        {'type': 'preview', **BOX},
        {'type': 'preview', 'stamp': {'sec': 0, 'nanosec': 0}, **BOX},
        {'type': 'preview', 'stamp': STAMP},
        {'type': 'preview', 'stamp': STAMP, 'kind': 'points', 'points': []},
        {'type': 'preview', 'stamp': STAMP, 'kind': 'mask', 'width': 4, 'height': 3, 'runs': [12]},
        {'type': 'preview', 'stamp': STAMP, 'id': '3', **BOX},
        {'type': 'accept'},
        {'type': 'accept', 'preview': 1},
        {'type': 'accept', 'preview': 1, 'candidate': -1},
        {'type': 'accept', 'preview': 1, 'candidate': True},
        {'type': 'accept', 'preview': 2**60, 'candidate': 0},
        {'type': 'accept', 'preview': 1, 'candidate': 0, 'name': 5},
    ],
)
def test_an_invalid_preview_or_acceptance_is_refused(command):
    with pytest.raises(SeedError):
        command_of(command, (4, 3))
