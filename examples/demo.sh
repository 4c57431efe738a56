#!/usr/bin/env bash
# The example app behind Vestibule. Ctrl-C ends both.
set -euo pipefail
cd "$(dirname "$0")/.."

export HTTP_PORT="${HTTP_PORT:-8080}" HTTPS_PORT="${HTTPS_PORT:-8443}" APP_PORT="${APP_PORT:-3100}"
# What the app is asked about its clients is signed with it.
HOOK_SECRET="${HOOK_SECRET:-$(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')}"
export HOOK_SECRET PINS_FILE="${PINS_FILE:-$PWD/demo/pins.jsonl}"
# Who may chat: written by the app, read by Vestibule.
export AUTH_DB="${AUTH_DB:-$PWD/demo/app.db}"
vestibule=target/release/vestibule
mkdir -p demo

# A local CA, and a certificate for localhost that it signed. The browser warns until it knows ca.crt.
if [ ! -f certs/localhost.pem ]; then
    echo "making certs/ca.crt and certs/localhost.pem"
    command -v openssl >/dev/null || { echo "openssl is missing: apt-get install openssl" >&2; exit 1; }
    made="$(
        exec 2>&1
        curve="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        # shellcheck disable=SC2086
        openssl req -x509 $curve -days 3650 -subj "/CN=Vestibule demo CA" \
            -keyout certs/ca-key.secret -out certs/ca.crt &&
        openssl req $curve -subj "/CN=localhost" \
            -keyout certs/localhost.key -out demo/localhost.csr &&
        openssl x509 -req -in demo/localhost.csr -CA certs/ca.crt -CAkey certs/ca-key.secret \
            -set_serial "0x$(openssl rand -hex 16)" -days 397 -out demo/localhost.pem \
            -extfile <(echo "subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1,IP:::1")
    )" || { echo "openssl: $made" >&2; exit 1; }
    # Last, so that what was interrupted is made anew.
    mv demo/localhost.pem certs/localhost.pem
fi

app="" edge=""
finish() {
    trap "" EXIT HUP INT TERM
    # The edge first: it still passes on what the app is answering.
    for process in $edge $app; do
        kill -TERM "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    echo "stopped"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Process groups of their own: Ctrl-C reaches this script alone, which ends them in order.
set -m
echo "starting the app on port $APP_PORT (log: demo/app.log)"
(cd examples/next-chat && exec node node_modules/next/dist/bin/next start -H 127.0.0.1 -p "$APP_PORT") \
    </dev/null >demo/app.log 2>&1 &
app=$!
# It makes the file of users, which Vestibule reads from its start.
for _ in $(seq 300); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$APP_PORT") 2>/dev/null; then break; fi
    if ! kill -0 "$app" 2>/dev/null; then cat demo/app.log >&2; exit 1; fi
    sleep 0.1
done

echo "starting Vestibule (log: demo/vestibule.log, requests: demo/access.log)"
"$vestibule" run -c examples/demo.yaml </dev/null >demo/access.log 2>demo/vestibule.log &
edge=$!
set +m

for _ in $(seq 300); do
    if ! kill -0 "$edge" 2>/dev/null; then cat demo/vestibule.log >&2; exit 1; fi
    if ! kill -0 "$app" 2>/dev/null; then cat demo/app.log >&2; exit 1; fi
    if "$vestibule" status -c examples/demo.yaml >/dev/null 2>&1; then
        echo
        echo "    https://localhost:$HTTPS_PORT"
        echo
        echo "Log in as two people in two windows, one of them private; any name and password will do."
        echo "The browser warns unless it trusts certs/ca.crt."
        echo "Reload after a change of examples/demo.yaml: $vestibule reload -c examples/demo.yaml"
        echo "Ctrl-C ends everything."
        wait -n "$edge" "$app" || true
        echo "one of the two ended; see demo/vestibule.log and demo/app.log" >&2
        exit 1
    fi
    sleep 0.1
done
echo "not ready after 30 seconds; see demo/vestibule.log and demo/app.log" >&2
"$vestibule" status -c examples/demo.yaml >&2 || true
exit 1
