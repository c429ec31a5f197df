#!/bin/bash
# A headless browser for tests: prints the path of Chromium, installed by Debian's packages where it is not there.
# Exit code 3: it cannot be had here (no apt, no root, no network).
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
    command -v "$name" && exit 0
done
command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || { echo "no Chromium, and no apt-get as root" >&2; exit 3; }
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null 2>&1; }
install || { apt-get update -qq >/dev/null 2>&1 && install; } || { echo "the package chromium cannot be had" >&2; exit 3; }
command -v chromium
