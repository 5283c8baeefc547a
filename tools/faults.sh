#!/bin/sh
# Builds corsgate with each fault of tests/faults, one at a time, and lists the tests that fail. Each fault must fail
# several tests: this shows that the tests detect it.
#   faults.sh [NAME...]
# An hour on two cores. The copies are in target/faults.
set -eu

cd "$(dirname "$0")/.."
root=$PWD
tree=$root/target/faults/tree
[ $# -gt 0 ] || set -- $(ls tests/faults | sed -n 's/\.patch$//p')
# Tests of CORS, of responses and of reloads, without a browser.
tests="access_log:: behaviors:: browser:: cases:: connection_age:: errors:: forwarding:: http2:: lifecycle:: matrix::
    metrics:: oracles:: regressions:: shared_cache:: upstream_failures::"
rm -rf "$tree"
git clone --quiet --shared "$root" "$tree"
cd "$tree"
export CARGO_TARGET_DIR="$root/target/faults/build"
missed=0
for name in "$@"; do
    git checkout --quiet .
    patch=$root/tests/faults/$name.patch
    git apply "$patch"
    echo "== $name: $(head -n 1 "$patch")"
    log=$root/target/faults/$name.log
    cargo test --no-fail-fast --lib --test it -- $tests --skip probe_browser:: --skip ui_browser:: >"$log" 2>&1 || true
    # The build itself must work.
    grep -q '^test result' "$log" || { tail -n 20 "$log"; exit 1; }
    sed -n 's/^test \(.*\) \.\.\. FAILED$/   \1/p' "$log" | sort -u
    failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | sort -u | wc -l)
    echo "   $failed tests fail"
    [ "$failed" -ge 2 ] || missed=$((missed + 1))
done
[ "$missed" -eq 0 ] || { echo "$missed faults fail fewer than two tests"; exit 1; }
