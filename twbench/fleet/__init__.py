"""The client fleet: engines, pacing and pools. Knows nothing of server, sampler or lab."""
