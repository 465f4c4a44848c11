#!/usr/bin/env bash
# Makes an enclave image with AWS's own kernel and init: build.sh IMAGE OUT FILE.cloister…
#
# IMAGE is the folder that `cargo image` wrote; its program and settings are used. OUT gets cloister.eif and
# measurements.json. Other kernel, other init, other layout: these measurements have nothing in common with those of
# `cargo image`, and they change with the version of nitro-cli, which measurements.json names.
set -euo pipefail
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
if (($# < 3)); then
    echo "usage: build.sh IMAGE OUT FILE.cloister…" >&2
    exit 2
fi
image=$1 out=$2
shift 2

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/models" "$out"
cp "$here/Containerfile" "$context"
install -m 755 "$image/cloister-enclave-app" "$context"
cp -- "$@" "$context/models"
# The same settings as in IMAGE.
python3 -c 'import json, sys; print(json.dumps({"v": 1, "max_connections": json.load(sys.stdin)["Build"]["max_connections"]}))' \
    <"$image/measurements.json" >"$context/cloister.json"
# Whatever umask this shell has and whenever it runs, the layers are the same.
chmod -R u=rwX,go=rX "$context"
find "$context" -exec touch --no-dereference --date=@0 {} +

docker build --tag cloister-enclave-app:latest --file "$context/Containerfile" "$context"
nitro-cli build-enclave --docker-uri cloister-enclave-app:latest --output-file "$out/cloister.eif" |
    tee /dev/stderr | sed -n '/^{/,$p' |
    python3 -c 'import json, sys; print(json.dumps({**json.load(sys.stdin), "Build": {"nitro_cli": sys.argv[1]}}, indent=2))' \
        "$(nitro-cli --version)" >"$out/measurements.json"
