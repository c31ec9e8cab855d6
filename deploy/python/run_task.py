"""run_task.py [--app package.module:attribute] [name]

Calls a Celery task, or any function, by its name: a command of Riverbeat. The run is JSON on
standard input. The name, by default its task_name, is that of a task of the Celery app, or
without --app a path: package.module.function. See docs/python-tasks.md.
"""
import asyncio
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
        return asyncio.run(task(*args, **kwargs)) if asyncio.iscoroutinefunction(task) else task(*args, **kwargs)
    from celery.app.trace import task_has_custom
    task.push_request(id=run["run_id"], retries=run["attempt"] - 1, args=args, kwargs=kwargs, called_directly=True)
    try:
        return (task if task_has_custom(task, "__call__") else task.run)(*args, **kwargs)
    finally:
        task.pop_request()


def main(app=None, name=None):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # finally comes to its turn
    results = os.dup(1)
    os.dup2(2, 1)  # what the task prints is no result
    sys.path.insert(0, os.getcwd())
    try:
        run = json.load(sys.stdin.buffer)
        task = find(name or run["task_name"], app)
    except (ImportError, AttributeError, LookupError, ValueError):
        traceback.print_exc()
        sys.exit(64)  # sysexits.h: no other attempt is made
    result = call(task, run)
    try:
        text = json.dumps(result, default=str)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(repr(result))
    os.fdopen(results, "w").write(text)


if __name__ == "__main__":
    main(*(sys.argv[2:] if sys.argv[1:2] == ["--app"] else [None, *sys.argv[1:]]))
