#!/bin/sh
# Exits with 0 if there is a Chromium for the tests of pages, after it has installed Debian's if it may. Else it says why not.
#
#   requirements/chromium.sh
#
# Root on Debian or Ubuntu gets it by apt-get, in at most 10 minutes: about 250 MB. Nothing else is changed.
set -u

say() { printf '%s\n' "$*" >&2; }
there() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

there > /dev/null && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
    say "no Chromium: the tests of pages are skipped (as root: apt-get install chromium)"
    exit 1
fi
say "installing chromium for the tests of pages"
export DEBIAN_FRONTEND=noninteractive
wait="-o DPkg::Lock::Timeout=120 -o Acquire::http::Timeout=30 -o Acquire::Retries=1"
install() { timeout 600 apt-get -qq $wait install -y --no-install-recommends chromium > /dev/null 2>&1; }
install || { timeout 120 apt-get -qq $wait update > /dev/null 2>&1 && install; }
there > /dev/null && exit 0
say "apt-get could not install chromium: the tests of pages are skipped"
exit 1
