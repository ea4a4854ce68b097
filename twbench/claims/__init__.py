"""Textbook claims put to the running kernel: one file each, with experiment, judgement and control.

May import model, kernel, lab, wire, trace and record. A claim is data: scenes that play on hosts
of their own and return findings, and a pure judge of those findings.
"""
