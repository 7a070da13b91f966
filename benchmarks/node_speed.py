# SPDX-License-Identifier: MIT
"""Latency and throughput of the node, in its own process and over DDS.

    make bench RUN=node_speed BENCH='latency [--frames 200] [--rate 5] [--json FILE]'
    make bench RUN=node_speed BENCH='throughput [--seconds 20] [--rate 30] [--json FILE]'

`latency`: overhead of the node over the tracker, from an image's stamp to a subscriber's callback.
A best-effort camera in this process publishes images and receives `~/labels` and `~/objects`. The
node's process notes when `Tracker.step` begins and ends and when publishing is done, by a clock
that both share. Columns, all without the step:

    in      stamp → step: transport to the node, its queue, conversion
    out     end of the step → published: making and publishing messages
    across  published → callback of the labels in the subscriber

The rate must leave the node idle between two images, else waiting is measured. Exit code 1 if the
median overhead at 640×480 exceeds 5 ms.

`throughput`: share of a fast camera's images that the node receives and tracks. Camera, node and
consumer are separate processes, first with raw images, then with JPEG in and out. `in`: images that
reached the node; `tracked`: images that it tracked, the others were dropped for newer ones. Age:
from the stamp to the consumer's callback of the labels. Cores: CPU time of the node per second.

Fast DDS uses config/fastdds.xml, so that images arrive complete.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmem_ros.atomic import write_text
from xmem_ros.node.middleware import profile_environment
from xmem_ros.threads import wait_asleep

wait_asleep()

SIZES = ((480, 640), (720, 1280))  # of latency, H×W px
BAR_MS, BAR_SIZE = 5.0, (480, 640)
TRANSPORTS = ('raw', 'compressed')
CLIP = 30  # images of the camera's clip, which is repeated
FASTDDS = Path(__file__).parents[1] / 'config' / 'fastdds.xml'
NOTES = 'XMEM_ROS_LATENCY_NOTES'  # variable: file that the node's process writes to


def scene_of(size: tuple[int, int]) -> Any:
    """Render the scene of the camera: H×W px, two objects."""
    from xmem_ros.demo.scene import RenderedScene

    return RenderedScene(size, 150, 2, seed=0)


def publish_clip(publisher: Any, scene: Any, kind: type, rate: float, clock: Any) -> Iterator[int]:
    """Publish the clip for ever at a rate [Hz], stamped by `clock`; yields the stamps [ns]."""
    from sensor_msgs.msg import CompressedImage

    from xmem_ros.conversions.compressed_images import compressed_from_array
    from xmem_ros.conversions.images import image_from_array

    convert, encoding = (compressed_from_array, 'jpeg') if kind is CompressedImage else (image_from_array, 'rgb8')
    messages = [convert(scene[number][0], encoding, kind) for number in range(CLIP)]
    begin, number = time.monotonic(), 0
    while True:
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        message = messages[number % CLIP]
        stamp = clock()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        publisher.publish(message)
        number += 1
        yield stamp


def seed_first(robot: Any, scene: Any) -> None:
    """Seed the first object of the scene in the newest image."""
    import node_harness as robots

    answer = robot.seed(robots.mask_seed(scene[0][1] == 1, 'it'))
    if not answer.success:
        raise SystemExit(answer.message)


def distribution(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum."""
    ordered = sorted(values)
    p95 = ordered[int(0.95 * (len(ordered) - 1))]
    return {'median': statistics.median(ordered), 'p95': p95, 'longest': ordered[-1]}


# --- latency


def as_node() -> int:
    """Run the node; note per frame its stamp, begin and end of the step, and publication [ns]."""
    from xmem_ros.conversions.images import stamp_ns
    from xmem_ros.node import main as node_main
    from xmem_ros.node.publishers import Publishers
    from xmem_ros.tracker import Tracker

    step, publish, last = Tracker.step, Publishers._publish, [0, 0]
    times: dict[float, list[int]] = {}  # time at which work on a frame began → begin and end of its step
    enqueue = Publishers.publish
    with Path(os.environ[NOTES]).open('w', buffering=1) as notes:

        def timed_step(self: Any, *args: Any, **kwargs: Any) -> Any:
            last[0] = time.monotonic_ns()
            result = step(self, *args, **kwargs)
            last[1] = time.monotonic_ns()
            return result

        def noted(self: Any, header: Any, image: Any, result: Any, begun: float) -> None:
            times[begun] = list(last)
            enqueue(self, header, image, result, begun)

        def timed_publish(self: Any, header: Any, image: Any, result: Any, begun: float) -> None:
            publish(self, header, image, result, begun)
            print(stamp_ns(header.stamp), *times.pop(begun), time.monotonic_ns(), file=notes)

        Tracker.step, Publishers.publish, Publishers._publish = timed_step, noted, timed_publish  # type: ignore[method-assign]
        return node_main.main()


def measure_latency(size: tuple[int, int], args: argparse.Namespace) -> dict[str, Any]:
    """Measure images of one size; distributions in ms."""
    import node_harness as robots
    from sensor_msgs.msg import Image

    from xmem_ros.conversions.images import stamp_ns
    from xmem_ros.msg import TrackedObjectArray

    scene = scene_of(size)
    received: dict[str, dict[int, int]] = {'labels': {}, 'objects': {}}  # topic → stamp → arrival, ns

    def subscribe(topic: str, kind: type) -> None:
        def callback(message: Any) -> None:
            received[topic].setdefault(stamp_ns(message.header.stamp), time.monotonic_ns())

        robot.node.create_subscription(kind, f'{robot.prefix}/{topic}', callback, robots.CAMERA)

    with tempfile.NamedTemporaryFile('r', suffix='.txt') as notes:
        os.environ[NOTES] = notes.name
        parameters = {'device': args.device, 'weights': args.weights, 'max_objects': 1}
        with robots.running(parameters, camera=robots.CAMERA, process_of=robots.NodeProcess) as robot:
            subscribe('labels', Image)
            subscribe('objects', TrackedObjectArray)
            robots.wait_until(lambda: robot.node.count_publishers(f'{robot.prefix}/labels'), 'the labels')
            end = time.monotonic() + 60
            for _ in publish_clip(robot.images, scene, Image, 2.0, time.monotonic_ns):
                if received['objects']:
                    break
                if time.monotonic() > end:
                    raise SystemExit('the node received no image within 60 s')
            seed_first(robot, scene)
            images = publish_clip(robot.images, scene, Image, args.rate, time.monotonic_ns)
            stamps = [stamp for _, stamp in zip(range(args.warm_up + args.frames), images, strict=False)]
            time.sleep(1.0)
        lines = {int(line.split()[0]): [*map(int, line.split()[1:])] for line in notes.read().splitlines()}
    counted, rows = stamps[args.warm_up :], []
    for stamp in counted:
        if stamp in lines and stamp in received['labels'] and stamp in received['objects']:
            begun, ended, published = lines[stamp]
            labels, objects = received['labels'][stamp], received['objects'][stamp]
            row = {'step': ended - begun, 'in': begun - stamp, 'out': published - ended, 'across': labels - published}
            row |= {'added': labels - stamp - row['step'], 'added, objects': objects - stamp - row['step']}
            rows.append({name: value / 1e6 for name, value in row.items()})
    if not rows:
        raise SystemExit(f'{size[1]}×{size[0]}: no image and its labels arrived')
    return {
        'height': size[0],
        'width': size[1],
        'sent': len(counted),
        'tracked': len(lines.keys() & set(counted)),
        'frames': len(rows),
        **{name: distribution([row[name] for row in rows]) for name in rows[0]},
    }


def latency(args: argparse.Namespace) -> int:
    """Measure, print, judge; returns the exit code."""
    import node_harness as robots

    robots.NodeProcess.program = (str(Path(__file__).resolve()), '--as-node')
    rows = [measure_latency(size, args) for size in SIZES]
    names = ('step', 'in', 'out', 'across', 'added', 'added, objects')
    print(f'{"median (p95), ms":20}{"received/tracked/sent":>22}' + ''.join(f'{name:>18}' for name in names))
    for row in rows:
        cells = ''.join(f'{row[n]["median"]:10.2f} ({row[n]["p95"]:.2f})'.rjust(18) for n in names)
        counts = f'{row["frames"]}/{row["tracked"]}/{row["sent"]}'
        print(f'{row["width"]}×{row["height"]}'.ljust(20) + counts.rjust(22) + cells)
    if args.json:
        write_text(args.json, json.dumps({'rate': args.rate, 'rows': rows}, indent=2) + '\n')
    added = next(row for row in rows if (row['height'], row['width']) == BAR_SIZE)['added']['median']
    print(f'{"met" if added <= BAR_MS else "MISSED"}: the node adds {added:.2f} ms at 640×480, at most {BAR_MS:g}')
    return 0 if added <= BAR_MS else 1


# --- throughput


def as_camera(transport: str, width: int, height: int, rate: float, log: str) -> None:
    """Publish images until interrupted; `log` gets a line with the stamp of each."""
    import rclpy
    from node_harness import CAMERA
    from sensor_msgs.msg import CompressedImage, Image

    compressed = transport == 'compressed'
    kind, name = (CompressedImage, 'image/compressed') if compressed else (Image, 'image')
    rclpy.init()
    publisher = rclpy.create_node('camera').create_publisher(kind, name, CAMERA)
    with Path(log).open('w', buffering=1) as stamps:
        for stamp in publish_clip(publisher, scene_of((height, width)), kind, rate, time.time_ns):
            print(stamp, file=stamps)


def measure_throughput(transport: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure one transport."""
    import node_harness as robots
    import psutil
    from robustness import processes
    from sensor_msgs.msg import CompressedImage, Image
    from tqdm import tqdm

    from xmem_ros.conversions.images import stamp_ns

    received: list[tuple[int, int]] = []  # stamp, arrival, ns
    parameters = {
        'device': args.device,
        'weights': args.weights,
        'max_objects': 2,
        'image_transport': transport,
        'diagnostics_period': 0.2,
    }
    log = processes.Tail(folder / f'{transport}.log')
    command = (__file__, '--as-camera', transport, args.width, args.height, args.rate, log.path)
    node = processes.node(parameters)
    robot = processes.operator()
    camera = None
    try:
        node.says('active: waiting for images', robots.START_S)
        camera = processes.TrialProcess(tuple(map(str, command)))
        compressed = transport == 'compressed'
        robot.node.create_subscription(
            CompressedImage if compressed else Image,
            f'{robot.prefix}/labels' + ('/compressed' if compressed else ''),
            lambda message: received.append((stamp_ns(message.header.stamp), time.time_ns())),
            robots.CAMERA,
        )
        robots.wait_until(lambda: received, 'labels', robots.START_S)
        seed_first(robot, scene_of((args.height, args.width)))
        time.sleep(2.0)
        process = psutil.Process(node.process.pid)
        before, cpu_s = counts(robot), sum(process.cpu_times()[:2])
        log.read()
        received.clear()
        begun = time.monotonic()
        for _ in tqdm(range(round(args.seconds)), desc=transport, unit='s', mininterval=5):
            time.sleep(1)
        seconds = time.monotonic() - begun
        ages = [(now - stamp) / 1e6 for stamp, now in received]
        sent = len(log.read())
        cpu_s = sum(process.cpu_times()[:2]) - cpu_s
        after = counts(robot)
    finally:
        if camera is not None:
            camera.close()
        node.close()
        robot.close()
    if not ages:
        raise SystemExit(f'{transport}: no labels arrived')
    counted_s = (after['at'] - before['at']) / 1e9
    return {
        'transport': transport,
        'sent_per_s': sent / seconds,
        'in_per_s': (after['received'] - before['received']) / counted_s,
        'tracked_per_s': (after['tracked'] - before['tracked']) / counted_s,
        'lost_before_the_node': after['lost before the node'] - before['lost before the node'],
        'labels_heard_per_s': len(ages) / seconds,
        'age_ms': distribution(ages),
        'cores': cpu_s / seconds,
    }


def counts(robot: Any) -> dict[str, int]:
    """Return the counters of the next diagnostics, and its time of arrival [ns]."""
    values = robot.diagnostics(lambda values: 'received' in values, 'the node')
    names = ('received', 'tracked', 'lost before the node')
    return {name: int(values[name]) for name in names} | {'at': time.monotonic_ns()}


def throughput(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix='xmem_throughput_') as name:
        rows = [measure_throughput(transport, args, Path(name)) for transport in args.transports]
    print(f'{args.width}×{args.height} at {args.rate:g} Hz, images per second')
    print(f'{"":12}{"sent":>8}{"in":>8}{"tracked":>9}{"received":>9}{"lost":>6}{"age ms (p95, max)":>26}{"cores":>7}')
    for row in rows:
        age = row['age_ms']
        print(
            f'{row["transport"]:12}{row["sent_per_s"]:8.1f}{row["in_per_s"]:8.1f}{row["tracked_per_s"]:9.1f}'
            f'{row["labels_heard_per_s"]:9.1f}{row["lost_before_the_node"]:6}'
            + f'{age["median"]:.0f} ({age["p95"]:.0f}, {age["longest"]:.0f})'.rjust(26)
            + f'{row["cores"]:7.2f}'
        )
    if args.json:
        write_text(args.json, json.dumps(rows, indent=2) + '\n')
    return 0


def main() -> int:
    """Run the command line; returns the exit code."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument('--device', default='auto', help='auto, cpu or cuda (default: %(default)s)')
    common.add_argument('--weights', default='compact', help='name or file (default: %(default)s)')
    common.add_argument('--default-transport', action='store_true', help="use Fast DDS's defaults")
    common.add_argument('--json', type=Path, metavar='FILE', help='write the results to this file')
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(required=True, metavar='latency|throughput')
    mode = modes.add_parser('latency', parents=[common], help='time that the node adds to the tracker')
    mode.add_argument('--frames', type=int, default=200, help='measured images (default: %(default)s)')
    mode.add_argument('--warm-up', type=int, default=10, help='images before these (default: %(default)s)')
    mode.add_argument('--rate', type=float, default=5.0, help='images per second (default: %(default)s)')
    mode.set_defaults(run=latency)
    mode = modes.add_parser('throughput', parents=[common], help='images received and tracked per second')
    mode.add_argument('--seconds', type=float, default=20.0, help='per transport (default: %(default)s)')
    mode.add_argument('--rate', type=float, default=30.0, help='images per second (default: %(default)s)')
    mode.add_argument('--width', type=int, default=1280, help='px (default: %(default)s)')
    mode.add_argument('--height', type=int, default=720, help='px (default: %(default)s)')
    mode.add_argument('--transports', choices=TRANSPORTS, nargs='+', default=TRANSPORTS, help='(default: both)')
    mode.set_defaults(run=throughput)
    args = parser.parse_args()
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))  # a separate graph
    if not args.default_transport:
        os.environ.update(profile_environment(FASTDDS.parents[1]))
    return int(args.run(args))


if __name__ == '__main__':
    if '--as-node' in sys.argv:
        sys.argv.remove('--as-node')
        sys.exit(as_node())
    if sys.argv[1:2] == ['--as-camera']:  # ROS arguments follow these five
        transport, width, height, rate, log = sys.argv[2:7]
        as_camera(transport, int(width), int(height), float(rate), log)
    else:
        sys.exit(main())
