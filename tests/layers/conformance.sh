#!/bin/sh
# Builds the conformance suite of the distribution specification from the Go module, one line of it mended, and prints the
# path of the binary.
#
# Where nothing is pushed, some kinds of data have a status and no name: the line writes of them into its report, and fails.
set -eu

module=github.com/opencontainers/distribution-spec/conformance
# It has no releases; this is what the module proxy calls its newest.
version=v0.0.0-20260831232431-97274622c111
broken='results.Data[r.State.Data[k].name] = v'
mended='if data := r.State.Data[k]; data != nil { results.Data[data.name] = v }'

cache=${ORLOP_CACHE:-${HOME:?}/.cache/orlop}
home=$cache/oci-conformance-$version-$(sha256sum "$0" | cut -c1-16)
if [ -x "$home/conformance" ]; then
    echo "$home/conformance"
    exit
fi

mkdir -p "$cache"
making=$(mktemp -d "$cache/making.XXXXXX")
trap 'rm -rf "$making"' EXIT

export GOFLAGS=-buildvcs=false
cd "$making"
source=$(go mod download -json "$module@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
cp -r "$source" source
chmod -R u+w source
cd source
found=$(grep -cF "$broken" run.go || true)
if [ "$found" != 1 ]; then
    echo "the line to mend is there $found times and not once: look at run.go of $version" >&2
    exit 1
fi
awk -v broken="$broken" -v mended="$mended" '
    { at = index($0, broken) }
    at { $0 = substr($0, 1, at - 1) mended substr($0, at + length(broken)) }
    { print }
' run.go >mended
mv mended run.go
go build -o "$making/conformance" .
# Two builds at once make the same: the first one's is kept.
mkdir "$home.new.$$"
mv "$making/conformance" "$home.new.$$/"
mv -T "$home.new.$$" "$home" 2>/dev/null || rm -rf "$home.new.$$"
echo "$home/conformance"
