"""What the processes of a run have in common: loop, limits, lines in and out, socket facts."""
