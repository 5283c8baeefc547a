#!/bin/sh
# Installs Playwright's driver, without its browsers, and the accessibility checks of axe-core from npm, if they are missing.
#   need-browser-driver.sh FOLDER    they go into FOLDER/browser
set -eu

folder=$1/browser
if [ ! -d "$folder/node_modules/axe-core" ]; then
    echo "installing playwright-core and axe-core into $folder" >&2
    mkdir -p "$folder"
    npm install --silent --no-save --prefix "$folder" playwright-core@1 axe-core@4 >/dev/null
fi
