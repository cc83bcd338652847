#!/bin/sh
# Builds the upstream csi-sanity from the Go module's own source, one line of it mended, and prints the path of the binary.
#
# The spec "should succeed when creating a snapshot with accessibility requirements" compares two protobuf messages by
# reflection. What the Go runtime remembers in a message that it has sent is part of that comparison, so it fails for every
# driver that reports the topology of a snapshot. The segments, which it means, are compared instead.
set -eu

module=github.com/kubernetes-csi/csi-test/v5
version=v5.6.0
broken='Expect(topo).To(Equal(ni.GetAccessibleTopology()))'
mended='Expect(topo.GetSegments()).To(Equal(ni.GetAccessibleTopology().GetSegments()))'

cache=${ORLOP_CACHE:-${HOME:?}/.cache/orlop}
home=$cache/csi-sanity-$version-$(sha256sum "$0" | cut -c1-16)
if [ -x "$home/csi-sanity" ]; then
    echo "$home/csi-sanity"
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
found=$(grep -cF "$broken" pkg/sanity/controller.go || true)
if [ "$found" != 1 ]; then
    echo "the line to mend is there $found times and not once: look at pkg/sanity/controller.go of $version" >&2
    exit 1
fi
awk -v broken="$broken" -v mended="$mended" '
    { at = index($0, broken) }
    at { $0 = substr($0, 1, at - 1) mended substr($0, at + length(broken)) }
    { print }
' pkg/sanity/controller.go >mended.go
mv mended.go pkg/sanity/controller.go
go build -o "$making/csi-sanity" ./cmd/csi-sanity
# Two builds at once make the same: the first one's is kept.
mkdir "$home.new.$$"
mv "$making/csi-sanity" "$home.new.$$/"
mv -T "$home.new.$$" "$home" 2>/dev/null || rm -rf "$home.new.$$"
echo "$home/csi-sanity"
