#!/usr/bin/env bash
# Starts the built binary, lets published clients send to it unmodified, and finds every record with a query; then asks
# what Grafana asks, and holds the LogQL parser to the grammar that Grafana publishes.
# Needs python3 with venv and pip, node with npm, and the package registries; `cargo test` needs none of them.
# Usage: tests/clients/run.sh [MILLPOND]
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-$PWD/target}
millpond=${1:-$target/debug/millpond}
records=300
scratch=$(mktemp -d)
node=
finish() {
    if [[ -n $node ]]; then kill "$node" 2>/dev/null || true; wait "$node" 2>/dev/null || true; fi
    rm -rf "$scratch"
}
trap finish EXIT

read -r http peer < <(python3 - <<'PY'
import random, socket
def free():
    while True:
        port = random.randrange(12000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
print(free(), free())
PY
)
cat > "$scratch/cluster.toml" <<TOML
name = "clients"
shards = 4
replication = 1
cookie = "clients"

[[nodes]]
id = 1
name = "node-1"
peer = "127.0.0.1:$peer"
http = "127.0.0.1:$http"
TOML
cat > "$scratch/node-1.toml" <<TOML
cluster = "cluster.toml"
id = 1
data = "$scratch/data"
TOML
url=http://127.0.0.1:$http
"$millpond" serve --config "$scratch/node-1.toml" > "$scratch/node.log" 2>&1 &
node=$!
for _ in $(seq 300); do
    if python3 -c "import urllib.request as r; r.urlopen('$url/ready', timeout=1)" 2>/dev/null; then ready=1; break; fi
    kill -0 "$node" 2>/dev/null || break
    sleep 0.1
done
if [[ -z ${ready:-} ]]; then echo "the node does not serve; its log:"; cat "$scratch/node.log"; exit 1; fi

expect() { # NAME SELECTOR: every record of a client, within 30 s
    local found=
    for _ in $(seq 60); do
        found=$("$millpond" query "$2" --node "$url" --raw --limit 5000 | grep -c "record" || true)
        if [[ $found == "$records" ]]; then echo "$1: $found of $records records found"; return; fi
        sleep 0.5
    done
    echo "$1: $found of $records records found; the node's log ends:"
    tail -n 30 "$scratch/node.log"
    exit 1
}

python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/python/requirements.txt
"$scratch/venv/bin/python" tests/clients/python/send.py "$url" "$records"
expect python-logging-loki '{service="python-client"}'

"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/grafana/requirements.txt
"$scratch/venv/bin/python" tests/clients/grafana/play.py "$url"

CARGO_TARGET_DIR=$target/clients cargo run --quiet --locked --manifest-path tests/clients/tracing-loki/Cargo.toml -- "$url" "$records"
expect tracing-loki '{service_name="rust-client"}'

npm ci --prefix tests/clients/logql --ignore-scripts --no-audit --no-fund --loglevel=error
node tests/clients/logql/compare.js "$millpond"
