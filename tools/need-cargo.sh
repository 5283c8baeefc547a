#!/bin/sh
# Installs a cargo command from crates.io if it is missing.
#   need-cargo.sh CRATE
set -eu

name=${1#cargo-}
cargo "$name" --version >/dev/null 2>&1 || {
    echo "installing $1" >&2
    cargo install --quiet --locked "$1"
}
