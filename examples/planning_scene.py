#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Put a tracked object into MoveIt's planning scene, as a box; attach it once it is grasped.

Asks `~/get_mask` for the box of the object in the frame of the planner, and applies it by MoveIt's
service `apply_planning_scene`. Needs moveit_msgs, and the node with depth.enabled and
depth.target_frame, so that it looks transforms up.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import rclpy
from rclpy.node import Node

from xmem_ros.action import WaitVisible
from xmem_ros.srv import GetMask

WAIT_S = 10.0


def collision_object(answer: GetMask.Response, margin: float) -> Any:
    """Return a moveit_msgs/CollisionObject that adds the box of an object.

    Arguments:
        answer: of `~/get_mask`, with `has_depth`.
        margin: added to each side of the box [m]; the back of the object is not seen.
    """
    from moveit_msgs.msg import CollisionObject
    from shape_msgs.msg import SolidPrimitive

    size = answer.box_size
    sides = [side + 2 * margin for side in (size.x, size.y, size.z)]
    item = CollisionObject(id=f'xmem_{answer.object.id}', operation=CollisionObject.ADD)
    item.header, item.pose = answer.box.header, answer.box.pose
    item.primitives = [SolidPrimitive(type=SolidPrimitive.BOX, dimensions=sides)]
    item.primitive_poses = [type(answer.box.pose)()]
    return item


def scene_with(item: Any, link: str, touch: list[str]) -> Any:
    """Return a moveit_msgs/PlanningScene that adds an object, or attaches it to a link.

    MoveIt itself removes the object from the world when it attaches it.
    """
    from moveit_msgs.msg import AttachedCollisionObject, PlanningScene

    scene = PlanningScene(is_diff=True)
    scene.robot_state.is_diff = True
    if not link:
        scene.world.collision_objects = [item]
        return scene
    scene.robot_state.attached_collision_objects = [
        AttachedCollisionObject(link_name=link, object=item, touch_links=touch or [link])
    ]
    return scene


def ask(node: Node, kind: type, service: str, request: Any) -> Any:
    """Call a service; raises TimeoutError without an answer in 10 s."""
    client: Any = node.create_client(kind, service)
    if not client.wait_for_service(WAIT_S):
        raise TimeoutError(f'no service {service}')
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=WAIT_S)
    if not future.done():
        raise TimeoutError(f'no answer of {service}')
    return future.result()


def wait_visible(node: Node, tracker: str, name: str) -> None:
    """Wait until the object is visible; raises TimeoutError after 10 s."""
    from rclpy.action import ActionClient

    client: Any = ActionClient(node, WaitVisible, f'{tracker}/wait_visible')
    if not client.wait_for_server(WAIT_S):
        raise TimeoutError(f'no action {tracker}/wait_visible')
    goal = WaitVisible.Goal(name=name)
    goal.timeout.sec = int(WAIT_S)
    sent = client.send_goal_async(goal)
    rclpy.spin_until_future_complete(node, sent, timeout_sec=WAIT_S)
    if not sent.done() or not sent.result().accepted:
        raise TimeoutError('the goal was not accepted')
    end = sent.result().get_result_async()
    rclpy.spin_until_future_complete(node, end, timeout_sec=2 * WAIT_S)
    if not end.done() or not end.result().result.success:
        raise TimeoutError(end.result().result.message if end.done() else 'no result')


def main() -> int:
    """Apply the object once; returns the exit code."""
    parser = argparse.ArgumentParser(description="Put a tracked object into MoveIt's planning scene.")
    parser.add_argument('--name', required=True, help='name of the object')
    parser.add_argument('--frame', default='base_link', help='frame of the planner (default: %(default)s)')
    parser.add_argument('--node', default='/xmem', help='name of the tracker (default: %(default)s)')
    parser.add_argument('--margin', type=float, default=0.01, help='added to each side in m (default: %(default)s)')
    parser.add_argument('--attach', default='', metavar='LINK', help='attach the object to this link: it was grasped')
    parser.add_argument('--touch', nargs='*', default=[], metavar='LINK', help='links that may touch it')
    args, ros = parser.parse_known_args()
    try:
        from moveit_msgs.srv import ApplyPlanningScene
    except ImportError as error:
        print(
            f'planning_scene: moveit_msgs is not installed ({error}): apt install ros-$ROS_DISTRO-moveit-msgs',
            file=sys.stderr,
        )
        return 2
    rclpy.init(args=[sys.argv[0], *ros])
    node = rclpy.create_node('xmem_planning_scene')
    try:
        tracker = args.node.rstrip('/')
        wait_visible(node, tracker, args.name)
        request = GetMask.Request(name=args.name, target_frame=args.frame)
        answer = ask(node, GetMask, f'{tracker}/get_mask', request)
        if not answer.success or not answer.has_depth:
            print(f'planning_scene: {answer.message}', file=sys.stderr)
            return 1
        scene = scene_with(collision_object(answer, args.margin), args.attach, args.touch)
        done = ask(node, ApplyPlanningScene, 'apply_planning_scene', ApplyPlanningScene.Request(scene=scene))
        print(f'{args.name}: {"applied" if done.success else "refused by MoveIt"}')
        return 0 if done.success else 1
    except TimeoutError as error:
        print(f'planning_scene: {error}', file=sys.stderr)
        return 1
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
