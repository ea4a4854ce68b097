"""Each ending played in stop-motion on two hosts of its own, as a ladder and a capture.

May import model, lab and wire.
"""
