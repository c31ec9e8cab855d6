"""Calls a Celery task, or any function, by its name: a command of Riverbeat.

    python3 run_task.py [--app package.module:attribute] [name]

The run is JSON on standard input: its args and task_params are the arguments, and its
task_name is the name if none is given. With --app it is a task of that Celery app, without
it what the name leads to: package.module.function. See docs/python-tasks.md.
"""

import argparse
import importlib
import json
import os
import signal
import sys
import traceback


def find(name, app):
    if app:
        module, _, attribute = app.partition(":")
        celery = getattr(importlib.import_module(module), attribute or "app")
        celery.loader.import_default_modules()
        return celery.tasks[name]
    module, _, function = name.rpartition(".")
    return getattr(importlib.import_module(module), function)


def call(task, run):
    args, kwargs = run["args"], run["task_params"]
    if not hasattr(task, "push_request"):  # no task of Celery
        return task(*args, **kwargs)
    task.push_request(id=run["run_id"], retries=run["attempt"] - 1, args=args, kwargs=kwargs, called_directly=True)
    try:
        return task.run(*args, **kwargs)
    finally:
        task.pop_request()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # finally comes to its turn
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the task prints is no result
    sys.path.insert(0, os.getcwd())
    parser = argparse.ArgumentParser()
    parser.add_argument("--app")
    parser.add_argument("name", nargs="?")
    given, run = parser.parse_args(), json.load(sys.stdin)
    try:
        task = find(given.name or run["task_name"], given.app)
    except (ImportError, AttributeError, LookupError, ValueError):
        traceback.print_exc()
        sys.exit(64)  # sysexits.h: no other attempt is made
    with results:
        json.dump(call(task, run), results, default=str)


if __name__ == "__main__":
    main()
