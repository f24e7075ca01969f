"""One frozen Settings value from glassq.toml.

Each program calls `load` once, at its root; nobody else reads the environment. Every error names the file, the key, the
value and what is expected.
When you add a key: add it to sections.py with its default, and to conf/glassq.toml with its unit and reason (a test
compares the two). What it must keep with other keys is a rule in rules.py.
"""

from glassq.settings.hosts import remarks_on_shared
from glassq.settings.options import options_of, read_only
from glassq.settings.parking import SUFFIX, ParkingTube, hashed_key, parked_of, parking_tube
from glassq.settings.reading import (
    DEFAULT_FILE,
    INTAKE,
    POOL,
    SECTIONS,
    TASK_SERVER,
    TASKS,
    file_of,
    find_modules_beside,
    installed_file,
    load,
    parse,
)
from glassq.settings.route import DEFERRED_NAME, TASKS_NAME, FirstMatch, Route, label_fits
from glassq.settings.sections import (
    DUE_LABEL,
    MAX_BODY,
    SCHEDULE_LABEL,
    SCHEDULE_SOURCE,
    TASK_SOURCE,
    ConsoleSettings,
    GlassSettings,
    IntakeSettings,
    LedgerSettings,
    PushSettings,
    QueueSettings,
    ScheduleSettings,
    SourceSettings,
    StorageSettings,
    TasksSettings,
    WorkerQueue,
    WorkerSettings,
)
from glassq.settings.settings import LEASE_MARGIN, Settings, route_secret_files, route_secret_key, secret_files
from glassq.settings.tubes import (
    MAIN_QUEUE,
    named_tubes,
    ping_tube,
    pool_prefixes,
    queue_prefix,
    queue_tube,
    route_prefix,
    route_tube,
    source_tube,
)
from glassq.settings.writing import as_toml, toml_value

__all__ = [
    "DEFAULT_FILE",
    "DEFERRED_NAME",
    "DUE_LABEL",
    "INTAKE",
    "LEASE_MARGIN",
    "MAIN_QUEUE",
    "MAX_BODY",
    "POOL",
    "SCHEDULE_LABEL",
    "SCHEDULE_SOURCE",
    "SECTIONS",
    "SUFFIX",
    "TASKS",
    "TASKS_NAME",
    "TASK_SERVER",
    "TASK_SOURCE",
    "ConsoleSettings",
    "FirstMatch",
    "GlassSettings",
    "IntakeSettings",
    "LedgerSettings",
    "ParkingTube",
    "PushSettings",
    "QueueSettings",
    "Route",
    "ScheduleSettings",
    "Settings",
    "SourceSettings",
    "StorageSettings",
    "TasksSettings",
    "WorkerQueue",
    "WorkerSettings",
    "as_toml",
    "file_of",
    "find_modules_beside",
    "hashed_key",
    "installed_file",
    "label_fits",
    "load",
    "named_tubes",
    "options_of",
    "parked_of",
    "parking_tube",
    "parse",
    "ping_tube",
    "pool_prefixes",
    "queue_prefix",
    "queue_tube",
    "read_only",
    "remarks_on_shared",
    "route_prefix",
    "route_secret_files",
    "route_secret_key",
    "route_tube",
    "secret_files",
    "source_tube",
    "toml_value",
]
