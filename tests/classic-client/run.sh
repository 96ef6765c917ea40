#!/bin/sh
# Starts a development node and makes the 14 classic calls on it with a client library of 2019. Needs Python 3 and a
# package index; not part of `cargo test`.
#
# Usage: tests/classic-client/run.sh [FLASHD], the program being target/debug/flashd unless given.
set -eu
here=$(dirname "$0")
flashd=${1:-"$here/../../target/debug/flashd"}
work=$(mktemp -d)
node=
trap '[ -z "$node" ] || kill "$node" 2>/dev/null || true; rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
"$work/venv/bin/pip" install --quiet --no-deps pyota==2.1.0

"$flashd" node --data "$work/node" --init-dev --milestone-ms 200 --listen 127.0.0.1:0 --http 127.0.0.1:0 \
    2>"$work/log" &
node=$!
tries=0
while [ ! -s "$work/node/ready.json" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 300 ]; then
        cat "$work/log" >&2
        exit 1
    fi
    sleep 0.1
done
url=$(sed 's|.*"http":"\([^"]*\)".*|http://\1|' "$work/node/ready.json")
"$work/venv/bin/python" "$here/check.py" "$url"
