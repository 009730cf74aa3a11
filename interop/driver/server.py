"""A real `highwater serve` on a port and a store of its own."""

import json
import os
import random
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path


class Server:
    """A server that can be stopped, killed and started again where it was."""

    def __init__(self, binary, folder, *options, environment=None):
        self.binary, self.folder, self.options = binary, Path(folder), options
        self.environment = {**os.environ, "RUST_LOG": "info", **(environment or {})}
        self.log_file = self.folder / "server.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None
        self.start()

    def start(self):
        store = self.folder / "store"
        self.process = subprocess.Popen(
            [self.binary, "--json", "serve", "--listen", f"127.0.0.1:{self.port}", "--store", store, *self.options],
            stdout=subprocess.PIPE,
            stderr=open(self.log_file, "ab"),
            text=True,
            env=self.environment,
        )
        line = self.process.stdout.readline()
        assert line, f"the server did not start:\n{self.log()}"
        assert json.loads(line)["listening"] == self.url, line

    def log(self):
        return self.log_file.read_text()

    def stop(self):
        """Asks it to stop, and waits."""
        self.end(signal.SIGTERM)

    def kill(self):
        """kill -9."""
        self.end(signal.SIGKILL)

    def end(self, how):
        if self.process:
            self.process.send_signal(how)
            self.process.wait(40)
            self.process.stdout.close()
            self.process = None

    def restart(self, how=signal.SIGTERM):
        self.end(how)
        self.start()

    def get(self, path, token=""):
        """Status and body of a plain GET."""
        request = urllib.request.Request(f"{self.url}{path}", headers={"authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def free_port():
    """A free port that no outgoing connection takes while the server is restarted."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
