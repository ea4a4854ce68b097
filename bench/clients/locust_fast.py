"""Locust's FastHttpUser, one process, no pauses: runs in the environment of bench/locust.lock.

Speaks a fleet worker's protocol (twbench/fleet/worker.py) on standard input and output, and uses
nothing of twbench.
"""

# Locust and gevent are in an environment of their own.
# mypy: ignore-errors
# mypy: disable-error-code="import-untyped,import-not-found"

import itertools
import json
import sys
import time

import gevent
from locust import FastHttpUser, constant, task
from locust.env import Environment


class User(FastHttpUser):
    """Asks for a page as soon as it has the one before; each on a connection of its own."""

    host = "http://set-from-the-plan"
    urls = itertools.cycle([""])
    wait_time = constant(0)

    @task
    def ask(self) -> None:
        """Make one request."""
        self.client.get(next(self.urls), name="page", headers={"Connection": "close"})


def main() -> None:
    """Carry a fleet plan's closed load."""
    plan = json.loads(sys.stdin.readline())
    load = plan["scenario"]["load"]
    User.urls = itertools.cycle([f"http://{a}:{p}/" for a, p in plan["destinations"]])
    environment = Environment(user_classes=[User])
    runner = environment.create_local_runner()
    print(json.dumps({"ready": {"engine": "locust"}}), flush=True)
    start_ns = int(sys.stdin.readline().split()[1])
    time.sleep(max(0, start_ns - time.monotonic_ns()) / 1e9)
    runner.start(load["concurrency"], spawn_rate=load["concurrency"])
    gevent.sleep(load["duration_s"])
    told = environment.stats.total
    # read at once, before stopping cuts off what is under way
    asked, failed, at_ns = told.num_requests, told.num_failures, time.monotonic_ns()
    print(json.dumps({"t_ns": at_ns, "attempted": asked, "ok": asked - failed}))
    print(json.dumps({"done": True}), flush=True)


if __name__ == "__main__":
    main()
