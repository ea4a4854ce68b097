"""Reads results folders and draws them; the same folder gives the same report."""
