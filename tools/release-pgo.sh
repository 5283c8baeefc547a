#!/bin/sh
# Builds corsgate with profile-guided optimisation: builds it with counters, runs typical work (train.py), and builds it
# again with the counts. Takes at most twice the time of `cargo build --release`, and no time if nothing has changed.
# Needs python3, h2load and openssl, and installs them on Debian. Installs cargo-auditable: the binary has the list of its
# dependencies, for `cargo audit bin corsgate` and other scanners.
#   release-pgo.sh           target/pgo/corsgate
#   release-pgo.sh bare      also target/pgo/bare, the bare Pingora proxy, trained with the same work
set -eu

cd "$(dirname "$0")/.."
out=$PWD/target/pgo
cargo=${CARGO:-cargo}

host=$(rustc -vV | sed -n 's/^host: //p')
built=$out/build/$host/release

# Cargo derives crate names from the cargo profile and from auditable's compiler wrapper, and the counts use these names.
# So both builds have the same profile and wrapper, and the same folder: with --target, they share the build scripts and
# the macros.
build() { # RUSTFLAGS, a cargo command, its arguments
    flags=$1 command=$2
    shift 2
    RUSTFLAGS="${RUSTFLAGS:-} $flags" \
        "$cargo" auditable "$command" --quiet --release --locked --target "$host" --target-dir "$out/build" "$@"
}

sh tools/need-cargo.sh cargo-auditable

# The counts are valid only for the same compiler, dependencies and sources.
inputs=$({ rustc -vV; echo "${RUSTFLAGS:-} ${1:-}"
    find Cargo.toml Cargo.lock src examples tools -type f | LC_ALL=C sort | xargs cat; } | cksum)
if [ "$(cat "$out/inputs" 2>/dev/null)" != "$inputs" ]; then
    rm -rf "$out"
    sh tools/debian.sh python3=python3 h2load=nghttp2-client openssl=openssl
    profdata=$(sh tools/need-profdata.sh "$PWD/target/tools")

    # The counters are added before the program is linked. So the link needs no optimisation, which saves a minute.
    # This option also compiles main.rs without optimisation, which matters for bare: all its code is in one file.
    echo "building the binary that records the profile" >&2
    counting="-Cprofile-generate=$out/counts"
    build "$counting" rustc --bin=corsgate -- -Copt-level=0
    python3 tools/train.py "$built/corsgate"
    if [ "${1:-}" = bare ]; then
        build "$counting" build --example=bare
        python3 tools/train.py --bare "$built/examples/bare"
    fi
    "$profdata" merge -o "$out/corsgate.profdata" "$out/counts"
    echo "$inputs" >"$out/inputs"
fi

# Code that no request runs has no counts. Without this option the compiler warns about each such function.
echo "building the optimised binary" >&2
using="-Cprofile-use=$out/corsgate.profdata -Cllvm-args=-pgo-warn-missing-function=false"
build "$using" build --bin=corsgate
cp "$built/corsgate" "$out/corsgate"
# An example adds the features of dev-dependencies, which change the names of crates. So it is built by itself each time.
if [ "${1:-}" = bare ]; then
    build "$using" build --example=bare
    cp "$built/examples/bare" "$out/bare"
fi
echo "$out/corsgate"
