"""The schedule of ticks and looks, and the task that keeps it.

Reads kernels through the readers it is given and hands what it read to a callback. It writes no
file, starts no host and knows neither the server nor the fleet.
"""
