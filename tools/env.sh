# SPDX-License-Identifier: MIT
# shellcheck shell=sh
# Source this file: `. tools/env.sh`, with bash or zsh in any folder, with other shells in the checkout's root.
# It sets the paths to the virtual environment, to ROS 2 if it is installed there, to the built messages and executables,
# and first of all to the checkout, so that edited Python modules are the ones that run. Sourcing it twice is harmless.

if [ -n "${BASH_SOURCE:-}" ]; then
    # shellcheck disable=SC3028,SC3054 # only bash comes here
    XMEM_ROS_ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE}")/.." && pwd)
elif [ -n "${ZSH_VERSION:-}" ]; then
    XMEM_ROS_ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
else
    XMEM_ROS_ROOT=$PWD
fi

# prepend NAME FOLDER: put FOLDER first on the path variable NAME, unless it is there already.
_xmem_prepend() {
    eval "_xmem_value=\${$1:-}"
    case ":$_xmem_value:" in
        *":$2:"*) ;;
        *) eval "export $1=\"\$2\${_xmem_value:+:\$_xmem_value}\"" ;;
    esac
    unset _xmem_value
}

if [ ! -x "$XMEM_ROS_ROOT/.venv/bin/python" ]; then
    echo "env.sh: $XMEM_ROS_ROOT/.venv is not there yet: run make build in $XMEM_ROS_ROOT first" >&2
else
    VIRTUAL_ENV=$XMEM_ROS_ROOT/.venv
    export VIRTUAL_ENV
    unset PYTHONHOME
    _xmem_prepend PATH "$VIRTUAL_ENV/bin"
    _xmem_python=$("$VIRTUAL_ENV/bin/python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    if [ -d "$VIRTUAL_ENV/share/rclpy" ]; then
        # ROS 2 from PyPI: the environment is a ROS prefix.
        _xmem_prepend AMENT_PREFIX_PATH "$VIRTUAL_ENV"
        _xmem_prepend CMAKE_PREFIX_PATH "$VIRTUAL_ENV"
        _xmem_prepend LD_LIBRARY_PATH "$VIRTUAL_ENV/lib"
        ROS_VERSION=2
        ROS_PYTHON_VERSION=3
        ROS_DISTRO=$(cat "$VIRTUAL_ENV/ros_distro" 2>/dev/null || echo kilted)
        export ROS_VERSION ROS_PYTHON_VERSION ROS_DISTRO
    fi
    _xmem_prefix=$XMEM_ROS_ROOT/install/xmem_ros
    if [ -d "$_xmem_prefix" ]; then
        _xmem_prepend AMENT_PREFIX_PATH "$_xmem_prefix"
        _xmem_prepend CMAKE_PREFIX_PATH "$_xmem_prefix"
        _xmem_prepend LD_LIBRARY_PATH "$_xmem_prefix/lib"
        # Where the modules go depends on the distribution: Debian's Python has a dist-packages of its own.
        for _xmem_site in "$_xmem_prefix"/lib/"$_xmem_python"/site-packages "$_xmem_prefix"/local/lib/"$_xmem_python"/dist-packages; do
            [ -d "$_xmem_site" ] && _xmem_prepend PYTHONPATH "$_xmem_site"
        done
    fi
    _xmem_prepend PYTHONPATH "$XMEM_ROS_ROOT"
    unset _xmem_prefix _xmem_python _xmem_site
fi
unset -f _xmem_prepend
