#!/usr/bin/env bash
# Puts SeaweedFS, a real S3 server, under target/s3: a pinned version, nothing outside of it. Does nothing the second time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
there=$here/../../target/s3
mkdir -p "$there"
# Tests run at once; one of them does it.
exec 9>"$there/lock"
flock 9

if ! cmp -s "$here/requirements.txt" "$there/venv/done"; then
  rm -rf "$there/venv"
  python3 -m venv "$there/venv"
  "$there/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$there/venv/done"
fi
