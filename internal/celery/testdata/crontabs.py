"""What Celery makes of crontabs: reads JSON lines {"fields": [5 texts], "zone", "now"}, and writes for
each the sets of its numbers and when it fires next, or what is wrong with it."""
import json
import sys
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

from django_celery_beat.tzcrontab import TzAwareCrontab

for line in sys.stdin:
    asked = json.loads(line)
    minute, hour, day, month, weekday = asked["fields"]
    zone = ZoneInfo(asked["zone"])
    now = datetime.fromtimestamp(asked["now"], zone)
    try:
        c = TzAwareCrontab(minute=minute, hour=hour, day_of_month=day, month_of_year=month, day_of_week=weekday, tz=zone)
    except Exception as problem:
        print(json.dumps({"problem": str(problem)}))
        continue
    c.nowfun = lambda now=now: now
    answer = {"sets": [sorted(s) for s in (c.minute, c.hour, c.day_of_month, c.month_of_year, c.day_of_week)]}
    try:
        answer["next"] = round((now + c.remaining_estimate(now)).astimezone(timezone.utc).timestamp())
    except Exception as problem:
        answer["never"] = str(problem)
    print(json.dumps(answer), flush=True)
