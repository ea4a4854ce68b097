"""Kernel bytes to rows, and the readers that bring the bytes.

The codecs (`sockdiag`, `portfilter`, `procnet`, `proctcp`, `summary`) are pure: bytes or arrays in,
rows or counts out, `CodecError` for anything malformed. The readers own descriptors, and at most a
thread: they never create a namespace, never change a sysctl, never send a packet, and know no room
but `model`.
"""
