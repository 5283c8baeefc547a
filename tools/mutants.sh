#!/bin/sh
# Tests the CORS engine, the router and the decision once for each small change of their code (hours).
#   mutants.sh [ARGUMENT OF cargo mutants...]
# The result is in target/mutants/mutants.out: missed.txt lists the changes that no test detects.
set -eu

cd "$(dirname "$0")/.."
folder=target/mutants
kept=$folder/target
[ -d "$folder/crate/target" ] && mv "$folder/crate/target" "$kept"
python3 -B tools/pure_core.py "$folder/crate"
[ -d "$kept" ] && mv "$kept" "$folder/crate/target"
cd "$folder/crate"
# These tests take most of the time, and detect few of the changes.
slow="--skip config --skip behavior:: --skip schema:: --skip no_widening_is_unreported --skip large_configurations"
# Tests that start corsgate fail in this crate.
failing=$(cargo test --quiet --lib -- $slow 2>/dev/null | sed -n 's/^\(test \)\{0,1\}\([a-z_:0-9]*\) \(---\|\.\.\.\) FAILED$/--skip \2/p')
# shellcheck disable=SC2086 # one argument for each word
exec cargo mutants --in-place --timeout 60 --output .. --cargo-arg=--lib \
    --file src/cors.rs --file 'src/cors/**' --file src/route.rs --file 'src/route/**' \
    --file src/decide.rs --file 'src/decide/**' "$@" \
    -- -- $slow $failing
