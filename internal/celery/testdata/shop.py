"""A Celery application whose Beat is that of django-celery-beat, and whose broker is BEAT_BROKER.
Its worker has the tasks echo and sleep, and writes down what it has done by django-celery-results."""
import os

import beat_settings  # noqa: F401
from celery import Celery

app = Celery("shop", broker=os.environ["BEAT_BROKER"], backend="django-db")
app.conf.result_extended = True


@app.task(name="echo")
def echo():
    pass


@app.task(name="sleep")
def sleep():
    pass
