"""A private Postgres and a private Valkey for a bare machine: Unix sockets only, gone when their owner is gone."""
