#!/usr/bin/env bash
# Puts the MQTT clients that tests/interop.rs runs under target/interop: pinned versions, nothing outside of it. Does nothing the second time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
there=$here/../../target/interop
mkdir -p "$there/js"
# Tests run at once; one of them does it.
exec 9>"$there/lock"
flock 9

if ! cmp -s "$here/requirements.txt" "$there/venv/done"; then
  rm -rf "$there/venv"
  python3 -m venv "$there/venv"
  "$there/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$there/venv/done"
fi
if ! cmp -s "$here/package-lock.json" "$there/js/done"; then
  cp "$here/package.json" "$here/package-lock.json" "$there/js/"
  npm ci --prefix "$there/js" --no-audit --no-fund --ignore-scripts
  cp "$here/package-lock.json" "$there/js/done"
fi
