#!/bin/sh
# What some tests drive: a browser and ssh, by apt; sshd and rsync unpacked into .venv/tools and not
# installed, so that no daemon starts. Where that cannot be, those tests are skipped and say why.
have() { command -v "$1" >/dev/null 2>&1 || [ -e ".venv/tools/usr/bin/$1" ] || [ -e ".venv/tools/usr/sbin/$1" ]; }
have chromium && have ssh && have sshd && have rsync && exit 0
install() { DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"; }
unpack() {
    mkdir -p .venv/tools/packages &&
        (cd .venv/tools/packages && apt-get download -qq openssh-server libwrap0 rsync libpopt0) &&
        for package in .venv/tools/packages/*.deb; do dpkg -x "$package" .venv/tools || return; done
}
command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && apt-get update -qq &&
    install chromium openssh-client >/dev/null && { have sshd && have rsync || unpack; } ||
    echo "tests/install_tools.sh: not all tools can be had here; the tests that drive them are skipped"
