"""What strangers try against a machine that builds: each test is an escape that must not work."""
