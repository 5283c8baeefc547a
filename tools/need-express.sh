#!/bin/sh
# Installs Express and its CORS middleware from npm, if they are missing.
#   need-express.sh FOLDER    they go into FOLDER/express
set -eu

folder=$1/express
if [ ! -d "$folder/node_modules/cors" ]; then
    echo "installing express and cors into $folder" >&2
    mkdir -p "$folder"
    npm install --silent --no-save --prefix "$folder" express@5 cors@2 >/dev/null
fi
