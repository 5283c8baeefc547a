#!/bin/sh
# Profile-guided optimisation: builds corsgate with counters, runs typical work (train.py), and builds it again with the
# counts. Takes three times as long as `make release`. Needs python3, h2load and openssl; installs h2load and openssl on
# Debian.
#   release-pgo.sh           target/pgo/corsgate
#   release-pgo.sh bare      also target/pgo/bare, the bare Pingora proxy, trained with the same work
set -eu

cd "$(dirname "$0")/.."
out=$PWD/target/pgo
cargo=${CARGO:-cargo}
binaries="--bin corsgate"
[ "${1:-}" != bare ] || binaries="$binaries --example bare"

sh tools/debian.sh h2load=nghttp2-client openssl=openssl
profdata=$(sh tools/need-profdata.sh "$PWD/target/tools")

# Both builds need exactly the same cargo profile: cargo derives crate names from it, and the counts use these names.
echo "building the one that counts" >&2
rm -rf "$out/counts"
RUSTFLAGS="-Cprofile-generate=$out/counts" \
    "$cargo" build --quiet --release --locked --target-dir "$out/counting" $binaries

python3 tools/train.py "$out/counting/release/corsgate"
[ "${1:-}" != bare ] || python3 tools/train.py --bare "$out/counting/release/examples/bare"
"$profdata" merge -o "$out/corsgate.profdata" "$out/counts"

# Code that no request runs has no counts. Without this option the compiler warns about each such function.
echo "building the one that is used" >&2
# Cargo does not notice that the counts have changed.
rm -rf "$out/build"
RUSTFLAGS="-Cprofile-use=$out/corsgate.profdata -Cllvm-args=-pgo-warn-missing-function=false" \
    "$cargo" build --quiet --release --locked --target-dir "$out/build" $binaries
cp "$out/build/release/corsgate" "$out/corsgate"
[ "${1:-}" != bare ] || cp "$out/build/release/examples/bare" "$out/bare"
echo "$out/corsgate"
