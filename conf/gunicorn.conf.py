"""How gunicorn runs the intake. `glassq-web` uses the copy beside glassq.toml, if there is one, else this one.

What you are likely to change (address, processes, threads, limits) is in glassq.toml, section [intake]. What is set
here keeps strangers in bounds; https://gunicorn.org/reference/settings/ explains every name.
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
# Connections that one worker holds at a time; each costs a descriptor and, while its request arrives, some KiB.
# Some descriptors are left for the queue and the log (ulimit -n, LimitNOFILE). When there are more connections, the one
# that has been without a whole request for longest is closed: clients that never finish keep nobody else out.
worker_connections = max(threads + 1, min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - threads - 50))
# Connections that wait to be accepted; the kernel keeps at most net.core.somaxconn. A client that finds no place there
# tries again after a second.
backlog = 4096
# The C parser (gunicorn_h1c) where it is installed: the same rules as the Python one, in a quarter of the time.
http_parser = "auto"

# A sender that sends again within this time need not connect anew, in seconds.
keepalive = 5
# A stop finishes what is being answered (5 s at the most, see glassq/intake/enqueue.py), then ends.
graceful_timeout = 10
# A worker whose main loop is silent for so long is killed; it never waits for anything, in seconds.
timeout = 30
# The heartbeat file belongs in memory: on a slow disk it would look like a hanging worker.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112, S108
control_socket_disable = True

# Limits of one request's head.
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190

# Nobody is believed who says for whom he speaks: no X-Forwarded-*, no SCRIPT_NAME out of headers.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers = {}

# One line per event comes from the app itself; gunicorn's access log would repeat what senders write.
accesslog = None
proc_name = "glassq-web"

# Its own lines, from the first on, have our form.
logger_class = Lines
log.setup(_settings.log.level, form=_settings.log.format, journal=os.environ.get("JOURNAL_STREAM"))
