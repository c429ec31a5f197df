#!/bin/bash
# libfaketime from Debian's packages, unpacked, not installed: runs a command with a clock that is off.
#
#   faketime.sh PACKAGES     PACKAGES caches the unpacked library; its path is the last line printed
#
# Use it as LD_PRELOAD=PATH FAKETIME=+1h COMMAND. Exit code 3: it cannot be had here (no apt, no network).
set -euo pipefail
packages=${1:?folder for the unpacked packages}

find_library() { find "$packages/root" -name libfaketimeMT.so.1 2>/dev/null | head -1; }

if [ -z "$(find_library)" ]; then
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || { echo "no apt-get or dpkg here" >&2; exit 3; }
    mkdir -p "$packages"
    staging=$(mktemp -d "$packages/unpack.XXXXXX")
    (cd "$staging" && { apt-get download -qq libfaketime >/dev/null 2>&1 ||
        { apt-get update -qq >/dev/null 2>&1 && apt-get download -qq libfaketime >/dev/null 2>&1; }; }) ||
        { echo "libfaketime cannot be had" >&2; exit 3; }
    for deb in "$staging"/*.deb; do dpkg -x "$deb" "$staging/root"; done
    # The name appears once everything is unpacked, so an interrupted run leaves no half cache.
    mv -T "$staging/root" "$packages/root" 2>/dev/null || true
    rm -rf "$staging"
fi
find_library | grep .
