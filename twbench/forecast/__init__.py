"""Port-budget arithmetic: what a load must do to ports and TIME_WAIT, before anything runs.

Pure functions of numbers with their units. This room reads no clock, no file and no kernel, and
knows no scenario: whoever calls it says how many ports, for how long, and at what rate.
"""

from twbench.forecast.budget import (
    CLIENT_TIME_WAIT,
    NO_TIME_WAIT,
    REUSED_TIME_WAIT,
    SERVER_TIME_WAIT,
    Hold,
    PortBudget,
    Scan,
)
from twbench.forecast.loads import ClosedLoad, OpenLoad, Stage
from twbench.forecast.predict import Forecast, predict, predict_capacity

__all__ = [
    "CLIENT_TIME_WAIT",
    "NO_TIME_WAIT",
    "REUSED_TIME_WAIT",
    "SERVER_TIME_WAIT",
    "ClosedLoad",
    "Forecast",
    "Hold",
    "OpenLoad",
    "PortBudget",
    "Scan",
    "Stage",
    "predict",
    "predict_capacity",
]
