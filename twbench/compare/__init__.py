"""Contestants run in turn on fresh hosts, and what can be said of their differences.

May import model, run and record. It draws nothing: `report` reads what is told here.
"""
