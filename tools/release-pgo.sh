#!/bin/sh
# Builds corsgate with profile-guided optimisation: builds it with counters, runs typical work (train.py), and builds it
# again with the counts. Takes at most twice the time of `cargo build --release`. If nothing has changed since the last
# time, there is nothing to do. Needs python3, h2load and openssl, and installs them on Debian.
#   release-pgo.sh           target/pgo/corsgate
#   release-pgo.sh bare      also target/pgo/bare, the bare Pingora proxy, trained with the same work
set -eu

cd "$(dirname "$0")/.."
out=$PWD/target/pgo
cargo=${CARGO:-cargo}
binaries="--bin=corsgate"
[ "${1:-}" != bare ] || binaries="$binaries --example=bare"

# Counts fit the compiler and the sources that they come from. So each change needs new ones.
inputs=$({ rustc -vV; echo "${RUSTFLAGS:-} $binaries"
    find Cargo.toml Cargo.lock src examples tools -type f | LC_ALL=C sort | xargs cat; } | cksum)
if [ "$(cat "$out/inputs" 2>/dev/null)" = "$inputs" ]; then echo "$out/corsgate"; exit 0; fi
rm -rf "$out"

sh tools/debian.sh python3=python3 h2load=nghttp2-client openssl=openssl
profdata=$(sh tools/need-profdata.sh "$PWD/target/tools")
host=$(rustc -vV | sed -n 's/^host: //p')
built=$out/build/$host/release

# Cargo derives crate names from the cargo profile, and the counts use these names. So both builds have the same profile,
# and the same folder: with --target, they share the build scripts and the macros.
build() { # RUSTFLAGS, a cargo command, its arguments
    flags=$1 command=$2
    shift 2
    RUSTFLAGS="${RUSTFLAGS:-} $flags" \
        "$cargo" "$command" --quiet --release --locked --target "$host" --target-dir "$out/build" "$@"
}

# The counters are in place before the program is linked. So linking needs no optimisation, which saves a minute.
echo "building the one that counts" >&2
for each in $binaries; do
    build "-Cprofile-generate=$out/counts" rustc "$each" -- -Copt-level=0
done
python3 tools/train.py "$built/corsgate"
[ "${1:-}" != bare ] || python3 tools/train.py --bare "$built/examples/bare"
"$profdata" merge -o "$out/corsgate.profdata" "$out/counts"

# Code that no request runs has no counts. Without this option the compiler warns about each such function.
echo "building the one that is used" >&2
build "-Cprofile-use=$out/corsgate.profdata -Cllvm-args=-pgo-warn-missing-function=false" build $binaries
cp "$built/corsgate" "$out/corsgate"
[ "${1:-}" != bare ] || cp "$built/examples/bare" "$out/bare"
echo "$inputs" >"$out/inputs"
echo "$out/corsgate"
