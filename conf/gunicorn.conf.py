"""How gunicorn runs the intake. `glassq-web` uses the copy beside glassq.toml, if there is one, else this one.

Address, processes, threads and limits are in glassq.toml, section [intake]. The settings here limit what strangers can
do; https://gunicorn.org/reference/settings/ explains every name.
"""

import os
import resource

from glassq import log
from glassq.http.gunicorn_log import GunicornLog
from glassq.http.gunicorn_worker import BufferingWorker
from glassq.intake.listen import addresses
from glassq.settings import INTAKE, load

_settings = load(None, os.environ, INTAKE)
_intake = _settings.intake

bind = [str(address) for address in addresses(_settings)]
workers = _intake.workers
threads = _intake.threads

# A request is worked only after all of it has arrived.
BufferingWorker.request_timeout = float(_intake.request_timeout)
BufferingWorker.max_body = int(_intake.max_body)
BufferingWorker.memory_max = int(_intake.memory_max)
BufferingWorker.spill_max = int(_intake.spill_max)
worker_class = BufferingWorker
# Maximum number of connections in one worker; each costs a descriptor and, while its request arrives, some KiB.
# Some descriptors are reserved for the queue and the log (ulimit -Hn, LimitNOFILE). When there are more connections,
# the worker closes the one that has been without a whole request for longest: slow clients cannot keep others out.
worker_connections = max(threads + 1, min(4000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - threads - 50))
# Connections that wait to be accepted; the kernel keeps at most net.core.somaxconn. If the backlog is full, a client's
# kernel tries again after a second.
backlog = 4096
# The C parser (gunicorn_h1c) if it is installed: the same rules as the Python one, in a quarter of the time.
http_parser = "auto"

# Idle connections are closed after this many seconds.
keepalive = 5
# Graceful shutdown: time to finish running requests, in seconds. Each takes half a second, and a write to the journal.
graceful_timeout = 10
# A worker whose main loop gives no heartbeat for this many seconds is killed; the loop never blocks.
timeout = 30
# The heartbeat file belongs in memory: on a slow disk it would look like a hanging worker.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112, S108
control_socket_disable = True

# Limits of one request's head.
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190

# Ignore X-Forwarded-* and SCRIPT_NAME headers: any client can set them.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers = {}

# The app logs one line per event; gunicorn's access log would repeat what senders write.
accesslog = None
proc_name = "glassq-web"

# gunicorn's own lines have our form, from the first one on.
logger_class = GunicornLog
log.setup(_settings.log.level, form=_settings.log.format, journal=os.environ.get("JOURNAL_STREAM"))
