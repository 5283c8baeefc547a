#!/bin/sh
# Checks the dependencies against deny.toml.
#   audit.sh [DIR]
# DIR is a clone of the advisory database of RustSec, for machines without network. Without it, cargo-deny fetches one.
set -eu

cd "$(dirname "$0")/.."
if [ -z "${1-}" ]; then
    exec cargo deny check
fi
# The name that cargo-deny gives to its clone of the default database.
clone=${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/advisory-db-3157b0e258782691
rm -rf "$clone"
mkdir -p "$(dirname "$clone")"
git clone --quiet "$1" "$clone"
touch "$clone/.git/FETCH_HEAD"
exec cargo deny --offline check
