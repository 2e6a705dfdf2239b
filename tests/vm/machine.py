"""The emulated gateway: an armv7 machine with Debian and systemd, started from a copy of what tests/vm/build made.

From inside, 10.0.2.2 is this host, and /dev/ttyUSB0 is an FTDI adapter whose other end is here. Commands
run as root in a shell on the machine's console.
"""

import re
import shlex
import shutil
import socket
import subprocess
import tarfile
import time
from pathlib import Path

ADAPTER = "usb-serial,chardev=line,id=adapter,always-plugged=on"
NETWORK = "net0"


class Failed(Exception):
    """A command failed in the machine, or the machine itself."""


class Machine:
    """One gateway, with a disk that outlives a power cut."""

    def __init__(self, image, directory, files, udp):
        """`files` are copied to /root at the first boot; `udp` is (port here, port there)."""
        self.image, self.directory, self.udp = Path(image), Path(directory), udp
        # The image is mostly holes.
        subprocess.run(["cp", "--sparse=always", self.image / "disk.img", self.directory / "disk.img"], check=True)
        self.parcel = self.directory / "parcel.tar"
        with tarfile.open(self.parcel, "w", format=tarfile.USTAR_FORMAT) as parcel:
            for file in files:
                parcel.add(file, arcname=Path(file).name)
        self.qemu = self.console = self.serial = None
        self.boot()
        self.run("tar xf /dev/vdb && chown -R root:root .")

    def boot(self):
        """Switches the machine on, and returns when its shell is there."""
        sockets = {name: self.directory / f"{name}.socket" for name in ("console", "monitor", "line")}
        for path in sockets.values():
            path.unlink(missing_ok=True)
        listening = {name: f"socket,id={name},path={path},server=on,wait=off" for name, path in sockets.items()}
        here, there = self.udp
        self.qemu = subprocess.Popen(
            ["qemu-system-arm", "-M", "virt,highmem=off", "-cpu", "cortex-a15", "-smp", "2", "-m", "512"]
            + ["-kernel", self.image / "vmlinuz", "-initrd", self.image / "ramdisk.gz"]
            + ["-append", "console=ttyAMA0 quiet loglevel=1 systemd.show_status=no"]
            + ["-drive", f"if=none,id=parcel,file={self.parcel},format=raw,readonly=on"]
            + ["-drive", f"if=none,id=root,file={self.directory}/disk.img,format=raw"]
            # The later device becomes /dev/vda.
            + ["-device", "virtio-blk-device,drive=parcel", "-device", "virtio-blk-device,drive=root"]
            + ["-netdev", f"user,id={NETWORK},hostfwd=udp:127.0.0.1:{here}-:{there}"]
            + ["-device", f"virtio-net-device,netdev={NETWORK}", "-device", "virtio-rng-device"]
            + ["-chardev", listening["console"], "-serial", "chardev:console"]
            + ["-chardev", listening["monitor"], "-mon", "chardev=monitor"]
            + ["-chardev", listening["line"], "-device", "qemu-xhci", "-device", ADAPTER]
            + ["-display", "none", "-no-reboot"],
            stdin=subprocess.DEVNULL,
        )
        self.console = self._connect(sockets["console"])
        self.monitor = self._connect(sockets["monitor"])
        self.serial = self._connect(sockets["line"])
        self._read_until(re.compile("the shell is here"), 300)

    def run(self, command, seconds=120, check=True):
        """Runs a shell command and returns what it prints."""
        self.console.sendall(f"{{ {command}\n}} </dev/null 2>&1; echo \"{{status $?}}\"\n".encode())
        printed = self._read_until(re.compile(r"\{status (\d+)\}"), seconds)
        output, status = re.fullmatch(r"(.*)\{status (\d+)\}\s*", printed, re.DOTALL).groups()
        if check and status != "0":
            raise Failed(f"`{command}` ended with {status}:\n{output}")
        return output.strip()

    def write(self, path, text):
        """Writes a file in the machine."""
        self.run(f"printf %s {shlex.quote(text)} >{path}")

    def write_line(self, text):
        """Writes a line to the serial adapter."""
        try:
            self.serial.sendall(f"{text}\n".encode())
        except TimeoutError:
            raise Failed("nobody in the machine reads the serial adapter") from None

    def unplug(self):
        """Pulls the serial adapter out."""
        self._order("device_del adapter")

    def plug(self):
        """Puts the serial adapter back."""
        self._order(f"device_add {ADAPTER}")

    def cable(self, plugged):
        """Puts the network cable in, or pulls it out."""
        self._order(f"set_link {NETWORK} {'on' if plugged else 'off'}")

    def cut(self):
        """Cuts the power: what the machine had not yet brought to its disk is gone."""
        self.qemu.kill()
        self.qemu.wait()
        for connection in (self.console, self.monitor, self.serial):
            connection.close()

    def remove(self):
        """Ends the machine and forgets its disk."""
        self.cut()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _order(self, order):
        self.monitor.sendall(f"{order}\n".encode())

    def _connect(self, path):
        end = time.monotonic() + 30
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(path))
            except OSError:
                connection.close()
                if time.monotonic() > end or self.qemu.poll() is not None:
                    raise Failed("qemu-system-arm does not start") from None
                time.sleep(0.1)
            else:
                connection.settimeout(1)
                return connection

    def _read_until(self, pattern, seconds):
        end, printed = time.monotonic() + seconds, ""
        while not pattern.search(printed):
            if time.monotonic() > end or self.qemu.poll() is not None:
                raise Failed(f"the machine says nothing for {seconds} s:\n{printed}")
            try:
                printed += self.console.recv(65536).decode("utf-8", "replace").replace("\r", "")
            except TimeoutError:
                pass
        return printed
