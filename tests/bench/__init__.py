"""What `make bench` and `make soak` run. Not part of `make test`."""
