"""One load, from the request to the model: flights, turns, workers, waiters and their core."""
