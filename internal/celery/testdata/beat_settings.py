"""Sets Django up with nothing but django-celery-beat and django-celery-results; where its database is the environment says."""
import os

import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["BEAT_NAME"], "HOST": os.environ["BEAT_HOST"],
        "PORT": os.environ["BEAT_PORT"], "USER": os.environ["BEAT_USER"],
    }},
    INSTALLED_APPS=["django_celery_beat", "django_celery_results"], USE_TZ=True, TIME_ZONE="UTC",
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
)
django.setup()
