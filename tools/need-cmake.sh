#!/bin/sh
# Pingora builds zlib-ng, which needs cmake. Finds cmake, installs it, or prints how to install it.
#   need-cmake.sh FOLDER    a private cmake goes into FOLDER/bin
set -eu

folder=$1
command -v cmake >/dev/null 2>&1 && exit 0
echo "cmake is missing and needed to build Pingora's zlib; installing it" >&2

# As root, or with a sudo that needs no password.
if [ "$(id -u)" = 0 ]; then as_root=
elif sudo -n true 2>/dev/null; then as_root=sudo
else as_root=no
fi
if [ "$as_root" != no ]; then
    if command -v apt-get >/dev/null 2>&1; then
        # A fresh machine or image has empty package lists.
        $as_root apt-get install -y -qq cmake >/dev/null 2>&1 ||
            { $as_root apt-get update -qq && $as_root apt-get install -y -qq cmake; } >/dev/null || true
    elif command -v dnf >/dev/null 2>&1; then $as_root dnf install -y -q cmake >/dev/null || true
    elif command -v apk >/dev/null 2>&1; then $as_root apk add -q cmake >/dev/null || true
    elif command -v pacman >/dev/null 2>&1; then $as_root pacman -S --noconfirm --quiet cmake >/dev/null || true
    fi
fi
command -v cmake >/dev/null 2>&1 && exit 0
if command -v brew >/dev/null 2>&1; then brew install --quiet cmake >/dev/null || true; fi
command -v cmake >/dev/null 2>&1 && exit 0

# Without root: the cmake package of PyPI contains the binary.
if command -v python3 >/dev/null 2>&1 && python3 -m venv "$folder" 2>/dev/null; then
    "$folder/bin/pip" install --quiet cmake && [ -x "$folder/bin/cmake" ] && exit 0
fi

cat >&2 <<'END'
cmake could not be installed. Install it by hand, then run the same command again:
  Debian, Ubuntu   sudo apt-get install cmake
  Fedora           sudo dnf install cmake
  Alpine           apk add cmake
  macOS            brew install cmake
  elsewhere        pip install cmake
END
exit 1
