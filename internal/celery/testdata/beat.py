"""A Django project that has nothing but django-celery-beat. The first argument says what it does:
migrate, or run the Python that is on standard input."""
import os
import sys

import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["BEAT_NAME"], "HOST": os.environ["BEAT_HOST"],
        "PORT": os.environ["BEAT_PORT"], "USER": os.environ["BEAT_USER"],
    }},
    INSTALLED_APPS=["django_celery_beat"], USE_TZ=True, TIME_ZONE="UTC",
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
)
django.setup()
if sys.argv[1] == "migrate":
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
else:
    exec(compile(sys.stdin.read(), "stdin", "exec"), {})
