"""The only room that wires lab, server, fleet, sampler and record together."""
