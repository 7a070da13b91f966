# SPDX-License-Identifier: MIT
"""Launch file and parameters for nav2."""

from __future__ import annotations

from pathlib import Path

import yaml
from needs import require

from xmem_ros.parameters.yaml_file import read_parameters

ROOT = Path(__file__).resolve().parents[2]
# Of nav2_costmap_2d's obstacle and voxel layers in Humble, Jazzy, Kilted and main.
OF_LAYERS = {
    *('plugin', 'enabled', 'observation_sources', 'max_obstacle_height', 'min_obstacle_height', 'mark_threshold'),
    *('publish_voxel_map', 'origin_z', 'z_resolution', 'z_voxels'),
}
OF_SOURCES = {
    *('topic', 'data_type', 'sensor_frame', 'marking', 'clearing', 'observation_persistence', 'expected_update_rate'),
    *('min_obstacle_height', 'max_obstacle_height', 'obstacle_min_range', 'obstacle_max_range'),
    *('raytrace_min_range', 'raytrace_max_range'),
}


def test_the_launch_file_declares_its_arguments_with_descriptions():
    require('launch.actions', 'launch_ros.actions')
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    path = ROOT / 'launch' / 'nav2_follow.launch.py'
    declared = get_launch_description_from_python_launch_file(str(path)).get_launch_arguments()
    own = ['object', 'frame', 'params_file', 'name', 'namespace', 'image', 'depth_image', 'camera_info', 'web']
    assert [item.name for item in declared][: len(own)] == own  # those of track.launch.py follow
    assert all(item.description and item.default_value is not None for item in declared)


def test_the_parameters_of_the_tracker_are_allowed_and_locate_objects_in_the_map():
    depth = read_parameters(ROOT / 'config' / 'nav2_track.yaml').depth
    assert (depth.enabled, depth.target_frame, depth.publish_tf) == (True, 'map', True)


def test_the_costmaps_have_parameters_that_nav2_knows_and_take_the_background():
    content = yaml.safe_load((ROOT / 'config' / 'nav2_costmap.yaml').read_text())
    for costmap in ('local_costmap', 'global_costmap'):
        parameters = content[costmap][costmap]['ros__parameters']
        layers = {name: value for name, value in parameters.items() if isinstance(value, dict)}
        assert set(layers) <= set(parameters['plugins'])
        for layer in layers.values():
            sources = layer['observation_sources'].split()
            assert set(layer) - set(sources) <= OF_LAYERS
            for source in sources:
                assert set(layer[source]) <= OF_SOURCES
                assert layer[source]['topic'] == '/xmem/background_points'
                assert layer[source]['data_type'] == 'PointCloud2'
                assert layer[source]['sensor_frame']  # else rays begin at the origin of depth.target_frame
