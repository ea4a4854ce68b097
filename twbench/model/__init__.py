"""Pure data: states, endings, scenarios, outcomes, errors. Imports nothing of ours.

But for the scenario's own file (`parse.load_scenario`) nothing here is opened or read.
"""
