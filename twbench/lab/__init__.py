"""The lab room: hosts that are network namespaces, the links between them, and what they may do.

It makes hosts, wires them, writes and checks their sysctls, starts programs on them, and leaves
nothing behind. `doctor` says what this machine allows. The room moves no traffic, reads no
counters, and never writes a setting of the machine itself.
"""
