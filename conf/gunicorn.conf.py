"""How gunicorn runs the intake. `glassq-web` uses the copy beside glassq.toml, if there is one, else this file.

The settings that you are likely to change (address, processes, threads, limits) are in glassq.toml, section [intake].
The settings here limit what strangers can use up; https://gunicorn.org/reference/settings/ explains every name.
"""

import os
import resource

from glassq import log
from glassq.intake.gate import Gate
from glassq.intake.listen import addresses
from glassq.intake.wsgi import Lines
from glassq.settings import INTAKE, load

_settings = load(None, os.environ, INTAKE)
_intake = _settings.intake

bind = [str(each) for each in addresses(_settings)]
workers = _intake.workers
threads = _intake.threads

# The gate hands a request to a thread only when all of it has arrived.
Gate.request_timeout = float(_intake.request_timeout)
Gate.max_body = int(_intake.max_body)
worker_class = Gate
# Maximum number of connections of one worker. Each costs a descriptor and, while its request arrives, some KiB. Some
# descriptors are left for the queue and the log (ulimit -n, LimitNOFILE). At the limit, the worker closes the
# connection that has been without a whole request for longest: clients that never finish (slowloris) keep nobody else
# out.
worker_connections = max(threads + 1, min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - threads - 50))
# Maximum number of connections that wait to be accepted; the kernel's limit is net.core.somaxconn. Beyond it, a
# client's kernel tries again after a second.
backlog = 4096
# The C parser (gunicorn_h1c) where it is installed: the same rules as the Python one, in a quarter of the time.
http_parser = "auto"

# Idle connections are closed after this many seconds.
keepalive = 5
# Graceful shutdown: time to finish the requests in progress (5 s at most, see glassq/intake/enqueue.py), in seconds.
graceful_timeout = 10
# A worker whose main loop is silent for this many seconds is killed; the loop itself never waits.
timeout = 30
# Keep the heartbeat file in memory: on a slow disk a healthy worker would look hung.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112, S108
control_socket_disable = True

# Limits of one request's head.
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190

# Ignore X-Forwarded-*, and SCRIPT_NAME in headers: any client can set them.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers = {}

# The app logs one line per event itself; gunicorn's access log would repeat what senders write.
accesslog = None
proc_name = "glassq-web"

# gunicorn's own log lines have our format from the start.
logger_class = Lines
log.setup(_settings.log.level, form=_settings.log.format, journal=os.environ.get("JOURNAL_STREAM"))
