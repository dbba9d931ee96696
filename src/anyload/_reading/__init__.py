"""Reading and checking what people wrote: YAML, environment variables, names, values."""
