#!/bin/sh
# Provide ffmpeg, and bubblewrap and libseccomp for its sandbox: by apt where they are missing and
# allowed, else say what to install.
set -eu
have() { command -v "$1" >/dev/null 2>&1; }
have_seccomp() { ldconfig -p 2>/dev/null | grep -q 'libseccomp\.so\.2'; }
if have ffmpeg && have ffprobe && have bwrap && have prlimit && have_seccomp; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends ffmpeg bubblewrap libseccomp2 util-linux >/dev/null && exit 0
fi
if have ffmpeg && have ffprobe; then
  echo "bubblewrap or libseccomp is not installed: the media sandbox uses Landlock, if it can; run: sudo apt-get install bubblewrap libseccomp2" >&2
  exit 0
fi
echo "error: ffmpeg and ffprobe are not installed; run: sudo apt-get install ffmpeg bubblewrap libseccomp2" >&2
exit 2
