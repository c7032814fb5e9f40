"""A slow line to a server on this machine."""

import contextlib
import socket
import threading
import time


class SlowLine:
    """Passes connections on to a port of this machine; each answer comes ``delay_s`` late."""

    def __init__(self, port: int, delay_s: float = 0.0) -> None:
        """Listen; ``delay_s`` may be changed at any time."""
        self.delay_s = delay_s
        self.num_answers = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        """Pass on what both sides say, until one of them has nothing more to say."""
        try:
            server = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            client.close()
            return
        asked = threading.Event()
        back = threading.Thread(target=self._answer, args=(server, client, asked), daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                asked.set()
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket, asked: threading.Event) -> None:
        with contextlib.suppress(OSError), client, server:
            while data := server.recv(65536):
                if asked.is_set():
                    asked.clear()
                    time.sleep(self.delay_s)
                    self.num_answers += 1
                client.sendall(data)
