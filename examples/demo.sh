#!/usr/bin/env bash
# The example app behind Vestibule. Ctrl-C ends both.
set -euo pipefail
cd "$(dirname "$0")/.."

export HTTP_PORT="${HTTP_PORT:-8080}" HTTPS_PORT="${HTTPS_PORT:-8443}" APP_PORT="${APP_PORT:-3100}"
mkdir -p demo

# A local CA, and a certificate for localhost that it signed. The browser warns until it knows ca.crt.
if [ ! -f certs/localhost.pem ]; then
    echo "making certs/ca.crt and certs/localhost.pem"
    command -v openssl >/dev/null || { echo "openssl is missing: apt-get install openssl" >&2; exit 1; }
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -subj "/CN=Vestibule demo CA" -keyout certs/ca-key.secret -out certs/ca.crt 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" \
        -keyout certs/localhost.key -out demo/localhost.csr 2>/dev/null
    openssl x509 -req -in demo/localhost.csr -CA certs/ca.crt -CAkey certs/ca-key.secret -days 397 \
        -extfile <(echo "subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1,IP:::1") \
        -out certs/localhost.pem 2>/dev/null
fi

app="" edge=""
finish() {
    trap - EXIT INT TERM
    [ -z "$edge" ] || kill -TERM "$edge" 2>/dev/null || true
    [ -z "$app" ] || kill -TERM "$app" 2>/dev/null || true
    wait || true
    echo "stopped"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "starting the app on port $APP_PORT (log: demo/app.log)"
(cd examples/next-chat && exec node node_modules/next/dist/bin/next start -H 127.0.0.1 -p "$APP_PORT") \
    >demo/app.log 2>&1 &
app=$!

echo "starting Vestibule (access log: demo/access.log)"
target/release/vestibule run -c examples/demo.yaml >demo/access.log 2>demo/vestibule.log &
edge=$!

for _ in $(seq 300); do
    if ! kill -0 "$edge" 2>/dev/null; then cat demo/vestibule.log >&2; exit 1; fi
    if ! kill -0 "$app" 2>/dev/null; then cat demo/app.log >&2; exit 1; fi
    if target/release/vestibule status -c examples/demo.yaml >/dev/null 2>&1; then
        echo
        echo "    https://localhost:$HTTPS_PORT"
        echo
        echo "Open /chat in two windows. Ctrl-C ends everything."
        wait -n "$edge" "$app" || true
        echo "one of the two ended; see demo/vestibule.log and demo/app.log" >&2
        exit 1
    fi
    sleep 0.1
done
echo "the app did not come up in 30 seconds; see demo/app.log" >&2
exit 1
