"""Servers to compare with, each started with its data in a temporary directory and on a free port, and ended with this process."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

PACKAGES = {"mosquitto": "mosquitto", "ejabberd": "ejabberd", "prosody": "prosody"}
PROGRAMS = {"mosquitto": ["/usr/sbin/mosquitto"], "ejabberd": ["/usr/sbin/ejabberdctl"], "prosody": ["/usr/bin/prosody"]}
READY_MAX_S = 60
HOST = "bench.local"

EJABBERD = """
hosts: [{host}]
loglevel: error
listen:
  - {{port: {port}, ip: "127.0.0.1", module: ejabberd_c2s, starttls: false, access: c2s, shaper: none, max_stanza_size: 262144, backlog: 1024}}
auth_method: internal
auth_password_format: plain
access_rules:
  c2s: {{allow: all}}
  register: {{allow: all}}
registration_timeout: infinity
modules:
  mod_register: {{access: register, ip_access: all}}
  mod_roster: {{}}
  mod_offline: {{}}
  mod_ping: {{}}
"""

PROSODY = """
daemonize = false
run_as_root = true
pidfile = "{dir}/prosody.pid"
data_path = "{dir}"
certificates = "{dir}"
log = {{ error = "{dir}/prosody.log" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
s2s_ports = {{}}
c2s_direct_tls_ports = {{}}
modules_enabled = {{ "roster", "saslauth", "disco", "ping", "register_ibr", "offline" }}
modules_disabled = {{ "s2s", "tls" }}
allow_registration = true
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
network_backend = "epoll"
VirtualHost "{host}"
"""


def install(names):
    """Installs what is missing; nothing is started, whatever the package would do."""
    missing = [PACKAGES[name] for name in names if name in PACKAGES and not any(map(os.path.exists, PROGRAMS[name]))]
    if not missing:
        return
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    subprocess.run([*as_root, "apt-get", "update"], check=True, stdout=subprocess.DEVNULL)
    install = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "install", "-y", "--no-install-recommends"]
    # Where there is no such policy the package would start its server at once, on a port that may be ours.
    policy = "/usr/sbin/policy-rc.d"
    ours = not os.path.exists(policy)
    if ours:
        text = "#!/bin/sh\nexit 101\n"
        subprocess.run([*as_root, "sh", "-c", f"printf '{text}' > {policy} && chmod 755 {policy}"], check=True)
    try:
        subprocess.run([*install, *missing], check=True, stdout=subprocess.DEVNULL)
    finally:
        if ours:
            subprocess.run([*as_root, "rm", "-f", policy], check=False)


def version(package):
    found = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], stdout=subprocess.PIPE, text=True)
    return found.stdout.split("-")[0].split("+")[0]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@contextlib.contextmanager
def started(name):
    """Starts an XMPP server; the arguments that `natter bench` needs for it."""
    directory = tempfile.mkdtemp(prefix=f"natter-bench-{name}-")
    port = free_port()
    environment = dict(os.environ)
    if name == "ejabberd":
        config = os.path.join(directory, "ejabberd.yml")
        text = EJABBERD.format(host=HOST, port=port)
        environment |= {
            "ERL_LIBS": next(path for path in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib") if os.path.isdir(path)),
            "ERL_MAX_PORTS": "65536",
            "ERL_CRASH_DUMP": os.path.join(directory, "crash"),
            "EJABBERD_CONFIG_PATH": config,
            "EJABBERD_LOG_PATH": os.path.join(directory, "ejabberd.log"),
        }
        # As ejabberdctl would, without a node name: nothing else is to talk to it.
        command = ["erl", "-noinput", "+K", "true", "+P", "250000", "-mnesia", "dir", f'"{directory}/spool"', "-s", "ejabberd"]
    else:
        config = os.path.join(directory, "prosody.cfg.lua")
        text = PROSODY.format(host=HOST, port=port, dir=directory)
        command = ["prosody", "--config", config]
    with open(config, "w") as file:
        file.write(text)
    with open(os.path.join(directory, "output"), "w") as output:
        child = subprocess.Popen(command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=die_with_parent)
    try:
        deadline = time.monotonic() + READY_MAX_S
        while True:
            if child.poll() is not None or time.monotonic() > deadline:
                with open(os.path.join(directory, "output")) as output:
                    sys.exit(f"{name} does not listen on port {port}:\n{output.read()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        # What a start still does behind its first listener.
        time.sleep(1)
        title = {"ejabberd": "ejabberd", "prosody": "Prosody"}[name]
        yield ["--xmpp", f"127.0.0.1:{port}", "--pid", str(child.pid), "--name", f"{title} {version(PACKAGES[name])}"]
    finally:
        child.kill()
        child.wait()
        shutil.rmtree(directory, ignore_errors=True)
