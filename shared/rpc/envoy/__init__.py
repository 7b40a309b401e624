"""The transport inside Envoy. See docs/transports.md."""
