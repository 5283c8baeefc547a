#!/bin/sh
# Profile-guided optimisation: builds corsgate so that it counts where it goes, puts it to typical work (train.py),
# and builds it again with what was counted. Takes three times as long as `make release`; needs python3, h2load and
# openssl, and installs the latter two on Debian.
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

# Both builds have the same profile to the letter: cargo names crates by its settings, and counts go by those names.
echo "building the one that counts" >&2
rm -rf "$out/counts"
RUSTFLAGS="-Cprofile-generate=$out/counts" \
    "$cargo" build --quiet --release --locked --target-dir "$out/counting" $binaries

python3 tools/train.py "$out/counting/release/corsgate"
[ "${1:-}" != bare ] || python3 tools/train.py --bare "$out/counting/release/examples/bare"
"$profdata" merge -o "$out/corsgate.profdata" "$out/counts"

# Code of the crates that no request runs has no counts, which the compiler would remark for each.
echo "building the one that is used" >&2
# Cargo would not see that only the counts are others.
rm -rf "$out/build"
RUSTFLAGS="-Cprofile-use=$out/corsgate.profdata -Cllvm-args=-pgo-warn-missing-function=false" \
    "$cargo" build --quiet --release --locked --target-dir "$out/build" $binaries
cp "$out/build/release/corsgate" "$out/corsgate"
[ "${1:-}" != bare ] || cp "$out/build/release/examples/bare" "$out/bare"
echo "$out/corsgate"
