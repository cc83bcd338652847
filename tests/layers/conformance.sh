#!/bin/sh
# Builds the conformance suite of the distribution specification, one line of it mended, and prints the path of the binary.
#
# Where nothing is pushed, some kinds of data have a status and no name: the line writes of them into its report, and fails.
set -eu
. "$(dirname "$0")/../support/mended.sh"

# It has no releases; this is what the module proxy calls its newest.
mended oci-conformance github.com/opencontainers/distribution-spec/conformance v0.0.0-20260831232431-97274622c111 . run.go \
    'results.Data[r.State.Data[k].name] = v' \
    'if data := r.State.Data[k]; data != nil { results.Data[data.name] = v }'
