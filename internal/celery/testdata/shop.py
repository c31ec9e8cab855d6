"""A Celery application whose Beat is that of django-celery-beat, and whose broker is BEAT_BROKER."""
import os

import beat_settings  # noqa: F401
from celery import Celery

app = Celery("shop", broker=os.environ["BEAT_BROKER"])
