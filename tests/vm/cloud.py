"""What stands on this host: certificates, a mosquitto that demands them, and all that arrives at it."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path

HOST = "10.0.2.2"  # this host, as seen from the machine


class Cloud:
    """The broker and a subscriber. The gateway's certificate has the common name gw-042."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.port = free_port(socket.SOCK_STREAM)
        self._certify()
        (self.directory / "mosquitto.conf").write_text(
            f"user root\nlistener {self.port} 127.0.0.1\nrequire_certificate true\nuse_identity_as_username true\n"
            f"cafile {directory}/ca.pem\ncertfile {directory}/broker.pem\nkeyfile {directory}/broker.key\n"
        )
        path = f"{os.environ['PATH']}:/usr/sbin"
        log = (self.directory / "mosquitto.log").open("w")
        self.broker = subprocess.Popen(
            ["mosquitto", "-c", self.directory / "mosquitto.conf"], stderr=log, env={**os.environ, "PATH": path}
        )
        end = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", self.port)) != 0:
            if time.monotonic() > end or self.broker.poll() is not None:
                raise RuntimeError("mosquitto does not start: " + (self.directory / "mosquitto.log").read_text())
            time.sleep(0.1)
        self.arrived = self.directory / "arrived"
        identity = ["--cafile", "ca.pem", "--cert", "watcher.pem", "--key", "watcher.key"]
        self.watcher = subprocess.Popen(
            ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(self.port), *identity, "-q", "1", "-v", "-t", "weir/#"],
            cwd=self.directory,
            stdout=self.arrived.open("w"),
        )

    def messages(self, topic="data/"):
        """Everything that has arrived below the topic, each id once, in the order of arrival."""
        seen = {}
        for line in self.arrived.read_text().splitlines(keepends=True):
            place, _, payload = line.partition(" ")
            if line.endswith("\n") and place.startswith(f"weir/gw-042/{topic}"):
                message = json.loads(payload)
                seen.setdefault(message["id"], message)
        return list(seen.values())

    def numbers(self, device):
        """The numbers that readings of the device bore, in the order of arrival."""
        frames = (message for message in self.messages() if message["device"] == device)
        return [int(frame["metrics"]["n"]["value"]) for frame in frames if "n" in frame["metrics"]]

    def windows(self, device):
        """The windows of the device's temperature."""
        return [message for message in self.messages() if message["device"] == device and "window" in message]

    def stop(self):
        for process in (self.watcher, self.broker):
            process.kill()
            process.wait()

    def _certify(self):
        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)

        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl("req", "-x509", *new_key, "-subj", "/CN=CA of the test", "-keyout", "ca.key", "-out", "ca.pem")
        extensions = {
            "broker": f"subjectAltName=IP:{HOST},IP:127.0.0.1\nextendedKeyUsage=serverAuth",
            "gateway": "extendedKeyUsage=clientAuth",
            "watcher": "extendedKeyUsage=clientAuth",
        }
        for name, extension in extensions.items():
            subject = "gw-042" if name == "gateway" else name
            openssl("req", *new_key, "-subj", f"/CN={subject}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
            (self.directory / "extension").write_text(extension)
            signer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extension"]
            openssl("x509", "-req", "-in", f"{name}.csr", *signer, "-days", "30", "-out", f"{name}.pem")


def free_port(kind):
    """A port of this host that nothing uses."""
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
