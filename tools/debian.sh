#!/bin/sh
# Installs Debian or Ubuntu packages for missing commands, as root or with a sudo that needs no password.
#   debian.sh COMMAND=PACKAGE...    debian.sh h2load=nghttp2-client openssl=openssl
set -eu

missing=
for each in "$@"; do
    command -v "${each%%=*}" >/dev/null 2>&1 || missing="$missing ${each#*=}"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then as_root=
elif sudo -n true 2>/dev/null; then as_root=sudo
else as_root=no
fi
if [ "$as_root" != no ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing" >&2
    # A fresh machine or image has empty package lists.
    $as_root apt-get install -y -qq $missing >/dev/null 2>&1 ||
        { $as_root apt-get update -qq && $as_root apt-get install -y -qq $missing; } >/dev/null && exit 0
fi
echo "missing, to be installed by hand (names of Debian's packages):$missing" >&2
exit 1
