"""How every test runs."""

from hypothesis import settings

settings.register_profile("tests", deadline=None)  # time is the machine's; pytest-timeout bounds it
settings.load_profile("tests")
