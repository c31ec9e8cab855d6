"""A Django project. The first argument says what it does: migrate, or run the Python that is on
standard input."""
import sys

import beat_settings  # noqa: F401

if sys.argv[1] == "migrate":
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
else:
    exec(compile(sys.stdin.read(), "stdin", "exec"), {})
