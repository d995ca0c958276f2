"""Table U: addresses that lead into the private network, and hosts that turn out to."""

from __future__ import annotations

REFUSED = {
    "plain http": "http://example.org/a.jpg",
    "file": "file:///etc/passwd",
    "ftp": "ftp://example.org/a.jpg",
    "user name": "https://user@example.org/a.jpg",
    "user and password": "https://user:secret@example.org/a.jpg",
    "another port": "https://example.org:22/a.jpg",
    "decimal number": "https://2130706433/a.jpg",
    "hexadecimal": "https://0x7f.1/a.jpg",
    "short form": "https://127.1/a.jpg",
    "dotted": "https://127.0.0.1/a.jpg",
    "zero": "https://0/a.jpg",
    "IPv6": "https://[::1]/a.jpg",
    "mapped IPv6": "https://[::ffff:169.254.169.254]/a.jpg",
    "local name": "https://localhost/a.jpg",
    "no host": "https:///a.jpg",
    "broken port": "https://example.org:x/a.jpg",
    "space": "https://example.org/a b.jpg",
    "backslash": "https://example.org\\@127.0.0.1/a.jpg",
    "newline": "https://example.org/a\r\nHost: x",
    "not ASCII": "https://ex\u0430mple.org/a.jpg",
    "data": "data:image/png;base64,AAAA",
    "javascript": "javascript:alert(1)",
}

PRIVATE = {
    "loopback": ["127.0.0.1"],
    "private": ["10.0.0.7"],
    "metadata": ["169.254.169.254"],
    "second answer private": ["93.184.216.34", "192.168.1.1"],
    "carrier": ["100.64.0.1"],
    "multicast": ["224.0.0.1"],
    "unspecified": ["0.0.0.0"],
    "IPv6 loopback": ["::1"],
    "IPv6 link": ["fe80::1%eth0"],
    "mapped": ["::ffff:169.254.169.254"],
}
