"""A slow road: a TCP relay on the loopback address that holds all bytes back for half a round trip, each way.

Run as a program (``python -m benchmarks.road PORT SECONDS``) it prints the port that it listens on. Threads and not
an event loop, since `time.sleep` wakes within 0.1 ms where a loop's timers count in whole milliseconds.
"""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time


def main(port: int, round_trip: float) -> None:
    """Relay connections to ``port`` until the process is ended."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _start_way(source, sink, round_trip / 2)


def _start_way(source: socket.socket, sink: socket.socket, delay: float) -> None:
    held: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
    for work in (lambda: _take(source, held, delay), lambda: _give(sink, held)):
        threading.Thread(target=work, daemon=True).start()


def _take(source: socket.socket, held: queue.SimpleQueue[tuple[float, bytes]], delay: float) -> None:
    data = b"-"
    while data:
        try:
            data = source.recv(1 << 18)
        except OSError:
            data = b""
        held.put((time.monotonic() + delay, data))


def _give(sink: socket.socket, held: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    while True:
        due, data = held.get()
        if (wait := due - time.monotonic()) > 0:
            time.sleep(wait)
        try:
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)
        except OSError:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
