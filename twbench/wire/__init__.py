"""The userspace wire: packets, rules, stop-motion, captures.

May import model, kernel and process; never lab, server or fleet: whoever uses it hands in what
opens the sockets.
"""
