"""How a timeline and the figures of a benchmark become a picture; floor 5."""
