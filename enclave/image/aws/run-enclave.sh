#!/usr/bin/env bash
# Runs the enclave until it ends or is asked to: what cloister-enclave.service starts.
#
# nitro-cli starts an enclave and leaves; a service has to stay for as long as the enclave does, to be restarted when it
# ends. Settings come from /etc/cloister/enclave.env, which the unit reads.
set -euo pipefail
: "${EIF:=/opt/cloister/cloister.eif}" "${CID:=16}" "${CPUS:=2}" "${MEMORY_MIB:=384}"
readonly name=cloister

# Says whether nitro-cli lists the enclave as running and not in debug mode: no client would accept that. Fails if it says
# neither.
state() {
    nitro-cli describe-enclaves | python3 -c '
import json, sys
ours = [enclave for enclave in json.load(sys.stdin) if enclave["EnclaveID"] == sys.argv[1]]
print("running" if ours and ours[0]["State"] == "RUNNING" and ours[0]["Flags"] == "NONE" else "ended")' "$1"
}

trap 'nitro-cli terminate-enclave --enclave-name "$name" || true; exit 0' TERM INT
enclave=$(nitro-cli run-enclave --enclave-name "$name" --eif-path "$EIF" --enclave-cid "$CID" \
    --cpu-count "$CPUS" --memory "$MEMORY_MIB" | python3 -c 'import json, sys; print(json.load(sys.stdin)["EnclaveID"])')
echo "enclave $enclave runs at vsock:$CID:5000"

# An answer that cannot be had is no reason to end an enclave that serves.
until [[ $(state "$enclave" || echo unknown) == ended ]]; do
    sleep 5 &
    wait $!
done
echo "enclave $enclave has ended; its last events are in the journal of cloister-enclave-log" >&2
exit 1
