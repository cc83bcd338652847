# mended NAME MODULE VERSION PACKAGE FILE BROKEN MENDED: builds a program from a Go module's own source, in whose FILE the
# text BROKEN, which must be there once, is MENDED; prints the path of the binary, which is built once.
mended() {
    name=$1 module=$2 version=$3 package=$4 file=$5 broken=$6 mended=$7
    cache=${ORLOP_CACHE:-${HOME:?}/.cache/orlop}
    home=$cache/$name-$version-$(printf '%s\n' "$@" | sha256sum | cut -c1-16)
    if [ -x "$home/$name" ]; then
        echo "$home/$name"
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
    found=$(grep -cF "$broken" "$file" || true)
    if [ "$found" != 1 ]; then
        echo "the line to mend is there $found times and not once: look at $file of $version" >&2
        exit 1
    fi
    awk -v broken="$broken" -v mended="$mended" '
        { at = index($0, broken) }
        at { $0 = substr($0, 1, at - 1) mended substr($0, at + length(broken)) }
        { print }
    ' "$file" >"$making/mended"
    mv "$making/mended" "$file"
    go build -o "$making/$name" "$package"
    # Two builds at once make the same: the first one's is kept.
    mkdir "$home.new.$$"
    mv "$making/$name" "$home.new.$$/"
    mv -T "$home.new.$$" "$home" 2>/dev/null || rm -rf "$home.new.$$"
    echo "$home/$name"
}
