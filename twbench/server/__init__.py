"""The bundled server: HTTP/1.1 and the endings of the table. Knows nothing of fleet or sampler."""
