"""What anyload costs, each figure beside what it would cost without it: `make bench`."""
