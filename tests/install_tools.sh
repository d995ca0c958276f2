#!/bin/sh
# What some tests drive: a browser, by apt; sshd and rsync unpacked into .venv/tools and not
# installed, so that no daemon starts. Where that cannot be, those tests are skipped and say why.
set -eu
command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ] || exit 0
missing() { ! command -v "$1" >/dev/null 2>&1 && [ ! -e ".venv/tools/usr/$2/$1" ]; }
if ! command -v chromium >/dev/null 2>&1 || missing sshd sbin || missing rsync bin; then
    apt-get update -qq
fi
command -v chromium >/dev/null 2>&1 ||
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium
if missing sshd sbin || missing rsync bin; then
    mkdir -p .venv/tools/packages
    (cd .venv/tools/packages && apt-get download -qq openssh-server libwrap0 rsync libpopt0)
    for package in .venv/tools/packages/*.deb; do dpkg -x "$package" .venv/tools; done
fi
command -v ssh >/dev/null 2>&1 ||
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends openssh-client
