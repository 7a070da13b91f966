# SPDX-License-Identifier: MIT
"""Keys of the node's status in /diagnostics. No ROS."""

STATE = 'lifecycle state'  # value: one of the states below
UNCONFIGURED, CONFIGURING, INACTIVE, ACTIVE = 'unconfigured', 'configuring', 'inactive', 'active'
FINALIZED = 'finalized'

CODE = 'code'  # value: one of `health.Code`
PROGRESS = 'configuring'  # step of the configuration, and its duration so far

RATE = 'rate (Hz)'
LATENCY_MEDIAN = 'image to publish, median (ms)'
LATENCY_MAXIMUM = 'image to publish, maximum (ms)'

RECEIVED = 'received'
TRACKED = 'tracked'
DROPPED = 'dropped'
WAITING = 'waiting'
INVALID = 'invalid'
LATE = 'late'
LOST_BEFORE_NODE = 'lost before the node'
UNPUBLISHED = 'results not published'  # of tracked images

MEMORY_BYTES = 'memory (bytes)'
EVENTS_BYTES = 'events kept, at most (bytes)'  # of host memory, beside MEMORY_BYTES
IMAGE_TOPIC = 'image topic'
NO_IMAGE = 'no image'

DETECTION_MESSAGES = 'detection messages'
DETECTION_MESSAGES_DROPPED = 'detection messages dropped'
DETECTION_BOXES_TRIED = 'detection boxes tried'
OBJECTS_FROM_DETECTIONS = 'objects from detections'
OBJECTS_CORRECTED = 'objects corrected by detections'
DETECTION_MESSAGES_WITHOUT_ROOM = 'detection messages without room'

DETECTIONS_3D = 'detections_3d published'
IMAGES_WITH_DEPTH = 'images located by depth'
IMAGES_WITHOUT_DEPTH = 'images without depth'


def status_name(node: str) -> str:
    """Return the name of the status of a node with this full name."""
    return f'{node.lstrip("/")}: tracking'


def stage(name: str) -> str:
    """Return the key of the mean duration of a stage: decode, publish, total and others."""
    return f'{name} (ms)'


def positions(store: str) -> str:
    """Return the key of the positions in a memory store: working or long_term."""
    return f'{store} (positions)'


def given_up(number: int) -> str:
    """Return the key of a measure of out-of-memory recovery, counted from 1."""
    return f'given up ({number})'


def object_state(object_id: int) -> str:
    """Return the key of the state and name of an object."""
    return f'object {object_id}'
