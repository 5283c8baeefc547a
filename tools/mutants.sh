#!/bin/sh
# Tests the CORS engine, the router and the decision once for each small change of their code.
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
exec cargo mutants --in-place --timeout 120 --output .. \
    --file src/cors.rs --file 'src/cors/**' --file src/route.rs --file 'src/route/**' \
    --file src/decide.rs --file 'src/decide/**' "$@" \
    -- -- cors:: route:: decide:: browser:: cases:: header_names:: oracles:: origin_expressions:: shared_cache:: \
    --skip json_reads_as_yaml
