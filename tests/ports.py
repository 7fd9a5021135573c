"""Ports for servers and coordinators that tests start."""

import socket


def free_port() -> int:
    """One of loopback's that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
