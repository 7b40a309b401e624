#!/bin/sh
# Makes the environment that the image holds: the services, what they need, and nothing to install or build with.
# deploy/Dockerfile runs it, and tests/service/test_deploy.py runs what the Dockerfile runs. In the root of the tree:
#
#   deploy/install.sh packages DIR    an environment at DIR with the pinned packages, each checked by its hash
#   deploy/install.sh tree DIR        this tree on top, built here with a pinned build backend
#
# PYTHON is the interpreter (python3). What is to know about an index is pip's own configuration.
set -eu
what=$1
into=$2
python=${PYTHON:-python3}

pip_for() {
    environment=$1
    shift
    "$python" -m pip --python "$environment/bin/python" "$@"
}

case $what in
packages)
    "$python" -m venv --without-pip "$into"
    for lock in run envoy; do
        pip_for "$into" install --quiet --only-binary :all: --require-hashes --requirement "requirements/$lock.txt"
    done
    ;;
tree)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$python" -m venv --without-pip "$work/build"
    pip_for "$work/build" install --quiet --only-binary :all: --require-hashes --requirement requirements/build.txt
    pip_for "$work/build" wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir "$work" ./clients/python .
    pip_for "$into" install --quiet --no-deps --no-index "$work"/*.whl
    pip_for "$into" check
    ;;
*)
    echo "install.sh: 'packages' or 'tree', not '$what'" >&2
    exit 2
    ;;
esac
