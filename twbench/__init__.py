"""twbench: an asyncio load generator and TCP lab that shows who holds TIME_WAIT, and why.

As a library it has the verbs of the command line as functions, loaded when first used. A verb whose
name is also a room's says what it works on: `run_scenario`, `predict_scenario`.
"""

from importlib import import_module

__version__ = "0.1.0"

_VERBS = {
    "load_scenario": ("twbench.model.parse", "load_scenario"),
    "run_scenario": ("twbench.run.course", "run_scenario"),
    "load_contest": ("twbench.model.contest", "load_contest"),
    "compare_scenarios": ("twbench.compare.runner", "compare_scenarios"),
    "predict_scenario": ("twbench.run.planning", "predict_scenario"),
    "trace_ending": ("twbench.trace.trace", "trace_ending"),
    "run_claims": ("twbench.claims.runner", "run"),
    "examine": ("twbench.lab.doctor", "examine"),
    "read_run": ("twbench.record.reader", "read_run"),
}
__all__ = ["__version__", *_VERBS]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> object:
    """Load a verb when it is first asked for."""
    if name not in _VERBS:
        raise AttributeError(name)
    module, attribute = _VERBS[name]
    verb: object = getattr(import_module(module), attribute)
    return verb
