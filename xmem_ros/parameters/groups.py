# SPDX-License-Identifier: MIT
"""Groups of the parameter table: memory, depth and seed_detections."""

from __future__ import annotations

from dataclasses import dataclass

from xmem_ros.parameters.rule import LIVE, parameter


@dataclass(frozen=True)
class MemoryParameters:
    """Sizes and policy of the memory; sizes default to those of the XMem paper."""

    max_working_frames: int = parameter(10, 'Frames in working memory at which consolidation starts.', low=2, high=1000)
    min_working_frames: int = parameter(5, 'Frames that consolidation leaves in working memory.', low=1, high=999)
    long_term: bool = parameter(True, 'Keep prototypes of older frames. Off: older frames are forgotten.')
    long_term_elements: int = parameter(
        10_000, 'Maximum number of prototypes in long-term memory.', low=1, high=1_000_000
    )
    prototypes: int = parameter(128, 'Prototypes made by one consolidation.', low=1, high=100_000)
    top_k: int = parameter(30, 'Memory positions read by each position of a frame.', low=1, high=1000)
    anchors_per_object: int = parameter(
        3, 'Anchor frames of each object: its first seed and its latest corrections.', low=2, high=100
    )
    max_anchor_frames: int = parameter(4, 'Room for anchors, in whole frames.', low=1, high=254)
    usage: str = parameter(
        'own',
        'Usage that decides which positions are kept. own: reads from inside the owner, in images in which it is '
        'visible. all: reads from anywhere, as published; an object out of sight fades.',
        choices=('own', 'all'),
    )
    quotas: bool = parameter(
        True,
        'Objects share half of long-term memory equally; the background has the other half. Off, as published: the '
        'most used positions stay.',
    )
    guard: bool = parameter(
        True,
        'Memorise an object that is not visible as absent. Off, as published: guesses are memorised too.',
    )
    budget_mb: float = parameter(
        0.0,
        'Limit of all stores together; long-term memory is made as large as it allows. 0: no limit.',
        low=0.0,
        high=1_000_000.0,
        unit='MB',
    )


@dataclass(frozen=True)
class DepthParameters:
    """Objects in space, from depth images."""

    enabled: bool = parameter(
        False,
        'Locate objects in space by depth/image, aligned to the colour image, and depth/camera_info: publish '
        '~/object_points, ~/background_points, ~/poses, ~/motions and, with vision_msgs, ~/detections_3d.',
    )
    image_transport: str = parameter(
        'raw',
        'raw: sensor_msgs/Image on depth/image. compressedDepth: sensor_msgs/CompressedImage with PNG on '
        'depth/image/compressedDepth.',
        choices=('raw', 'compressedDepth'),
    )
    slop: float = parameter(
        0.02,
        'Maximum difference of stamps between an image and its depth image.',
        low=0.0,
        high=10.0,
        unit='s',
        change=LIVE,
    )
    target_frame: str = parameter(
        '',
        'Frame in which positions and clouds are published, as map or base_link; needs tf2_ros. Empty: the frame of '
        'the camera.',
    )
    publish_tf: bool = parameter(
        False, 'Publish a transform of each visible object, to the frame <node>/object_<id>; needs tf2_msgs.'
    )
    point_spacing: int = parameter(
        2,
        'Rows and columns of the depth image from one point of a cloud to the next.',
        low=1,
        high=64,
        change=LIVE,
        unit='px',
    )
    rim: int = parameter(
        2,
        'Rim of each mask that clouds leave out on both sides, since depths mix there.',
        low=0,
        high=50,
        change=LIVE,
        unit='px',
    )
    position_noise: float = parameter(
        0.02, 'Standard deviation of a measured position, for ~/motions.', low=0.0001, high=10.0, change=LIVE, unit='m'
    )
    speed_change: float = parameter(
        0.5,
        'Typical change of the velocity of an object in a second, for ~/motions. More: velocities follow sooner and '
        'are noisier.',
        low=0.001,
        high=100.0,
        change=LIVE,
        unit='m/s',
    )


@dataclass(frozen=True)
class SeedDetectionParameters:
    """Seeds from a detector."""

    enabled: bool = parameter(
        False, 'Use boxes of a detector on ~/seed_detections as seeds of untracked objects. Needs vision_msgs.'
    )
    classes: tuple[str, ...] = parameter((), 'Accepted classes, as in [cup, bottle]. Empty: all.', change=LIVE)
    min_score: float = parameter(0.5, 'Minimum score of a detection.', low=0.0, high=1.0, change=LIVE)
    max_iou: float = parameter(
        0.3,
        'A box with at least this IoU with the box of a tracked object belongs to that object.',
        low=0.01,
        high=1.0,
        change=LIVE,
    )
    reseed_within: float = parameter(
        600.0,
        'A box may correct a lost object of its class that was last visible at most this long ago: at its last '
        'position, or with min_likeness. 0: it always starts a new object.',
        low=0.0,
        high=86400.0,
        unit='s',
        change=LIVE,
    )
    min_likeness: float = parameter(
        0.7,
        'Minimum similarity for a box away from the last position to re-identify a lost object (reseed_within). 0: '
        'the class alone decides.',
        low=0.0,
        high=1.0,
        change=LIVE,
    )
    max_per_message: int = parameter(
        4, 'Maximum number of boxes tried in a message, the likeliest first.', low=1, high=254, change=LIVE
    )
    period: float = parameter(
        1.0,
        'Minimum time between messages whose boxes are tried; of those in between, the newest is used.',
        low=0.0,
        high=3600.0,
        unit='s',
        change=LIVE,
    )
