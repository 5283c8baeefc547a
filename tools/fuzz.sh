#!/bin/sh
# Runs each fuzz target for some seconds, from the corpus in fuzz/corpus and from examples of the tests.
#   fuzz.sh SECONDS [TARGET...]
# New inputs go to target/fuzz/corpus, inputs that fail to target/fuzz/artifacts, the output to target/fuzz/TARGET.log.
# Prints the last line of each target: inputs, covered edges ("cov") and speed. Needs cargo-fuzz, which it installs.
set -eu

seconds=$1
shift
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- $(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' fuzz/Cargo.toml)
sh tools/need-cargo.sh cargo-fuzz

export CARGO_TARGET_DIR="$PWD/target/fuzz/build"
# Without a sanitizer, a stable toolchain can build the targets. The code has no unsafe blocks.
cd fuzz
cargo fuzz build --sanitizer none
for target in "$@"; do
    found=../target/fuzz/corpus/$target
    examples=
    case $target in
        configuration) examples="../conf ../tests/config/good ../tests/config/warned" ;;
        importers) examples="../tests/import" ;;
    esac
    mkdir -p "$found" ../target/fuzz/artifacts
    echo "== $target, $seconds s"
    log=../target/fuzz/$target.log
    cargo fuzz run --sanitizer none "$target" "$found" "corpus/$target" $examples -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 \
        -artifact_prefix="../target/fuzz/artifacts/$target-" >"$log" 2>&1 || {
        tail -n 60 "$log" >&2
        exit 1
    }
    grep '[[:space:]]DONE[[:space:]]' "$log"
done
